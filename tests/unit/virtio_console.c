/* The virtio console device: bytes both ways, ports and their control messages, and drivers that do not keep up or keep to the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/console.h"
#include "fake_host.h"
#include "virtio_driver.h"

enum { RX, TX, CONTROL_RX, CONTROL_TX, RX1, TX1 };
enum { DEVICE_READY, PORT_ADD, PORT_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME };
#define MULTIPORT BIT(1)
#define DATA 0x20000ull
#define ROOM 0x30000ull

static struct machine {
	struct driver driver;
	struct virtio_console console;
	struct line {
		char sent[256];
		unsigned count;
		const char *typed;
	} line[3];
} *machine;

static void put(void *opaque, u8 byte)
{
	struct line *l = opaque;
	l->sent[l->count++ % 255] = (char)byte;
}

static bool get(void *opaque, u8 *byte)
{
	struct line *l = opaque;
	if (!l->typed || !*l->typed)
		return false;
	*byte = (u8)*l->typed++;
	return true;
}

static int setup(void **state)
{
	static const char *const names[] = { NULL, "org.example.agent", "a-name-of-more-characters-than-there-is-room-for" };
	struct machine *m = machine = host_alloc(sizeof(*m));
	m->console.ports = 3;
	for (unsigned i = 0; i < 3; i++)
		m->console.cable[i] = (struct console_cable){ put, get, &m->line[i], names[i] };
	assert_true(driver_create(&m->driver));
	assert_int_equal(virtio_console_attach(&m->console, &m->driver.pci, &m->driver.ram, DRIVER_SLOT), 0);
	driver_plug(&m->driver);
	driver_start(&m->driver, MULTIPORT, 6);
	return 0;
}

static int teardown(void **state)
{
	driver_destroy(&machine->driver);
	host_free(machine);
	return 0;
}

static void send(unsigned queue, const void *bytes, u32 size)
{
	memcpy(machine->driver.bytes + DATA, bytes, size);
	driver_descriptor(&machine->driver, queue, 0, DATA, size, 0);
	driver_offer(&machine->driver, queue, 0);
}

static void send_control(u32 port, u16 event, u16 value)
{
	struct {
		u32 port;
		u16 event, value;
	} m = { port, event, value };
	send(CONTROL_TX, &m, sizeof(m));
}

/* Give room for `count` buffers of `size` bytes. */
static void offer_room(unsigned queue, u16 from, u16 count, u32 size)
{
	for (u16 i = from; i < from + count; i++) {
		driver_descriptor(&machine->driver, queue, i, ROOM + i * 64ull, size, DESC_WRITE);
		driver_put(&machine->driver, queue, i);
	}
	driver_notify(&machine->driver, queue);
}

static const char *room(u16 index, u32 size)
{
	static char text[65];
	memcpy(text, machine->driver.bytes + ROOM + index * 64ull, size);
	text[size] = 0;
	return text;
}

static void output(void **state)
{
	send(TX, "hello", 5);
	assert_string_equal(machine->line[0].sent, "hello");
	send(TX1, "agent", 5);
	assert_string_equal(machine->line[1].sent, "agent");
	assert_int_equal(driver_used(&machine->driver, TX), 1);
	assert_int_equal(driver_used(&machine->driver, TX1), 1);
}

static void emergency(void **state)
{
	driver_set(&machine->driver, 20, 1, 0);
	driver_set(&machine->driver, 0x2008, 4, '!');
	assert_string_equal(machine->line[0].sent, "!");
	assert_int_equal(driver_get(&machine->driver, 0x2004, 4), 3);
}

/* Input waits for room, room for input; no buffer is taken without need. */
static void input(void **state)
{
	machine->line[0].typed = "hello";
	virtio_console_input(&machine->console, 0);
	assert_int_equal(driver_used(&machine->driver, RX), 0);
	offer_room(RX, 0, 3, 4);
	assert_int_equal(driver_used(&machine->driver, RX), 2);
	assert_int_equal(driver_written(&machine->driver, RX, 0), 4);
	assert_string_equal(room(0, 4), "hell");
	assert_int_equal(driver_written(&machine->driver, RX, 1), 1);
	assert_string_equal(room(1, 1), "o");
	machine->line[0].typed = "x";
	virtio_console_input(&machine->console, 0);
	assert_int_equal(driver_used(&machine->driver, RX), 3);
	assert_string_equal(room(2, 1), "x");
}

