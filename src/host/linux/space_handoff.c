/* Request and answer between a thread of the VMM and a space.
 *
 * A request is one more in control->sequence, an answer the same number in answer->done; both are futexes. What the space has written is
 * not believed, and no answer at all is noticed by whoever waits: the server tells of a space's end, and from time to time the waiting
 * thread looks whether the server is there, and whether the space has been told to stop for long.
 *
 * A round trip by two futexes takes 5 us when both sides have one CPU in turn, and 50 us and more across CPUs, since idle ones must be
 * woken. If both sides have a CPU each and look out for each other it takes 0.3 us. So we spin while answers come soon. When one does
 * not:
 *
 * - The kernel had put both on one CPU: the space is told to keep away from that. - Or one side lost its CPU to somebody else: there is
 * none to spare, so we sleep from now on for a long time. - Or the guest just runs for long: we sleep for a short time.
 *
 * These times double when it happens again soon. Those that sleep share a CPU, to which both are bound for a while (PINNED_US): left to
 * itself, the kernel wakes each where it finds an idle one. In between this thread is free to be put elsewhere, and the space follows. */
#define _GNU_SOURCE
#include "host/linux/space_handoff.h"

#include "cpu/host_cpuid.h"
#include "host/linux/space.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHECK_INTERVAL 500000000ull /* ns */
#define PATIENCE 20 /* intervals that a space may take to stop */
#define SPIN_US 200 /* several times what it takes to wake somebody on another CPU */
#define PINNED_US 20000 /* enough to make up for being woken elsewhere once */
#define SPIN_THERE 4 /* the space spins for so much less, since we are not long about an exit if it comes to spinning */
#define SHORT_MAX 32 /* times SPIN_US */
#define LONG_MIN 20
#define LONG_MAX 10000
#define NOW_AND_THEN 40 /* once in so much time others may run */
#define HWCAP2_FSGSBASE 2
#define CPU_NUMBER 0xfff /* in TSC_AUX; above is the node */

static struct {
	cpu_set_t cpus; /* that we were given */
	u64 spin; /* TSC ticks to look out for an answer before sleeping; 0: there is one CPU. Set with the first space: this clock may take time to know */
	bool several, fsgsbase, rdtscp;
	/* All threads, atomic: CPUs were found to be short, so nobody spins before this time, and how long that is, in units of `spin`. */
	u64 crowded_until, crowded_times;
} host;

void handoff_start(void)
{
	host.several = sched_getaffinity(0, sizeof(host.cpus), &host.cpus) == 0 && CPU_COUNT(&host.cpus) > 1;
	host.fsgsbase = getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
	host.rdtscp = host_cpuid_checked(0x80000001, 0).reg[CPUID_EDX] >> 27 & 1;
}

/* ---- who runs where ---- */

/* Where this thread is bound to, on the space's CPU or it on ours, and until when. */
static _Thread_local struct {
	bool bound;
	int cpu;
	u64 until;
} pinned;

void handoff_unpin(void)
{
	if (!pinned.bound)
		return;
	pinned.bound = false;
	sched_setaffinity(0, sizeof(host.cpus), &host.cpus);
}

/* To the CPU that we are on. False: to none. */
static bool pin(u64 now)
{
	cpu_set_t set;
	int cpu = sched_getcpu();
	if (cpu < 0)
		return false;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	pinned.bound = sched_setaffinity(0, sizeof(set), &set) == 0;
	pinned.cpu = cpu;
	pinned.until = now + host.spin / SPIN_US * PINNED_US;
	return pinned.bound;
}

/* With its next request the space moves there. */
static void move(struct handoff *h, const cpu_set_t *set)
{
	_Static_assert(sizeof(*set) == sizeof(h->control->cpus), "a set of CPUs");
	__builtin_memcpy(h->control->cpus, set, sizeof(*set));
	h->control->move = 1;
	h->apart = h->at = -1;
}

