/* The local APIC's timer against Intel SDM volume 3, "APIC Timer". It counts at 1 GHz. */
#include "host/port.h"
#include "lapic.h"

enum { LVT = 0x320, INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0, PERIODIC = 1 << 17, TSC_DEADLINE = 2 << 17 };
#define TSC_HZ 2500000000ull

static struct board *timer(u32 mode)
{
	struct board *b = board(0);
	mmio_write(b, DIVIDE, 0xb); /* by 1 */
	mmio_write(b, LVT, 0x31 | mode);
	return b;
}

static void advance(struct board *b, u64 nanoseconds)
{
	b->now += nanoseconds;
	lapic_advance(&b->lapic, b->now);
}

/* Whether the timer's interrupt has come; takes it. */
static bool fired(struct board *b)
{
	if (lapic_acknowledge(&b->lapic) != 0x31)
		return false;
	mmio_write(b, 0x0b0, 0);
	return true;
}

static void test_one_shot(void **state)
{
	struct board *b = timer(0);

	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	mmio_write(b, INITIAL, 1000000);
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 1000000);
	advance(b, 400000);
	assert_int_equal(mmio_read(b, CURRENT), 600000);
	advance(b, 599999);
	assert_int_equal(mmio_read(b, CURRENT), 1);
	assert_false(fired(b));
	advance(b, 1);
	assert_true(fired(b));
	assert_int_equal(mmio_read(b, CURRENT), 0);
	assert_int_equal(mmio_read(b, INITIAL), 1000000);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	advance(b, 5000000);
	assert_false(fired(b));
}

static void test_zero_stops(void **state)
{
	struct board *b = timer(PERIODIC);

	mmio_write(b, INITIAL, 1000000);
	mmio_write(b, INITIAL, 0);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	assert_int_equal(mmio_read(b, CURRENT), 0);
}

/* "Divide Configuration Register". */
static void test_divider(void **state)
{
	static const struct {
		u32 value, divisor;
	} cases[] = { { 0x0, 2 },  { 0x1, 4 },  { 0x2, 8 },   { 0x3, 16 },
		      { 0x8, 32 }, { 0x9, 64 }, { 0xa, 128 }, { 0xb, 1 } };

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = timer(0);
		mmio_write(b, DIVIDE, cases[i].value);
		mmio_write(b, INITIAL, 10000);
		assert_int_equal(lapic_deadline(&b->lapic), b->now + 10000 * cases[i].divisor);
		advance(b, 2500 * cases[i].divisor);
		assert_int_equal(mmio_read(b, CURRENT), 7500);
	}
}

/* A new divider takes effect on the count that is left. */
static void test_divider_while_running(void **state)
{
	struct board *b = timer(0);

	mmio_write(b, INITIAL, 10000);
	advance(b, 4000);
	mmio_write(b, DIVIDE, 0x3);
	assert_int_equal(mmio_read(b, CURRENT), 6000);
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 6000 * 16);
}

static void test_largest_count(void **state)
{
	struct board *b = timer(0);

	mmio_write(b, DIVIDE, 0xa);
	mmio_write(b, INITIAL, 0xffffffff);
	assert_int_equal(mmio_read(b, CURRENT), 0xffffffff);
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 0xffffffffull * 128);
}

/* Late or not, the phase stays; several periods make one interrupt. */
static void test_periodic(void **state)
{
	struct board *b = timer(PERIODIC);
	u64 start = b->now;

	mmio_write(b, INITIAL, 1000000);
	for (unsigned i = 1; i <= 3; i++) {
		advance(b, 1000000);
		assert_true(fired(b));
		assert_int_equal(lapic_deadline(&b->lapic), start + (i + 1) * 1000000);
		assert_int_equal(mmio_read(b, CURRENT), 1000000);
	}
	advance(b, 10300000);
	assert_true(fired(b));
	assert_false(fired(b));
	assert_int_equal(lapic_deadline(&b->lapic), start + 14000000);
	assert_int_equal(mmio_read(b, CURRENT), 700000);
}

/* A guest cannot make the host busy with a period of a nanosecond. */
static void test_fast_periodic_is_thinned(void **state)
{
	struct board *b = timer(PERIODIC);

	mmio_write(b, INITIAL, 1);
	advance(b, 1);
	assert_true(fired(b));
	assert_int_equal(lapic_deadline(&b->lapic), b->now + LAPIC_MIN_PERIOD);
	advance(b, LAPIC_MIN_PERIOD - 1);
	assert_false(fired(b));
	assert_int_equal(mmio_read(b, CURRENT), 1);
	advance(b, 1);
	assert_true(fired(b));
}

