/* The translator's loop: find the code for where the guest is, enter it, and do what it left for. See state.h. */
#include "engine/bt/direct.h"

#include "cpu/control.h"
#include "cpu/segment.h"
#include "engine/bt/lockstep.h"
#include "engine/step/step.h"

/* For the instructions that step does. */
#define STEP_CODE_SIZE (1u << 20)

/* ---- finding code ---- */

enum found { FOUND_CODE, FOUND_FAULT, FOUND_NOTHING };

static u64 *jump_slot(const struct vcpu *vcpu)
{
	return vcpu->jump_cache + JUMP_INDEX(vcpu->rip);
}

static void remember(struct vcpu *vcpu, gla_t gla, const struct bt_block *block)
{
	const struct bt_cache *c = bt_of(vcpu)->cache;
	bool second = bt_crosses(block);
	if (!tlb_lookup_explicit(vcpu->mmu, gla, 1, ACCESS_EXEC) ||
	    (second && !tlb_lookup_explicit(vcpu->mmu, modes_second_page(vcpu), 1, ACCESS_EXEC)) || (vcpu->cr4 & CR4_LA57) || c->unchained)
		return;
	if (second)
		mmu_note_exec(vcpu, modes_second_page(vcpu));
	u64 *slot = jump_slot(vcpu);
	slot[0] = bt_jump_tag(vcpu);
	slot[JUMP_CACHE_ENTRIES] = (u64)(uintptr_t)bt_rx(c, bt_code(c, block) + block->prologue);
	mmu_note_exec(vcpu, gla);
}

/* Protect the page and note its generation before its bytes are read. */
static void protect(struct vcpu *vcpu, const struct translation *t, struct bt_page *page)
{
	u32 seen;
	do {
		mmu_protect_code(vcpu, t);
		seen = __atomic_load_n(t->generation, __ATOMIC_SEQ_CST);
	} while (!(__atomic_load_n(t->flags, __ATOMIC_SEQ_CST) & PAGE_CODE));
	if (seen != page->seen)
		cache_revive(bt_of(vcpu)->cache, page, t->hva - (t->gpa & ~PAGE_MASK), seen);
}

struct bt_page *bt_code_page(struct vcpu *vcpu, const struct translation *t)
{
	struct bt_page *page = cache_page(bt_of(vcpu)->cache, t);
	if (!page || page->mixed)
		return NULL;
	protect(vcpu, t, page);
	return page;
}

/* What the jump cache knows. Without the lock: should the block be dropped just now, it is as if it had been entered before. */
static struct bt_block *find_remembered(struct vcpu *vcpu)
{
	const struct bt_cache *c = bt_of(vcpu)->cache;
	const u64 *slot = jump_slot(vcpu);
	const u8 *prologue = (const u8 *)(uintptr_t)slot[JUMP_CACHE_ENTRIES];
	if (slot[0] != bt_jump_tag(vcpu) || prologue == c->miss)
		return NULL;
	struct bt_block *block = cache_of_prologue(c, bt_rw(c, prologue));
	const struct bt_page *page = __atomic_load_n(&block->page, __ATOMIC_ACQUIRE);
	return page && !__atomic_load_n(&page->stale, __ATOMIC_RELAXED) && bt_block_current(c, block) ? block : NULL;
}

/* Where the next page is mapped, a block that crosses into it may be another one. */
static bool second_page_fits(struct vcpu *vcpu, const struct bt_block *block)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	struct translation t;
	gla_t second = modes_second_page(vcpu);
	return !bt_crosses(block) || (is_canonical(second, vcpu_linear_bits(vcpu)) && mmu_translate(vcpu, second, ACCESS_EXEC, &t) && t.hva &&
				      t.generation == bt_second(c, block)->generation && bt_block_current(c, block));
}

/* What the jump cache knew of this address in another address space: often it is the same code. */
static struct bt_block *find_elsewhere(struct vcpu *vcpu, const struct translation *t, u16 key)
{
	const struct bt_cache *c = bt_of(vcpu)->cache;
	const u64 *slot = jump_slot(vcpu);
	const u8 *prologue = (const u8 *)(uintptr_t)slot[JUMP_CACHE_ENTRIES];
	if ((slot[0] ^ vcpu->rip) << 16 || prologue == c->miss)
		return NULL;
	struct bt_block *block = cache_of_prologue(c, bt_rw(c, prologue));
	bool found = block->page && !bt_crosses(block) && bt_gpa(block) == t->gpa && block->key == key &&
		     block->page->seen == __atomic_load_n(t->generation, __ATOMIC_SEQ_CST);
	return found ? block : NULL;
}

