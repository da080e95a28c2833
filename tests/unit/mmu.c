/* Translation: every mode with every permission, A and D, reserved bits, large pages, PDPTE registers. */
#include "small_vm.h"

#define GLA 0x234000ull  /* indexes differ on every level */
#define PAGE 0x400000ull /* where it is mapped to */
#define ALL (PTE_P | PTE_W | PTE_U)

/* ---- permissions ---- */

struct permission_case {
	enum paging mode;
	unsigned leaf;    /* bits: P, W, U, NX */
	unsigned upper;   /* bits: W, U, NX */
	unsigned control; /* bits: WP, SMEP, SMAP, AC, NXE */
	unsigned who;     /* user, supervisor, implicit supervisor at CPL 3 */
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
				struct permission_case c = { .mode = mode,
							     .control = control,
							     .leaf = i & 15,
							     .upper = i >> 4 & 7,
							     .who = (i >> 7) % 3,
							     .kind = (i >> 7) / 3 };
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
			assert_int_equal(get_entry(vm, mode, i, GLA) & (PTE_A | PTE_D),
					 i == last ? PTE_A | PTE_D : PTE_A);
		assert_ptr_equal(tlb_lookup(v->mmu, v->mmu->view, GLA, 4, ACCESS_WRITE), vm->memory + PAGE);
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
