/* The keyboard controller with its keyboard and mouse, driven through its two ports as a driver would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/i8042.h"
#include "dev/map.h"

#define COMMAND (PORT_I8042 + 4)
#define OBF 0x01
#define AUX 0x20

struct board {
	struct bus io;
	struct i8042 i8042;
	bool irq[16];
	unsigned edges[16], resets;
	bool a20;
};

static void on_irq(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;
	b->irq[pin] = level;
	b->edges[pin] += level;
}

static void on_a20(void *opaque, unsigned pin, bool level)
{
	((struct board *)opaque)->a20 = level;
}

static void on_reset(void *opaque)
{
	((struct board *)opaque)->resets++;
}

static struct board *board(void)
{
	static struct board b;
	b = (struct board){ .i8042 = { .keyboard_irq = { .sink = on_irq, .opaque = &b, .pin = IRQ_KEYBOARD },
				       .mouse_irq = { .sink = on_irq, .opaque = &b, .pin = IRQ_MOUSE },
				       .a20 = { .sink = on_a20, .opaque = &b },
				       .reset = on_reset,
				       .opaque = &b } };
	assert_int_equal(i8042_attach(&b.i8042, &b.io), 0);
	return &b;
}

static u8 status(struct board *b)
{
	return (u8)bus_read(&b->io, COMMAND, 1, 0);
}

static u8 data(struct board *b)
{
	return (u8)bus_read(&b->io, PORT_I8042, 1, 0);
}

static void command(struct board *b, u8 value)
{
	bus_write(&b->io, COMMAND, 1, value, 0);
}

static void write(struct board *b, u8 value)
{
	bus_write(&b->io, PORT_I8042, 1, value, 0);
}

/* Everything the chip has to say is exactly these bytes, all from the same source. */
static void expect(struct board *b, u8 source, const u8 *bytes, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(status(b) & (OBF | AUX), OBF | source);
		assert_int_equal(data(b), bytes[i]);
	}
	assert_int_equal(status(b) & OBF, 0);
}

#define EXPECT(b, source, ...) expect(b, source, (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

static void untranslated(struct board *b)
{
	command(b, 0x60);
	write(b, 0x05);
}

static void reset_state(void **state)
{
	struct board *b = board();
	assert_int_equal(status(b), 0x14); /* nothing to say, system flag, not inhibited */
	assert_true(b->a20);
	command(b, 0x20);
	EXPECT(b, 0, 0x65);
	assert_int_equal(b->resets, 0);
}

static void controller_commands(void **state)
{
	static const struct {
		u8 command, answer;
	} table[] = {
		{ 0xaa, 0x55 }, { 0xab, 0x00 }, { 0xa9, 0x00 }, { 0xc0, 0x80 },
		{ 0xd0, 0xcf }, { 0xe0, 0x00 }, { 0x20, 0x65 },
	};
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		command(b, table[i].command);
		assert_true(b->irq[IRQ_KEYBOARD]);
		assert_int_equal(status(b) & 0x08, 0x08);
		EXPECT(b, 0, table[i].answer);
		assert_false(b->irq[IRQ_KEYBOARD]);
	}
}

static void ram_is_read_and_written(void **state)
{
	struct board *b = board();
	for (u8 i = 1; i < 32; i++) {
		command(b, 0x60 | i);
		write(b, (u8)(i * 7));
	}
	for (u8 i = 1; i < 32; i++) {
		command(b, 0x20 | i);
		EXPECT(b, 0, (u8)(i * 7));
	}
	assert_int_equal(status(b) & 0x08, 0x08);
}

static void ports_are_switched_by_commands_and_by_use(void **state)
{
	static const struct {
		u8 command, ctr;
	} table[] = { { 0xad, 0x75 }, { 0xae, 0x65 }, { 0xa8, 0x45 }, { 0xa7, 0x65 } };
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		command(b, table[i].command);
		command(b, 0x20);
		EXPECT(b, 0, table[i].ctr);
	}
	command(b, 0xad);
	i8042_key(&b->i8042, 0x1e, true);
	assert_int_equal(status(b) & OBF, 0); /* held back */
	command(b, 0xae);
	EXPECT(b, 0, 0x1e);
	command(b, 0xad);
	write(b, 0xee);
	EXPECT(b, 0, 0xee);
	command(b, 0x20);
	EXPECT(b, 0, 0x65);
}

static void loopback_buffers_name_their_source(void **state)
{
	struct board *b = board();
	command(b, 0x60);
	write(b, 0x47);
	command(b, 0xd2);
	write(b, 0x5a);
	assert_true(b->irq[IRQ_KEYBOARD]);
	EXPECT(b, 0, 0x5a);
	command(b, 0xd3);
	write(b, 0xa5);
	assert_true(b->irq[IRQ_MOUSE]);
	assert_false(b->irq[IRQ_KEYBOARD]);
	EXPECT(b, AUX, 0xa5);
	assert_false(b->irq[IRQ_MOUSE]);
}

