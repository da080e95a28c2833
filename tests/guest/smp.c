/* Several CPUs: who they say they are, IPIs in every direction and to sleepers, shootdown of translations, code that
 * one CPU writes and another runs, INIT of a running CPU, and time that agrees. Run with --cpus N and "cpus=N". Intel
 * SDM volume 3, "Multiple-Processor Management", "Issuing Interprocessor Interrupts". */
#include "lib/smp.h"
#include "lib/window.h"

#define VECTOR 0x55
#define ROUNDS 50

static volatile unsigned interrupts[CPUS_MAX], nmis[CPUS_MAX], ids[CPUS_MAX];
static struct barrier barrier;

static void meet(void)
{
	barrier_wait(&barrier, smp_cpus);
}

static void on_interrupt(struct state *s)
{
	(void)s;
	interrupts[this_cpu()->index]++;
	apic_eoi();
}

static void on_nmi(struct state *s)
{
	(void)s;
	nmis[this_cpu()->index]++;
}

static void wait_until(volatile unsigned *counter, unsigned want)
{
	u64 end = rdtsc() + (20ull << 30);
	while (*counter < want && rdtsc() < end)
		asm volatile("sti\n nop\n pause\n cli" : : : "memory");
}

/* ---- Identity ---- */

static void say_id(unsigned index)
{
	ids[index] = cpuid(1, 0).ebx >> 24;
}

static void identity(void)
{
	smp_run(say_id);
	for (unsigned i = 0; i < smp_cpus; i++) {
		CHECK_EQ(ids[i], smp_apic_id(i) >> 24);
		for (unsigned j = 0; j < i; j++)
			CHECK(ids[i] != ids[j]);
	}
	if (CPUID_HAS(1, edx, 28))
		CHECK((cpuid(1, 0).ebx >> 16 & 0xff) >= smp_cpus);
}

static void say_base(unsigned index)
{
	ids[index] = rdmsr(MSR_APIC_BASE) >> 8 & 1;
}

static void one_bootstrap_processor(void)
{
	smp_run(say_base);
	for (unsigned i = 0; i < smp_cpus; i++)
		CHECK_EQ(ids[i], i == 0);
}

/* ---- IPIs ---- */

/* Everyone sends to everyone, ROUNDS times; each must get each one. Two of a vector may merge: the next is sent when
 * the last one has been counted. */
static void all_to_all(unsigned index)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned sender = 0; sender < smp_cpus; sender++) {
			unsigned before = interrupts[index];
			meet();
			for (unsigned to = 0; index == sender && to < smp_cpus; to++)
				smp_send(smp_apic_id(to), VECTOR);
			wait_until(&interrupts[index], before + 1);
			meet();
		}
	}
}

static void broadcasts(unsigned index)
{
	unsigned before = interrupts[index];
	meet();
	if (index == 0)
		smp_send(0, ICR_ALL | VECTOR);
	wait_until(&interrupts[index], before + 1);
	meet();
	if (index == 0)
		smp_send(0, ICR_OTHERS | VECTOR);
	if (index)
		wait_until(&interrupts[index], before + 2);
	meet();
	wait_until(&interrupts[index], before + 1);
	ids[index] = interrupts[index] - before;
}

static void nmi_round(unsigned index)
{
	meet();
	if (index == 0)
		smp_send(0, ICR_OTHERS | ICR_NMI);
	u64 end = rdtsc() + (20ull << 30);
	while (index && !nmis[index] && rdtsc() < end)
		pause(); /* with interrupts off */
	meet();
}

static void ipis(void)
{
	smp_run(all_to_all);
	for (unsigned i = 0; i < smp_cpus; i++)
		CHECK_EQ(interrupts[i], ROUNDS * smp_cpus);
	smp_run(broadcasts);
	for (unsigned i = 0; i < smp_cpus; i++)
		CHECK_EQ(ids[i], i ? 2 : 1);
	handler_set(VEC_NMI, on_nmi);
	smp_run(nmi_round);
	handler_set(VEC_NMI, NULL);
	for (unsigned i = 0; i < smp_cpus; i++)
		CHECK_EQ(nmis[i], i ? 1 : 0);
}

/* ---- Sleepers: each HLT is ended by the neighbour's IPI, round and round ---- */

static void relay(unsigned index)
{
	unsigned before = interrupts[index];
	meet();
	for (unsigned round = 1; round <= ROUNDS; round++) {
		if (index == 0)
			smp_send(smp_apic_id(1 % smp_cpus), VECTOR);
		while (interrupts[index] < before + round)
			asm volatile("sti\n hlt\n cli" : : : "memory");
		if (index)
			smp_send(smp_apic_id((index + 1) % smp_cpus), VECTOR);
	}
}

