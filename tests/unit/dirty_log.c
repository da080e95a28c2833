/* The log of dirty pages: whatever way a byte of memory changed, its page is in the next harvest, and nothing else is. */
#include "small_vm.h"

#include <stdlib.h>

#define GLA 0x234000ull
#define PAGE 0x400000ull /* where it is mapped to, with the pages behind it */
#define PAGES 64u
#define ALL (PTE_P | PTE_W | PTE_U)
#define WORDS (RAM_SIZE / PAGE_SIZE / 64)

struct log {
	struct small_vm *vm;
	u64 written[WORDS];
};

static int set_up(void **state)
{
	struct log *log = calloc(1, sizeof(*log));
	log->vm = small_vm_create();
	log->vm->ram.memory = log->vm->memory;
	log->vm->ram.memory_size = RAM_SIZE;
	assert_int_equal(ram_log_words(&log->vm->ram), WORDS);
	*state = log;
	return 0;
}

static int tear_down(void **state)
{
	struct log *log = *state;
	small_vm_destroy(log->vm);
	free(log);
	return 0;
}

static void harvest(struct log *log)
{
	u64 count = 0, told = ram_log_harvest(&log->vm->ram, memset(log->written, 0, sizeof(log->written)));
	mmu_drop_writes(&log->vm->vcpu);
	for (unsigned i = 0; i < WORDS; i++)
		count += (unsigned)__builtin_popcountll(log->written[i]);
	assert_int_equal(told, count);
}

static bool was_written(const struct log *log, gpa_t gpa)
{
	return log->written[gpa / PAGE_SIZE / 64] >> gpa / PAGE_SIZE % 64 & 1;
}

static unsigned count(const struct log *log)
{
	unsigned n = 0;
	for (unsigned i = 0; i < WORDS; i++)
		n += (unsigned)__builtin_popcountll(log->written[i]);
	return n;
}

static void devices_and_loaders(void **state)
{
	struct log *log = *state;
	struct ram *ram = &log->vm->ram;
	ram_write(ram, 0x5000, "x", 1);
	ram_log(ram, true);
	harvest(log);
	assert_int_equal(count(log), 0);
	ram_write(ram, 0x6fff, "xy", 2);
	ram_written(ram, 0x9000, 0x2001);
	ram_written(ram, ROM_BASE, PAGE_SIZE); /* no part of memory */
	harvest(log);
	assert_int_equal(count(log), 5);
	for (gpa_t gpa = 0x6000; gpa <= 0xb000; gpa += PAGE_SIZE)
		assert_int_equal(was_written(log, gpa), gpa != 0x8000);
	harvest(log);
	assert_int_equal(count(log), 0);
	ram_log(ram, false);
	ram_write(ram, 0x5000, "x", 1);
	harvest(log);
	assert_int_equal(count(log), 0);
}

