/* From a decoded instruction to an operation: its operands, its properties, and the snippet if it runs natively. */
#include "engine/step/translate.h"

#include "engine/insn/rewrite.h"
#include "engine/step/handlers.h"

static u16 gpr_offset(int reg)
{
	return (u16)(offsetof(struct vcpu, gpr) + (unsigned)reg * sizeof(u64));
}

u16 op_register_offset(ZydisRegister reg)
{
	int number = insn_gpr(reg);
	return number < 0 ? (u16)ZERO_SLOT : (u16)(gpr_offset(number) + (insn_is_high_byte(reg) ? 1 : 0));
}

static u16 address_register(ZydisRegister reg)
{
	if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
		return (u16)offsetof(struct vcpu, next_rip);
	int number = insn_gpr(reg);
	return number < 0 ? (u16)ZERO_SLOT : gpr_offset(number);
}

void op_set_segment(struct op *op, unsigned segment)
{
	op->segment = (u8)segment;
	op->segment_base = segment >= SEG_FS ? (u16)(offsetof(struct vcpu, seg) + segment * sizeof(struct segment) +
						     offsetof(struct segment, base))
					     : (u16)ZERO_SLOT;
}

static u8 log2_scale(unsigned scale)
{
	return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

static void set_memory(struct op *op, const ZydisDecodedOperand *o)
{
	op_set_segment(op, insn_segment(o->mem.segment));
	op->base = address_register(o->mem.base);
	op->index = o->mem.type == ZYDIS_MEMOP_TYPE_VSIB ? (u16)ZERO_SLOT : address_register(o->mem.index);
	op->scale = log2_scale(o->mem.scale);
	op->disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	op->mem_size = o->size / 8;
	if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
		op->flags |= OP_READS;
	/* A write that is conditional, or that may not cover the operand, keeps what was there. */
	if (o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
		op->flags |= OP_READS;
	if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
		op->flags |= OP_WRITES;
}

/* Operands in the positions most instructions have: the first visible register is `reg`, the memory or second register
 * rm. */
static void set_operands(const struct insn *insn, struct op *op)
{
	bool have_reg = false;
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			break;
		if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			op->imm = o->imm.value.u;
		} else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
			if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
				op->flags |= OP_REGISTER;
				op->base = op_register_offset(o->reg.value);
				op->rm = (u8)MAX(insn_gpr(o->reg.value), 0);
			} else if (!have_reg && insn_gpr(o->reg.value) >= 0) {
				op->reg = op_register_offset(o->reg.value);
				op->number = (u8)insn_gpr(o->reg.value);
				have_reg = true;
			}
		} else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && (int)i == insn->memory) {
			set_memory(op, o);
		}
	}
}

static void set_prefixes(const struct insn *insn, struct op *op)
{
	ZydisInstructionAttributes a = insn->z.attributes;
	if (insn->mode == INSN_MODE_64)
		op->flags |= OP_LONG;
	if ((a & ZYDIS_ATTRIB_HAS_LOCK) || insn->z.mnemonic == ZYDIS_MNEMONIC_XCHG)
		op->flags |= OP_LOCKED;
	if (a & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
		op->flags |= OP_REP;
	if (a & ZYDIS_ATTRIB_HAS_REPNE)
		op->flags |= OP_REPNE;
	if ((a & ZYDIS_ATTRIB_HAS_REX) && insn->z.raw.rex.W)
		op->flags |= OP_REX_W;
}
/* x87 instructions that record their own address and opcode: all but control ones. Intel SDM volume 1, "x87 FPU
 * Instruction and Data (Operand) Pointers". */
bool insn_records_x87(const struct insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_FNINIT:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FLDCW:
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FLDENV:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FRSTOR:
	case ZYDIS_MNEMONIC_FWAIT:
	case ZYDIS_MNEMONIC_FNOP:
	case ZYDIS_MNEMONIC_EMMS:
		return false;
	default:
		return insn->xstate == XSTATE_X87;
	}
}

