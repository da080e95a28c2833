/* Guest user code run as it is (C2): in a space whose mappings are the guest's, its own instructions do what they would do on the machine
 * itself, at the same addresses, in the same registers. What the kernel of the guest has to decide comes back as a trap: page faults,
 * SYSCALL, privileged and undefined instructions. The rest, instructions that would tell of the host, is not there: pages that hold such
 * are refused (sensitive.h) and run translated. That holds in the modes in which Linux on the host runs its own programs, and guests
 * theirs. */
#include "engine/bt/direct.h"

#include "arch/paging.h"
#include "cpu/segment.h"
#include "engine/step/step.h"

#define PLACE_FLAGS (RFLAGS_STATUS | RFLAGS_DF | RFLAGS_AC | RFLAGS_ID | RFLAGS_NT)
#define VSYSCALL 0xffffffffff600000

/* ---- whether ---- */

/* The guest's descriptors that user code can load are the host's: 32-bit code, data and 64-bit code from 0x20 on, and at 0x78 a small
 * read-only segment, whose limit only LSL tells. The accessed bit is set or will be. What else may be in either table is no segment of
 * CPL 3, or traps where the host has none. */
static bool gdt_agrees(struct vcpu *vcpu)
{
	static const u64 wanted[] = { 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff };
	const u64 small = 0xf5ull << 40, small_attributes = 0xfeull << 40;
	u64 found[12];
	if (vcpu->gdtr.limit < 0x7f || !mmu_read(vcpu, vcpu->gdtr.base + 0x20, found, sizeof(found), ACCESS_READ | ACCESS_IMPLICIT))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(wanted); i++)
		if ((found[i] | BIT(40)) != wanted[i])
			return false;
	return ((found[11] ^ small) & small_attributes) == 0;
}

static bool selectors_agree(const struct vcpu *vcpu)
{
	const struct segment *seg = vcpu->seg;
	return seg[SEG_CS].selector == HOST_SPACE_CS && seg[SEG_SS].selector == HOST_SPACE_SS &&
	       !(seg[SEG_DS].selector | seg[SEG_ES].selector | seg[SEG_FS].selector | seg[SEG_GS].selector);
}

bool place_allows(struct vcpu *vcpu)
{
	const u64 cr0 = CR0_MP | CR0_NE | CR0_AM, cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE;
	return host_space_runs_in_place() && (vcpu->cr0 & (cr0 | CR0_EM | CR0_TS)) == cr0 && (vcpu->cr4 & (cr4 | CR4_TSD)) == cr4 &&
	       (vcpu->rflags & (RFLAGS_IF | RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP)) == RFLAGS_IF && (vcpu->efer & EFER_SCE) &&
	       vcpu->xcr0 == step_of(vcpu)->xstate_mask && selectors_agree(vcpu) && gdt_agrees(vcpu);
}

bool place_at(struct vcpu *vcpu, struct direct_space *s, u64 rip)
{
	struct translation t;
	return rip < HOST_SPACE_END && mmu_translate(vcpu, rip, ACCESS_EXEC, &t) && t.hva && memory_place(vcpu, s, rip);
}

/* ---- the journey ---- */

void place_load(struct vcpu *vcpu, struct direct_space *s)
{
	struct host_space_window *window = s->host->window;
	__builtin_memcpy(window->regs.gpr, vcpu->gpr, sizeof(window->regs.gpr));
	window->regs.rflags = (vcpu->rflags & PLACE_FLAGS) | RFLAGS_FIXED1 | RFLAGS_IF;
	window->regs.fs_base = vcpu->seg[SEG_FS].base;
	window->regs.gs_base = vcpu->seg[SEG_GS].base;
	static const u16 selector[6] = { 0, HOST_SPACE_CS, HOST_SPACE_SS, 0, 0, 0 };
	__builtin_memcpy(window->regs.selector, selector, sizeof(selector));
	window->xcr0_mask = step_of(vcpu)->xstate_mask;
	__builtin_memcpy(window->xsave, vcpu->xsave, sizeof(window->xsave));
}

/* The guest loaded segment registers: the same from its own tables. */
static void store_segments(struct vcpu *vcpu, const u16 *selector)
{
	static const u8 order[] = { SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS };
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		enum segment_register seg = order[i];
		u64 base = vcpu->seg[seg].base;
		if (vcpu->seg[seg].selector == selector[seg])
			continue;
		segment_load(vcpu, seg, selector[seg]);
		if (seg == SEG_FS || seg == SEG_GS)
			vcpu->seg[seg].base = base;
	}
}

/* The guest is before the instruction at rip. */
void place_store(struct vcpu *vcpu, struct direct_space *s, u64 rip)
{
	const struct host_space_regs regs = s->host->window->regs;
	__builtin_memcpy(vcpu->gpr, regs.gpr, sizeof(vcpu->gpr));
	vcpu->rflags = (vcpu->rflags & ~(u64)(PLACE_FLAGS | RFLAGS_TF)) | (regs.rflags & (PLACE_FLAGS | RFLAGS_TF));
	vcpu->rip = rip;
	if (is_canonical(regs.fs_base, 48) && is_canonical(regs.gs_base, 48)) {
		vcpu->seg[SEG_FS].base = regs.fs_base;
		vcpu->seg[SEG_GS].base = regs.gs_base;
	}
	space_store_extended(vcpu, s);
	store_segments(vcpu, regs.selector);
}

/* The bytes before rip, which were just executed. */
static bool preceded_by(struct vcpu *vcpu, u64 rip, const char *bytes, unsigned count)
{
	u8 found[2];
	return mmu_read(vcpu, rip - count, found, count, ACCESS_EXEC) && !__builtin_memcmp(found, bytes, count);
}