static void write_tags_go(void **state)
{
	struct log *log = *state;
	struct vcpu *v = &log->vm->vcpu;
	paging_enable(log->vm, PAGING_4LEVEL, 0, 0);
	map_page(log->vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	assert_true(mmu_write(v, GLA, "a", 1, 0));
	assert_non_null(tlb_lookup_explicit(v->mmu, GLA, 1, ACCESS_WRITE));
	ram_log(&log->vm->ram, true);
	mmu_drop_writes(v);
	assert_null(tlb_lookup_explicit(v->mmu, GLA, 1, ACCESS_WRITE));
	assert_non_null(tlb_lookup_explicit(v->mmu, GLA, 1, ACCESS_READ));
	/* A read does not bring the tag of a clean page, a write does. */
	struct translation t;
	mmu_flush_all(v);
	assert_true(mmu_translate(v, GLA, ACCESS_READ, &t));
	assert_null(tlb_lookup_explicit(v->mmu, GLA, 1, ACCESS_WRITE));
	harvest(log);
	assert_int_equal(count(log), 0);
	assert_true(mmu_write(v, GLA, "a", 1, 0));
	assert_non_null(tlb_lookup_explicit(v->mmu, GLA, 1, ACCESS_WRITE));
	harvest(log);
	assert_int_equal(count(log), 1);
	assert_true(was_written(log, PAGE));
	assert_null(tlb_lookup_explicit(v->mmu, GLA, 1, ACCESS_WRITE));
}

/* A walk sets A and D: the guest's tables are memory, too. */
static void tables_are_written(void **state)
{
	struct log *log = *state;
	struct vcpu *v = &log->vm->vcpu;
	struct translation t;
	paging_enable(log->vm, PAGING_4LEVEL, 0, 0);
	map_page(log->vm, PAGING_4LEVEL, GLA, PAGE | ALL);
	ram_log(&log->vm->ram, true);
	assert_true(mmu_translate(v, GLA, ACCESS_READ, &t));
	harvest(log);
	assert_int_equal(count(log), 4);
	assert_false(was_written(log, PAGE));
	assert_true(mmu_write(v, GLA, "a", 1, 0));
	harvest(log);
	assert_int_equal(count(log), 2); /* D, and the page */
	assert_true(was_written(log, PAGE) && was_written(log, table_of_level(3)));
}

static void hardware_adds(void **state)
{
	struct log *log = *state;
	struct ram_slot *slot = &log->vm->ram.slot[0];
	const u64 bitmap[2] = { BIT(0) | BIT(63), BIT(1) | BIT(40) };
	ram_log(&log->vm->ram, true);
	ram_log_add(slot, 10, 66, bitmap); /* the last bit is behind the end */
	harvest(log);
	assert_int_equal(count(log), 3);
	assert_true(was_written(log, 10 * PAGE_SIZE) && was_written(log, 73 * PAGE_SIZE) && was_written(log, 75 * PAGE_SIZE));
}

/* ---- at random, against a copy of memory ---- */

static void store(struct small_vm *vm, u64 chance)
{
	struct vcpu *v = &vm->vcpu;
	u64 at = chance >> 8 & (PAGES * PAGE_SIZE - 1), value = chance | 1;
	u8 *p;
	switch (chance & 7) {
	case 0:
		ram_write(&vm->ram, PAGE + MIN(at, PAGES * PAGE_SIZE - 8), &value, 8);
		break;
	case 1:
		assert_true(mmu_write(v, GLA + MIN(at, PAGES * PAGE_SIZE - 8), &value, 8, 0));
		break;
	default: /* as translated code stores */
		at &= ~7ull;
		p = tlb_lookup_explicit(v->mmu, GLA + at, 8, ACCESS_WRITE);
		if (p)
			memcpy(p, &value, 8);
		else
			assert_true(mmu_write(v, GLA + at, &value, 8, 0));
	}
}

static void compare(struct log *log, const u8 *before)
{
	for (gpa_t gpa = 0; gpa < RAM_SIZE; gpa += PAGE_SIZE)
		if (memcmp(before + gpa, log->vm->memory + gpa, PAGE_SIZE))
			assert_true(was_written(log, gpa));
}

static void at_random(void **state)
{
	struct log *log = *state;
	u8 *before = malloc(RAM_SIZE);
	u64 chance = 1, written = 0;
	paging_enable(log->vm, PAGING_4LEVEL, 0, 0);
	for (unsigned i = 0; i < PAGES; i++)
		map_page(log->vm, PAGING_4LEVEL, GLA + i * PAGE_SIZE, (PAGE + i * PAGE_SIZE) | ALL);
	ram_log(&log->vm->ram, true);
	for (unsigned round = 0; round < 50; round++) {
		memcpy(before, log->vm->memory, RAM_SIZE);
		for (unsigned i = 0; i < round * 4; i++) {
			chance = chance * 6364136223846793005ull + 1442695040888963407ull;
			store(log->vm, chance >> 20);
		}
		harvest(log);
		compare(log, before);
		written += count(log);
		assert_true(count(log) <= round * 8 + 8);
	}
	assert_true(written > 100);
	free(before);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(devices_and_loaders), TEST(write_tags_go), TEST(tables_are_written), TEST(hardware_adds), TEST(at_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
