/* Control transfers and the stack. Jumps within the page are chained; others go through the jump cache (state.h). */
#include "engine/bt/work.h"

#define LOOK_AHEAD 6

/* ---- where a successor wants the flags ---- */

bool branch_fits(const struct translation_work *w, const struct insn *insn)
{
	return w->mode == INSN_MODE_64 || narrow_branch_fits(w, insn);
}

static bool is_direct(const struct translation_work *w, const struct insn *insn, enum insn_kind kind)
{
	return insn->kind == kind && branch_fits(w, insn) && insn->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

/* The instruction at an offset: often it is one of the block's. NULL: none that a block goes on with. */
static const struct insn *insn_at(struct translation_work *w, unsigned offset)
{
	if (modes_breaks(w->cache, w->key, offset))
		return NULL;
	for (unsigned i = 0; i < w->count && !w->second; i++)
		if (w->at[i] == offset)
			return &w->insn[i];
	return insn_decode(&step_of(w->vcpu)->decoder, w->mode, w->bytes + offset, PAGE_SIZE - offset, &w->ahead) == DECODE_OK ? &w->ahead : NULL;
}

/* The first instruction that has to do with flags tells, unless the code may be left before; what lies behind a jump may poll first. Where nothing
 * is found, readers complete the flags themselves. */
static void look_ahead(struct translation_work *w, s64 offset, struct bt_wanted *wanted)
{
	bool leaves = false, jumped = false;
	for (unsigned i = 0; i < LOOK_AHEAD && stays_in_page(w, offset); i++) {
		wanted->lines |= work_lines((unsigned)offset);
		const struct insn *insn = insn_at(w, (unsigned)offset);
		if (!insn)
			return;
		offset += insn->z.length;
		bool jump = is_direct(w, insn, KIND_JMP), overwritten = insn->flags_killed == RFLAGS_STATUS;
		leaves |= !jump && may_leave(insn);
		jumped |= jump;
		if (insn->flags_written || insn->flags_tested || insn->kind == KIND_PUSHF) {
			wanted->read = insn->flags_tested || !overwritten;
			if (!leaves && !(overwritten && jumped))
				wanted->entry = wanted->read ? ENTRY_HOST : ENTRY_DEAD;
			return;
		}
		if (jump || is_direct(w, insn, KIND_CALL))
			offset += insn->operand[0].imm.value.s;
		else if (ends_block(insn))
			return;
	}
}

static const struct bt_wanted *wanted_at(struct translation_work *w, s64 offset)
{
	struct bt_wanted *known = &w->cache->wanted[(w->page->gpa >> 6 ^ (u64)offset) % BT_WANTED_SIZE];
	gpa_t gpa = w->page->gpa + (u64)offset;
	if (known->gpa != gpa || known->seen != w->page->seen || known->key != w->key) {
		*known = (struct bt_wanted){ .gpa = gpa, .seen = w->page->seen, .key = w->key, .entry = ENTRY_SAVED };
		look_ahead(w, offset, known);
	}
	w->lines |= known->lines;
	return known;
}

enum entry entry_at(struct translation_work *w, s64 offset)
{
	return stays_in_page(w, offset) ? (enum entry)wanted_at(w, offset)->entry : ENTRY_SAVED;
}

u16 live_at(struct translation_work *w, s64 offset)
{
	return stays_in_page(w, offset) && wanted_at(w, offset)->read ? RFLAGS_STATUS : 0;
}

/* ---- jumps ---- */

/* T0 = target RIP: look it up in the jump cache, and jump there or call it. */
static void emit_tail_by(struct translation_work *w, bool call)
{
	struct emitter *e = &w->e;
	work_spill_far(w);
	emit_store_gs(e, T0, VCPU(rip));
	emit_jump_index(e);
	emit_load_gs(e, T1, VCPU(jump_cache));
	emit_lea(e, true, T1, T1, T0, 3, 0);
	EMIT(e, 0x41, 0xff, call ? 0x93 : 0xa3); /* call or jmp [r11 + codes] */
	emit32(e, JUMP_CACHE_ENTRIES * 8);
}

static void emit_tail(struct translation_work *w)
{
	emit_tail_by(w, false);
}

static void emit_note(struct translation_work *w, u32 branch)
{
	EMIT(&w->e, 0x65, 0x48, 0xc7, 0x04, 0x25); /* mov qword gs:[BRANCH_SLOT], imm32 */
	emit32(&w->e, BRANCH_SLOT);
	emit32(&w->e, branch);
}

/* Where the branch is and how it moved RSP, for a target that turns out not to be canonical. */
static void note_branch(struct translation_work *w, s32 moved)
{
	emit_note(w, (u32)moved << 12 | w->at[w->current]);
}

void note_far(struct translation_work *w, bool sequential, s32 moved)
{
	if (w->mode == INSN_MODE_64 ? !(w->key & KEY_EDGE) : w->key & KEY_FLAT_CS)
		return;
	if (sequential)
		emit_note(w, NO_BRANCH);
	else
		note_branch(w, moved);
}

void emit_indirect(struct translation_work *w, s32 moved)
{
	note_branch(w, moved);
	emit_tail(w);
}

void emit_far_goto(struct translation_work *w, s64 target)
{
	w->known.valid = false;
	work_spill_far(w);
	emit_load_gs(&w->e, T0, VCPU(code_base));
	emit_lea(&w->e, w->mode == INSN_MODE_64, T0, T0, NO_REGISTER, 0, (s32)target);
	emit_tail(w);
}

static void emit_far_branch(struct translation_work *w, s64 target, s32 moved)
{
	note_far(w, false, moved);
	if (w->mode == INSN_MODE_64) {
		emit_far_goto(w, target);
		return;
	}
	w->known.valid = false;
	work_spill_far(w);
	emit_gs(&w->e, false, 0x8b, T0, VCPU(code_base));
	emit_lea(&w->e, false, T0, T0, NO_REGISTER, 0, (s32)target);
	if (work_insn(w)->z.operand_width == 16)
		emit_cut16(&w->e, T0);
	emit_tail(w);
}

bool stays_in_page(const struct translation_work *w, s64 target)
{
	return target >= 0 && target < (s64)PAGE_SIZE && !(w->key & KEY_APART);
}

u8 *work_link(struct translation_work *w, u8 opcode)
{
	static const u8 nop[][3] = { { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0x00 } };
	struct emitter *e = &w->e;
	bool conditional = opcode < 0xe0;
	u8 *field = e->at + (conditional ? 2 : 1);
	unsigned room = 8 - ((uintptr_t)field & 7);
	if (w->cache->users > 1 && !cache_at_once(field))
		emit_bytes(e, nop[room - 1], room);
	return conditional ? emit_jcc(e, opcode & 15) : emit_jump(e, opcode, e->at);
}

/* Whether the distance of a jump that was written may be changed later. */
static bool may_link(const struct translation_work *w, const u8 *field)
{
	return w->cache->users == 1 || cache_at_once(field);
}

/* A jump whose rel32 is `field` goes to an offset of this page: to its code, or to a stub that links it. NULL: no stub was needed. */
static struct stub *link_jump(struct translation_work *w, u8 *field, s64 target)
{
	if (target == w->block->offset && !w->cache->unchained) {
		emit_fix32(field, bt_body(w->cache, w->block));
		return NULL;
	}
	struct stub *s = work_stub(w, SITE_LINK, field);
	s->site.offset = (u16)target;
	s->target = cache_find(w->cache, w->block->page->gpa + (u64)target, w->key);
	return s;
}

/* Whether the flags are where code at an offset of this page wants them. */
static bool flags_fit(struct translation_work *w, s64 target)
{
	enum entry entry = entry_at(w, target);
	return w->place == FLAGS_BOTH || entry == ENTRY_DEAD || (w->place == FLAGS_SAVED) == (entry == ENTRY_SAVED);
}

static bool must_flush(struct translation_work *w, s64 target)
{
	return w->deferred && entry_at(w, target) == ENTRY_SAVED;
}

static void emit_fit_flags(struct translation_work *w, s64 target)
{
	if (!flags_fit(w, target) && w->place == FLAGS_HOST)
		work_save_flags(w, live_at(w, target));
	else if (!flags_fit(w, target))
		work_need_flags(w);
	if (must_flush(w, target))
		flags_flush(w);
}

/* To an offset of this page. */
static void emit_near_goto(struct translation_work *w, s64 target)
{
	emit_fit_flags(w, target);
	link_jump(w, work_link(w, 0xe9), target);
}

void emit_goto(struct translation_work *w, s64 target)
{
	if (stays_in_page(w, target)) {
		emit_near_goto(w, target);
		return;
	}
	note_far(w, true, 0);
	emit_far_goto(w, target);
}

void emit_branch(struct translation_work *w, s64 target, s32 moved)
{
	if (stays_in_page(w, target))
		emit_near_goto(w, target);
	else
		emit_far_branch(w, target, moved);
}

s64 relative_target(const struct translation_work *w)
{
	return (s64)work_next(w) + work_insn(w)->operand[0].imm.value.s;
}

void taken(struct translation_work *w, u8 *field, s64 target)
{
	if (stays_in_page(w, target) && flags_fit(w, target) && !must_flush(w, target) && may_link(w, field)) {
		link_jump(w, field, target);
		return;
	}
	emit_fix32(field, w->e.at);
	emit_branch(w, target, 0);
}

/* A conditional jump forwards, inside the block. If it leads to where the flags are wanted saved, and this block soon saves them, too, that may as
 * well be done now. */
static void emit_side_exit(struct translation_work *w, s64 target)
{
	u16 readers = live_at(w, target);
	if (!flags_fit(w, target) && entry_at(w, work_next(w)) == ENTRY_SAVED)
		work_save_flags(w, readers | w->live[w->current + 1]);
	bool fits = flags_fit(w, target) && !must_flush(w, target);
	struct stub *s = link_jump(w, work_link(w, 0x80 | (work_insn(w)->z.opcode & 15)), target);
	s->save = !fits;
	if (!readers || w->deferred)
		s->source = w->source;
}

bool emit_jcc_insn(struct translation_work *w)
{
	s64 target = relative_target(w), next = work_next(w);
	work_need_flags(w);
	w->kept = true;
	if (w->current + 1 < w->count) {
		emit_side_exit(w, target);
		return true;
	}
	/* Out of line on one side costs less, but for a loop. */
	if (entry_at(w, target) == ENTRY_SAVED && (target <= w->at[w->current] || entry_at(w, next) == ENTRY_SAVED))
		work_save_flags(w, live_at(w, target) | live_at(w, next));
	enum flags_place place = w->place;
	bool image = w->image, deferred = w->deferred;
	u8 *field = work_link(w, 0x80 | (work_insn(w)->z.opcode & 15));
	emit_goto(w, next);
	w->place = place;
	w->image = image;
	w->deferred = deferred;
	taken(w, field, target);
	return true;
}

/* JRCXZ and LOOP have short forms only: they jump over a jump. */
bool emit_count_jump(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	s64 target = relative_target(w), next = work_next(w);
	if (insn->flags_tested)
		work_need_flags(w);
	enum flags_place place = w->place;
	bool image = w->image, deferred = w->deferred;
	w->source.valid = false; /* LOOP counts RCX */
	if (insn->z.address_width == 32)
		emit8(&w->e, 0x67);
	EMIT(&w->e, insn->z.opcode, 2, 0xeb, 5);
	u8 *field = emit_jump(&w->e, 0xe9, w->e.at);
	emit_goto(w, next);
	w->place = place;
	w->image = image;
	w->deferred = deferred;
	taken(w, field, target);
	return true;
}

/* T0 = the value of an indirect branch's operand. False: step it. */
static bool emit_load_target(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const ZydisDecodedOperand *o = &insn->operand[0];
	if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
		unsigned gpr = (unsigned)insn_gpr(o->reg.value), host = host_register(gpr);
		if (host == NO_REGISTER)
			emit_load_gs(&w->e, T0, VCPU_GPR(gpr));
		else
			emit_mov(&w->e, T0, host);
		w->known.valid = false;
		return true;
	}
	struct operand a = access_plan(w, o);
	if (!emit_access(w, &a, o, 8, false))
		return false;
	emit_at(&w->e, true, 0x8b, T0, &a.host);
	w->known.valid = false; /* a small value would pass for an offset in the page */
	return true;
}

