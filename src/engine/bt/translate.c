/* From guest code to a block of host code: decode up to a transfer of control, find out where status flags are live, write the code, then what
 * lies out of line. */
#include "engine/bt/work.h"

#include "lib/string.h"

size_t translate_work_size(void)
{
	return sizeof(struct translation_work);
}

/* ---- decoding ---- */

bool ends_block(const struct insn *insn)
{
	switch (insn->kind) {
	case KIND_INT:
	case KIND_INT3:
	case KIND_INT1:
	case KIND_INTO:
	case KIND_IRET:
	case KIND_SYSCALL:
	case KIND_SYSRET:
	case KIND_SYSENTER:
	case KIND_SYSEXIT:
	case KIND_HLT:
		return true;
	default:
		return insn_class_of((enum insn_kind)insn->kind) == INSN_CLASS_CONTROL;
	}
}

/* The one instruction of a block that crosses. False: it does not, or is to be stepped. */
static bool decode_crossing(struct translation_work *w)
{
	struct vcpu *vcpu = w->vcpu;
	struct translation t;
	u8 bytes[2 * INSN_LENGTH_MAX];
	unsigned room = PAGE_SIZE - w->offset;
	gla_t second = modes_second_page(vcpu);
	if (w->mode != INSN_MODE_64 && !(w->key & KEY_FLAT_CS))
		return false; /* CS may end before the instruction does */
	if (room >= INSN_LENGTH_MAX || !is_canonical(second, vcpu_linear_bits(vcpu)) || !mmu_translate(vcpu, second, ACCESS_EXEC, &t) || !t.hva)
		return false;
	struct bt_page *page = bt_code_page(vcpu, &t);
	if (!page || w->page->gpa != (w->gpa & PAGE_MASK) || !w->page->generation) /* the first page was forgotten for the second */
		return false;
	memcpy(bytes, w->bytes + w->offset, room);
	memcpy(bytes + room, t.hva, INSN_LENGTH_MAX);
	w->second = page;
	w->at[0] = (u16)w->offset;
	w->count = insn_decode(&step_of(vcpu)->decoder, w->mode, bytes, room + INSN_LENGTH_MAX, w->insn) == DECODE_OK;
	w->at[1] = (u16)(w->offset + w->insn->z.length);
	return w->count && w->at[1] > PAGE_SIZE;
}

static s64 direct_target(const struct translation_work *w, unsigned i)
{
	return (s64)w->at[i + 1] + w->insn[i].operand[0].imm.value.s;
}

/* A conditional jump forwards in the page, just decoded, may be inside the block: what falls through goes on, unless that is translated already. */
static bool goes_on(struct translation_work *w, const struct insn *insn)
{
	unsigned last = w->count - 1, next = w->at[w->count];
	s64 target = direct_target(w, last);
	if (modes_breaks(w->cache, w->key, next))
		return false;
	if (insn->kind != KIND_JCC || w->branches == BT_LINKS - 2 || target < (s64)next || !stays_in_page(w, target) || next >= PAGE_SIZE ||
	    !branch_fits(w, insn) || cache_find(w->cache, (w->gpa & PAGE_MASK) + next, w->key))
		return false;
	w->branches++;
	return true;
}

/* False: nothing could be decoded. */
static bool decode(struct translation_work *w)
{
	unsigned at = w->offset;
	enum decode_result result = DECODE_OK;
	w->count = w->branches = 0;
	w->second = NULL;
	while (w->count < BT_INSNS_MAX) {
		struct insn *insn = &w->insn[w->count];
		w->at[w->count] = (u16)at;
		if (w->count && modes_breaks(w->cache, w->key, at))
			break;
		result = at < PAGE_SIZE ? insn_decode(&step_of(w->vcpu)->decoder, w->mode, w->bytes + at, PAGE_SIZE - at, insn) : DECODE_MORE;
		if (result != DECODE_OK)
			break;
		w->count++;
		at += insn->z.length;
		w->at[w->count] = (u16)at;
		if (ends_block(insn) && !goes_on(w, insn))
			break;
	}
	return w->count > 0 || (result == DECODE_MORE && decode_crossing(w));
}