static void reset_and_a20_lines(void **state)
{
	struct board *b = board();
	command(b, 0xdd);
	assert_false(b->a20);
	command(b, 0xdf);
	assert_true(b->a20);
	command(b, 0xd1);
	write(b, 0x01);
	assert_false(b->a20);
	assert_int_equal(b->resets, 0);
	command(b, 0xff); /* pulses no line */
	assert_int_equal(b->resets, 0);
	command(b, 0xfe);
	assert_int_equal(b->resets, 1);
	command(b, 0xd1);
	write(b, 0x02);
	assert_int_equal(b->resets, 2);
}

static void keyboard_commands(void **state)
{
	static const struct {
		u8 sent[2];
		u8 answer[4], count;
	} table[] = {
		{ { 0xff }, { 0xfa, 0xaa }, 2 },
		{ { 0xf2 }, { 0xfa, 0xab, 0x83 }, 3 },
		{ { 0xee }, { 0xee }, 1 },
		{ { 0xf4 }, { 0xfa }, 1 },
		{ { 0xf5 }, { 0xfa }, 1 },
		{ { 0xf6 }, { 0xfa }, 1 },
		{ { 0xed, 0x07 }, { 0xfa, 0xfa }, 2 },
		{ { 0xf3, 0x20 }, { 0xfa, 0xfa }, 2 },
		{ { 0xf0, 0x01 }, { 0xfa, 0xfa }, 2 },
		{ { 0xf0, 0x00 }, { 0xfa, 0xfa, 0x01 }, 3 },
		{ { 0xf0, 0x02 }, { 0xfa, 0xfa }, 2 },
		{ { 0xf0, 0x03 }, { 0xfa, 0xfe }, 2 },
		{ { 0xed, 0xee }, { 0xfa, 0xee }, 2 }, /* a command instead of the parameter */
		{ { 0xe1 }, { 0xfe }, 1 },
		{ { 0xfe }, { 0xee }, 1 }, /* the last byte sent but for Resend */
	};
	struct board *b = board();
	untranslated(b);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		write(b, table[i].sent[0]);
		if (table[i].sent[1] || table[i].sent[0] == 0xf0)
			write(b, table[i].sent[1]);
		expect(b, 0, table[i].answer, table[i].count);
	}
	assert_int_equal(b->i8042.keyboard.leds, 7);
}

static void identification_is_translated_too(void **state)
{
	struct board *b = board();
	write(b, 0xf2);
	EXPECT(b, 0, 0xfa, 0xab, 0x41);
}

static void keys_in_every_set(void **state)
{
	static const struct {
		u16 key;
		bool down;
		u8 set2[4], set1[3], count2, count1;
	} table[] = {
		{ 0x1e, true, { 0x1c }, { 0x1e }, 1, 1 }, /* A */
		{ 0x1e, false, { 0xf0, 0x1c }, { 0x9e }, 2, 1 },
		{ 0x01, true, { 0x76 }, { 0x01 }, 1, 1 },               /* Esc */
		{ 0x1c, false, { 0xf0, 0x5a }, { 0x9c }, 2, 1 },        /* Enter */
		{ 0x41, true, { 0x83 }, { 0x41 }, 1, 1 },               /* F7 */
		{ 0x58, true, { 0x07 }, { 0x58 }, 1, 1 },               /* F12 */
		{ 0xe048, true, { 0xe0, 0x75 }, { 0xe0, 0x48 }, 2, 2 }, /* up */
		{ 0xe048, false, { 0xe0, 0xf0, 0x75 }, { 0xe0, 0xc8 }, 3, 2 },
		{ 0xe01d, true, { 0xe0, 0x14 }, { 0xe0, 0x1d }, 2, 2 }, /* right Ctrl */
		{ 0x00, true, { 0 }, { 0 }, 0, 0 },                     /* no such key */
		{ 0x59, true, { 0 }, { 0 }, 0, 0 },
	};
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_true(i8042_key(&b->i8042, table[i].key, table[i].down));
		expect(b, 0, table[i].set1, table[i].count1);
	}
	untranslated(b);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_true(i8042_key(&b->i8042, table[i].key, table[i].down));
		expect(b, 0, table[i].set2, table[i].count2);
	}
	write(b, 0xf0);
	write(b, 0x01);
	EXPECT(b, 0, 0xfa, 0xfa);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		assert_true(i8042_key(&b->i8042, table[i].key, table[i].down));
		expect(b, 0, table[i].set1, table[i].count1);
	}
}

static void each_waiting_byte_is_an_edge(void **state)
{
	struct board *b = board();
	i8042_key(&b->i8042, 0x1e, true);
	i8042_key(&b->i8042, 0x1e, false);
	i8042_key(&b->i8042, 0x1f, true);
	assert_int_equal(b->edges[IRQ_KEYBOARD], 1);
	EXPECT(b, 0, 0x1e, 0x9e, 0x1f);
	assert_int_equal(b->edges[IRQ_KEYBOARD], 3);
	assert_false(b->irq[IRQ_KEYBOARD]);
}

