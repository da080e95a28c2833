/* The local APIC (apic.h). */
#include "host/metal/apic.h"

#include "cpu/host_cpuid.h"
#include "host/metal/cpu.h"
#include "host/metal/map.h"
#include "host/metal/time.h"
#include "host/port.h"
#include "lib/scale.h"

/* Registers, by their offset in the page; as an MSR, 0x800 plus a sixteenth of it. */
enum { ID = 0x20, TPR = 0x80, EOI = 0xb0, SPURIOUS = 0xf0, ICR = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, LVT_LINT0 = 0x350,
	LVT_LINT1 = 0x360, INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0 };

#define ENABLE BIT(8)
#define MASKED BIT(16)
#define LVT_NMI (4u << 8)
#define DEADLINE_MODE BIT(18)
#define ICR_PENDING BIT(12)
#define ICR_ASSERT BIT(14)
#define ICR_INIT (5u << 8)
#define ICR_STARTUP (6u << 8)
#define ICR_NMI (4u << 8)
#define ICR_OTHERS (3u << 18)
#define BASE_ENABLE BIT(11)
#define BASE_X2APIC BIT(10)
#define DIVIDE_BY_16 3u

static struct {
	bool x2apic, deadline;
	u8 *page;
	u64 timer_hz;
} apic;

static u32 read(u32 reg)
{
	return apic.x2apic ? (u32)rdmsr(MSR_X2APIC + reg / 16) : *(volatile u32 *)(apic.page + reg);
}

static void write(u32 reg, u32 value)
{
	if (apic.x2apic)
		wrmsr(MSR_X2APIC + reg / 16, value);
	else
		*(volatile u32 *)(apic.page + reg) = value;
}

/* Out of the way of the exceptions, and silent. */
static void quiet_pic(void)
{
	static const u8 words[][2] = { { 0x20, 0x11 }, { 0xa0, 0x11 }, { 0x21, 0x20 }, { 0xa1, 0x28 }, { 0x21, 4 },
				       { 0xa1, 2 },    { 0x21, 1 },    { 0xa1, 1 },    { 0x21, 0xff }, { 0xa1, 0xff } };
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		outb(words[i][0], words[i][1]);
}

static u64 measure(void)
{
	write(LVT_TIMER, MASKED | VECTOR_TIMER);
	write(DIVIDE, DIVIDE_BY_16);
	write(INITIAL, ~0u);
	u64 start = host_now();
	time_delay(10 * 1000 * 1000);
	u32 counted = ~0u - read(CURRENT);
	write(INITIAL, 0);
	write(LVT_TIMER, VECTOR_TIMER);
	return scale_floor(counted, NANOSECONDS_PER_SECOND, host_now() - start);
}

void apic_init(void)
{
	u32 features = host_cpuid(1, 0).reg[CPUID_ECX];
	quiet_pic();
	apic.x2apic = features & BIT(21);
	apic.deadline = features & BIT(24);
	u64 base = rdmsr(MSR_APIC_BASE);
	if (!apic.x2apic) {
		apic.page = map_device(base & 0xffffff000ull, PAGE_SIZE);
		if (!apic.page)
			host_panic("no memory to map the local APIC");
	}
	apic_enable();
	if (!apic.deadline)
		apic.timer_hz = measure();
}

void apic_enable(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_ENABLE);
	if (apic.x2apic)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BASE_X2APIC);
	write(SPURIOUS, ENABLE | VECTOR_SPURIOUS);
	write(TPR, 0);
	write(LVT_LINT0, MASKED);
	write(LVT_LINT1, LVT_NMI);
	write(DIVIDE, DIVIDE_BY_16);
	write(LVT_TIMER, (apic.deadline ? DEADLINE_MODE : 0) | VECTOR_TIMER);
}

u32 apic_id(void)
{
	return apic.x2apic ? read(ID) : read(ID) >> 24;
}

void apic_eoi(void)
{
	write(EOI, 0);
}

/* Interrupts off: the two halves belong together. */
static void send(u32 to, u32 what)
{
	u64 held = irq_save();
	if (apic.x2apic) {
		__asm__ volatile("mfence; lfence" ::: "memory"); /* WRMSR to x2APIC registers does not wait for earlier stores */
		wrmsr(MSR_X2APIC + ICR / 16, (u64)to << 32 | what);
	} else {
		while (read(ICR) & ICR_PENDING)
			cpu_relax();
		write(ICR_HIGH, to << 24);
		write(ICR, what);
	}
	irq_restore(held);
}

void apic_send(u32 to, u8 vector)
{
	send(to, ICR_ASSERT | vector);
}

void apic_send_nmi_to_others(void)
{
	send(0, ICR_ASSERT | ICR_NMI | ICR_OTHERS);
}

void apic_send_init(u32 to)
{
	send(to, ICR_ASSERT | ICR_INIT);
}

void apic_send_startup(u32 to, u8 page)
{
	send(to, ICR_ASSERT | ICR_STARTUP | page);
}

u64 apic_timer(u64 nanoseconds)
{
	u64 due = nanoseconds ? rdtsc() + scale_ceil(nanoseconds, host_tsc_hz(), NANOSECONDS_PER_SECOND) : HOST_NEVER;
	if (apic.deadline)
		wrmsr(MSR_TSC_DEADLINE, nanoseconds ? due : 0);
	else
		write(INITIAL, nanoseconds ? (u32)MAX(MIN(scale_ceil(nanoseconds, apic.timer_hz, NANOSECONDS_PER_SECOND), 0xffffffffull), 1) : 0);
	return due;
}