static void test_masked(void **state)
{
	struct board *b = timer(0x10000);

	mmio_write(b, INITIAL, 1000000);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	b->now += 400000;
	assert_int_equal(mmio_read(b, CURRENT), 600000);
	b->now += 1000000;
	mmio_write(b, LVT, 0x31);
	assert_int_equal(mmio_read(b, CURRENT), 0); /* it went by unseen */
	assert_false(fired(b));
}

static struct board *tsc_timer(u64 tsc)
{
	struct board *b = timer(TSC_DEADLINE);
	lapic_set_tsc(&b->lapic, tsc, b->now, TSC_HZ);
	return b;
}

static void test_tsc_deadline(void **state)
{
	struct board *b = tsc_timer(1000);

	assert_true(msr_write(b, MSR_TSC_DEADLINE, 1000 + TSC_HZ));
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 1000000000);
	assert_int_equal(msr(b, MSR_TSC_DEADLINE), 1000 + TSC_HZ);
	assert_int_equal(mmio_read(b, CURRENT), 0);
	advance(b, 999999999);
	assert_false(fired(b));
	advance(b, 1);
	assert_true(fired(b));
	assert_int_equal(msr(b, MSR_TSC_DEADLINE), 0);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
}

/* Never early: a part of a nanosecond is a whole one. */
static void test_tsc_deadline_rounds_up(void **state)
{
	struct board *b = tsc_timer(1000);

	msr_write(b, MSR_TSC_DEADLINE, 1001);
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 1);
}

static void test_tsc_deadline_in_the_past(void **state)
{
	struct board *b = tsc_timer(1000);

	msr_write(b, MSR_TSC_DEADLINE, 1000);
	assert_true(fired(b));
	msr_write(b, MSR_TSC_DEADLINE, 1);
	assert_true(fired(b));
	msr_write(b, MSR_TSC_DEADLINE, 1000 + TSC_HZ);
	msr_write(b, MSR_TSC_DEADLINE, 0);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	msr_write(b, MSR_TSC_DEADLINE, ~0ull); /* centuries away */
	assert_true(lapic_deadline(&b->lapic) > 200ull * 365 * 86400 * 1000000000);
	assert_false(fired(b));
}

/* When the guest moves its TSC, the deadline stays one of the TSC. */
static void test_tsc_is_moved(void **state)
{
	struct board *b = tsc_timer(0);

	msr_write(b, MSR_TSC_DEADLINE, 2 * TSC_HZ);
	lapic_set_tsc(&b->lapic, TSC_HZ, b->now, TSC_HZ);
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 1000000000);
	lapic_set_tsc(&b->lapic, 3 * TSC_HZ, b->now, TSC_HZ);
	advance(b, 0);
	assert_true(fired(b));
}

/* "TSC-Deadline Mode": going to or from it disarms; outside it the MSR reads 0 and ignores writes. */
static void test_mode_switch(void **state)
{
	struct board *b = timer(0);

	lapic_set_tsc(&b->lapic, 0, b->now, TSC_HZ);
	assert_true(msr_write(b, MSR_TSC_DEADLINE, 12345));
	assert_int_equal(msr(b, MSR_TSC_DEADLINE), 0);
	mmio_write(b, INITIAL, 1000000);
	mmio_write(b, LVT, 0x31 | PERIODIC); /* goes on */
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 1000000);
	mmio_write(b, LVT, 0x31 | TSC_DEADLINE);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	mmio_write(b, INITIAL, 1000000);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	msr_write(b, MSR_TSC_DEADLINE, TSC_HZ);
	mmio_write(b, LVT, 0x31);
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	mmio_write(b, LVT, 0x31 | TSC_DEADLINE);
	assert_int_equal(msr(b, MSR_TSC_DEADLINE), 0);
}

static void test_tsc_deadline_absent(void **state)
{
	struct board *b = board(0);
	u64 value;

	b->lapic.has_tsc_deadline = false;
	assert_false(lapic_msr_read(&b->lapic, MSR_TSC_DEADLINE, b->now, &value));
	assert_false(msr_write(b, MSR_TSC_DEADLINE, 1));
	mmio_write(b, LVT, 0x31 | TSC_DEADLINE);
	assert_int_equal(mmio_read(b, LVT), 0x31);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_shot),
		cmocka_unit_test(test_zero_stops),
		cmocka_unit_test(test_divider),
		cmocka_unit_test(test_divider_while_running),
		cmocka_unit_test(test_largest_count),
		cmocka_unit_test(test_periodic),
		cmocka_unit_test(test_fast_periodic_is_thinned),
		cmocka_unit_test(test_masked),
		cmocka_unit_test(test_tsc_deadline),
		cmocka_unit_test(test_tsc_deadline_rounds_up),
		cmocka_unit_test(test_tsc_deadline_in_the_past),
		cmocka_unit_test(test_tsc_is_moved),
		cmocka_unit_test(test_mode_switch),
		cmocka_unit_test(test_tsc_deadline_absent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
