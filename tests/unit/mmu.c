/* Translation and access: every mode with every permission, A and D, reserved bits, the TLB's contexts and flushes, accesses
 * across pages and to MMIO. */
#include "small_vm.h"

#define GLA 0x234000ull /* indexes differ on every level */
#define PAGE 0x400000ull /* where it is mapped to */
#define ALL (PTE_P | PTE_W | PTE_U)

static struct vcpu *vcpu_of(void **state)
{
	struct small_vm *vm = *state;
	return &vm->vcpu;
}

/* ---- permissions ---- */

struct permission_case {
	enum paging mode;
	unsigned leaf; /* bits: P, W, U, NX */
	unsigned upper; /* bits: W, U, NX */
	unsigned control; /* bits: WP, SMEP, SMAP, AC, NXE */
	unsigned who; /* user, supervisor, implicit supervisor at CPL 3 */
	unsigned kind;
};

static u64 leaf_bits(unsigned leaf)
{
	return (leaf & 1 ? PTE_P : 0) | (leaf & 2 ? PTE_W : 0) | (leaf & 4 ? PTE_U : 0) | (leaf & 8 ? PTE_NX : 0);
}

/* The manual's rules in the order of its text; 0: allowed. */
static u32 expected_error(const struct permission_case *c, bool *allowed)
{
	bool wp = c->control & 1, smep = c->control & 2, smap = c->control & 4, ac = c->control & 8;
	bool wide = c->mode != PAGING_32BIT, nxe = wide && (c->control & 16);
	bool nx_leaf = wide && (c->leaf & 8), nx_upper = wide && (c->upper & 4);
	bool user = (c->leaf & 4) && (c->upper & 2), writable = (c->leaf & 2) && (c->upper & 1);
	bool no_exec = nx_leaf || nx_upper;
	u32 error = (c->who == 0 ? PF_US : 0) | (c->kind == ACCESS_WRITE ? PF_WR : 0) |
		    (c->kind == ACCESS_EXEC && (smep || nxe) ? PF_ID : 0);
	*allowed = false;
	if (nx_upper && !nxe)
		return error | PF_P | PF_RSVD;
	if (!(c->leaf & 1))
		return error;
	if (nx_leaf && !nxe)
		return error | PF_P | PF_RSVD;
	error |= PF_P;
	if (c->kind == ACCESS_EXEC && no_exec)
		return error;
	if (c->who == 0) {
		if (!user || (c->kind == ACCESS_WRITE && !writable))
			return error;
	} else {
		if (c->kind == ACCESS_EXEC && user && smep)
			return error;
		if (c->kind != ACCESS_EXEC && user && smap && (c->who == 2 || !ac))
			return error;
		if (c->kind == ACCESS_WRITE && !writable && wp)
			return error;
	}
	*allowed = true;
	return 0;
}

static void check_permission(struct small_vm *vm, const struct permission_case *c)
{
	struct vcpu *v = &vm->vcpu;
	u64 nx = c->mode == PAGING_32BIT ? 0 : PTE_NX;
	u64 upper = PTE_P | (c->upper & 1 ? PTE_W : 0) | (c->upper & 2 ? PTE_U : 0) | (c->upper & 4 ? nx : 0);
	map_at(vm, c->mode, paging_levels(c->mode) - 1, GLA, PAGE | (leaf_bits(c->leaf) & ~(PTE_NX & ~nx)), upper);
	v->cpl = c->who == 1 ? 0 : 3;
	v->rflags = RFLAGS_FIXED1 | (c->control & 8 ? RFLAGS_AC : 0);
	mmu_update_view(v);
	mmu_flush_all(v);

	struct translation t;
	bool allowed;
	u32 error = expected_error(c, &allowed);
	bool done = mmu_translate(v, GLA + 0x123, c->kind | (c->who == 2 ? ACCESS_IMPLICIT : 0), &t);
	if (done != allowed || (!done && v->fault.error != error))
		fail_msg("mode %u leaf %x upper %x control %x who %u kind %u: %s error %x, expected %x", c->mode,
			 c->leaf, c->upper, c->control, c->who, c->kind, done ? "allowed" : "fault",
			 done ? 0 : v->fault.error, error);
	if (done) {
		assert_int_equal(t.gpa, PAGE + 0x123);
		assert_ptr_equal(t.hva, vm->memory + PAGE + 0x123);
	} else {
		assert_int_equal(v->fault.vector, VEC_PF);
		assert_int_equal(v->fault.payload, GLA + 0x123);
	}
}

