/* The host port's clocks: the time-stamp counter, and the CMOS clock for the date. */
#include "host/metal/time.h"

#include "cpu/host_cpuid.h"
#include "host/metal/asm.h"
#include "host/port.h"
#include "lib/scale.h"

#define PIT_HZ 1193182u
#define PIT_TICKS (PIT_HZ / 20) /* 50 ms */

static struct {
	u64 tsc_hz, tsc_start, wallclock_start;
} clock;

/* The frequency as the processor (leaf 0x15) or the hypervisor below (timing leaf 0x40000010, in kHz) tells it; 0 if neither does.
 * Intel SDM volume 2, CPUID, "Time Stamp Counter and Nominal Core Crystal Clock". */
static u64 tsc_hz_told(void)
{
	struct cpuid_regs r = host_cpuid_checked(0x15, 0);
	if (r.reg[CPUID_EAX] && r.reg[CPUID_EBX] && r.reg[CPUID_ECX])
		return (u64)r.reg[CPUID_ECX] * r.reg[CPUID_EBX] / r.reg[CPUID_EAX];
	if (!(host_cpuid(1, 0).reg[CPUID_ECX] & BIT(31)) || host_cpuid(0x40000000, 0).reg[CPUID_EAX] < 0x40000010)
		return 0;
	return (u64)host_cpuid(0x40000010, 0).reg[CPUID_EAX] * 1000;
}

/* By channel 2 of the interval timer, counting down once with its gate open and the loudspeaker off. Intel 8254, "Mode 0". */
static u64 tsc_hz_measured(void)
{
	outb(0x61, (inb(0x61) & ~2u) | 1);
	outb(0x43, 0xb0);
	outb(0x42, PIT_TICKS & 0xff);
	outb(0x42, PIT_TICKS >> 8);
	u64 start = rdtsc();
	while (!(inb(0x61) & 0x20))
		if (rdtsc() - start > BIT(34)) /* seconds: there is no such timer */
			host_panic("the frequency of the time-stamp counter cannot be found: no CPUID leaf tells it, and there is no interval timer");
	return scale_floor(rdtsc() - start, PIT_HZ, PIT_TICKS);
}

/* ---- the date; MC146818, as dev/rtc.c has it for guests ---- */

static u8 cmos(u8 index)
{
	outb(0x70, index);
	return inb(0x71);
}

static u64 days_since_1970(u64 year, u64 month, u64 day)
{
	year -= month <= 2;
	u64 of_era = year % 400, of_year = (153 * (month + (month > 2 ? -3ull : 9)) + 2) / 5 + day - 1;
	return year / 400 * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static u64 read_wallclock(void)
{
	static const u8 index[6] = { 0, 2, 4, 7, 8, 9 };
	u8 value[6];
	u64 start = host_now();
	while ((cmos(10) & 0x80) && host_now() - start < NANOSECONDS_PER_SECOND)
		cpu_relax();
	for (unsigned i = 0; i < 6; i++)
		value[i] = cmos(index[i]);
	u8 mode = cmos(11);
	bool pm = !(mode & 2) && (value[2] & 0x80);
	value[2] &= mode & 2 ? 0xff : 0x7f;
	for (unsigned i = 0; i < 6 && !(mode & 4); i++)
		value[i] = (u8)((value[i] >> 4) * 10 + (value[i] & 15));
	u64 hour = mode & 2 ? value[2] : value[2] % 12u + (pm ? 12u : 0u);
	u64 days = days_since_1970(2000u + value[5], value[4], value[3]);
	return (((days * 24 + hour) * 60 + value[1]) * 60 + value[0]) * NANOSECONDS_PER_SECOND;
}

void time_init(void)
{
	clock.tsc_hz = tsc_hz_told();
	if (!clock.tsc_hz)
		clock.tsc_hz = tsc_hz_measured();
	clock.tsc_start = rdtsc();
	clock.wallclock_start = read_wallclock();
}

u64 host_now(void)
{
	return scale_floor(rdtsc() - clock.tsc_start, NANOSECONDS_PER_SECOND, clock.tsc_hz);
}

u64 host_wallclock(void)
{
	return clock.wallclock_start + host_now();
}

u64 host_tsc_hz(void)
{
	return clock.tsc_hz;
}

void time_delay(u64 nanoseconds)
{
	u64 start = host_now();
	while (host_now() - start < nanoseconds)
		cpu_relax();
}
