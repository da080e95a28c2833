/* The local APIC: registers, modes and interrupt acceptance, against Intel SDM volume 3, "Advanced Programmable
 * Interrupt Controller (APIC)". Its timer and its IPIs have files of their own. */
#include "lapic.h"

static void test_reset_state(void **state)
{
	struct board *b = board(3);
	static const struct {
		u32 offset, value;
	} cases[] = {
		{ 0x020, 0x03000000 }, { 0x030, 0x01050014 }, { 0x080, 0 },       { 0x0a0, 0 },
		{ 0x0d0, 0 },          { 0x0e0, 0xffffffff }, { 0x0f0, 0xff },    { 0x280, 0 },
		{ 0x300, 0 },          { 0x310, 0 },          { 0x320, 0x10000 }, { 0x330, 0x10000 },
		{ 0x340, 0x10000 },    { 0x350, 0x10000 },    { 0x360, 0x10000 }, { 0x370, 0x10000 },
		{ 0x380, 0 },          { 0x390, 0 },          { 0x3e0, 0 },
	};

	lapic_reset(&b->lapic, false);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(mmio_read(b, cases[i].offset), cases[i].value);
	assert_int_equal(msr(b, MSR_APIC_BASE), 0xfee00000 | APIC_BASE_EN);
	assert_false(lapic_enabled(&b->lapic));
	assert_true(lapic_decodes(&b->lapic, 0xfee00fff));
	assert_false(lapic_decodes(&b->lapic, 0xfee01000));
	lapic_init(&b->lapic, 0, true, b->lapic.ops, b);
	assert_int_equal(msr(b, MSR_APIC_BASE), 0xfee00000 | APIC_BASE_EN | APIC_BASE_BSP);
}

/* What of all ones sticks, in xAPIC mode. */
static void test_writable_bits(void **state)
{
	static const struct {
		u32 offset, value;
	} cases[] = {
		{ 0x020, 0xff000000 }, { 0x030, 0x01050014 }, { 0x080, 0xff },       { 0x0d0, 0xff000000 },
		{ 0x0e0, 0xffffffff }, { 0x0f0, 0x11ff },     { 0x310, 0xff000000 }, { 0x320, 0x700ff },
		{ 0x330, 0x107ff },    { 0x340, 0x107ff },    { 0x350, 0x1a7ff },    { 0x360, 0x1a7ff },
		{ 0x370, 0x100ff },    { 0x3e0, 0xb },
	};
	struct board *b = board(0);

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		mmio_write(b, cases[i].offset, 0xffffffff);
		assert_int_equal(mmio_read(b, cases[i].offset), cases[i].value);
	}
	mmio_write(b, 0x0e0, 0);
	assert_int_equal(mmio_read(b, 0x0e0), 0x0fffffff);
}

static void test_access_sizes(void **state)
{
	struct board *b = board(0);

	assert_int_equal(lapic_mmio_read(&b->lapic, 0x30, 1, b->now), 0x14);
	assert_int_equal(lapic_mmio_read(&b->lapic, 0x32, 2, b->now), 0x0105);
	assert_int_equal(lapic_mmio_read(&b->lapic, 0x30, 8, b->now), 0x01050014);
	assert_int_equal(lapic_mmio_read(&b->lapic, 0x34, 4, b->now), 0);
	lapic_mmio_write(&b->lapic, 0x80, 1, 0x20, b->now);
	lapic_mmio_write(&b->lapic, 0x82, 4, 0x20, b->now);
	assert_int_equal(mmio_read(b, 0x80), 0);
	lapic_mmio_write(&b->lapic, 0x80, 8, ~0xdfull, b->now);
	assert_int_equal(mmio_read(b, 0x80), 0x20);
}

/* "Error Handling". */
static void test_illegal_register(void **state)
{
	struct board *b = board(0);

	mmio_write(b, 0x370, 0x35);
	mmio_read(b, 0x040);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x35);
	assert_int_equal(mmio_read(b, 0x280), 0);
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0x80);
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0);
	mmio_write(b, 0x3f0, 0x31); /* self-IPI is x2APIC's */
	mmio_write(b, 0xff0, 0);
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0x80);
	mmio_write(b, 0x030, 0); /* read-only, but a register */
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0);
}

