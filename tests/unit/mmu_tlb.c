/* The software TLB: what a CR3 load, INVLPG and INVPCID drop and keep, and the privilege views. */
#include "small_vm.h"

#define GLA 0x234000ull  /* indexes differ on every level */
#define PAGE 0x400000ull /* where it is mapped to */
#define ALL (PTE_P | PTE_W | PTE_U)

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
	} cases[] = { { 0, 0, 0xe }, { 0, 1, 0xb }, { 0, 7, 0xf }, { 1, 1, 0xb },
		      { 1, 0, 0xe }, { 2, 0, 0 },   { 3, 0, 0xa } };
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
	} cases[] = {
		{ PAGING_32BIT, 0, 22 }, { PAGING_PAE, 0, 21 }, { PAGING_4LEVEL, 2, 21 }, { PAGING_4LEVEL, 1, 30 }
	};
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

#define TEST(f) cmocka_unit_test_setup_teardown(f, small_vm_setup, small_vm_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(cr3_load_keeps_what_it_should),
		TEST(contexts_are_replaced),
		TEST(invlpg),
		TEST(invpcid),
		TEST(invpcid_address_keeps_global),
		TEST(invlpg_drops_large_pages_whole),
		TEST(views_are_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