/* x87 and MMX instructions wait for pending exceptions, but for the control instructions whose names begin with FN. */
static bool waits_for_x87(const struct insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_FNINIT:
	case ZYDIS_MNEMONIC_FNCLEX:
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
		return false;
	default:
		break;
	}
	for (unsigned i = 0; i < insn->z.operand_count; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(insn->operand[i].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return insn->xstate == XSTATE_X87;
}

static void note_x87(const struct insn *insn, struct op *op)
{
	if (waits_for_x87(insn))
		op->flags |= OP_WAITS;
	if (!insn_records_x87(insn))
		return;
	op->flags |= OP_X87 | (insn->memory >= 0 ? OP_X87_MEMORY : 0);
	/* A store that raises an unmasked exception stores nothing: a bounce buffer must hold what is there already. */
	if (op->flags & OP_WRITES)
		op->flags |= OP_READS;
	/* FOP: the low three bits of the opcode byte and the ModRM byte. */
	u8 modrm = (u8)(insn->z.raw.modrm.mod << 6 | insn->z.raw.modrm.reg << 3 | insn->z.raw.modrm.rm);
	op->imm = (u64)(insn->z.opcode & 7) << 8 | modrm;
}

/* Intel SDM volume 2, "Exception Class Description": types 1, 2 and 4 of legacy SSE demand alignment of 16-byte
 * operands, but for the moves and string comparisons that are made for unaligned ones; in VEX and EVEX only the aligned
 * moves do. */
static bool demands_alignment(const struct insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_CMPXCHG16B:
	case ZYDIS_MNEMONIC_CVTPD2PI:
	case ZYDIS_MNEMONIC_CVTTPD2PI:
		return true;
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return false;
	default:
		break;
	}
	if (insn->z.meta.isa_set == ZYDIS_ISA_SET_SHA)
		return false; /* not on AMD's CPUs; where the CPU demands it, the snippet faults */
	switch (insn->z.meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_SSE1:
	case ZYDIS_EXCEPTION_CLASS_SSE2:
	case ZYDIS_EXCEPTION_CLASS_SSE4:
		return insn_memory(insn)->size == 128;
	case ZYDIS_EXCEPTION_CLASS_AVX1:
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E1NF:
		return true;
	default:
		return false;
	}
}

/* The segment of a memory operand that is not written out. */
static void set_implied_segment(const struct insn *insn, struct op *op)
{
	op_set_segment(op, SEG_DS);
	for (unsigned i = 0; i < insn->z.operand_count; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			op_set_segment(op, insn_segment(insn->operand[i].mem.segment));
}

static unsigned operand_bytes(const struct insn *insn)
{
	/* Byte forms of two-operand moves: the width of the register or memory operand counts. */
	if (insn->kind == KIND_MOV || insn->kind == KIND_BIT || insn->kind == KIND_MOVZX || insn->kind == KIND_MOVSX)
		return insn->operand[0].size / 8;
	return insn->z.operand_width / 8;
}

bool op_prepare(struct vcpu *vcpu, struct op *op)
{
	struct step *step = step_of(vcpu);
	const struct insn *insn = &step->insn;
	*op = (struct op){ .length = insn->z.length,
			   .kind = insn->kind,
			   .xstate = insn->xstate,
			   .base = (u16)ZERO_SLOT,
			   .index = (u16)ZERO_SLOT,
			   .segment_base = (u16)ZERO_SLOT };
	op->address_shift = (u8)(64 - insn->z.address_width);
	op->size = (u8)operand_bytes(insn);
	op->source_size = (u8)(insn->operand[1].size / 8);
	set_prefixes(insn, op);
	set_operands(insn, op);
	note_x87(insn, op);
	if (insn->memory >= 0 && demands_alignment(insn))
		op->flags |= OP_ALIGNED;
	if (insn->kind == KIND_MASKMOV || insn->kind == KIND_CLZERO)
		set_implied_segment(insn, op);
	op->run = op_choose(insn, op);
	bool native = op->run == op_native_register || op->run == op_native_read || op->run == op_native_write ||
		      op->run == op_native_vector || op->run == op_native_vector_memory || op->run == op_bit_memory ||
		      op->run == op_masked || op->run == op_x87_store || op->run == op_x87_load ||
		      op->run == op_x87_init;
	return !native || snippet_emit(step, insn, 1, op);
}

/* Register-only, no extended state, and unable to fault. */
bool op_fusable(const struct insn *insn)
{
	struct rewritten unused;
	if (insn->kind == KIND_LEA)
		return insn_rewrite_lea(insn, &unused);
	if (insn->memory >= 0 || insn->xstate != INSN_NO_XSTATE)
		return false;
	switch (insn->kind) {
	case KIND_MOV:
	case KIND_MOVZX:
	case KIND_MOVSX:
	case KIND_BIT:
		return true;
	case KIND_NATIVE:
		return insn->z.mnemonic != ZYDIS_MNEMONIC_DIV && insn->z.mnemonic != ZYDIS_MNEMONIC_IDIV;
	default:
		return false;
	}
}

bool op_is_sensitive(const struct insn *insn)
{
	switch (insn_class_of((enum insn_kind)insn->kind)) {
	case INSN_CLASS_CONTROL:
		return op_is_far(insn);
	case INSN_CLASS_SENSITIVE:
	case INSN_CLASS_REFUSED:
		return true;
	default:
		return insn->kind == KIND_POP && insn->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		       insn_gpr(insn->operand[0].reg.value) < 0;
	}
}

/* Conditional jumps stay inside: the block goes on where they are not taken. */
bool op_ends_block(const struct insn *insn)
{
	if (insn_class_of((enum insn_kind)insn->kind) == INSN_CLASS_CONTROL)
		return insn->kind != KIND_JCC;
	return op_is_sensitive(insn);
}
