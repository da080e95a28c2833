/* The MC146818A. Motorola MC146818A data sheet, "Registers", "Update Cycle", "Interrupts". */
#include "dev/rtc.h"

#include "host/port.h"
#include "lib/scale.h"

enum rtc_register {
	RTC_SECONDS,
	RTC_SECONDS_ALARM,
	RTC_MINUTES,
	RTC_MINUTES_ALARM,
	RTC_HOURS,
	RTC_HOURS_ALARM,
	RTC_WEEKDAY,
	RTC_DAY,
	RTC_MONTH,
	RTC_YEAR,
	RTC_A,
	RTC_B,
	RTC_C,
	RTC_D,
	RTC_CENTURY = 0x32,
};

#define A_UIP BIT(7)
#define A_RATE 0x0f
#define A_DIVIDER 0x70
#define A_DIVIDER_32KHZ 0x20
#define A_DIVIDER_RESET 0x60 /* both upper bits */
#define B_SET BIT(7)
#define B_PIE BIT(6)
#define B_AIE BIT(5)
#define B_UIE BIT(4)
#define B_BINARY BIT(2)
#define B_24H BIT(1)
#define C_IRQF BIT(7)
#define C_PF BIT(6)
#define C_AF BIT(5)
#define C_UF BIT(4)
#define D_VRT BIT(7)

#define HOUR_PM BIT(7)
#define ALARM_ANY 0xc0 /* both upper bits: matches every value */

#define CRYSTAL_HZ 32768ull
#define UIP_NOTICE 244000ull /* nanoseconds between UIP and the update */
#define SECONDS_PER_DAY 86400

/* ---- civil time ---- */

struct civil {
	unsigned second, minute, hour, weekday /* 1 is Sunday */, day, month, year;
};

/* Days since 1970-01-01 of a Gregorian date. Counting years from March puts the leap day last. */
static s64 days_from_date(unsigned year, unsigned month, unsigned day)
{
	s64 y = (s64)year - (month <= 2);
	s64 m = (month + 9) % 12;
	return y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + (s64)day - 1 - 719468;
}

static void date_from_days(s64 days, struct civil *t)
{
	s64 z = days + 719468, era = z / 146097, doe = z % 146097;
	s64 yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	s64 doy = doe - (365 * yoe + yoe / 4 - yoe / 100), m = (5 * doy + 2) / 153;

	t->day = (unsigned)(doy - (153 * m + 2) / 5 + 1);
	t->month = (unsigned)(m < 10 ? m + 3 : m - 9);
	t->year = (unsigned)(yoe + era * 400 + (t->month <= 2));
	t->weekday = (unsigned)((z + 3) % 7 + 1);
}

static s64 seconds_from_civil(const struct civil *t)
{
	return days_from_date(t->year, t->month, t->day) * SECONDS_PER_DAY + t->hour * 3600 + t->minute * 60 +
	       t->second;
}

static struct civil civil_from_seconds(s64 seconds)
{
	unsigned of_day = (unsigned)(seconds % SECONDS_PER_DAY);
	struct civil t = { .second = of_day % 60, .minute = of_day / 60 % 60, .hour = of_day / 3600 };

	date_from_days(seconds / SECONDS_PER_DAY, &t);
	return t;
}

/* ---- data formats: "Time, Calendar, and Alarm Locations" ---- */

static u8 encode(const struct rtc *rtc, unsigned value)
{
	return (u8)(rtc->cmos[RTC_B] & B_BINARY ? value : value / 10 % 10 << 4 | value % 10);
}

static unsigned decode(const struct rtc *rtc, u8 value)
{
	return rtc->cmos[RTC_B] & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static u8 encode_hour(const struct rtc *rtc, unsigned hour)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return encode(rtc, hour);
	return (u8)(encode(rtc, (hour + 11) % 12 + 1) | (hour >= 12 ? HOUR_PM : 0));
}

