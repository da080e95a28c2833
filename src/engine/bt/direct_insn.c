/* Instructions for a space. Nearly all are copied. What is not: memory operands relative to RIP or GS, whose address goes into a register
 * that is saved in the window meanwhile; transfers of control; what only step may do. */
#include "engine/bt/direct_work.h"
#include "engine/insn/rewrite.h"

static void save(struct emitter *e, unsigned reg, u32 offset)
{
	emit_store_gs(e, reg, offset);
}

static void emit_constant(struct emitter *e, unsigned reg, u64 value)
{
	if (value >> 32) {
		emit_rex(e, true, 0, NO_REGISTER, reg);
		emit8(e, (u8)(0xb8 | (reg & 7)));
		emit_bytes(e, (const u8 *)&value, sizeof(value));
	} else {
		emit_rex(e, false, 0, NO_REGISTER, reg);
		emit8(e, (u8)(0xb8 | (reg & 7)));
		emit32(e, (u32)value);
	}
}

/* ---- what is copied ---- */

static bool is_copied(const struct direct_translation *w, const struct insn *insn)
{
	switch (insn->kind) {
	case KIND_X87_ENV:
	case KIND_STRING_INS:
	case KIND_STRING_OUTS:
		return false;
	case KIND_PUSH:
	case KIND_POP: /* segment registers are step's */
		return insn->operand[0].type != ZYDIS_OPERAND_TYPE_REGISTER || insn_gpr(insn->operand[0].reg.value) >= 0;
	case KIND_LAHF:
	case KIND_SAHF:
		return cpuid_has(w->vcpu->cpuid, FEATURE_LAHF_LM);
	case KIND_STRING_MOVS:
	case KIND_STRING_STOS:
	case KIND_STRING_LODS:
	case KIND_STRING_CMPS:
	case KIND_STRING_SCAS:
	case KIND_MASKMOV:
	case KIND_MOVDIR64B:
	case KIND_PAUSE:
		return true;
	default:
		return insn_class_of((enum insn_kind)insn->kind) == INSN_CLASS_INNOCUOUS ||
		       insn_class_of((enum insn_kind)insn->kind) == INSN_CLASS_MOVE;
	}
}

static bool state_ready(struct direct_translation *w, const struct insn *insn)
{
	return insn->xstate == INSN_NO_XSTATE || xstate_check(w->vcpu, (enum xstate_class)insn->xstate);
}

static bool has_gs(const struct insn *insn)
{
	for (unsigned i = 0; i < insn->z.operand_count; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY && insn->operand[i].mem.segment == ZYDIS_REGISTER_GS)
			return true;
	return false;
}

/* The operand relative to RIP, or NULL. */
static const ZydisDecodedOperand *relative_operand(const struct insn *insn)
{
	for (unsigned i = 0; i < insn->z.operand_count; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (insn->operand[i].mem.base == ZYDIS_REGISTER_RIP || insn->operand[i].mem.base == ZYDIS_REGISTER_EIP))
			return &insn->operand[i];
	return NULL;
}

static u16 register_bit(ZydisRegister reg)
{
	int gpr = insn_gpr(reg);
	return gpr < 0 ? 0 : (u16)(1u << gpr);
}

/* A load that only writes a whole register can have its address there. */
static int loaded_register(const struct insn *insn)
{
	if (insn->kind != KIND_MOV && insn->kind != KIND_MOVZX && insn->kind != KIND_MOVSX)
		return -1;
	if (insn->operand[0].type != ZYDIS_OPERAND_TYPE_REGISTER || insn->operand[0].size < 32)
		return -1;
	int gpr = insn_gpr(insn->operand[0].reg.value);
	return gpr == RSP || gpr == RBP || gpr == R12 || gpr == R13 ? -1 : gpr;
}

