/* From guest bytes to a decoded instruction: Zydis, plus what engines need to know about it (kind, registers read and
 * written, the memory operand, the class of extended state it uses, the CPUID gate). */
#ifndef NADIR_ENGINE_INSN_DECODE_H
#define NADIR_ENGINE_INSN_DECODE_H

#include "cpu/xstate.h"
#include "engine/insn/classify.h"

#define INSN_LENGTH_MAX 15
#define INSN_NO_XSTATE 0xff

/* How the code segment makes instructions be read. Real and V86 mode differ from 16-bit protected mode in what is
 * defined. */
enum insn_mode { INSN_MODE_64, INSN_MODE_32, INSN_MODE_16, INSN_MODE_REAL32, INSN_MODE_REAL16, INSN_MODE_COUNT };

struct insn_decoder {
	const struct cpuid_policy *policy;
	bool amd;
	ZydisDecoder zydis[INSN_MODE_COUNT];
};

struct insn {
	ZydisDecodedInstruction z;
	ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
	u8 bytes[INSN_LENGTH_MAX];
	u8 mode;      /* enum insn_mode */
	u8 kind;      /* enum insn_kind */
	u8 xstate;    /* enum xstate_class, or INSN_NO_XSTATE */
	s8 memory;    /* index of the explicit memory operand, or -1 */
	u16 gpr_read; /* general registers whose old value matters, those of the memory operand's address not counted */
	u16 gpr_written;
	u16 flags_read;    /* status flags whose old value matters */
	u16 flags_written; /* status flags changed or left undefined */
	u16 flags_tested;  /* status flags that it is for, of flags_read */
	u16 flags_killed;  /* status flags whose old value does not matter any more, of flags_written */
};

enum decode_result {
	DECODE_OK,
	DECODE_MORE, /* the bytes end inside the instruction */
	DECODE_UD,   /* undefined, or not in the guest's CPUID */
	DECODE_LONG, /* longer than 15 bytes: #GP(0) */
};

/* `policy` decides which mnemonics some encodings have (LZCNT or BSR) and the gate; `amd` chooses AMD's reading of 66
 * before near branches in 64-bit mode. */
void insn_decoder_init(struct insn_decoder *decoder, const struct cpuid_policy *policy, bool amd);
/* Decode one instruction from `size` bytes. Uses vector registers (Zydis is ordinary code). */
enum decode_result insn_decode(const struct insn_decoder *decoder, enum insn_mode mode, const u8 *bytes, size_t size,
			       struct insn *insn);

/* The general register (enum gpr) that a register operand names or is part of, or -1. */
int insn_gpr(ZydisRegister reg);
/* Whether it is AH, CH, DH or BH. */
static inline bool insn_is_high_byte(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}
/* Whether an explicit operand is one of these. */
bool insn_names_high_byte(const struct insn *insn);
/* enum segment_register of a Zydis segment register. */
static inline unsigned insn_segment(ZydisRegister reg)
{
	return reg >= ZYDIS_REGISTER_ES && reg <= ZYDIS_REGISTER_GS ? (unsigned)(reg - ZYDIS_REGISTER_ES) : 3;
}

static inline const ZydisDecodedOperand *insn_memory(const struct insn *insn)
{
	return insn->memory < 0 ? NULL : &insn->operand[insn->memory];
}

#endif
