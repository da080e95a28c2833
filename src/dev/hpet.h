/* The high precision event timer (IA-PC HPET Specification 1.0a): a counter of 100 MHz and three comparators, each once or periodically.
 *
 * The counter is a function of the time; nothing is counted. A comparator's interrupt goes to an input of the I/O APIC, or, with legacy replacement
 * (LEG_RT_CNF), the first two's go where the interval timer's and the clock's would, which are cut off then. There are no messages (FSB).
 *
 * Lateness: a comparator that is late fires once, however many periods have passed, and goes on in phase. Periods below HPET_MIN_PERIOD are
 * thinned out in the same way. */
#ifndef NADIR_DEV_HPET_H
#define NADIR_DEV_HPET_H

#include "dev/bus.h"
#include "irq/wire.h"
#include "lib/state.h"

#define HPET_TIMERS 3
#define HPET_TICK 10u /* nanoseconds */
#define HPET_MIN_PERIOD 50000ull /* nanoseconds */
#define HPET_SIZE 0x400
#define HPET_ROUTE_FIRST 20 /* inputs of the I/O APIC that comparators can have, and that nobody else has */
#define HPET_ROUTES 4
#define HPET_LEGACY 2

/* The capabilities, which the ACPI table tells too. */
#define HPET_CAPABILITIES (0x8086a001ull | (HPET_TIMERS - 1) << 8 | (u64)HPET_TICK * 1000000 << 32)

struct hpet_timer {
	u64 config, comparator, period;
	u64 next;	/* tick of the machine's time at which it matches, or HOST_NEVER */
	u64 not_before; /* the machine's time */
};

struct hpet {
	struct wire legacy[HPET_LEGACY]; /* connected by the board, as is the next */
	struct wire route[HPET_ROUTES];
	u64 config, status;
	u64 value;  /* of the counter while it stands still */
	u64 offset; /* while it runs: the tick at which it was 0 */
	struct hpet_timer timer[HPET_TIMERS];
};

/* Power-on state: nothing counts. The wires stay connected. */
void hpet_reset(struct hpet *hpet);
int hpet_attach(struct hpet *hpet, struct bus *memory);
/* Whether legacy replacement is on. */
bool hpet_replaces(const struct hpet *hpet);

/* When a comparator next fires, or HOST_NEVER. */
u64 hpet_deadline(const struct hpet *hpet);
void hpet_advance(struct hpet *hpet, u64 now);

extern const struct state_table hpet_state;

#endif
