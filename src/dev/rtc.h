/* The real-time clock and CMOS memory at ports 70H and 71H. Motorola MC146818A data sheet; the century byte and the
 * memory-size bytes as PC firmware keeps them.
 *
 * The interrupt wire is high from the event until register C is read. A periodic interrupt that is not acknowledged is
 * not repeated; one that is late comes once. */
#ifndef NADIR_DEV_RTC_H
#define NADIR_DEV_RTC_H

#include "dev/bus.h"
#include "irq/wire.h"
#include "lib/state.h"

#define RTC_PORT_COUNT 2
#define RTC_CMOS_SIZE 128

struct rtc {
	u8 cmos[RTC_CMOS_SIZE]; /* time bytes are valid while the clock stands still; else they are derived */
	u8 index;
	struct wire irq; /* connected by the board */

	/* The clock while it runs: second `base` of the civil time began at host time base_now. */
	s64 base; /* seconds since 1970-01-01 of the time the guest reads */
	u64 base_now;
	u64 phase; /* while it stands still: nanoseconds that had passed of the second */

	/* up to when flags in register C have been raised */
	u64 periodic_seen; /* 32768-Hz ticks */
	u64 seconds_seen;  /* whole seconds since base_now */
};

/* Power-on state with the clock set to `wallclock` (nanoseconds since 1970 UTC) at host time `now`: BCD, 24 hours, no
 * interrupts. The wire stays connected. */
void rtc_init(struct rtc *rtc, u64 wallclock, u64 now);
/* System reset: interrupts off; time and memory are kept by the battery. */
void rtc_reset(struct rtc *rtc, u64 now);

/* What firmware leaves about the size of memory: bytes of RAM below 4 GiB (counted from 0) and above. */
void rtc_set_memory_size(struct rtc *rtc, u64 below_4g, u64 above_4g);

/* The clock goes on by its battery while the machine's time stood still for so long; `now` is that time. */
void rtc_skip(struct rtc *rtc, s64 nanoseconds, u64 now);

/* When the wire next rises by itself, or HOST_NEVER. */
u64 rtc_deadline(const struct rtc *rtc);
void rtc_advance(struct rtc *rtc, u64 now);

extern const struct region_ops rtc_ops; /* ports 70H-71H */

extern const struct state_table rtc_state;

#endif