/* A register that the instruction does not use. */
static unsigned free_register(const struct insn *insn)
{
	static const u8 choice[] = { RDI, RSI, RDX, RCX, RBX, RAX };
	u16 used = insn->gpr_read | insn->gpr_written;
	for (unsigned i = 0; i < insn->z.operand_count; i++)
		if (insn->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			used |= register_bit(insn->operand[i].mem.base) | register_bit(insn->operand[i].mem.index);
	for (unsigned i = 0; i < ARRAY_SIZE(choice); i++)
		if (!(used & (1u << choice[i])))
			return choice[i];
	return NO_REGISTER;
}

static unsigned log2_scale(unsigned scale)
{
	return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

/* reg = linear address of the operand, which is relative to RIP or GS. */
static void emit_address_of(struct direct_translation *w, unsigned reg, const ZydisDecodedOperand *o)
{
	struct emitter *e = &w->e;
	s64 disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	if (o->mem.base == ZYDIS_REGISTER_RIP) {
		emit_constant(e, reg, direct_next(w) + (u64)disp);
		return;
	}
	int base = insn_gpr(o->mem.base), index = insn_gpr(o->mem.index);
	emit_load_gs(e, reg, WINDOW_GS_BASE);
	emit_lea(e, true, reg, reg, base < 0 ? NO_REGISTER : (unsigned)base, 0, (s32)disp);
	if (index >= 0)
		emit_lea(e, true, reg, reg, (unsigned)index, log2_scale(o->mem.scale), 0);
}

/* Relative to RIP, and where 32 bits of an absolute address reach: in programs that are not relocated. */
static bool is_low(const struct direct_translation *w, const ZydisDecodedOperand *o)
{
	return o->mem.base == ZYDIS_REGISTER_RIP && direct_next(w) + (u64)o->mem.disp.value < BIT(31);
}

static bool emit_with_address(struct direct_translation *w, const struct insn *insn, const ZydisDecodedOperand *o)
{
	struct emitter *e = &w->e;
	int loaded = loaded_register(insn);
	unsigned reg = loaded >= 0 && o->mem.base == ZYDIS_REGISTER_RIP ? (unsigned)loaded : free_register(insn);
	struct register_map map;
	struct rewritten host;
	bool gs = o->mem.segment == ZYDIS_REGISTER_GS;
	if (reg == NO_REGISTER || insn->memory < 0 || o != insn_memory(insn) || insn->z.address_width != 64 ||
	    (gs && o->mem.base == ZYDIS_REGISTER_RIP) || o->mem.segment == ZYDIS_REGISTER_FS || o->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
	    (o->mem.base == ZYDIS_REGISTER_RSP && gs && insn->kind == KIND_POP) ||
	    (o->mem.disp.has_displacement && o->mem.disp.value != (s32)o->mem.disp.value))
		return false;
	for (unsigned i = 0; i < GPR_COUNT; i++)
		map.gpr[i] = (u8)i;
	if (is_low(w, o)) {
		map.memory = (struct place){ .base = NO_REGISTER, .index = NO_REGISTER, .disp = (s32)(direct_next(w) + (u64)o->mem.disp.value) };
		if (insn_rewrite_renamed(insn, &map, &host) && host.length <= INSN_LENGTH_MAX) {
			emit_bytes(e, host.bytes, host.length);
			return true;
		}
	}
	map.memory = (struct place){ .base = (u8)reg, .index = NO_REGISTER };
	if (!insn_rewrite_renamed(insn, &map, &host))
		return false;
	save(e, reg, WINDOW(scratch));
	direct_note(w, (reg + 1) << MAP_SCRATCH_SHIFT);
	emit_address_of(w, reg, o);
	emit_bytes(e, host.bytes, host.length);
	if ((int)reg != loaded)
		emit_load_gs(e, reg, WINDOW(scratch));
	return true;
}

static bool emit_lea_relative(struct direct_translation *w, const struct insn *insn)
{
	const ZydisDecodedOperandMem *mem = &insn->operand[1].mem;
	unsigned bits = insn->z.operand_width;
	u64 address = direct_next(w) + (u64)mem->disp.value;
	if (mem->base != ZYDIS_REGISTER_RIP || bits < 32 || insn->z.address_width != 64)
		return false;
	emit_constant(&w->e, (unsigned)insn_gpr(insn->operand[0].reg.value), bits == 64 ? address : (u32)address);
	return true;
}

static bool emit_copied(struct direct_translation *w, const struct insn *insn)
{
	const ZydisDecodedOperand *relative = relative_operand(insn);
	if (!state_ready(w, insn))
		return false;
	if (insn->kind == KIND_LEA && relative)
		return emit_lea_relative(w, insn);
	if (insn->kind != KIND_LEA && has_gs(insn))
		return insn_memory(insn) && emit_with_address(w, insn, insn_memory(insn));
	if (relative)
		return emit_with_address(w, insn, relative);
	emit_bytes(&w->e, insn->bytes, insn->z.length);
	return true;
}

/* ---- transfers of control ---- */

static bool is_far(const struct insn *insn)
{
	return insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || insn->z.operand_width != 64;
}

static bool is_direct(const struct insn *insn)
{
	return insn->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static u64 relative_target(const struct direct_translation *w)
{
	return direct_next(w) + (u64)w->insn[w->current].operand[0].imm.value.s;
}

/* ECX = low 16 bits of window.target, RCX being saved; jump by the first table. */
static void emit_tail(struct direct_translation *w, s32 moved)
{
	struct emitter *e = &w->e;
	u32 site = direct_site(w, DIRECT_BRANCH);
	if (!w->failed)
		site_at(w->s, site)->moved = moved;
	EMIT(e, 0x65, 0xc7, 0x04, 0x25); /* mov dword gs:[site], imm32 */
	emit32(e, WINDOW(site));
	emit32(e, site);
	EMIT(e, 0x65, 0x0f, 0xb7, 0x0c, 0x25); /* movzx ecx, word gs:[target] */
	emit32(e, WINDOW_TARGET);
	EMIT(e, 0x65, 0xff, 0x24, 0xcd); /* jmp gs:[rcx * 8 + first table] */
	emit32(e, (u32)(w->s->host->tables_there - w->s->host->window_there));
}

/* RCX is saved, window.target is the value of the operand. */
static bool emit_load_target(struct direct_translation *w, const struct insn *insn)
{
	const ZydisDecodedOperand *o = &insn->operand[0];
	struct emitter *e = &w->e;
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		save(e, RCX, WINDOW_RCX);
		save(e, (unsigned)insn_gpr(o->reg.value), WINDOW_TARGET);
		return true;
	}
	s64 disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	bool relative = o->mem.base == ZYDIS_REGISTER_RIP;
	if (insn->z.address_width != 64 || o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS || disp != (s32)disp)
		return false;
	save(e, RCX, WINDOW_RCX);
	if (relative) {
		emit_constant(e, RCX, direct_next(w) + (u64)disp);
		direct_note(w, MAP_RCX);
		emit_rm(e, true, 0x8b, RCX, RCX, 0);
	} else {
		int base = insn_gpr(o->mem.base), index = insn_gpr(o->mem.index);
		unsigned b = base < 0 ? NO_REGISTER : (unsigned)base, i = index < 0 ? NO_REGISTER : (unsigned)index;
		emit_rex(e, true, RCX, i, b);
		emit8(e, 0x8b);
		emit_address(e, RCX, b, i, log2_scale(o->mem.scale), (s32)disp);
	}
	direct_note(w, MAP_RCX);
	save(e, RCX, WINDOW_TARGET);
	return true;
}

/* PUSH of the address of the next instruction. */
static void emit_push_next(struct direct_translation *w)
{
	EMIT(&w->e, 0xff, 0x35); /* push qword [rip + rel32] */
	emit32(&w->e, 0);
	w->constant[w->constants].field = w->e.at - 4;
	w->constant[w->constants++].value = direct_next(w);
}

static bool emit_call(struct direct_translation *w, const struct insn *insn)
{
	if (is_far(insn))
		return false;
	if (is_direct(insn)) {
		emit_push_next(w);
		direct_goto(w, relative_target(w));
	} else {
		if (!emit_load_target(w, insn))
			return false;
		emit_push_next(w);
		emit_tail(w, -8);
	}
	if (w->queued < DIRECT_QUEUE)
		w->queue[w->queued++] = direct_next(w) | BIT(63);
	return true;
}

static bool emit_jmp(struct direct_translation *w, const struct insn *insn)
{
	if (is_far(insn))
		return false;
	if (is_direct(insn)) {
		direct_goto(w, relative_target(w));
		return true;
	}
	if (!emit_load_target(w, insn))
		return false;
	emit_tail(w, 0);
	return true;
}

static bool emit_ret(struct direct_translation *w, const struct insn *insn)
{
	struct emitter *e = &w->e;
	if (is_far(insn))
		return false;
	s32 release = is_direct(insn) ? (s32)(insn->operand[0].imm.value.u & 0xffff) : 0;
	EMIT(e, 0x65, 0x8f, 0x04, 0x25); /* pop qword gs:[target] */
	emit32(e, WINDOW_TARGET);
	if (release)
		emit_lea(e, true, RSP, RSP, NO_REGISTER, 0, release);
	save(e, RCX, WINDOW_RCX);
	emit_tail(w, 8 + release);
	return true;
}

static bool emit_jcc_insn(struct direct_translation *w, const struct insn *insn)
{
	direct_link(w, emit_jcc(&w->e, insn->z.opcode & 15), relative_target(w));
	return true;
}

/* JRCXZ and LOOP have short forms only: they jump over a jump. */
static bool emit_count_jump(struct direct_translation *w, const struct insn *insn)
{
	if (insn->z.address_width == 32)
		emit8(&w->e, 0x67);
	EMIT(&w->e, insn->z.opcode, 2, 0xeb, 5);
	direct_link(w, emit_jump(&w->e, 0xe9, w->e.at), relative_target(w));
	return true;
}

/* ---- sensitive instructions that need not leave ---- */

/* RDTSC with the guest's offset. The flags go through the window. */
static bool emit_rdtsc(struct direct_translation *w, const struct insn *insn)
{
	struct emitter *e = &w->e;
	if (w->vcpu->cr4 & CR4_TSD)
		return false;
	EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
	emit_store_gs(e, RAX, WINDOW(flags));
	if (insn->kind == KIND_RDTSCP)
		EMIT(e, 0x0f, 0x01, 0xf9);
	else
		EMIT(e, 0x0f, 0x31);
	EMIT(e, 0x48, 0xc1, 0xe2, 0x20); /* shl rdx, 32 */
	emit_rr(e, true, 0x09, RDX, RAX); /* or rax, rdx */
	emit_gs(e, true, 0x03, RAX, WINDOW(tsc_offset));
	emit_store_gs(e, RAX, WINDOW(rax));
	emit_load_gs(e, RAX, WINDOW(flags));
	EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
	emit_gs(e, false, 0x8b, RAX, WINDOW(rax));
	emit_gs(e, false, 0x8b, RDX, WINDOW(rax) + 4);
	if (insn->kind == KIND_RDTSCP)
		emit_gs(e, false, 0x8b, RCX, WINDOW(tsc_aux));
	return true;
}

static bool emit_by_kind(struct direct_translation *w, const struct insn *insn, bool *ends)
{
	switch (insn->kind) {
	case KIND_JCC:
		return emit_jcc_insn(w, insn);
	case KIND_JCXZ:
	case KIND_LOOP:
		return emit_count_jump(w, insn);
	case KIND_JMP:
		*ends = true;
		return emit_jmp(w, insn);
	case KIND_CALL:
		*ends = true;
		return emit_call(w, insn);
	case KIND_RET:
		*ends = true;
		return emit_ret(w, insn);
	case KIND_RDTSC:
	case KIND_RDTSCP:
		return emit_rdtsc(w, insn);
	default:
		return is_copied(w, insn) && emit_copied(w, insn);
	}
}

bool direct_emit_insn(struct direct_translation *w, bool *ends)
{
	direct_note(w, 0);
	*ends = false;
	return emit_by_kind(w, &w->insn[w->current], ends);
}
