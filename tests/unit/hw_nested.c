/* Nested tables in both formats, read back as the hardware would read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/exception.h"
#include "engine/hw/memory.h"
#include "fake_bare.h"
#include "irq/lapic.h"
#include "mmu/ram.h"

#include <string.h>
#include <sys/mman.h>

#define LARGE (2ull << 20)
#define HUGE (1ull << 30)
#define RAM_SIZE (8 * LARGE)
#define HIGH_BASE (4ull << 30)
#define HIGH_SIZE (2 * HUGE + LARGE)
#define ROM_BASE 0xfffff000ull

struct machine {
	struct vcpu vcpu[2];
	struct mmu mmu[2];
	struct ram ram;
	u8 *memory, *high, *rom;
	struct hw_memory *m, *other;
	unsigned pages; /* that were out before */
};

/* Address space that is aligned as asked for; never touched but where a test looks. */
static u8 *reserve(u64 size, u64 alignment)
{
	u8 *p = mmap(NULL, size + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	return (u8 *)(((uintptr_t)p + alignment - 1) & ~(uintptr_t)(alignment - 1));
}

static struct machine *machine_create(const struct hw_format *format)
{
	static u8 *memory, *high, *rom;
	struct machine *g = host_alloc(sizeof(*g));
	if (!memory) {
		memory = reserve(RAM_SIZE, LARGE);
		high = reserve(HIGH_SIZE, HUGE);
		rom = reserve(PAGE_SIZE, LARGE);
	}
	g->memory = memory, g->high = high, g->rom = rom;
	assert_int_equal(ram_add(&g->ram, 0, RAM_SIZE, memory, false), 0);
	assert_int_equal(ram_add(&g->ram, HIGH_BASE, HIGH_SIZE, high, false), 0);
	assert_int_equal(ram_add(&g->ram, ROM_BASE, PAGE_SIZE, rom, true), 0);
	g->vcpu[0].ram = g->vcpu[1].ram = &g->ram;
	g->vcpu[0].mmu = &g->mmu[0], g->vcpu[1].mmu = &g->mmu[1];
	fake_host_set_run(LARGE);
	g->pages = fake_host_pages();
	g->m = hw_memory_nested.create(&g->vcpu[0], format);
	g->other = hw_memory_nested.create(&g->vcpu[1], format);
	assert_non_null(g->m);
	assert_non_null(g->other);
	return g;
}

static void machine_destroy(struct machine *g)
{
	g->m->ops->destroy(g->m);
	g->other->ops->destroy(g->other);
	assert_null(g->ram.engine);
	assert_int_equal(fake_host_pages(), g->pages);
	ram_release(&g->ram);
	host_free(g);
}

static void both_formats(void (*test)(struct machine *g))
{
	const struct hw_format *const formats[] = { &hw_format_ept, &hw_format_npt };
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		struct machine *g = machine_create(formats[i]);
		test(g);
		machine_destroy(g);
	}
}

/* ---- the hardware's walk, by the manuals' figures ---- */

struct found {
	bool present, write, execute;
	unsigned shift;
	u64 physical;
};

static void check_ept_entry(u64 entry, bool leaf)
{
	if (leaf)
		assert_int_equal(entry >> 3 & 15, 14); /* write-back, PAT ignored */
	else
		assert_int_equal(entry & 0xf8, 0);
	assert_int_equal(entry >> 52, 0);
}

static struct found walk(struct hw_memory *m, u64 gpa)
{
	bool ept = m->format == &hw_format_ept;
	struct found f = { .present = true, .write = true, .execute = true };
	u64 table = m->ops->root(m);
	for (f.shift = 39;; f.shift -= 9) {
		u64 entry = ((const u64 *)host_virtual(table))[gpa >> f.shift & 511];
		if (!(entry & (ept ? 7 : 1))) {
			f.present = false;
			return f;
		}
		bool leaf = f.shift == 12 || (entry & 0x80);
		if (ept)
			check_ept_entry(entry, leaf);
		else
			assert_int_equal(entry & 0x11c, 4); /* user; PWT, PCD, G clear */
		f.write &= entry >> 1 & 1;
		f.execute &= ept ? entry >> 2 & 1 : !(entry >> 63);
		table = entry & 0x000ffffffffff000;
		if (leaf)
			break;
	}
	assert_int_equal(table & (BIT(f.shift) - 1), 0);
	f.physical = table | (gpa & (BIT(f.shift) - 1));
	return f;
}

