/* The 8254 programmable interval timer, and the system control port 61H, which gates channel 2 and shows its output.
 * Intel 8254 data sheet, "Mode Definitions"; Intel 82371SB (PIIX3) data sheet, "NMI Status and Control Register".
 *
 * Channel 0's output is a wire to interrupt line 0. Channel 1 (memory refresh) counts, and is connected to nothing.
 * Channel 2's output is read at port 61H.
 *
 * Counters are functions of the time since they were loaded; nothing is counted. So that the host is asked for one
 * instant a period at most, the wire shows only rising edges: it goes low and high again where OUT rises, and is low
 * after that only when mode 0 is waiting for its count. The counters and the status read exact values.
 *
 * Lateness: pit_advance makes one pulse however many periods have passed, and goes on in phase. A guest that
 * was not run for a second sees one tick, not a burst of a thousand. Periods below PIT_MIN_PERIOD are thinned out in
 * the same way. */
#ifndef NADIR_DEV_PIT_H
#define NADIR_DEV_PIT_H

#include "dev/bus.h"
#include "irq/wire.h"
#include "lib/state.h"

#define PIT_HZ 1193182ull
#define PIT_PORT_COUNT 4
#define PIT_MIN_PERIOD 50000ull /* nanoseconds */

struct pit_channel {
	u8 mode;   /* 0 to 5 */
	u8 access; /* 1: low byte, 2: high byte, 3: low then high */
	bool bcd;
	bool gate;
	bool running;    /* a count was loaded (modes 1 and 5: and the trigger came) */
	bool low_before; /* mode 1: triggered again, so that OUT is low already before the load */
	bool paused;     /* held by the gate, `frozen` ticks after the start */
	u32 count;       /* what the counter was loaded with, 1 to 10000H */
	u64 start;       /* tick of the load */
	u64 frozen;

	/* a count that was written and waits to be loaded: at a tick, or at the trigger */
	bool pending;
	u32 next_count;
	u64 pending_at;

	/* the byte-wide interface */
	bool write_high, read_high;
	u8 write_low;
	u8 latched_bytes; /* of `latched`, still to be read */
	u16 latched;
	bool status_latched;
	u8 status;
};

struct pit {
	struct pit_channel channel[3];
	struct wire irq; /* channel 0; connected by the board */
	u64 edge;        /* tick at which channel 0's output next rises, or HOST_NEVER */
	u64 not_before;  /* host time */
	u8 control;      /* port 61H bits 3:0 */
};

/* Power-on state: nothing counts. The wire stays connected. */
void pit_reset(struct pit *pit);

/* When the wire next changes by itself, or HOST_NEVER. */
u64 pit_deadline(const struct pit *pit);
void pit_advance(struct pit *pit, u64 now);

extern const struct region_ops pit_ops;            /* ports 40H-43H; the device is a struct pit */
extern const struct region_ops system_control_ops; /* port 61H; the device is the same struct pit */

extern const struct state_table pit_state;

#endif
