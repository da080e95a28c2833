/* Guest user code in spaces: the journey into a space and back. See direct.h. */
#include "engine/bt/direct.h"

#include "arch/paging.h"
#include "arch/xsave.h"
#include "cpu/control.h"
#include "engine/step/step.h"

#define REGS_FLAGS (RFLAGS_STATUS | RFLAGS_DF)
#define STEPS_ACROSS 64
#define STATE_PKRU BIT(9)

/* ---- whether code may run in a space ---- */

u64 direct_modes(const struct vcpu *vcpu)
{
	u64 cr0 = vcpu->cr0 & (CR0_MP | CR0_EM | CR0_TS | CR0_NE);
	u64 cr4 = vcpu->cr4 & (CR4_TSD | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE);
	return cr0 ^ cr4 << 8 ^ vcpu->xcr0 << 40;
}

static bool mode_allows(struct vcpu *vcpu)
{
	return vcpu->cpl == 3 && vcpu_64bit(vcpu) && (vcpu->cr0 & CR0_PG) && !(vcpu->cr4 & (CR4_LA57 | CR4_PKE)) &&
	       !step_needs_care(vcpu) && !control_debug_armed(vcpu) && vcpu->rip < HOST_SPACE_END && !mmu_maps_gigabyte(vcpu, direct_of(vcpu)->hole);
}

/* ---- before a journey ---- */

void space_update(struct vcpu *vcpu, struct direct_space *s)
{
	mmu_serve(vcpu);
	memory_bind(vcpu, s);
	memory_follow_writes(vcpu, s);
	memory_update(vcpu, s);
	code_follow_writes(vcpu, s);
}

/* ---- the guest's state in and out of the window ---- */

static void load(struct vcpu *vcpu, struct direct_space *s)
{
	struct host_space_window *window = s->host->window;
	__builtin_memcpy(window->regs.gpr, vcpu->gpr, sizeof(window->regs.gpr));
	window->regs.rflags = (vcpu->rflags & REGS_FLAGS) | RFLAGS_FIXED1 | RFLAGS_IF;
	window->regs.fs_base = vcpu->seg[SEG_FS].base;
	window->xcr0_mask = step_of(vcpu)->xstate_mask & ~STATE_PKRU;
	__builtin_memcpy(window->xsave, vcpu->xsave, sizeof(window->xsave));
	window->regs.gs_base = vcpu->seg[SEG_GS].base;
}

/* The x87 recorded host addresses; data addresses are the guest's own. */
static void mend_x87(struct vcpu *vcpu, struct direct_space *s, struct xsave_area *area)
{
	struct direct_map map;
	struct direct_block *block = code_at(s, area->legacy.fip, &map);
	if (block)
		area->legacy.fip = block->rip + (map.guest & MAP_GUEST);
	vcpu->x87.cs = vcpu->seg[SEG_CS].selector;
	vcpu->x87.ds = vcpu->seg[SEG_DS].selector;
	vcpu->x87.ip = area->legacy.fip;
	vcpu->x87.dp = area->legacy.fdp;
	vcpu->x87.op = area->legacy.fop;
}

/* Nothing in the image is believed that XRSTOR would refuse. Intel SDM volume 1, "Operation of XRSTOR". */
void space_store_extended(struct vcpu *vcpu, struct direct_space *s)
{
	struct xsave_area *area = (struct xsave_area *)(void *)vcpu->xsave;
	struct xsave_header old = area->header;
	u64 mask = step_of(vcpu)->xstate_mask & ~STATE_PKRU;
	__builtin_memcpy(vcpu->xsave, s->host->window->xsave, sizeof(vcpu->xsave));
	area->header = (struct xsave_header){ .xstate_bv = (area->header.xstate_bv & mask) | (old.xstate_bv & ~mask) };
	area->legacy.mxcsr &= 0xffff;
	mend_x87(vcpu, s, area);
}

/* The guest is before the instruction at rip; `saved` says which registers are in the window. */
static void store(struct vcpu *vcpu, struct direct_space *s, u64 rip, unsigned saved)
{
	const struct host_space_regs *regs = &s->host->window->regs;
	if (s->in_place) {
		place_store(vcpu, s, rip);
	} else {
		__builtin_memcpy(vcpu->gpr, regs->gpr, sizeof(vcpu->gpr));
		vcpu->rflags = (vcpu->rflags & ~REGS_FLAGS) | (regs->rflags & REGS_FLAGS);
		vcpu->rip = rip;
		space_store_extended(vcpu, s);
	}
	if (saved & MAP_RCX)
		vcpu->gpr[RCX] = s->host->window->place_rcx;
	if (saved & MAP_SCRATCH)
		vcpu->gpr[((saved & MAP_SCRATCH) >> MAP_SCRATCH_SHIFT) - 1] = s->window->scratch;
}

