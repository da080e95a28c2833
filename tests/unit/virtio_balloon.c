/* The virtio balloon device: pages given back when the host asks and when they are free, and drivers that name what is none of theirs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/balloon.h"
#include "fake_host.h"
#include "virtio_driver.h"

enum { INFLATE, DEFLATE, REPORT };
#define NUMBERS 0x10000ull
#define REPORTING BIT(5)
#define ROM 0x100000ull

static struct machine {
	struct driver driver;
	struct virtio_balloon balloon;
	u8 *rom;
	struct {
		u64 gpa, size;
	} given[8];
	unsigned calls;
} *machine;

static void discard(void *hva, u64 size)
{
	struct machine *m = machine;
	assert_true(m->calls < 8);
	assert_true(size && !(size & ~PAGE_MASK));
	m->given[m->calls].gpa = (u64)((u8 *)hva - m->driver.bytes);
	m->given[m->calls++].size = size;
	assert_true(m->given[m->calls - 1].gpa + size <= DRIVER_RAM);
}

static int setup(void **state)
{
	struct machine *m = machine = host_alloc(sizeof(*m));
	m->rom = host_ram_create(PAGE_SIZE);
	m->balloon.discard = discard;
	m->balloon.reporting = true;
	assert_true(driver_create(&m->driver));
	m->driver.ram.memory_size = DRIVER_RAM;
	assert_int_equal(ram_add(&m->driver.ram, ROM, PAGE_SIZE, m->rom, true), 0);
	assert_int_equal(virtio_balloon_attach(&m->balloon, &m->driver.pci, &m->driver.ram, DRIVER_SLOT), 0);
	driver_plug(&m->driver);
	driver_start(&m->driver, REPORTING, 3);
	return 0;
}

static int teardown(void **state)
{
	driver_destroy(&machine->driver);
	host_ram_destroy(machine->rom, PAGE_SIZE);
	host_free(machine);
	return 0;
}

static void expect(unsigned call, u64 gpa, u64 size)
{
	assert_true(call < machine->calls);
	assert_int_equal(machine->given[call].gpa, gpa);
	assert_int_equal(machine->given[call].size, size);
}

static void name_pages(unsigned queue, const u32 *number, u32 count)
{
	memcpy(machine->driver.bytes + NUMBERS, number, count * 4ull);
	driver_descriptor(&machine->driver, queue, 0, NUMBERS, count * 4, 0);
	driver_offer(&machine->driver, queue, 0);
}

static void rows_of_pages_go_together(void **state)
{
	static const u32 numbers[] = { 0x20, 0x21, 0x22, 0x31, 0x30, 0x2f, 0x3f };
	name_pages(INFLATE, numbers, ARRAY_SIZE(numbers));
	assert_int_equal(machine->calls, 3);
	expect(0, 0x20000, 0x3000);
	expect(1, 0x2f000, 0x3000);
	expect(2, 0x3f000, 0x1000);
	assert_int_equal(driver_used(&machine->driver, INFLATE), 1);
	name_pages(DEFLATE, numbers, ARRAY_SIZE(numbers));
	assert_int_equal(machine->calls, 3);
	assert_int_equal(driver_used(&machine->driver, DEFLATE), 1);
}

/* Holes, ROM, and the end of memory; rows that would go across. */
static void what_is_not_ram_stays(void **state)
{
	static const u32 numbers[] = { 0x40, 0x3f, 0x40, 0xff, 0x100, 0x101, 0xfffff, 0xffffffff, 0, 0xffffffff };
	name_pages(INFLATE, numbers, ARRAY_SIZE(numbers));
	assert_int_equal(machine->calls, 2);
	expect(0, 0x3f000, 0x1000);
	expect(1, 0, 0x1000);
}

static void code_of_pages_is_stale(void **state)
{
	struct ram_slot *slot = ram_find(&machine->driver.ram, 0x20000);
	slot->flags[0x20] |= PAGE_CODE;
	u32 before = slot->generation[0x20];
	name_pages(INFLATE, (u32[]){ 0x20 }, 1);
	assert_true(slot->generation[0x20] != before);
}

static void free_pages(void **state)
{
	struct driver *d = &machine->driver;
	assert_true(driver_offered(d) & REPORTING);
	driver_descriptor(d, REPORT, 0, 0x20000, 0x4000, DESC_WRITE | DESC_NEXT);
	driver_descriptor(d, REPORT, 1, 0x30800, 0x2000, DESC_WRITE | DESC_NEXT); /* one whole page in it */
	driver_descriptor(d, REPORT, 2, 0x38001, 0x1ffe, DESC_WRITE); /* none */
	driver_offer(d, REPORT, 0);
	assert_int_equal(machine->calls, 2);
	expect(0, 0x20000, 0x4000);
	expect(1, 0x31000, 0x1000);
	assert_int_equal(machine->balloon.reported, 0x5000);
	assert_int_equal(driver_used(d, REPORT), 1);
}

/* What the device may only read is not given back. */
static void readable_pages_are_not_free(void **state)
{
	struct driver *d = &machine->driver;
	driver_descriptor(d, REPORT, 0, 0x20000, 0x4000, 0);
	driver_offer(d, REPORT, 0);
	assert_int_equal(machine->calls, 0);
}

static void size(void **state)
{
	struct driver *d = &machine->driver;
	unsigned messages = d->messages;
	virtio_balloon_resize(&machine->balloon, 0x5fff);
	assert_int_equal(driver_get(d, 0x2000, 4), 5);
	assert_int_equal(d->messages, messages); /* no vector was given for it */
	assert_true(machine->balloon.virtio.isr & 2);
	virtio_balloon_resize(&machine->balloon, ~0ull);
	assert_int_equal(driver_get(d, 0x2000, 4), DRIVER_RAM >> PAGE_SHIFT);
	driver_set(d, 0x2004, 4, 7);
	assert_int_equal(machine->balloon.config.actual, 7);
	driver_set(d, 0x2000, 4, 99); /* the host's */
	driver_set(d, 0x2008, 4, 99); /* nobody's */
	assert_int_equal(driver_get(d, 0x2000, 4), DRIVER_RAM >> PAGE_SHIFT);
	driver_set(d, 20, 1, 0);
	assert_int_equal(machine->balloon.config.actual, 0);
}

/* Longer buffers than any driver needs: nothing but their first pages is looked at. */
static void long_buffer(void **state)
{
	struct driver *d = &machine->driver;
	for (u32 i = 0; i < 4096; i++)
		memcpy(d->bytes + NUMBERS + 4ull * i, &(u32){ 0x20 }, 4);
	driver_descriptor(d, INFLATE, 0, NUMBERS, 3, DESC_NEXT);
	driver_descriptor(d, INFLATE, 1, NUMBERS + 3, 1, 0);
	driver_offer(d, INFLATE, 0);
	assert_int_equal(machine->calls, 1);
	driver_descriptor(d, INFLATE, 0, NUMBERS, 3, 0); /* not even one number */
	driver_offer(d, INFLATE, 0);
	assert_int_equal(machine->calls, 1);
	assert_int_equal(driver_used(d, INFLATE), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(rows_of_pages_go_together), TEST(what_is_not_ram_stays), TEST(code_of_pages_is_stale), TEST(free_pages),
		TEST(readable_pages_are_not_free), TEST(size), TEST(long_buffer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
