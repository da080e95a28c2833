/* Interprocessor interrupts and destinations against Intel SDM volume 3, "Interrupt Command Register (ICR)",
 * "Determining IPI Destination", "Extended xAPIC (x2APIC)". */
#include "lapic.h"

enum { SELF = 1 << 18, ALL = 2 << 18, OTHERS = 3 << 18, LOGICAL = 1 << 11, ASSERT = 1 << 14, LEVEL = 1 << 15 };

/* What a write of the ICR sends, and whether the sender takes it itself. */
static void test_icr(void **state)
{
	static const struct {
		u32 icr;
		bool sent, self;
		u8 delivery, shorthand;
	} cases[] = {
		{ 0x031, true, false, DELIVERY_FIXED, SHORTHAND_NONE },
		{ 0x031 | LEVEL | ASSERT, true, false, DELIVERY_FIXED, SHORTHAND_NONE },
		{ 0x131, true, false, DELIVERY_LOWEST_PRIORITY, SHORTHAND_NONE },
		{ 0x200, false, false, 0, 0 }, /* SMI */
		{ 0x331, false, false, 0, 0 }, /* reserved */
		{ 0x400, true, false, DELIVERY_NMI, SHORTHAND_NONE },
		{ 0x500 | ASSERT, true, false, DELIVERY_INIT, SHORTHAND_NONE },
		{ 0x500 | ASSERT | LEVEL, true, false, DELIVERY_INIT, SHORTHAND_NONE },
		{ 0x500 | LEVEL, false, false, 0, 0 }, /* de-assert */
		{ 0x500 | LEVEL | ALL, false, false, 0, 0 },
		{ 0x60f, true, false, DELIVERY_SIPI, SHORTHAND_NONE },
		{ 0x731, false, false, 0, 0 }, /* ExtINT */
		{ 0x00f, false, false, 0, 0 }, /* illegal vectors */
		{ 0x10f, false, false, 0, 0 },
		{ 0x031 | SELF, false, true, 0, 0 },
		{ 0x031 | ALL, true, true, DELIVERY_FIXED, SHORTHAND_OTHERS },
		{ 0x031 | OTHERS, true, false, DELIVERY_FIXED, SHORTHAND_OTHERS },
		{ 0x131 | OTHERS, true, false, DELIVERY_LOWEST_PRIORITY, SHORTHAND_OTHERS },
		{ 0x400 | OTHERS, true, false, DELIVERY_NMI, SHORTHAND_OTHERS },
		{ 0x500 | OTHERS | ASSERT, true, false, DELIVERY_INIT, SHORTHAND_OTHERS },
		{ 0x600 | OTHERS, true, false, DELIVERY_SIPI, SHORTHAND_OTHERS },
		{ 0x400 | SELF, false, false, 0, 0 }, /* combinations without meaning */
		{ 0x400 | ALL, false, false, 0, 0 },
		{ 0x131 | SELF, false, false, 0, 0 },
		{ 0x600 | ALL, false, false, 0, 0 },
	};

	for (unsigned mode = 0; mode < 2; mode++) {
		for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
			struct board *b = board(1);
			if (mode) {
				x2apic(b);
				assert_true(msr_write(b, 0x830, 7ull << 32 | cases[i].icr));
			} else {
				mmio_write(b, 0x310, 7 << 24);
				mmio_write(b, 0x300, cases[i].icr);
				assert_int_equal(mmio_read(b, 0x300), cases[i].icr);
			}
			assert_int_equal(b->sent, cases[i].sent);
			assert_int_equal(lapic_acknowledge(&b->lapic), cases[i].self ? 0x31 : -1);
			if (!cases[i].sent)
				continue;
			assert_int_equal(b->last.destination, 7);
			assert_int_equal(b->last.vector, (u8)cases[i].icr);
			assert_int_equal(b->last.delivery, cases[i].delivery);
			assert_int_equal(b->last.shorthand, cases[i].shorthand);
			assert_false(b->last.level);
			assert_false(b->last.logical);
		}
	}
}