/* ---- flags needed ---- */

bool may_leave(const struct insn *insn)
{
	unsigned loans = (insn->gpr_read | insn->gpr_written) >> R8 & 15; /* R8 to R11 */
	loans &= loans - 1;
	loans &= loans - 1; /* two of them are no problem */
	switch (insn->kind) {
	case KIND_NOP:
		return false;
	case KIND_LEA:
		return insn->operand[1].mem.base == ZYDIS_REGISTER_RIP || insn->operand[1].mem.base == ZYDIS_REGISTER_EIP;
	case KIND_NATIVE:
	case KIND_BIT:
	case KIND_MOV:
	case KIND_MOVZX:
	case KIND_MOVSX:
	case KIND_CLC:
	case KIND_STC:
	case KIND_CMC:
		return insn->memory >= 0 || insn->xstate != INSN_NO_XSTATE || loans || insn_names_high_byte(insn) || work_divides(insn);
	default:
		return insn->kind != KIND_JCC;
	}
}

static u16 live_at_end(struct translation_work *w)
{
	const struct insn *last = &w->insn[w->count - 1];
	s64 next = w->at[w->count];
	bool direct = last->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
	s64 target = next + (direct ? last->operand[0].imm.value.s : 0);
	switch (last->kind) {
	case KIND_JCC:
	case KIND_JCXZ:
	case KIND_LOOP:
		return live_at(w, next) | live_at(w, target);
	case KIND_JMP:
	case KIND_CALL:
		return direct ? live_at(w, target) : 0;
	default:
		return ends_block(last) ? 0 : live_at(w, next);
	}
}

/* At the end of a block anyone may look; see ENTRY_DEAD for where none does. */
static void find_needed(struct translation_work *w)
{
	w->needed[w->count] = RFLAGS_STATUS;
	w->live[w->count] = live_at_end(w);
	for (unsigned i = w->count; i-- > 0;) {
		const struct insn *insn = &w->insn[i];
		bool all = ends_block(insn) || may_leave(insn);
		bool keeps = insn->flags_written && (w->needed[i + 1] & ~insn->flags_killed);
		bool leads = insn->kind == KIND_JCC && i + 1 < w->count && live_at(w, direct_target(w, i));
		w->needed[i] = all ? RFLAGS_STATUS : (u16)(insn->flags_tested | (w->needed[i + 1] & ~insn->flags_killed));
		w->live[i] = (u16)(insn->flags_tested | (w->live[i + 1] & ~insn->flags_killed));
		if (keeps || leads || insn->kind == KIND_PUSHF)
			w->live[i] = RFLAGS_STATUS;
	}
	w->entry = entry_at(w, w->offset);
}

/* ---- writing ---- */

/* What chained jumps to a block that crosses come to. */
static void emit_detour(struct translation_work *w)
{
	w->block->body = (u16)(w->e.at - bt_code(w->cache, w->block));
	w->place = w->entry == ENTRY_SAVED ? FLAGS_SAVED : FLAGS_HOST;
	emit_far_goto(w, w->offset);
	while ((uintptr_t)(w->e.at + sizeof(struct bt_second)) & 7)
		emit8(&w->e, 0xcc);
	/* struct bt_second, but for its place. */
	emit_bytes(&w->e, (const u8 *)&w->second->generation, sizeof(w->second->generation));
	emit32(&w->e, w->second->seen);
}

static void emit_second_page_check(struct translation_work *w)
{
	struct emitter *e = &w->e;
	const u8 *second = (const u8 *)bt_second(w->cache, w->block);
	EMIT(e, 0x4c, 0x8b, 0x15); /* mov r10, [rip + generation] */
	emit32(e, (u32)(second - (e->at + 4)));
	EMIT(e, 0x41, 0x81, 0x3a); /* cmp dword [r10], imm32 */
	emit32(e, w->second->seen);
	emit_fix32(emit_jcc(e, 0x5), bt_rw(w->cache, w->cache->miss));
}

