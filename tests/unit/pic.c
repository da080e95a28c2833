/* The 8259A pair against its data sheet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "irq/pic.h"

enum { SPURIOUS = 7, SLAVE_BASE = 0x28, MASTER_BASE = 0x20 };

struct board {
	struct pic pic;
	bool intr;
	unsigned edges; /* rising edges of INTR */
};

static void on_intr(void *opaque, unsigned pin, bool level)
{
	struct board *b = opaque;
	b->intr = level;
	b->edges += level;
}

static void master(struct board *b, unsigned port, u8 value)
{
	pic_master_write(&b->pic, port, 1, value, 0);
}

static void slave(struct board *b, unsigned port, u8 value)
{
	pic_slave_write(&b->pic, port, 1, value, 0);
}

static u8 master_read(struct board *b, unsigned port)
{
	return (u8)pic_master_read(&b->pic, port, 1, 0);
}

/* Both chips as PC operating systems set them up, with a given ICW4; everything unmasked. */
static void initialize(struct board *b, u8 icw4)
{
	master(b, 0, 0x11);
	master(b, 1, MASTER_BASE);
	master(b, 1, 0x04);
	master(b, 1, icw4);
	slave(b, 0, 0x11);
	slave(b, 1, SLAVE_BASE);
	slave(b, 1, 0x02);
	slave(b, 1, icw4);
	master(b, 1, 0);
	slave(b, 1, 0);
}

static struct board *board(u8 icw4)
{
	static struct board b;
	b = (struct board){ .pic.intr = { .sink = on_intr, .opaque = &b } };
	pic_reset(&b.pic);
	initialize(&b, icw4);
	return &b;
}

static void line(struct board *b, unsigned pin, bool level)
{
	pic_set_line(&b->pic, pin, level);
}

static void pulse(struct board *b, unsigned pin)
{
	line(b, pin, false);
	line(b, pin, true);
}

static void test_reset_masks_everything(void **state)
{
	struct board b = { 0 };
	pic_reset(&b.pic);
	for (unsigned pin = 0; pin < PIC_PIN_COUNT; pin++)
		line(&b, pin, true);
	assert_false(pic_intr(&b.pic));
	master(&b, 1, 0xfe);
	assert_true(pic_intr(&b.pic));
	assert_int_equal(pic_acknowledge(&b.pic), 0x08);
}

/* "Initialization": after ICW1 an input must rise again. */
static void test_edge_sense_is_reset(void **state)
{
	struct board *b = board(1);
	line(b, 3, true);
	assert_true(b->intr);
	initialize(b, 1);
	assert_false(b->intr);
	pulse(b, 3);
	assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + 3);
}

static void test_every_pin_has_its_vector(void **state)
{
	for (unsigned pin = 0; pin < PIC_PIN_COUNT; pin++) {
		struct board *b = board(1);
		if (pin == 2)
			continue;
		line(b, pin, true);
		assert_true(b->intr);
		assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + (int)pin);
		assert_false(b->intr);
	}
}

/* "Fully Nested Mode": lower inputs wait for the EOI, higher ones nest; the slave's rank at input 2. */
static void test_fully_nested(void **state)
{
	struct board *b = board(1);
	line(b, 5, true);
	assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + 5);
	line(b, 6, true);
	assert_false(b->intr);
	line(b, 12, true);
	assert_true(b->intr);
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + 4);
	line(b, 9, true); /* higher on the slave, but the master's input 2 is in service */
	assert_false(b->intr);
	line(b, 1, true);
	assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + 1);
	master(b, 0, 0x20); /* ends 1 */
	assert_false(b->intr);
	slave(b, 0, 0x20);
	master(b, 0, 0x20); /* ends 2 */
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + 1);
	slave(b, 0, 0x20);
	master(b, 0, 0x20);
	assert_false(b->intr); /* 5 still is in service */
	master(b, 0, 0x65);    /* specific EOI */
	assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + 6);
}

/* "Special Fully Nested Mode": a higher request of the same slave nests. */
static void test_special_fully_nested(void **state)
{
	struct board *b = board(1 | 0x10);
	line(b, 12, true);
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + 4);
	line(b, 14, true);
	assert_false(b->intr);
	line(b, 9, true);
	assert_true(b->intr);
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + 1);
}

static void test_level_repeats_and_edge_does_not(void **state)
{
	struct board *b = board(1);
	pic_elcr_write(&b->pic, 0, 2, 0xffff, 0);
	assert_int_equal(pic_elcr_read(&b->pic, 0, 2, 0), 0xdef8); /* the fixed inputs stay edge-triggered */
	line(b, 11, true);
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + 3);
	slave(b, 0, 0x20);
	master(b, 0, 0x20);
	assert_true(b->intr);
	line(b, 11, false);
	assert_false(b->intr);
	line(b, 1, true);
	assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + 1);
	master(b, 0, 0x20);
	assert_false(b->intr);
}

/* A request that goes away before the acknowledge gives IRQ 7 of the chip that was asked, not in service there. */
static void test_spurious(void **state)
{
	struct board *b = board(1);
	line(b, 4, true);
	line(b, 4, false);
	assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + SPURIOUS);
	master(b, 0, 0x0b);
	assert_int_equal(master_read(b, 0), 0);
	/* The slave's case: the master has seen a request and keeps input 2 in service. */
	b->pic.chip[0].irr = 0x04;
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + SPURIOUS);
	assert_int_equal(master_read(b, 0), 0x04);
	assert_int_equal(b->pic.chip[1].isr, 0);
}

