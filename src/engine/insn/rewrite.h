/* Re-encoding of innocuous guest instructions for execution in 64-bit mode on the host, by patching bytes: register
 * operands keep their numbers or are renamed, a memory operand becomes another. */
#ifndef NADIR_ENGINE_INSN_REWRITE_H
#define NADIR_ENGINE_INSN_REWRITE_H

#include "engine/insn/decode.h"

struct rewritten {
	u8 bytes[24];
	u8 length;
};

/* A register that may hold the address of the memory operand: one of RDI, RSI, RDX, RCX, RBX, RAX that the instruction
 * neither reads nor writes. */
enum gpr insn_scratch(const struct insn *insn);

#define NO_REGISTER 0xff

/* A memory operand of host code: [base + index << scale + disp]. index may be NO_REGISTER, and is never RSP; without a base there is no
 * index either. */
struct place {
	u8 base, index, scale;
	s32 disp;
};

/* Which host register stands for each general register of the guest that an instruction names explicitly, and what for its memory operand. */
struct register_map {
	u8 gpr[GPR_COUNT];
	struct place memory;
};

/* Write the host form of an innocuous instruction with its registers renamed. False: it has no 64-bit form, or AH to BH meet a
 * register that needs a REX prefix. */
bool insn_rewrite_renamed(const struct insn *insn, const struct register_map *map, struct rewritten *out);
/* The same with every register as it is, and `scratch` for the memory operand, if any. */
bool insn_rewrite(const struct insn *insn, enum gpr scratch, struct rewritten *out);

/* The host form of LEA with a 32- or 64-bit address that does not involve RIP: address registers stay. False: not
 * expressible. */
bool insn_rewrite_lea(const struct insn *insn, struct rewritten *out);

#endif