static bool is_far(const struct insn *insn)
{
	return insn->z.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || insn->z.operand_width != 64;
}

static bool emit_jmp(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	if (is_far(insn))
		return false;
	if (insn->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		emit_branch(w, relative_target(w), 0);
		return true;
	}
	if (!emit_load_target(w))
		return false;
	emit_indirect(w, 0);
	return true;
}

/* The stack slot below RSP, checked; T0 is free. */
static struct place emit_push_check(struct translation_work *w)
{
	struct operand a = access_plan_at(HOST_SP, -8);
	emit_access(w, &a, NULL, 8, true);
	return a.host;
}

/* A slot of the stack that `base` points at, loaded into a register. */
static void emit_stack_load(struct translation_work *w, unsigned to, unsigned base)
{
	struct operand a = access_plan_at(base, 0);
	emit_access(w, &a, NULL, 8, false);
	emit_at(&w->e, true, 0x8b, to, &a.host);
}

static void emit_add_sp(struct translation_work *w, s32 bytes)
{
	emit_lea(&w->e, true, HOST_SP, HOST_SP, NO_REGISTER, 0, bytes);
}

/* A frame for the return to T0. Where the RIP behind the CALL is in another page, it is none that a RET uses (emit_bottom in stubs.c). */
static void emit_push_frame(struct translation_work *w)
{
	struct emitter *e = &w->e;
	EMIT(e, 0x65, 0x48, 0x3b, 0x24, 0x25); /* cmp rsp, gs:[return_limit] */
	emit32(e, VCPU(return_limit));
	EMIT(e, 0x73, 5); /* jae over the next */
	emit_jump(e, 0xe8, bt_rw(w->cache, w->cache->return_restart));
	if (work_next(w) < PAGE_SIZE)
		EMIT(e, 0x41, 0x52); /* push r10 */
	else
		EMIT(e, 0x6a, 0); /* push 0 */
}