/* To where this thread may run, but not to `cpu` (-1: anywhere). False: there is no such place. */
static bool keep_apart(struct handoff *h, int cpu)
{
	cpu_set_t set = host.cpus;
	if (cpu >= 0)
		CPU_CLR(cpu, &set);
	if (!CPU_COUNT(&set))
		return false;
	move(h, &set);
	h->apart = cpu;
	return true;
}

/* Both sides sleep in turn. */
static void come_together(struct handoff *h, u64 now)
{
	cpu_set_t set;
	if (pinned.bound && now >= pinned.until) {
		handoff_unpin();
		return;
	}
	if ((!pinned.bound && !pin(now)) || h->at == pinned.cpu)
		return;
	CPU_ZERO(&set);
	CPU_SET(pinned.cpu, &set);
	move(h, &set);
	h->at = pinned.cpu;
}

/* Both sides are going to spin. */
static void go_apart(struct handoff *h)
{
	handoff_unpin();
	if (h->at >= 0 && !keep_apart(h, h->at))
		keep_apart(h, -1);
}

/* Any two numbers of which one cannot be made of the other. */
#define RING_EVEN 1
#define RING_ODD (1ull << 32)

static void show_pass(struct handoff *h, const u64 *pass)
{
	for (unsigned i = 0; i < ARRAY_SIZE(h->answer->pass); i++)
		__atomic_store_n(&h->answer->pass[i], pass ? pass[i] : 0, __ATOMIC_RELAXED);
}

static void set_spin(void)
{
	host.spin = host.several ? host_tsc_hz() / 1000000 * SPIN_US : 0;
}

void handoff_init(struct handoff *h, struct space_control *control, struct space_answer *answer, const u64 *pass)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, set_spin);
	*h = (struct handoff){ .control = control, .answer = answer, .sequence = 1, .apart = -1, .at = -1, .ring = -1 };
	control->ring[0] = RING_EVEN;
	control->ring[1] = RING_ODD;
	show_pass(h, pass);
	control->sequence = 1;
	control->waiting = 1;
	control->fsgsbase = host.fsgsbase;
	control->rdtscp = host.rdtscp;
	keep_apart(h, -1); /* it runs where this thread may */
}

bool handoff_fsgsbase(void)
{
	return host.fsgsbase;
}

bool handoff_dead(const struct handoff *h)
{
	return __atomic_load_n(&h->control->dead, __ATOMIC_ACQUIRE);
}

/* What the space says in memory may be its guest's invention; that it rang, once and for this request, is not (space_runtime.S). */
static bool rang(const struct handoff *h)
{
	u64 value = 0;
	return read(h->ring, &value, sizeof(value)) == sizeof(value) && value == h->control->ring[h->sequence & 1];
}

/* ---- sleeping ---- */

