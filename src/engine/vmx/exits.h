/* What is known of an exit, between enter.c, which takes it from the VMCS, and exits.c, which answers. */
#ifndef NADIR_ENGINE_VMX_EXITS_H
#define NADIR_ENGINE_VMX_EXITS_H

#include "engine/vmx/vmx.h"

/* Take from the current VMCS what the exit's reason has: x->length and the rest. */
void vmx_exit_take(struct vmx_vcpu *x);
/* Whether an IRET that will come again had unblocked NMIs. */
bool vmx_exit_unblocked_nmis(const struct vmx_vcpu *x);

#endif
