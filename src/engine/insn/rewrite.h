/* Re-encoding of innocuous guest instructions for execution in 64-bit mode on the host, by patching bytes: register
 * operands keep their numbers, a memory operand becomes [scratch]. */
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

/* Write the host form of an innocuous instruction; `scratch` is used where it has a memory operand. False: it has no
 * 64-bit form (the caller classified wrongly). */
bool insn_rewrite(const struct insn *insn, enum gpr scratch, struct rewritten *out);

/* The host form of LEA with a 32- or 64-bit address that does not involve RIP: address registers stay. False: not
 * expressible. */
bool insn_rewrite_lea(const struct insn *insn, struct rewritten *out);

#endif