/* ---- one journey ---- */

/* The code of the guest at rip. */
static enum outcome find(struct vcpu *vcpu, struct direct_space *s, u64 rip, struct direct_block **block)
{
	bool no_code = false;
	*block = code_find(s, rip);
	if (!*block) {
		u64 began = direct_now();
		*block = direct_translate(vcpu, s, rip, &no_code);
		direct_of(vcpu)->count[DIRECT_TIME_TRANSLATING] += direct_now() - began;
	}
	if (!*block)
		return no_code ? OUTCOME_CHECKED : OUTCOME_FAULT;
	return (*block)->stepped ? OUTCOME_STEP : OUTCOME_GO;
}

static enum outcome go_on(struct direct_space *s, u32 code)
{
	s->host->window->regs.rip = code_address(s, code);
	return OUTCOME_GO;
}

/* The guest jumped to rip; `from` is the site of the jump, or NULL. */
static enum outcome go_to(struct vcpu *vcpu, struct direct_space *s, u64 rip, const struct direct_site *from, unsigned saved)
{
	u64 flushes = direct_of(vcpu)->count[DIRECT_FLUSHES];
	struct direct_site site = from ? *from : (struct direct_site){ 0 };
	struct direct_block *block;
	if (s->in_place && place_at(vcpu, s, rip)) {
		if (from && site.kind == DIRECT_LINK)
			code_link_place(s, &site);
		if (vcpu_pending(vcpu) || !place_same_segments(vcpu, s)) {
			store(vcpu, s, rip, saved);
			return OUTCOME_LOOP;
		}
		if (saved & MAP_RCX)
			s->host->window->regs.gpr[RCX] = s->host->window->place_rcx;
		s->host->window->regs.rip = rip;
		space_update(vcpu, s);
		return OUTCOME_GO;
	}
	enum outcome outcome = find(vcpu, s, rip, &block);
	if (block && from && flushes == direct_of(vcpu)->count[DIRECT_FLUSHES]) {
		if (site.kind == DIRECT_LINK)
			code_link(s, &site, block);
		else if (site.kind == DIRECT_BRANCH)
			code_enter_tables(s, block);
	}
	if (outcome != OUTCOME_GO || !block || vcpu_pending(vcpu)) {
		store(vcpu, s, rip, saved);
		return outcome == OUTCOME_GO ? OUTCOME_LOOP : outcome;
	}
	if (saved & MAP_RCX)
		s->host->window->regs.gpr[RCX] = s->host->window->place_rcx;
	return go_on(s, block->body);
}

static enum outcome left(struct vcpu *vcpu, struct direct_space *s)
{
	struct direct *d = direct_of(vcpu);
	u32 number = __atomic_load_n(&s->window->site, __ATOMIC_RELAXED);
	u64 target = __atomic_load_n(&s->host->window->place_target, __ATOMIC_RELAXED);
	const struct direct_site *site = number < s->sites.used ? site_at(s, number) : NULL;
	if (!site)
		return OUTCOME_LOST;
	d->count[DIRECT_LEFT_STEP + site->kind]++;
	switch (site->kind) {
	case DIRECT_LINK:
		return go_to(vcpu, s, site->target, site, 0);
	case DIRECT_START:
		return go_to(vcpu, s, site->rip, NULL, 0);
	case DIRECT_BRANCH:
		if (is_canonical(target, 48))
			return go_to(vcpu, s, target, site, MAP_RCX);
		store(vcpu, s, site->rip, MAP_RCX);
		vcpu->gpr[RSP] -= (u64)(s64)site->moved;
		return OUTCOME_STEP;
	default:
		bt_of(vcpu)->stepped[site->insn_kind]++;
		store(vcpu, s, site->rip, 0);
		return OUTCOME_STEP;
	}
}

