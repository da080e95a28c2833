/* What 16- and 32-bit code does differently: segments with bases and limits, addresses and instruction pointers that wrap, stacks and
 * transfers of 16 and 32 bits. Such code is called narrow here.
 *
 * Addresses are computed in T0, cut to their size; the check of a segment that is not flat (state.h, KEY_FLAT) follows, then the base:
 *
 *   T0 + size > segment_end[segment][write]: step; T0 += base, cut to 32 bits
 *
 * Intel SDM volume 1, "Effective-Operand-Size and Effective-Address-Size Attributes"; volume 3, "Limit Checking". */
#include "engine/bt/work.h"

/* ---- addresses ---- */

void emit_cut16(struct emitter *e, unsigned reg)
{
	emit_rex(e, false, reg, NO_REGISTER, reg);
	EMIT(e, 0x0f, 0xb7, (u8)(0xc0 | (reg & 7) << 3 | (reg & 7))); /* movzx */
}

static bool needs_no_check(const struct translation_work *w, unsigned segment, bool write)
{
	switch (segment) {
	case SEG_ES:
	case SEG_SS:
	case SEG_DS:
		return w->key & KEY_FLAT;
	case SEG_CS:
		return (w->key & KEY_FLAT_CS) && !write;
	default:
		return false;
	}
}

void narrow_segment(struct translation_work *w, unsigned segment, unsigned size, bool write)
{
	struct emitter *e = &w->e;
	if (needs_no_check(w, segment, write))
		return;
	u32 end = (u32)(offsetof(struct vcpu, segment_end) + (segment * 2 + write) * sizeof(u64));
	u32 base = (u32)(offsetof(struct vcpu, seg) + segment * sizeof(struct segment) + offsetof(struct segment, base));
	emit_lea(e, true, T1, T0, NO_REGISTER, 0, (s32)size);
	emit_gs(e, true, 0x3b, T1, end); /* cmp r11, gs:[end] */
	work_stub(w, SITE_STEP, emit_jcc(e, 0x7)); /* ja */
	emit_gs(e, false, 0x03, T0, base); /* add r10d, gs:[base] */
}

/* As those of 64-bit code are: with a sum of 64 bits. Where the operand's address wraps at 32 bits, or the register holds more than 32, that is
 * no address of this code (access_fill), and the instruction is stepped; so only what seldom does is reached in this way. */
#define PLAIN_DISTANCE 0x10000

bool narrow_plain(const struct translation_work *w, const struct insn *insn, const ZydisDecodedOperand *o)
{
	s32 disp = o->mem.disp.has_displacement ? (s32)o->mem.disp.value : 0;
	return (w->key & KEY_FLAT) && insn->z.address_width == 32 && insn_segment(o->mem.segment) != SEG_CS && o->mem.base != ZYDIS_REGISTER_NONE &&
	       o->mem.index == ZYDIS_REGISTER_NONE && disp > -PLAIN_DISTANCE && disp < PLAIN_DISTANCE;
}

/* A place behind its check, and the scratch register that is not part of it. */
struct slot {
	struct place at;
	unsigned free;
};

/* A slot of the stack at `reg` + disp, cut to the size of the stack. */
static struct slot emit_slot(struct translation_work *w, unsigned reg, s32 disp, unsigned size, bool write)
{
	if ((w->key & KEY_FLAT) && (w->key & KEY_STACK32)) {
		struct operand a = access_plan_at(reg, disp);
		emit_access(w, &a, NULL, size, write);
		return (struct slot){ a.host, T0 };
	}
	work_spill_flags(w);
	u8 *retry = w->e.at;
	emit_lea(&w->e, false, T0, reg, NO_REGISTER, 0, disp);
	if (!(w->key & KEY_STACK32))
		emit_cut16(&w->e, T0);
	narrow_segment(w, SEG_SS, size, write);
	emit_check(w, size, write, retry);
	return (struct slot){ { T0, NO_REGISTER, 0, 0 }, T1 };
}

/* SP = reg + disp in the size of the stack. Clobbers T1, no flags. */
static void emit_set_sp(struct translation_work *w, unsigned reg, s32 disp)
{
	struct emitter *e = &w->e;
	if (w->key & KEY_STACK32) {
		emit_lea(e, false, HOST_SP, reg, NO_REGISTER, 0, disp);
		return;
	}
	emit_lea(e, false, T1, reg, NO_REGISTER, 0, disp);
	emit8(e, 0x66);
	emit_rr(e, false, 0x89, T1, HOST_SP);
}

/* A register and a place, in an operand size of 2 or 4 bytes. */
static void emit_sized(struct emitter *e, unsigned size, u8 opcode, unsigned reg, const struct place *at)
{
	if (size == 2)
		emit8(e, 0x66);
	emit_at(e, false, opcode, reg, at);
}

