/* The 8254 against its data sheet ("Mode Definitions", "Read Operations") and port 61H. Times are ticks of its clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/pit.h"
#include "host/port.h"
#include "lib/scale.h"

struct board {
	struct pit pit;
	u64 tick;
	unsigned edges;
	bool level;
};

static void on_irq(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;
	b->level = level;
	b->edges += level;
}

static u64 nanoseconds(u64 tick)
{
	return scale_ceil(tick, NANOSECONDS_PER_SECOND, PIT_HZ);
}

static u64 now(const struct board *b)
{
	return nanoseconds(b->tick);
}

static struct board *board(void)
{
	static struct board b;
	b = (struct board){ .tick = 1000000, .pit.irq = { .sink = on_irq, .opaque = &b } };
	pit_reset(&b.pit);
	return &b;
}

static void out(struct board *b, unsigned port, u8 value)
{
	pit_ops.write(&b->pit, port, 1, value, now(b));
}

static u8 in(struct board *b, unsigned port)
{
	return (u8)pit_ops.read(&b->pit, port, 1, now(b));
}

static u16 in16(struct board *b, unsigned port)
{
	u8 low = in(b, port);
	return (u16)(low | in(b, port) << 8);
}

static void gate(struct board *b, bool high)
{
	system_control_ops.write(&b->pit, 0, 1, high, now(b));
}

static bool out2(struct board *b)
{
	return system_control_ops.read(&b->pit, 0, 1, now(b)) & 0x20;
}

/* Load a channel: low byte, then high byte. */
static void set(struct board *b, unsigned channel, unsigned mode, u16 count)
{
	out(b, 3, (u8)(channel << 6 | 0x30 | mode << 1));
	out(b, channel, (u8)count);
	out(b, channel, (u8)(count >> 8));
}

/* Latch and read a channel's count. */
static u16 latched(struct board *b, unsigned channel)
{
	out(b, 3, (u8)(channel << 6));
	return in16(b, channel);
}

/* OUT2 at the given ticks after the write of the count, in every mode. The load itself takes one tick. */
static void test_waveforms(void **state)
{
	static const struct {
		unsigned mode, count;
		const char *wave; /* OUT at ticks 0, 1, 2, ... */
	} cases[] = {
		{ 0, 4, "000001111111" }, { 2, 3, "111011011011" }, { 3, 4, "111001100110" },
		{ 3, 5, "111100111001" }, { 4, 3, "111101111111" }, { 6, 3, "111011011011" }, /* 6 is 2 */
		{ 2, 1, "110101010101" }, /* 1 is illegal: taken as 2 */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board();
		gate(b, true);
		set(b, 2, cases[i].mode, (u16)cases[i].count);
		for (const char *w = cases[i].wave; *w; w++, b->tick++)
			assert_int_equal(out2(b), *w == '1');
	}
}

