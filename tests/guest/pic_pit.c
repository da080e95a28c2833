/* The 8259 pair and the 8254: initialization, vectors, masks, priorities, every way of ending an interrupt, the
 * cascade, spurious interrupts, the timer's modes and ways of reading it. Intel 8259A and 8254 data sheets; the PC's
 * wiring: IRQ 0 is the timer. */
#include "lib/apic.h"

#define BASE 0x20
#define PORT_SYSTEM_CONTROL 0x61

static volatile unsigned taken, last_vector;

static void count(struct state *s)
{
	taken++;
	last_vector = s->vector;
}

static void count_and_end(struct state *s)
{
	count(s);
	outb(PIC_MASTER, 0x20);
}

static void window_open(void)
{
	asm volatile("sti\n nop\n nop\n nop\n cli" : : : "memory");
}

static u8 pic_read_irr(u16 port)
{
	outb(port, 0x0a);
	return inb(port);
}

static u8 pic_read_isr(u16 port)
{
	outb(port, 0x0b);
	return inb(port);
}

/* A one-shot on IRQ 0: request bit set when it is through. Mode 0 leaves the line high. */
static bool request_irq0(void)
{
	pit_start(0, 0, 100);
	for (unsigned i = 0; i < 1000000; i++) {
		if (pic_read_irr(PIC_MASTER) & 1)
			return true;
	}
	return false;
}

/* ---- PIC ---- */

static void registers(void)
{
	pic_init(BASE, 1);
	outb(PIC_MASTER + 1, 0x5a);
	outb(PIC_SLAVE + 1, 0xa5);
	CHECK(inb(PIC_MASTER + 1) == 0x5a && inb(PIC_SLAVE + 1) == 0xa5);
	outb(PIC_MASTER + 1, 0xff);
	outb(PIC_SLAVE + 1, 0xff);
	CHECK(pic_read_isr(PIC_MASTER) == 0 && pic_read_isr(PIC_SLAVE) == 0);
}

static void one_interrupt(void)
{
	taken = 0;
	handler_set(BASE, count);
	CHECK(request_irq0());
	window_open();
	CHECK_EQ(taken, 0); /* masked */
	outb(PIC_MASTER + 1, 0xfe);
	window_open();
	CHECK(taken == 1 && last_vector == BASE);
	CHECK(pic_read_isr(PIC_MASTER) == 1);
	CHECK(!(pic_read_irr(PIC_MASTER) & 1)); /* an edge, taken */
	CHECK(request_irq0());                  /* again while in service: waits for the EOI */
	window_open();
	CHECK_EQ(taken, 1);
	outb(PIC_MASTER, 0x20); /* non-specific EOI */
	CHECK_EQ(pic_read_isr(PIC_MASTER), 0);
	window_open();
	CHECK_EQ(taken, 2);
	outb(PIC_MASTER, 0x61); /* specific EOI of another level */
	CHECK_EQ(pic_read_isr(PIC_MASTER), 1);
	outb(PIC_MASTER, 0x60);
	CHECK_EQ(pic_read_isr(PIC_MASTER), 0);
	handler_set(BASE, NULL);
}

/* Another base: the vector's upper five bits come from ICW2. */
static void other_vectors(void)
{
	pic_init(0x78, 1);
	taken = 0;
	handler_set(0x78, count_and_end);
	outb(PIC_MASTER + 1, 0xfe);
	CHECK(request_irq0() || taken);
	window_open();
	CHECK(taken == 1 && last_vector == 0x78);
	handler_set(0x78, NULL);
	pic_init(BASE, 1);
}

/* Automatic EOI: never in service. */
static void automatic_eoi(void)
{
	pic_init(BASE, 3);
	taken = 0;
	handler_set(BASE, count);
	outb(PIC_MASTER + 1, 0xfe);
	for (unsigned i = 1; i < 4; i++) {
		CHECK(request_irq0());
		window_open();
		CHECK_EQ(taken, i);
		CHECK_EQ(pic_read_isr(PIC_MASTER), 0);
	}
	handler_set(BASE, NULL);
	pic_init(BASE, 1);
}

/* IRQ 8 (the RTC) through the cascade: both are in service, both must be ended. */
static void cascade(void)
{
	taken = 0;
	handler_set(BASE + 8, count);
	outb(0x70, 0x0b);
	u8 old = inb(0x71);
	outb(0x70, 0x0a);
	outb(0x71, 0x26);
	outb(0x70, 0x0b);
	outb(0x71, old | 0x40); /* periodic interrupt, 1024 Hz */
	outb(PIC_MASTER + 1, 0xfb);
	outb(PIC_SLAVE + 1, 0xfe);
	CHECK(wait_for(&taken, 1));
	CHECK_EQ(last_vector, BASE + 8);
	CHECK(pic_read_isr(PIC_MASTER) == 4 && pic_read_isr(PIC_SLAVE) == 1);
	outb(0x70, 0x0c);
	CHECK_EQ(inb(0x71) & 0xc0, 0xc0); /* the RTC says why; reading lets the next edge come */
	outb(PIC_SLAVE, 0x20);
	outb(PIC_MASTER, 0x20);
	CHECK(pic_read_isr(PIC_MASTER) == 0 && pic_read_isr(PIC_SLAVE) == 0);
	CHECK(wait_for(&taken, 2));
	outb(0x70, 0x0b);
	outb(0x71, old & ~0x40);
	outb(0x70, 0x0c);
	inb(0x71);
	outb(PIC_SLAVE, 0x20);
	outb(PIC_MASTER, 0x20);
	outb(PIC_SLAVE + 1, 0xff);
	outb(PIC_MASTER + 1, 0xff);
	handler_set(BASE + 8, NULL);
}

