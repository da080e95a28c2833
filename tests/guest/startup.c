/* Starting, stopping and waking CPUs: INIT to a CPU that runs, spins or halts, SIPI to one that does not wait for it, what wakes from HLT
 * and what does not, and resets of the machine while other CPUs are busy.
 * Intel SDM volume 3, "MP Initialization Protocol", "Processor Management and Initialization"; volume 2, HLT. */
#include "lib/smp.h"

#define V_TEST 0x51
#define REBOOT_CELL 0x5c /* of the CMOS memory, which a reset leaves alone */

enum activity { SPINS, SPINS_DEAF, HALTS, HALTS_DEAF, HALTS_AT_PRIORITY, USES_LOCK, ACTIVITIES };

static volatile enum activity activity;
static volatile u64 alive, woken, nmis, taken;
static volatile bool leave;

static void on_nmi(struct state *s)
{
	(void)s;
	nmis++;
}

static void on_test(struct state *s)
{
	(void)s;
	taken++;
	apic_eoi();
}

static void do_activity(void)
{
	static volatile u64 counter;
	switch (activity) {
	case SPINS:
		asm volatile("sti\n nop\n cli" : : : "memory");
		pause();
		break;
	case SPINS_DEAF:
		break;
	case HALTS:
		asm volatile("sti\n hlt\n cli" : : : "memory");
		break;
	case HALTS_DEAF:
		asm volatile("cli\n hlt" : : : "memory");
		break;
	case HALTS_AT_PRIORITY:
		apic_write(APIC_TPR, 0xf0);
		asm volatile("sti\n hlt\n cli" : : : "memory");
		break;
	default:
		atomic_add(&counter, 1);
	}
}

static void patient(void)
{
	alive = 0;
	for (woken = 0; !leave; woken++) {
		alive = 1;
		do_activity();
	}
	apic_write(APIC_TPR, 0);
}

#define SOME_TIME 20000000ull /* TSC ticks: some milliseconds */

static bool comes(volatile u64 *value, u64 wanted)
{
	u64 end = rdtsc() + (10ull << 30);
	while (*value < wanted && rdtsc() < end)
		pause();
	return *value >= wanted;
}

/* The first CPU is the doctor, the second its patient. */
static void stop_and_start(unsigned index)
{
	if (index == 1)
		patient();
	if (index)
		return;
	CHECK(comes(&alive, 1));
	spin(random64(&(u64){ rdtsc() }) % 300000);
	/* What is pending at INIT is gone after it. */
	if (activity != HALTS && activity != SPINS)
		smp_send(smp_apic_id(1), V_TEST);
	smp_stop(1);
	u64 stopped, came = smp_came();
	unsigned tries = 0;
	do { /* on a busy host INIT takes its time to arrive */
		stopped = woken;
		spin(5 * SOME_TIME);
	} while (woken != stopped && tries++ < 20);
	smp_send(smp_apic_id(1), V_TEST); /* it waits for a SIPI: an IPI is not one */
	spin(SOME_TIME);
	CHECK_EQ(woken, stopped);
	CHECK_EQ(smp_came(), came);
	CHECK(smp_restart(1));
	CHECK_EQ(taken, 0);
}

/* INIT has the last word: the CPU waits for the next SIPI. */
static void init_after_startup(unsigned index)
{
	if (index == 1)
		patient();
	if (index)
		return;
	CHECK(comes(&alive, 1));
	for (unsigned i = 0; i < 50; i++) {
		smp_stop(1);
		smp_startup(1);
		smp_stop(1);
		spin(i % 2 ? SOME_TIME / 4 : 0);
		u64 came = smp_came();
		smp_startup(1);
		u64 end = rdtsc() + (10ull << 30);
		while (smp_came() == came && rdtsc() < end && !on_qemu)
			pause();
		CHECK_BUT_QEMU(smp_came() != came, "TCG keeps the older SIPI");
	}
	CHECK(smp_restart(1));
}

static void restarts(void)
{
	for (activity = 0; activity < ACTIVITIES; activity++) {
		for (unsigned i = 0; i < 5; i++) {
			leave = false;
			alive = taken = 0;
			smp_run(stop_and_start);
		}
	}
}

