/* The reset registers, and the two debug ports, which are as small. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/debug_console.h"
#include "dev/debug_exit.h"
#include "dev/map.h"
#include "dev/reset.h"

struct board {
	struct bus io, behind;
	struct reset reset;
	unsigned resets;
	bool a20;
};

static void on_reset(void *opaque)
{
	((struct board *)opaque)->resets++;
}

static void on_a20(void *opaque, unsigned pin, bool level)
{
	((struct board *)opaque)->a20 = level;
}

static struct board *board(void)
{
	static struct board b;
	b = (struct board){ .reset = { .reset = on_reset, .opaque = &b, .a20 = { .sink = on_a20, .opaque = &b } } };
	assert_int_equal(reset_attach(&b.reset, &b.io, &b.behind), 0);
	return &b;
}

static void reset_control_acts_on_the_rising_edge(void **state)
{
	static const struct {
		u8 value;
		unsigned resets;
		u8 read;
	} table[] = {
		{ 0x02, 0, 0x02 }, { 0x06, 1, 0x06 }, { 0x06, 1, 0x06 }, { 0x02, 1, 0x02 },
		{ 0x0e, 2, 0x0e }, { 0xf1, 2, 0x00 }, { 0x04, 3, 0x04 },
	};
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		bus_write(&b->behind, PORT_RESET, 1, table[i].value, 0);
		assert_int_equal(b->resets, table[i].resets);
		assert_int_equal(bus_read(&b->behind, PORT_RESET, 1, 0), table[i].read);
	}
	reset_reset(&b->reset);
	assert_int_equal(bus_read(&b->behind, PORT_RESET, 1, 0), 0);
}

static void port_92_resets_and_gates_a20(void **state)
{
	struct board *b = board();
	assert_true(b->a20);
	assert_int_equal(bus_read(&b->io, PORT_FAST_A20, 1, 0), 0x02);
	bus_write(&b->io, PORT_FAST_A20, 1, 0x00, 0);
	assert_false(b->a20);
	bus_write(&b->io, PORT_FAST_A20, 1, 0x03, 0);
	assert_true(b->a20);
	assert_int_equal(b->resets, 1);
	bus_write(&b->io, PORT_FAST_A20, 1, 0x03, 0);
	assert_int_equal(b->resets, 1);
}

static void on_byte(void *opaque, u8 byte)
{
	u8 **end = opaque;
	*(*end)++ = byte;
}

static void debug_console_emits_bytes(void **state)
{
	u8 text[4] = { 0 }, *end = text;
	struct bus io = { 0 };
	struct debug_console console = { .emit = on_byte, .opaque = &end };
	assert_int_equal(debug_console_attach(&console, &io), 0);
	assert_int_equal(bus_read(&io, PORT_DEBUG_CONSOLE, 1, 0), 0xe9);
	bus_write(&io, PORT_DEBUG_CONSOLE, 1, 'h', 0);
	bus_write(&io, PORT_DEBUG_CONSOLE, 2, 'x' << 8 | 'i', 0);
	assert_string_equal((char *)text, "hi");
}

static void on_exit_status(void *opaque, u32 status)
{
	*(u32 *)opaque = status;
}

static void debug_exit_doubles_the_status_and_makes_it_odd(void **state)
{
	static const struct {
		unsigned size;
		u32 value, status;
	} table[] = { { 1, 0, 1 }, { 1, 0x10, 0x21 }, { 4, 0x31, 0x63 }, { 2, 0xffff, 0x1ffff }, { 4, 0x80000001, 3 } };
	u32 status = 0;
	struct bus io = { 0 };
	struct debug_exit debug_exit = { .exit = on_exit_status, .opaque = &status };
	assert_int_equal(debug_exit_attach(&debug_exit, &io), 0);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		bus_write(&io, PORT_DEBUG_EXIT, table[i].size, table[i].value, 0);
		assert_int_equal(status, table[i].status);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_control_acts_on_the_rising_edge),
		cmocka_unit_test(port_92_resets_and_gates_a20),
		cmocka_unit_test(debug_console_emits_bytes),
		cmocka_unit_test(debug_exit_doubles_the_status_and_makes_it_odd),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
