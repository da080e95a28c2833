/* Blocks for a space: decode up to a transfer of control that is always taken, write the entry, the instructions, then what lies out of
 * line. What a block leads to is translated along with it, since finding it missing costs a journey out of the space. */
#include "engine/bt/direct_work.h"

#define BATCH 24 /* blocks translated at once */
#define QUEUE_CALL BIT(63) /* in the queue: reached by a return */

size_t direct_work_size(void)
{
	return sizeof(struct direct_translation);
}

/* ---- what instructions write ---- */

u32 direct_site(struct direct_translation *w, enum direct_site_kind kind)
{
	u32 index = pool_add(&w->s->sites, sizeof(struct direct_site));
	if (index == ~0u) {
		w->failed = true;
		return 0;
	}
	*site_at(w->s, index) = (struct direct_site){ .kind = (u8)kind, .rip = w->rip + w->at[w->current],
						      .insn_kind = w->insn[w->current].kind };
	return index;
}

void direct_note(struct direct_translation *w, unsigned saved)
{
	u32 index = pool_add(&w->s->maps, sizeof(struct direct_map));
	if (index == ~0u) {
		w->failed = true;
		return;
	}
	*map_at(w->s, index) = (struct direct_map){ .host = (u16)(w->e.at - (w->s->code.rw + w->block->body)),
						    .guest = (u16)(w->at[w->current] | saved) };
	w->block->maps++;
}

static void emit_jump_to(const struct direct_space *s, struct emitter *e, u64 target)
{
	u64 next = code_address(s, (u32)(e->at + 5 - s->code.rw));
	emit8(e, 0xe9);
	emit32(e, (u32)(target - next));
}

static void emit_leave(struct direct_translation *w, u32 site)
{
	struct emitter *e = &w->e;
	EMIT(e, 0x65, 0xc7, 0x04, 0x25); /* mov dword gs:[site], imm32 */
	emit32(e, WINDOW(site));
	emit32(e, site);
	emit_jump_to(w->s, e, host_space_leave());
}

static void add_stub(struct direct_translation *w, u8 *jump, u32 site, const struct insn *first)
{
	w->stub[w->stubs].jump = jump;
	w->stub[w->stubs].first = first;
	w->stub[w->stubs++].site = site;
}

void direct_emit_step(struct direct_translation *w)
{
	emit_leave(w, direct_site(w, DIRECT_STEP));
}

static void enqueue(struct direct_translation *w, u64 target)
{
	if (w->queued < DIRECT_QUEUE)
		w->queue[w->queued++] = target;
}

void direct_link(struct direct_translation *w, u8 *field, u64 target)
{
	u32 number = direct_site(w, DIRECT_LINK);
	if (w->failed)
		return;
	struct direct_site *site = site_at(w->s, number);
	site->target = target;
	site->field = (u32)(field - w->s->code.rw);
	site->polled = w->poll_at >= 0 && (int)w->current > w->poll_at;
	add_stub(w, field, number, NULL);
	if (w->links < ARRAY_SIZE(w->link))
		w->link[w->links++] = number;
	enqueue(w, target);
}

void direct_goto(struct direct_translation *w, u64 target)
{
	direct_link(w, emit_jump(&w->e, 0xe9, w->e.at), target);
}

/* ---- decoding ---- */

static bool is_last(const struct insn *insn)
{
	enum insn_class class = insn_class_of((enum insn_kind)insn->kind);
	if (insn->kind == KIND_JCC || insn->kind == KIND_JCXZ || insn->kind == KIND_LOOP)
		return false;
	return class == INSN_CLASS_CONTROL;
}

/* Decode at an offset of the first page. False: there is no instruction. */
static bool decode_one(struct direct_translation *w, u64 rip, struct insn *insn, bool *crosses)
{
	const struct insn_decoder *decoder = &step_of(w->vcpu)->decoder;
	unsigned offset = (unsigned)(rip & ~PAGE_MASK), left = (unsigned)PAGE_SIZE - offset;
	const u8 *bytes = page_at(w->s, w->page[0] - 1)->bytes + offset;
	/* From a copy: another vCPU may change them meanwhile. */
	left = MIN(left, (unsigned)INSN_LENGTH_MAX);
	__builtin_memcpy(w->bytes, bytes, left);
	enum decode_result result = insn_decode(decoder, INSN_MODE_64, w->bytes, left, insn);
	*crosses = result == DECODE_MORE;
	if (result != DECODE_MORE)
		return result == DECODE_OK;
	bool no_code;
	struct direct_page *next = code_page(w->vcpu, w->s, rip + left, &no_code);
	if (!next)
		return false;
	__builtin_memcpy(w->bytes + left, next->bytes, INSN_LENGTH_MAX);
	return insn_decode(decoder, INSN_MODE_64, w->bytes, left + INSN_LENGTH_MAX, insn) == DECODE_OK;
}