/* A SIPI to a CPU that does not wait for one does nothing. */
static void needless_startup(unsigned index)
{
	if (index == 1)
		patient();
	if (index)
		return;
	CHECK(comes(&alive, 1));
	u64 came = smp_came(), before = woken;
	smp_startup(1);
	smp_startup(1);
	CHECK(comes(&woken, before + 1000));
	CHECK_EQ(smp_came(), came);
	leave = true;
}

static void waking(unsigned index)
{
	if (index == 1)
		patient();
	if (index)
		return;
	CHECK(comes(&alive, 1));
	for (unsigned i = 0; i < 200; i++) {
		spin(i < 100 ? i * 1000 : 0);
		u64 before = woken, nmis_before = nmis, taken_before = taken;
		if (activity == HALTS) {
			smp_send(smp_apic_id(1), V_TEST);
			CHECK(comes(&taken, taken_before + 1));
			CHECK(comes(&woken, before + 1));
			CHECK_EQ(taken, taken_before + 1);
			continue;
		}
		if (i % 64 == 0) { /* a fixed interrupt does not wake it */
			smp_send(smp_apic_id(1), V_TEST);
			spin(SOME_TIME);
			CHECK(woken == before && taken == taken_before);
		}
		/* One that comes just before HLT does not end it. */
		for (unsigned n = 1; n < 10 && woken == before; n++) {
			smp_send(smp_apic_id(1), ICR_NMI);
			CHECK(comes(&nmis, nmis_before + n));
			CHECK_EQ(nmis, nmis_before + n);
			u64 end = rdtsc() + 10 * SOME_TIME;
			while (woken == before && rdtsc() < end)
				pause();
		}
		CHECK(woken != before);
	}
	leave = true;
	for (u64 before = nmis; nmis == before;) {
		smp_send(smp_apic_id(1), ICR_NMI);
		spin(SOME_TIME);
	}
}

static void wakes(void)
{
	static const enum activity all[] = { HALTS, HALTS_DEAF, HALTS_AT_PRIORITY };
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		activity = all[i];
		leave = false;
		alive = taken = 0;
		smp_run(waking);
	}
}

static u8 cmos(u8 cell)
{
	outb(0x70, cell);
	return inb(0x71);
}

static void cmos_set(u8 cell, u8 value)
{
	outb(0x70, cell);
	outb(0x71, value);
}

static void busy_and_reset(unsigned index)
{
	static volatile u64 busy;
	atomic_add(&busy, 1);
	if (index) {
		for (;;)
			do_activity();
	}
	CHECK(comes(&busy, smp_cpus));
	spin(random64(&(u64){ rdtsc() }) % 3000000);
	outb(0xcf9, 2);
	outb(0xcf9, 6);
	for (;;)
		pause();
}

/* Each start of the machine is one round; memory must come up as it was loaded. */
static void reboot_rounds(u64 wanted)
{
	static u64 untouched = 0x1234;
	u8 round = cmos(REBOOT_CELL) - 0x40;
	if (cmos(REBOOT_CELL + 1) != 0xa5) {
		round = 0;
		cmos_set(REBOOT_CELL + 1, 0xa5);
	}
	CHECK_EQ(untouched, 0x1234);
	untouched = 0;
	cmos_set(REBOOT_CELL, 0x40 + round + 1);
	if (round == wanted) {
		CHECK_EQ(round, wanted);
		return;
	}
	activity = round % ACTIVITIES;
	smp_run(busy_and_reset);
}

void guest_main(void)
{
	u64 wanted;
	if (!smp_start())
		return;
	handler_set(VEC_NMI, on_nmi);
	handler_set(V_TEST, on_test);
	if (command_option("reboots", &wanted)) {
		reboot_rounds(wanted);
		return;
	}
	restarts();
	activity = USES_LOCK;
	leave = false;
	alive = 0;
	smp_run(init_after_startup);
	alive = 0;
	smp_run(needless_startup);
	wakes();
}
