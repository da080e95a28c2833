/* What the handlers of masked accesses know of their instruction, packed into op->imm, and the functions that find it
 * out. */
#ifndef NADIR_ENGINE_STEP_MASKED_H
#define NADIR_ENGINE_STEP_MASKED_H

#include "engine/step/state.h"

enum mask_source { MASK_OPMASK, MASK_VECTOR_SIGNS, MASK_MMX_SIGNS };

struct masked {
	u8 source; /* enum mask_source */
	u8 mask_register;
	u8 mask_bits; /* how many bits of the mask count */
	u8 element;   /* bytes of an element in memory */
	u8 elements;  /* in memory; fewer than mask_bits where memory is broadcast */
	bool packed;  /* compress and expand: the selected elements lie side by side */
	u8 unused[2];
};
static_assert(sizeof(struct masked) == sizeof(u64), "fits op->imm");

struct gather {
	u8 data, index, mask;   /* register numbers */
	u8 element, index_size; /* bytes */
	u8 count;
	bool opmask; /* mask is a K register, else a vector register */
	u8 unused;
};
static_assert(sizeof(struct gather) == sizeof(u64), "fits op->imm");

/* Choosers of translate.c. */
op_fn masked_handler(const struct insn *insn, struct op *op);
op_fn vmaskmov_handler(const struct insn *insn, struct op *op);
op_fn maskmov_handler(const struct insn *insn, struct op *op);
op_fn gather_handler(const struct insn *insn, struct op *op);

#endif