static u32 page_number(struct direct_space *s, u64 gva)
{
	gva &= PAGE_MASK;
	u32 i = s->page_hash[(gva >> PAGE_SHIFT) % ARRAY_SIZE(s->page_hash)];
	while (i && page_at(s, i - 1)->gva != gva)
		i = page_at(s, i - 1)->next;
	return i;
}

/* False: nothing could be decoded. */
static bool decode(struct direct_translation *w)
{
	u64 rip = w->rip;
	bool crosses = false;
	w->count = 0;
	w->at[0] = 0;
	while (w->count < DIRECT_INSNS_MAX && !crosses && (rip & PAGE_MASK) == (w->rip & PAGE_MASK)) {
		struct insn *insn = &w->insn[w->count];
		if (!decode_one(w, rip, insn, &crosses))
			break;
		rip += insn->z.length;
		w->at[++w->count] = (u16)(rip - w->rip);
		if (crosses)
			w->page[1] = page_number(w->s, rip);
		if (is_last(insn))
			break;
	}
	return w->count > 0;
}

/* ---- writing ---- */

#define STOP ((u32)offsetof(struct host_space_window, stop))

/* RCX = 0 if half of window.target is that of the block's address, else on to `second`. No flag is touched: the right block may need
 * them. */
static void emit_compare(struct direct_translation *w, u32 field, u32 value)
{
	struct emitter *e = &w->e;
	emit_gs(e, false, 0x8b, RCX, field);
	EMIT(e, 0x8d, 0x89); /* lea ecx, [rcx + disp32] */
	emit32(e, 0 - value);
	EMIT(e, 0xe3, 5); /* jrcxz over the next one */
	emit_jump(e, 0xe9, w->s->code.rw + w->s->second);
}

/* Without the flags, which may be needed, or shown by the frame of a fault or an interrupt. */
static void emit_poll(struct direct_translation *w)
{
	struct emitter *e = &w->e;
	emit_store_gs(e, RCX, WINDOW_RCX);
	emit_gs(e, false, 0x8b, RCX, STOP);
	EMIT(e, 0xe3, 14); /* jrcxz over the next two */
	emit_load_gs(e, RCX, WINDOW_RCX);
	add_stub(w, emit_jump(e, 0xe9, e->at), ~0u, NULL);
	emit_load_gs(e, RCX, WINDOW_RCX);
}

/* A block that jumps backwards polls on the way there at nearly no cost if there is an instruction that makes all status flags anew and
 * cannot fault: flags may be destroyed right in front of it, and if something is pending, it is done before the guest is left. */
static bool hides_poll(const struct insn *insn)
{
	switch (insn->z.mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
		return insn->memory < 0;
	default:
		return false;
	}
}

static void choose_poll(struct direct_translation *w)
{
	w->poll_at = -1;
	for (unsigned i = 0; i < w->count; i++) {
		const struct insn *insn = &w->insn[i];
		bool jump = insn->kind == KIND_JCC || insn->kind == KIND_JMP || insn->kind == KIND_JCXZ || insn->kind == KIND_LOOP;
		if (jump && insn->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && insn->operand[0].imm.value.s < 0)
			return;
		if (hides_poll(insn))
			w->poll_at = (int)i;
	}
	w->poll_at = -1;
}

static void emit_hidden_poll(struct direct_translation *w)
{
	struct emitter *e = &w->e;
	EMIT(e, 0x65, 0x83, 0x3c, 0x25); /* cmp dword gs:[stop], 0 */
	emit32(e, STOP);
	emit8(e, 0);
	u8 *jump = emit_jcc(e, 0x5);
	u32 site = direct_site(w, DIRECT_START);
	if (!w->failed)
		site_at(w->s, site)->rip = direct_next(w);
	add_stub(w, jump, site, &w->insn[w->current]);
}

static void emit_entry(struct direct_translation *w)
{
	struct emitter *e = &w->e;
	w->block->entry = (u32)(e->at - w->s->code.rw);
	emit_compare(w, WINDOW_TARGET, (u32)w->rip);
	emit_compare(w, WINDOW_TARGET + 4, (u32)(w->rip >> 32));
	emit_load_gs(e, RCX, WINDOW_RCX);
	w->block->poll = (u32)(e->at - w->s->code.rw);
	emit_poll(w);
	w->block->body = (u32)(e->at - w->s->code.rw);
}