static void test_automatic_eoi(void **state)
{
	struct board *b = board(3);
	line(b, 9, true);
	line(b, 10, true);
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + 1);
	assert_true(b->intr);
	assert_int_equal(pic_acknowledge(&b->pic), SLAVE_BASE + 2);
	assert_false(b->intr);
	assert_int_equal(b->pic.chip[0].isr | b->pic.chip[1].isr, 0);
}

/* "Automatic Rotation": what was served becomes lowest. The OCW2 that ends input 3, and what input is first afterwards
 * of all. */
static void test_rotation(void **state)
{
	static const struct {
		u8 icw4, before, after, expected;
	} cases[] = {
		{ 1, 0, 0x20, 0 },    /* non-specific EOI: no rotation */
		{ 1, 0, 0xa0, 4 },    /* rotate on non-specific EOI */
		{ 1, 0, 0xe3, 4 },    /* rotate on specific EOI */
		{ 1, 0xc5, 0x20, 6 }, /* set priority: 5 is lowest */
		{ 1, 0xc5, 0x40, 6 }, /* no operation, but 3 stays in service: 6 is above it */
		{ 3, 0x80, 0x40, 4 }, /* rotate in automatic EOI mode */
		{ 3, 0x00, 0x40, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board(cases[i].icw4);
		if (cases[i].before)
			master(b, 0, cases[i].before);
		line(b, 3, true);
		assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + 3);
		master(b, 0, cases[i].after);
		for (unsigned pin = 0; pin < 8; pin++)
			if (pin != 2)
				pulse(b, pin);
		assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + cases[i].expected);
	}
}

/* "Special Mask Mode": what is masked does not block, whether in service or not, and a non-specific EOI does not end
 * it. */
static void test_special_mask(void **state)
{
	struct board *b = board(1);
	line(b, 3, true);
	pic_acknowledge(&b->pic);
	line(b, 6, true);
	assert_false(b->intr);
	master(b, 1, 0x08);
	assert_false(b->intr);
	master(b, 0, 0x68);
	assert_true(b->intr);
	assert_int_equal(pic_acknowledge(&b->pic), MASTER_BASE + 6);
	master(b, 0, 0x20);
	master(b, 0, 0x0b);
	assert_int_equal(master_read(b, 0), 0x08);
	master(b, 0, 0x48);
	master(b, 0, 0x20);
	assert_int_equal(master_read(b, 0), 0);
}

/* "Poll Command": the read acknowledges, from either port. */
static void test_poll(void **state)
{
	struct board *b = board(1);
	master(b, 0, 0x0c);
	assert_int_equal(master_read(b, 0) & 0x80, 0);
	line(b, 13, true);
	master(b, 0, 0x0c);
	assert_int_equal(master_read(b, 1), 0x82);
	slave(b, 0, 0x0c);
	assert_int_equal(pic_slave_read(&b->pic, 0, 1, 0), 0x85);
	slave(b, 0, 0x0b);
	assert_int_equal(pic_slave_read(&b->pic, 0, 1, 0), 0x20);
	assert_false(b->intr);
	assert_int_equal(master_read(b, 1), 0); /* IMR again */
}

static void test_register_reads(void **state)
{
	struct board *b = board(1);
	line(b, 0, true);
	line(b, 1, true);
	pic_acknowledge(&b->pic);
	assert_int_equal(master_read(b, 0), 0x02); /* IRR after initialization */
	master(b, 0, 0x0b);
	assert_int_equal(master_read(b, 0), 0x01);
	master(b, 0, 0x0a);
	assert_int_equal(master_read(b, 0), 0x02);
	master(b, 1, 0xa5);
	assert_int_equal(master_read(b, 1), 0xa5);
	assert_int_equal(pic_master_read(&b->pic, 0, 2, 0), 0xa502);
}

static void test_short_initialization(void **state)
{
	struct board *b = board(3);
	master(b, 0, 0x12); /* single, no ICW4: one more word */
	master(b, 1, 0x47);
	master(b, 1, 0x00);
	line(b, 1, true);
	assert_int_equal(pic_acknowledge(&b->pic), 0x41); /* ICW2 bits 2:0 are the input */
	assert_int_equal(b->pic.chip[0].isr, 0x02);       /* no automatic EOI any more */
	assert_int_equal(master_read(b, 1), 0);
}

static void test_same_level_twice_is_one_edge(void **state)
{
	struct board *b = board(1);
	b->edges = 0;
	line(b, 4, true);
	line(b, 4, true);
	assert_int_equal(b->edges, 1);
	pic_acknowledge(&b->pic);
	line(b, 4, true);
	master(b, 0, 0x20);
	assert_int_equal(b->edges, 1);
	line(b, 2, true); /* the cascade and pins that do not exist */
	line(b, 16, true);
	assert_int_equal(b->edges, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset_masks_everything),
		cmocka_unit_test(test_edge_sense_is_reset),
		cmocka_unit_test(test_every_pin_has_its_vector),
		cmocka_unit_test(test_fully_nested),
		cmocka_unit_test(test_special_fully_nested),
		cmocka_unit_test(test_level_repeats_and_edge_does_not),
		cmocka_unit_test(test_spurious),
		cmocka_unit_test(test_automatic_eoi),
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_special_mask),
		cmocka_unit_test(test_poll),
		cmocka_unit_test(test_register_reads),
		cmocka_unit_test(test_short_initialization),
		cmocka_unit_test(test_same_level_twice_is_one_edge),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
