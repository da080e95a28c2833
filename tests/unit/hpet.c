/* The high precision event timer: its counter, comparators once and again, late ones, and where interrupts go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/hpet.h"
#include "dev/map.h"
#include "host/port.h"

enum { CAPABILITIES = 0x00, CONFIG = 0x10, STATUS = 0x20, COUNTER = 0xf0, TIMER0 = 0x100, TIMER1 = 0x120, COMPARATOR = 8 };
enum { LEVEL = 2, INTERRUPTS = 4, PERIODIC = 8, SET_VALUE = 64, NARROW = 256 };
#define ROUTE(pin) ((u32)(pin) << 9)

static struct machine {
	struct bus bus;
	struct hpet hpet;
	unsigned rises[HPET_ROUTE_FIRST + HPET_ROUTES];
	bool level[HPET_ROUTE_FIRST + HPET_ROUTES];
	u64 now;
} m;

static void line(void *opaque, unsigned pin, bool level)
{
	m.rises[pin] += level;
	m.level[pin] = level;
}

static u64 get(u64 offset)
{
	return bus_read(&m.bus, MAP_HPET + offset, 8, m.now);
}

static void set(u64 offset, u64 value)
{
	bus_write(&m.bus, MAP_HPET + offset, 8, value, m.now);
}

/* As the machine does it: up to each deadline. */
static void pass(u64 nanoseconds)
{
	u64 end = m.now + nanoseconds;
	while (hpet_deadline(&m.hpet) <= end) {
		m.now = MAX(m.now, hpet_deadline(&m.hpet));
		hpet_advance(&m.hpet, m.now);
	}
	m.now = end;
}

static int setup(void **state)
{
	memset(&m, 0, sizeof(m));
	m.now = 123456789;
	for (unsigned i = 0; i < HPET_LEGACY; i++)
		m.hpet.legacy[i] = (struct wire){ .sink = line, .pin = i * 8 };
	for (unsigned i = 0; i < HPET_ROUTES; i++)
		m.hpet.route[i] = (struct wire){ .sink = line, .pin = HPET_ROUTE_FIRST + i };
	return hpet_attach(&m.hpet, &m.bus);
}

static void counts(void **state)
{
	assert_int_equal(get(CAPABILITIES) >> 32, 10000000); /* femtoseconds */
	assert_int_equal(get(COUNTER), 0);
	m.now += 1000;
	assert_int_equal(get(COUNTER), 0);
	set(CONFIG, 1);
	m.now += 1000;
	assert_int_equal(get(COUNTER), 100);
	set(CONFIG, 0);
	m.now += 1000;
	assert_int_equal(get(COUNTER), 100);
	bus_write(&m.bus, MAP_HPET + COUNTER + 4, 4, 7, m.now);
	set(CONFIG, 1);
	m.now += 50;
	assert_int_equal(get(COUNTER), 0x700000069);
	assert_int_equal(bus_read(&m.bus, MAP_HPET + COUNTER + 4, 4, m.now), 7);
}

static void fires_once(void **state)
{
	set(CONFIG, 1);
	set(TIMER0, INTERRUPTS | ROUTE(21));
	set(TIMER0 + COMPARATOR, get(COUNTER) + 1000);
	assert_int_equal(hpet_deadline(&m.hpet) / 10, m.now / 10 + 1000);
	pass(9980);
	assert_int_equal(m.rises[21], 0);
	pass(30);
	assert_int_equal(m.rises[21], 1);
	assert_false(m.level[21]);
	assert_int_equal(hpet_deadline(&m.hpet), HOST_NEVER);
	set(TIMER0, INTERRUPTS | NARROW | ROUTE(21)); /* 32 bits go round */
	set(TIMER0 + COMPARATOR, (u32)get(COUNTER) - 1);
	pass(43000000000);
	assert_int_equal(m.rises[21], 2);
}

static void repeats(void **state)
{
	set(CONFIG, 1);
	set(TIMER0, INTERRUPTS | PERIODIC | SET_VALUE | ROUTE(20));
	set(TIMER0 + COMPARATOR, 500);
	set(TIMER0 + COMPARATOR, 100000); /* each millisecond */
	assert_int_equal(get(TIMER0) & SET_VALUE, 0);
	pass(10100000);
	assert_int_equal(m.rises[20], 11);
	assert_int_equal(get(TIMER0 + COMPARATOR), 500 + 11 * 100000);
	m.now += 50000000; /* nobody looked for a while */
	hpet_advance(&m.hpet, m.now);
	assert_int_equal(m.rises[20], 12);
	assert_int_equal(get(TIMER0 + COMPARATOR) % 100000, 500);
	pass(1000000);
	assert_int_equal(m.rises[20], 13);
	set(TIMER0, INTERRUPTS | PERIODIC | SET_VALUE | ROUTE(20));
	set(TIMER0 + COMPARATOR, get(COUNTER) + 1);
	set(TIMER0 + COMPARATOR, 1); /* thinned out */
	unsigned before = m.rises[20];
	pass(1000000);
	assert_in_range(m.rises[20] - before, 10, 21);
}

static void levels(void **state)
{
	set(CONFIG, 1);
	set(TIMER0, LEVEL | INTERRUPTS | ROUTE(22));
	set(TIMER1, LEVEL | INTERRUPTS | ROUTE(22));
	set(TIMER0 + COMPARATOR, 100);
	set(TIMER1 + COMPARATOR, 200);
	pass(3000);
	assert_int_equal(get(STATUS), 3);
	assert_true(m.level[22]);
	set(STATUS, 1);
	assert_true(m.level[22]);
	set(STATUS, 2);
	assert_false(m.level[22]);
	assert_int_equal(m.rises[22], 1);
	set(TIMER0, INTERRUPTS | ROUTE(5)); /* no route that it has */
	set(TIMER0 + COMPARATOR, get(COUNTER) + 10);
	pass(3000);
	assert_int_equal(m.rises[5], 0);
}

static void replaces(void **state)
{
	assert_false(hpet_replaces(&m.hpet));
	set(CONFIG, 3);
	assert_true(hpet_replaces(&m.hpet));
	set(TIMER0, INTERRUPTS);
	set(TIMER1, INTERRUPTS);
	set(TIMER0 + COMPARATOR, 100);
	set(TIMER1 + COMPARATOR, 200);
	pass(1500);
	assert_int_equal(m.rises[0], 1);
	assert_true(m.level[0]); /* the 8259 pair waits for its acknowledge */
	assert_int_equal(m.rises[8], 0);
	pass(1500);
	assert_int_equal(m.rises[8], 1);
	hpet_reset(&m.hpet);
	assert_false(m.level[0] || m.level[8] || hpet_replaces(&m.hpet));
	assert_int_equal(hpet_deadline(&m.hpet), HOST_NEVER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(counts, setup), cmocka_unit_test_setup(fires_once, setup), cmocka_unit_test_setup(repeats, setup),
		cmocka_unit_test_setup(levels, setup), cmocka_unit_test_setup(replaces, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
