/* The local APIC's page, in the hands of a processor that virtualizes it: it finds there what the guest reads, and what it stores and delivers is taken over. */
#include "lapic.h"

#include "host/port.h"

#include <string.h>

static u32 page[1024];

/* One whose registers are in the page from now on. */
static struct board *lent(void)
{
	struct board *b = board(3);
	memset(page, 0xee, sizeof(page));
	lapic_use_page(&b->lapic, page);
	return b;
}

static u32 at(u32 offset)
{
	return page[offset / 4];
}

/* As "APIC-Write Emulation" does it. */
static void store(struct board *b, u32 offset, u32 value)
{
	page[offset / 4] = value;
	lapic_written(&b->lapic, offset, b->now);
}

static void test_moves_with_its_state(void **state)
{
	struct board *b = board(3);
	fixed(b, 0x41, true);
	fixed(b, 0x93, false);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x93);
	mmio_write(b, 0x080, 0x25);
	lapic_use_page(&b->lapic, page);
	assert_int_equal(at(0x080), 0x25);
	assert_int_equal(at(0x140), 1u << 0x13);
	assert_int_equal(at(0x220), 2);
	assert_int_equal(at(0x1a0), 2);
	page[0x80 / 4] = 0x57;
	lapic_use_page(&b->lapic, NULL);
	assert_int_equal(lapic_cr8(&b->lapic), 5);
	assert_int_equal(mmio_read(b, 0x140), 1u << 0x13);
	assert_true(b->lapic.vectors_changed);
}

/* All that a processor reads for the guest is what the guest would be told. */
static void test_reads_agree(void **state)
{
	static const u16 hardware[] = { 0x020, 0x030, 0x080, 0x0d0, 0x0e0, 0x0f0, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0 };
	struct board *b = lent();
	mmio_write(b, 0x0d0, 0x05000000);
	mmio_write(b, 0x0e0, 0x0fffffff);
	mmio_write(b, 0x350, 0x8041); /* level-triggered */
	lapic_set_lint(&b->lapic, 0, true);
	mmio_write(b, 0x310, 0x07000000);
	for (unsigned i = 0; i < ARRAY_SIZE(hardware); i++)
		assert_int_equal(at(hardware[i]), mmio_read(b, hardware[i]));
	for (u32 offset = 0x100; offset < 0x280; offset += 16)
		assert_int_equal(at(offset), mmio_read(b, offset));
	assert_int_equal(at(0x350), 0xc041); /* Remote IRR */
	assert_int_equal(at(0x020), 3u << 24);
	x2apic(b);
	assert_int_equal(at(0x020), 3);
	assert_int_equal(at(0x0d0), 8);
	assert_int_equal(msr(b, 0x80d), 8);
	lapic_reset(&b->lapic, true);
	assert_int_equal(at(0x020), 3);
	lapic_reset(&b->lapic, false);
	assert_int_equal(at(0x020), 3u << 24);
	assert_int_equal(at(0x0d0), 0);
}

/* Stores that are taken over do what writes do, reserved bits included. */
static void test_writes_are_taken_over(void **state)
{
	struct board *b = lent();
	store(b, 0x0f0, 0xffffffff);
	assert_int_equal(at(0x0f0), 0x11ff);
	store(b, 0x020, 0x09ffffff);
	assert_int_equal(at(0x020), 0x09000000);
	assert_true(lapic_matches(&b->lapic, 9, false));
	store(b, 0x350, 0xffff8041);
	assert_false(at(0x350) & 0xfffe5000);
	store(b, 0x280, 0x1234);
	assert_int_equal(at(0x280), 0);
	page[0x310 / 4] = 0x05000000;
	store(b, 0x300, 0x4055);
	assert_int_equal(b->sent, 1);
	assert_int_equal(b->last.vector, 0x55);
	assert_int_equal(b->last.destination, 5);
	fixed(b, 0x61, false);
	assert_int_equal(lapic_acknowledge(&b->lapic), 0x61);
	store(b, 0x0b0, 0x77);
	assert_int_equal(at(0x130), 0);
	assert_int_equal(at(0x0b0), 0);
	store(b, 0x0f0, 0xff); /* disabled by software */
	assert_true(at(0x320) & 1 << 16);
}

/* What the timer did so far counts by the registers as they were. */
static void test_timer_registers(void **state)
{
	struct board *b = lent();
	store(b, 0x3e0, 0xb); /* by 1 */
	store(b, 0x320, 0x31);
	store(b, 0x380, 1000);
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 1000);
	b->now += 400;
	store(b, 0x3e0, 0x0); /* by 2: the rest takes twice as long */
	assert_int_equal(lapic_deadline(&b->lapic), b->now + 1200);
	store(b, 0x320, 0x40031); /* the TSC deadline disarms it */
	assert_int_equal(lapic_deadline(&b->lapic), HOST_NEVER);
	assert_int_equal(at(0x380), 0);
}

/* What the processor delivered and ended by itself. */
static void test_delivery_by_the_processor(void **state)
{
	struct board *b = lent();
	b->lapic.vectors_changed = false;
	fixed(b, 0x41, true);
	assert_true(b->lapic.vectors_changed);
	assert_int_equal(lapic_highest_of(&b->lapic, LAPIC_IRR), 0x41);
	page[0x220 / 4] = 0, page[0x120 / 4] = 2; /* delivered */
	assert_int_equal(lapic_highest(&b->lapic), -1);
	assert_int_equal(lapic_highest_of(&b->lapic, LAPIC_ISR), 0x41);
	page[0x120 / 4] = 0; /* ended */
	lapic_ended(&b->lapic, 0x41);
	assert_int_equal(b->eois, 1);
	assert_int_equal(b->last_eoi, 0x41);
	lapic_ended(&b->lapic, 0x31); /* an edge */
	assert_int_equal(b->eois, 1);
	u64 level[4];
	lapic_vectors(&b->lapic, LAPIC_TMR, level);
	assert_true(level[1] == 2 && !level[0] && !level[2] && !level[3]);
}

static void test_tpr_threshold(void **state)
{
	struct board *b = lent();
	assert_int_equal(lapic_tpr_threshold(&b->lapic), 0);
	fixed(b, 0x61, false);
	for (u32 tpr = 0; tpr < 0x100; tpr += 0x11) {
		page[0x80 / 4] = tpr;
		assert_int_equal(lapic_tpr_threshold(&b->lapic), tpr >> 4 >= 6 ? 6 : 0);
		assert_int_equal(lapic_highest(&b->lapic) >= 0, !lapic_tpr_threshold(&b->lapic));
	}
	page[0x80 / 4] = 0;
	lapic_acknowledge(&b->lapic);
	fixed(b, 0x62, false); /* held back by what is in service: its end leaves */
	assert_int_equal(lapic_tpr_threshold(&b->lapic), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_moves_with_its_state),
		cmocka_unit_test(test_reads_agree),
		cmocka_unit_test(test_writes_are_taken_over),
		cmocka_unit_test(test_timer_registers),
		cmocka_unit_test(test_delivery_by_the_processor),
		cmocka_unit_test(test_tpr_threshold),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