static void test_destinations_are_widened(void **state)
{
	struct board *b = board(1);

	mmio_write(b, 0x310, 0xff000000);
	mmio_write(b, 0x300, 0x31 | LOGICAL);
	assert_int_equal(b->last.destination, DESTINATION_BROADCAST);
	assert_true(b->last.logical);
	x2apic(b);
	msr_write(b, 0x830, 0xffull << 32 | 0x31);
	assert_int_equal(b->last.destination, 0xff);
	assert_int_equal(msr(b, 0x830), 0xffull << 32 | 0x31);
}

static void test_self_ipi(void **state)
{
	struct board *b = board(1);

	x2apic(b);
	assert_true(msr_write(b, 0x83f, 0x31));
	assert_int_equal(b->sent, 0);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x31);
	assert_true(msr_write(b, 0x83f, 0x0f));
	msr_write(b, 0x828, 0);
	assert_int_equal(msr(b, 0x828), 0x20);
}

/* xAPIC mode: physical ID 3; flat and cluster logical IDs. */
static void test_xapic_destinations(void **state)
{
	static const struct {
		u32 dfr, ldr, destination;
		bool logical, expected;
	} cases[] = {
		{ 0xf, 0x00, 3, false, true },
		{ 0xf, 0x00, 2, false, false },
		{ 0xf, 0x00, 0x103, false, false },
		{ 0xf, 0x00, DESTINATION_BROADCAST, false, true },
		{ 0xf, 0x00, DESTINATION_BROADCAST, true, true },
		{ 0xf, 0x08, 0x08, true, true },
		{ 0xf, 0x08, 0x18, true, true },
		{ 0xf, 0x08, 0x10, true, false },
		{ 0xf, 0x08, 0x108, true, false },
		{ 0xf, 0x00, 0xfe, true, false },
		{ 0x0, 0x24, 0x24, true, true },
		{ 0x0, 0x24, 0x2c, true, true },
		{ 0x0, 0x24, 0x34, true, false },
		{ 0x0, 0x24, 0x21, true, false },
		{ 0x0, 0x24, DESTINATION_BROADCAST, true, true },
	};
	struct board *b = board(3);

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		mmio_write(b, 0x0e0, cases[i].dfr << 28);
		mmio_write(b, 0x0d0, cases[i].ldr << 24);
		assert_int_equal(lapic_matches(&b->lapic, cases[i].destination, cases[i].logical), cases[i].expected);
	}
	mmio_write(b, 0x020, 0x09000000);
	assert_true(lapic_matches(&b->lapic, 9, false));
	assert_false(lapic_matches(&b->lapic, 3, false));
}

/* x2APIC mode: the logical ID follows from the ID. "Deriving Logical x2APIC ID from the Local x2APIC ID". */
static void test_x2apic_destinations(void **state)
{
	static const struct {
		u32 destination;
		bool logical, expected;
	} cases[] = {
		{ 0x123, false, true },
		{ 0x23, false, false },
		{ DESTINATION_BROADCAST, false, true },
		{ 0xff, false, false },
		{ 0x00120008, true, true },
		{ 0x0012ffff, true, true },
		{ 0x00120007, true, false },
		{ 0x00130008, true, false },
		{ 0x00000008, true, false },
		{ DESTINATION_BROADCAST, true, true },
	};
	struct board *b = board(0x123);

	x2apic(b);
	assert_int_equal(msr(b, 0x802), 0x123);
	assert_int_equal(msr(b, 0x80d), 0x00120008);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(lapic_matches(&b->lapic, cases[i].destination, cases[i].logical), cases[i].expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_icr),
		cmocka_unit_test(test_destinations_are_widened),
		cmocka_unit_test(test_self_ipi),
		cmocka_unit_test(test_xapic_destinations),
		cmocka_unit_test(test_x2apic_destinations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