static void test_illegal_vectors(void **state)
{
	struct board *b = board(0);

	assert_int_equal(fixed(b, 15, false), 0);
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0x40);
	mmio_write(b, 0x300, 0x0000f);
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0x20);
	assert_int_equal(b->sent, 0);
	mmio_write(b, 0x370, 0x0f); /* the error interrupt itself is illegal: one more error, and no end of the world */
	mmio_read(b, 0x040);
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0xc0);
	assert_int_equal(lapic_highest(&b->lapic), -1);
}

/* "Interrupt, Task, and Processor Priority": requests are served by class, and the PPR is the higher of TPR and ISRV.
 */
static void test_priority(void **state)
{
	struct board *b = board(0);

	fixed(b, 0x31, false);
	fixed(b, 0x3f, false);
	fixed(b, 0x55, false);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x55);
	assert_int_equal(mmio_read(b, 0x0a0), 0x50);
	assert_int_equal(lapic_acknowledge(&b->lapic), -1);
	fixed(b, 0x5f, false);
	assert_int_equal(lapic_highest(&b->lapic), -1); /* same class */
	fixed(b, 0x60, false);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x60);
	mmio_write(b, 0x0b0, 0);
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x5f);
	mmio_write(b, 0x0b0, 0);
	mmio_write(b, 0x080, 0x35);
	assert_int_equal(mmio_read(b, 0x0a0), 0x35);
	assert_int_equal(mmio_read(b, 0x090), 0x35);
	assert_int_equal(lapic_highest(&b->lapic), -1);
	lapic_set_cr8(&b->lapic, 2);
	assert_int_equal(mmio_read(b, 0x080), 0x20);
	assert_int_equal(lapic_cr8(&b->lapic), 2);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x3f);
	assert_int_equal(lapic_highest(&b->lapic), -1);
}

static void test_irr_isr_tmr(void **state)
{
	struct board *b = board(0);

	fixed(b, 0x41, true);
	fixed(b, 0xfe, false);
	assert_int_equal(mmio_read(b, 0x220), 0x2);
	assert_int_equal(mmio_read(b, 0x270), 0x40000000);
	assert_int_equal(mmio_read(b, 0x1a0), 0x2);
	lapic_acknowledge(&b->lapic);
	assert_int_equal(mmio_read(b, 0x170), 0x40000000);
	assert_int_equal(mmio_read(b, 0x270), 0);
	fixed(b, 0x41, false);
	assert_int_equal(mmio_read(b, 0x1a0), 0);
}

/* "Signaling Interrupt Servicing Completion". */
static void test_eoi_broadcast(void **state)
{
	struct board *b = board(0);

	fixed(b, 0x41, true);
	fixed(b, 0x31, false);
	lapic_acknowledge(&b->lapic);
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(b->eois, 1);
	assert_int_equal(b->last_eoi, 0x41);
	lapic_acknowledge(&b->lapic);
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(b->eois, 1); /* an edge */
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(b->eois, 1); /* nothing in service */
	mmio_write(b, 0x0f0, 0x11ff); /* suppressed */
	fixed(b, 0x41, true);
	lapic_acknowledge(&b->lapic);
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(b->eois, 1);
	assert_int_equal(mmio_read(b, 0x120), 0);
}

/* "Local APIC State After It Has Been Software Disabled". */
static void test_software_disabled(void **state)
{
	struct board *b = board(0);
	struct interrupt nmi = { .delivery = DELIVERY_NMI };

	mmio_write(b, 0x350, 0x31);
	fixed(b, 0x41, false);
	mmio_write(b, 0x0f0, 0xff);
	assert_int_equal(mmio_read(b, 0x350), 0x10031);
	mmio_write(b, 0x350, 0x31);
	assert_int_equal(mmio_read(b, 0x350), 0x10031);
	assert_int_equal(fixed(b, 0x51, false), 0);
	assert_int_equal(lapic_accept(&b->lapic, &nmi), LAPIC_NMI);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x41); /* what was pending stays */
	assert_true(lapic_matches(&b->lapic, 0, false));
}

