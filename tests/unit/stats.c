/* Exit statistics: counting by reason and by site, adding up, and what happens when a guest has more sites than the
 * table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/port.h"
#include "vm/stats.h"

#include <string.h>

static struct stats *create(bool by_site)
{
	struct stats *s = host_alloc(sizeof(*s));
	s->by_site = by_site;
	return s;
}

static void test_by_reason(void **state)
{
	struct stats *s = create(false);
	stats_count(s, EXIT_IO, 0x1000, 0x3f8, 10);
	stats_count(s, EXIT_IO, 0x2000, 0x3f8, 5);
	stats_count(s, EXIT_ERROR, 0, 0, 1);
	assert_int_equal(s->reason[EXIT_IO].count, 2);
	assert_int_equal(s->reason[EXIT_IO].ticks, 15);
	assert_int_equal(s->reason[EXIT_ERROR].count, 1);
	assert_int_equal(s->reason[EXIT_MMIO].count, 0);
	assert_int_equal(stats_sort_sites(s), 0); /* not asked for */
	host_free(s);
}

/* What single answers took: of two vCPUs together, too. */
static void test_spread(void **state)
{
	struct stats *a = create(false), *b = create(false);
	for (unsigned i = 1; i <= 100; i++)
		stats_count(i & 1 ? a : b, EXIT_CPUID, 0, 0, i * 100);
	stats_count(a, EXIT_HLT, 0, 0, 0); /* it slept: that is no answer */
	stats_add(a, b);
	assert_int_equal(a->spread[EXIT_CPUID].count, 100);
	assert_int_equal(a->spread[EXIT_CPUID].least, 100);
	assert_int_equal(a->spread[EXIT_CPUID].most, 10000);
	assert_in_range(histogram_permille(&a->spread[EXIT_CPUID], 500), 4400, 5600);
	assert_in_range(histogram_permille(&a->spread[EXIT_CPUID], 990), 8700, 10000);
	assert_int_equal(a->reason[EXIT_HLT].count, 1);
	assert_int_equal(a->spread[EXIT_HLT].count, 0);
	host_free(a);
	host_free(b);
}

/* A site is an address, a reason and a detail together. */
static void test_by_site(void **state)
{
	struct stats *s = create(true);
	for (unsigned i = 0; i < 3; i++)
		stats_count(s, EXIT_IO, 0x1000, 0x3f8, 7);
	stats_count(s, EXIT_IO, 0x1000, 0x3f9, 1);
	stats_count(s, EXIT_MMIO, 0x1000, 0x3f8, 1);
	stats_count(s, EXIT_IO, 0x1001, 0x3f8, 1);
	for (unsigned i = 0; i < 2; i++)
		stats_count(s, EXIT_CPUID, 0xffffffffffffffff, 0xffffffff, 4);
	assert_int_equal(stats_sort_sites(s), 5);
	assert_int_equal(s->site[0].rip, 0x1000);
	assert_int_equal(s->site[0].reason, EXIT_IO);
	assert_int_equal(s->site[0].detail, 0x3f8);
	assert_int_equal(s->site[0].counter.count, 3);
	assert_int_equal(s->site[0].counter.ticks, 21);
	assert_int_equal(s->site[1].reason, EXIT_CPUID);
	assert_int_equal(s->site[1].counter.count, 2);
	assert_int_equal(s->site[4].counter.count, 1);
	assert_int_equal(s->site[5].counter.count, 0);
	host_free(s);
}

/* No guest can grow the table, and no exit is counted twice or forgotten. */
static void test_overflow(void **state)
{
	struct stats *s = create(true);
	const u64 exits = 20 * STATS_SITES;
	for (u64 i = 0; i < exits; i++)
		stats_count(s, EXIT_IO, i * 0x9e3779b97f4a7c15, (u32)i, 1);
	assert_int_equal(s->reason[EXIT_IO].count, exits);
	assert_true(s->lost > 0);
	u64 lost = s->lost, found = 0;
	unsigned n = stats_sort_sites(s);
	assert_true(n > STATS_SITES / 2 && n <= STATS_SITES);
	for (unsigned i = 0; i < n; i++)
		found += s->site[i].counter.count;
	assert_int_equal(found + lost, exits);
	host_free(s);
}

static void test_add(void **state)
{
	struct stats *sum = create(true), *a = create(true), *b = create(true);
	for (unsigned i = 0; i < 5; i++)
		stats_count(a, EXIT_IO, 0x1000, 1, 2);
	stats_count(b, EXIT_IO, 0x1000, 1, 3);
	stats_count(b, EXIT_HLT, 0x2000, 0, 0);
	a->interrupts = 4, b->interrupts = 5;
	a->halted_ns = 100, b->halted_ns = 1;
	a->lost = 7;
	stats_add(sum, a);
	stats_add(sum, b);
	assert_int_equal(sum->reason[EXIT_IO].count, 6);
	assert_int_equal(sum->reason[EXIT_IO].ticks, 13);
	assert_int_equal(sum->reason[EXIT_HLT].count, 1);
	assert_int_equal(sum->interrupts, 9);
	assert_int_equal(sum->halted_ns, 101);
	assert_int_equal(sum->lost, 7);
	assert_int_equal(stats_sort_sites(sum), 2);
	assert_int_equal(sum->site[0].counter.count, 6);
	assert_int_equal(sum->site[0].counter.ticks, 13);
	host_free(sum);
	host_free(a);
	host_free(b);
}

/* The order is by count, whatever order they came in. */
static void test_order(void **state)
{
	struct stats *s = create(true);
	for (u64 site = 0; site < 100; site++)
		for (u64 i = 0; i <= site * 37 % 100; i++)
			stats_count(s, EXIT_IO, site << 4, 0, 0);
	assert_int_equal(stats_sort_sites(s), 100);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(s->site[i].counter.count, 100 - i);
	host_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_reason),
		cmocka_unit_test(test_spread), cmocka_unit_test(test_by_site), cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_add),       cmocka_unit_test(test_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