static void permissions(void **state)
{
	struct small_vm *vm = *state;
	for (unsigned mode = 0; mode < PAGING_MODES; mode++)
		for (unsigned control = 0; control < 32; control++) {
			paging_enable(vm, mode, (control & 2 ? CR4_SMEP : 0) | (control & 4 ? CR4_SMAP : 0),
				      control & 16 ? EFER_NXE : 0);
			vm->vcpu.cr0 |= control & 1 ? CR0_WP : 0;
			for (unsigned i = 0; i < 16 * 8 * 9; i++) {
				struct permission_case c = { .mode = mode, .control = control, .leaf = i & 15,
							     .upper = i >> 4 & 7, .who = (i >> 7) % 3, .kind = (i >> 7) / 3 };
				check_permission(vm, &c);
			}
		}
}

/* ---- accessed and dirty ---- */

static void accessed_and_dirty(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	for (unsigned mode = 0; mode < PAGING_MODES; mode++) {
		struct translation t;
		unsigned last = paging_levels(mode) - 1;
		paging_enable(vm, mode, 0, 0);
		map_page(vm, mode, GLA, PAGE | ALL);
		assert_true(mmu_translate(v, GLA, ACCESS_READ, &t));
		for (unsigned i = 0; i <= last; i++)
			assert_int_equal(get_entry(vm, mode, i, GLA) & (PTE_A | PTE_D), PTE_A);
		assert_null(tlb_lookup(v->mmu, v->mmu->view, GLA, 4, ACCESS_WRITE));
		assert_non_null(tlb_lookup(v->mmu, v->mmu->view, GLA, 4, ACCESS_READ));

		assert_true(mmu_translate(v, GLA, ACCESS_WRITE, &t));
		for (unsigned i = 0; i <= last; i++)
			assert_int_equal(get_entry(vm, mode, i, GLA) & (PTE_A | PTE_D), i == last ? PTE_A | PTE_D : PTE_A);
		struct tlb_entry *e = tlb_lookup(v->mmu, v->mmu->view, GLA, 4, ACCESS_WRITE);
		assert_non_null(e);
		assert_ptr_equal((u8 *)(uintptr_t)(GLA + e->addend), vm->memory + PAGE);
	}
}

static void fault_leaves_dirty_clear(void **state)
{
	struct small_vm *vm = *state;
	struct translation t;
	paging_enable(vm, PAGING_4LEVEL, 0, 0);
	vm->vcpu.cr0 |= CR0_WP;
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | PTE_P);
	assert_false(mmu_translate(&vm->vcpu, GLA, ACCESS_WRITE, &t));
	assert_int_equal(get_entry(vm, PAGING_4LEVEL, 3, GLA) & PTE_D, 0);
	gpa_t gpa;
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | PTE_P);
	assert_true(mmu_debug_translate(&vm->vcpu, GLA + 5, &gpa));
	assert_int_equal(gpa, PAGE + 5);
	assert_int_equal(get_entry(vm, PAGING_4LEVEL, 3, GLA) & PTE_A, 0);
}

/* One entry used at all levels: the exchange for the second level finds A set already and the walk starts again. */
static void recursive_entry(void **state)
{
	struct small_vm *vm = *state;
	struct translation t;
	paging_enable(vm, PAGING_4LEVEL, 0, 0);
	*entry64(vm, TABLE_BASE) = TABLE_BASE | ALL;
	assert_true(mmu_translate(&vm->vcpu, 0x10, ACCESS_WRITE, &t));
	assert_int_equal(t.gpa, TABLE_BASE + 0x10);
	assert_int_equal(*entry64(vm, TABLE_BASE), TABLE_BASE | ALL | PTE_A | PTE_D);
}

/* ---- reserved bits and large pages ---- */