/* T0 = what is there, zero-extended. */
static void emit_load_zero(struct emitter *e, unsigned size, const struct place *at)
{
	if (size == 4) {
		emit_at(e, false, 0x8b, T0, at);
		return;
	}
	emit_rex(e, false, T0, at->index, at->base);
	EMIT(e, 0x0f, 0xb7); /* movzx */
	emit_address(e, T0, at->base, at->index, at->scale, at->disp);
}

static unsigned operand_size(const struct translation_work *w)
{
	return work_insn(w)->z.operand_width / 8u;
}

/* ---- transfers ---- */

bool narrow_branch_fits(const struct translation_work *w, const struct insn *insn)
{
	bool code16 = w->mode == INSN_MODE_16 || w->mode == INSN_MODE_REAL16;
	return insn->z.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR && (code16 || insn->z.operand_width == 32);
}

/* A register = EIP of an offset in the page, cut to an operand size. */
static void emit_eip(struct translation_work *w, unsigned reg, s64 offset, unsigned size)
{
	emit_gs(&w->e, false, 0x8b, reg, VCPU(code_base));
	emit_lea(&w->e, false, reg, reg, NO_REGISTER, 0, (s32)offset);
	if (size == 2)
		emit_cut16(&w->e, reg);
}

/* T0 = the operand of an indirect branch or a PUSH, zero-extended. */
static bool emit_load_operand(struct translation_work *w, unsigned size)
{
	const ZydisDecodedOperand *o = &work_insn(w)->operand[0];
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		w->known.valid = false; /* a small value would pass for an offset in the page */
		emit_rr(&w->e, false, 0x89, host_register((unsigned)insn_gpr(o->reg.value)), T0);
		if (size == 2)
			emit_cut16(&w->e, T0);
		return true;
	}
	struct operand a = access_plan(w, o);
	if (!emit_access(w, &a, o, size, false))
		return false;
	emit_load_zero(&w->e, size, &a.host);
	w->known.valid = false;
	return true;
}