static void touch(struct hw_memory *m, u64 gpa, u32 error)
{
	assert_int_equal(m->ops->fault(m, gpa, error), HW_FAULT_RETRY);
}

static void assert_maps(struct machine *g, u64 gpa, const u8 *hva, unsigned shift, bool write)
{
	struct found f = walk(g->m, gpa);
	assert_true(f.present);
	assert_true(f.execute);
	assert_int_equal(f.physical, (u64)(uintptr_t)hva);
	assert_int_equal(f.shift, shift);
	assert_int_equal(f.write, write);
}

/* ---- tests ---- */

static void fills_on_faults(struct machine *g)
{
	assert_false(walk(g->m, 0x1234).present);
	touch(g->m, 0x1234, 0);
	assert_maps(g, 0x1234, g->memory + 0x1234, 21, true);
	assert_false(walk(g->m, LARGE).present);
	touch(g->m, LARGE + 5, PF_WR);
	assert_maps(g, 2 * LARGE - 1, g->memory + 2 * LARGE - 1, 21, true);
	assert_int_equal(g->m->ops->root(g->m), g->other->ops->root(g->other));
	touch(g->other, LARGE + 5, PF_WR | PF_P);
	assert_int_equal(g->m->fills, 2);
}

static void what_is_not_ram_faults(struct machine *g)
{
	static const u64 nowhere[] = { RAM_SIZE, 0xfee00000, HIGH_BASE - PAGE_SIZE - PAGE_SIZE, HIGH_BASE + HIGH_SIZE, BIT(48), BIT(51) };
	for (unsigned i = 0; i < ARRAY_SIZE(nowhere); i++) {
		assert_int_equal(g->m->ops->fault(g->m, nowhere[i], i & 1 ? PF_WR : 0), HW_FAULT_DEVICE);
		assert_false(walk(g->m, nowhere[i] & (BIT(48) - 1)).present && nowhere[i] < BIT(48));
	}
}

static void huge_pages(struct machine *g)
{
	touch(g->m, HIGH_BASE + HUGE + 77, 0);
	assert_maps(g, HIGH_BASE + HUGE, g->high + HUGE, 30, true);
	touch(g->m, HIGH_BASE + 2 * HUGE + 77, 0); /* the slot ends before the next GiB */
	assert_maps(g, HIGH_BASE + 2 * HUGE, g->high + 2 * HUGE, 21, true);
}

static void smallest_pages(struct machine *g)
{
	fake_host_set_run(PAGE_SIZE);
	struct hw_format small = *g->m->format;
	g->m->format = &small;
	small.largest = 12;
	touch(g->m, 0x3456, PF_WR);
	g->m->format = g->other->format;
	assert_maps(g, 0x3456, g->memory + 0x3456, 12, true);
	assert_false(walk(g->m, 0x4000).present);
	/* Where there are small pages already, more come, though a large one would fit. */
	touch(g->m, 0x4000, 0);
	assert_maps(g, 0x4fff, g->memory + 0x4fff, 12, true);
	fake_host_set_run(LARGE);
}

static void rom_is_read_only(struct machine *g)
{
	touch(g->m, ROM_BASE + 0xff0, PF_ID);
	assert_maps(g, ROM_BASE + 0xff0, g->rom + 0xff0, 12, false);
	assert_int_equal(g->m->ops->fault(g->m, ROM_BASE, PF_WR | PF_P), HW_FAULT_EMULATE);
}

static bool stale(struct hw_memory *m)
{
	m->ops->prepare(m);
	return hw_memory_stale(m, 0);
}