static const struct reserved_case {
	enum paging mode;
	u8 level;
	u64 bits; /* set in that level's entry */
	u8 physical_bits;
	bool no_1g, reserved;
} reserved_cases[] = {
	{ PAGING_32BIT, 0, PTE_PS | BIT(21), 40, .reserved = true },
	{ PAGING_32BIT, 0, PTE_PS | BIT(20), 40, .reserved = false },
	{ PAGING_32BIT, 0, PTE_PS | BIT(20), 39, .reserved = true },
	{ PAGING_32BIT, 0, PTE_PS | BIT(13), 32, .reserved = true },
	{ PAGING_32BIT, 0, PTE_PS | BIT(12), 32, .reserved = false },
	{ PAGING_32BIT, 0, PTE_PS | BIT(21), 52, .reserved = true },
	{ PAGING_32BIT, 1, PTE_PS, 40, .reserved = false },
	{ PAGING_PAE, 0, BIT(52), 52, .reserved = true },
	{ PAGING_PAE, 0, BIT(62), 52, .reserved = true },
	{ PAGING_PAE, 1, BIT(58), 40, .reserved = true },
	{ PAGING_PAE, 1, BIT(40), 40, .reserved = true },
	{ PAGING_PAE, 1, BIT(39), 40, .reserved = false },
	{ PAGING_PAE, 0, PTE_PS | BIT(13), 40, .reserved = true },
	{ PAGING_PAE, 0, PTE_PS | BIT(20), 40, .reserved = true },
	{ PAGING_PAE, 0, PTE_PS | BIT(12), 40, .reserved = false },
	{ PAGING_PAE, 1, PTE_NX, 40, .reserved = true },
	{ PAGING_4LEVEL, 0, PTE_PS, 40, .reserved = true },
	{ PAGING_4LEVEL, 1, PTE_PS, 40, .reserved = false },
	{ PAGING_4LEVEL, 1, PTE_PS, 40, .no_1g = true, .reserved = true },
	{ PAGING_4LEVEL, 1, PTE_PS | BIT(13), 40, .reserved = true },
	{ PAGING_4LEVEL, 1, PTE_PS | BIT(29), 40, .reserved = true },
	{ PAGING_4LEVEL, 2, PTE_PS | BIT(20), 40, .reserved = true },
	{ PAGING_4LEVEL, 2, PTE_PS | BIT(12), 40, .reserved = false },
	{ PAGING_4LEVEL, 3, PTE_PS, 40, .reserved = false },
	{ PAGING_4LEVEL, 3, BIT(52) | BIT(62) | BIT(11), 40, .reserved = false },
	{ PAGING_4LEVEL, 0, BIT(40), 40, .reserved = true },
	{ PAGING_4LEVEL, 3, BIT(51), 51, .reserved = true },
	{ PAGING_4LEVEL, 3, BIT(51), 52, .reserved = false },
	{ PAGING_4LEVEL, 2, PTE_NX, 40, .reserved = true },
	{ PAGING_5LEVEL, 0, PTE_PS, 40, .reserved = true },
	{ PAGING_5LEVEL, 1, PTE_PS, 40, .reserved = true },
	{ PAGING_5LEVEL, 2, PTE_PS, 40, .reserved = false },
	{ PAGING_5LEVEL, 0, BIT(45), 45, .reserved = true },
};

static void reserved_bits(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	for (unsigned i = 0; i < ARRAY_SIZE(reserved_cases); i++) {
		const struct reserved_case *c = &reserved_cases[i];
		paging_enable(vm, c->mode, 0, 0);
		v->physical_bits = c->physical_bits;
		v->pages_1g = !c->no_1g;
		map_page(vm, c->mode, GLA, PAGE | ALL);
		/* A large page may start at 0 only: leave its address out. */
		u64 entry = c->bits & PTE_PS ? ALL : get_entry(vm, c->mode, c->level, GLA);
		set_entry(vm, c->mode, c->level, GLA, entry | c->bits);
		struct translation t;
		v->fault.error = 0;
		bool done = mmu_translate(v, GLA, ACCESS_READ, &t);
		if (done == c->reserved || (!done && v->fault.error != (PF_P | PF_RSVD)))
			fail_msg("reserved case %u: done %d error %x", i, done, v->fault.error);
	}
}