static struct bt_block *find_translated(struct vcpu *vcpu, const struct translation *t, u16 key)
{
	struct bt_block *block = find_elsewhere(vcpu, t, key);
	if (block)
		return block;
	block = cache_find(bt_of(vcpu)->cache, t->gpa, key);
	if (block && block->page->seen != __atomic_load_n(t->generation, __ATOMIC_SEQ_CST))
		return NULL;
	while (block && !second_page_fits(vcpu, block))
		block = cache_find_next(bt_of(vcpu)->cache, block, t->gpa);
	return block;
}

/* Others may come to serve this vCPU only when they are given time: nobody else is to wait meanwhile, if that can be helped. */
static void protect_first(struct vcpu *vcpu, const struct translation *t)
{
	if (likely((__atomic_load_n(t->flags, __ATOMIC_SEQ_CST) & (PAGE_CODE | PAGE_STORED)) == PAGE_CODE))
		return;
	cache_unlock(vcpu);
	mmu_protect_code(vcpu, t);
	cache_lock(vcpu);
}

/* With the lock. NULL: leave it to step. */
static struct bt_block *find_or_translate(struct vcpu *vcpu, gla_t gla, const struct translation *t, u16 key)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	struct bt_block *block = find_translated(vcpu, t, key | modes_key_of_breaks(vcpu, gla));
	if (block)
		return block;
	if (cache_interprets(c, t->gpa))
		return NULL;
	vector_sync(vcpu);
	protect_first(vcpu, t);
	struct bt_page *page = bt_code_page(vcpu, t);
	key |= modes_key_of_breaks(vcpu, gla);
	block = page ? find_translated(vcpu, t, key) : NULL; /* if the page was stale, or another vCPU was faster */
	return page && !block ? translate_block(vcpu, t, page, key) : block;
}

static enum found find(struct vcpu *vcpu, struct bt_block **found)
{
	struct translation t;
	gla_t gla;
	u16 key;
	if (!modes_fetch(vcpu, &gla, &key))
		return FOUND_FAULT;
	*found = find_remembered(vcpu);
	if (*found)
		return FOUND_CODE;
	if (unlikely(vcpu->debug.breaks) && debug_breaks_at(&vcpu->debug, gla))
		return FOUND_NOTHING;
	if (!mmu_translate(vcpu, gla, ACCESS_EXEC, &t))
		return FOUND_FAULT;
	if (!t.hva || modes_limited(vcpu, gla))
		return FOUND_NOTHING;
	cache_lock(vcpu);
	*found = find_or_translate(vcpu, gla, &t, key);
	if (*found)
		remember(vcpu, gla, *found);
	cache_unlock(vcpu);
	return *found ? FOUND_CODE : FOUND_NOTHING;
}

/* Whether the translated code that this vCPU has come from may be returned to. */
static bool may_return(struct vcpu *vcpu)
{
	const struct bt *bt = bt_of(vcpu);
	return bt->entered == cache_epoch(bt->cache);
}

/* The code of a block, to be entered. */
static const u8 *code_of(const struct bt_cache *c, const struct bt_block *block)
{
	return bt_rx(c, bt_code(c, block) + block->entry);
}

/* ---- what translated code left for ---- */

/* Translated code is left for good, before anything else happens. False: leave as *go says. */
static bool left(struct vcpu *vcpu, struct exit *exit, bool *go)
{
	return !bt_of(vcpu)->lockstep || lockstep_check(vcpu, exit, go);
}

static const u8 *at_site(const struct site *site, s32 distance)
{
	return (const u8 *)site + distance;
}

/* Classes of extended state that are not ready any more are made ready again, since the code that goes on relies on them. */
static bool vector_restore(struct vcpu *vcpu, u8 ready)
{
	for (u8 missing = ready & ~vcpu->vector_ready; missing; missing &= (u8)(missing - 1))
		if (!vector_load(vcpu, step_of(vcpu), (u8)__builtin_ctz(missing)))
			return false;
	return true;
}

