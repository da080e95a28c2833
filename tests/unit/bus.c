/* The device buses: look-up, overlap, splitting of accesses, and reads of nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/bus.h"

/* A device that remembers its last access and answers with its own bytes. */
struct probe {
	u8 bytes[16];
	unsigned reads, writes, last_size;
	u64 last_offset, last_now;
};

static u64 probe_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct probe *p = device;
	u64 value = 0;
	p->reads++;
	p->last_size = size;
	p->last_offset = offset;
	p->last_now = now;
	__builtin_memcpy(&value, p->bytes + offset, size);
	return value;
}

static void probe_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct probe *p = device;
	p->writes++;
	p->last_size = size;
	p->last_offset = offset;
	p->last_now = now;
	__builtin_memcpy(p->bytes + offset, &value, size);
}

static const struct region_ops probe_ops = { .read = probe_read, .write = probe_write };

static void whole_accesses_reach_the_device(void **state)
{
	struct bus bus = { 0 };
	struct probe p = { .bytes = { 1, 2, 3, 4, 5, 6, 7, 8 } };
	assert_int_equal(bus_add(&bus, "p", 0x100, 16, &probe_ops, &p), 0);
	assert_int_equal(bus_read(&bus, 0x100, 4, 77), 0x04030201);
	assert_int_equal(p.last_now, 77);
	assert_int_equal(bus_read(&bus, 0x100, 8, 0), 0x0807060504030201);
	bus_write(&bus, 0x10e, 2, 0xabcd1234, 78);
	assert_int_equal(p.last_offset, 14);
	assert_int_equal(p.bytes[14], 0x34);
	assert_int_equal(p.bytes[15], 0x12);
	assert_int_equal(p.reads, 2);
	assert_int_equal(p.writes, 1);
}

static void nothing_reads_as_ones(void **state)
{
	struct bus bus = { 0 };
	struct probe p = { 0 };
	assert_int_equal(bus_read(&bus, 0x80, 1, 0), 0xff);
	assert_int_equal(bus_read(&bus, 0, 8, 0), ~0ull);
	bus_write(&bus, 0x80, 4, 1, 0);
	assert_int_equal(bus_add(&bus, "p", 0x100, 4, &probe_ops, &p), 0);
	assert_int_equal(bus_read(&bus, 0xff, 1, 0), 0xff);
	assert_int_equal(bus_read(&bus, 0x104, 2, 0), 0xffff);
	assert_int_equal(p.reads, 0);
}

static void edges_are_split_into_bytes(void **state)
{
	struct bus bus = { 0 };
	struct probe a = { .bytes = { 0xa0, 0xa1 } }, b = { .bytes = { 0xb0, 0xb1 } };
	assert_int_equal(bus_add(&bus, "b", 0x102, 2, &probe_ops, &b), 0);
	assert_int_equal(bus_add(&bus, "a", 0x100, 2, &probe_ops, &a), 0);
	assert_int_equal(bus_read(&bus, 0xff, 2, 0), 0xa0ff);
	assert_int_equal(bus_read(&bus, 0x100, 4, 0), 0xb1b0a1a0);
	assert_int_equal(bus_read(&bus, 0x103, 4, 0), 0xffffffb1);
	bus_write(&bus, 0x101, 2, 0x2211, 0);
	assert_int_equal(a.bytes[1], 0x11);
	assert_int_equal(b.bytes[0], 0x22);
	assert_int_equal(bus_read(&bus, ~0ull, 8, 0), ~0ull);
}

static void overlaps_are_refused(void **state)
{
	static const struct {
		u64 base, size;
		int result;
	} table[] = {
		{ 0x100, 0x10, 0 }, { 0x100, 0x10, -1 },  { 0xff, 2, -1 },  { 0x10f, 1, -1 }, { 0x0, 0x1000, -1 },
		{ 0x110, 1, 0 },    { 0xff, 1, 0 },       { 0x200, 0, -1 }, { ~0ull, 2, -1 }, { ~0ull, 1, 0 },
		{ 0x108, 4, -1 },   { 0x111, ~0ull, -1 }, { 0x111, 8, 0 },
	};
	struct bus bus = { 0 };
	struct probe p = { 0 };
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(bus_add(&bus, "p", table[i].base, table[i].size, &probe_ops, &p), table[i].result);
}

static void removal_takes_all_regions_of_the_device(void **state)
{
	struct bus bus = { 0 };
	struct probe a = { .bytes = { 1 } }, b = { .bytes = { 2 } };
	assert_int_equal(bus_add(&bus, "a", 0x10, 1, &probe_ops, &a), 0);
	assert_int_equal(bus_add(&bus, "b", 0x20, 1, &probe_ops, &b), 0);
	assert_int_equal(bus_add(&bus, "a", 0x30, 1, &probe_ops, &a), 0);
	bus_remove(&bus, &a);
	assert_int_equal(bus_read(&bus, 0x10, 1, 0), 0xff);
	assert_int_equal(bus_read(&bus, 0x20, 1, 0), 2);
	assert_int_equal(bus_read(&bus, 0x30, 1, 0), 0xff);
	assert_int_equal(bus_add(&bus, "a", 0x30, 1, &probe_ops, &a), 0);
	assert_int_equal(bus_read(&bus, 0x30, 1, 0), 1);
}

static void a_full_table_refuses(void **state)
{
	struct bus bus = { 0 };
	struct probe p = { 0 };
	for (u64 i = 0; i < BUS_REGIONS_MAX; i++)
		assert_int_equal(bus_add(&bus, "p", (i * 7919) % 65536, 1, &probe_ops, &p), 0);
	assert_int_equal(bus_add(&bus, "p", 1ull << 40, 1, &probe_ops, &p), -1);
	for (unsigned i = 1; i < bus.count; i++)
		assert_true(bus.region[i - 1].base < bus.region[i].base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_accesses_reach_the_device),
		cmocka_unit_test(nothing_reads_as_ones),
		cmocka_unit_test(edges_are_split_into_bytes),
		cmocka_unit_test(overlaps_are_refused),
		cmocka_unit_test(removal_takes_all_regions_of_the_device),
		cmocka_unit_test(a_full_table_refuses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
