/* Break and watch points of a vCPU: the guest's own, in its debug registers, and those of a debugger outside the guest, which the guest does not
 * see. Here is where they lie, as engines and the mmu ask; cpu/debug.c has the rules and keeps this true.
 *
 * A debugger works on a vCPU that does not run, or on its own thread (debug_insert, debug_remove, cpu/control.h). The vCPU's run ends with EXIT_DEBUG
 *  - in front of an instruction with a break point of the debugger, as soon as its page is mapped. The next run goes past it once;
 *  - behind an instruction that accessed bytes of one of its watch points;
 *  - behind one instruction, an element of a repeated string counting as one, if `step` was set; it is then clear again. An event that is
 *    delivered first counts as part of the instruction that follows. With `quiet` interrupts and NMIs wait.
 * exit->debug says which. The guest's own #DB for the same instruction comes when it runs on.
 *
 * Two promises keep code without points fast while some are armed:
 *  - The software TLB gives no tag for a page that is watched (mmu/tlb.c), so that every access there comes to a slow path, which has the bytes
 *    compared (control_debug_match, cpu/control.h). A page that is watched for stores only keeps its read tag.
 *  - Whoever remembers where code is by a salt (mmu/mmu.h) is told to forget when break points change; it asks debug_breaks_in and
 *    debug_breaks_at before it remembers or translates anything. */
#ifndef NADIR_VCPU_DEBUG_H
#define NADIR_VCPU_DEBUG_H

#include "arch/types.h"

/* Numbered as DR7's R/W fields: an instruction's first byte, a data write, a port, any data access. */
enum debug_kind { DEBUG_EXECUTE, DEBUG_WRITE, DEBUG_IO, DEBUG_ACCESS };

struct debug_point {
	gla_t gla;
	u32 size; /* bytes: 1 of what is executed, at most a page of what is accessed */
	enum debug_kind kind;
};

#define DEBUGGER_POINTS 64
#define DEBUG_BREAKS (4 + DEBUGGER_POINTS)
#define DEBUG_WATCHES (4 + 2 * DEBUGGER_POINTS)

struct debug_points {
	/* The debugger's. */
	struct debug_point point[DEBUGGER_POINTS];
	u8 points;
	bool step;
	bool quiet; /* with step: no interrupt or NMI is delivered first */
	bool passing; /* the break point at hit.gla is not to be met again at once */
	struct debug_point hit; /* what ends the run; with PENDING_DEBUG, or while `passing` */
	/* All. */
	u8 breaks, watches;
	gla_t break_at[DEBUG_BREAKS]; /* first bytes of instructions */
	struct {
		gla_t page;
		bool reads; /* loads from it are watched, too */
	} watch[DEBUG_WATCHES];
};

static inline bool debug_breaks_at(const struct debug_points *d, gla_t gla)
{
	for (unsigned i = 0; i < d->breaks; i++)
		if (d->break_at[i] == gla)
			return true;
	return false;
}

/* Whether the page holds any break point. */
static inline bool debug_breaks_in(const struct debug_points *d, gla_t page)
{
	for (unsigned i = 0; i < d->breaks; i++)
		if ((d->break_at[i] & PAGE_MASK) == page)
			return true;
	return false;
}

/* Whether stores to the page, or any accesses, are watched. */
static inline bool debug_watches(const struct debug_points *d, gla_t page, bool reads)
{
	for (unsigned i = 0; i < d->watches; i++)
		if (d->watch[i].page == page && (!reads || d->watch[i].reads))
			return true;
	return false;
}

#endif