/* Remember where the guest goes on when it comes back to an instruction that faulted. */
static void note_resume(struct direct_space *s, u64 rip, const struct direct_block *block, const struct direct_map *map)
{
	unsigned i = (unsigned)(rip * 0x9e3779b97f4a7c15 >> 58);
	s->resume[i].rip = rip;
	s->resume[i].block = code_block_index(s, block->rip);
	u32 first = block->first_map;
	while (first < block->first_map + block->maps &&
	       (map_at(s, first)->guest & MAP_GUEST) != (map->guest & MAP_GUEST))
		first++;
	s->resume[i].code = block->body + map_at(s, first)->host;
}

static enum outcome trapped(struct vcpu *vcpu, struct direct_space *s, const struct host_trap *trap)
{
	struct direct *d = direct_of(vcpu);
	struct direct_map map;
	struct direct_block *block = code_at(s, trap->pc, &map);
	struct translation t;
	bool write = trap->error_code & PF_WR;
	d->count[DIRECT_TRAPS]++;
	if (!block)
		return OUTCOME_LOST;
	u64 rip = block->rip + (map.guest & MAP_GUEST);
	if (trap->vector == VEC_PF && is_canonical(trap->address, 48) && trap->address < HOST_SPACE_END) {
		if (!mmu_translate(vcpu, trap->address, write ? ACCESS_WRITE : ACCESS_READ, &t)) {
			d->count[DIRECT_FAULTS]++;
			store(vcpu, s, rip, map.guest);
			note_resume(s, rip, block, &map);
			s->faulted = trap->address;
			s->fault_writes = write;
			s->fault_rip = rip;
			return OUTCOME_FAULT;
		}
		if (t.hva && memory_fill(vcpu, s, trap->address, write)) {
			d->count[DIRECT_FILLS]++;
			if (!vcpu_pending(vcpu)) {
				space_update(vcpu, s);
				if (block->live) {
					s->host->window->regs.rip = trap->pc;
					return OUTCOME_GO;
				}
			}
			store(vcpu, s, rip, map.guest);
			note_resume(s, rip, block, &map);
			return OUTCOME_LOOP;
		}
	}
	d->count[DIRECT_TRAPS_STEPPED]++;
	store(vcpu, s, rip, map.guest);
	return OUTCOME_STEP;
}

/* Where the guest goes on: behind a fault, or at a block. */
static enum outcome start(struct vcpu *vcpu, struct direct_space *s)
{
	unsigned i = (unsigned)(vcpu->rip * 0x9e3779b97f4a7c15 >> 58);
	struct direct_block *block;
	if (s->resume[i].code && s->resume[i].rip == vcpu->rip && block_at(s, s->resume[i].block)->live)
		return go_on(s, s->resume[i].code);
	enum outcome outcome = find(vcpu, s, vcpu->rip, &block);
	return outcome == OUTCOME_GO ? go_on(s, block->body) : outcome;
}

/* The space is lost with the guest's registers in it: the guest sees #GP. */
static void lost(struct vcpu *vcpu, struct direct_space *s)
{
	space_lose(vcpu, s);
	vcpu_raise_gp(vcpu, 0);
}

/* What was to be run is still in the window. */
static void store_unrun(struct vcpu *vcpu, struct direct_space *s)
{
	struct direct_map map;
	u64 pc = s->host->window->regs.rip;
	struct direct_block *block = code_at(s, pc, &map);
	if (block)
		store(vcpu, s, block->rip + (map.guest & MAP_GUEST), map.guest);
	else if (s->in_place)
		store(vcpu, s, pc, 0);
}

static bool in_code_area(const struct direct_space *s, u64 pc)
{
	return pc - code_address(s, 0) < s->code.size;
}

static enum host_space_exit run(struct vcpu *vcpu, struct direct_space *s, struct host_trap *trap)
{
	struct direct *d = direct_of(vcpu);
	u64 entered = direct_now();
	memory_update(vcpu, s); /* what was translated meanwhile is code now */
	d->count[in_code_area(s, s->host->window->regs.rip) ? DIRECT_RUNS : DIRECT_RUNS_IN_PLACE]++;
	vcpu_watch(vcpu, &s->host->window->stop);
	enum host_space_exit how = host_space_run(s->host, trap, s->in_place);
	vcpu_watch(vcpu, NULL);
	space_account(d, s, entered);
	return how;
}

/* What faulted is there now, presumably. */
static void fill_ahead(struct vcpu *vcpu, struct direct_space *s)
{
	if (s->fault_rip == vcpu->rip)
		memory_fill(vcpu, s, s->faulted, s->fault_writes);
	s->fault_rip = 0;
}

