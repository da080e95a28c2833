/* The real-time clock against the MC146818A data sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/rtc.h"
#include "host/port.h"

#define SECOND 1000000000ull
#define MILLISECOND 1000000ull

enum { SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR, A, B, C, D };
enum { CENTURY = 0x32 };
enum { SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 0x04, H24 = 0x02 };

struct board {
	struct rtc rtc;
	u64 now;
	bool irq;
};

static void on_irq(void *opaque, unsigned pin, bool level)
{
	((struct board *)opaque)->irq = level;
}

static struct board *board(u64 unix_seconds)
{
	static struct board b;
	b = (struct board){ .rtc.irq = { .sink = on_irq, .opaque = &b } };
	rtc_init(&b.rtc, unix_seconds * SECOND, b.now);
	return &b;
}

static u8 get(struct board *b, u8 index)
{
	rtc_ops.write(&b->rtc, 0, 1, index, b->now);
	return (u8)rtc_ops.read(&b->rtc, 1, 1, b->now);
}

static void put(struct board *b, u8 index, u8 value)
{
	rtc_ops.write(&b->rtc, 0, 1, index, b->now);
	rtc_ops.write(&b->rtc, 1, 1, value, b->now);
}

static void advance(struct board *b, u64 nanoseconds)
{
	b->now += nanoseconds;
	rtc_advance(&b->rtc, b->now);
}

/* Step to the deadline; whether the wire then rises, and not before. */
static bool rises_at_deadline(struct board *b)
{
	u64 deadline = rtc_deadline(&b->rtc);
	if (deadline == HOST_NEVER || deadline <= b->now)
		return false;
	advance(b, deadline - b->now - 1);
	if (b->irq)
		return false;
	advance(b, 1);
	return b->irq;
}

/* The calendar: UTC seconds and what the registers say in BCD. */
static void test_calendar(void **state)
{
	static const struct {
		u64 seconds;
		u8 century, year, month, day, weekday, hour, minute, second;
	} cases[] = {
		{ 0, 0x19, 0x70, 0x01, 0x01, 5, 0x00, 0x00, 0x00 },
		{ 951782400, 0x20, 0x00, 0x02, 0x29, 3, 0x00, 0x00, 0x00 },
		{ 951868799, 0x20, 0x00, 0x02, 0x29, 3, 0x23, 0x59, 0x59 },
		{ 951868800, 0x20, 0x00, 0x03, 0x01, 4, 0x00, 0x00, 0x00 },
		{ 1700000000, 0x20, 0x23, 0x11, 0x14, 3, 0x22, 0x13, 0x20 },
		{ 1735689599, 0x20, 0x24, 0x12, 0x31, 3, 0x23, 0x59, 0x59 },
		{ 4107542400, 0x21, 0x00, 0x03, 0x01, 2, 0x00, 0x00, 0x00 }, /* 2100 has no 29 February */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board(cases[i].seconds);
		assert_int_equal(get(b, CENTURY), cases[i].century);
		assert_int_equal(get(b, YEAR), cases[i].year);
		assert_int_equal(get(b, MONTH), cases[i].month);
		assert_int_equal(get(b, DAY), cases[i].day);
		assert_int_equal(get(b, WEEKDAY), cases[i].weekday);
		assert_int_equal(get(b, HOURS), cases[i].hour);
		assert_int_equal(get(b, MINUTES), cases[i].minute);
		assert_int_equal(get(b, SECONDS), cases[i].second);
	}
}