static void sleepers(void)
{
	unsigned before[CPUS_MAX] = { 0 };
	for (unsigned i = 0; i < smp_cpus; i++)
		before[i] = interrupts[i];
	smp_run(relay);
	for (unsigned i = 0; i < smp_cpus; i++)
		CHECK_EQ(interrupts[i] - before[i], ROUNDS);
}

/* ---- Translations: a page is remapped, everyone flushes, everyone sees the new one ---- */

static u32 pages[2][1024] __attribute__((aligned(4096)));
static volatile unsigned wrong;

static void shootdown(unsigned index)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		if (index == 0)
			window_map(0, pages[round & 1], PTE_ALL);
		meet();
		invlpg(window);
		if (*(volatile u32 *)window != (round & 1))
			wrong++;
		meet();
	}
}

/* Accessed and dirty bits set by several CPUs at once get lost nowhere. */
static void dirty_bits(unsigned index)
{
	for (unsigned page = index; page < 64; page += smp_cpus)
		((volatile u8 *)window)[(8 + page) * PAGE] = 1;
}

static void translations(void)
{
	pages[1][0] = 1;
	smp_run(shootdown);
	CHECK_EQ(wrong, 0);
	for (unsigned page = 0; page < 64; page++)
		window_map(8 + page, pages[0], PTE_ALL);
	smp_run(dirty_bits);
	for (unsigned page = 0; page < 64; page++)
		CHECK((window_entry(8 + page) & (PTE_A | PTE_D)) == (PTE_A | PTE_D));
	pages[0][0] = 0;
}

/* ---- Code written by one CPU and run by the others after they have met ---- */

static u8 code[64] __attribute__((aligned(64)));

static u32 call_code(void)
{
	u32 value;
	asm volatile("call *%1" : "=a"(value) : "r"(code) : "memory");
	return value;
}

static void cross_modify(unsigned index)
{
	for (u32 round = 0; round < ROUNDS * 4; round++) {
		unsigned writer = round % smp_cpus;
		if (index == writer) {
			code[0] = 0xb8;
			memcpy(code + 1, &round, 4);
			code[5] = 0xc3;
		}
		meet();
		cpuid(0, 0); /* serialize, as the manual asks */
		if (call_code() != round)
			wrong++;
		meet();
	}
}

/* ---- The TSC agrees: no CPU sees an older time than another has published ---- */

static volatile u64 latest, lock;
static volatile unsigned backwards;

/* LFENCE: RDTSC does not wait for what comes before it, not even for a locked instruction. */
static u64 rdtsc_ordered(void)
{
	asm volatile("lfence" : : : "memory");
	return rdtsc();
}

static void watch_time(unsigned index)
{
	(void)index;
	meet();
	for (unsigned i = 0; i < 2000; i++) {
		while (atomic_exchange(&lock, 1))
			pause();
		u64 now = rdtsc_ordered();
		if (now < latest)
			backwards++;
		latest = now;
		atomic_exchange(&lock, 0);
	}
}

/* ---- SIPI to a running CPU is ignored; INIT stops it, whatever it does ---- */

static volatile unsigned counting;

static void count_on(unsigned index)
{
	if (index == 0)
		return;
	counting = 1;
	for (;;)
		counting++;
}

/* Whether the other CPU counts on within so many ticks: many where it should (its thread may have to wait for a host CPU). */
static bool still_counting(u64 ticks)
{
	unsigned before = counting;
	u64 end = rdtsc() + ticks;
	while (counting == before && rdtsc() < end)
		pause();
	return counting != before;
}

static void init_stops(void)
{
	smp_start_work(count_on);
	wait_until(&counting, 2);
	smp_send(0, ICR_OTHERS | ICR_STARTUP | 0xff);
	CHECK(still_counting(1ull << 36));
	smp_send(0, ICR_OTHERS | ICR_INIT);
	spin(100000000);
	CHECK(!still_counting(1ull << 29));
}

void guest_main(void)
{
	window_init();
	handler_set(VECTOR, on_interrupt);
	if (!smp_start())
		return;
	identity();
	one_bootstrap_processor();
	ipis();
	sleepers();
	translations();
	smp_run(cross_modify);
	CHECK_EQ(wrong, 0);
	smp_run(watch_time);
	CHECK_EQ(backwards, 0);
	if (smp_cpus > 1)
		init_stops();
}
