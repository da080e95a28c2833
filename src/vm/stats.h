/* Exit statistics (B9, C8): how often guest code left itself, why, where, and how long the answer took. One table for all engines.
 * Each vCPU has its own and is the only writer; readers sum them up and may see counts in the making. */
#ifndef NADIR_VM_STATS_H
#define NADIR_VM_STATS_H

#include "lib/histogram.h"
#include "vcpu/exit.h"

struct stats_counter {
	u64 count;
	u64 ticks; /* host TSC ticks spent answering */
};

/* One guest address that exits for one reason. detail is the port, MSR, CPUID leaf or MMIO page concerned. */
struct stats_site {
	u64 rip;
	u32 reason;
	u32 detail;
	struct stats_counter counter;
};

#define STATS_SITES 1024 /* a power of two; further sites are counted in `lost` */

struct stats {
	struct stats_counter reason[EXIT_REASON_COUNT];
	struct histogram spread[EXIT_REASON_COUNT]; /* of the ticks of one answer; what ends by sleeping is not in it */
	u64 interrupts; /* external interrupts delivered */
	u64 halted_ns; /* time asleep in HLT */
	bool by_site;
	u64 lost; /* exits of sites that found no place */
	struct stats_site site[STATS_SITES];
};

void stats_count(struct stats *stats, enum exit_reason reason, u64 rip, u32 detail, u64 ticks);
/* Add `from` to `to`, sites included. */
void stats_add(struct stats *to, const struct stats *from);
/* Order the sites by count, the most frequent first; returns how many there are. Nothing can be counted after that. */
unsigned stats_sort_sites(struct stats *stats);

#endif