/* Where a host RET comes to, with T0 = RIP. */
static void emit_landing(struct translation_work *w)
{
	struct emitter *e = &w->e;
	unsigned next = work_next(w);
	if (next >= PAGE_SIZE) {
		emit_jump(e, 0xe9, bt_rw(w->cache, w->cache->return_bottom));
		return;
	}
	emit_lea(e, true, RSP, RSP, NO_REGISTER, 0, 8);
	emit_lea(e, true, T0, T0, NO_REGISTER, 0, -(s32)next);
	emit_store_gs(e, T0, VCPU(code_base));
	w->place = FLAGS_SAVED;
	w->image = w->deferred = false;
	emit_near_goto(w, next);
}

static void emit_direct_call(struct translation_work *w, s64 target)
{
	struct emitter *e = &w->e;
	if (!stays_in_page(w, target)) {
		note_far(w, false, -8);
		emit_lea(e, true, T0, T0, NO_REGISTER, 0, (s32)(target - work_next(w)));
		emit_tail_by(w, true);
		return;
	}
	emit_fit_flags(w, target);
	link_jump(w, work_link(w, 0xe8), target);
}

static bool emit_call(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const ZydisDecodedOperand *o = &insn->operand[0];
	bool direct = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	if (is_far(insn))
		return false;
	if (!direct) {
		if (!emit_load_target(w))
			return false;
		emit_store_gs(&w->e, T0, VCPU(scratch[1]));
	}
	struct place slot = emit_push_check(w);
	work_spill_flags(w);
	emit_load_gs(&w->e, T0, VCPU(code_base));
	emit_lea(&w->e, true, T0, T0, NO_REGISTER, 0, (s32)work_next(w));
	emit_at(&w->e, true, 0x89, T0, &slot);
	emit_add_sp(w, -8);
	emit_push_frame(w);
	if (direct) {
		emit_direct_call(w, relative_target(w));
	} else {
		emit_load_gs(&w->e, T0, VCPU(scratch[1]));
		note_branch(w, -8);
		emit_tail_by(w, true);
	}
	emit_landing(w);
	return true;
}

