/* What a local APIC does all day, often: priorities raised and lowered, registers read, interrupts sent and ended, in xAPIC and in x2APIC mode. Where the processor virtualizes the
 * local APIC, next to nothing of it leaves the guest, which who starts it can count (B8, F2). */
#include "lib/apic.h"

#define TIMES 400
#define VECTOR 0x61
#define X2APIC(reg) (0x800 + ((reg) >> 4))
#define X2APIC_SELF 0x83f

static volatile unsigned taken;
static bool by_msr;

static void end(struct state *s)
{
	(void)s;
	taken++;
	if (by_msr)
		wrmsr(X2APIC(APIC_EOI), 0);
	else
		apic_eoi();
}

static void window_open(void)
{
	asm volatile("sti\n nop\n nop\n nop\n cli" : : : "memory");
}

/* Each time an interrupt is held back by the priority, and let in. */
static void by_cr8(void)
{
	unsigned early = 0;
	for (unsigned i = 0; i < TIMES; i++) {
		write_cr8(i % 2 ? 7 : 5);
		early += read_cr8() != (i % 2 ? 7 : 5);
	}
	CHECK_EQ(early, 0);
	write_cr8(0);
}

static void by_page(void)
{
	unsigned wrong = 0;
	u32 version = apic_read(APIC_VERSION);
	for (unsigned i = 0; i < TIMES; i++) {
		apic_write(APIC_TPR, i & 0xff);
		wrong += apic_read(APIC_TPR) != (i & 0xff);
		wrong += apic_read(APIC_VERSION) != version;
		wrong += apic_bit(APIC_IRR, VECTOR) || apic_bit(APIC_ISR, VECTOR);
	}
	CHECK_EQ(wrong, 0);
	apic_write(APIC_TPR, 0);
}

static void send_by_page(void)
{
	taken = 0;
	for (unsigned i = 0; i < TIMES; i++) {
		write_cr8(VECTOR >> 4);
		apic_write(APIC_ICR, VECTOR | ICR_SELF | ICR_ASSERT);
		window_open();
		CHECK_EQ(taken, i);
		write_cr8(0);
		window_open();
		CHECK_EQ(taken, i + 1);
	}
}

static void by_msrs(void)
{
	if (!CPUID_HAS(1, ecx, 21))
		return;
	unsigned wrong = 0;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 10);
	by_msr = true;
	taken = 0;
	for (unsigned i = 0; i < TIMES; i++) {
		wrmsr(X2APIC(APIC_TPR), VECTOR & 0xf0);
		wrmsr(X2APIC_SELF, VECTOR);
		window_open();
		wrong += taken != i || !(rdmsr(X2APIC(APIC_IRR) + VECTOR / 32) >> VECTOR % 32 & 1) || rdmsr(X2APIC(APIC_TPR)) != (VECTOR & 0xf0);
		wrmsr(X2APIC(APIC_TPR), 0);
		window_open();
		wrong += taken != i + 1;
	}
	CHECK_EQ(wrong, 0);
}

void guest_main(void)
{
	apic_init();
	handler_set(VECTOR, end);
	by_cr8();
	by_page();
	send_by_page();
	by_msrs();
}
