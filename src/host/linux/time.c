/* The host port's clocks. */
#define _GNU_SOURCE
#include "host/linux/clock.h"

#include "host/port.h"

#include <cpuid.h>
#include <pthread.h>
#include <time.h>

#define NS_PER_S 1000000000ull

static u64 clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (u64)t.tv_sec * NS_PER_S + (u64)t.tv_nsec;
}

u64 host_now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

u64 host_wallclock(void)
{
	return clock_ns(CLOCK_REALTIME);
}

/* The frequency as the processor (leaf 0x15) or the hypervisor below (timing leaf 0x40000010, in kHz) tells it; 0 if neither does.
 * Intel SDM volume 2, CPUID, "Time Stamp Counter and Nominal Core Crystal Clock". */
static u64 tsc_hz_told(void)
{
	u32 a, b, c, d;
	if (__get_cpuid_max(0, NULL) >= 0x15) {
		__cpuid(0x15, a, b, c, d);
		if (a && b && c)
			return (u64)c * b / a;
	}
	__cpuid(1, a, b, c, d);
	if (!(c & BIT(31)))
		return 0;
	__cpuid(0x40000000, a, b, c, d);
	if (a < 0x40000010)
		return 0;
	__cpuid(0x40000010, a, b, c, d);
	return (u64)a * 1000;
}

struct sample {
	u64 now, tsc;
};

static struct sample take_sample(void)
{
	return (struct sample){ host_now(), __builtin_ia32_rdtsc() };
}

/* Count TSC ticks against the monotonic clock, for so long at least. */
static u64 tsc_hz_measured(struct sample begin, unsigned milliseconds)
{
	u64 due = begin.now + milliseconds * 1000000ull;
	struct timespec until = { .tv_sec = (time_t)(due / NS_PER_S), .tv_nsec = (long)(due % NS_PER_S) };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	struct sample end = take_sample();
	return (u64)((unsigned __int128)(end.tsc - begin.tsc) * NS_PER_S / (end.now - begin.now));
}

static u64 tsc_hz, tsc_hz_expected;
static struct sample early; /* with the expectation */

void time_expect_tsc_hz(u64 hz)
{
	tsc_hz_expected = hz;
	early = take_sample();
}

/* Whether it is what we expect, within 200 parts per million, which 2 ms can tell. */
static bool as_expected(void)
{
	u64 measured = tsc_hz_expected ? tsc_hz_measured(early, 2) : 0;
	u64 difference = measured > tsc_hz_expected ? measured - tsc_hz_expected : tsc_hz_expected - measured;
	return measured && difference < tsc_hz_expected / 5000;
}

static void tsc_hz_find(void)
{
	tsc_hz = tsc_hz_told();
	if (!tsc_hz)
		tsc_hz = as_expected() ? tsc_hz_expected : tsc_hz_measured(take_sample(), 20); /* good to some parts per million */
}

u64 host_tsc_hz(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, tsc_hz_find);
	return tsc_hz;
}