static void test_accept_kinds(void **state)
{
	static const struct {
		u8 delivery;
		unsigned expected;
	} cases[] = {
		{ DELIVERY_FIXED, LAPIC_ACCEPTED },
		{ DELIVERY_LOWEST_PRIORITY, LAPIC_ACCEPTED },
		{ DELIVERY_SMI, 0 },
		{ DELIVERY_RESERVED, 0 },
		{ DELIVERY_NMI, LAPIC_NMI },
		{ DELIVERY_INIT, LAPIC_INIT },
		{ DELIVERY_SIPI, LAPIC_SIPI },
		{ DELIVERY_EXTINT, LAPIC_EXTINT },
	};
	struct board *b = board(0);

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct interrupt interrupt = { .vector = 0x31, .delivery = cases[i].delivery };
		assert_int_equal(lapic_accept(&b->lapic, &interrupt), cases[i].expected);
	}
	assert_true(msr_write(b, MSR_APIC_BASE, 0xfee00000));
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct interrupt interrupt = { .vector = 0x31, .delivery = cases[i].delivery };
		assert_int_equal(lapic_accept(&b->lapic, &interrupt), 0);
	}
}

static void test_posted(void **state)
{
	struct board *b = board(0);
	struct posted posted = { 0 };

	posted_post(&posted, 0x31, false);
	posted_post(&posted, 0x81, true);
	posted_post(&posted, 5, false);
	lapic_accept_posted(&b->lapic, &posted);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x81);
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(b->last_eoi, 0x81);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x31);
	mmio_write(b, 0x280, 0);
	assert_int_equal(mmio_read(b, 0x280), 0x40);
}

