/* virtio keyboard and tablet: what they say they have, events, and drivers that leave no room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/input.h"
#include "fake_host.h"
#include "virtio_driver.h"

enum { EVENTS, STATUS };
enum { SELECT = 0x2000, SUBSELECT, SIZE, DATA = 0x2008 }; /* in the BAR */
enum { EV_SYN, EV_KEY, EV_REL, EV_ABS, EV_LED = 0x11, EV_REP = 0x14 };
#define ROOM 0x30000ull

static struct machine {
	struct driver driver;
	struct virtio_input input;
	u16 offered; /* buffers */
} *machine;

static int setup(enum input_kind kind)
{
	struct machine *m = machine = host_alloc(sizeof(*m));
	m->input.kind = kind;
	assert_true(driver_create(&m->driver));
	assert_int_equal(virtio_input_attach(&m->input, &m->driver.pci, &m->driver.ram, DRIVER_SLOT, 0), 0);
	driver_plug(&m->driver);
	driver_start(&m->driver, 0, 2);
	return 0;
}

static int setup_keyboard(void **state)
{
	return setup(INPUT_KEYBOARD);
}

static int setup_tablet(void **state)
{
	return setup(INPUT_TABLET);
}

static int teardown(void **state)
{
	driver_destroy(&machine->driver);
	host_free(machine);
	return 0;
}

/* ---- what it says it has ---- */

static unsigned ask(u8 select, u8 subselect)
{
	driver_set(&machine->driver, SELECT, 1, select);
	driver_set(&machine->driver, SUBSELECT, 1, subselect);
	return (unsigned)driver_get(&machine->driver, SIZE, 1);
}

static bool bit(unsigned number)
{
	return driver_get(&machine->driver, DATA + number / 8, 1) >> number % 8 & 1;
}

static void expect_name(const char *name)
{
	char text[32] = { 0 };
	unsigned size = ask(1, 0);
	assert_int_equal(size, strlen(name));
	for (unsigned i = 0; i < size; i++)
		text[i] = (char)driver_get(&machine->driver, DATA + i, 1);
	assert_string_equal(text, name);
}

static void keyboard_has(void **state)
{
	expect_name("nadir keyboard");
	assert_int_equal(ask(3, 0), 8);
	assert_int_equal(driver_get(&machine->driver, DATA, 4), 0x06270006);
	assert_int_equal(ask(0x11, EV_KEY), 166 / 8 + 1); /* the last is KEY_STOPCD */
	assert_false(bit(0));
	for (unsigned key = 1; key < 84; key++)
		assert_true(bit(key));
	assert_true(bit(88) && bit(96) && bit(111) && bit(166));
	assert_false(bit(84));
	assert_int_equal(ask(0x11, EV_LED), 1);
	assert_int_equal(driver_get(&machine->driver, DATA, 1), 7);
	assert_int_equal(ask(0x11, EV_REP), 1);
	assert_int_equal(ask(0x11, EV_ABS), 0);
	assert_int_equal(ask(0x12, 0), 0);
	assert_int_equal(ask(1, 1), 0);
	assert_int_equal(ask(0xff, 0xff), 0);
}

static void tablet_has(void **state)
{
	expect_name("nadir tablet");
	assert_int_equal(ask(0x11, EV_KEY), 0x113 / 8 + 1);
	assert_true(bit(0x110) && bit(0x111) && bit(0x112) && bit(0x113));
	assert_false(bit(0x10f) || bit(0x114));
	assert_int_equal(ask(0x11, EV_REL), 2);
	assert_true(bit(6) && bit(8));
	assert_int_equal(ask(0x11, EV_ABS), 1);
	assert_int_equal(driver_get(&machine->driver, DATA, 1), 3);
	assert_int_equal(ask(0x11, EV_LED), 0);
	assert_int_equal(ask(0x11, EV_REP), 0);
	for (u8 axis = 0; axis < 2; axis++) {
		assert_int_equal(ask(0x12, axis), 20);
		assert_int_equal(driver_get(&machine->driver, DATA, 4), 0);
		assert_int_equal(driver_get(&machine->driver, DATA + 4, 4), 0x7fff);
	}
	assert_int_equal(ask(0x12, 2), 0);
}

/* Nothing but the two selectors can be written. */
static void wrong_writes(void **state)
{
	ask(1, 0);
	driver_set(&machine->driver, SIZE, 1, 0xff);
	driver_set(&machine->driver, SELECT, 4, 0x11111111);
	driver_set(&machine->driver, DATA, 4, 0x11111111);
	driver_set(&machine->driver, 0x2fff, 1, 1);
	expect_name("nadir keyboard");
}

/* ---- events ---- */

static void offer(u16 count, u32 size)
{
	for (u16 i = 0; i < count; i++) {
		driver_descriptor(&machine->driver, EVENTS, machine->offered, ROOM + machine->offered * 8ull, size, DESC_WRITE);
		driver_put(&machine->driver, EVENTS, machine->offered++);
	}
	driver_notify(&machine->driver, EVENTS);
}

static void expect(u16 which, u16 type, u16 code, u32 value)
{
	struct input_event e;
	assert_true(which < driver_used(&machine->driver, EVENTS));
	memcpy(&e, machine->driver.bytes + ROOM + which * 8ull, sizeof(e));
	assert_int_equal(e.type, type);
	assert_int_equal(e.code, code);
	assert_int_equal((s32)e.value, (s32)value);
	assert_int_equal(driver_written(&machine->driver, EVENTS, which), 8);
}

