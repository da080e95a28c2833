/* Brute-force shadowing: what survives a load of CR3, which pages are watched, for how long, and what other vCPUs hear of it. */
#include "hw_look.h"

#include "arch/exception.h"
#include "fake_bare.h"

#define ALL (PTE_P | PTE_W | PTE_U)
#define GLA 0x234000ull /* indexes differ on every level */
#define PAGE 0x400000ull
#define MODES 3 /* 5-level paging cannot be had */

struct test {
	struct small_vm *vm;
	struct vcpu other;
	struct hw_memory *m, *m2;
	unsigned pages;
};

static void start(struct test *t, struct small_vm *vm, enum paging mode)
{
	paging_enable(vm, mode, 0, 0);
	map_page(vm, mode, GLA, PAGE | ALL);
	*t = (struct test){ .vm = vm, .other = vm->vcpu, .pages = fake_host_pages() };
	assert_int_equal(mmu_create(&t->other), 0);
	fake_host_set_run(2 << 20);
	t->m = hw_memory_shadow.create(&vm->vcpu, &hw_format_shadow);
	t->m2 = hw_memory_shadow.create(&t->other, &hw_format_shadow);
	assert_non_null(t->m);
	assert_non_null(t->m2);
	t->m->ops->prepare(t->m);
	t->m2->ops->prepare(t->m2);
}

static void end(struct test *t)
{
	t->m->ops->destroy(t->m);
	t->m2->ops->destroy(t->m2);
	mmu_destroy(&t->other);
	assert_null(t->vm->ram.engine);
	assert_int_equal(fake_host_pages(), t->pages);
	for (u64 page = 0; page < RAM_SIZE >> PAGE_SHIFT; page++)
		assert_int_equal(t->vm->ram.slot[0].flags[page] & PAGE_TABLE, 0);
}

static bool watched(struct test *t, gpa_t gpa)
{
	return t->vm->ram.slot[0].flags[gpa >> PAGE_SHIFT] & PAGE_TABLE;
}

static enum hw_fault write_fault(struct hw_memory *m, gla_t gla)
{
	return m->ops->fault(m, gla, PF_WR);
}

static struct found look(struct test *t, struct hw_memory *m, gla_t gla)
{
	m->ops->prepare(m);
	return hw_look(t->vm, m, gla);
}

static void all_modes(void **state, void (*run)(struct test *t, enum paging mode))
{
	for (unsigned mode = 0; mode < MODES; mode++) {
		struct test t;
		start(&t, *state, mode);
		run(&t, mode);
		end(&t);
		mmu_flush_all(&t.vm->vcpu);
		memset(t.vm->memory, 0, RAM_SIZE);
	}
}

static void address_spaces_are_kept(struct test *t, enum paging mode)
{
	struct vcpu *v = &t->vm->vcpu;
	assert_int_equal(write_fault(t->m, GLA), HW_FAULT_RETRY);
	assert_true(hw_memory_stale(t->m, 0));
	for (unsigned i = 0; i < 40; i++) {
		v->cr3 = v->pdpte[0] = 0x100000 + i % 10 * PAGE_SIZE;
		v->pdpte[0] |= PTE_P;
		mmu_load_cr3(v, false);
		assert_false(look(t, t->m, GLA).present);
		assert_true(hw_memory_stale(t->m, 0));
		v->cr3 = TABLE_BASE;
		v->pdpte[0] = TABLE_BASE | PTE_P;
		mmu_load_cr3(v, false);
		assert_true(look(t, t->m, GLA).write);
	}
	assert_int_equal(t->m->fills, 1);
}

/* The guest maps its own table. */
static void tables_are_not_written_by_hardware(struct test *t, enum paging mode)
{
	gpa_t table = table_of_level(paging_levels(mode) - 1);
	gla_t alias = GLA + PAGE_SIZE;
	map_page(t->vm, mode, alias, table | ALL);
	assert_int_equal(write_fault(t->m, alias), HW_FAULT_STORE); /* since it is used to find itself */
	assert_true(watched(t, table));
	assert_int_equal(t->m->ops->fault(t->m, alias, 0), HW_FAULT_RETRY);
	assert_true(look(t, t->m, alias).present);
	assert_false(look(t, t->m, alias).write);
	/* Step writes: the shadow follows. */
	u64 entry = (PAGE + PAGE_SIZE) | ALL;
	assert_int_equal(write_fault(t->m, GLA), HW_FAULT_RETRY);
	assert_int_equal(look(t, t->m, GLA).gpa, PAGE);
	assert_true(ram_write(&t->vm->ram, entry_gpa(mode, paging_levels(mode) - 1, GLA), &entry, mode == PAGING_32BIT ? 4 : 8));
	assert_false(look(t, t->m, GLA).present);
	assert_int_equal(write_fault(t->m, GLA), HW_FAULT_RETRY);
	assert_int_equal(look(t, t->m, GLA).gpa, PAGE + PAGE_SIZE);
}

