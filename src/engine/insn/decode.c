/* Decoding with Zydis and the summary of an instruction that engines work from. Intel SDM volume 2, "Instruction
 * Format". */
#include "engine/insn/decode.h"

#include "lib/string.h"

static const struct {
	ZydisMachineMode mode;
	ZydisStackWidth stack;
} machine[INSN_MODE_COUNT] = {
	[INSN_MODE_64] = { ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
	[INSN_MODE_32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
	[INSN_MODE_16] = { ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
	[INSN_MODE_REAL32] = { ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
	[INSN_MODE_REAL16] = { ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16 },
};

void insn_decoder_init(struct insn_decoder *decoder, const struct cpuid_policy *policy, bool amd)
{
	decoder->policy = policy;
	decoder->amd = amd;
	for (unsigned i = 0; i < INSN_MODE_COUNT; i++) {
		ZydisDecoder *d = &decoder->zydis[i];
		ZydisDecoderInit(d, machine[i].mode, machine[i].stack);
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_AMD_BRANCHES, amd);
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_MPX, false);
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CET, false);
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_CLDEMOTE, false);
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_LZCNT, cpuid_has(policy, FEATURE_LZCNT));
		ZydisDecoderEnableMode(d, ZYDIS_DECODER_MODE_TZCNT, cpuid_has(policy, FEATURE_BMI1));
	}
}

int insn_gpr(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return reg - ZYDIS_REGISTER_RAX;
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return reg - ZYDIS_REGISTER_EAX;
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return reg - ZYDIS_REGISTER_AX;
	if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
		return reg - ZYDIS_REGISTER_SPL + RSP;
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
		return reg - ZYDIS_REGISTER_AH;
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
		return reg - ZYDIS_REGISTER_AL;
	return -1;
}

bool insn_names_high_byte(const struct insn *insn)
{
	for (unsigned i = 0; i < insn->z.operand_count_visible; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && insn_is_high_byte(insn->operand[i].reg.value))
			return true;
	return false;
}

/* Whether elements of the memory operand that are masked off cannot fault: its exception class says so. Intel SDM volume 2, "EVEX Exceptions". */
static bool suppresses_faults(const ZydisDecodedInstruction *z)
{
	switch (z->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return false;
	default:
		return z->avx.mask.mode != ZYDIS_MASK_MODE_DISABLED && z->avx.mask.mode != ZYDIS_MASK_MODE_INVALID;
	}
}

static enum insn_kind refine_kind(const struct insn *insn)
{
	const ZydisDecodedInstruction *z = &insn->z;
	enum insn_kind kind = insn_kind_of(z->mnemonic);
	if ((z->mnemonic == ZYDIS_MNEMONIC_MOVSD || z->mnemonic == ZYDIS_MNEMONIC_CMPSD) &&
	    z->meta.category != ZYDIS_CATEGORY_STRINGOP)
		return KIND_NATIVE;
	if (kind == KIND_MOV) {
		for (unsigned i = 0; i < 2; i++) {
			if (insn->operand[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
				continue;
			ZydisRegisterClass class = ZydisRegisterGetClass(insn->operand[i].reg.value);
			if (class == ZYDIS_REGCLASS_CONTROL || class == ZYDIS_REGCLASS_DEBUG)
				return KIND_MOV_SYSTEM;
			if (class == ZYDIS_REGCLASS_SEGMENT)
				return KIND_MOV_SEGMENT;
			if (class == ZYDIS_REGCLASS_TEST)
				return KIND_REFUSED;
		}
	}
	if (kind == KIND_NATIVE && insn->memory >= 0 && z->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && suppresses_faults(z))
		return KIND_MASKED;
	return kind;
}

/* Registers read and written. A write of 8 or 16 bits keeps the rest of the register, and a conditional write may keep
 * all of it, so both count as reads. BSF and BSR keep their destination when the source is zero, which Zydis does not
 * tell. */
static void note_gpr(struct insn *insn, const ZydisDecodedOperand *o)
{
	int reg = insn_gpr(o->reg.value);
	if (reg < 0)
		return;
	bool keeps = insn->z.mnemonic == ZYDIS_MNEMONIC_BSF || insn->z.mnemonic == ZYDIS_MNEMONIC_BSR;
	if (keeps || (o->actions & (ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_CONDWRITE)) || o->size < 32)
		insn->gpr_read |= 1u << reg;
	if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		insn->gpr_written |= 1u << reg;
}

static void note_operands(struct insn *insn)
{
	insn->memory = -1;
	insn->gpr_read = insn->gpr_written = 0;
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
			note_gpr(insn, o);
		else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && insn->memory < 0 &&
			 o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			insn->memory = (s8)i;
	}
	/* Intel SDM volume 2, BSF and BSR: with a source of zero the destination keeps its value on every CPU there is.
	 */
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_BSF || insn->z.mnemonic == ZYDIS_MNEMONIC_BSR)
		insn->gpr_read |= insn->gpr_written;
}

