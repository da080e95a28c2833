/* ACPI fixed hardware against the ACPI specification ("ACPI Hardware Specification"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/map.h"
#include "dev/pm.h"
#include "host/port.h"

enum { STATUS = PORT_PM, ENABLE = PORT_PM + 2, CONTROL = PORT_PM + 4, TIMER = PORT_PM + 8 };

#define SECOND 1000000000ull
/* 2^31 and 2^32 ticks of 3.579545 MHz, rounded up to the nanosecond: when the top bit of a 32-bit counter changes. */
#define HALF_PERIOD 599932015941ull
#define PERIOD 1199864031882ull

struct board {
	struct bus io;
	struct pm pm;
	bool sci;
	unsigned power_offs;
};

static void on_sci(void *opaque, unsigned pin, bool level)
{
	((struct board *)opaque)->sci = level;
}

static void on_power_off(void *opaque)
{
	((struct board *)opaque)->power_offs++;
}

static struct board *board(u64 now)
{
	static struct board b;
	b = (struct board){
		.pm = { .sci = { .sink = on_sci, .opaque = &b }, .power_off = on_power_off, .opaque = &b }
	};
	assert_int_equal(pm_attach(&b.pm, &b.io, PORT_PM, now), 0);
	return &b;
}

static u64 in(struct board *b, unsigned port, unsigned size, u64 now)
{
	return bus_read(&b->io, port, size, now);
}

static void out(struct board *b, unsigned port, unsigned size, u64 value)
{
	bus_write(&b->io, port, size, value, 0);
}

static void reset_values(void **state)
{
	struct board *b = board(0);
	assert_int_equal(in(b, STATUS, 4, 0), 0);
	assert_int_equal(in(b, CONTROL, 2, 0), 1); /* SCI_EN */
	assert_int_equal(in(b, CONTROL + 2, 2, 0), 0);
	assert_int_equal(in(b, TIMER + 4, 2, 0), 0);
	assert_int_equal(in(b, TIMER + 6, 4, 0), 0xffffffff);
	assert_false(b->sci);
}

static void registers_keep_only_the_bits_they_have(void **state)
{
	struct board *b = board(0);
	out(b, STATUS, 4, 0xffffffff);
	assert_int_equal(in(b, STATUS, 4, 0), 0x05210000);
	out(b, CONTROL, 2, 0xffff & ~(7 << 10));
	assert_int_equal(in(b, CONTROL, 2, 0), 0x0003);
	out(b, CONTROL, 2, 0x1400);
	assert_int_equal(in(b, CONTROL, 2, 0), 0x1401);
	out(b, TIMER, 4, 0);
	assert_int_equal(in(b, TIMER, 4, SECOND), PM_TIMER_HZ);
}

static void timer_counts_exactly(void **state)
{
	static const struct {
		u64 now, ticks;
	} table[] = {
		{ 0, 0 },
		{ 279, 0 }, /* a tick takes 279.365 ns */
		{ 280, 1 },
		{ SECOND - 1, PM_TIMER_HZ - 1 },
		{ SECOND, PM_TIMER_HZ },
		{ HALF_PERIOD - 1, 0x7fffffff },
		{ HALF_PERIOD, 0x80000000 },
		{ 1200 * SECOND, (1200 * PM_TIMER_HZ) & 0xffffffff },
		{ 10000000000ull * SECOND, (10000000000ull * PM_TIMER_HZ) & 0xffffffff }, /* 317 years */
	};
	struct board *b = board(0);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(in(b, TIMER, 4, table[i].now), table[i].ticks);
	assert_int_equal(in(b, TIMER + 1, 2, HALF_PERIOD - 1), 0xffff);
}

static void timer_interrupts_when_its_top_bit_changes(void **state)
{
	struct board *b = board(0);
	assert_int_equal(pm_deadline(&b->pm), HOST_NEVER);
	out(b, ENABLE, 2, 1);
	assert_int_equal(pm_deadline(&b->pm), HALF_PERIOD);
	pm_advance(&b->pm, HALF_PERIOD - 1);
	assert_false(b->sci);
	pm_advance(&b->pm, HALF_PERIOD);
	assert_true(b->sci);
	assert_int_equal(pm_deadline(&b->pm), HOST_NEVER);
	bus_write(&b->io, STATUS, 2, 1, HALF_PERIOD);
	assert_false(b->sci);
	assert_int_equal(pm_deadline(&b->pm), PERIOD);
	assert_int_equal(in(b, STATUS, 2, PERIOD), 1);
	assert_true(b->sci);
}

static void time_before_reset_does_not_count(void **state)
{
	struct board *b = board(5 * HALF_PERIOD);
	assert_int_equal(in(b, STATUS, 2, 5 * HALF_PERIOD), 0);
	pm_advance(&b->pm, 4 * HALF_PERIOD); /* another vCPU read the clock earlier */
	assert_int_equal(in(b, STATUS, 2, 5 * HALF_PERIOD), 0);
}

static void power_button_interrupts_when_enabled(void **state)
{
	struct board *b = board(0);
	pm_power_button(&b->pm);
	assert_false(b->sci);
	assert_int_equal(in(b, STATUS, 2, 0), 0x100);
	out(b, ENABLE + 1, 1, 0x01);
	assert_true(b->sci);
	out(b, STATUS, 2, 0x001); /* another bit: stays */
	assert_true(b->sci);
	out(b, STATUS, 2, 0x100);
	assert_false(b->sci);
	pm_power_button(&b->pm);
	assert_true(b->sci);
	out(b, STATUS + 1, 1, 0x01);
	assert_false(b->sci);
}

static void only_s5_with_sleep_enable_powers_off(void **state)
{
	static const struct {
		unsigned port, size;
		u16 value;
		unsigned power_offs;
	} table[] = {
		{ CONTROL, 2, 0 << 10, 0 },
		{ CONTROL, 2, 1 << 10 | 1 << 13, 0 },
		{ CONTROL, 2, 5 << 10 | 1 << 13, 0 },
		{ CONTROL, 2, 1 << 13, 1 },
		{ CONTROL + 1, 1, 1 << 5, 1 },
		{ CONTROL, 1, 0xff, 0 },
		{ CONTROL, 4, 1 << 13 | 1, 1 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct board *b = board(0);
		out(b, table[i].port, table[i].size, table[i].value);
		assert_int_equal(b->power_offs, table[i].power_offs);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_values),
		cmocka_unit_test(registers_keep_only_the_bits_they_have),
		cmocka_unit_test(timer_counts_exactly),
		cmocka_unit_test(timer_interrupts_when_its_top_bit_changes),
		cmocka_unit_test(time_before_reset_does_not_count),
		cmocka_unit_test(power_button_interrupts_when_enabled),
		cmocka_unit_test(only_s5_with_sleep_enable_powers_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