static void emit_insns(struct direct_translation *w)
{
	bool ends = false;
	for (w->current = 0; w->current < w->count && !ends; w->current++) {
		if ((int)w->current == w->poll_at)
			emit_hidden_poll(w);
		u8 *at = w->e.at;
		unsigned stubs = w->stubs, constants = w->constants;
		if (direct_emit_insn(w, &ends))
			continue;
		w->e.at = at;
		w->stubs = stubs;
		w->constants = constants;
		w->block->stepped = !w->current;
		direct_emit_step(w);
		enqueue(w, direct_next(w));
		ends = true;
	}
	if (ends)
		return;
	w->current = w->count - 1;
	direct_goto(w, direct_next(w));
}

static void emit_tail_parts(struct direct_translation *w)
{
	struct emitter *e = &w->e;
	w->current = 0;
	w->block->away = (u32)(e->at - w->s->code.rw);
	u32 start = direct_site(w, DIRECT_START);
	emit_leave(w, start);
	for (unsigned i = 0; i < w->stubs; i++) {
		if (w->stub[i].site == ~0u) {
			emit_fix32(w->stub[i].jump, w->s->code.rw + w->block->away);
			continue;
		}
		const struct insn *first = w->stub[i].first;
		emit_fix32(w->stub[i].jump, e->at);
		if (first)
			emit_bytes(e, first->bytes, first->z.length);
		emit_leave(w, w->stub[i].site);
	}
	for (unsigned i = 0; i < w->constants; i++) {
		emit_fix32(w->constant[i].field, e->at);
		emit_bytes(e, (const u8 *)&w->constant[i].value, sizeof(u64));
	}
	w->block->end = (u32)(e->at - w->s->code.rw);
}

/* One block. NULL: vcpu->fault says why, or *no_code is set. */
static struct direct_block *translate_one(struct direct_translation *w, u64 rip, bool *no_code)
{
	struct direct_space *s = w->s;
	struct direct_page *page = code_page(w->vcpu, s, rip, no_code);
	if (!page)
		return NULL;
	w->rip = rip;
	w->page[0] = page_number(s, rip);
	w->page[1] = 0;
	w->stubs = w->constants = 0;
	*no_code = !decode(w);
	if (*no_code)
		return NULL;
	w->index = pool_add(&s->blocks, sizeof(struct direct_block));
	*no_code = w->index == ~0u;
	if (*no_code)
		return NULL;
	w->block = block_at(s, w->index);
	choose_poll(w);
	*w->block = (struct direct_block){ .rip = rip, .start = s->used, .first_map = s->maps.used };
	w->e.at = s->code.rw + s->used;
	emit_entry(w);
	emit_insns(w);
	emit_tail_parts(w);
	s->used = (w->block->end + 15) & ~15u;
	code_publish(s, w->index, w->page[0], w->page[1]);
	u64 *count = direct_of(w->vcpu)->count;
	count[DIRECT_BLOCKS]++;
	count[DIRECT_INSNS] += w->count;
	return w->block;
}

static bool has_room(const struct direct_space *s)
{
	u32 limit = POOL_CHUNK * POOL_CHUNKS;
	return s->used + BATCH * DIRECT_BLOCK_ROOM <= s->code.size && s->maps.used + BATCH * 4 * DIRECT_INSNS_MAX < limit &&
	       s->sites.used + BATCH * 4 * DIRECT_INSNS_MAX < limit && s->blocks.used + BATCH < limit && s->pages.used + 2 * BATCH < limit;
}

/* Chain what was written to what is there. */
static void resolve_links(struct direct_translation *w)
{
	for (unsigned i = 0; i < w->links; i++) {
		const struct direct_site *site = site_at(w->s, w->link[i]);
		const struct direct_block *to = code_find(w->s, site->target);
		if (to)
			code_link(w->s, site, to);
	}
}

struct direct_block *direct_translate(struct vcpu *vcpu, struct direct_space *s, u64 rip, bool *no_code)
{
	struct direct_translation *w = direct_of(vcpu)->work;
	w->vcpu = vcpu;
	w->s = s;
	w->queued = w->links = 0;
	w->failed = false;
	if (!has_room(s))
		code_flush(vcpu, s);
	struct direct_block *first = translate_one(w, rip, no_code);
	if (!first)
		return NULL;
	u32 index = w->index;
	struct guest_fault fault = vcpu->fault;
	for (unsigned i = 0, done = 1; i < w->queued && done < BATCH; i++) {
		u64 next = w->queue[i] & ~QUEUE_CALL;
		bool ignored;
		struct direct_block *block = code_find(s, next);
		if (!block && next < HOST_SPACE_END) {
			block = translate_one(w, next, &ignored);
			done++;
		}
		if (block && (w->queue[i] & QUEUE_CALL))
			code_enter_tables(s, block);
	}
	vcpu->fault = fault;
	if (w->failed)
		code_flush(vcpu, s);
	*no_code = w->failed;
	if (w->failed)
		return NULL;
	resolve_links(w);
	return code_find(s, block_at(s, index)->rip);
}