static bool is_string(unsigned kind)
{
	return kind >= KIND_STRING_MOVS && kind <= KIND_STRING_OUTS;
}

struct stepped {
	u8 kind, length; /* of the instruction; a length of 0: it comes before anything that is pending, which would be shown the flags */
	const u8 *next; /* the code behind it, if any */
};

/* One instruction by step, then on behind it if everything is as it was. NULL: find the code anew, or leave if *go is false. */
static const u8 *step_insn(struct vcpu *vcpu, struct exit *exit, const struct stepped *insn, bool *go)
{
	struct bt *bt = bt_of(vcpu);
	u64 rip = vcpu->rip;
	u16 salt = vcpu->jump_salt, number = vcpu->code_number;
	u8 ready = vcpu->vector_ready;
	if (!left(vcpu, exit, go))
		return NULL;
	bt->stepped[insn->kind]++;
	vcpu->shadow |= SHADOW_STI; /* it may be the instruction behind an STI done inline */
	do {
		*go = insn->length ? step_next(vcpu, exit, true) : step_instruction(vcpu, exit);
	} while (*go && vcpu->rip == rip && !vcpu_pending(vcpu) && is_string(insn->kind)); /* REP goes piece by piece */
	mmu_serve(vcpu); /* step has taken PENDING_CODE */
	modes_look(vcpu);
	if (!*go || !insn->next || vcpu->rip != rip + insn->length || salt != vcpu->jump_salt || number != vcpu->code_number || vcpu_pending(vcpu) ||
	    (vcpu->deferred & ~pending_not_yet(vcpu)) || step_needs_care(vcpu))
		return NULL;
	if (__atomic_load_n(&vcpu->ram->code_logged, __ATOMIC_RELAXED) != bt->logged)
		cache_follow_log(vcpu);
	if (!may_return(vcpu) || !vector_restore(vcpu, ready))
		return NULL;
	return insn->next;
}

static const u8 *step_site(struct vcpu *vcpu, struct exit *exit, const struct site *site, bool *go)
{
	return step_insn(vcpu, exit, &(struct stepped){ site->guest_kind, site->length, site->next ? at_site(site, site->next) : NULL }, go);
}

/* The addend of a page that gets no tag since other bytes of it are watched. In lockstep the journal wants to know each store. */
static u64 watched_addend(struct vcpu *vcpu, gla_t gla, unsigned size, unsigned kind, const struct translation *t)
{
	if (!debug_watches(&vcpu->debug, gla & PAGE_MASK, false) || vcpu->mmu->journal || !t->hva ||
	    debug_hits(vcpu, kind == ACCESS_WRITE ? DEBUG_WRITE : DEBUG_ACCESS, gla, size) || (kind == ACCESS_WRITE && !mmu_may_store(vcpu, t)))
		return FILL_STEP;
	return (u64)(uintptr_t)t->hva - gla;
}

u64 access_fill(struct vcpu *vcpu, gla_t gla, unsigned detail, const struct access_site *site)
{
	unsigned size = detail & ~(unsigned)SITE_WRITE, kind = detail & SITE_WRITE ? ACCESS_WRITE : ACCESS_READ;
	struct translation t;
	if (vcpu->code_number && gla >> 32)
		return FILL_STEP; /* it wraps, or a register holds more than 32 bits: see narrow_plain */
	if ((gla & ~PAGE_MASK) + size > PAGE_SIZE || !is_canonical(gla, vcpu_linear_bits(vcpu)) || !mmu_translate(vcpu, gla, kind, &t))
		return FILL_STEP;
	if (!tlb_lookup_explicit(vcpu->mmu, gla, size, kind))
		return unlikely(vcpu->debug.watches) && site->once ? watched_addend(vcpu, gla, size, kind, &t) : FILL_STEP;
	bt_of(vcpu)->count[COUNT_FILLED]++;
	return FILL_DONE;
}

bool miss_fill(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	struct bt_block *block;
	if (vcpu_pending(vcpu) || vcpu->code_number || bt->logged != __atomic_load_n(&vcpu->ram->code_logged, __ATOMIC_RELAXED) ||
	    !is_canonical(vcpu->rip, vcpu_linear_bits(vcpu)) || bt->cache->unchained)
		return false;
	bt->count[COUNT_MISSES]++;
	enum found found = find(vcpu, &block);
	if (found == FOUND_NOTHING)
		bt->step_next = true;
	/* If code was dropped, frames of CALLs may lead to it: they are forgotten when translated code is left. */
	return found == FOUND_CODE && may_return(vcpu) && jump_slot(vcpu)[0] == bt_jump_tag(vcpu);
}