static void emit_prologue(struct translation_work *w)
{
	struct emitter *e = &w->e;
	struct bt_block *block = w->block;
	if (w->second)
		emit_detour(w);
	else
		emit32(e, 0);
	emit32(e, bt_place(w->cache, block)); /* the prologue begins a quadword, so that it can be shut at once */
	block->prologue = (u16)(e->at - bt_code(w->cache, block));
	emit_load_gs(e, T0, VCPU(rip));
	emit_gs(e, true, 0x03, T0, VCPU(pending));
	emit_rm(e, true, 0x3b, T0, T1, 0);
	emit_fix32(emit_jcc(e, 0x5), bt_rw(w->cache, w->cache->miss));
	if (w->second)
		emit_second_page_check(w);
	emit_load_gs(e, T0, VCPU(rip));
	emit_lea(e, w->mode == INSN_MODE_64, T0, T0, NO_REGISTER, 0, -(s32)w->offset);
	emit_store_gs(e, T0, VCPU(code_base));
	w->image = false;
	w->place = FLAGS_SAVED;
	if (w->entry == ENTRY_HOST)
		work_need_flags(w);
	block->entry = (u16)(e->at - bt_code(w->cache, block));
	if (!w->second)
		block->body = block->entry;
}
static_assert(offsetof(struct vcpu, jump_salt) == offsetof(struct vcpu, pending) + 6, "the salt is above 48 address bits");
static_assert(offsetof(struct vcpu, pending) % 8 == 0, "read as one word");