/* SYSCALL has changed RCX and R11 as it will again. */
static enum outcome came_by_syscall(struct vcpu *vcpu, struct direct_space *s, const struct host_trap *trap)
{
	direct_of(vcpu)->count[DIRECT_SYSCALLS]++;
	if (trap->address >= VSYSCALL) { /* the host has already returned from its own, without having done anything else */
		place_store(vcpu, s, trap->address);
		vcpu->gpr[RSP] -= 8;
		return OUTCOME_STEP;
	}
	place_store(vcpu, s, trap->pc - 2);
	return preceded_by(vcpu, trap->pc, "\x0f\x05", 2) || preceded_by(vcpu, trap->pc, "\xcd\x80", 2) ? OUTCOME_STEP : OUTCOME_LOST;
}

/* INT3 and INT1 come back behind the instruction, but for INT1 where the host is itself in a VM whose hypervisor has it come back at the
 * instruction. A single step, which the guest's POPF began, comes back behind too, and is over. */
static enum outcome came_by_debug(struct vcpu *vcpu, struct direct_space *s, const struct host_trap *trap)
{
	if (trap->vector == VEC_DB && (s->host->window->regs.rflags & RFLAGS_TF)) {
		place_store(vcpu, s, trap->pc);
		vcpu->dr6 |= DR6_BS;
		vcpu_raise(vcpu, VEC_DB);
		return OUTCOME_FAULT;
	}
	unsigned length = trap->vector == VEC_DB ? preceded_by(vcpu, trap->pc, "\xf1", 1) : preceded_by(vcpu, trap->pc, "\xcd\x03", 2) ? 2 : 1;
	place_store(vcpu, s, trap->pc - length);
	return OUTCOME_STEP;
}

bool place_same_segments(const struct vcpu *vcpu, const struct direct_space *s)
{
	const u16 *selector = s->host->window->regs.selector;
	for (unsigned i = 0; i < ARRAY_SIZE(s->host->window->regs.selector); i++)
		if (selector[i] != vcpu->seg[i].selector)
			return false;
	return true;
}

bool place_cross(struct vcpu *vcpu, struct direct_space *s, u64 rip)
{
	bool no_code = false;
	struct direct_block *block = code_find(s, rip);
	if (!block)
		block = direct_translate(vcpu, s, rip, &no_code);
	if (!block || block->stepped)
		return false;
	crossing_add(s, block);
	s->host->window->regs.rip = code_address(s, block->body);
	return true;
}

static enum outcome stop_before(struct vcpu *vcpu, struct direct_space *s, u64 rip)
{
	place_store(vcpu, s, rip);
	return OUTCOME_LOOP;
}

static enum outcome came_by_page_fault(struct vcpu *vcpu, struct direct_space *s, const struct host_trap *trap)
{
	struct direct *d = direct_of(vcpu);
	struct translation t;
	bool write = trap->error_code & PF_WR, fetch = trap->error_code & PF_ID;
	if (!is_canonical(trap->address, 48) || trap->address >= HOST_SPACE_END) {
		place_store(vcpu, s, trap->pc);
		return OUTCOME_STEP;
	}
	if (!mmu_translate(vcpu, trap->address, fetch ? ACCESS_EXEC : write ? ACCESS_WRITE : ACCESS_READ, &t)) {
		d->count[DIRECT_FAULTS]++;
		place_store(vcpu, s, trap->pc);
		s->faulted = trap->address;
		s->fault_writes = write;
		s->fault_rip = trap->pc;
		return OUTCOME_FAULT;
	}
	if (fetch && trap->address == trap->pc && memory_hopeless(s, trap->pc) && place_same_segments(vcpu, s) && place_cross(vcpu, s, trap->pc))
		return vcpu_pending(vcpu) ? stop_before(vcpu, s, trap->pc) : OUTCOME_GO;
	bool filled = t.hva && (fetch ? memory_place(vcpu, s, trap->address) : memory_fill(vcpu, s, trap->address, write));
	d->count[filled ? DIRECT_FILLS : DIRECT_TRAPS_STEPPED]++;
	if (filled && !vcpu_pending(vcpu) && place_same_segments(vcpu, s)) {
		space_update(vcpu, s);
		return OUTCOME_GO;
	}
	place_store(vcpu, s, trap->pc);
	if (filled)
		return OUTCOME_LOOP;
	/* An instruction that begins in a page that may be run in place and ends in one that may not is step's. */
	bool crosses = fetch && !((trap->address ^ trap->pc) & PAGE_MASK);
	return crosses ? OUTCOME_ACROSS : OUTCOME_STEP;
}

enum outcome place_came_back(struct vcpu *vcpu, struct direct_space *s, enum host_space_exit how, const struct host_trap *trap)
{
	struct direct *d = direct_of(vcpu);
	if (how == SPACE_SYSCALL)
		return came_by_syscall(vcpu, s, trap);
	if (how == SPACE_STOPPED) {
		d->count[DIRECT_STOPPED]++;
		place_store(vcpu, s, trap->pc);
		return OUTCOME_LOOP;
	}
	if (how == SPACE_AT_BREAK) {
		d->count[DIRECT_BREAKS]++;
		place_store(vcpu, s, trap->pc);
		return OUTCOME_STEP;
	}
	if (how != SPACE_TRAP)
		return OUTCOME_LOST;
	d->count[DIRECT_TRAPS]++;
	if (trap->vector == VEC_PF)
		return came_by_page_fault(vcpu, s, trap);
	if (trap->vector == VEC_DB || trap->vector == VEC_BP)
		return came_by_debug(vcpu, s, trap);
	d->count[DIRECT_TRAPS_STEPPED]++;
	place_store(vcpu, s, trap->pc);
	return OUTCOME_STEP;
}