static enum outcome came_back(struct vcpu *vcpu, struct direct_space *s, enum host_space_exit how, const struct host_trap *trap)
{
	struct direct_map map;
	switch (how) {
	case SPACE_GONE:
		store_unrun(vcpu, s);
		space_lose(vcpu, s);
		return OUTCOME_CHECKED;
	case SPACE_BROKEN:
		return OUTCOME_LOST;
	case SPACE_LEFT:
		return left(vcpu, s);
	case SPACE_STOPPED:
		if (!code_at(s, trap->pc, &map))
			break;
		store_unrun(vcpu, s);
		return OUTCOME_LOOP;
	case SPACE_TRAP:
		if (s->in_place && !in_code_area(s, trap->pc))
			break;
		return trapped(vcpu, s, trap);
	default:
		break;
	}
	return s->in_place ? place_came_back(vcpu, s, how, trap) : OUTCOME_LOST;
}

static enum outcome travel(struct vcpu *vcpu, struct direct_space *s)
{
	struct host_trap trap;
	enum outcome outcome = OUTCOME_GO;
	fill_ahead(vcpu, s);
	s->in_place = place_allows(vcpu);
	s->host->window->regs.rip = vcpu->rip;
	s->window->tsc_offset = vcpu->tsc_offset;
	s->window->tsc_aux = vcpu->msr.tsc_aux;
	if (!s->in_place || !place_at(vcpu, s, vcpu->rip))
		outcome = start(vcpu, s);
	if (outcome == OUTCOME_GO && s->in_place)
		place_load(vcpu, s);
	else if (outcome == OUTCOME_GO)
		load(vcpu, s);
	while (outcome == OUTCOME_GO)
		outcome = came_back(vcpu, s, run(vcpu, s, &trap), &trap);
	if (outcome == OUTCOME_LOST) {
		lost(vcpu, s);
		return OUTCOME_FAULT;
	}
	return outcome;
}

static void forget_all(struct direct *d)
{
	for (unsigned i = 0; i < DIRECT_SPACES; i++) {
		space_destroy(d->space[i]);
		d->space[i] = NULL;
	}
	d->forget = false;
}

/* Code in place went to a page that may not be run so. Most such visits are short, and stepped sooner than translated code is entered and
 * left. False: as of step_instruction. */
static bool step_across(struct vcpu *vcpu, struct direct_space *s, struct exit *exit)
{
	for (unsigned i = 0; i < STEPS_ACROSS; i++) {
		direct_of(vcpu)->count[DIRECT_STEPPED_ACROSS]++;
		if (!step_instruction(vcpu, exit))
			return false;
		if (vcpu_pending(vcpu) || !mode_allows(vcpu) || !memory_refused(s, vcpu->rip))
			break;
	}
	return true;
}

bool direct_run(struct vcpu *vcpu, struct exit *exit, bool *go)
{
	struct direct *d = direct_of(vcpu);
	if (vcpu_pending(vcpu)) {
		direct_sample(vcpu, d);
		return false;
	}
	bool wanted = !d->checked && direct_promoted(vcpu, d);
	/* RF comes with the return from every fault; it holds off breakpoints, of which there are none, and ends with this instruction. */
	if (wanted && !control_debug_armed(vcpu))
		vcpu->rflags &= ~RFLAGS_RF;
	if (!wanted || !mode_allows(vcpu)) {
		d->checked = false;
		return false;
	}
	if (d->forget)
		forget_all(d);
	vector_sync(vcpu);
	struct direct_space *s = space_of(vcpu, d);
	if (!s)
		return false;
	u64 began = s->last_used = direct_now();
	if (s->modes != direct_modes(vcpu)) {
		code_flush(vcpu, s);
		s->modes = direct_modes(vcpu);
	}
	space_update(vcpu, s);
	memory_forgive(s, began);
	u64 lost_before = d->count[DIRECT_SPACES_LOST];
	enum outcome outcome = travel(vcpu, s);
	*go = outcome != OUTCOME_ACROSS || step_across(vcpu, s, exit);
	if (lost_before == d->count[DIRECT_SPACES_LOST]) {
		u64 passed = direct_now() - began;
		s->total += passed;
		d->count[DIRECT_TIME] += passed;
		space_judge(vcpu, d, s);
	}
	d->checked = outcome == OUTCOME_CHECKED;
	if (outcome == OUTCOME_FAULT)
		*go = step_deliver_fault(vcpu, exit);
	else if (outcome == OUTCOME_STEP)
		*go = step_instruction(vcpu, exit);
	return true;
}

/* ---- life ---- */

