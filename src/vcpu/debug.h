/* Where a vCPU's break and watch points lie, as engines and the mmu ask: derived from the debug registers by cpu/debug.c, which has the rules.
 *
 * Two promises keep code without points fast while some are armed:
 *  - The software TLB gives no tag for a page that is watched (mmu/tlb.c), so that every access there comes to a slow path, which has the bytes
 *    compared (control_debug_match, cpu/control.h). A page that is watched for stores only keeps its read tag.
 *  - Whoever remembers where code is by a salt (mmu/mmu.h) is told to forget when break points change; it asks debug_breaks_in and
 *    debug_breaks_at before it remembers or translates anything. */
#ifndef NADIR_VCPU_DEBUG_H
#define NADIR_VCPU_DEBUG_H

#include "arch/types.h"

#define DEBUG_BREAKS 4
#define DEBUG_WATCHES 4

struct debug_points {
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