/* T0 = RIP: by a host RET, if the frame on top says so. */
static void emit_return(struct translation_work *w)
{
	struct emitter *e = &w->e;
	EMIT(e, 0x4c, 0x3b, 0x54, 0x24, 8, 0x75, 1, 0xc3); /* cmp r10, [rsp + 8]; jne over the next; ret */
	EMIT(e, 0x65, 0x48, 0x3b, 0x24, 0x25); /* cmp rsp, gs:[return_base] */
	emit32(e, VCPU(return_base));
	EMIT(e, 0x74, 4, 0x48, 0x83, 0xc4, 16); /* je over the next; add rsp, 16 */
}

static bool emit_ret(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	if (is_far(insn))
		return false;
	s32 release = insn->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (s32)(insn->operand[0].imm.value.u & 0xffff) : 0;
	emit_stack_load(w, T0, HOST_SP);
	emit_add_sp(w, 8 + release);
	emit_return(w);
	emit_indirect(w, 8 + release);
	return true;
}

bool emit_control(struct translation_work *w)
{
	if (w->mode != INSN_MODE_64)
		return narrow_control(w);
	switch (work_insn(w)->kind) {
	case KIND_JCC:
		return emit_jcc_insn(w);
	case KIND_JMP:
		return emit_jmp(w);
	case KIND_CALL:
		return emit_call(w);
	case KIND_RET:
		return emit_ret(w);
	case KIND_JCXZ:
	case KIND_LOOP:
		return emit_count_jump(w);
	default:
		return false;
	}
}

