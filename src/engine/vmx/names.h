/* Names of what VT-x calls by numbers: VMCS fields, exit reasons, VM-instruction errors. */
#ifndef NADIR_ENGINE_VMX_NAMES_H
#define NADIR_ENGINE_VMX_NAMES_H

#include "arch/vmcs.h"
#include "arch/vmx.h"

struct vmcs_field_row {
	u16 field;
	u8 group; /* enum vmcs_group */
	const char *name;
};

/* All fields, group by group. */
unsigned vmcs_fields(const struct vmcs_field_row **rows);
const char *vmcs_field_name(u32 field);
const char *vmcs_group_name(enum vmcs_group group);
/* Of an exit reason, with or without its upper bits. */
const char *vmx_exit_name(u32 reason);
const char *vmx_error_name(u32 error);

#endif
