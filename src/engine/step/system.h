/* Helpers of the handlers of sensitive instructions. */
#ifndef NADIR_ENGINE_STEP_SYSTEM_H
#define NADIR_ENGINE_STEP_SYSTEM_H

#include "engine/step/memory.h"

static inline bool require_cpl0(struct vcpu *vcpu)
{
	return vcpu->cpl == 0 || vcpu_raise_gp(vcpu, 0);
}

/* Operands that are as wide as the mode: 8 bytes in 64-bit mode, else 4. */
static inline unsigned word_size(const struct op *op)
{
	return op->flags & OP_LONG ? 8 : 4;
}

static inline void set_edx_eax(struct vcpu *vcpu, u64 value)
{
	vcpu->gpr[RAX] = (u32)value;
	vcpu->gpr[RDX] = value >> 32;
}

static inline u64 get_edx_eax(const struct vcpu *vcpu)
{
	return vcpu->gpr[RDX] << 32 | (u32)vcpu->gpr[RAX];
}

#endif