/* An access that access_fill refused. */
static const u8 *access_site(struct vcpu *vcpu, struct exit *exit, const struct access_site *site, bool *go)
{
	struct bt *bt = bt_of(vcpu);
	vcpu->rip = modes_rip(vcpu, site->offset);
	bt->site_count[SITE_ACCESS]++;
	bt->count[COUNT_STEPPED_ACCESS]++;
	const u8 *next = site->next ? (const u8 *)site + site->next : NULL;
	return step_insn(vcpu, exit, &(struct stepped){ site->guest_kind, site->length, next }, go);
}

/* Chain a jump within the page to its target. */
static const u8 *link_site(struct vcpu *vcpu, struct exit *exit, const struct site *site, bool *go)
{
	struct bt_cache *c = bt_of(vcpu)->cache;
	u32 from = (u32)site->retry, link = site->detail;
	struct bt_block *target;
	bool linked = false;
	if (!c->unchained && find(vcpu, &target) == FOUND_CODE) {
		cache_lock(vcpu);
		linked = may_return(vcpu); /* else neither of the two may be there any more */
		if (linked)
			cache_link(c, bt_block_at(c, from), link, target);
		cache_unlock(vcpu);
	}
	if (linked)
		return code_of(c, target);
	left(vcpu, exit, go);
	return NULL;
}

static const u8 *vector_site(struct vcpu *vcpu, struct exit *exit, const struct site *site, bool *go)
{
	if (vector_load(vcpu, step_of(vcpu), site->detail))
		return at_site(site, site->retry);
	if (left(vcpu, exit, go))
		*go = step_deliver_fault(vcpu, exit);
	return NULL;
}

/* The target of the branch is not canonical or beyond CS: step does it again and faults. */
static void undo_branch(struct vcpu *vcpu)
{
	u64 branch = *vcpu_u64(vcpu, BRANCH_SLOT);
	if (branch == (u64)(s32)NO_BRANCH)
		return;
	vcpu->rip = modes_rip(vcpu, (unsigned)(branch & ~PAGE_MASK));
	cpu_set_sp(vcpu, vcpu->gpr[RSP] - (u64)((s64)branch >> PAGE_SHIFT));
	bt_of(vcpu)->step_next = true;
	if (bt_of(vcpu)->lockstep)
		lockstep_forget(vcpu); /* the return address was pushed */
}

/* Do what the site wants; the code to enter next, or NULL. */
static const u8 *handle_site(struct vcpu *vcpu, struct exit *exit, const struct site *site, bool *go)
{
	struct bt *bt = bt_of(vcpu);
	if (site->kind == SITE_JUMP)
		return access_site(vcpu, exit, (const struct access_site *)(const void *)site, go);
	bt->site_count[site->kind]++;
	if (site->kind == SITE_CALLOUT)
		; /* RIP is right */
	else if (site->kind != SITE_MISS)
		vcpu->rip = modes_rip(vcpu, site->offset);
	else if (modes_beyond(vcpu))
		undo_branch(vcpu);
	switch (site->kind) {
	case SITE_CALLOUT:
		*go = !bt->stop;
		bt->stop = false;
		return NULL;
	case SITE_STEP:
		return step_site(vcpu, exit, site, go);
	case SITE_LINK:
		return link_site(vcpu, exit, site, go);
	case SITE_VECTOR:
		return vector_site(vcpu, exit, site, go);
	case SITE_TRAP:
		vcpu->rip = modes_rip(vcpu, bt->trap_offset);
		if (bt->lockstep)
			lockstep_trapped(vcpu);
		if (!left(vcpu, exit, go))
			return NULL;
		vcpu->shadow |= SHADOW_STI;
		*go = step_next(vcpu, exit, true);
		return NULL;
	default: /* MISS, PENDING */
		left(vcpu, exit, go);
		for (unsigned i = 0; i < site->detail && *go; i++)
			*go = step_instruction(vcpu, exit);
		return NULL;
	}
}

