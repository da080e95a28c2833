/* The local APIC in xAPIC mode, the PIC pair, the interval timer and the I/O APIC, as far as the guests drive them.
 * Intel SDM volume 3, "Advanced Programmable Interrupt Controller"; 8259A, 8254 and 82093AA data sheets. */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include "lib/guest.h"

/* ---- Local APIC ---- */

#define APIC_BASE 0xfee00000ul
#define APIC_ID 0x20
#define APIC_VERSION 0x30
#define APIC_TPR 0x80
#define APIC_PPR 0xa0
#define APIC_EOI 0xb0
#define APIC_LDR 0xd0
#define APIC_DFR 0xe0
#define APIC_SVR 0xf0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_ESR 0x280
#define APIC_ICR 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_THERMAL 0x330
#define APIC_LVT_PERFORMANCE 0x340
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_LVT_ERROR 0x370
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0

#define LVT_MASKED 0x10000u
#define LVT_PERIODIC 0x20000u
#define LVT_TSC_DEADLINE 0x40000u
#define SVR_ENABLE 0x100u
#define ICR_SELF 0x40000u /* destination shorthand */
#define ICR_ALL 0x80000u
#define ICR_OTHERS 0xc0000u
#define ICR_ASSERT 0x4000u
#define ICR_LOGICAL 0x800u
#define ICR_LOWEST 0x100u
#define ICR_NMI 0x400u
#define ICR_INIT 0x500u
#define ICR_STARTUP 0x600u

static inline u32 apic_read(unsigned reg)
{
	return mmio_read(APIC_BASE + reg);
}

static inline void apic_write(unsigned reg, u32 value)
{
	mmio_write(APIC_BASE + reg, value);
}

static inline void apic_eoi(void)
{
	apic_write(APIC_EOI, 0);
}

static inline bool apic_bit(unsigned reg, unsigned vector)
{
	return apic_read(reg + vector / 32 * 16) >> vector % 32 & 1;
}

static inline void apic_send_self(u32 command)
{
	apic_write(APIC_ICR_HIGH, 0);
	apic_write(APIC_ICR, command | ICR_SELF | ICR_ASSERT);
}

/* By its own ID: the shorthand takes fixed interrupts only. */
static inline void apic_send_own_id(u32 command)
{
	apic_write(APIC_ICR_HIGH, apic_read(APIC_ID) & 0xff000000u);
	apic_write(APIC_ICR, command | ICR_ASSERT);
}

/* A spurious interrupt is no error, and gets no EOI. */
static inline void apic_spurious(struct state *s)
{
	(void)s;
}

/* Software-enabled, spurious vector 0xff, everything masked but LINT0, through which the PICs come. */
static inline void apic_init(void)
{
	handler_set(0xff, apic_spurious);
	apic_write(APIC_SVR, SVR_ENABLE | 0xff);
	apic_write(APIC_TPR, 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	apic_write(APIC_LVT_LINT0, 0x700);
	apic_write(APIC_LVT_LINT1, 0x400);
	apic_write(APIC_LVT_ERROR, LVT_MASKED);
}

/* ---- PICs ---- */

#define PIC_MASTER 0x20
#define PIC_SLAVE 0xa0

static inline void pic_init(u8 base, u8 icw4)
{
	static const u16 ports[] = { PIC_MASTER, PIC_SLAVE };
	for (unsigned i = 0; i < 2; i++) {
		outb(ports[i], 0x11);
		outb(ports[i] + 1, base + 8 * i);
		outb(ports[i] + 1, i ? 2 : 4);
		outb(ports[i] + 1, icw4);
		outb(ports[i] + 1, 0xff);
	}
}

/* ---- Interval timer ---- */

static inline void pit_start(unsigned channel, unsigned timer_mode, u16 count)
{
	outb(0x43, channel << 6 | 0x30 | timer_mode << 1);
	outb(0x40 + channel, count & 0xff);
	outb(0x40 + channel, count >> 8);
}

static inline u16 pit_read(unsigned channel)
{
	outb(0x43, channel << 6);
	u16 low = inb(0x40 + channel);
	return low | inb(0x40 + channel) << 8;
}

/* ---- I/O APIC ---- */

#define IOAPIC_BASE 0xfec00000ul
#define IOAPIC_LEVEL 0x8000u
#define IOAPIC_LOW_ACTIVE 0x2000u
#define IOAPIC_REMOTE_IRR 0x4000u

static inline u32 ioapic_read(u8 reg)
{
	mmio_write(IOAPIC_BASE, reg);
	return mmio_read(IOAPIC_BASE + 0x10);
}

static inline void ioapic_write(u8 reg, u32 value)
{
	mmio_write(IOAPIC_BASE, reg);
	mmio_write(IOAPIC_BASE + 0x10, value);
}

static inline void ioapic_pin(unsigned pin, u32 low, u32 high)
{
	ioapic_write(0x11 + 2 * pin, high);
	ioapic_write(0x10 + 2 * pin, low);
}

/* ---- Waiting ---- */

/* Spin with interrupts on until *counter reaches `want`, or a few seconds have passed. */
static inline bool wait_for(volatile unsigned *counter, unsigned want)
{
	u64 end = rdtsc() + (10ull << 30);
	while (*counter < want && rdtsc() < end)
		asm volatile("sti\n nop\n pause\n cli" : : : "memory");
	return *counter >= want;
}

/* A busy delay by the TSC; there is no source of true time before the timers have been tested. */
static inline void spin(u64 cycles)
{
	u64 end = rdtsc() + cycles;
	while (rdtsc() < end)
		pause();
}

#endif
