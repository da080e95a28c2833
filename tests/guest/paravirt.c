/* KVM's interface for guests that know they are some, C4: the end of interrupts by a word in memory, IPIs and kicks by hypercall, steal time
 * with its flags; and what a hostile guest may tell the host about them. Run with --cpus N and "cpus=N". Linux documentation, "KVM CPUID
 * bits", "KVM-specific MSRs", "Linux KVM Hypercall". */
#include "lib/smp.h"

#define VECTOR 0x55
#define VECTOR_LOW 0x45

#define MSR_STEAL_TIME 0x4b564d03
#define MSR_PV_EOI 0x4b564d04
#define ENABLE 1

#define FEATURE_STEAL_TIME 5
#define FEATURE_PV_EOI 6
#define FEATURE_UNHALT 7
#define FEATURE_IPI 11
#define FEATURE_YIELD 13

#define HC_KICK 5
#define HC_IPI 10
#define HC_YIELD 11
#define EPERM 1
#define EINVAL 22
#define ENOSYS 1000

#define PREEMPTED 1
#define FLUSH_TLB 2

struct steal_time {
	u64 steal;
	u32 version, flags;
	volatile u8 preempted;
	u8 reserved[47];
};

static struct steal_time steal[CPUS_MAX] __attribute__((aligned(64)));
static volatile u32 eoi_word[2];
static volatile unsigned interrupts[CPUS_MAX], nmis[CPUS_MAX], awake[CPUS_MAX];
static volatile u32 found;
static struct barrier barrier;

static void meet(void)
{
	barrier_wait(&barrier, smp_cpus);
}

static bool has(unsigned feature)
{
	return cpuid(0x40000001, 0).eax >> feature & 1;
}

static s64 hypercall(u64 number, u64 a, u64 b, u64 c, u64 d)
{
	s64 result;
	asm volatile("vmcall" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return result;
}

static bool wait_until(const volatile unsigned *counter, unsigned want)
{
	u64 end = rdtsc() + (20ull << 30);
	while (*counter < want && rdtsc() < end)
		asm volatile("sti\n nop\n pause\n cli" : : : "memory");
	return *counter >= want;
}

static void window(void)
{
	asm volatile("sti\n nop\n cli" : : : "memory");
}

/* ---- PV EOI ---- */

/* As Linux does: where the bit is found set, clearing it is enough. */
static void end_interrupt(volatile u32 *word)
{
	u32 bit = 1;
	asm volatile("lock btrl $0, %1\n sbb %0, %0" : "=r"(bit), "+m"(*word) : : "memory", "cc");
	found = !!bit;
	if (!bit)
		apic_eoi();
}

static void on_interrupt(struct state *s)
{
	(void)s;
	interrupts[this_cpu()->index]++;
	if (this_cpu()->index)
		apic_eoi();
	else
		end_interrupt(&eoi_word[0]);
}

static void on_low(struct state *s)
{
	on_interrupt(s);
}

static void end_of_interrupts(void)
{
	u64 address = (ulong)&eoi_word[0];
	interrupts[0] = 0;
	wrmsr(MSR_PV_EOI, address | ENABLE);
	CHECK_EQ(rdmsr(MSR_PV_EOI), address | ENABLE);
	for (unsigned i = 1; i <= 20; i++) {
		apic_send_self(VECTOR);
		window();
		CHECK_EQ(interrupts[0], i);
		CHECK_EQ(found, 1);
		CHECK_EQ(eoi_word[0], 0);
	}
	CHECK(!apic_bit(APIC_ISR, VECTOR));

	/* With another one requested, the host must hear of the end. */
	interrupts[0] = 0;
	apic_send_self(VECTOR_LOW);
	apic_send_self(VECTOR);
	asm volatile("sti\n nop\n nop\n cli" : : : "memory");
	wait_until(&interrupts[0], 2);
	CHECK_EQ(interrupts[0], 2);
	CHECK_EQ(found, 1); /* the second again was the last */
	CHECK(!apic_bit(APIC_ISR, VECTOR) && !apic_bit(APIC_ISR, VECTOR_LOW));

	/* Moved, and off. */
	wrmsr(MSR_PV_EOI, (ulong)&eoi_word[1] | ENABLE);
	apic_send_self(VECTOR);
	window();
	CHECK_EQ(found, 0);
	CHECK_EQ(eoi_word[0], 0);
	wrmsr(MSR_PV_EOI, 0);
	eoi_word[1] = 0;
	apic_send_self(VECTOR);
	window();
	CHECK_EQ(found, 0);
	CHECK_EQ(eoi_word[1], 0);
	CHECK_EQ(interrupts[0], 4);
}

/* ---- IPIs ---- */

static void on_nmi(struct state *s)
{
	(void)s;
	nmis[this_cpu()->index]++;
}

static void all_by_hypercall(unsigned index)
{
	interrupts[index] = nmis[index] = 0;
	meet();
	if (!index) {
		CHECK_EQ(hypercall(HC_IPI, BIT(smp_cpus) - 1, 0, 0, VECTOR), smp_cpus);
		CHECK_EQ(hypercall(HC_IPI, 1, 0, smp_apic_id(smp_cpus - 1) >> 24, ICR_NMI), 1);
	}
	CHECK(wait_until(&interrupts[index], 1));
	if (index == smp_cpus - 1)
		CHECK(wait_until(&nmis[index], 1));
	meet();
	CHECK_EQ(interrupts[index], 1);
	CHECK_EQ(nmis[index], index == smp_cpus - 1);
}

CODE(do_hypercall, "vmcall");

static void refusals(void)
{
	CHECK_EQ(hypercall(HC_IPI, ~0ull, ~0ull, 0x100000000ull, ICR_INIT), -EINVAL);
	CHECK_EQ(hypercall(HC_IPI, ~0ull, ~0ull, 0, ICR_LOGICAL | VECTOR), -EINVAL);
	CHECK_EQ(hypercall(HC_IPI, ~0ull, ~0ull, 0, 3), -EINVAL); /* no vector */
	CHECK_EQ(hypercall(HC_IPI, ~0ull, ~0ull, 0x10000, VECTOR), 0);
	CHECK_EQ(hypercall(HC_IPI, ~0ull, ~0ull, 0xffffffff, VECTOR), 0);
	CHECK_EQ(hypercall(HC_KICK, 0, 0x7fffffff, 0, 0), 0);
	CHECK_EQ(hypercall(HC_YIELD, 12345, 0, 0, 0), 0);
	CHECK_EQ(hypercall(77, 0, 0, 0, 0), -ENOSYS);
	for (unsigned number = 0; number < 16; number++) {
		struct state s = state_at(do_hypercall, 3);
		s.ax = number;
		s.bx = ~0ul;
		run(&s);
		CHECK_END(s, do_hypercall);
		CHECK_EQ(s.ax, -EPERM);
	}
}

/* ---- Kicks, and the flags of who sleeps ---- */

/* Interrupts are disabled: only the kick ends it. */
static void kicked(unsigned index)
{
	u64 end = rdtsc() + (20ull << 30);
	bool sleeper = index == smp_cpus - 1;
	meet();
	if (sleeper) {
		asm volatile("cli\n hlt" : : : "memory");
		awake[index]++;
	} else if (!index) {
		if (has(FEATURE_STEAL_TIME))
			while (steal[smp_cpus - 1].preempted != PREEMPTED && rdtsc() < end)
				pause();
		CHECK_EQ(awake[smp_cpus - 1], 0);
		CHECK_EQ(steal[smp_cpus - 1].preempted, PREEMPTED);
		steal[smp_cpus - 1].preempted = PREEMPTED | FLUSH_TLB;
		CHECK_EQ(hypercall(HC_KICK, 0, smp_apic_id(smp_cpus - 1) >> 24, 0, 0), 0);
	}
	meet();
	CHECK_EQ(awake[smp_cpus - 1], 1);
	CHECK_EQ(steal[smp_cpus - 1].preempted, 0);
}

/* A kick that comes before the HLT is not lost. */
static void kicked_before(void)
{
	CHECK_EQ(hypercall(HC_KICK, 0, 0, 0, 0), 0);
	asm volatile("cli\n hlt" : : : "memory");
	CHECK_EQ(interrupts[0], 1);
}

static void steal_on(unsigned index)
{
	wrmsr(MSR_STEAL_TIME, (ulong)&steal[index] | ENABLE);
	CHECK_EQ(rdmsr(MSR_STEAL_TIME), (ulong)&steal[index] | ENABLE);
	CHECK(steal[index].version && !(steal[index].version & 1));
	awake[index] = 0;
}

static void steal_off(unsigned index)
{
	CHECK(!(steal[index].version & 1));
	CHECK_EQ(steal[index].flags, 0);
	wrmsr(MSR_STEAL_TIME, 0);
}

/* ---- Addresses ---- */

CODE(do_wrmsr, "wrmsr");

static void expect_gp(u32 index, u64 value)
{
	struct state s = state_at(do_wrmsr, 0);
	s.cx = index;
	s.ax = (u32)value;
	s.dx = (u32)(value >> 32);
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, do_wrmsr);
}