static void keys(void **state)
{
	static const struct {
		u16 code, key;
	} rows[] = { { 0x1e, 30 }, { 0xe04d, 106 }, { 0xe01c, 96 }, { 0x58, 88 } };
	offer(2 * ARRAY_SIZE(rows), 8);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_true(virtio_input_key(&machine->input, rows[i].code, i & 1));
		expect(2 * i, EV_KEY, rows[i].key, i & 1);
		expect(2 * i + 1, EV_SYN, 0, 0);
	}
	assert_true(virtio_input_key(&machine->input, 0, true));
	assert_true(virtio_input_key(&machine->input, 0xe07f, true)); /* no key: nothing */
	assert_int_equal(machine->input.count, 0);
}

static void no_room(void **state)
{
	unsigned taken = 0;
	while (virtio_input_key(&machine->input, 0x1e, taken % 2 == 0))
		taken++;
	assert_in_range(taken, 20, INPUT_QUEUE_SIZE / 2);
	offer(3, 8);
	expect(0, EV_KEY, 30, 1);
	expect(1, EV_SYN, 0, 0);
	expect(2, EV_KEY, 30, 0);
	offer(1, 8);
	expect(3, EV_SYN, 0, 0);
	offer(100, 8);
	assert_int_equal(driver_used(&machine->driver, EVENTS), 2 * taken);
	assert_true(virtio_input_key(&machine->input, 0x1e, true));
	driver_set(&machine->driver, 20, 1, 0);
	assert_int_equal(machine->input.count, 0);
}

static void pointer(void **state)
{
	offer(30, 8);
	assert_true(virtio_input_pointer(&machine->input, 100, 200, 0));
	expect(0, EV_ABS, 0, 100);
	expect(1, EV_ABS, 1, 200);
	expect(2, EV_SYN, 0, 0);
	assert_true(virtio_input_pointer(&machine->input, 100, 200, 0)); /* nothing new */
	assert_int_equal(driver_used(&machine->driver, EVENTS), 3);
	assert_true(virtio_input_pointer(&machine->input, 100, 0x7fff, 5));
	expect(3, EV_ABS, 1, 0x7fff);
	expect(4, EV_KEY, 0x110, 1);
	expect(5, EV_KEY, 0x111, 1);
	expect(6, EV_SYN, 0, 0);
	assert_true(virtio_input_pointer(&machine->input, 100, 0x7fff, 0x12));
	expect(7, EV_KEY, 0x110, 0);
	expect(8, EV_KEY, 0x112, 1);
	expect(9, EV_KEY, 0x111, 0);
	expect(10, EV_REL, 8, (u32)-1);
	expect(11, EV_SYN, 0, 0);
	assert_true(virtio_input_pointer(&machine->input, 100, 0x7fff, 2)); /* a wheel does not come back */
	expect(12, EV_SYN, 0, 0);
}

/* Movement that is lost is made good by what comes next. */
static void pointer_without_room(void **state)
{
	u16 x = 0;
	while (virtio_input_pointer(&machine->input, ++x, 5, 0))
		;
	assert_true(x < INPUT_QUEUE_SIZE);
	offer(128, 8);
	u16 used = driver_used(&machine->driver, EVENTS);
	assert_true(virtio_input_pointer(&machine->input, x, 5, 1));
	expect(used, EV_ABS, 0, x);
	expect(used + 1, EV_KEY, 0x110, 1);
}

/* Short and split buffers harm nobody. */
static void odd_buffers(void **state)
{
	offer(1, 3);
	driver_descriptor(&machine->driver, EVENTS, 1, ROOM + 8, 5, DESC_WRITE | DESC_NEXT);
	driver_descriptor(&machine->driver, EVENTS, 2, ROOM + 13, 100, DESC_WRITE);
	driver_put(&machine->driver, EVENTS, 1);
	driver_descriptor(&machine->driver, EVENTS, 3, ROOM, 8, 0); /* not to be written */
	driver_offer(&machine->driver, EVENTS, 3);
	assert_true(virtio_input_key(&machine->input, 0x1e, true));
	assert_int_equal(driver_written(&machine->driver, EVENTS, 0), 3);
	expect(1, EV_SYN, 0, 0);
	assert_true(virtio_input_key(&machine->input, 0x1e, false));
	assert_int_equal(driver_written(&machine->driver, EVENTS, 2), 0);
}

static void lights(void **state)
{
	for (u16 i = 0; i < 3; i++) {
		driver_descriptor(&machine->driver, STATUS, i, ROOM, 8, 0);
		driver_offer(&machine->driver, STATUS, i);
	}
	assert_int_equal(driver_used(&machine->driver, STATUS), 3);
}

#define TEST(name, setup) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(keyboard_has, setup_keyboard), TEST(tablet_has, setup_tablet), TEST(wrong_writes, setup_keyboard), TEST(keys, setup_keyboard),
		TEST(no_room, setup_keyboard), TEST(pointer, setup_tablet), TEST(pointer_without_room, setup_tablet), TEST(odd_buffers, setup_keyboard),
		TEST(lights, setup_keyboard),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