/* What the engine stores for the guest is followed without comparing the rest of the table, unless others stored, too. */
static void ones_own_stores_are_followed(struct test *t, enum paging mode)
{
	unsigned last = paging_levels(mode) - 1, size = mode == PAGING_32BIT ? 4 : 8;
	gla_t alias = GLA + PAGE_SIZE, others = GLA + 2 * PAGE_SIZE;
	u64 entry = (PAGE + PAGE_SIZE) | ALL;
	map_page(t->vm, mode, alias, table_of_level(last) | ALL);
	map_page(t->vm, mode, others, PAGE | ALL);
	for (unsigned i = 0; i < 2; i++, entry += PAGE_SIZE) {
		gpa_t where = entry_gpa(mode, last, GLA);
		write_fault(t->m, GLA);
		write_fault(t->m, others);
		assert_true(look(t, t->m, GLA).write && look(t, t->m, others).write);
		assert_int_equal(write_fault(t->m, alias + (where & ~PAGE_MASK)), HW_FAULT_STORE);
		assert_int_equal(t->m->device, where);
		assert_true(ram_write(&t->vm->ram, where, &entry, size));
		t->m->stored = (u8)size;
		if (i)
			assert_true(ram_write(&t->vm->ram, entry_gpa(mode, last, others), &entry, size));
		assert_false(look(t, t->m, GLA).present);
		assert_int_equal(look(t, t->m, others).present, !i);
		assert_int_equal(write_fault(t->m, GLA), HW_FAULT_RETRY);
		assert_int_equal(look(t, t->m, GLA).gpa, entry & PTE_ADDR);
	}
}

/* What the walk sets and the guest clears at once was nevertheless there. */
static void dirty_is_cleared_at_once(struct test *t, enum paging mode)
{
	unsigned last = paging_levels(mode) - 1;
	u64 bits[] = { PTE_D, PTE_A };
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++) {
		assert_int_equal(write_fault(t->m, GLA), HW_FAULT_RETRY);
		u64 entry = get_entry(t->vm, mode, last, GLA);
		assert_int_equal(entry & (PTE_A | PTE_D), PTE_A | PTE_D);
		entry &= ~bits[i];
		assert_true(ram_write(&t->vm->ram, entry_gpa(mode, last, GLA), &entry, mode == PAGING_32BIT ? 4 : 8));
		assert_false(look(t, t->m, GLA).present);
	}
}

/* One vCPU writes to a page that is to become another's table. */
static void others_lose_the_right_to_write(struct test *t, enum paging mode)
{
	gpa_t table = 0x200000;
	gla_t alias = GLA + PAGE_SIZE;
	map_page(t->vm, mode, alias, table | ALL);
	assert_int_equal(write_fault(t->m2, alias), HW_FAULT_RETRY);
	assert_true(look(t, t->m2, alias).write);
	hw_memory_stale(t->m2, 0);
	t->other.pending = 0;
	unsigned barriers = fake_host_barriers();
	gla_t gla = mode == PAGING_32BIT ? 0x1000000 : 0x600000; /* the table is that of another region */
	set_entry(t->vm, mode, paging_levels(mode) - 2, gla, table | ALL);
	*entry64(t->vm, table) = PAGE | ALL;
	assert_int_equal(write_fault(t->m, gla), HW_FAULT_RETRY);
	assert_true(watched(t, table));
	assert_true(fake_host_barriers() > barriers);
	assert_true(t->other.pending & PENDING_CODE);
	assert_false(look(t, t->m2, alias).write);
	assert_true(hw_memory_stale(t->m2, 0));
	assert_int_equal(write_fault(t->m2, alias), HW_FAULT_STORE);
}

static void ended_tables_are_pages_again(struct test *t, enum paging mode)
{
	gpa_t table = table_of_level(paging_levels(mode) - 1);
	gpa_t link = entry_gpa(mode, paging_levels(mode) - 2, GLA);
	u64 nothing = 0;
	assert_int_equal(write_fault(t->m, GLA), HW_FAULT_RETRY);
	assert_true(watched(t, table));
	assert_true(ram_write(&t->vm->ram, link, &nothing, 4));
	assert_false(look(t, t->m, GLA).present);
	assert_true(ram_write(&t->vm->ram, table + 0x800, &nothing, 4));
	t->m->ops->prepare(t->m);
	assert_false(watched(t, table));
}

/* More address spaces and tables than are kept. */
static void there_is_an_end_to_everything(struct test *t, enum paging mode)
{
	struct vcpu *v = &t->vm->vcpu;
	for (unsigned i = 0; i < 100; i++) {
		v->cr3 = 0x100000 + i * PAGE_SIZE;
		v->pdpte[0] = v->cr3 | PTE_P;
		memcpy(t->vm->memory + v->cr3, t->vm->memory + TABLE_BASE, PAGE_SIZE);
		mmu_load_cr3(v, false);
		assert_int_equal(write_fault(t->m, GLA), HW_FAULT_RETRY);
		assert_true(look(t, t->m, GLA).write);
	}
	fake_host_limit_pages(0);
	for (unsigned i = 0; i < 100; i++)
		write_fault(t->m, GLA + i * 0x100000);
	fake_host_limit_pages(~0u);
	write_fault(t->m, GLA);
	assert_true(look(t, t->m, GLA).write);
}

#define TESTS(X)                                                                                                                                   \
	X(address_spaces_are_kept) X(tables_are_not_written_by_hardware) X(dirty_is_cleared_at_once) X(others_lose_the_right_to_write) X(ended_tables_are_pages_again)         \
	X(there_is_an_end_to_everything) X(ones_own_stores_are_followed)

#define X(name)                                                                                                                                    \
	static void test_##name(void **state)                                                                                                      \
	{                                                                                                                                          \
		all_modes(state, name);                                                                                                            \
	}
TESTS(X)
#undef X

int main(void)
{
	const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test_setup_teardown(test_##name, small_vm_setup, small_vm_teardown),
		TESTS(X)
#undef X
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