static void expect_message(u16 index, u32 port, u16 event, const char *name)
{
	struct {
		u32 port;
		u16 event, value;
		char name[CONSOLE_NAME_MAX];
	} m;
	u32 size = driver_written(&machine->driver, CONTROL_RX, index);
	memcpy(&m, machine->driver.bytes + ROOM + index * 64ull, sizeof(m));
	assert_int_equal(m.port, port);
	assert_int_equal(m.event, event);
	assert_int_equal(m.value, 1);
	assert_int_equal(size, 8 + strlen(name));
	assert_memory_equal(m.name, name, strlen(name));
}

static void ports(void **state)
{
	struct driver *d = &machine->driver;
	assert_true(driver_offered(d) & MULTIPORT);
	send_control(0xffffffff, DEVICE_READY, 1); /* before there is room */
	assert_int_equal(driver_used(d, CONTROL_RX), 0);
	offer_room(CONTROL_RX, 0, 32, 64);
	assert_int_equal(driver_used(d, CONTROL_RX), 3);
	for (u16 i = 0; i < 3; i++)
		expect_message(i, i, PORT_ADD, "");
	for (u32 i = 0; i < 3; i++)
		send_control(i, PORT_READY, 1);
	assert_int_equal(driver_used(d, CONTROL_RX), 9);
	expect_message(3, 0, CONSOLE_PORT, "");
	expect_message(4, 0, PORT_OPEN, "");
	expect_message(5, 1, PORT_OPEN, "");
	expect_message(6, 1, PORT_NAME, "org.example.agent");
	expect_message(8, 2, PORT_NAME, "a-name-of-more-characters-than-t");
}

/* What comes for a named port waits until somebody has it open. */
static void open_port(void **state)
{
	machine->line[1].typed = "hello";
	virtio_console_input(&machine->console, 1);
	offer_room(RX1, 0, 2, 64);
	assert_int_equal(driver_used(&machine->driver, RX1), 0);
	send_control(1, PORT_OPEN, 1);
	assert_int_equal(driver_used(&machine->driver, RX1), 1);
	assert_string_equal(room(0, 5), "hello");
	send_control(1, PORT_OPEN, 0);
	machine->line[1].typed = "x";
	virtio_console_input(&machine->console, 1);
	assert_int_equal(driver_used(&machine->driver, RX1), 1);
	driver_set(&machine->driver, 20, 1, 0);
	assert_false(machine->console.port[1].open);
}

static void wrong_messages(void **state)
{
	offer_room(CONTROL_RX, 0, 32, 64);
	for (u16 event = 0; event < 300; event++) {
		send_control(3, event, 1);
		send_control(0xffffffff, event, 0);
	}
	send(CONTROL_TX, "short", 5);
	send(CONTROL_TX, "", 1);
	assert_true(driver_used(&machine->driver, CONTROL_RX) <= 3);
	for (unsigned i = 0; i < 100; i++) /* again and again: each port still has one of each */
		send_control(0, PORT_READY, 1);
	assert_int_equal(driver_used(&machine->driver, CONTROL_RX), 32);
	virtio_console_input(&machine->console, 7);
}

/* A buffer of a size that no driver needs does not keep the lock for ever. */
static void long_output(void **state)
{
	driver_descriptor(&machine->driver, TX, 0, 0x10000, 0x10000, DESC_NEXT);
	for (u16 i = 1; i < 127; i++)
		driver_descriptor(&machine->driver, TX, i, 0x10000, 0x10000, DESC_NEXT);
	driver_descriptor(&machine->driver, TX, 127, 0x10000, 0x10000, 0);
	driver_offer(&machine->driver, TX, 0);
	assert_int_equal(machine->line[0].count, 65536);
	assert_int_equal(driver_used(&machine->driver, TX), 1);
	virtio_advance(&machine->console.virtio);
	assert_false(virtio_due(&machine->console.virtio));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(output), TEST(emergency), TEST(input), TEST(ports), TEST(open_port), TEST(wrong_messages), TEST(long_output),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
