/* Torture of several CPUs at once: each does pseudo-random things whose outcome it knows, while the others do the same to it. Counters under
 * every kind of lock, mappings changed with shootdown, functions patched while others call them, timers, IPIs, HLT, excursions to
 * user mode, strings and vector state under interrupts. Nothing may be lost, seen twice, or seen after it has been taken back.
 * Intel SDM volume 3, "Multiple-Processor Management"; "Handling Self- and Cross-Modifying Code"; "Propagation of Paging-Structure Changes
 * to Multiple Processors". Options: cpus=N, actions=N each CPU, seconds=N instead, seed=N, only=MASK of the actions. */
#include "torture/torture.h"

struct worker workers[CPUS_MAX];
volatile bool stop;
static u64 actions_wanted = 3000, seconds_wanted, only = ~0ull;
static struct barrier barrier;

void fail(const char *what, u64 got, u64 want)
{
	struct worker *w = self();
	if (!w->failures++) {
		w->failed = what;
		w->got = got;
		w->want = want;
	}
}

void expect(const char *what, u64 got, u64 want)
{
	self()->checks++;
	if (got != want)
		fail(what, got, want);
}

u64 pick(u64 n)
{
	return random64(&self()->seed) % n;
}

/* ---- locks and counters ---- */

void ticket_take(struct ticket_lock *lock)
{
	u64 mine = atomic_add(&lock->next, 1);
	WAIT(lock->serving == mine);
}

void ticket_give(struct ticket_lock *lock)
{
	lock->serving++;
}

static struct {
	volatile u64 xadd __attribute__((aligned(64)));
	volatile u64 cas __attribute__((aligned(64)));
	volatile u64 bts __attribute__((aligned(64)));
	volatile u64 bit __attribute__((aligned(64)));
	struct ticket_lock lock __attribute__((aligned(64)));
	volatile u64 ticket, ticket_mirror;
} counters;

static void act_xadd(void)
{
	u64 n = pick(1000);
	atomic_add(&counters.xadd, n);
	self()->xadds += n;
}

static void act_cas(void)
{
	u64 old = counters.cas;
	while (!atomic_compare_exchange(&counters.cas, &old, old + 3))
		pause();
	self()->cas += 3;
}

static void act_bts(void)
{
	bool was;
	for (;;) {
		asm volatile("lock btsq $17, %1" : "=@ccc"(was), "+m"(counters.bit) : : "memory");
		if (!was)
			break;
		WAIT(!(counters.bit & BIT(17)));
		if (stop)
			return;
	}
	counters.bts++;
	asm volatile("lock btrq $17, %0" : "+m"(counters.bit) : : "memory", "cc");
	self()->bts++;
}

static void act_ticket(void)
{
	ticket_take(&counters.lock);
	u64 n = ++counters.ticket;
	expect("ticket lock excludes", counters.ticket_mirror, n - 1);
	counters.ticket_mirror = n;
	ticket_give(&counters.lock);
	self()->tickets++;
}

/* ---- all CPUs do something, and say so ---- */

static struct {
	struct ticket_lock lock;
	volatile u64 sequence, acknowledged;
	volatile enum call what;
	volatile ulong address;
} call;

static void do_call(enum call what, ulong address)
{
	if (what == CALL_INVLPG)
		invlpg((const void *)address);
	else if (what == CALL_CR3)
		write_cr3(read_cr3());
	else
		cpuid(0, 0);
}

static void on_call(struct state *s)
{
	struct worker *w = self();
	(void)s;
	if (w->calls_last == call.sequence)
		fail("a broadcast came twice", w->calls_last, call.sequence);
	w->calls_last = call.sequence;
	w->calls_received++;
	do_call(call.what, call.address);
	atomic_add(&call.acknowledged, 1);
	apic_eoi();
}

/* By shorthand, one by one, or by logical destination. */
static void send_call(void)
{
	unsigned me = this_cpu()->index;
	switch (pick(3)) {
	case 0:
		smp_send(0, ICR_OTHERS | V_CALL);
		break;
	case 1:
		for (unsigned i = 0; i < smp_cpus; i++)
			if (i != me)
				smp_send(smp_apic_id(i), V_CALL);
		break;
	default:
		smp_send((((1u << smp_cpus) - 1) & ~(1u << me)) << 24, ICR_LOGICAL | V_CALL);
	}
}

void call_all(enum call what, ulong address)
{
	ticket_take(&call.lock);
	call.what = what;
	call.address = address;
	call.acknowledged = 0;
	call.sequence++;
	self()->calls_last = call.sequence;
	send_call();
	do_call(what, address);
	WAIT(call.acknowledged == smp_cpus - 1);
	ticket_give(&call.lock);
}

static void act_call(void)
{
	call_all(CALL_NOTHING, 0);
}

/* ---- the whole ---- */

static void (*const actions[])(void) = {
	act_xadd, act_cas, act_bts, act_ticket, act_call, act_access, act_access, act_access, act_map, act_call_code,
	act_call_code, act_call_code, act_patch, act_own_code, act_timer, act_periodic, act_halt, act_ipi, act_ipi, act_self,
	act_nmi, act_user, act_string, act_vectors,
};

