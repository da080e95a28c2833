/* The 16550A against its data sheet (PC16550D, "Registers" and "FIFO Mode Operation"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/uart.h"
#include "host/port.h"

#define PORT 0x3f8
enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

#define OUT2 0x08
#define LOOP 0x10
#define FOUR_CHARACTERS 347222ull /* 8N1, 115200 baud: 40 bits */

struct board {
	struct bus io;
	struct uart uart;
	u8 sent[64];
	unsigned sent_count, room_calls, edges;
	bool level;
};

static void on_irq(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;
	assert_int_equal(pin, 4);
	b->level = level;
	b->edges += level;
}

static void on_transmit(void *opaque, u8 byte)
{
	struct board *b = opaque;
	assert_true(b->sent_count < sizeof(b->sent));
	b->sent[b->sent_count++] = byte;
}

static void on_room(void *opaque, u64 now)
{
	((struct board *)opaque)->room_calls++;
}

static struct board *board(void)
{
	static struct board b;
	b = (struct board){ .uart = { .irq = { .sink = on_irq, .opaque = &b, .pin = 4 },
				      .transmit = on_transmit,
				      .room = on_room,
				      .opaque = &b } };
	assert_int_equal(uart_attach(&b.uart, &b.io, PORT), 0);
	return &b;
}

static u8 in(struct board *b, unsigned reg)
{
	return (u8)bus_read(&b->io, PORT + reg, 1, 0);
}

static void out(struct board *b, unsigned reg, u8 value)
{
	bus_write(&b->io, PORT + reg, 1, value, 0);
}

static void reset_values(void **state)
{
	static const struct {
		u8 reg, value;
	} table[] = { { DATA, 0 }, { IER, 0 },    { IIR, 0x01 }, { LCR, 0 },
		      { MCR, 0 },  { LSR, 0x60 }, { MSR, 0xb0 }, { SCR, 0 } };
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(in(b, table[i].reg), table[i].value);
	assert_false(b->level);
	assert_int_equal(uart_deadline(&b->uart), HOST_NEVER);
}

static void registers_keep_only_the_bits_they_have(void **state)
{
	static const struct {
		u8 reg, kept;
	} table[] = { { IER, 0x0f }, { LCR, 0xff }, { MCR, 0x1f }, { SCR, 0xff } };
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		out(b, table[i].reg, 0xff);
		assert_int_equal(in(b, table[i].reg), table[i].kept);
		out(b, table[i].reg, 0);
		assert_int_equal(in(b, table[i].reg), 0);
	}
}

static void divisor_latch_hides_two_registers(void **state)
{
	struct board *b = board();
	out(b, IER, 0x05);
	out(b, LCR, 0x83);
	out(b, DATA, 0x34);
	out(b, IER, 0x12);
	assert_int_equal(bus_read(&b->io, PORT, 2, 0), 0x1234);
	out(b, LCR, 0x03);
	assert_int_equal(in(b, IER), 0x05);
	assert_int_equal(b->sent_count, 0);
	assert_int_equal(b->uart.divisor, 0x1234);
}

static void bytes_leave_at_once(void **state)
{
	struct board *b = board();
	out(b, DATA, 'h');
	out(b, DATA, 'i');
	assert_memory_equal(b->sent, "hi", 2);
	assert_int_equal(in(b, LSR), 0x60);
}

static void transmitter_empty_interrupt(void **state)
{
	struct board *b = board();
	out(b, MCR, OUT2);
	out(b, IER, 0x02); /* enabling it while empty raises it */
	assert_true(b->level);
	assert_int_equal(in(b, IIR), 0x02);
	assert_false(b->level); /* reading IIR took it */
	assert_int_equal(in(b, IIR), 0x01);
	out(b, DATA, 'x');
	assert_true(b->level);
	out(b, DATA, 'y'); /* each byte is a new edge */
	assert_int_equal(b->edges, 3);
	out(b, IER, 0x00);
	assert_false(b->level);
	out(b, IER, 0x02);
	assert_true(b->level);
	out(b, IER, 0x02); /* no change, no new event */
	assert_int_equal(in(b, IIR), 0x02);
	out(b, IER, 0x02);
	assert_int_equal(in(b, IIR), 0x01);
}

static void out2_gates_the_interrupt_line(void **state)
{
	struct board *b = board();
	out(b, IER, 0x02);
	assert_false(b->level);
	out(b, MCR, OUT2);
	assert_true(b->level);
	out(b, MCR, 0);
	assert_false(b->level);
	assert_int_equal(in(b, IIR), 0x02);
}