/* "Time, Calendar, and Alarm Data Modes": the hours of a day in the four formats. */
static void test_hour_formats(void **state)
{
	static const struct {
		u8 hour, bcd12, bcd24, binary12, binary24;
	} cases[] = {
		{ 0, 0x12, 0x00, 12, 0 },     { 1, 0x01, 0x01, 1, 1 },      { 11, 0x11, 0x11, 11, 11 },
		{ 12, 0x92, 0x12, 0x8c, 12 }, { 13, 0x81, 0x13, 0x81, 13 }, { 23, 0x91, 0x23, 0x8b, 23 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board(cases[i].hour * 3600ull);
		const struct {
			u8 mode, value;
		} formats[] = { { 0, cases[i].bcd12 },
				{ H24, cases[i].bcd24 },
				{ BINARY, cases[i].binary12 },
				{ BINARY | H24, cases[i].binary24 } };
		for (unsigned f = 0; f < ARRAY_SIZE(formats); f++) {
			put(b, B, formats[f].mode);
			assert_int_equal(get(b, HOURS), formats[f].value);
			put(b, HOURS, 5);
			assert_int_equal(get(b, HOURS), 5);
			put(b, HOURS, formats[f].value);
			assert_int_equal(get(b, HOURS), formats[f].value);
		}
	}
}

static void test_runs(void **state)
{
	struct board *b = board(1700000000);
	advance(b, 61 * SECOND - 1);
	assert_int_equal(get(b, SECONDS), 0x20);
	assert_int_equal(get(b, MINUTES), 0x14);
	advance(b, 1);
	assert_int_equal(get(b, SECONDS), 0x21);
	advance(b, 86400 * SECOND);
	assert_int_equal(get(b, DAY), 0x15);
	assert_int_equal(get(b, WEEKDAY), 4);
}

/* "Update Cycle": UIP comes 244 us before the update. */
static void test_update_in_progress(void **state)
{
	struct board *b = board(0);
	assert_int_equal(get(b, A), 0x26);
	advance(b, SECOND - 244001);
	assert_int_equal(get(b, A), 0x26);
	advance(b, 1);
	assert_int_equal(get(b, A), 0xa6);
	advance(b, 244000);
	assert_int_equal(get(b, A), 0x26);
	assert_int_equal(get(b, SECONDS), 1);
	put(b, A, 0xa6); /* UIP is read-only */
	assert_int_equal(get(b, A), 0x26);
}

/* With SET the registers stand still and take a new time as a whole; the divider keeps its phase. */
static void test_set(void **state)
{
	struct board *b = board(1700000000);
	advance(b, 300 * MILLISECOND);
	put(b, B, SET | H24 | BINARY | UIE);
	assert_int_equal(get(b, B), SET | H24 | BINARY); /* UIE is cleared */
	static const u8 time[][2] = { { SECONDS, 59 }, { MINUTES, 59 }, { HOURS, 23 },    { DAY, 31 },
				      { MONTH, 12 },   { YEAR, 99 },    { CENTURY, 0x20 } };
	for (unsigned i = 0; i < ARRAY_SIZE(time); i++)
		put(b, time[i][0], time[i][1]);
	advance(b, 10 * SECOND);
	assert_int_equal(get(b, SECONDS), 59);
	put(b, B, H24 | BINARY);
	advance(b, 700 * MILLISECOND - 1);
	assert_int_equal(get(b, SECONDS), 59);
	advance(b, 1);
	assert_int_equal(get(b, SECONDS), 0);
	assert_int_equal(get(b, DAY), 1);
	assert_int_equal(get(b, YEAR), 0);
	assert_int_equal(get(b, CENTURY), 0x21);
}

/* After a divider reset the first update comes half a second later. */
static void test_divider_reset(void **state)
{
	struct board *b = board(0);
	put(b, A, 0x76);
	put(b, SECONDS, 0x30);
	advance(b, 5 * SECOND);
	assert_int_equal(get(b, SECONDS), 0x30);
	put(b, A, 0x26);
	advance(b, SECOND / 2 - 1);
	assert_int_equal(get(b, SECONDS), 0x30);
	advance(b, 1);
	assert_int_equal(get(b, SECONDS), 0x31);
}

/* A write of one register while the clock runs. */
static void test_write_while_running(void **state)
{
	struct board *b = board(1700000000);
	advance(b, 400 * MILLISECOND);
	put(b, MINUTES, 0x59);
	assert_int_equal(get(b, HOURS), 0x22);
	assert_int_equal(get(b, MINUTES), 0x59);
	advance(b, 600 * MILLISECOND);
	assert_int_equal(get(b, SECONDS), 0x21);
	put(b, MONTH, 0xff); /* no time at all: anything that is one */
	assert_in_range(get(b, MONTH), 0x01, 0x12);
}

static void test_update_interrupt(void **state)
{
	struct board *b = board(100);
	advance(b, 250 * MILLISECOND);
	assert_int_equal(rtc_deadline(&b->rtc), HOST_NEVER);
	put(b, A, 0x20); /* no periodic flag */
	get(b, C);
	put(b, B, H24 | UIE);
	for (unsigned i = 1; i <= 3; i++) {
		assert_true(rises_at_deadline(b));
		assert_int_equal(b->now, i * SECOND);
		assert_int_equal(rtc_deadline(&b->rtc), HOST_NEVER); /* until it is acknowledged */
		assert_int_equal(get(b, C), 0x90);
		assert_false(b->irq);
		assert_int_equal(get(b, C), 0);
	}
}

/* "Periodic Interrupt Rate": frequency by rate select, with the 32.768-kHz time base. */
static void test_periodic_rates(void **state)
{
	static const u16 hz[] = { 0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2 };

	for (unsigned rate = 0; rate < ARRAY_SIZE(hz); rate++) {
		struct board *b = board(0);
		put(b, A, (u8)(0x20 | rate));
		put(b, B, H24 | PIE);
		if (!hz[rate]) {
			assert_int_equal(rtc_deadline(&b->rtc), HOST_NEVER);
			continue;
		}
		for (u64 i = 1; i <= 5; i++) {
			assert_true(rises_at_deadline(b));
			assert_int_equal(b->now, (i * SECOND + hz[rate] - 1) / hz[rate]);
			assert_int_equal(get(b, C) & 0xc0, 0xc0);
			assert_false(b->irq);
		}
		put(b, A, (u8)(0x60 | rate)); /* divider held */
		assert_int_equal(rtc_deadline(&b->rtc), HOST_NEVER);
	}
}

/* Flags are raised whether or not their interrupt is enabled; enabling it later raises the wire. */
static void test_flags_without_interrupts(void **state)
{
	struct board *b = board(0);
	get(b, C);
	advance(b, 2 * SECOND);
	assert_false(b->irq);
	put(b, B, H24 | UIE);
	assert_true(b->irq);
	assert_int_equal(get(b, C) & 0xd0, 0xd0);
}

/* When the alarm goes off after 22:13:20, in 24-hour BCD; C0H and above in a register matches everything. */
static void test_alarm(void **state)
{
	static const struct {
		u8 hour, minute, second;
		u64 after; /* seconds, 0 for never */
	} cases[] = {
		{ 0x22, 0x13, 0x21, 1 },
		{ 0x22, 0x13, 0x20, 86400 },
		{ 0x22, 0x13, 0x19, 86399 },
		{ 0xff, 0x13, 0x20, 3600 },
		{ 0xff, 0xff, 0x19, 59 },
		{ 0xff, 0xff, 0xff, 1 },
		{ 0xc0, 0xc0, 0xc0, 1 },
		{ 0x23, 0xff, 0xff, 46 * 60 + 40 },
		{ 0x00, 0x00, 0x00, 46 * 60 + 40 + 3600 },
		{ 0x24, 0xff, 0xff, 0 },
		{ 0xff, 0x60, 0xff, 0 },
		{ 0xff, 0xff, 0x7f, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board(1700000000);
		put(b, HOURS_ALARM, cases[i].hour);
		put(b, MINUTES_ALARM, cases[i].minute);
		put(b, SECONDS_ALARM, cases[i].second);
		put(b, B, H24 | AIE);
		if (!cases[i].after) {
			assert_int_equal(rtc_deadline(&b->rtc), HOST_NEVER);
			continue;
		}
		assert_true(rises_at_deadline(b));
		assert_int_equal(b->now, cases[i].after * SECOND);
		assert_int_equal(get(b, C) & 0xa0, 0xa0);
		assert_false(b->irq);
	}
}

static void test_alarm_12_hours(void **state)
{
	struct board *b = board(1700000000);
	put(b, B, BINARY | AIE);
	put(b, HOURS_ALARM, 0x80 | 11);
	put(b, MINUTES_ALARM, 0);
	put(b, SECONDS_ALARM, 0);
	assert_true(rises_at_deadline(b));
	assert_int_equal(get(b, HOURS), 0x80 | 11);
	assert_int_equal(get(b, MINUTES) | get(b, SECONDS), 0);
}

static void test_memory(void **state)
{
	struct board *b = board(0);
	put(b, 0x40, 0x5a);
	rtc_ops.write(&b->rtc, 0, 1, 0xc0, b->now); /* bit 7 is not part of the index */
	assert_int_equal(rtc_ops.read(&b->rtc, 1, 1, b->now), 0x5a);
	put(b, C, 0xff);
	put(b, D, 0x00);
	assert_int_equal(get(b, C), 0);
	assert_int_equal(get(b, D), 0x80);
	rtc_ops.write(&b->rtc, 0, 2, 0x6641, b->now); /* index and data at once */
	assert_int_equal(get(b, 0x41), 0x66);
	put(b, B, H24 | UIE);
	advance(b, 3 * SECOND);
	assert_true(b->irq);
	rtc_reset(&b->rtc, b->now);
	assert_false(b->irq);
	assert_int_equal(get(b, B), H24);
	assert_int_equal(get(b, 0x41), 0x66);
	assert_int_equal(get(b, SECONDS), 3);
}

static void test_memory_size(void **state)
{
	struct board *b = board(0);
	rtc_set_memory_size(&b->rtc, 0xc0000000, 0x140000000);
	assert_int_equal(get(b, 0x15) | get(b, 0x16) << 8, 640);
	assert_int_equal(get(b, 0x17) | get(b, 0x18) << 8, 0xffff);
	assert_int_equal(get(b, 0x34) | get(b, 0x35) << 8, 0xbf00);
	assert_int_equal(get(b, 0x5b) | get(b, 0x5c) << 8 | get(b, 0x5d) << 16, 0x14000);
	rtc_set_memory_size(&b->rtc, 0x800000, 0);
	assert_int_equal(get(b, 0x30) | get(b, 0x31) << 8, 7 * 1024);
	assert_int_equal(get(b, 0x34) | get(b, 0x35) << 8, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calendar),
		cmocka_unit_test(test_hour_formats),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_update_in_progress),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_divider_reset),
		cmocka_unit_test(test_write_while_running),
		cmocka_unit_test(test_update_interrupt),
		cmocka_unit_test(test_periodic_rates),
		cmocka_unit_test(test_flags_without_interrupts),
		cmocka_unit_test(test_alarm),
		cmocka_unit_test(test_alarm_12_hours),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_memory_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