/* The first CPU watches the clock: seconds that have begun. */
static bool time_is_up(void)
{
	static u8 last = 0xff;
	static u64 seconds, looked;
	if (rdtsc() - looked < 1 << 24)
		return false;
	looked = rdtsc();
	outb(0x70, 0);
	u8 now = inb(0x71);
	if (now != last)
		seconds++;
	last = now;
	return seconds > seconds_wanted;
}

static bool goes_on(unsigned index, const struct worker *w)
{
	if (stop)
		return false;
	if (!seconds_wanted)
		return w->actions < actions_wanted;
	static volatile bool up;
	if (!index && time_is_up())
		up = true;
	return !up;
}

static void work(unsigned index)
{
	struct worker *w = &workers[index];
	user_set_up();
	vectors_set_up();
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_LDR, 1u << (24 + index));
	barrier_wait(&barrier, smp_cpus);
	sti();
	while (goes_on(index, w)) {
		unsigned action = pick(ARRAY_SIZE(actions));
		if (only >> action & 1)
			actions[action]();
		w->actions++;
	}
	/* What is on its way still comes. */
	WAIT(!timer_waits());
	barrier_wait(&barrier, smp_cpus);
	for (unsigned to = 0; to < smp_cpus; to++)
		WAIT(pair_arrived(index, to));
	WAIT(!nmi_wanted[index]);
	barrier_wait(&barrier, smp_cpus);
	cli();
}

static void report_failures(void)
{
	for (unsigned i = 0; i < smp_cpus; i++) {
		const struct worker *w = &workers[i];
		check(!w->failures, __FILE_NAME__, __LINE__, w->failures ? w->failed : "");
		if (w->failures)
			print("    CPU %u, %llu failures: got %llx, want %llx\n", i, w->failures, w->got, w->want);
	}
}

static void check_sums(void)
{
	struct worker sum = { 0 };
	for (unsigned i = 0; i < smp_cpus; i++) {
		const struct worker *w = &workers[i];
		sum.xadds += w->xadds;
		sum.cas += w->cas;
		sum.bts += w->bts;
		sum.tickets += w->tickets;
		sum.actions += w->actions;
		sum.checks += w->checks;
		sum.seen_patching += w->seen_patching;
		sum.seen_faults += w->seen_faults;
		sum.calls_received += w->calls_received;
		sum.periods += w->periods;
		sum.timers_fired += w->timers_fired;
		CHECK_EQ(w->timers_fired, w->timers_armed);
		CHECK_EQ(w->selfs_received, w->selfs_sent);
		CHECK_EQ(w->nmis_received, nmis_sent[i]);
		sum.nmis_received += w->nmis_received;
		for (unsigned to = 0; to < smp_cpus; to++)
			CHECK_EQ(workers[to].received[i], w->sent[to]);
	}
	CHECK_EQ(counters.xadd, sum.xadds);
	CHECK_EQ(counters.cas, sum.cas);
	CHECK_EQ(counters.bts, sum.bts);
	CHECK_EQ(counters.ticket, sum.tickets);
	CHECK_EQ(call.sequence * (smp_cpus - 1), sum.calls_received);
	CHECK_EQ(code_page_counter(), code_counter);
	print("%llu actions, %llu checks, %llu broadcasts, %llu timers, %llu periods, %llu NMIs, %llu faults, %llu calls while patching\n",
		sum.actions, sum.checks, call.sequence, sum.timers_fired, sum.periods, sum.nmis_received, sum.seen_faults, sum.seen_patching);
}

void guest_main(void)
{
	extern const u8 trap_stubs[];
	u64 seed = 1;
	if (!smp_start())
		return;
	command_option("actions", &actions_wanted);
	if (on_qemu)
		actions_wanted /= 100; /* its CPUs wait for each other with all their might */
	command_option("seconds", &seconds_wanted);
	command_option("seed", &seed);
	command_option("only", &only);
	gdt_set(SEL_SYSCALL, descriptor(0, 0xfffff, ACCESS_CODE, DESC_G | DESC_L));
	gdt_set(SEL_SYSCALL + 8, descriptor(0, 0xfffff, ACCESS_DATA, DESC_G | DESC_DB));
	window_set_up();
	code_set_up();
	for (unsigned i = 0; i < CPUS_MAX; i++)
		workers[i].seed = seed * 0x9e3779b97f4a7c15 + i * 0xbf58476d1ce4e5b9 + 1;
	handler_set(VEC_PF, on_page_fault);
	handler_set(VEC_BP, on_breakpoint);
	handler_set(VEC_NMI, on_nmi);
	handler_set(V_TIMER, on_timer);
	handler_set(V_PERIODIC, on_period);
	handler_set(V_SELF, on_self);
	handler_set(V_CALL, on_call);
	for (unsigned i = 0; i < CPUS_MAX; i++)
		handler_set(V_PAIR + i, on_pair);
	handler_set(V_USER_END, on_user_end);
	idt_set(V_USER_END, SEL_CODE64, (ulong)trap_stubs + 16 * V_USER_END, GATE_INT, 3, 0);
	smp_run(work);
	report_failures();
	check_sums();
}