static bool execute(struct vcpu *vcpu, struct exit *exit, const u8 *code)
{
	struct bt *bt = bt_of(vcpu);
	bool go = true;
	while (code) {
		if (bt->lockstep)
			lockstep_begin(vcpu);
		flags_to_image(vcpu);
		const struct site *site = bt->cache->enter(code);
		if (site->kind == SITE_JUMP)
			flags_from_site(vcpu, (const struct access_site *)(const void *)site);
		flags_from_image(vcpu);
		code = handle_site(vcpu, exit, site, &go);
	}
	return go;
}

/* ---- the loop ---- */

/* Bits that would only keep translated code from running are put aside meanwhile. */
static void defer(struct vcpu *vcpu)
{
	u32 now = vcpu->deferred & ~pending_not_yet(vcpu);
	if (now) {
		vcpu->deferred &= ~now;
		vcpu_set_pending(vcpu, now);
	}
	u32 later = vcpu_pending(vcpu) & pending_not_yet(vcpu);
	if (later) {
		vcpu->deferred |= later;
		vcpu_clear_pending(vcpu, later);
	}
}

static bool turn(struct vcpu *vcpu, struct exit *exit)
{
	struct bt *bt = bt_of(vcpu);
	struct bt_block *block;
	mmu_serve(vcpu);
	cache_obey(vcpu);
	if (bt->logged != __atomic_load_n(&vcpu->ram->code_logged, __ATOMIC_RELAXED))
		cache_follow_log(vcpu);
	bt->entered = cache_epoch(bt->cache);
	defer(vcpu);
	bool go;
	if (vcpu->cpl == 3 && bt->direct && !bt->step_next && !bt->lockstep && direct_run(vcpu, exit, &go))
		return go;
	if (bt->step_next || vcpu_pending(vcpu) || vcpu->activity != ACTIVITY_ACTIVE || step_needs_care(vcpu)) {
		bt->count[COUNT_BOUNDARY]++;
		bt->step_next = false;
		return step_next(vcpu, exit, true);
	}
	switch (find(vcpu, &block)) {
	case FOUND_CODE:
		bt->count[COUNT_ENTER]++;
		if (unlikely(vcpu->trace & TRACE_EXEC))
			step_trace(vcpu, "block");
		return execute(vcpu, exit, code_of(bt->cache, block));
	case FOUND_FAULT:
		return step_deliver_fault(vcpu, exit);
	default:
		bt->count[COUNT_INTERPRETED]++;
		return step_next(vcpu, exit, true);
	}
}

/* A fault taken by translated code: the instruction is stepped, which raises it anew with all its rules. */
static bool bt_trap(struct host_trap *trap)
{
	struct vcpu *vcpu = host_gs_base();
	struct bt *bt = vcpu && vcpu->engine_state ? bt_of(vcpu) : NULL;
	const u8 *pc = (const u8 *)(uintptr_t)trap->pc;
	u16 at;
	if (!bt || trap->vector == VEC_PF || !cache_insn_at(bt->cache, pc, &at))
		return snippet_trap(trap);
	bt->trap_offset = at & (u16)~(MAP_SAVED << 8);
	trap->pc = (u64)(uintptr_t)(at & MAP_SAVED << 8 ? bt->cache->trap_saved : bt->cache->trap_host);
	return true;
}

static void bt_run(struct vcpu *vcpu, struct exit *exit)
{
	struct bt *bt = bt_of(vcpu);
	step_enter(vcpu, exit, bt_trap);
	bt->exit = exit;
	mmu_set_running(vcpu, true);
	if (bt->changed)
		cache_clear_jumps(vcpu);
	bt->changed = false;
	while (turn(vcpu, exit))
		;
	vector_sync(vcpu);
	if (vcpu->deferred)
		vcpu_set_pending(vcpu, vcpu->deferred);
	vcpu->deferred = 0;
	mmu_set_running(vcpu, false);
}

/* Not the counts of what it was worth: an idle guest is soon as fast as before. */
static void bt_rest(struct vcpu *vcpu, bool all)
{
	step_rest(vcpu, all);
	direct_rest(vcpu);
	if (all) {
		cache_lock(vcpu);
		cache_rest(vcpu);
		cache_unlock(vcpu);
	}
	cache_clear_jumps(vcpu);
}