static bool server_alive(void)
{
	struct pollfd on = { .fd = space_socket() };
	return poll(&on, 1, 0) >= 0 && !(on.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/* Sleep until the answer may have changed, but not for long. */
static void sleep_at_answer(struct handoff *h, u32 old)
{
	const struct timespec t = { .tv_nsec = CHECK_INTERVAL };
	syscall(SYS_futex, &h->answer->done, FUTEX_WAIT, old, &t);
}

/* Whether it makes sense to wait on. Intervals are counted, since all of us may have been stopped for a while. */
static bool wait_on(struct handoff *h, unsigned *late, bool hurry)
{
	if (!server_alive())
		return false;
	if (hurry || __atomic_load_n(&h->control->stop, __ATOMIC_RELAXED))
		++*late;
	return *late < PATIENCE;
}

bool handoff_await(struct handoff *h, bool hurry)
{
	unsigned late = 0;
	u64 check = 0;
	for (;;) {
		u32 done = __atomic_load_n(&h->answer->done, __ATOMIC_ACQUIRE);
		if (handoff_dead(h))
			return false;
		if (done == h->sequence)
			return rang(h);
		u64 now = host_now();
		if (check && now >= check && !wait_on(h, &late, hurry))
			return false;
		if (now >= check)
			check = now + CHECK_INTERVAL;
		sleep_at_answer(h, done);
	}
}

void handoff_await_end(struct handoff *h)
{
	while (!handoff_dead(h) && server_alive())
		sleep_at_answer(h, __atomic_load_n(&h->answer->done, __ATOMIC_ACQUIRE));
}

/* ---- spinning ---- */

static bool spin_pays(const struct handoff *h, u64 now)
{
	return host.spin && h->expected < host.spin && now >= h->spin_after &&
	       now >= __atomic_load_n(&host.crowded_until, __ATOMIC_RELAXED);
}

/* Until the answer changes; false: it did not for long. */
static bool spin(struct handoff *h, u32 old, u64 start)
{
	while (__atomic_load_n(&h->answer->done, __ATOMIC_ACQUIRE) == old) {
		__builtin_ia32_pause();
		if (__builtin_ia32_rdtsc() - start > host.spin)
			return false;
	}
	return true;
}

/* Whether this thread or the space had to give up a CPU to somebody, more often than happens now and then, since we asked last. */
static bool disturbed(struct handoff *h, u64 now)
{
	struct rusage own = { 0 };
	getrusage(RUSAGE_THREAD, &own);
	u64 switches = (u64)own.ru_nivcsw + (u64)h->answer->usage.ru_nivcsw;
	bool often = (switches - h->switches) * NOW_AND_THEN * host.spin > now - h->looked;
	h->switches = switches;
	h->looked = now;
	return often;
}

static void give_up(u64 now)
{
	u64 times = __atomic_load_n(&host.crowded_times, __ATOMIC_RELAXED);
	bool soon = now < __atomic_load_n(&host.crowded_until, __ATOMIC_RELAXED) + times * host.spin;
	times = soon ? MIN(2 * times, LONG_MAX) : LONG_MIN;
	__atomic_store_n(&host.crowded_times, times, __ATOMIC_RELAXED);
	__atomic_store_n(&host.crowded_until, now + times * host.spin, __ATOMIC_RELAXED);
}

/* We spun on `cpu` in vain. */
static void leave_off(struct handoff *h, int cpu, u64 now)
{
	bool crowded = disturbed(h, now);
	if (host.rdtscp && cpu >= 0 && h->apart != cpu && (h->answer->cpu & CPU_NUMBER) == (u32)cpu && keep_apart(h, cpu))
		return;
	if (crowded) {
		give_up(now);
		return;
	}
	h->short_times = MIN(MAX(2 * h->short_times, 1), SHORT_MAX);
	h->spin_after = now + h->short_times * host.spin;
}

static void learn(struct handoff *h, u64 start, bool spun, bool came, int cpu)
{
	u64 now = __builtin_ia32_rdtsc();
	h->expected = (h->expected * 7 + MIN(now - start, 4 * host.spin)) / 8;
	if (came)
		h->short_times = 0;
	else if (spun)
		leave_off(h, cpu, now);
}

bool handoff_request(struct handoff *h, const u64 *pass, bool run)
{
	struct space_control *c = h->control;
	u64 start = __builtin_ia32_rdtsc();
	u32 old = h->sequence++;
	bool spins = spin_pays(h, start);
	int cpu = spins ? sched_getcpu() : -1;
	if (spins)
		go_apart(h);
	else if (host.spin)
		come_together(h, start);
	c->run = run;
	show_pass(h, c->count ? pass : NULL);
	c->spin = spins ? (u32)host.spin / SPIN_THERE : 0;
	__atomic_store_n(&c->waiting, spins ? 0 : WAITING_ASLEEP, __ATOMIC_RELAXED);
	__atomic_store_n(&c->sequence, h->sequence, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&h->answer->sleeping, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &c->sequence, FUTEX_WAKE, 1);
	bool came = spins && spin(h, old, start);
	if (spins && !came)
		__atomic_store_n(&c->waiting, WAITING_PUZZLED, __ATOMIC_SEQ_CST);
	bool answered = handoff_await(h, !run);
	show_pass(h, NULL);
	c->count = c->move = 0;
	learn(h, start, spins, came, cpu);
	return answered;
}