static bool is_direct(const struct insn *insn)
{
	return insn->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static bool narrow_call(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	unsigned size = operand_size(w);
	bool direct = is_direct(insn);
	if (!direct) {
		if (!emit_load_operand(w, size))
			return false;
		emit_store_gs(&w->e, T0, VCPU(scratch[1]));
	}
	struct slot slot = emit_slot(w, HOST_SP, -(s32)size, size, true);
	emit_eip(w, slot.free, work_next(w), size);
	emit_sized(&w->e, size, 0x89, slot.free, &slot.at);
	emit_set_sp(w, HOST_SP, -(s32)size);
	if (direct) {
		emit_branch(w, relative_target(w), -(s32)size);
		return true;
	}
	emit_load_gs(&w->e, T0, VCPU(scratch[1]));
	emit_indirect(w, -(s32)size);
	return true;
}

static bool narrow_ret(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	unsigned size = operand_size(w);
	s32 move = (s32)size + (is_direct(insn) ? (s32)(insn->operand[0].imm.value.u & 0xffff) : 0);
	struct slot slot = emit_slot(w, HOST_SP, 0, size, false);
	emit_load_zero(&w->e, size, &slot.at);
	emit_set_sp(w, HOST_SP, move);
	emit_indirect(w, move);
	return true;
}

static bool narrow_jmp(struct translation_work *w)
{
	if (is_direct(work_insn(w))) {
		emit_branch(w, relative_target(w), 0);
		return true;
	}
	if (!emit_load_operand(w, operand_size(w)))
		return false;
	emit_indirect(w, 0);
	return true;
}

/* Count in CX, which no host instruction does: through T0, and tested with RCX put aside in T1. Flags stay. */
static void emit_count16(struct translation_work *w)
{
	struct emitter *e = &w->e;
	if (work_insn(w)->kind == KIND_LOOP) {
		emit_lea(e, false, T0, RCX, NO_REGISTER, 0, -1);
		emit8(e, 0x66);
		emit_rr(e, false, 0x89, T0, RCX);
	}
	emit_mov(e, T1, RCX);
	emit_cut16(e, RCX);
	EMIT(e, 0xe3, 8); /* jrcxz over the next two */
	emit_mov(e, RCX, T1);
}

/* JCXZ, and LOOP without a condition, by CX. */
static bool narrow_count_jump(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	bool loop = insn->kind == KIND_LOOP;
	s64 target = relative_target(w), next = work_next(w);
	if (!stays_in_page(w, target) && !(w->key & KEY_FLAT_CS))
		return false; /* should the target lie beyond CS, CX must be as it was */
	if (insn->z.address_width == 32)
		return emit_count_jump(w);
	if (loop && insn->z.mnemonic != ZYDIS_MNEMONIC_LOOP)
		return false;
	enum flags_place place = w->place;
	bool image = w->image, deferred = w->deferred;
	w->source.valid = false;
	emit_count16(w);
	u8 *counted = emit_jump(&w->e, 0xe9, w->e.at); /* CX is not zero */
	emit_mov(&w->e, RCX, T1);
	u8 *zero = emit_jump(&w->e, 0xe9, w->e.at);
	emit_fix32(loop ? zero : counted, w->e.at);
	emit_goto(w, next);
	w->place = place;
	w->image = image;
	w->deferred = deferred;
	taken(w, loop ? counted : zero, target);
	return true;
}

bool narrow_control(struct translation_work *w)
{
	if (!narrow_branch_fits(w, work_insn(w)))
		return false;
	switch (work_insn(w)->kind) {
	case KIND_JCC:
		return emit_jcc_insn(w);
	case KIND_JMP:
		return narrow_jmp(w);
	case KIND_CALL:
		return narrow_call(w);
	case KIND_RET:
		return narrow_ret(w);
	case KIND_JCXZ:
	case KIND_LOOP:
		return narrow_count_jump(w);
	default:
		return false;
	}
}

/* ---- the stack ---- */

static void emit_push_immediate(struct translation_work *w, unsigned size)
{
	u32 value = (u32)work_insn(w)->operand[0].imm.value.u;
	struct slot slot = emit_slot(w, HOST_SP, -(s32)size, size, true);
	emit_sized(&w->e, size, 0xc7, 0, &slot.at);
	if (size == 2)
		emit16(&w->e, (u16)value);
	else
		emit32(&w->e, value);
}

static void emit_push_segment(struct translation_work *w, unsigned segment, unsigned size)
{
	struct slot slot = emit_slot(w, HOST_SP, -(s32)size, size, true);
	EMIT(&w->e, 0x65, 0x44, 0x0f, 0xb7, (u8)(0x04 | (slot.free & 7) << 3), 0x25); /* movzx free, word gs:[selector] */
	emit32(&w->e, (u32)(offsetof(struct vcpu, seg) + segment * sizeof(struct segment)));
	emit_sized(&w->e, size, 0x89, slot.free, &slot.at);
}

void narrow_push_saved(struct translation_work *w, unsigned size)
{
	struct slot slot = emit_slot(w, HOST_SP, -(s32)size, size, true);
	emit_load_gs(&w->e, slot.free, VCPU(scratch[1]));
	emit_sized(&w->e, size, 0x89, slot.free, &slot.at);
	emit_set_sp(w, HOST_SP, -(s32)size);
}

static bool narrow_push(struct translation_work *w, unsigned size)
{
	const ZydisDecodedOperand *o = &work_insn(w)->operand[0];
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		emit_push_immediate(w, size);
	} else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		if (!emit_load_operand(w, size))
			return false;
		emit_store_gs(&w->e, T0, VCPU(scratch[1]));
		narrow_push_saved(w, size);
		return true;
	} else if (insn_gpr(o->reg.value) < 0) {
		emit_push_segment(w, insn_segment(o->reg.value), size);
	} else {
		struct slot slot = emit_slot(w, HOST_SP, -(s32)size, size, true);
		emit_sized(&w->e, size, 0x89, host_register((unsigned)insn_gpr(o->reg.value)), &slot.at);
	}
	emit_set_sp(w, HOST_SP, -(s32)size);
	return true;
}

static bool narrow_pop(struct translation_work *w, unsigned size)
{
	const ZydisDecodedOperand *o = &work_insn(w)->operand[0];
	int gpr = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? insn_gpr(o->reg.value) : -1;
	if (gpr < 0 || gpr == RSP)
		return false;
	struct slot slot = emit_slot(w, HOST_SP, 0, size, false);
	emit_sized(&w->e, size, 0x8b, host_register((unsigned)gpr), &slot.at);
	emit_set_sp(w, HOST_SP, (s32)size);
	return true;
}

static bool narrow_leave(struct translation_work *w, unsigned size)
{
	struct slot slot = emit_slot(w, RBP, 0, size, false);
	emit_load_zero(&w->e, size, &slot.at);
	emit_set_sp(w, RBP, (s32)size);
	if (size == 2)
		emit8(&w->e, 0x66);
	emit_rr(&w->e, false, 0x89, T0, RBP);
	return true;
}

bool narrow_stack(struct translation_work *w)
{
	unsigned size = operand_size(w);
	switch (work_insn(w)->kind) {
	case KIND_PUSH:
		return narrow_push(w, size);
	case KIND_POP:
		return narrow_pop(w, size);
	case KIND_LEAVE:
		return narrow_leave(w, size);
	default:
		return false;
	}
}