static const struct large_case {
	enum paging mode;
	u8 level;
	u64 entry;
	gla_t gla;
	gpa_t gpa;
} large_cases[] = {
	{ PAGING_32BIT, 0, 0x00c00000 | PTE_PS, 0x7fabcd, 0xffabcd },
	{ PAGING_32BIT, 0, 0x00c00000 | PTE_PS | 0x12u << 13, 0x7fabcd, 0x1200ffabcd },
	{ PAGING_PAE, 0, 0x00a00000 | PTE_PS, 0x3fabcd, 0xbfabcd },
	{ PAGING_4LEVEL, 1, 0x40000000 | PTE_PS, 0x7f123456, 0x7f123456 },
	{ PAGING_4LEVEL, 2, 0x00a00000 | PTE_PS, 0x3fabcd, 0xbfabcd },
	{ PAGING_5LEVEL, 2, 0xc0000000 | PTE_PS, 0x12345678, 0xd2345678 },
	{ PAGING_5LEVEL, 3, 0x00a00000 | PTE_PS | BIT(12), 0xff000000003fabcd, 0xbfabcd },
	{ PAGING_4LEVEL, 3, 0x00a00000, 0xffff800000201fff, 0xa00fff },
};

static void large_pages(void **state)
{
	struct small_vm *vm = *state;
	for (unsigned i = 0; i < ARRAY_SIZE(large_cases); i++) {
		const struct large_case *c = &large_cases[i];
		struct translation t;
		paging_enable(vm, c->mode, 0, 0);
		map_at(vm, c->mode, c->level, c->gla, c->entry | ALL, ALL);
		assert_true(mmu_translate(&vm->vcpu, c->gla, ACCESS_WRITE, &t));
		assert_int_equal(t.gpa, c->gpa);
		assert_int_equal(get_entry(vm, c->mode, c->level, c->gla) & (PTE_A | PTE_D), PTE_A | PTE_D);
	}
}

static void ps_without_pse_is_ignored(void **state)
{
	struct small_vm *vm = *state;
	struct translation t;
	paging_enable(vm, PAGING_32BIT, 0, 0);
	vm->vcpu.cr4 &= ~CR4_PSE;
	map_page(vm, PAGING_32BIT, GLA, PAGE | ALL);
	set_entry(vm, PAGING_32BIT, 0, GLA, get_entry(vm, PAGING_32BIT, 0, GLA) | PTE_PS);
	assert_true(mmu_translate(&vm->vcpu, GLA, ACCESS_READ, &t));
	assert_int_equal(t.gpa, PAGE);
}

/* ---- PAE's PDPTE registers, tables outside RAM, paging off ---- */

static void pdptes(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	static const u64 bad[] = { BIT(1), BIT(2), BIT(5), BIT(8), BIT(40), BIT(52), BIT(63) };
	paging_enable(vm, PAGING_PAE, 0, EFER_NXE);
	for (unsigned i = 0; i < 4; i++)
		*entry64(vm, 0x20 + i * 8) = (i + 1) << 12 | PTE_P;
	assert_true(mmu_load_pdptes(v, 0x20));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		*entry64(vm, 0x38) = bad[i] | PTE_P;
		*entry64(vm, 0x20) = 0;
		v->fault.vector = 0;
		assert_false(mmu_load_pdptes(v, 0x20));
		assert_int_equal(v->fault.vector, VEC_GP);
		assert_int_equal(v->pdpte[0], 0x1000 | PTE_P);
		*entry64(vm, 0x38) = bad[i];
		assert_true(mmu_load_pdptes(v, 0x20));
		v->pdpte[0] = 0x1000 | PTE_P;
	}
	struct translation t;
	assert_false(mmu_translate(v, 0xc0000000, ACCESS_READ, &t));
	assert_int_equal(v->fault.error, 0);
}

static void tables_outside_ram(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	struct translation t;
	for (unsigned mode = PAGING_PAE; mode < PAGING_MODES; mode++) {
		paging_enable(vm, mode, 0, 0);
		v->cr3 = MMIO_BASE;
		v->pdpte[0] = MMIO_BASE | PTE_P;
		assert_false(mmu_translate(v, GLA, ACCESS_WRITE, &t));
		assert_int_equal(v->fault.error, PF_P | PF_RSVD | PF_WR);
	}
	assert_int_equal(vm->exit_count, 0);
}

static void paging_off_is_identity(void **state)
{
	struct vcpu *v = vcpu_of(state);
	struct small_vm *vm = *state;
	u32 value = 0x12345678, back = 0;
	assert_true(mmu_write(v, 0xffd, &value, 4, ACCESS_WRITE));
	assert_int_equal(vm->memory[0xffd], 0x78);
	assert_true(mmu_read(v, 0xffd, &back, 4, ACCESS_READ));
	assert_int_equal(back, value);
	assert_non_null(tlb_lookup(v->mmu, v->mmu->view, 0xff0, 4, ACCESS_WRITE));
	assert_null(tlb_lookup(v->mmu, v->mmu->view, 0xffe, 4, ACCESS_WRITE));
}