/* A loop must notice what is pending: each has a block that ends in a jump backwards, or in a CALL. */
static bool must_poll(const struct translation_work *w)
{
	const struct insn *last = &w->insn[w->count - 1];
	if (!ends_block(last) || last->operand[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return false;
	s64 target = (s64)w->at[w->count] + last->operand[0].imm.value.s;
	return target >= 0 && target < (last->kind == KIND_CALL ? (s64)PAGE_SIZE : w->at[w->count]);
}

/* How many instructions come before all flags are right. */
static unsigned until_right(const struct translation_work *w)
{
	u16 open = w->entry == ENTRY_DEAD ? RFLAGS_STATUS : 0;
	unsigned i = 0;
	while (open)
		open &= (u16)~w->insn[i++].flags_killed;
	return i;
}

static void emit_poll(struct translation_work *w)
{
	struct emitter *e = &w->e;
	bool dead = w->entry == ENTRY_DEAD && !w->bt->lockstep;
	u8 *field;
	if (work_saved(w) || dead) {
		EMIT(e, 0x65, 0x83, 0x3c, 0x25); /* cmp dword gs:[pending], 0 */
		emit32(e, VCPU(pending));
		emit8(e, 0);
		if (!dead)
			w->place = FLAGS_SAVED;
		field = emit_jcc(e, 0x5);
	} else {
		unsigned temp = w->known.valid ? TLB_BASE : T1;
		emit_mov(e, temp, RCX);
		emit_gs(e, false, 0x8b, RCX, VCPU(pending));
		EMIT(e, 0xe3, 8); /* jrcxz over the next two */
		emit_mov(e, RCX, temp);
		field = emit_jump(e, 0xe9, e->at);
		emit_mov(e, RCX, temp);
		if (temp == TLB_BASE)
			emit_load_gs(e, TLB_BASE, VCPU(tlb));
	}
	work_stub(w, SITE_PENDING, field)->site.detail = dead ? (u8)until_right(w) : 0;
}

/* Let step do the current instruction, and go on behind the site. */
static void emit_step(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	emit_jump(&w->e, 0xe8, bt_rw(w->cache, work_saved(w) ? w->cache->leave_saved : w->cache->leave_host));
	const struct site site = { .kind = SITE_STEP, .length = insn->z.length, .guest_kind = insn->kind, .offset = w->at[w->current],
				   .next = ends_block(insn) ? 0 : (s32)sizeof(struct site) };
	emit_bytes(&w->e, (const u8 *)&site, sizeof(site));
	w->place = FLAGS_BOTH;
}

/* Whether the instruction does the same again: lockstep runs what does not in step alone. */
static bool is_repeatable(const struct insn *insn)
{
	return insn->kind != KIND_RDTSC && insn->kind != KIND_RDTSCP && insn->z.mnemonic != ZYDIS_MNEMONIC_RDRAND &&
	       insn->z.mnemonic != ZYDIS_MNEMONIC_RDSEED;
}

static bool emit_by_kind(struct translation_work *w)
{
	const struct insn *insn = work_insn(w);
	if (w->bt->lockstep && !is_repeatable(insn))
		return false;
	switch (insn->kind) {
	case KIND_NOP:
		w->kept = true;
		return true;
	case KIND_LEA:
		return emit_lea_insn(w);
	case KIND_LAHF:
	case KIND_SAHF:
		return (w->mode != INSN_MODE_64 || cpuid_has(w->vcpu->cpuid, FEATURE_LAHF_LM)) && emit_native(w);
	case KIND_BIT:
		if (insn->memory >= 0 && insn->operand[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
			return emit_bit_insn(w);
		return emit_native(w);
	case KIND_NATIVE:
	case KIND_FWAIT:
	case KIND_MASKED:
	case KIND_MOV:
	case KIND_MOVZX:
	case KIND_MOVSX:
	case KIND_CLC:
	case KIND_STC:
	case KIND_CMC:
		return emit_native(w);
	case KIND_PUSH:
	case KIND_POP:
	case KIND_LEAVE:
		return emit_stack(w) || emit_callout(w);
	default:
		return emit_control(w) || emit_system(w) || emit_callout(w);
	}
}

static void emit_one(struct translation_work *w)
{
	const struct translation_work *before = w;
	flags_look_ahead(w);
	u8 *at = w->e.at, ready = w->ready;
	unsigned stubs = before->stubs, callouts = before->callouts;
	enum flags_place place = w->place;
	bool image = w->image, deferred = w->deferred;
	w->label[w->current] = at;
	w->saved[w->current] = false;
	w->kept = false;
	known_look_ahead(w);
	if (emit_by_kind(w)) {
		known_follow(w);
		flags_follow(w);
		return;
	}
	w->e.at = at;
	w->ready = ready;
	w->stubs = stubs;
	w->callouts = callouts;
	w->place = place;
	w->image = image;
	w->deferred = deferred;
	flags_flush(w);
	emit_step(w);
	w->image = true;
	w->source.valid = false;
	w->ready = 0;
	w->known.valid = false;
	w->proven = 0;
}

static s32 distance(const u8 *to, const u8 *from)
{
	return to ? (s32)(to - from) : 0;
}

/* The stub of a jump that may be chained: the block knows both, to take the chaining back. */
static void note_link(struct translation_work *w, const struct stub *s, const u8 *stub, struct site *site)
{
	struct bt_block *block = w->block;
	const u8 *code = bt_code(w->cache, block);
	site->retry = (s32)bt_place(w->cache, block);
	site->detail = (u8)block->links++;
	block->link[site->detail].field = (u16)(s->jump - code);
	block->link[site->detail].stub = (u16)(stub - code);
	if (s->target && s->target->page == block->page)
		cache_link(w->cache, block, site->detail, s->target);
}

static void emit_stub(struct translation_work *w, struct stub *s)
{
	struct emitter *e = &w->e;
	if (s->save) {
		emit_fix32(s->jump, e->at);
		if (s->source.valid)
			emit_recipe(e, &s->source);
		else
			emit_save_flags_by(e, T1);
		s->jump = work_link(w, 0xe9);
	}
	const u8 *stub = e->at;
	emit_fix32(s->jump, stub);
	if (s->site.kind == SITE_ACCESS) {
		emit_access_stub(w, s);
		return;
	}
	if (s->site.kind == SITE_CALLOUT) {
		if (s->jump_too)
			emit_fix32(s->jump_too, stub);
		emit_callout_to(w, s->callout, w->cache->callout_saved);
		emit_jump(e, 0xe9, s->retry);
		return;
	}
	emit_jump(e, 0xe8, bt_rw(w->cache, s->saved || s->save ? w->cache->leave_saved : w->cache->leave_host));
	struct site site = s->site;
	unsigned insn = s->next_insn - 1u;
	site.length = w->insn[insn].z.length;
	site.guest_kind = w->insn[insn].kind;
	site.retry = distance(s->retry, e->at);
	site.next = distance(w->label[s->next_insn], e->at);
	if (site.kind == SITE_LINK)
		note_link(w, s, stub, &site);
	emit_bytes(e, (const u8 *)&site, sizeof(site));
}

static void emit_stubs(struct translation_work *w)
{
	for (unsigned i = 0; i < w->stubs; i++)
		emit_stub(w, &w->stub[i]);
}

static void note_map(struct translation_work *w)
{
	const u8 *host = bt_code(w->cache, w->block);
	unsigned guest = w->offset;
	for (unsigned i = 0; i < w->count; i++) {
		cache_map(w->block, (unsigned)(w->label[i] - host), w->at[i] - guest, w->saved[i]);
		host = w->label[i];
		guest = w->at[i];
	}
}

static void emit_block(struct translation_work *w)
{
	w->known.valid = false;
	w->source.valid = w->deferred = false;
	emit_prologue(w);
	w->place = w->entry == ENTRY_SAVED ? FLAGS_SAVED : FLAGS_HOST;
	w->ready = 0;
	w->stubs = 0;
	w->proven = 0;
	w->callouts = 0;
	w->current = 0;
	unsigned poll = !must_poll(w) ? w->count : w->bt->lockstep ? until_right(w) : 0;
	for (; w->current < w->count; w->current++) {
		if (w->current == poll)
			emit_poll(w);
		emit_one(w);
	}
	w->label[w->count] = NULL;
	if (!ends_block(&w->insn[w->count - 1])) {
		w->label[w->count] = w->e.at;
		w->current = w->count - 1;
		emit_goto(w, w->at[w->count]);
	}
	emit_stubs(w);
	w->code_end = w->e.at;
	emit_callout_data(w);
}

static void note_lines(struct translation_work *w)
{
	w->block->lines = w->lines;
	for (unsigned i = 0; i <= w->count; i++)
		if (w->at[i] < PAGE_SIZE)
			w->block->lines |= work_lines(w->at[i]);
}

struct bt_block *translate_block(struct vcpu *vcpu, const struct translation *t, struct bt_page *page, u16 key)
{
	struct bt *bt = bt_of(vcpu);
	struct bt_cache *c = bt->cache;
	struct translation_work *w = c->work;
	w->vcpu = vcpu;
	w->bt = bt;
	w->cache = c;
	w->page = page;
	w->gpa = t->gpa;
	w->key = key;
	w->mode = (enum insn_mode)(key & KEY_MODE);
	w->offset = (unsigned)(t->gpa & ~PAGE_MASK);
	vector_sync(vcpu);
	memcpy(w->bytes, t->hva - w->offset, PAGE_SIZE);
	cache_check_copy(c, page, w->bytes);
	if (!decode(w))
		return NULL;
	w->lines = 0;
	find_needed(w);
	w->block = cache_begin(vcpu, page, t->gpa, key);
	w->e.at = bt_code(c, w->block);
	emit_block(w);
	note_map(w);
	note_lines(w);
	cache_publish(c, w->block, w->e.at);
	host_note_code(bt_rx(c, bt_code(c, w->block)), w->block->size, vcpu->rip);
	if (unlikely(vcpu->trace & TRACE_TRANSLATED))
		trace_translated(w);
	bt->count[COUNT_TRANSLATED]++;
	bt->count[COUNT_INSNS] += w->count;
	bt->count[COUNT_BYTES] += w->block->size;
	return w->block;
}