static void without_fifo_one_byte_fits(void **state)
{
	struct board *b = board();
	out(b, MCR, OUT2);
	out(b, IER, 0x01);
	assert_int_equal(uart_room(&b->uart), 1);
	assert_true(uart_receive(&b->uart, 'a', 0));
	assert_true(b->level);
	assert_int_equal(uart_room(&b->uart), 0);
	assert_false(uart_receive(&b->uart, 'b', 0));
	assert_int_equal(in(b, IIR), 0x04);
	assert_int_equal(in(b, LSR), 0x61);
	assert_int_equal(b->room_calls, 0);
	assert_int_equal(in(b, DATA), 'a');
	assert_int_equal(b->room_calls, 1);
	assert_false(b->level);
	assert_int_equal(in(b, LSR), 0x60);
}

static void fifo_keeps_order_and_wraps(void **state)
{
	struct board *b = board();
	out(b, FCR, 0x01);
	for (unsigned round = 0; round < 3; round++) {
		for (u8 i = 0; i < 16; i++)
			assert_true(uart_receive(&b->uart, (u8)(round * 16 + i), 0));
		assert_false(uart_receive(&b->uart, 0xee, 0));
		for (unsigned i = 0; i < 11 + 5 * (round == 2); i++)
			assert_int_equal(in(b, DATA), round * 16 + i);
		out(b, FCR, 0x03); /* empties the receiver */
		assert_int_equal(in(b, LSR), 0x60);
	}
}

static void trigger_levels(void **state)
{
	static const u8 level[4] = { 1, 4, 8, 14 };
	for (unsigned i = 0; i < 4; i++) {
		struct board *b = board();
		out(b, MCR, OUT2);
		out(b, IER, 0x01);
		out(b, FCR, (u8)(0x01 | i << 6));
		for (unsigned n = 1; n <= 16; n++) {
			uart_receive(&b->uart, 0, 0);
			assert_int_equal(b->level, n >= level[i]);
			assert_int_equal(in(b, IIR), n >= level[i] ? 0xc4 : 0xc1);
		}
		for (unsigned n = 16; n-- > 0;) {
			in(b, DATA);
			assert_int_equal(b->level, n >= level[i]);
		}
	}
}

static void receive_timeout(void **state)
{
	struct board *b = board();
	out(b, LCR, 0x03);
	out(b, MCR, OUT2);
	out(b, IER, 0x01);
	out(b, FCR, 0x81);
	uart_receive(&b->uart, 'a', 1000);
	assert_int_equal(uart_deadline(&b->uart), 1000 + FOUR_CHARACTERS);
	uart_receive(&b->uart, 'b', 2000); /* an arrival starts it anew */
	assert_int_equal(uart_deadline(&b->uart), 2000 + FOUR_CHARACTERS);
	uart_advance(&b->uart, 2000 + FOUR_CHARACTERS - 1);
	assert_false(b->level);
	uart_advance(&b->uart, 2000 + FOUR_CHARACTERS);
	assert_true(b->level);
	assert_int_equal(uart_deadline(&b->uart), HOST_NEVER);
	assert_int_equal(in(b, IIR), 0xcc);
	assert_int_equal(in(b, DATA), 'a'); /* a read ends it, and starts it anew */
	assert_false(b->level);
	assert_int_equal(uart_deadline(&b->uart), FOUR_CHARACTERS);
	assert_int_equal(in(b, DATA), 'b');
	assert_int_equal(uart_deadline(&b->uart), HOST_NEVER);
}

static void timeout_is_seen_by_an_access_without_a_timer(void **state)
{
	struct board *b = board();
	out(b, LCR, 0x03);
	out(b, FCR, 0x81);
	uart_receive(&b->uart, 'a', 0);
	assert_int_equal(uart_deadline(&b->uart), HOST_NEVER); /* masked: no timer needed */
	bus_write(&b->io, PORT + IER, 1, 0x01, FOUR_CHARACTERS);
	assert_int_equal(bus_read(&b->io, PORT + IIR, 1, FOUR_CHARACTERS), 0xcc);
}

static void fcr_rules(void **state)
{
	struct board *b = board();
	out(b, FCR, 0xc8); /* without the enable bit nothing is taken */
	assert_int_equal(in(b, IIR), 0x01);
	out(b, FCR, 0x01);
	assert_int_equal(in(b, IIR), 0xc1);
	uart_receive(&b->uart, 'a', 0);
	out(b, FCR, 0x01); /* no change: nothing is lost */
	assert_int_equal(in(b, LSR), 0x61);
	out(b, FCR, 0x00); /* leaving FIFO mode empties */
	assert_int_equal(in(b, LSR), 0x60);
	assert_int_equal(in(b, IIR), 0x01);
}

