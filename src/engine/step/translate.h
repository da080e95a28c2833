/* What translate.c (operands) and choose.c (handlers) share. */
#ifndef NADIR_ENGINE_STEP_TRANSLATE_H
#define NADIR_ENGINE_STEP_TRANSLATE_H

#include "engine/step/state.h"

/* Byte offset in struct vcpu of a register operand's value; AH to BH are the second byte of their register. */
u16 op_register_offset(ZydisRegister reg);
/* The segment of the memory operand. */
void op_set_segment(struct op *op, unsigned segment);
/* The handler of a decoded instruction; completes the operands where its kind has its own. */
op_fn op_choose(const struct insn *insn, struct op *op);

static inline bool op_is_far(const struct insn *insn)
{
	return insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

#endif
