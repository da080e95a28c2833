/* From a decoded instruction to an operation: which handler, which operands, and the snippet if it runs natively. */
#include "engine/step/handlers.h"
#include "engine/step/masked.h"

#include "cpu/control.h"
#include "cpu/xstate.h"
#include "engine/insn/rewrite.h"

static u16 gpr_offset(int reg)
{
	return (u16)(offsetof(struct vcpu, gpr) + (unsigned)reg * sizeof(u64));
}

/* Byte offset of a register operand's value; AH to BH are the second byte of their register. */
static u16 register_offset(ZydisRegister reg)
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

static void set_segment(struct op *op, unsigned segment)
{
	op->segment = (u8)segment;
	op->segment_base = segment >= SEG_FS ? (u16)(offsetof(struct vcpu, seg) + segment * sizeof(struct segment) +
						     offsetof(struct segment, base)) :
					       (u16)ZERO_SLOT;
}

static u8 log2_scale(unsigned scale)
{
	return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

static void set_memory(struct op *op, const ZydisDecodedOperand *o)
{
	set_segment(op, insn_segment(o->mem.segment));
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

/* Operands in the positions most instructions have: the first visible register is `reg`, the memory or second register rm. */
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
				op->base = register_offset(o->reg.value);
				op->rm = (u8)MAX(insn_gpr(o->reg.value), 0);
			} else if (!have_reg && insn_gpr(o->reg.value) >= 0) {
				op->reg = register_offset(o->reg.value);
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

int op_run_ud(struct vcpu *vcpu, const struct op *op)
{
	return vcpu_raise_ud(vcpu);
}

int op_run_gp(struct vcpu *vcpu, const struct op *op)
{
	return vcpu_raise_gp(vcpu, 0);
}

int op_unimplemented(struct vcpu *vcpu, const struct op *op)
{
	struct step *step = step_of(vcpu);
	vector_sync(vcpu);
	host_snprintf(step->error_text, sizeof(step->error_text), "step: no handler for %s", insn_kind_name(op->kind));
	*step->exit = (struct exit){ .reason = EXIT_ERROR, .error = { .what = step->error_text } };
	return OP_ERROR;
}

/* ---- kinds whose handler depends on the form of the instruction ---- */

static op_fn native_handler(const struct insn *insn, struct op *op)
{
	if (insn->xstate != INSN_NO_XSTATE)
		return insn->memory < 0 ? op_native_vector : op_native_vector_memory;
	if (insn->memory < 0)
		return op_native_register;
	return op->flags & OP_WRITES ? op_native_write : op_native_read;
}

/* The segment register operand's number goes to `number`. */
static bool find_segment_operand(const struct insn *insn, struct op *op)
{
	for (unsigned i = 0; i < insn->z.operand_count_visible; i++) {
		ZydisRegister reg = insn->operand[i].reg.value;
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER && reg >= ZYDIS_REGISTER_ES &&
		    reg <= ZYDIS_REGISTER_GS) {
			op->number = (u8)insn_segment(reg);
			return true;
		}
	}
	return false;
}

static op_fn push_pop_handler(const struct insn *insn, struct op *op)
{
	bool push = insn->kind == KIND_PUSH;
	if (find_segment_operand(insn, op))
		return push ? op_push_segment : op_pop_segment;
	if (insn->memory >= 0)
		return push ? op_push_mem : op_pop_mem;
	if (insn->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return op_push_imm;
	op->number = (u8)insn_gpr(insn->operand[0].reg.value);
	return push ? op_push_reg : op_pop_reg;
}

/* POP [RSP + x] addresses with the RSP after the pop, which Zydis's operand does not say: the handler pops first. */

static bool is_far(const struct insn *insn)
{
	return insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static op_fn call_jmp_handler(const struct insn *insn, struct op *op)
{
	bool call = insn->kind == KIND_CALL;
	const ZydisDecodedOperand *target = &insn->operand[0];
	if (target->type == ZYDIS_OPERAND_TYPE_POINTER) {
		op->imm = target->ptr.offset;
		op->mem_size = target->ptr.segment;
		return call ? op_call_far : op_jmp_far;
	}
	if (is_far(insn)) {
		if (insn->memory < 0)
			return op_run_ud;
		return call ? op_call_far_mem : op_jmp_far_mem;
	}
	if (target->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return call ? op_call_rel : op_jmp_rel;
	return call ? op_call_near : op_jmp_near;
}

static op_fn bit_handler(const struct insn *insn, struct op *op)
{
	if (insn->memory < 0 || insn->operand[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return native_handler(insn, op);
	return op_bit_memory;
}

static op_fn x87_handler(const struct insn *insn, struct op *op)
{
	if (insn->z.mnemonic == ZYDIS_MNEMONIC_FNINIT)
		return op_x87_init;
	op->imm = insn->z.mnemonic == ZYDIS_MNEMONIC_FNSAVE; /* which initializes */
	return op->flags & OP_WRITES ? op_x87_store : op_x87_load;
}

static op_fn vzero_handler(const struct insn *insn, struct op *op)
{
	if (insn->mode == INSN_MODE_64)
		return op_native_vector;
	op->imm = insn->z.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ? 16 : 0;
	return op_vzero;
}

static op_fn system_move_handler(const struct insn *insn, struct op *op)
{
	unsigned to = insn_gpr(insn->operand[0].reg.value) >= 0 ? 1 : 0;
	ZydisRegister system = insn->operand[to].reg.value;
	bool debug = system >= ZYDIS_REGISTER_DR0 && system <= ZYDIS_REGISTER_DR15;
	op->number = (u8)(system - (debug ? ZYDIS_REGISTER_DR0 : ZYDIS_REGISTER_CR0));
	op->rm = (u8)insn_gpr(insn->operand[1 - to].reg.value);
	if (debug)
		return to ? op_mov_from_dr : op_mov_to_dr;
	return to ? op_mov_from_cr : op_mov_to_cr;
}

static op_fn segment_move_handler(const struct insn *insn, struct op *op)
{
	if (!find_segment_operand(insn, op))
		return op_run_ud;
	const ZydisDecodedOperand *first = &insn->operand[0];
	bool to_segment = first->type == ZYDIS_OPERAND_TYPE_REGISTER && first->reg.value >= ZYDIS_REGISTER_ES &&
			  first->reg.value <= ZYDIS_REGISTER_GS;
	return to_segment ? op_mov_to_segment : op_mov_from_segment;
}

static op_fn xsave_handler(const struct insn *insn, struct op *op)
{
	static const struct {
		ZydisMnemonic plain, wide;
		enum xsave_kind kind;
	} forms[] = {
		{ ZYDIS_MNEMONIC_XSAVE, ZYDIS_MNEMONIC_XSAVE64, XSAVE_PLAIN },
		{ ZYDIS_MNEMONIC_XSAVEOPT, ZYDIS_MNEMONIC_XSAVEOPT64, XSAVE_OPT },
		{ ZYDIS_MNEMONIC_XSAVEC, ZYDIS_MNEMONIC_XSAVEC64, XSAVE_COMPACT },
		{ ZYDIS_MNEMONIC_XSAVES, ZYDIS_MNEMONIC_XSAVES64, XSAVE_SUPERVISOR },
		{ ZYDIS_MNEMONIC_XRSTORS, ZYDIS_MNEMONIC_XRSTORS64, XSAVE_SUPERVISOR },
	};
	op->number = XSAVE_PLAIN;
	for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
		if (insn->z.mnemonic == forms[i].plain || insn->z.mnemonic == forms[i].wide)
			op->number = (u8)forms[i].kind;
	return insn->kind == KIND_XSAVE ? op_xsave : op_xrstor;
}

static op_fn load_far_handler(const struct insn *insn, struct op *op)
{
	static const struct {
		ZydisMnemonic mnemonic;
		u8 segment;
	} forms[] = { { ZYDIS_MNEMONIC_LES, SEG_ES }, { ZYDIS_MNEMONIC_LDS, SEG_DS }, { ZYDIS_MNEMONIC_LFS, SEG_FS },
		      { ZYDIS_MNEMONIC_LGS, SEG_GS }, { ZYDIS_MNEMONIC_LSS, SEG_SS } };
	for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
		if (insn->z.mnemonic == forms[i].mnemonic)
			op->number = forms[i].segment;
	return op_load_far;
}

/* Strings and XLAT: the segment of the source is that of their first memory operand that is not ES:(E)DI. */
static void set_string_operands(const struct insn *insn, struct op *op)
{
	set_segment(op, SEG_DS);
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (insn_gpr(o->mem.base) != RDI)
			set_segment(op, insn_segment(o->mem.segment));
		if (insn->kind != KIND_XLAT)
			op->size = (u8)(o->size / 8);
	}
}

static op_fn in_out_handler(const struct insn *insn, struct op *op)
{
	bool in = insn->kind == KIND_IN;
	op->size = (u8)(insn->operand[in ? 0 : 1].size / 8);
	if (insn->operand[in ? 1 : 0].type == ZYDIS_OPERAND_TYPE_REGISTER)
		op->flags |= OP_REGISTER;
	else
		op->flags &= (u16)~OP_REGISTER;
	return in ? op_in : op_out;
}

static op_fn segment_base_handler(const struct insn *insn, struct op *op)
{
	bool fs = insn->z.mnemonic == ZYDIS_MNEMONIC_RDFSBASE || insn->z.mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
	op->number = fs ? SEG_FS : SEG_GS;
	op->size = (u8)(insn->operand[0].size / 8);
	return insn->kind == KIND_RDSEGBASE ? op_rdsegbase : op_wrsegbase;
}

static op_fn enter_handler(const struct insn *insn, struct op *op)
{
	op->imm = insn->operand[0].imm.value.u & 0xffff;
	op->number = insn->operand[1].imm.value.u & 31;
	return op_enter;
}

static op_fn interrupt_handler(const struct insn *insn, struct op *op)
{
	op->flags |= OP_INT;
	switch (insn->kind) {
	case KIND_INT3:
		return op_int3;
	case KIND_INT1:
		return op_int1;
	case KIND_INTO:
		return op_into;
	default:
		return op_int;
	}
}

static op_fn iret_handler(const struct insn *insn, struct op *op)
{
	op->flags |= OP_NEXT_RF;
	return op_iret;
}

static op_fn jcc_handler(const struct insn *insn, struct op *op)
{
	return op_jcc_handler(insn->z.opcode);
}

static op_fn jcxz_handler(const struct insn *insn, struct op *op)
{
	op->number = insn->z.opcode;
	return insn->kind == KIND_LOOP ? op_loop : op_jcxz;
}

static op_fn ret_handler(const struct insn *insn, struct op *op)
{
	return is_far(insn) ? op_ret_far : op_ret_near;
}

static op_fn lea_handler(const struct insn *insn, struct op *op)
{
	return op_fusable(insn) ? op_native_register : op_lea;
}

static op_fn rdpid_handler(const struct insn *insn, struct op *op)
{
	op->base = register_offset(insn->operand[0].reg.value);
	return op_rdpid;
}

static op_fn string_handler(const struct insn *insn, struct op *op)
{
	static const op_fn handlers[KIND_COUNT] = {
		[KIND_STRING_MOVS] = op_movs, [KIND_STRING_STOS] = op_stos, [KIND_STRING_LODS] = op_lods,
		[KIND_STRING_CMPS] = op_cmps, [KIND_STRING_SCAS] = op_scas, [KIND_STRING_INS] = op_ins,
		[KIND_STRING_OUTS] = op_outs, [KIND_XLAT] = op_xlat,
	};
	set_string_operands(insn, op);
	return handlers[insn->kind];
}

typedef op_fn (*chooser)(const struct insn *insn, struct op *op);

static const chooser choosers[KIND_COUNT] = {
	[KIND_NATIVE] = native_handler,
	[KIND_FWAIT] = native_handler,
	[KIND_X87_ENV] = x87_handler,
	[KIND_BIT] = bit_handler,
	[KIND_VZERO] = vzero_handler,
	[KIND_MASKED] = masked_handler,
	[KIND_VMASKMOV] = vmaskmov_handler,
	[KIND_MASKMOV] = maskmov_handler,
	[KIND_GATHER] = gather_handler,
	[KIND_SCATTER] = gather_handler,
	[KIND_LEA] = lea_handler,
	[KIND_MOV] = op_mov_handler,
	[KIND_MOVZX] = op_extend_handler,
	[KIND_MOVSX] = op_extend_handler,
	[KIND_PUSH] = push_pop_handler,
	[KIND_POP] = push_pop_handler,
	[KIND_ENTER] = enter_handler,
	[KIND_XLAT] = string_handler,
	[KIND_CALL] = call_jmp_handler,
	[KIND_JMP] = call_jmp_handler,
	[KIND_RET] = ret_handler,
	[KIND_JCC] = jcc_handler,
	[KIND_JCXZ] = jcxz_handler,
	[KIND_LOOP] = jcxz_handler,
	[KIND_INT] = interrupt_handler,
	[KIND_INT3] = interrupt_handler,
	[KIND_INT1] = interrupt_handler,
	[KIND_INTO] = interrupt_handler,
	[KIND_IRET] = iret_handler,
	[KIND_STRING_MOVS] = string_handler,
	[KIND_STRING_STOS] = string_handler,
	[KIND_STRING_LODS] = string_handler,
	[KIND_STRING_CMPS] = string_handler,
	[KIND_STRING_SCAS] = string_handler,
	[KIND_STRING_INS] = string_handler,
	[KIND_STRING_OUTS] = string_handler,
	[KIND_IN] = in_out_handler,
	[KIND_OUT] = in_out_handler,
	[KIND_LOAD_FAR] = load_far_handler,
	[KIND_RDPID] = rdpid_handler,
	[KIND_RDSEGBASE] = segment_base_handler,
	[KIND_WRSEGBASE] = segment_base_handler,
	[KIND_XSAVE] = xsave_handler,
	[KIND_XRSTOR] = xsave_handler,
	[KIND_MOV_SYSTEM] = system_move_handler,
	[KIND_MOV_SEGMENT] = segment_move_handler,
};

/* Kinds with one handler for every form. */
static const op_fn fixed[KIND_COUNT] = {
	[KIND_REFUSED] = op_run_ud, [KIND_NOP] = op_nop, [KIND_LEAVE] = op_leave, [KIND_LAHF] = op_lahf,
	[KIND_SAHF] = op_sahf, [KIND_CLC] = op_clc, [KIND_STC] = op_stc, [KIND_CMC] = op_cmc, [KIND_CLD] = op_cld,
	[KIND_STD] = op_std, [KIND_CLFLUSH] = op_clflush, [KIND_SYSCALL] = op_syscall, [KIND_SYSRET] = op_sysret,
	[KIND_SYSENTER] = op_sysenter, [KIND_SYSEXIT] = op_sysexit, [KIND_PUSHF] = op_pushf, [KIND_POPF] = op_popf,
	[KIND_CLI] = op_cli, [KIND_STI] = op_sti, [KIND_CLAC] = op_clac, [KIND_STAC] = op_stac, [KIND_HLT] = op_hlt,
	[KIND_PUSHA] = op_pusha, [KIND_POPA] = op_popa, [KIND_PAUSE] = op_pause, [KIND_CPUID] = op_cpuid,
	[KIND_RDTSC] = op_rdtsc, [KIND_RDTSCP] = op_rdtscp, [KIND_RDPMC] = op_rdpmc, [KIND_RDMSR] = op_rdmsr,
	[KIND_WRMSR] = op_wrmsr, [KIND_XGETBV] = op_xgetbv, [KIND_XSETBV] = op_xsetbv, [KIND_LGDT] = op_lgdt,
	[KIND_LIDT] = op_lidt, [KIND_SGDT] = op_sgdt, [KIND_SIDT] = op_sidt, [KIND_LLDT] = op_lldt,
	[KIND_SLDT] = op_sldt, [KIND_LTR] = op_ltr, [KIND_STR] = op_str, [KIND_LMSW] = op_lmsw, [KIND_SMSW] = op_smsw,
	[KIND_LAR] = op_lar, [KIND_LSL] = op_lsl, [KIND_VERR] = op_verr, [KIND_VERW] = op_verw, [KIND_CLTS] = op_clts,
	[KIND_INVLPG] = op_invlpg, [KIND_INVPCID] = op_invpcid, [KIND_WBINVD] = op_wbinvd, [KIND_SWAPGS] = op_swapgs,
	[KIND_HYPERCALL] = op_hypercall, [KIND_FXSAVE] = op_fxsave, [KIND_FXRSTOR] = op_fxrstor,
	[KIND_LDMXCSR] = op_ldmxcsr, [KIND_STMXCSR] = op_stmxcsr, [KIND_MOVDIR64B] = op_movdir64b,
	[KIND_CLZERO] = op_clzero, [KIND_AAA] = op_aaa, [KIND_AAS] = op_aas, [KIND_AAD] = op_aad, [KIND_AAM] = op_aam,
	[KIND_DAA] = op_daa, [KIND_DAS] = op_das, [KIND_SALC] = op_salc, [KIND_BOUND] = op_bound, [KIND_ARPL] = op_arpl,
};

op_fn op_handler(const struct insn *insn, struct op *op)
{
	if (choosers[insn->kind])
		return choosers[insn->kind](insn, op);
	return fixed[insn->kind] ? fixed[insn->kind] : op_unimplemented;
}

/* x87 instructions that record their own address and opcode: all but control ones. Intel SDM volume 1, "x87 FPU Instruction and Data
 * (Operand) Pointers". */
static bool records_x87_pointers(const struct insn *insn)
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
	if (!records_x87_pointers(insn))
		return;
	op->flags |= OP_X87 | (insn->memory >= 0 ? OP_X87_MEMORY : 0);
	/* A store that raises an unmasked exception stores nothing: a bounce buffer must hold what is there already. */
	if (op->flags & OP_WRITES)
		op->flags |= OP_READS;
	/* FOP: the low three bits of the opcode byte and the ModRM byte. */
	u8 modrm = (u8)(insn->z.raw.modrm.mod << 6 | insn->z.raw.modrm.reg << 3 | insn->z.raw.modrm.rm);
	op->imm = (u64)(insn->z.opcode & 7) << 8 | modrm;
}

/* Intel SDM volume 2, "Exception Class Description": types 1, 2 and 4 of legacy SSE demand alignment of 16-byte operands, but for the
 * moves and string comparisons that are made for unaligned ones; in VEX and EVEX only the aligned moves do. */
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
	set_segment(op, SEG_DS);
	for (unsigned i = 0; i < insn->z.operand_count; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			set_segment(op, insn_segment(insn->operand[i].mem.segment));
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
	*op = (struct op){ .length = insn->z.length, .kind = insn->kind, .xstate = insn->xstate,
			   .base = (u16)ZERO_SLOT, .index = (u16)ZERO_SLOT, .segment_base = (u16)ZERO_SLOT };
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
	op->run = op_handler(insn, op);
	bool native = op->run == op_native_register || op->run == op_native_read || op->run == op_native_write ||
		      op->run == op_native_vector || op->run == op_native_vector_memory || op->run == op_bit_memory ||
		      op->run == op_masked || op->run == op_x87_store || op->run == op_x87_load || op->run == op_x87_init;
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
		return is_far(insn);
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
