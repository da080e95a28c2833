/* The I/O APIC: registers, edge and level entries, masks, remote IRR and the EOI that clears it, destinations. The
 * interval timer drives input 2 (ISA IRQ 0, as the MADT says). The polarity bit is not tested: virtual lines are
 * asserted or not, whatever the level. 82093AA data sheet. */
#include "lib/apic.h"

#define PIN 2

static volatile unsigned taken, last_vector;
static volatile bool send_eoi;

static void count(struct state *s)
{
	taken++;
	last_vector = s->vector;
	if (send_eoi)
		apic_eoi();
}

static void window_open(void)
{
	asm volatile("sti\n nop\n nop\n nop\n cli" : : : "memory");
}

static u32 own_destination(void)
{
	return apic_read(APIC_ID) & 0xff000000u;
}

/* The timer's output: low for some microseconds, then high for good. */
static void pulse(void)
{
	pit_start(0, 0, 60);
}

/* Let `ticks` of the timer's own clock pass: channel 2 says when. */
static void wait_ticks(u16 ticks)
{
	outb(0x61, (inb(0x61) & ~2) | 1);
	pit_start(2, 0, ticks);
	while (!(inb(0x61) & 0x20))
		pause();
}

static void line_low(void)
{
	pit_start(0, 0, 0xffff);
}

static void registers(void)
{
	u32 version = ioapic_read(1);
	CHECK((version & 0xff) >= 0x11 && (version >> 16 & 0xff) >= 15);
	unsigned pins = (version >> 16 & 0xff) + 1;
	for (unsigned pin = 0; pin < pins; pin++) {
		CHECK(ioapic_read(0x10 + 2 * pin) & LVT_MASKED);
		ioapic_pin(pin, 0x1a9f0 | LVT_MASKED, 0x55000000);
		CHECK_EQ(ioapic_read(0x10 + 2 * pin) & ~(IOAPIC_REMOTE_IRR | 1 << 12), 0x1a9f0 | LVT_MASKED);
		CHECK_EQ(ioapic_read(0x11 + 2 * pin), 0x55000000);
		ioapic_pin(pin, LVT_MASKED, 0);
	}
	ioapic_write(0, 0x0f000000);
	CHECK_EQ(ioapic_read(0) >> 24 & 0xf, 0xf);
	ioapic_write(0, 0);
	ioapic_write(1, 0);
	CHECK_EQ(ioapic_read(1), version);
}

static void edge(void)
{
	taken = 0;
	send_eoi = true;
	line_low();
	ioapic_pin(PIN, 0x45, own_destination());
	pulse();
	CHECK(wait_for(&taken, 1));
	CHECK_EQ(last_vector, 0x45);
	CHECK(!(ioapic_read(0x10 + 2 * PIN) & IOAPIC_REMOTE_IRR));
	wait_ticks(1000); /* the line stays high: no second one */
	window_open();
	CHECK_EQ(taken, 1);
	pulse();
	CHECK(wait_for(&taken, 2));
	/* Periodic edges. */
	pit_start(0, 2, 2000);
	CHECK(wait_for(&taken, 6));
	line_low();
	ioapic_pin(PIN, LVT_MASKED, 0);
	window_open();
}

/* An edge that comes while masked is lost or kept: never delivered through the mask. */
static void masked(void)
{
	taken = 0;
	line_low();
	ioapic_pin(PIN, 0x45 | LVT_MASKED, own_destination());
	pulse();
	wait_ticks(500);
	window_open();
	CHECK_EQ(taken, 0);
	line_low();
	ioapic_pin(PIN, 0x45, own_destination());
	window_open();
	taken = 0;
	pulse();
	CHECK(wait_for(&taken, 1));
	ioapic_pin(PIN, LVT_MASKED, 0);
}

/* Level: once, then not before EOI, and then again while the line is up. */
static void level(void)
{
	taken = 0;
	send_eoi = false;
	line_low();
	ioapic_pin(PIN, 0x46 | IOAPIC_LEVEL, own_destination());
	window_open();
	CHECK_EQ(taken, 0);
	pulse();
	CHECK(wait_for(&taken, 1));
	CHECK(ioapic_read(0x10 + 2 * PIN) & IOAPIC_REMOTE_IRR);
	CHECK(apic_bit(APIC_TMR, 0x46));
	wait_ticks(500);
	window_open();
	CHECK_EQ(taken, 1);
	apic_eoi(); /* broadcast: remote IRR falls, the line is still up */
	window_open();
	CHECK(wait_for(&taken, 2));
	CHECK(ioapic_read(0x10 + 2 * PIN) & IOAPIC_REMOTE_IRR);
	line_low();
	apic_eoi();
	CHECK(!(ioapic_read(0x10 + 2 * PIN) & IOAPIC_REMOTE_IRR));
	window_open();
	CHECK_EQ(taken, 2);
	/* Masked while up, and unmasked. */
	ioapic_pin(PIN, 0x46 | IOAPIC_LEVEL | LVT_MASKED, own_destination());
	pulse();
	wait_ticks(500);
	window_open();
	CHECK_EQ(taken, 2);
	wait_ticks(500);
	ioapic_pin(PIN, 0x46 | IOAPIC_LEVEL, own_destination());
	CHECK(wait_for(&taken, 3));
	line_low();
	apic_eoi();
	ioapic_pin(PIN, LVT_MASKED, 0);
	send_eoi = true;
}

static void destinations(void)
{
	u32 id = own_destination();
	apic_write(APIC_LDR, 0x02000000);
	apic_write(APIC_DFR, 0xffffffff);
	struct {
		u32 low, high;
		bool arrives;
	} entries[] = {
		{ 0x48, id, true },
		{ 0x48, (id + 0x01000000) & 0x0f000000, false },
		{ 0x48, 0xff000000, true },
		{ 0x48 | ICR_LOGICAL, 0x02000000, true },
		{ 0x48 | ICR_LOGICAL, 0x06000000, true },
		{ 0x48 | ICR_LOGICAL, 0x04000000, false },
		{ 0x48 | ICR_LOGICAL | ICR_LOWEST, 0x02000000, true },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(entries); i++) {
		line_low();
		ioapic_pin(PIN, entries[i].low, entries[i].high);
		taken = 0;
		pulse();
		if (!entries[i].arrives)
			wait_ticks(500);
		wait_for(&taken, entries[i].arrives);
		CHECK_EQ(taken, entries[i].arrives);
		if (taken != entries[i].arrives)
			print("    entry %u\n", i);
	}
	line_low();
	ioapic_pin(PIN, LVT_MASKED, 0);
}

/* Delivery as NMI. */
static void as_nmi(void)
{
	taken = 0;
	send_eoi = false;
	handler_set(VEC_NMI, count);
	line_low();
	ioapic_pin(PIN, ICR_NMI, own_destination());
	pulse();
	wait_for(&taken, 1);
	CHECK(taken == 1 && last_vector == VEC_NMI);
	ioapic_pin(PIN, LVT_MASKED, 0);
	handler_set(VEC_NMI, NULL);
}

void guest_main(void)
{
	apic_init();
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	for (unsigned vector = 0x45; vector < 0x49; vector++)
		handler_set(vector, count);
	registers();
	edge();
	masked();
	level();
	destinations();
	as_nmi();
}