int direct_create(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	const char *why;
	u64 hole = host_space_hole(&why);
	if (vcpu->direct == DIRECT_OFF || !hole || !vcpu->ram->memory)
		return 0;
	bt->direct = host_alloc(sizeof(*bt->direct));
	if (!bt->direct)
		return -1;
	bt->direct->hole = hole;
	bt->direct->work = host_alloc(direct_work_size());
	if (!bt->direct->work)
		return -1;
	/* Now, while the host may still make some; they take memory when they are used. */
	struct direct *d = bt->direct;
	u64 size = translation_budget(vcpu->ram, DIRECT_CODE_MAX) / (vcpu->index + 1) & PAGE_MASK;
	while (d->codes < DIRECT_SPACES && !host_code_create(&d->code[d->codes], MAX(size, (u64)DIRECT_CODE_MIN)))
		d->codes++;
	return 0;
}

void direct_destroy(struct vcpu *vcpu)
{
	struct direct *d = direct_of(vcpu);
	if (!d)
		return;
	forget_all(d);
	while (d->codes)
		host_code_destroy(&d->code[--d->codes]);
	host_free(d->work);
	host_free(d);
}

void direct_rest(struct vcpu *vcpu)
{
	struct direct *d = direct_of(vcpu);
	if (!d)
		return;
	forget_all(d);
	for (unsigned i = 0; i < DIRECT_CANDIDATES; i++)
		d->candidate[i].busy = 0;
	for (unsigned i = 0; i < d->codes; i++)
		host_code_discard(&d->code[i], 0, d->code[i].size);
}

void direct_forget(struct vcpu *vcpu)
{
	if (direct_of(vcpu))
		direct_of(vcpu)->forget = true;
}

static const char *const counter_names[DIRECT_COUNTERS] = {
	[DIRECT_SPACES_MADE] = "spaces made", [DIRECT_SPACES_LOST] = "spaces lost", [DIRECT_PROMOTED] = "address spaces promoted",
	[DIRECT_DEMOTED] = "address spaces demoted", [DIRECT_RUNS] = "runs of translated code in a space", [DIRECT_RUNS_IN_PLACE] = "runs of code in place",
	[DIRECT_PLACES] = "pages of code for running in place", [DIRECT_PLACES_REFUSED] = "pages that may not be run in place",
	[DIRECT_BREAKS_SET] = "pages with break points in place", [DIRECT_BREAKS] = "left code in place: break point",
	[DIRECT_STEPPED_ACROSS] = "instructions stepped in pages that may not be run in place",
	[DIRECT_SYSCALLS] = "left code in place: system call", [DIRECT_STOPPED] = "left code in place: stopped", [DIRECT_LEFT_STEP] = "left a space: step",
	[DIRECT_LEFT_LINK] = "left a space: link", [DIRECT_LEFT_BRANCH] = "left a space: computed jump",
	[DIRECT_LEFT_START] = "left a space: pending or dropped", [DIRECT_TRAPS] = "left a space: trap",
	[DIRECT_FILLS] = "traps that mapped pages", [DIRECT_FAULTS] = "traps that were the guest's page faults",
	[DIRECT_TRAPS_STEPPED] = "traps stepped", [DIRECT_MAPPED] = "pages mapped in spaces",
	[DIRECT_UNMAPPED] = "pages unmapped in spaces", [DIRECT_REVALIDATED] = "whole spaces compared", [DIRECT_BLOCKS] = "blocks for spaces",
	[DIRECT_INSNS] = "instructions for spaces", [DIRECT_PAGES_DROPPED] = "pages of code dropped in spaces",
	[DIRECT_FLUSHES] = "code areas of spaces emptied", [DIRECT_TIME] = "us for code in spaces",
	[DIRECT_TIME_RUNNING] = "us of these, that it ran", [DIRECT_TIME_WAITING] = "us of these, going there and back",
	[DIRECT_TIME_TRANSLATING] = "us of these, translating it", [DIRECT_TIME_CREATING] = "us to make spaces",
};

void direct_report(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque)
{
	const struct direct *d = direct_of(vcpu);
	char text[96];
	for (unsigned i = 0; d && i < DIRECT_COUNTERS; i++) {
		u64 count = i < DIRECT_TIME ? d->count[i] : d->count[i] / direct_us(1);
		host_snprintf(text, sizeof(text), "%14llu  %s", (unsigned long long)count, counter_names[i]);
		line(opaque, text);
	}
}