static void read_only_pages_split(struct machine *g)
{
	touch(g->m, 0, PF_WR);
	touch(g->m, LARGE, PF_WR);
	assert_true(stale(g->m)); /* it was never here */
	assert_true(stale(g->other));
	assert_false(stale(g->m));
	assert_false(stale(g->other));
	ram_set_readonly(&g->ram, 0xc0000, 2 * PAGE_SIZE, true);
	unsigned barriers = fake_host_barriers();
	assert_true(stale(g->m));
	assert_int_equal(fake_host_barriers(), barriers + 1);
	assert_true(stale(g->other));
	assert_false(walk(g->m, 0).present);
	assert_maps(g, LARGE, g->memory + LARGE, 21, true);
	touch(g->m, 0xc1000, 0);
	assert_maps(g, 0xc1000, g->memory + 0xc1000, 12, false);
	assert_int_equal(g->m->ops->fault(g->m, 0xc1008, PF_WR | PF_P), HW_FAULT_EMULATE);
	touch(g->m, 0xbffff, PF_WR);
	assert_maps(g, 0xbffff, g->memory + 0xbffff, 12, true);

	/* In one piece again, tables stay as long as there is something in them; rights come back by faults. */
	ram_set_readonly(&g->ram, 0xc0000, 2 * PAGE_SIZE, false);
	assert_true(stale(g->m));
	touch(g->m, 0xc1008, PF_WR | PF_P);
	assert_maps(g, 0xc1000, g->memory + 0xc1000, 12, true);
}

static void a_whole_large_page_read_only(struct machine *g)
{
	touch(g->m, LARGE, PF_WR);
	ram_set_readonly(&g->ram, LARGE, LARGE, true);
	assert_true(stale(g->m));
	assert_maps(g, LARGE, g->memory + LARGE, 21, false);
}

static void slots_move(struct machine *g)
{
	touch(g->m, ROM_BASE, 0);
	unsigned pages = fake_host_pages();
	assert_true(stale(g->m));
	for (u64 i = 1; i < 100; i++) {
		u64 place = i << 40 | i << 30 | i << 21;
		assert_true(ram_move(&g->ram, g->rom, place));
		assert_true(stale(g->m));
		assert_false(walk(g->m, ROM_BASE).present);
		touch(g->m, place, 0);
		assert_maps(g, place, g->rom, 12, false);
	}
	assert_true(ram_move(&g->ram, g->rom, RAM_NOWHERE));
	assert_true(stale(g->m));
	assert_true(fake_host_pages() < pages);
}

static void dirty_pages_are_logged(struct machine *g)
{
	struct ram_slot *slot = &g->ram.slot[0];
	touch(g->m, 0x5000, PF_WR);
	assert_true(stale(g->m));
	slot->log_dirty = true;
	g->ram.layout++;
	assert_true(stale(g->m));
	touch(g->m, 0x5000, 0);
	assert_maps(g, 0x5000, g->memory + 0x5000, 12, false);
	assert_int_equal(slot->flags[5], 0);
	touch(g->m, 0x5008, PF_WR | PF_P);
	assert_maps(g, 0x5000, g->memory + 0x5000, 12, true);
	assert_int_equal(slot->flags[5], PAGE_DIRTY);
	/* Harvest. */
	slot->flags[5] = 0;
	g->ram.layout++;
	assert_true(stale(g->m));
	assert_maps(g, 0x5000, g->memory + 0x5000, 12, false);
	slot->log_dirty = false;
}

static void logging_without_a_word(struct machine *g)
{
	touch(g->m, 0x5000, 0);
	assert_true(stale(g->m));
	g->ram.slot[0].log_dirty = true;
	touch(g->m, 0x5000, 0); /* the large page goes, and every CPU forgets it */
	assert_true(stale(g->m));
	assert_maps(g, 0x5000, g->memory + 0x5000, 12, false);
	g->ram.slot[0].log_dirty = false;
}

static void without_memory_step_works(struct machine *g)
{
	for (unsigned i = 0; i < 2; i++) { /* of three tables that are needed */
		fake_host_limit_pages(i);
		assert_int_equal(g->m->ops->fault(g->m, ROM_BASE, 0), HW_FAULT_EMULATE);
	}
	fake_host_limit_pages(~0u);
	touch(g->m, ROM_BASE, 0);
	fake_host_limit_pages(0);
	assert_null(hw_memory_nested.create(&(struct vcpu){ .ram = &(struct ram){ .slots = 0 } }, g->m->format));
	fake_host_limit_pages(~0u);
}