static unsigned decode_hour(const struct rtc *rtc, u8 value)
{
	if (rtc->cmos[RTC_B] & B_24H)
		return decode(rtc, value);
	return decode(rtc, value & (u8)~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* ---- the clock ---- */

static bool running(const struct rtc *rtc)
{
	return !(rtc->cmos[RTC_B] & B_SET) && (rtc->cmos[RTC_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET;
}

/* Nanoseconds since base_now, which may lie before host time 0. */
static u64 passed(const struct rtc *rtc, u64 now)
{
	return (s64)(now - rtc->base_now) > 0 ? now - rtc->base_now : 0;
}

static u64 seconds_passed(const struct rtc *rtc, u64 now)
{
	return passed(rtc, now) / NANOSECONDS_PER_SECOND;
}

static u64 phase_of(const struct rtc *rtc, u64 now)
{
	return passed(rtc, now) % NANOSECONDS_PER_SECOND;
}

/* Write the running time into the registers. */
static void time_to_registers(struct rtc *rtc, u64 now)
{
	struct civil t = civil_from_seconds(rtc->base + (s64)seconds_passed(rtc, now));

	rtc->cmos[RTC_SECONDS] = encode(rtc, t.second);
	rtc->cmos[RTC_MINUTES] = encode(rtc, t.minute);
	rtc->cmos[RTC_HOURS] = encode_hour(rtc, t.hour);
	rtc->cmos[RTC_WEEKDAY] = encode(rtc, t.weekday);
	rtc->cmos[RTC_DAY] = encode(rtc, t.day);
	rtc->cmos[RTC_MONTH] = encode(rtc, t.month);
	rtc->cmos[RTC_YEAR] = encode(rtc, t.year % 100);
	rtc->cmos[RTC_CENTURY] = (u8)(t.year / 1000 % 10 << 4 | t.year / 100 % 10); /* always BCD */
}

/* Let the clock go on from the registers, with `phase` nanoseconds of the second gone. Values that are no time are
 * brought into range: what a real chip counts from there on is nobody's business. */
static void time_from_registers(struct rtc *rtc, u64 now, u64 phase)
{
	const u8 *r = rtc->cmos;
	unsigned century = MIN((r[RTC_CENTURY] >> 4) * 10u + (r[RTC_CENTURY] & 15), 99);
	struct civil t = {
		.second = MIN(decode(rtc, r[RTC_SECONDS]), 59),
		.minute = MIN(decode(rtc, r[RTC_MINUTES]), 59),
		.hour = MIN(decode_hour(rtc, r[RTC_HOURS]), 23),
		.day = MAX(MIN(decode(rtc, r[RTC_DAY]), 31), 1),
		.month = MAX(MIN(decode(rtc, r[RTC_MONTH]), 12), 1),
		.year = MAX(century * 100 + MIN(decode(rtc, r[RTC_YEAR]), 99), 1970),
	};

	rtc->base = seconds_from_civil(&t);
	rtc->base_now = now - phase;
	rtc->seconds_seen = 0;
}

/* ---- alarm ---- */

static bool alarm_any(u8 alarm)
{
	return (alarm & ALARM_ANY) == ALARM_ANY;
}

static bool alarm_matches(unsigned value, u8 alarm, unsigned decoded)
{
	return alarm_any(alarm) || decoded == value;
}

/* Seconds of civil time at which the alarm next goes off after `after`, or -1 if it never does. Whole hours and minutes
 * that do not match are stepped over. */
static s64 alarm_next(const struct rtc *rtc, s64 after)
{
	u8 second = rtc->cmos[RTC_SECONDS_ALARM], minute = rtc->cmos[RTC_MINUTES_ALARM],
	   hour = rtc->cmos[RTC_HOURS_ALARM];
	unsigned s = decode(rtc, second), m = decode(rtc, minute), h = decode_hour(rtc, hour);
	s64 t = after + 1;

	if ((!alarm_any(second) && s > 59) || (!alarm_any(minute) && m > 59) || (!alarm_any(hour) && h > 23))
		return -1;
	while (t <= after + SECONDS_PER_DAY) {
		unsigned of_day = (unsigned)(t % SECONDS_PER_DAY);
		if (!alarm_matches(of_day / 3600, hour, h))
			t += 3600 - of_day % 3600;
		else if (!alarm_matches(of_day / 60 % 60, minute, m))
			t += 60 - of_day % 60;
		else if (!alarm_matches(of_day % 60, second, s))
			t++;
		else
			return t;
	}
	return -1;
}

/* ---- interrupts ---- */

/* Ticks of the crystal between periodic interrupts, or 0. "Periodic Interrupt Rate". */
static u64 periodic_ticks(const struct rtc *rtc)
{
	unsigned rate = rtc->cmos[RTC_A] & A_RATE;

	if (!rate || (rtc->cmos[RTC_A] & A_DIVIDER) != A_DIVIDER_32KHZ)
		return 0;
	return BIT((rate < 3 ? rate + 7 : rate) - 1);
}

static u64 crystal(u64 now)
{
	return scale_floor(now, CRYSTAL_HZ, NANOSECONDS_PER_SECOND);
}

static void update_irq(struct rtc *rtc)
{
	u8 *c = &rtc->cmos[RTC_C];
	bool irq = *c & rtc->cmos[RTC_B] & (C_PF | C_AF | C_UF);

	*c = (u8)((*c & ~C_IRQF) | (irq ? C_IRQF : 0));
	wire_set(&rtc->irq, irq);
}

/* Raise the flags of what has happened since the last look. */
static void raise_flags(struct rtc *rtc, u64 now)
{
	u64 ticks = crystal(now), every = periodic_ticks(rtc), seconds = seconds_passed(rtc, now);
	u8 *c = &rtc->cmos[RTC_C];

	if (every && ticks / every > rtc->periodic_seen / every)
		*c |= C_PF;
	rtc->periodic_seen = ticks;
	if (!running(rtc) || seconds <= rtc->seconds_seen)
		return;
	*c |= C_UF;
	s64 alarm = alarm_next(rtc, rtc->base + (s64)rtc->seconds_seen);
	if (alarm >= 0 && alarm <= rtc->base + (s64)seconds)
		*c |= C_AF;
	rtc->seconds_seen = seconds;
}

void rtc_advance(struct rtc *rtc, u64 now)
{
	raise_flags(rtc, now);
	update_irq(rtc);
}

void rtc_skip(struct rtc *rtc, s64 nanoseconds, u64 now)
{
	if (!running(rtc))
		return;
	rtc->base_now -= (u64)nanoseconds;
	rtc->seconds_seen = MIN(rtc->seconds_seen, seconds_passed(rtc, now)); /* the host's clock may have been set back */
}

static u64 second_start(const struct rtc *rtc, u64 seconds)
{
	return rtc->base_now + seconds * NANOSECONDS_PER_SECOND;
}

static u64 alarm_deadline(const struct rtc *rtc)
{
	s64 alarm = alarm_next(rtc, rtc->base + (s64)rtc->seconds_seen);
	return alarm < 0 ? HOST_NEVER : second_start(rtc, (u64)(alarm - rtc->base));
}

u64 rtc_deadline(const struct rtc *rtc)
{
	u8 waiting = rtc->cmos[RTC_B] & (u8)~rtc->cmos[RTC_C];
	u64 deadline = HOST_NEVER;

	if (!(waiting & (B_PIE | B_UIE | B_AIE)) || (rtc->cmos[RTC_C] & C_IRQF))
		return HOST_NEVER;
	u64 every = periodic_ticks(rtc);
	if ((waiting & B_PIE) && every)
		deadline = scale_ceil((rtc->periodic_seen / every + 1) * every, NANOSECONDS_PER_SECOND, CRYSTAL_HZ);
	if ((waiting & B_UIE) && running(rtc))
		deadline = MIN(deadline, second_start(rtc, rtc->seconds_seen + 1));
	if ((waiting & B_AIE) && running(rtc))
		deadline = MIN(deadline, alarm_deadline(rtc));
	return deadline;
}

/* ---- registers ---- */

static bool is_time(u8 index)
{
	return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS ||
	       (index >= RTC_WEEKDAY && index <= RTC_YEAR) || index == RTC_CENTURY;
}

static u8 register_read(struct rtc *rtc, u64 now)
{
	u8 index = rtc->index;

	rtc_advance(rtc, now);
	if (is_time(index) && running(rtc))
		time_to_registers(rtc, now);
	u8 value = rtc->cmos[index];
	if (index == RTC_A && running(rtc) && phase_of(rtc, now) >= NANOSECONDS_PER_SECOND - UIP_NOTICE)
		value |= A_UIP;
	if (index == RTC_C) {
		rtc->cmos[RTC_C] = 0;
		update_irq(rtc);
	}
	return value;
}

/* Registers A and B may stop the clock and let it go on. The divider keeps its phase while SET is on; after a divider
 * reset the first update is half a second away. */
static void control_write(struct rtc *rtc, u8 index, u8 value, u64 now)
{
	bool was = running(rtc), was_reset = (rtc->cmos[RTC_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;

	if (was) {
		time_to_registers(rtc, now);
		rtc->phase = phase_of(rtc, now);
	}
	/* The formats of a running clock change without the time changing. */
	rtc->cmos[index] = value;
	if (was && running(rtc))
		time_to_registers(rtc, now);
	if (was_reset && (rtc->cmos[RTC_A] & A_DIVIDER_RESET) != A_DIVIDER_RESET)
		rtc->phase = NANOSECONDS_PER_SECOND / 2;
	if (!was && running(rtc))
		time_from_registers(rtc, now, rtc->phase);
}

static void register_write(struct rtc *rtc, u8 value, u64 now)
{
	u8 index = rtc->index;

	rtc_advance(rtc, now);
	if (index == RTC_C || index == RTC_D)
		return;
	if (index == RTC_A) {
		control_write(rtc, index, value & (u8)~A_UIP, now);
	} else if (index == RTC_B) {
		/* SET also turns the update interrupt off. */
		control_write(rtc, index, value & B_SET ? value & (u8)~B_UIE : value, now);
	} else if (is_time(index) && running(rtc)) {
		time_to_registers(rtc, now);
		rtc->cmos[index] = value;
		time_from_registers(rtc, now, phase_of(rtc, now));
	} else {
		rtc->cmos[index] = value;
	}
	update_irq(rtc);
}

static u64 rtc_read(void *device, u64 offset, unsigned size, u64 now)
{
	return offset ? register_read(device, now) : 0xff;
}

static void rtc_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct rtc *rtc = device;

	if (!offset)
		rtc->index = value & (RTC_CMOS_SIZE - 1); /* bit 7 masks NMIs, of which this board has none */
	if (!offset && size > 1)
		register_write(rtc, (u8)(value >> 8), now);
	else if (offset)
		register_write(rtc, (u8)value, now);
}

const struct region_ops rtc_ops = { .read = rtc_read, .write = rtc_write };

/* ---- set-up ---- */

void rtc_reset(struct rtc *rtc, u64 now)
{
	rtc_advance(rtc, now);
	rtc->index = 0;
	rtc->cmos[RTC_B] &= (u8) ~(B_PIE | B_AIE | B_UIE);
	rtc->cmos[RTC_C] = 0;
	update_irq(rtc);
}

void rtc_init(struct rtc *rtc, u64 wallclock, u64 now)
{
	*rtc = (struct rtc){
		.irq = rtc->irq,
		.base = (s64)(wallclock / NANOSECONDS_PER_SECOND),
		.base_now = now - wallclock % NANOSECONDS_PER_SECOND,
		.periodic_seen = crystal(now),
	};
	rtc->cmos[RTC_A] = A_DIVIDER_32KHZ | 6;
	rtc->cmos[RTC_B] = B_24H;
	rtc->cmos[RTC_D] = D_VRT;
	update_irq(rtc);
}

static void set_le(struct rtc *rtc, unsigned index, u64 value, unsigned size)
{
	value = MIN(value, size_mask(size));
	for (unsigned i = 0; i < size; i++)
		rtc->cmos[index + i] = (u8)(value >> (8 * i));
}

void rtc_set_memory_size(struct rtc *rtc, u64 below_4g, u64 above_4g)
{
	u64 extended = below_4g > 0x100000 ? below_4g - 0x100000 : 0;
	u64 above_16m = below_4g > 0x1000000 ? below_4g - 0x1000000 : 0;

	set_le(rtc, 0x15, 640, 2);            /* base memory, KiB */
	set_le(rtc, 0x17, extended >> 10, 2); /* above 1 MiB, KiB */
	set_le(rtc, 0x30, extended >> 10, 2);
	set_le(rtc, 0x34, above_16m >> 16, 2); /* above 16 MiB, 64 KiB */
	set_le(rtc, 0x5b, above_4g >> 16, 3);  /* above 4 GiB, 64 KiB */
}

const struct state_table rtc_state = STATE_TABLE(struct rtc, NULL,
	STATE(struct rtc, cmos), STATE_MAX(struct rtc, index, RTC_CMOS_SIZE - 1), STATE_IN(struct rtc, irq, wire_state),
	STATE(struct rtc, base), STATE(struct rtc, base_now), STATE_MAX(struct rtc, phase, NANOSECONDS_PER_SECOND - 1),
	STATE(struct rtc, periodic_seen), STATE(struct rtc, seconds_seen));