/* ---- life ---- */

static void bt_destroy(struct vcpu *vcpu)
{
	struct bt *bt = vcpu->engine_state ? bt_of(vcpu) : NULL;
	if (bt) {
		direct_destroy(vcpu);
		cache_leave(vcpu);
		host_free(bt);
	}
	cache_destroy_jumps(vcpu);
	step_destroy(vcpu);
}

static int bt_create(struct vcpu *vcpu)
{
	struct ram *ram = vcpu->ram;
	if (ram->users == RAM_USERS_MAX || step_create(vcpu, STEP_CODE_SIZE))
		return -1;
	struct bt *bt = step_of(vcpu)->translator = host_alloc(sizeof(*bt));
	vcpu->self = vcpu;
	if (!bt || cache_join(vcpu) || cache_create_jumps(vcpu)) {
		bt_destroy(vcpu);
		return -1;
	}
	bt->cache->unchained = vcpu->trace & TRACE_EXEC;
	step_of(vcpu)->translated = bt->cache->code;
	bt->logged = ram->code_logged;
	if (direct_create(vcpu)) {
		bt_destroy(vcpu);
		return -1;
	}
	ram->protect_code = true;
	ram->user[ram->users++] = vcpu;
	return 0;
}

static bool bt_available(const char **why)
{
	return true;
}

static const char *const counter_names[COUNTERS] = {
	[COUNT_ENTER] = "entered by the loop", [COUNT_TRANSLATED] = "blocks translated", [COUNT_INSNS] = "instructions translated",
	[COUNT_BYTES] = "bytes of host code", [COUNT_DROPPED] = "blocks dropped", [COUNT_REVIVED] = "blocks revived", [COUNT_EVICTED] = "regions evicted", [COUNT_INTERPRETED] = "instructions not translatable",
	[COUNT_FILLED] = "TLB misses filled", [COUNT_STEPPED_ACCESS] = "accesses stepped", [COUNT_BOUNDARY] = "boundaries stepped",
	[COUNT_CALLOUT_SITES] = "sites that call out", [COUNT_INLINE_SITES] = "sensitive sites done inline", [COUNT_MISSES] = "jump cache misses filled",
};

static const char *const site_names[SITE_KINDS] = {
	[SITE_ACCESS] = "access", [SITE_STEP] = "step", [SITE_LINK] = "link", [SITE_MISS] = "jump cache miss",
	[SITE_PENDING] = "pending", [SITE_VECTOR] = "extended state", [SITE_TRAP] = "trap",
	[SITE_CALLOUT] = "call-out",
};

static void report_kinds(const u64 *count, const char *what, void (*line)(void *opaque, const char *text), void *opaque)
{
	char text[96];
	for (unsigned i = 0; i < KIND_COUNT; i++) {
		if (count[i] < 100)
			continue;
		host_snprintf(text, sizeof(text), "%14llu  %s: %s", (unsigned long long)count[i], what, insn_kind_name((enum insn_kind)i));
		line(opaque, text);
	}
}

static void bt_report(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque)
{
	const struct bt *bt = bt_of(vcpu);
	char text[96];
	for (unsigned i = 0; i < COUNTERS; i++) {
		host_snprintf(text, sizeof(text), "%14llu  %s", (unsigned long long)bt->count[i], counter_names[i]);
		line(opaque, text);
	}
	for (unsigned i = 0; i < SITE_KINDS; i++) {
		host_snprintf(text, sizeof(text), "%14llu  left for: %s", (unsigned long long)bt->site_count[i], site_names[i]);
		line(opaque, text);
	}
	report_kinds(bt->stepped, "stepped", line, opaque);
	report_kinds(bt->called, "called out", line, opaque);
	direct_report(vcpu, line, opaque);
}

static void bt_state_changed(struct vcpu *vcpu)
{
	engine_step.state_changed(vcpu);
	bt_of(vcpu)->changed = true;
	direct_forget(vcpu);
}

const struct engine_ops engine_bt = {
	.name = "bt",
	.description = "binary translation: guest code runs as host code, checked; works everywhere",
	.available = bt_available,
	.vcpu_create = bt_create,
	.vcpu_destroy = bt_destroy,
	.run = bt_run,
	.rest = bt_rest,
	.state_changed = bt_state_changed,
	.report = bt_report,
};