static void odd_memory_is_left_to_step(struct machine *g)
{
	assert_int_equal(ram_add(&g->ram, 1ull << 33, PAGE_SIZE, g->memory + 8, true), 0);
	assert_int_equal(g->m->ops->fault(g->m, 1ull << 33, 0), HW_FAULT_EMULATE);
}

static void the_guest_invalidates(struct machine *g)
{
	assert_true(stale(g->m));
	g->mmu[0].invalid.page[g->mmu[0].invalid.pages++] = 0x1000;
	assert_false(stale(g->other) && stale(g->other));
	assert_true(stale(g->m));
	assert_false(stale(g->m));
}

static void moves_between_cpus(struct machine *g)
{
	assert_true(hw_memory_stale(g->m, 0));
	assert_false(hw_memory_stale(g->m, 0));
	assert_true(hw_memory_stale(g->m, 1));
	assert_true(hw_memory_stale(g->m, 0));
}

/* The page of local APICs is there while all have their registers there. */
static void local_apics_have_a_page(struct machine *g)
{
	static const struct lapic_ops ops = { 0 };
	const u64 gpa = 0xfee00000, on = APIC_BASE_EN | APIC_BASE_EXTD;
	struct lapic apic[2];
	for (unsigned i = 0; i < 2; i++) {
		lapic_init(&apic[i], i, !i, &ops, NULL);
		g->vcpu[i].lapic = &apic[i];
	}
	g->m->ops->prepare(g->m);
	assert_int_equal(g->m->ops->fault(g->m, gpa, 0), HW_FAULT_DEVICE);
	u64 page = hw_nested_apic(g->m);
	assert_int_equal(hw_nested_apic(g->other), page);
	touch(g->m, gpa + 0x80, PF_WR);
	struct found f = walk(g->m, gpa);
	assert_true(f.present && f.write && !f.execute && f.shift == 12);
	assert_int_equal(f.physical, page);
	assert_int_equal(g->m->ops->fault(g->m, gpa + PAGE_SIZE, 0), HW_FAULT_DEVICE);
	u32 generation = *g->m->generation;
	assert_true(lapic_msr_write(&apic[1], MSR_APIC_BASE, 0, apic[1].base | on));
	g->other->ops->prepare(g->other);
	assert_false(walk(g->m, gpa).present);
	assert_int_not_equal(*g->m->generation, generation);
	assert_int_equal(g->m->ops->fault(g->m, gpa, 0), HW_FAULT_DEVICE);
	lapic_reset(&apic[1], false);
	g->other->ops->prepare(g->other);
	touch(g->other, gpa, 0);
	assert_true(walk(g->m, gpa).present);
	assert_true(lapic_msr_write(&apic[0], MSR_APIC_BASE, 0, (apic[0].base & ~0xfffff000ull) | 0xfed00000));
	g->m->ops->prepare(g->m);
	assert_false(walk(g->m, gpa).present);
}

#define TESTS(X)                                                                                                                                   \
	X(fills_on_faults) X(what_is_not_ram_faults) X(huge_pages) X(smallest_pages) X(rom_is_read_only) X(read_only_pages_split)                  \
	X(a_whole_large_page_read_only) X(slots_move) X(dirty_pages_are_logged) X(logging_without_a_word) X(without_memory_step_works)             \
	X(odd_memory_is_left_to_step) X(the_guest_invalidates) X(moves_between_cpus) X(local_apics_have_a_page)

#define X(name)                                                                                                                                    \
	static void test_##name(void **state)                                                                                                      \
	{                                                                                                                                          \
		both_formats(name);                                                                                                                \
	}
TESTS(X)
#undef X

int main(void)
{
	const struct CMUnitTest tests[] = {
#define X(name) cmocka_unit_test(test_##name),
		TESTS(X)
#undef X
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
