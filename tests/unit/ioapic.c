/* The I/O APIC against the 82093AA data sheet, and the decoding of message-signalled interrupts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "irq/ioapic.h"
#include "irq/msi.h"

enum { LEVEL = 1 << 15, MASKED = 1 << 16, REMOTE_IRR = 1 << 14, POLARITY_LOW = 1 << 13, LOGICAL = 1 << 11 };

struct board {
	struct ioapic ioapic;
	struct interrupt last;
	unsigned sent;
};

static void on_deliver(void *opaque, const struct interrupt *interrupt)
{
	struct board *b = opaque;
	b->last = *interrupt;
	b->sent++;
}

static struct board *board(void)
{
	static struct board b;
	b = (struct board){ 0 };
	ioapic_init(&b.ioapic, on_deliver, &b);
	return &b;
}

static void write_register(struct board *b, u8 index, u32 value)
{
	ioapic_write(&b->ioapic, 0x00, 4, index, 0);
	ioapic_write(&b->ioapic, 0x10, 4, value, 0);
}

static u32 read_register(struct board *b, u8 index)
{
	ioapic_write(&b->ioapic, 0x00, 4, index, 0);
	return (u32)ioapic_read(&b->ioapic, 0x10, 4, 0);
}

static void redirect(struct board *b, unsigned pin, u32 low, u8 destination)
{
	write_register(b, (u8)(0x11 + 2 * pin), (u32)destination << 24);
	write_register(b, (u8)(0x10 + 2 * pin), low);
}

static void test_registers(void **state)
{
	struct board *b = board();
	assert_int_equal(read_register(b, 1), 0x00170020);
	write_register(b, 1, 0xffffffff);
	assert_int_equal(read_register(b, 1), 0x00170020);
	write_register(b, 0, 0xffffffff);
	assert_int_equal(read_register(b, 0), 0x0f000000);
	assert_int_equal(read_register(b, 2), 0x0f000000);
	for (u8 pin = 0; pin < IOAPIC_PIN_COUNT; pin++)
		assert_int_equal(read_register(b, 0x10 + 2 * pin), MASKED);
	write_register(b, 0x12, 0xffffffff);
	write_register(b, 0x13, 0xffffffff);
	assert_int_equal(read_register(b, 0x12), 0x1afff); /* without delivery status and remote IRR */
	assert_int_equal(read_register(b, 0x13), 0xff000000);
	assert_int_equal(read_register(b, 0x10 + 2 * IOAPIC_PIN_COUNT), 0);
	assert_int_equal(b->sent, 0);
}

/* What an edge sends, by redirection entry. */
static void test_messages(void **state)
{
	static const struct {
		u32 low;
		u8 destination;
		unsigned sent;
		struct interrupt expected;
	} cases[] = {
		{ 0x0031, 5, 1, { .destination = 5, .vector = 0x31 } },
		{ 0x0131, 5, 1, { .destination = 5, .vector = 0x31, .delivery = DELIVERY_LOWEST_PRIORITY } },
		{ 0x0931,
		  3,
		  1,
		  { .destination = 3, .vector = 0x31, .delivery = DELIVERY_LOWEST_PRIORITY, .logical = true } },
		{ 0x0031, 0xff, 1, { .destination = DESTINATION_BROADCAST, .vector = 0x31 } },
		{ 0x0231, 5, 0, { 0 } }, /* SMI */
		{ 0x0331, 5, 0, { 0 } }, /* reserved */
		{ 0x0431, 5, 1, { .destination = 5, .vector = 0x31, .delivery = DELIVERY_NMI } },
		{ 0x8431, 5, 1, { .destination = 5, .vector = 0x31, .delivery = DELIVERY_NMI } }, /* always an edge */
		{ 0x0531, 5, 1, { .destination = 5, .vector = 0x31, .delivery = DELIVERY_INIT } },
		{ 0x0631, 5, 0, { 0 } }, /* reserved */
		{ 0x0731, 5, 1, { .destination = 5, .vector = 0x31, .delivery = DELIVERY_EXTINT } },
		{ 0x8031, 5, 1, { .destination = 5, .vector = 0x31, .level = true } },
		{ 0x8031 | POLARITY_LOW, 5, 1, { .destination = 5, .vector = 0x31, .level = true } },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board();
		redirect(b, 7, cases[i].low, cases[i].destination);
		ioapic_set_line(&b->ioapic, 7, true);
		assert_int_equal(b->sent, cases[i].sent);
		assert_int_equal(b->last.destination, cases[i].expected.destination);
		assert_int_equal(b->last.vector, cases[i].expected.vector);
		assert_int_equal(b->last.delivery, cases[i].expected.delivery);
		assert_int_equal(b->last.logical, cases[i].expected.logical);
		assert_int_equal(b->last.level, cases[i].expected.level);
		ioapic_set_line(&b->ioapic, 7, true);
		assert_int_equal(b->sent, cases[i].sent);
	}
}

/* "Interrupt Mask": an edge is ignored, a level waits. */
static void test_masking(void **state)
{
	struct board *b = board();
	redirect(b, 1, 0x31 | MASKED, 0);
	redirect(b, 2, 0x32 | MASKED | LEVEL, 0);
	ioapic_set_line(&b->ioapic, 1, true);
	ioapic_set_line(&b->ioapic, 2, true);
	assert_int_equal(b->sent, 0);
	redirect(b, 1, 0x31, 0);
	assert_int_equal(b->sent, 0);
	redirect(b, 2, 0x32 | LEVEL, 0);
	assert_int_equal(b->sent, 1);
	ioapic_set_line(&b->ioapic, 1, false);
	ioapic_set_line(&b->ioapic, 1, true);
	assert_int_equal(b->sent, 2);
}