static void loopback_returns_bytes_and_overruns(void **state)
{
	struct board *b = board();
	out(b, FCR, 0x01);
	out(b, MCR, LOOP);
	assert_int_equal(uart_room(&b->uart), 0);
	assert_false(uart_receive(&b->uart, 'z', 0));
	for (u8 i = 0; i < 17; i++)
		out(b, DATA, i);
	assert_int_equal(b->sent_count, 0);
	assert_int_equal(in(b, LSR), 0x63);
	assert_int_equal(in(b, LSR), 0x61); /* reading took the overrun */
	for (u8 i = 0; i < 16; i++)
		assert_int_equal(in(b, DATA), i);
	out(b, MCR, 0);
	assert_int_equal(b->room_calls, 1);
	out(b, FCR, 0x00);
	out(b, MCR, LOOP);
	out(b, DATA, 1);
	out(b, DATA, 2);
	assert_int_equal(in(b, LSR), 0x63);
	assert_int_equal(in(b, DATA), 2); /* without FIFOs the new byte wins */
}

static void loopback_modem_lines(void **state)
{
	static const struct {
		u8 mcr, msr;
	} table[] = {
		/* deltas against all lines on but RI before, then line by line */
		{ LOOP, 0x0b },        { LOOP | 0x01, 0x22 }, { LOOP | 0x02, 0x13 },
		{ LOOP | 0x04, 0x41 }, { LOOP | 0x08, 0x8c }, { LOOP | 0x0a, 0x91 },
		{ LOOP, 0x09 },        { LOOP, 0x00 },        { 0x00, 0xbb },
	};
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		out(b, MCR, table[i].mcr);
		assert_int_equal(in(b, MSR), table[i].msr);
	}
}

static void interrupt_priorities(void **state)
{
	struct board *b = board();
	out(b, IER, 0x0f);
	out(b, MCR, LOOP | OUT2);
	out(b, DATA, 1);
	out(b, DATA, 2);
	assert_true(b->level);
	assert_int_equal(in(b, IIR), 0x06);
	in(b, LSR);
	assert_int_equal(in(b, IIR), 0x04);
	in(b, DATA);
	assert_int_equal(in(b, IIR), 0x02);
	assert_int_equal(in(b, IIR), 0x00);
	in(b, MSR);
	assert_int_equal(in(b, IIR), 0x01);
	assert_false(b->level);
}

static void line_speed_scales_the_timeout(void **state)
{
	static const struct {
		u8 lcr;
		u16 divisor;
		u64 nanoseconds;
	} table[] = {
		{ 0x03, 1, FOUR_CHARACTERS }, { 0x03, 12, 4166666 }, { 0x00, 1, 243055 }, /* 5N1: 7 bits */
		{ 0x07, 1, 381944 },          { 0x1b, 1, 381944 },   { 0x1f, 0xffff, 27306250000ull },
		{ 0x03, 0, FOUR_CHARACTERS },
	};
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct board *b = board();
		out(b, LCR, 0x80);
		bus_write(&b->io, PORT, 2, table[i].divisor, 0);
		out(b, LCR, table[i].lcr);
		out(b, IER, 1);
		out(b, FCR, 0xc1);
		uart_receive(&b->uart, 0, 0);
		assert_int_equal(uart_deadline(&b->uart), table[i].nanoseconds);
	}
}

static void reset_keeps_the_wiring(void **state)
{
	struct board *b = board();
	out(b, MCR, OUT2);
	out(b, IER, 0x02);
	assert_true(b->level);
	uart_reset(&b->uart);
	assert_false(b->level);
	reset_values(state);
	out(b, DATA, 'r');
	assert_int_equal(b->sent[0], 'r');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_values),
		cmocka_unit_test(registers_keep_only_the_bits_they_have),
		cmocka_unit_test(divisor_latch_hides_two_registers),
		cmocka_unit_test(bytes_leave_at_once),
		cmocka_unit_test(transmitter_empty_interrupt),
		cmocka_unit_test(out2_gates_the_interrupt_line),
		cmocka_unit_test(without_fifo_one_byte_fits),
		cmocka_unit_test(fifo_keeps_order_and_wraps),
		cmocka_unit_test(trigger_levels),
		cmocka_unit_test(receive_timeout),
		cmocka_unit_test(timeout_is_seen_by_an_access_without_a_timer),
		cmocka_unit_test(fcr_rules),
		cmocka_unit_test(loopback_returns_bytes_and_overruns),
		cmocka_unit_test(loopback_modem_lines),
		cmocka_unit_test(interrupt_priorities),
		cmocka_unit_test(line_speed_scales_the_timeout),
		cmocka_unit_test(reset_keeps_the_wiring),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
