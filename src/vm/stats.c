/* Exit statistics. Sites live in an open-addressing hash table that never grows: a hostile guest cannot make it. */
#include "vm/stats.h"

#include "lib/string.h"

#define PROBES 16

static struct stats_site *find_site(struct stats *stats, enum exit_reason reason, u64 rip, u32 detail)
{
	u64 hash = (rip ^ ((u64)detail << 32) ^ ((u64)reason << 20)) * 0x9e3779b97f4a7c15ull;
	for (unsigned i = 0; i < PROBES; i++) {
		struct stats_site *s = &stats->site[((hash >> 54) + i) & (STATS_SITES - 1)];
		if (!s->counter.count) {
			*s = (struct stats_site){ .rip = rip, .reason = reason, .detail = detail };
			return s;
		}
		if (s->rip == rip && s->reason == (u32)reason && s->detail == detail)
			return s;
	}
	return NULL;
}

static void count_site(struct stats *stats, const struct stats_site *what)
{
	struct stats_site *s = find_site(stats, what->reason, what->rip, what->detail);
	if (!s) {
		stats->lost += what->counter.count;
		return;
	}
	s->counter.count += what->counter.count;
	s->counter.ticks += what->counter.ticks;
}

void stats_count(struct stats *stats, enum exit_reason reason, u64 rip, u32 detail, u64 ticks)
{
	stats->reason[reason].count++;
	stats->reason[reason].ticks += ticks;
	if (ticks)
		histogram_add(&stats->spread[reason], ticks);
	if (unlikely(stats->by_site))
		count_site(stats, &(struct stats_site){ .rip = rip, .reason = reason, .detail = detail, .counter = { 1, ticks } });
}

void stats_add(struct stats *to, const struct stats *from)
{
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++) {
		to->reason[i].count += from->reason[i].count;
		to->reason[i].ticks += from->reason[i].ticks;
		histogram_merge(&to->spread[i], &from->spread[i]);
	}
	to->interrupts += from->interrupts;
	to->halted_ns += from->halted_ns;
	to->lost += from->lost;
	for (unsigned i = 0; i < STATS_SITES; i++)
		if (from->site[i].counter.count)
			count_site(to, &from->site[i]);
}

unsigned stats_sort_sites(struct stats *stats)
{
	unsigned n = 0;
	for (unsigned i = 0; i < STATS_SITES; i++)
		if (stats->site[i].counter.count)
			stats->site[n++] = stats->site[i];
	for (unsigned i = n; i < STATS_SITES; i++)
		stats->site[i] = (struct stats_site){ 0 };
	/* Insertion sort: a thousand rows, once. */
	for (unsigned i = 1; i < n; i++) {
		struct stats_site s = stats->site[i];
		unsigned j = i;
		for (; j && stats->site[j - 1].counter.count < s.counter.count; j--)
			stats->site[j] = stats->site[j - 1];
		stats->site[j] = s;
	}
	return n;
}