/* Zydis 4.0 names R13D as base where SIB says "no base, displacement of 32 bits" and an address-size prefix meets
 * REX.B. */
static void mend_address(struct insn *insn)
{
	const ZydisDecodedInstructionRaw *raw = &insn->z.raw;
	if (insn->memory < 0 || !(insn->z.attributes & ZYDIS_ATTRIB_HAS_SIB) || raw->modrm.mod ||
	    (raw->sib.base & 7) != 5)
		return;
	ZydisDecodedOperandMem *mem = &insn->operand[insn->memory].mem;
	mem->base = ZYDIS_REGISTER_NONE;
	mem->disp.has_displacement = ZYAN_TRUE;
	mem->disp.value = raw->disp.value;
}

/* LEA computes with the registers of its address, which stay registers. */
static void note_address(struct insn *insn)
{
	const ZydisDecodedOperandMem *mem = &insn->operand[insn->memory].mem;
	int base = insn_gpr(mem->base), index = insn_gpr(mem->index);
	insn->gpr_read |= (base >= 0 ? 1u << base : 0) | (index >= 0 ? 1u << index : 0);
}

static bool is_logical(const struct insn *insn)
{
	return insn->z.mnemonic == ZYDIS_MNEMONIC_AND || insn->z.mnemonic == ZYDIS_MNEMONIC_OR || insn->z.mnemonic == ZYDIS_MNEMONIC_XOR ||
	       insn->z.mnemonic == ZYDIS_MNEMONIC_TEST;
}

/* Shifts by an immediate that is not 0 change all status flags: real CPUs leave none of those undefined as it was. */
static bool shifts_for_sure(const struct insn *insn)
{
	if (insn->z.meta.category != ZYDIS_CATEGORY_SHIFT || !insn->z.operand_count_visible)
		return false;
	const ZydisDecodedOperand *count = &insn->operand[insn->z.operand_count_visible - 1];
	return count->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && (count->imm.value.u & (insn->z.operand_width == 64 ? 63 : 31));
}

static bool is_shift(const struct insn *insn)
{
	return insn->z.meta.category == ZYDIS_CATEGORY_SHIFT || insn->z.meta.category == ZYDIS_CATEGORY_ROTATE;
}

/* Flags the manual calls undefined are left to the real CPU, which may leave them as they were: they count as read, but
 * for the logical operations, whose AF every CPU clears. */
static void note_flags(struct insn *insn)
{
	const ZydisAccessedFlags *f = insn->z.cpu_flags;
	insn->flags_read = insn->flags_written = insn->flags_tested = insn->flags_killed = 0;
	if (!f)
		return;
	u32 status = RFLAGS_STATUS, set = f->modified | f->set_0 | f->set_1;
	bool shift = is_shift(insn);
	insn->flags_read = insn->flags_tested = (u16)(f->tested & status);
	insn->flags_written = (u16)((set | f->undefined) & status);
	if (is_logical(insn) || shifts_for_sure(insn))
		insn->flags_killed = insn->flags_written;
	else if (!shift)
		insn->flags_killed = (u16)(set & ~f->undefined & status);
	if (!is_logical(insn) && ((f->undefined & status) || shift))
		insn->flags_read |= insn->flags_written;
}

static u8 class_by_encoding(const struct insn *insn)
{
	if (insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX)
		return XSTATE_AVX512;
	return insn->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ? XSTATE_SSE : XSTATE_AVX;
}

static u8 register_class_state(const struct insn *insn, ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_ST0 && reg <= ZYDIS_REGISTER_X87TAG)
		return XSTATE_X87;
	if (reg >= ZYDIS_REGISTER_MM0 && reg <= ZYDIS_REGISTER_MM7)
		return XSTATE_MMX;
	bool vector = reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_ZMM31;
	if (reg >= ZYDIS_REGISTER_K0 && reg <= ZYDIS_REGISTER_K7)
		return XSTATE_AVX512;
	return vector ? class_by_encoding(insn) : INSN_NO_XSTATE;
}