/* Poll: reading acknowledges without the CPU's interrupt. */
static void polling(void)
{
	outb(PIC_MASTER + 1, 0xfe);
	CHECK(request_irq0());
	outb(PIC_MASTER, 0x0c);
	CHECK_EQ(inb(PIC_MASTER), 0x80);
	CHECK_EQ(pic_read_isr(PIC_MASTER), 1);
	outb(PIC_MASTER, 0x20);
	outb(PIC_MASTER, 0x0c);
	CHECK_EQ(inb(PIC_MASTER) & 0x80, 0);
	outb(PIC_MASTER + 1, 0xff);
}

static void edge_detect(void)
{
	outb(PIC_MASTER + 1, 0xff);
	CHECK(request_irq0());
	pic_init(BASE, 1); /* ICW1 clears the edge detector: a line that stays high is no request */
	CHECK(!(pic_read_irr(PIC_MASTER) & 1));
}

/* ---- PIT ---- */

static void pit_counts(void)
{
	pit_start(2, 2, 0xffff);
	outb(PORT_SYSTEM_CONTROL, (inb(PORT_SYSTEM_CONTROL) & ~2) | 1); /* gate on, speaker off */
	u16 first = pit_read(2);
	spin(1000000);
	u16 second = pit_read(2);
	CHECK(second < first);
	outb(PORT_SYSTEM_CONTROL, inb(PORT_SYSTEM_CONTROL) & ~3); /* gate off: stands still */
	u16 third = pit_read(2);
	spin(1000000);
	CHECK_BUT_QEMU(pit_read(2) == third, "TCG's counter goes on");
	/* A latched count stays until it is read. */
	outb(PORT_SYSTEM_CONTROL, inb(PORT_SYSTEM_CONTROL) | 1);
	pit_start(2, 2, 0xffff);
	outb(0x43, 2 << 6);
	spin(1000000);
	u8 low = inb(0x42), high = inb(0x42);
	CHECK((low | high << 8) > pit_read(2));
}

/* Mode 0: OUT goes high at the end, seen in port 0x61 bit 5; and after a new count is low again. */
static void pit_terminal_count(void)
{
	outb(PORT_SYSTEM_CONTROL, (inb(PORT_SYSTEM_CONTROL) & ~2) | 1);
	pit_start(2, 0, 0xffff);
	CHECK(!(inb(PORT_SYSTEM_CONTROL) & 0x20));
	pit_start(2, 0, 10);
	u64 end = rdtsc() + (10ull << 30);
	while (!(inb(PORT_SYSTEM_CONTROL) & 0x20) && rdtsc() < end)
		pause();
	CHECK(inb(PORT_SYSTEM_CONTROL) & 0x20);
}

/* Read-back: status (output, null count, access mode, mode, BCD) and count of chosen channels. */
static void pit_read_back(void)
{
	pit_start(2, 3, 0x4000);
	outb(PORT_SYSTEM_CONTROL, inb(PORT_SYSTEM_CONTROL) | 1);
	spin(100000);
	outb(0x43, 0xe8); /* latch the status of channel 2 */
	CHECK_EQ(inb(0x42) & 0x3f, 0x36);
	outb(0x43, 2 << 6 | 0x10 | 2 << 1 | 1); /* low byte only, mode 2, BCD */
	outb(0x42, 0x50);
	spin(100000);
	outb(0x43, 0xe8);
	CHECK_EQ(inb(0x42) & 0x3f, 0x15);
	u8 digits = inb(0x42);
	CHECK((digits & 0xf) <= 9 && digits >> 4 <= 9);
}

/* LINT0 as an NMI: the PICs' interrupt arrives whatever IF says, and is not acknowledged. */
static void as_nmi(void)
{
	taken = 0;
	handler_set(VEC_NMI, count);
	apic_write(APIC_LVT_LINT0, ICR_NMI);
	outb(PIC_MASTER + 1, 0xfe);
	pit_start(0, 0, 1000);
	u64 end = rdtsc() + (10ull << 30);
	while (!taken && rdtsc() < end) /* with IF clear */
		pause();
	CHECK(taken == 1 && last_vector == VEC_NMI);
	CHECK(pic_read_irr(PIC_MASTER) & 1);
	handler_set(VEC_NMI, NULL);
	apic_write(APIC_LVT_LINT0, 0x700);
	pic_init(BASE, 1);
}

/* About a thousand interrupts a second, for a while. */
static void pit_periodic(void)
{
	taken = 0;
	handler_set(BASE, count_and_end);
	outb(PIC_MASTER + 1, 0xfe);
	pit_start(0, 2, 1193);
	CHECK(wait_for(&taken, 20));
	outb(PIC_MASTER + 1, 0xff);
	pit_start(0, 0, 1);
	handler_set(BASE, NULL);
}

/* The TSC against the PIT: 10 ms. */
static void time_is_plausible(void)
{
	outb(PORT_SYSTEM_CONTROL, (inb(PORT_SYSTEM_CONTROL) & ~2) | 1);
	u64 start = rdtsc();
	pit_start(2, 0, 11932);
	while (!(inb(PORT_SYSTEM_CONTROL) & 0x20))
		pause();
	u64 cycles = rdtsc() - start;
	print("%u thousand cycles in 10 ms\n", (u32)(cycles >> 10));
	CHECK(cycles > 1000000 && cycles < 10000000000ull);
}

void guest_main(void)
{
	apic_init();
	registers();
	one_interrupt();
	other_vectors();
	automatic_eoi();
	cascade();
	polling();
	edge_detect();
	as_nmi();
	pit_counts();
	pit_terminal_count();
	pit_read_back();
	pit_periodic();
	time_is_plausible();
}