static void addresses(void)
{
	static const u64 hostile[] = { 0xffffffffffffffc0, 0x7fffffffffffffc0, 0xfee00000, 0xfec00000, 0xa0000, 0x8000000000000000, 0x3fffffffc0,
				       0xfffffffc0 };
	for (unsigned i = 2; i < 64; i *= 2)
		expect_gp(MSR_STEAL_TIME, ((ulong)&steal[0] | ENABLE) + i);
	expect_gp(MSR_PV_EOI, ((ulong)&eoi_word[0] | ENABLE) + 2);
	for (unsigned i = 0; i < ARRAY_SIZE(hostile); i++) {
		wrmsr(MSR_STEAL_TIME, hostile[i] | ENABLE);
		wrmsr(MSR_PV_EOI, hostile[i] | ENABLE);
		interrupts[0] = 0;
		apic_send_self(VECTOR);
		asm volatile("sti\n hlt\n cli" : : : "memory");
		CHECK_EQ(interrupts[0], 1);
	}
	wrmsr(MSR_STEAL_TIME, 0);
	wrmsr(MSR_PV_EOI, 0);
}

void guest_main(void)
{
	u64 off = 0;
	handler_set(VECTOR, on_interrupt);
	handler_set(VECTOR_LOW, on_low);
	handler_set(VEC_NMI, on_nmi);
	if (!smp_start())
		return;
	if (command_option("off", &off)) { /* by --cpu */
		CHECK_EQ(cpuid(0x40000001, 0).eax >> off & 1, 0);
		expect_gp(off == FEATURE_PV_EOI ? MSR_PV_EOI : MSR_STEAL_TIME, 0);
		return;
	}
	CHECK(has(FEATURE_STEAL_TIME) && has(FEATURE_PV_EOI) && has(FEATURE_UNHALT) && has(FEATURE_IPI) && has(FEATURE_YIELD));
	end_of_interrupts();
	smp_run(all_by_hypercall);
	refusals();
	kicked_before();
	smp_run(steal_on);
	if (smp_cpus > 1)
		smp_run(kicked);
	smp_run(steal_off);
	addresses();
}