static void linear_addresses_wrap_at_32_bits(void **state)
{
	struct small_vm *vm = *state;
	u32 value = 0x44332211;
	paging_enable(vm, PAGING_PAE, 0, 0);
	vm->vcpu.pdpte[3] = table_of_level(0) | PTE_P;
	set_entry(vm, PAGING_PAE, 0, 0, table_of_level(1) | ALL);
	set_entry(vm, PAGING_PAE, 0, 0x3fe00000, table_of_level(2) | ALL);
	*entry64(vm, table_of_level(1)) = 0x500000 | ALL;
	*entry64(vm, table_of_level(2) + 511 * 8) = 0x600000 | ALL;
	assert_true(mmu_write(&vm->vcpu, 0xfffffffe, &value, 4, ACCESS_WRITE));
	assert_int_equal(vm->memory[0x600fff], 0x22);
	assert_int_equal(vm->memory[0x500000], 0x33);
	assert_non_null(tlb_lookup(vm->vcpu.mmu, vm->vcpu.mmu->view, 0, 1, ACCESS_WRITE));
}

/* ---- the TLB's contexts ---- */

static bool cached(struct vcpu *v, gla_t gla)
{
	return tlb_lookup(v->mmu, v->mmu->view, gla, 1, ACCESS_READ);
}

static void touch(struct vcpu *v, gla_t gla)
{
	struct translation t;
	assert_true(mmu_translate(v, gla, ACCESS_READ, &t));
	assert_true(cached(v, gla));
}

static void load_pcid(struct vcpu *v, u16 pcid, bool noflush)
{
	v->cr3 = TABLE_BASE | pcid;
	mmu_load_cr3(v, noflush);
}

#define GLOBAL_GLA (GLA + 0x1000)

static void enable_pcid(struct small_vm *vm)
{
	paging_enable(vm, PAGING_4LEVEL, CR4_PCIDE | CR4_PGE, 0);
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	map_page(vm, PAGING_4LEVEL, GLOBAL_GLA, (PAGE + 0x1000) | ALL | PTE_G);
}

static void cr3_load_keeps_what_it_should(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	enable_pcid(vm);
	touch(v, GLA);
	touch(v, GLOBAL_GLA);
	load_pcid(v, 1, true);
	assert_false(cached(v, GLA));
	touch(v, GLA);
	load_pcid(v, 0, true);
	assert_true(cached(v, GLA));
	load_pcid(v, 0, false);
	assert_false(cached(v, GLA));
	assert_true(cached(v, GLOBAL_GLA));
	load_pcid(v, 1, true);
	assert_true(cached(v, GLA));
	load_pcid(v, 0, true);
	touch(v, GLA);
	mmu_flush_nonglobal(v);
	assert_false(cached(v, GLA));
	mmu_flush_all(v);
	assert_false(cached(v, GLOBAL_GLA));
}

static void contexts_are_replaced(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	enable_pcid(vm);
	for (u16 pcid = 0; pcid < 3 * MMU_CONTEXTS; pcid++) {
		load_pcid(v, pcid, true);
		assert_false(cached(v, GLA));
		assert_false(cached(v, GLOBAL_GLA));
		touch(v, GLA);
		touch(v, GLOBAL_GLA);
	}
	load_pcid(v, 3 * MMU_CONTEXTS - 2, true);
	assert_true(cached(v, GLA));
	load_pcid(v, 0, true);
	assert_false(cached(v, GLA));
}

static void invlpg(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	enable_pcid(vm);
	touch(v, GLA);
	touch(v, GLOBAL_GLA);
	load_pcid(v, 1, true);
	touch(v, GLA);
	touch(v, GLOBAL_GLA);
	mmu_flush_page(v, GLOBAL_GLA + 5);
	assert_false(cached(v, GLOBAL_GLA));
	assert_true(cached(v, GLA));
	mmu_flush_page(v, GLA);
	assert_false(cached(v, GLA));
	load_pcid(v, 0, true);
	assert_true(cached(v, GLA));
	assert_false(cached(v, GLOBAL_GLA));
}