/* "Local x2APIC State Transitions". From, to, and whether that is allowed. */
static void test_mode_transitions(void **state)
{
	enum { OFF = 0, XAPIC = APIC_BASE_EN, X2APIC = APIC_BASE_EN | APIC_BASE_EXTD, INVALID = APIC_BASE_EXTD };
	static const struct {
		u32 from, to;
		bool allowed;
	} cases[] = {
		{ OFF, OFF, true },    { OFF, XAPIC, true },     { OFF, X2APIC, false },   { OFF, INVALID, false },
		{ XAPIC, OFF, true },  { XAPIC, XAPIC, true },   { XAPIC, X2APIC, true },  { XAPIC, INVALID, false },
		{ X2APIC, OFF, true }, { X2APIC, XAPIC, false }, { X2APIC, X2APIC, true }, { X2APIC, INVALID, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board(0);
		if (cases[i].from != XAPIC)
			assert_true(msr_write(b, MSR_APIC_BASE, 0xfee00000 | cases[i].from));
		assert_int_equal(msr_write(b, MSR_APIC_BASE, 0xfee00000 | cases[i].to), cases[i].allowed);
		assert_int_equal(msr(b, MSR_APIC_BASE), 0xfee00000 | (cases[i].allowed ? cases[i].to : cases[i].from));
	}
}

static void test_base_reserved_bits(void **state)
{
	struct board *b = board(0);

	b->lapic.physical_bits = 40;
	assert_false(msr_write(b, MSR_APIC_BASE, 0xfee00000 | APIC_BASE_EN | BIT(9)));
	assert_false(msr_write(b, MSR_APIC_BASE, 0xfee00000 | APIC_BASE_EN | BIT(40)));
	assert_true(msr_write(b, MSR_APIC_BASE, 0xfee00000 | APIC_BASE_EN | BIT(39)));
	assert_true(lapic_decodes(&b->lapic, 0x80fee00000));
	assert_false(lapic_decodes(&b->lapic, 0xfee00000));
	b->lapic.has_x2apic = false;
	assert_false(msr_write(b, MSR_APIC_BASE, 0xfee00000 | APIC_BASE_EN | APIC_BASE_EXTD));
}

/* Switched off, the local APIC forgets everything and is out of the way of the 8259s. */
static void test_hardware_disabled(void **state)
{
	struct board *b = board(0);

	fixed(b, 0x41, false);
	assert_false(lapic_passes_extint(&b->lapic));
	assert_true(msr_write(b, MSR_APIC_BASE, 0xfee00000));
	assert_int_equal(lapic_highest(&b->lapic), -1);
	assert_true(lapic_passes_extint(&b->lapic));
	assert_false(lapic_decodes(&b->lapic, 0xfee00000));
	assert_false(lapic_matches(&b->lapic, DESTINATION_BROADCAST, false));
	assert_true(msr_write(b, MSR_APIC_BASE, 0xfee00000 | APIC_BASE_EN));
	assert_int_equal(mmio_read(b, 0x0f0), 0xff);
	assert_int_equal(lapic_highest(&b->lapic), -1);
}

/* "Reserved Bit Checking", "x2APIC Register Address Space". */
static void test_x2apic_access_rules(void **state)
{
	static const struct {
		u32 index;
		bool readable;
		u64 good, bad; /* 0: no value is good, or none is bad */
	} cases[] = {
		{ 0x800, false, 0, 1 },
		{ 0x802, true, 0, 1 },
		{ 0x803, true, 0, 1 },
		{ 0x808, true, 0xff, 0x100 },
		{ 0x809, false, 0, 1 },
		{ 0x80a, true, 0, 1 },
		{ 0x80b, false, 0, 1 },
		{ 0x80c, false, 0, 1 },
		{ 0x80d, true, 0, 1 },
		{ 0x80e, false, 0, 1 },
		{ 0x80f, true, 0x11ff, 0x2000 },
		{ 0x810, true, 0, 1 },
		{ 0x81f, true, 0, 1 },
		{ 0x827, true, 0, 1 },
		{ 0x828, true, 0, 1 },
		{ 0x82f, false, 0, 1 },
		{ 0x830, true, 0x500000ffull << 32 | 0xc08ff, 0x2000 },
		{ 0x831, false, 0, 1 },
		{ 0x832, true, 0x700ff, 0x100 },
		{ 0x833, true, 0x117ff, 0x2000 },
		{ 0x835, true, 0x1f7ff, 0x800 },
		{ 0x837, true, 0x110ff, 0x100 },
		{ 0x838, true, 0xffffffff, BIT(32) },
		{ 0x839, true, 0, 1 },
		{ 0x83e, true, 0xb, 0x4 },
		{ 0x83f, false, 0x31, 0x131 },
		{ 0x840, false, 0, 1 },
		{ 0x8ff, false, 0, 1 },
	};
	struct board *b = board(0);
	u64 value;

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) /* not in xAPIC mode */
		assert_false(lapic_msr_read(&b->lapic, cases[i].index, b->now, &value));
	x2apic(b);
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(lapic_msr_read(&b->lapic, cases[i].index, b->now, &value), cases[i].readable);
		if (cases[i].good)
			assert_true(msr_write(b, cases[i].index, cases[i].good));
		assert_false(msr_write(b, cases[i].index, cases[i].bad));
	}
	assert_true(msr_write(b, 0x80b, 0));
	assert_true(msr_write(b, 0x828, 0));
}

/* INIT: the registers go back, the mode and the ID stay. "Local APIC State After It Receives an INIT-Deassert IPI". */
static void test_init(void **state)
{
	struct board *b = board(0);

	mmio_write(b, 0x020, 0x09000000);
	mmio_write(b, 0x080, 0x20);
	fixed(b, 0x31, false);
	lapic_reset(&b->lapic, true);
	assert_int_equal(mmio_read(b, 0x020), 0x09000000);
	assert_int_equal(mmio_read(b, 0x080), 0);
	assert_int_equal(mmio_read(b, 0x0f0), 0xff);
	assert_int_equal(mmio_read(b, 0x210), 0);
	x2apic(b);
	lapic_reset(&b->lapic, true);
	assert_int_equal(msr(b, MSR_APIC_BASE) & APIC_BASE_EXTD, APIC_BASE_EXTD);
	lapic_reset(&b->lapic, false);
	assert_int_equal(msr(b, MSR_APIC_BASE) & APIC_BASE_EXTD, 0);
	assert_int_equal(mmio_read(b, 0x020), 0);
}