static void a_full_keyboard_refuses_keys_but_answers(void **state)
{
	struct board *b = board();
	unsigned taken = 0;
	while (taken < 100 && i8042_key(&b->i8042, 0x1e, true))
		taken++;
	assert_in_range(taken, 14, 17);
	write(b, 0xee);
	for (unsigned i = 0; i < taken; i++)
		assert_int_equal(data(b), 0x1e);
	EXPECT(b, 0, 0xee);
}

static void scanning_can_be_switched_off(void **state)
{
	struct board *b = board();
	write(b, 0xf5);
	EXPECT(b, 0, 0xfa);
	i8042_key(&b->i8042, 0x1e, true);
	assert_int_equal(status(b) & OBF, 0);
	write(b, 0xf4);
	EXPECT(b, 0, 0xfa);
	i8042_key(&b->i8042, 0x1e, true);
	EXPECT(b, 0, 0x1e);
}

static void to_mouse(struct board *b, u8 byte)
{
	command(b, 0xd4);
	write(b, byte);
}

static void mouse_commands(void **state)
{
	static const struct {
		u8 sent[2];
		u8 answer[4], count;
	} table[] = {
		{ { 0xff }, { 0xfa, 0xaa, 0x00 }, 3 },
		{ { 0xf2 }, { 0xfa, 0x00 }, 2 },
		{ { 0xe9 }, { 0xfa, 0x00, 0x02, 0x64 }, 4 },
		{ { 0xe8, 0x03 }, { 0xfa }, 1 }, /* the parameter's answer replaces the command's, unread */
		{ { 0xf3, 0xc8 }, { 0xfa }, 1 },
		{ { 0xe7 }, { 0xfa }, 1 },
		{ { 0xf4 }, { 0xfa }, 1 },
		{ { 0xe9 }, { 0xfa, 0x30, 0x03, 0xc8 }, 4 },
		{ { 0xeb }, { 0xfa, 0x08, 0x00, 0x00 }, 4 },
		{ { 0xee }, { 0xfa }, 1 },
		{ { 0xf2 }, { 0xf2 }, 1 }, /* wrap mode echoes */
		{ { 0xec }, { 0xfa }, 1 },
		{ { 0xf6 }, { 0xfa }, 1 },
		{ { 0xe9 }, { 0xfa, 0x00, 0x02, 0x64 }, 4 },
		{ { 0x55 }, { 0xfe }, 1 },
	};
	struct board *b = board();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		to_mouse(b, table[i].sent[0]);
		if (table[i].sent[1]) {
			EXPECT(b, AUX, 0xfa);
			to_mouse(b, table[i].sent[1]);
		}
		expect(b, AUX, table[i].answer, table[i].count);
	}
}

static void mouse_reports(void **state)
{
	struct board *b = board();
	i8042_mouse(&b->i8042, 5, 5, 0); /* not enabled: remembered, not told */
	assert_int_equal(status(b) & OBF, 0);
	to_mouse(b, 0xf6);
	EXPECT(b, AUX, 0xfa);
	to_mouse(b, 0xf4);
	EXPECT(b, AUX, 0xfa);
	i8042_mouse(&b->i8042, 1, -1, 1);
	EXPECT(b, AUX, 0x29, 0x01, 0xff);
	i8042_mouse(&b->i8042, 0, 0, 1); /* nothing changed */
	assert_int_equal(status(b) & OBF, 0);
	i8042_mouse(&b->i8042, 0, 0, 0);
	EXPECT(b, AUX, 0x08, 0x00, 0x00);
	i8042_mouse(&b->i8042, 300, -300, 4);
	EXPECT(b, AUX, 0x2c, 0xff, 0x00, 0x2c, 0x2d, 0xd4);
	i8042_mouse(&b->i8042, 0x7fffffff, -0x7fffffff, 4); /* bounded */
	unsigned count = 0;
	while (status(b) & OBF) {
		data(b);
		count++;
	}
	assert_in_range(count, 3, 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_state),
		cmocka_unit_test(controller_commands),
		cmocka_unit_test(ram_is_read_and_written),
		cmocka_unit_test(ports_are_switched_by_commands_and_by_use),
		cmocka_unit_test(loopback_buffers_name_their_source),
		cmocka_unit_test(reset_and_a20_lines),
		cmocka_unit_test(keyboard_commands),
		cmocka_unit_test(identification_is_translated_too),
		cmocka_unit_test(keys_in_every_set),
		cmocka_unit_test(each_waiting_byte_is_an_edge),
		cmocka_unit_test(a_full_keyboard_refuses_keys_but_answers),
		cmocka_unit_test(scanning_can_be_switched_off),
		cmocka_unit_test(mouse_commands),
		cmocka_unit_test(mouse_reports),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