/* Modes 1 and 5 start when the gate rises, and again when it rises again. */
static void test_triggered_waveforms(void **state)
{
	static const struct {
		unsigned mode;
		const char *gate, *wave;
	} cases[] = {
		{ 1, "0011111111", "1110001111" },
		{ 1, "0010100000", "1110000011" }, /* retriggered at 4 */
		{ 5, "0011111111", "1111110111" },
		{ 5, "0010100000", "1111111101" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board();
		set(b, 2, cases[i].mode, 3);
		for (unsigned t = 0; cases[i].wave[t]; t++, b->tick++) {
			gate(b, cases[i].gate[t] == '1');
			assert_int_equal(out2(b), cases[i].wave[t] == '1');
		}
	}
}

/* "Gate Operation": a low gate holds modes 0 and 4; it makes OUT high and restarts modes 2 and 3. */
static void test_gate(void **state)
{
	static const struct {
		unsigned mode;
		const char *gate, *wave;
	} cases[] = {
		{ 0, "1110001111", "0000000111" }, { 4, "1110001111", "1111111011" }, { 2, "1111011111", "1110111101" },
		{ 3, "1111011111", "1110111100" }, { 0, "0000111111", "0000000111" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board();
		gate(b, cases[i].gate[0] == '1');
		set(b, 2, cases[i].mode, cases[i].mode == 3 ? 4 : 3);
		for (unsigned t = 0; cases[i].wave[t]; t++, b->tick++) {
			gate(b, cases[i].gate[t] == '1');
			assert_int_equal(out2(b), cases[i].wave[t] == '1');
		}
	}
}

static void test_counting(void **state)
{
	static const struct {
		unsigned mode, count, ticks, expected;
	} cases[] = {
		{ 0, 1000, 0, 1000 },      { 0, 1000, 1, 1000 },    { 0, 1000, 11, 990 }, { 0, 1000, 1001, 0 },
		{ 0, 1000, 1002, 0xffff }, { 0, 0, 1, 0 },          { 0, 0, 2, 0xffff },  { 2, 1000, 1, 1000 },
		{ 2, 1000, 1000, 1 },      { 2, 1000, 1001, 1000 }, { 3, 1000, 11, 980 }, { 3, 1000, 511, 980 },
		{ 4, 1000, 1002, 0xffff },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board();
		set(b, 1, cases[i].mode, (u16)cases[i].count);
		b->tick += cases[i].ticks;
		assert_int_equal(in16(b, 1), cases[i].expected);
	}
}

static void test_bcd(void **state)
{
	struct board *b = board();
	out(b, 3, 0x71);
	out(b, 1, 0x00);
	out(b, 1, 0x10);
	b->tick += 2;
	assert_int_equal(in16(b, 1), 0x0999);
	b->tick += 1000;
	assert_int_equal(in16(b, 1), 0x9999);
	out(b, 3, 0x71);
	out(b, 1, 0);
	out(b, 1, 0); /* 10000 */
	b->tick += 11;
	assert_int_equal(in16(b, 1), 0x9990);
}

/* "Counter Latch Command": holds until read; a second one before that is ignored. */
static void test_latch(void **state)
{
	struct board *b = board();
	set(b, 1, 2, 0x8000);
	b->tick += 0x1001;
	out(b, 3, 0x40);
	b->tick += 0x100;
	out(b, 3, 0x40);
	assert_int_equal(in16(b, 1), 0x7000);
	assert_int_equal(in16(b, 1), 0x6f00);
	assert_int_equal(latched(b, 1), 0x6f00);
}

static void test_single_byte_access(void **state)
{
	struct board *b = board();
	out(b, 3, 0x54); /* channel 1, low byte, mode 2 */
	out(b, 1, 0x12);
	b->tick += 3;
	assert_int_equal(in(b, 1), 0x10);
	assert_int_equal(in(b, 1), 0x10);
	out(b, 3, 0x64); /* high byte */
	out(b, 1, 0x12);
	b->tick += 2;
	assert_int_equal(in(b, 1), 0x11);
	out(b, 3, 0x40);
	assert_int_equal(in(b, 1), 0x11);
}

/* "Read-Back Command": status first, then count; null count until the load. */
static void test_read_back(void **state)
{
	struct board *b = board();
	out(b, 3, 0x74);
	out(b, 3, 0xe4);                  /* status of channel 1 */
	assert_int_equal(in(b, 1), 0xf4); /* OUT, null count, both bytes, mode 2 */
	out(b, 1, 0x00);
	out(b, 1, 0x80);
	b->tick += 2;
	out(b, 3, 0xc4);
	b->tick += 0x10;
	assert_int_equal(in(b, 1), 0xb4);
	assert_int_equal(in16(b, 1), 0x7fff);
	assert_int_equal(in16(b, 1), 0x7fef);
	out(b, 3, 0xd6); /* counts of channels 0 and 1 */
	b->tick += 0x10;
	assert_int_equal(in16(b, 1), 0x7fef);
	assert_int_equal(in(b, 3), 0xff);
}

/* A new count waits for the end of the cycle in modes 2 and 3 (half-cycle), and is loaded at once in mode 0. */
static void test_new_count(void **state)
{
	static const struct {
		unsigned mode;
		const char *wave; /* count 6; at tick 2 count 4 is written */
	} cases[] = { { 2, "11111101110111" }, { 3, "11110011001100" }, { 0, "00000001111111" } };

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board();
		gate(b, true);
		set(b, 2, cases[i].mode, 6);
		for (unsigned t = 0; cases[i].wave[t]; t++, b->tick++) {
			if (t == 2) {
				out(b, 2, 4);
				out(b, 2, 0);
			}
			assert_int_equal(out2(b), cases[i].wave[t] == '1');
		}
	}
}

/* ---- the wire ---- */

static void test_periodic_wire(void **state)
{
	struct board *b = board();
	assert_int_equal(pit_deadline(&b->pit), HOST_NEVER);
	set(b, 0, 2, 11932);
	for (unsigned i = 1; i <= 3; i++) {
		u64 edge = nanoseconds(1000001 + i * 11932);
		assert_int_equal(pit_deadline(&b->pit), edge);
		pit_advance(&b->pit, edge - 1);
		assert_int_equal(b->edges, i - 1);
		pit_advance(&b->pit, edge);
		assert_int_equal(b->edges, i);
	}
}

/* Late by many periods: one edge, and the phase is kept. */
static void test_lateness(void **state)
{
	struct board *b = board();
	set(b, 0, 3, 11932);
	pit_advance(&b->pit, nanoseconds(1000001 + 100 * 11932 + 50));
	assert_int_equal(b->edges, 1);
	assert_int_equal(pit_deadline(&b->pit), nanoseconds(1000001 + 101 * 11932));
}

static void test_fast_periods_are_thinned(void **state)
{
	struct board *b = board();
	set(b, 0, 2, 2);
	u64 first = pit_deadline(&b->pit);
	pit_advance(&b->pit, first);
	assert_int_equal(b->edges, 1);
	assert_int_equal(pit_deadline(&b->pit), first + PIT_MIN_PERIOD);
	pit_advance(&b->pit, first + PIT_MIN_PERIOD - 1);
	assert_int_equal(b->edges, 1);
}

static void test_one_shot_wire(void **state)
{
	struct board *b = board();
	set(b, 0, 0, 1000);
	assert_false(b->level);
	assert_int_equal(pit_deadline(&b->pit), nanoseconds(1000000 + 1001));
	pit_advance(&b->pit, pit_deadline(&b->pit));
	assert_true(b->level);
	assert_int_equal(pit_deadline(&b->pit), HOST_NEVER);
	b->tick += 5000;
	set(b, 0, 0, 1000); /* the control word takes it down, so that it can rise again */
	assert_false(b->level);
	pit_advance(&b->pit, pit_deadline(&b->pit));
	assert_int_equal(b->edges, 2);
	set(b, 0, 4, 1000); /* the strobe ends one tick after the count */
	b->tick += 1001;
	pit_advance(&b->pit, now(b));
	assert_int_equal(b->edges, 2);
	b->tick += 1;
	pit_advance(&b->pit, now(b));
	assert_int_equal(b->edges, 3);
	assert_int_equal(pit_deadline(&b->pit), HOST_NEVER);
}

static void test_system_control(void **state)
{
	struct board *b = board();
	system_control_ops.write(&b->pit, 0, 1, 0xff, now(b));
	assert_int_equal(system_control_ops.read(&b->pit, 0, 1, 0) & 0xcf, 0x0f);
	assert_int_equal(system_control_ops.read(&b->pit, 0, 1, 15084) & 0x10, 0);
	assert_int_equal(system_control_ops.read(&b->pit, 0, 1, 15085) & 0x10, 0x10);
	assert_int_equal(system_control_ops.read(&b->pit, 0, 1, 30170) & 0x10, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waveforms),
		cmocka_unit_test(test_triggered_waveforms),
		cmocka_unit_test(test_gate),
		cmocka_unit_test(test_counting),
		cmocka_unit_test(test_bcd),
		cmocka_unit_test(test_latch),
		cmocka_unit_test(test_single_byte_access),
		cmocka_unit_test(test_read_back),
		cmocka_unit_test(test_new_count),
		cmocka_unit_test(test_periodic_wire),
		cmocka_unit_test(test_lateness),
		cmocka_unit_test(test_fast_periods_are_thinned),
		cmocka_unit_test(test_one_shot_wire),
		cmocka_unit_test(test_system_control),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