/* ---- back to code in place ---- */

bool direct_emit_enter_place(struct direct_space *s, u64 rip, u32 *code)
{
	struct emitter emitter = { s->code.rw + s->used }, *e = &emitter;
	u32 site = pool_add(&s->sites, sizeof(struct direct_site));
	if (s->used + DIRECT_BLOCK_ROOM > s->code.size || site == ~0u)
		return false;
	*site_at(s, site) = (struct direct_site){ .kind = DIRECT_BRANCH, .rip = rip };
	*code = s->used;
	emit_store_gs(e, RCX, WINDOW_RCX);
	for (unsigned i = 0; i < 2; i++) {
		EMIT(e, 0x65, 0xc7, 0x04, 0x25); /* mov dword gs:[target], imm32 */
		emit32(e, WINDOW_TARGET + 4 * i);
		emit32(e, (u32)(rip >> 32 * i));
	}
	EMIT(e, 0x65, 0xc7, 0x04, 0x25); /* mov dword gs:[site], imm32 */
	emit32(e, WINDOW(site));
	emit32(e, site);
	emit_jump_to(s, e, host_space_enter_place());
	s->used = (u32)((e->at - s->code.rw + 15) & ~15);
	return true;
}

/* ---- the stub of the second table ---- */

static void restore(struct emitter *e)
{
	emit_load_gs(e, RDX, WINDOW(rdx));
	emit_load_gs(e, RAX, WINDOW(flags));
	EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
	emit_load_gs(e, RAX, WINDOW(rax));
}

void direct_emit_stubs(struct direct_space *s)
{
	struct emitter emitter = { s->code.rw }, *e = &emitter;
	u64 table = s->host->tables_there + FIRST_ENTRIES * 8;
	s->second = 0;
	emit_store_gs(e, RAX, WINDOW(rax));
	emit_store_gs(e, RDX, WINDOW(rdx));
	EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
	emit_store_gs(e, RAX, WINDOW(flags));
	emit_load_gs(e, RCX, WINDOW_TARGET);
	EMIT(e, 0x69, 0xc1); /* imul eax, ecx, hash */
	emit32(e, 0x9e3779b1);
	EMIT(e, 0xc1, 0xe8, 32 - SECOND_BITS); /* shr eax, ... */
	emit_rr(e, false, 0x01, RAX, RAX); /* add eax, eax */
	EMIT(e, 0x48, 0xba); /* mov rdx, table */
	emit_bytes(e, (const u8 *)&table, sizeof(table));
	const u8 *loop = e->at;
	EMIT(e, 0x48, 0x3b, 0x0c, 0xc2); /* cmp rcx, [rdx + rax * 8] */
	u8 *hit = emit_jcc(e, 0x4);
	EMIT(e, 0x48, 0x83, 0x3c, 0xc2, 0); /* cmp qword [rdx + rax * 8], 0 */
	u8 *miss = emit_jcc(e, 0x4);
	EMIT(e, 0x83, 0xc0, 2, 0x25); /* add eax, 2; and eax, mask */
	emit32(e, 2 * SECOND_ENTRIES - 1);
	emit_jump(e, 0xe9, loop);
	emit_fix32(hit, e->at);
	EMIT(e, 0x48, 0x8b, 0x44, 0xc2, 8); /* mov rax, [rdx + rax * 8 + 8] */
	emit_store_gs(e, RAX, WINDOW(code));
	restore(e);
	emit_load_gs(e, RCX, WINDOW_RCX);
	EMIT(e, 0x65, 0xff, 0x24, 0x25); /* jmp gs:[code] */
	emit32(e, WINDOW(code));
	emit_fix32(miss, e->at);
	emit_mov(e, RAX, RCX);
	EMIT(e, 0x48, 0xc1, 0xe8, 47); /* shr rax, 47 */
	u8 *away = emit_jcc(e, 0x5);
	restore(e);
	emit_jump_to(s, e, host_space_enter_place());
	emit_fix32(away, e->at);
	restore(e);
	emit_jump_to(s, e, host_space_leave());
	s->used = s->first_code = (u32)((e->at - s->code.rw + 63) & ~63);
}