static void invpcid(void **state)
{
	/* What stays of: GLA and the global page in PCID 0 (current), the same in PCID 1. */
	static const struct {
		u8 type, pcid, stays;
	} cases[] = { { 0, 0, 0xe }, { 0, 1, 0xb }, { 0, 7, 0xf }, { 1, 1, 0xb }, { 1, 0, 0xe }, { 2, 0, 0 }, { 3, 0, 0xa } };
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		enable_pcid(vm);
		for (u16 pcid = 2; pcid--;) {
			load_pcid(v, pcid, true);
			touch(v, GLA);
			touch(v, GLOBAL_GLA);
		}
		mmu_invpcid(v, cases[i].type, cases[i].pcid, GLA);
		unsigned stays = cached(v, GLA) | cached(v, GLOBAL_GLA) << 1;
		load_pcid(v, 1, true);
		stays |= cached(v, GLA) << 2 | cached(v, GLOBAL_GLA) << 3;
		assert_int_equal(stays, cases[i].stays);
	}
}

/* INVPCID of one address leaves that address's global page. */
static void invpcid_address_keeps_global(void **state)
{
	struct small_vm *vm = *state;
	enable_pcid(vm);
	touch(&vm->vcpu, GLOBAL_GLA);
	mmu_invpcid(&vm->vcpu, 0, 0, GLOBAL_GLA);
	assert_true(cached(&vm->vcpu, GLOBAL_GLA));
}

static void invlpg_drops_large_pages_whole(void **state)
{
	static const struct {
		enum paging mode;
		u8 level;
		unsigned shift;
	} cases[] = { { PAGING_32BIT, 0, 22 }, { PAGING_PAE, 0, 21 }, { PAGING_4LEVEL, 2, 21 }, { PAGING_4LEVEL, 1, 30 } };
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		paging_enable(vm, cases[i].mode, CR4_PGE, 0);
		map_at(vm, cases[i].mode, cases[i].level, 0, PTE_PS | PTE_G | ALL, ALL);
		touch(v, 0x3000);
		touch(v, 0x1ff000);
		mmu_flush_page(v, BIT(cases[i].shift) - 1);
		assert_false(cached(v, 0x3000));
		assert_false(cached(v, 0x1ff000));
		touch(v, 0x3000);
		touch(v, 0x1ff000);
		/* What stays after a flush is still known as pieces of a large page. */
		mmu_flush_nonglobal(v);
		mmu_flush_page(v, BIT(cases[i].shift));
		assert_true(cached(v, 0x3000));
		mmu_flush_page(v, BIT(cases[i].shift) - 1);
		assert_false(cached(v, 0x3000));
		assert_false(cached(v, 0x1ff000));
	}
}

/* A stale translation stays until it is flushed, as on hardware; views do not disturb each other. */
static void views_are_apart(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	paging_enable(vm, PAGING_4LEVEL, CR4_SMAP, 0);
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	v->cpl = 3;
	mmu_update_view(v);
	touch(v, GLA);
	v->cpl = 0;
	mmu_update_view(v);
	assert_false(cached(v, GLA));
	struct translation t;
	assert_false(mmu_translate(v, GLA, ACCESS_READ, &t));
	v->rflags |= RFLAGS_AC;
	mmu_update_view(v);
	touch(v, GLA);
	assert_false(mmu_translate(v, GLA, ACCESS_READ | ACCESS_IMPLICIT, &t));
	/* Without SMEP the supervisor may execute what SMAP forbids it to read. */
	v->rflags &= ~RFLAGS_AC;
	mmu_update_view(v);
	assert_true(mmu_translate(v, GLA, ACCESS_EXEC, &t));
	assert_false(mmu_translate(v, GLA, ACCESS_READ, &t));
}

/* ---- moving bytes ---- */

static void crossing_write_is_all_or_nothing(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	u64 value = ~0ull;
	paging_enable(vm, PAGING_4LEVEL, 0, 0);
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	assert_false(mmu_write(v, GLA + 0xffc, &value, 8, ACCESS_WRITE));
	assert_int_equal(v->fault.payload, GLA + 0x1000);
	assert_int_equal(v->fault.error, PF_WR);
	assert_int_equal(vm->memory[PAGE + 0xffc], 0);
	assert_false(mmu_probe_write(v, GLA + 0xffc, 8, ACCESS_WRITE));

	map_page(vm, PAGING_4LEVEL, GLA + 0x1000, 0x700000 | ALL);
	assert_true(mmu_probe_write(v, GLA + 0xffc, 8, ACCESS_WRITE));
	assert_true(mmu_write(v, GLA + 0xffc, &value, 8, ACCESS_WRITE));
	assert_int_equal(*entry32(vm, PAGE + 0xffc), 0xffffffff);
	assert_int_equal(*entry32(vm, 0x700000), 0xffffffff);
	assert_int_equal(*entry32(vm, 0x700004), 0);
}