/* ---- the stack ---- */

void emit_push_saved(struct translation_work *w)
{
	struct place slot = emit_push_check(w);
	emit_load_gs(&w->e, T0, VCPU(scratch[1]));
	emit_at(&w->e, true, 0x89, T0, &slot);
	emit_add_sp(w, -8);
}

static bool emit_push(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	const ZydisDecodedOperand *o = &insn->operand[0];
	struct emitter *e = &w->e;
	struct place slot;
	if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		slot = emit_push_check(w);
		emit_at(e, true, 0xc7, 0, &slot); /* mov qword [slot], imm32 */
		emit32(e, (u32)o->imm.value.u);
		w->kept = true;
	} else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
		if (!emit_load_target(w))
			return false;
		emit_store_gs(e, T0, VCPU(scratch[1]));
		emit_push_saved(w);
		return true;
	} else {
		int gpr = insn_gpr(o->reg.value);
		if (gpr < 0)
			return false;
		unsigned host = host_register((unsigned)gpr);
		slot = emit_push_check(w);
		if (host == NO_REGISTER)
			emit_load_gs(e, T0, VCPU_GPR((unsigned)gpr));
		emit_at(e, true, 0x89, host == NO_REGISTER ? T0 : host, &slot);
		w->kept = host != NO_REGISTER;
	}
	emit_add_sp(w, -8);
	return true;
}

static bool emit_pop(struct translation_work *w)
{
	const ZydisDecodedOperand *o = &work_insn(w)->operand[0];
	int gpr = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? insn_gpr(o->reg.value) : -1;
	if (gpr < 0)
		return false;
	unsigned host = host_register((unsigned)gpr);
	emit_stack_load(w, host == NO_REGISTER ? T0 : host, HOST_SP);
	if (host == NO_REGISTER)
		emit_store_gs(&w->e, T0, VCPU_GPR((unsigned)gpr));
	if (gpr != RSP)
		emit_add_sp(w, 8);
	w->kept = host != NO_REGISTER;
	return true;
}

static bool emit_leave(struct translation_work *w)
{
	emit_stack_load(w, T0, RBP);
	emit_lea(&w->e, true, HOST_SP, RBP, NO_REGISTER, 0, 8);
	emit_mov(&w->e, RBP, T0);
	return true;
}

bool emit_stack(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	if (w->mode != INSN_MODE_64)
		return narrow_stack(w);
	if (insn->z.operand_width != 64)
		return false;
	switch (insn->kind) {
	case KIND_PUSH:
		return emit_push(w);
	case KIND_POP:
		return emit_pop(w);
	case KIND_LEAVE:
		return emit_leave(w);
	default:
		return false;
	}
}