static void test_level_until_eoi(void **state)
{
	struct board *b = board();
	redirect(b, 16, 0x41 | LEVEL, 0);
	ioapic_set_line(&b->ioapic, 16, true);
	assert_int_equal(read_register(b, 0x30), 0x41 | LEVEL | REMOTE_IRR);
	ioapic_set_line(&b->ioapic, 16, false);
	ioapic_set_line(&b->ioapic, 16, true);
	assert_int_equal(b->sent, 1); /* not before the EOI */
	ioapic_eoi(&b->ioapic, 0x42);
	assert_int_equal(b->sent, 1);
	ioapic_eoi(&b->ioapic, 0x41);
	assert_int_equal(b->sent, 2);
	ioapic_set_line(&b->ioapic, 16, false);
	ioapic_write(&b->ioapic, 0x40, 4, 0x41, 0); /* the EOI register does the same */
	assert_int_equal(b->sent, 2);
	assert_int_equal(read_register(b, 0x30), 0x41 | LEVEL);
}

/* Two inputs that share a vector both end. */
static void test_shared_vector(void **state)
{
	struct board *b = board();
	redirect(b, 16, 0x41 | LEVEL, 0);
	redirect(b, 17, 0x41 | LEVEL, 0);
	ioapic_set_line(&b->ioapic, 16, true);
	ioapic_set_line(&b->ioapic, 17, true);
	ioapic_set_line(&b->ioapic, 16, false);
	b->sent = 0;
	ioapic_eoi(&b->ioapic, 0x41);
	assert_int_equal(b->sent, 1);
	assert_int_equal(read_register(b, 0x30), 0x41 | LEVEL);
	assert_int_equal(read_register(b, 0x32), 0x41 | LEVEL | REMOTE_IRR);
}

/* Software without an EOI register ends an interrupt by a moment of edge triggering. */
static void test_edge_clears_remote_irr(void **state)
{
	struct board *b = board();
	redirect(b, 16, 0x41 | LEVEL, 0);
	ioapic_set_line(&b->ioapic, 16, true);
	write_register(b, 0x30, 0x41 | MASKED);
	write_register(b, 0x30, 0x41 | LEVEL | MASKED);
	assert_int_equal(read_register(b, 0x30), 0x41 | LEVEL | MASKED);
	write_register(b, 0x30, 0x41 | LEVEL);
	assert_int_equal(b->sent, 2);
}

static void test_reset_keeps_lines(void **state)
{
	struct board *b = board();
	ioapic_set_line(&b->ioapic, 16, true);
	ioapic_reset(&b->ioapic);
	redirect(b, 16, 0x41 | LEVEL, 0);
	assert_int_equal(b->sent, 1);
	ioapic_set_line(&b->ioapic, IOAPIC_PIN_COUNT, true);
	assert_int_equal(b->sent, 1);
}

/* "Message Address Register Format", "Message Data Register Format". */
static void test_msi(void **state)
{
	static const struct {
		struct msi_message message;
		bool extended, valid;
		struct interrupt expected;
	} cases[] = {
		{ { 0xfee05000, 0x4031 }, false, true, { .destination = 5, .vector = 0x31 } },
		{ { 0xfeeff000, 0x0031 }, false, true, { .destination = DESTINATION_BROADCAST, .vector = 0x31 } },
		{ { 0xfee05004, 0x0131 },
		  false,
		  true,
		  { .destination = 5, .vector = 0x31, .delivery = DELIVERY_LOWEST_PRIORITY, .logical = true } },
		{ { 0xfee0500c, 0x0031 },
		  false,
		  true,
		  { .destination = 5, .vector = 0x31, .delivery = DELIVERY_LOWEST_PRIORITY, .logical = true } },
		{ { 0xfee05008, 0x0031 }, false, true, { .destination = 5, .vector = 0x31 } },
		{ { 0xfee05000, 0xc031 }, false, true, { .destination = 5, .vector = 0x31, .level = true } },
		{ { 0xfee05000, 0x8031 }, false, false, { 0 } }, /* level de-assert */
		{ { 0xfee05000, 0x0400 }, false, true, { .destination = 5, .delivery = DELIVERY_NMI } },
		{ { 0xfee05000, 0x0331 }, false, false, { 0 } },
		{ { 0xfee05000, 0x0631 }, false, false, { 0 } },
		{ { 0xfef05000, 0x0031 }, false, false, { 0 } },
		{ { 0x1fee05000, 0x0031 }, false, false, { 0 } },
		{ { 0xfee05020, 0x0031 }, false, true, { .destination = 5, .vector = 0x31 } },
		{ { 0xfee05020, 0x0031 }, true, true, { .destination = 0x105, .vector = 0x31 } },
		{ { 0xfeefffe0, 0x0031 }, true, true, { .destination = 0x7fff, .vector = 0x31 } },
		{ { 0xfeeff000, 0x0031 }, true, true, { .destination = DESTINATION_BROADCAST, .vector = 0x31 } },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct interrupt got = { 0 };
		assert_int_equal(msi_decode(&cases[i].message, cases[i].extended, &got), cases[i].valid);
		assert_int_equal(got.destination, cases[i].expected.destination);
		assert_int_equal(got.vector, cases[i].expected.vector);
		assert_int_equal(got.delivery, cases[i].expected.delivery);
		assert_int_equal(got.logical, cases[i].expected.logical);
		assert_int_equal(got.level, cases[i].expected.level);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),         cmocka_unit_test(test_messages),
		cmocka_unit_test(test_masking),           cmocka_unit_test(test_level_until_eoi),
		cmocka_unit_test(test_shared_vector),     cmocka_unit_test(test_edge_clears_remote_irr),
		cmocka_unit_test(test_reset_keeps_lines), cmocka_unit_test(test_msi),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