static void check_mmio(struct small_vm *vm, unsigned i, gpa_t gpa, unsigned size, bool write, u64 value)
{
	struct exit *e = &vm->exits[i];
	assert_int_equal(e->reason, EXIT_MMIO);
	assert_int_equal(e->mmio.gpa, gpa);
	assert_int_equal(e->mmio.size, size);
	assert_int_equal(e->mmio.write, write);
	if (write)
		assert_int_equal(e->mmio.value, value);
}

static void mmio_in_pieces(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	u8 buf[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	assert_true(mmu_write(v, MMIO_BASE + 0x10, buf, 4, ACCESS_WRITE));
	assert_true(mmu_write(v, MMIO_BASE + 0x20, buf, 15, ACCESS_WRITE));
	assert_int_equal(vm->exit_count, 5);
	check_mmio(vm, 0, MMIO_BASE + 0x10, 4, true, 0x04030201);
	check_mmio(vm, 1, MMIO_BASE + 0x20, 8, true, 0x0807060504030201);
	check_mmio(vm, 2, MMIO_BASE + 0x28, 4, true, 0x0c0b0a09);
	check_mmio(vm, 3, MMIO_BASE + 0x2c, 2, true, 0x0e0d);
	check_mmio(vm, 4, MMIO_BASE + 0x2e, 1, true, 0x0f);

	vm->exit_count = 0;
	vm->answer = 0x1122334455667788;
	assert_true(mmu_read(v, MMIO_BASE + 0xffd, buf, 6, ACCESS_READ));
	assert_int_equal(vm->exit_count, 4);
	check_mmio(vm, 0, MMIO_BASE + 0xffd, 2, false, 0);
	check_mmio(vm, 1, MMIO_BASE + 0xfff, 1, false, 0);
	check_mmio(vm, 2, MMIO_BASE + 0x1000, 2, false, 0);
	check_mmio(vm, 3, MMIO_BASE + 0x1002, 1, false, 0);
	static const u8 expected[] = { 0x88, 0x77, 0x88, 0x88, 0x77, 0x88, 7 };
	assert_memory_equal(buf, expected, sizeof(expected));
}

static void crossing_from_ram_to_mmio(void **state)
{
	struct small_vm *vm = *state;
	u32 value = 0x44332211;
	assert_true(mmu_write(&vm->vcpu, RAM_SIZE - 2, &value, 4, ACCESS_WRITE));
	assert_int_equal(vm->exit_count, 1);
	check_mmio(vm, 0, RAM_SIZE, 2, true, 0x4433);
	assert_int_equal(vm->memory[RAM_SIZE - 1], 0x22);
}

static void rom_ignores_writes(void **state)
{
	struct small_vm *vm = *state;
	u32 value = 0x44332211;
	memcpy(vm->rom + 0x10, "ROM", 4);
	assert_true(mmu_write(&vm->vcpu, ROM_BASE + 0x10, &value, 4, ACCESS_WRITE));
	assert_memory_equal(vm->rom + 0x10, "ROM", 4);
	assert_true(mmu_read(&vm->vcpu, ROM_BASE + 0x10, &value, 4, ACCESS_READ));
	assert_memory_equal(&value, "ROM", 4);
	value = 0;
	assert_true(mmu_read(&vm->vcpu, ROM_BASE + 0x10, &value, 4, ACCESS_RMW));
	assert_memory_equal(&value, "ROM", 4);
	assert_int_equal(vm->exit_count, 0);
}

static void stores_to_code_are_told(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	struct ram_slot *slot = &vm->ram.slot[0];
	u8 byte = 1;
	assert_true(mmu_write(v, 0x5000, &byte, 1, ACCESS_WRITE));
	assert_int_equal(slot->generation[5], 0);
	slot->flags[5] |= PAGE_CODE;
	assert_non_null(tlb_lookup(v->mmu, v->mmu->view, 0x5000, 1, ACCESS_WRITE));
	assert_true(mmu_write(v, 0x4fff, "ab", 2, ACCESS_WRITE));
	assert_int_equal(slot->generation[5], 1);
	assert_int_equal(slot->generation[4], 0);
	assert_true(vcpu_pending(v) & PENDING_CODE);
	assert_true(ram_write(&vm->ram, 0x5ffe, "abc", 3));
	assert_int_equal(slot->generation[5], 2);
}

/* With dirty logging a clean page takes the slow way once. */
static void dirty_logging(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	struct ram_slot *slot = &vm->ram.slot[0];
	u8 byte = 1;
	slot->log_dirty = true;
	assert_true(mmu_read(v, 0x5000, &byte, 1, ACCESS_READ));
	assert_null(tlb_lookup(v->mmu, v->mmu->view, 0x5000, 1, ACCESS_WRITE));
	assert_int_equal(slot->flags[5], 0);
	assert_true(mmu_write(v, 0x5000, &byte, 1, ACCESS_WRITE));
	assert_int_equal(slot->flags[5], PAGE_DIRTY);
	assert_non_null(tlb_lookup(v->mmu, v->mmu->view, 0x5000, 1, ACCESS_WRITE));
	/* Setting A is a write to the table's page. */
	paging_enable(vm, PAGING_4LEVEL, 0, 0);
	map_page(vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	assert_true(mmu_read(v, GLA, &byte, 1, ACCESS_READ));
	assert_int_equal(slot->flags[table_of_level(3) >> 12], PAGE_DIRTY);
	assert_int_equal(slot->flags[PAGE >> 12], 0);
}

/* ---- slots ---- */

static void slots(void **state)
{
	static u8 host[0x3000];
	struct ram ram = { 0 };
	u8 buf[8] = { 0 };
	assert_int_equal(ram_add(&ram, 0x1000, 0x1000, host, false), 0);
	assert_int_equal(ram_add(&ram, 0x2000, 0x1000, host + 0x2000, false), 0);
	assert_true(ram_add(&ram, 0x1000, 0x1000, host, false) < 0);
	assert_true(ram_add(&ram, 0x0, 0x1001, host, false) < 0);
	assert_true(ram_add(&ram, 0x0, 0, host, false) < 0);
	assert_true(ram_add(&ram, 0x0, 0x2000, host, false) < 0);
	assert_true(ram_add(&ram, ~0xfffull, 0x2000, host, false) < 0);
	assert_null(ram_find(&ram, 0xfff));
	assert_null(ram_find(&ram, 0x3000));
	assert_null(ram_pointer(&ram, 0x1ffc, 8));
	assert_ptr_equal(ram_pointer(&ram, 0x2ff8, 8), host + 0x2ff8);
	assert_null(ram_pointer(&ram, 0x2ff8, ~0ull));
	assert_true(ram_write(&ram, 0x1ffc, "12345678", 8));
	assert_memory_equal(host + 0xffc, "1234", 4);
	assert_memory_equal(host + 0x2000, "5678", 4);
	assert_true(ram_read(&ram, 0x1ffc, buf, 8));
	assert_memory_equal(buf, "12345678", 8);
	assert_false(ram_write(&ram, 0x2ffc, "abcdefgh", 8));
	assert_int_equal(host[0x2ffc], 0);
	ram_release(&ram);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, small_vm_setup, small_vm_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(permissions),
		TEST(accessed_and_dirty),
		TEST(fault_leaves_dirty_clear),
		TEST(recursive_entry),
		TEST(reserved_bits),
		TEST(large_pages),
		TEST(ps_without_pse_is_ignored),
		TEST(pdptes),
		TEST(tables_outside_ram),
		TEST(paging_off_is_identity),
		TEST(linear_addresses_wrap_at_32_bits),
		TEST(cr3_load_keeps_what_it_should),
		TEST(contexts_are_replaced),
		TEST(invlpg),
		TEST(invpcid),
		TEST(invpcid_address_keeps_global),
		TEST(invlpg_drops_large_pages_whole),
		TEST(views_are_apart),
		TEST(crossing_write_is_all_or_nothing),
		TEST(mmio_in_pieces),
		TEST(crossing_from_ram_to_mmio),
		TEST(rom_ignores_writes),
		TEST(stores_to_code_are_told),
		TEST(dirty_logging),
		cmocka_unit_test(slots),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