/* What LINT0 and LINT1 do when they rise, by LVT entry. */
static void test_lint(void **state)
{
	static const struct {
		unsigned pin;
		u32 lvt;
		unsigned expected;
	} cases[] = {
		{ 0, 0x00031, LAPIC_ACCEPTED },
		{ 0, 0x00431, LAPIC_NMI },
		{ 0, 0x00731, LAPIC_EXTINT },
		{ 0, 0x00531, LAPIC_INIT },
		{ 0, 0x00231, 0 },
		{ 0, 0x00631, 0 },
		{ 0, 0x10031, 0 },
		{ 0, 0x10431, 0 },
		{ 0, 0x08031, LAPIC_ACCEPTED },
		{ 1, 0x00031, LAPIC_ACCEPTED },
		{ 1, 0x00431, LAPIC_NMI },
		{ 1, 0x08431, LAPIC_NMI },
		{ 1, 0x10431, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct board *b = board(0);
		mmio_write(b, 0x350 + cases[i].pin * 0x10, cases[i].lvt);
		assert_int_equal(lapic_set_lint(&b->lapic, cases[i].pin, true), cases[i].expected);
		assert_int_equal(lapic_set_lint(&b->lapic, cases[i].pin, true), 0);
		assert_int_equal(lapic_set_lint(&b->lapic, cases[i].pin, false), 0);
	}
}

static void test_lint0_level(void **state)
{
	struct board *b = board(0);

	mmio_write(b, 0x350, 0x08031);
	lapic_set_lint(&b->lapic, 0, true);
	assert_int_equal(mmio_read(b, 0x350), 0x0c031);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x31);
	assert_int_equal(lapic_highest(&b->lapic), -1);
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x31); /* still asserted */
	lapic_set_lint(&b->lapic, 0, false);
	mmio_write(b, 0x0b0, 0);
	assert_int_equal(lapic_highest(&b->lapic), -1);
	assert_int_equal(mmio_read(b, 0x350), 0x08031);
	mmio_write(b, 0x350, 0x18031);
	lapic_set_lint(&b->lapic, 0, true);
	assert_int_equal(lapic_highest(&b->lapic), -1);
	mmio_write(b, 0x350, 0x08031); /* unmasked while asserted */
	assert_int_equal(lapic_highest(&b->lapic), 0x31);
}

static void test_virtual_wire(void **state)
{
	struct board *b = board(0);

	lapic_reset(&b->lapic, false);
	assert_false(lapic_passes_extint(&b->lapic));
	lapic_set_virtual_wire(&b->lapic);
	assert_true(lapic_passes_extint(&b->lapic));
	assert_true(lapic_enabled(&b->lapic));
	assert_int_equal(lapic_set_lint(&b->lapic, 1, true), LAPIC_NMI);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset_state),
		cmocka_unit_test(test_writable_bits),
		cmocka_unit_test(test_access_sizes),
		cmocka_unit_test(test_illegal_register),
		cmocka_unit_test(test_illegal_vectors),
		cmocka_unit_test(test_priority),
		cmocka_unit_test(test_irr_isr_tmr),
		cmocka_unit_test(test_eoi_broadcast),
		cmocka_unit_test(test_software_disabled),
		cmocka_unit_test(test_accept_kinds),
		cmocka_unit_test(test_posted),
		cmocka_unit_test(test_mode_transitions),
		cmocka_unit_test(test_base_reserved_bits),
		cmocka_unit_test(test_hardware_disabled),
		cmocka_unit_test(test_x2apic_access_rules),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_lint),
		cmocka_unit_test(test_lint0_level),
		cmocka_unit_test(test_virtual_wire),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