/* The class whose checks are strictest among the registers used: x87 < MMX < SSE < AVX < AVX-512 in enum order. */
static u8 xstate_class_of(const struct insn *insn)
{
	u8 class = INSN_NO_XSTATE;
	if (insn->kind == KIND_FWAIT)
		return XSTATE_FWAIT;
	if (insn->z.meta.isa_ext == ZYDIS_ISA_EXT_X87 || insn->z.meta.isa_set == ZYDIS_ISA_SET_SSE3X87)
		return XSTATE_X87;
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_EMMS)
		return XSTATE_MMX;
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_VZEROALL || insn->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER)
		return XSTATE_AVX;
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		if (insn->operand[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		u8 c = register_class_state(insn, insn->operand[i].reg.value);
		if (c != INSN_NO_XSTATE && (class == INSN_NO_XSTATE || c > class))
			class = c;
	}
	/* Conversions from memory to a general register use MXCSR, though they name no vector register. */
	if (class == INSN_NO_XSTATE && insn->z.meta.category == ZYDIS_CATEGORY_CONVERT &&
	    insn->z.meta.exception_class != ZYDIS_EXCEPTION_CLASS_NONE)
		return class_by_encoding(insn);
	return class;
}

/* SYSENTER and SYSEXIT exist in real and virtual-8086 mode too, to fault with #GP there; Zydis does not know them. */
static ZyanStatus decode_sysenter(const struct insn_decoder *decoder, enum insn_mode mode, const u8 *bytes, size_t size,
				  struct insn *insn)
{
	enum insn_mode protected = mode == INSN_MODE_REAL16 ? INSN_MODE_16 : INSN_MODE_32;
	ZyanStatus status = ZydisDecoderDecodeFull(&decoder->zydis[protected], bytes, size, &insn->z, insn->operand);
	bool known = insn->z.mnemonic == ZYDIS_MNEMONIC_SYSENTER || insn->z.mnemonic == ZYDIS_MNEMONIC_SYSEXIT;
	return ZYAN_FAILED(status) || known ? status : ZYDIS_STATUS_DECODING_ERROR;
}

/* 0F 0D with a register operand: a no-operation for Intel, undefined for AMD. */
static bool is_prefetch_of_register(const struct insn *insn)
{
	return insn->z.meta.isa_set == ZYDIS_ISA_SET_PREFETCH_NOP && insn->z.opcode == 0x0d &&
	       insn->z.raw.modrm.mod == 3;
}

static u8 vex_w(const struct insn *insn)
{
	switch (insn->z.encoding) {
	case ZYDIS_INSTRUCTION_ENCODING_VEX:
		return insn->z.raw.vex.W;
	case ZYDIS_INSTRUCTION_ENCODING_EVEX:
		return insn->z.raw.evex.W;
	default:
		return 0;
	}
}

/* VPINSRQ and VPEXTRQ outside 64-bit mode: W is ignored by Intel, undefined for AMD. */
static bool is_wide_element_move(const struct insn *insn)
{
	bool element = insn->z.mnemonic == ZYDIS_MNEMONIC_VPINSRD || insn->z.mnemonic == ZYDIS_MNEMONIC_VPEXTRD;
	return element && insn->mode != INSN_MODE_64 && vex_w(insn);
}

enum decode_result insn_decode(const struct insn_decoder *decoder, enum insn_mode mode, const u8 *bytes, size_t size,
			       struct insn *insn)
{
	ZyanStatus status = ZydisDecoderDecodeFull(&decoder->zydis[mode], bytes, size, &insn->z, insn->operand);
	if (status == ZYDIS_STATUS_DECODING_ERROR && (mode == INSN_MODE_REAL16 || mode == INSN_MODE_REAL32))
		status = decode_sysenter(decoder, mode, bytes, size, insn);
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return DECODE_MORE;
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
		return DECODE_LONG;
	if (ZYAN_FAILED(status))
		return DECODE_UD;
	memcpy(insn->bytes, bytes, insn->z.length);
	insn->mode = (u8)mode;
	note_operands(insn);
	mend_address(insn);
	insn->kind = (u8)refine_kind(insn);
	if (decoder->amd && (is_prefetch_of_register(insn) || is_wide_element_move(insn)))
		return DECODE_UD;
	if (insn->kind == KIND_REFUSED || !insn_set_allowed(decoder->policy, insn->z.meta.isa_set))
		return DECODE_UD;
	if (insn->kind == KIND_LEA)
		note_address(insn);
	note_flags(insn);
	insn->xstate = xstate_class_of(insn);
	return DECODE_OK;
}
