/* Which handler an instruction has: by its kind, and by the form of its operands where the kind has several. */
#include "cpu/xstate.h"
#include "engine/step/handlers.h"
#include "engine/step/masked.h"
#include "engine/step/translate.h"

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

static op_fn call_jmp_handler(const struct insn *insn, struct op *op)
{
	bool call = insn->kind == KIND_CALL;
	const ZydisDecodedOperand *target = &insn->operand[0];
	if (target->type == ZYDIS_OPERAND_TYPE_POINTER) {
		op->imm = target->ptr.offset;
		op->mem_size = target->ptr.segment;
		return call ? op_call_far : op_jmp_far;
	}
	if (op_is_far(insn)) {
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
	} forms[] = { { ZYDIS_MNEMONIC_LES, SEG_ES },
		      { ZYDIS_MNEMONIC_LDS, SEG_DS },
		      { ZYDIS_MNEMONIC_LFS, SEG_FS },
		      { ZYDIS_MNEMONIC_LGS, SEG_GS },
		      { ZYDIS_MNEMONIC_LSS, SEG_SS } };
	for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
		if (insn->z.mnemonic == forms[i].mnemonic)
			op->number = forms[i].segment;
	return op_load_far;
}

/* Strings and XLAT: the segment of the source is that of their first memory operand that is not ES:(E)DI. */
static void set_string_operands(const struct insn *insn, struct op *op)
{
	op_set_segment(op, SEG_DS);
	for (unsigned i = 0; i < insn->z.operand_count; i++) {
		const ZydisDecodedOperand *o = &insn->operand[i];
		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (insn_gpr(o->mem.base) != RDI)
			op_set_segment(op, insn_segment(o->mem.segment));
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

static op_fn sysret_handler(const struct insn *insn, struct op *op)
{
	op->flags |= OP_INT;
	return op_sysret;
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
	return op_is_far(insn) ? op_ret_far : op_ret_near;
}

static op_fn lea_handler(const struct insn *insn, struct op *op)
{
	return op_fusable(insn) ? op_native_register : op_lea;
}

static op_fn rdpid_handler(const struct insn *insn, struct op *op)
{
	op->base = op_register_offset(insn->operand[0].reg.value);
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
	[KIND_SYSRET] = sysret_handler,
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
	[KIND_REFUSED] = op_run_ud,
	[KIND_NOP] = op_nop,
	[KIND_LEAVE] = op_leave,
	[KIND_LAHF] = op_lahf,
	[KIND_SAHF] = op_sahf,
	[KIND_CLC] = op_clc,
	[KIND_STC] = op_stc,
	[KIND_CMC] = op_cmc,
	[KIND_CLD] = op_cld,
	[KIND_STD] = op_std,
	[KIND_CLFLUSH] = op_clflush,
	[KIND_SYSCALL] = op_syscall,
	[KIND_SYSENTER] = op_sysenter,
	[KIND_SYSEXIT] = op_sysexit,
	[KIND_PUSHF] = op_pushf,
	[KIND_POPF] = op_popf,
	[KIND_CLI] = op_cli,
	[KIND_STI] = op_sti,
	[KIND_CLAC] = op_clac,
	[KIND_STAC] = op_stac,
	[KIND_HLT] = op_hlt,
	[KIND_PUSHA] = op_pusha,
	[KIND_POPA] = op_popa,
	[KIND_PAUSE] = op_pause,
	[KIND_CPUID] = op_cpuid,
	[KIND_RDTSC] = op_rdtsc,
	[KIND_RDTSCP] = op_rdtscp,
	[KIND_RDPMC] = op_rdpmc,
	[KIND_RDMSR] = op_rdmsr,
	[KIND_WRMSR] = op_wrmsr,
	[KIND_XGETBV] = op_xgetbv,
	[KIND_XSETBV] = op_xsetbv,
	[KIND_LGDT] = op_lgdt,
	[KIND_LIDT] = op_lidt,
	[KIND_SGDT] = op_sgdt,
	[KIND_SIDT] = op_sidt,
	[KIND_LLDT] = op_lldt,
	[KIND_SLDT] = op_sldt,
	[KIND_LTR] = op_ltr,
	[KIND_STR] = op_str,
	[KIND_LMSW] = op_lmsw,
	[KIND_SMSW] = op_smsw,
	[KIND_LAR] = op_lar,
	[KIND_LSL] = op_lsl,
	[KIND_VERR] = op_verr,
	[KIND_VERW] = op_verw,
	[KIND_CLTS] = op_clts,
	[KIND_INVLPG] = op_invlpg,
	[KIND_INVPCID] = op_invpcid,
	[KIND_WBINVD] = op_wbinvd,
	[KIND_SWAPGS] = op_swapgs,
	[KIND_HYPERCALL] = op_hypercall,
	[KIND_FXSAVE] = op_fxsave,
	[KIND_FXRSTOR] = op_fxrstor,
	[KIND_LDMXCSR] = op_ldmxcsr,
	[KIND_STMXCSR] = op_stmxcsr,
	[KIND_MOVDIR64B] = op_movdir64b,
	[KIND_CLZERO] = op_clzero,
	[KIND_AAA] = op_aaa,
	[KIND_AAS] = op_aas,
	[KIND_AAD] = op_aad,
	[KIND_AAM] = op_aam,
	[KIND_DAA] = op_daa,
	[KIND_DAS] = op_das,
	[KIND_SALC] = op_salc,
	[KIND_BOUND] = op_bound,
	[KIND_ARPL] = op_arpl,
};

op_fn op_choose(const struct insn *insn, struct op *op)
{
	if (choosers[insn->kind])
		return choosers[insn->kind](insn, op);
	return fixed[insn->kind] ? fixed[insn->kind] : op_unimplemented;
}
