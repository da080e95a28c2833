/* A processor that refuses an entry says that something of the VMCS is wrong, and not what. This goes through the manual's list of checks and names each
 * field that fails (D2). Intel SDM volume 3, "Checks on VMX Controls and Host-State Area", "Checking and Loading Guest State". */
#ifndef NADIR_ENGINE_VMX_CHECK_H
#define NADIR_ENGINE_VMX_CHECK_H

#include "arch/vmcs.h"
#include "engine/vmx/controls.h"

struct vmx_check {
	const struct vmx_capabilities *capabilities;
	unsigned physical_bits, linear_bits;
	u64 (*read)(void *opaque, u32 field);
	void *opaque;
};

/* One row a check. A rule is said in words, as what follows "must". */
struct vmx_rule {
	u32 field;
	bool (*good)(const struct vmx_check *c, u32 field, u64 value);
	const char *rule;
};

/* The three stages of an entry; a processor that fails in one has not come to the next. */
enum vmx_stage { STAGE_CONTROLS, STAGE_HOST, STAGE_GUEST, STAGE_COUNT };

unsigned vmx_rules(enum vmx_stage stage, const struct vmx_rule **rules);
/* How many rules are broken; `wrong` gets a sentence for each. */
unsigned vmx_check(const struct vmx_check *c, enum vmx_stage stage, void (*wrong)(void *opaque, const char *text), void *opaque);

/* ---- between the files of the checker ---- */

extern const struct vmx_rule vmx_rules_controls[], vmx_rules_host[], vmx_rules_guest[], vmx_rules_segments[];
extern const unsigned vmx_rules_controls_count, vmx_rules_host_count, vmx_rules_guest_count, vmx_rules_segments_count;

static inline u64 check_read(const struct vmx_check *c, enum vmcs_field field)
{
	return c->read(c->opaque, field);
}

static inline bool check_secondary(const struct vmx_check *c, u32 mask)
{
	return (check_read(c, VMCS_PROCESSOR_CONTROLS) & PROC_SECONDARY) && (check_read(c, VMCS_SECONDARY_CONTROLS) & mask);
}

bool check_canonical(const struct vmx_check *c, u32 field, u64 value);
/* A page of physical memory. */
bool check_page(const struct vmx_check *c, u32 field, u64 value);
bool check_cr3(const struct vmx_check *c, u32 field, u64 value);
bool check_cr4(const struct vmx_check *c, u32 field, u64 value);
bool check_pat_value(u64 value);

#endif
