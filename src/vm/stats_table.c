/* Exit statistics as text (stats_table.h). */
#include "vm/stats_table.h"

#include "host/port.h"
#include "lib/scale.h"

#define SITES_SHOWN 20

static u64 nanoseconds(u64 ticks)
{
	return scale_floor(ticks, NANOSECONDS_PER_SECOND, host_tsc_hz());
}

static u64 mean(const struct stats_counter *c)
{
	return c->count ? nanoseconds(c->ticks) / c->count : 0;
}

/* Milliseconds with one decimal, as a number of tenths. */
#define TENTHS(ns) (unsigned long long)((ns) / 1000000), (unsigned)((ns) / 100000 % 10)

static void reason_line(const struct stats *stats, enum exit_reason reason, void (*line)(void *opaque, const char *text), void *opaque)
{
	const struct stats_counter *c = &stats->reason[reason];
	const struct histogram *h = &stats->spread[reason];
	char text[160];
	host_snprintf(text, sizeof(text), "%-28s %12llu %10llu.%u %10llu %12llu %10llu %10llu", exit_reason_name(reason), (unsigned long long)c->count,
		      TENTHS(nanoseconds(c->ticks)), (unsigned long long)mean(c), (unsigned long long)h->least, (unsigned long long)histogram_permille(h, 500),
		      (unsigned long long)histogram_permille(h, 990));
	line(opaque, text);
}

void stats_table(struct stats *stats, void (*line)(void *opaque, const char *text), void *opaque)
{
	char text[160];
	host_snprintf(text, sizeof(text), "%-28s %12s %12s %10s %12s %10s %10s", "exits by reason", "count", "time ms", "mean ns", "cycles least", "median", "p99");
	line(opaque, text);
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++)
		if (stats->reason[i].count)
			reason_line(stats, (enum exit_reason)i, line, opaque);
	host_snprintf(text, sizeof(text), "%-28s %12llu", "interrupts delivered", (unsigned long long)stats->interrupts);
	line(opaque, text);
	host_snprintf(text, sizeof(text), "%-28s %23llu.%u", "halted", TENTHS(stats->halted_ns));
	line(opaque, text);
	if (!stats->by_site)
		return;
	unsigned n = stats_sort_sites(stats);
	line(opaque, "");
	host_snprintf(text, sizeof(text), "exits by guest address (the first %u of %u)", MIN(n, SITES_SHOWN), n);
	line(opaque, text);
	for (unsigned i = 0; i < MIN(n, SITES_SHOWN); i++) {
		const struct stats_site *s = &stats->site[i];
		host_snprintf(text, sizeof(text), "%016llx  %-24s %8x %12llu %10llu ns", (unsigned long long)s->rip,
			      exit_reason_name((enum exit_reason)s->reason), s->detail, (unsigned long long)s->counter.count,
			      (unsigned long long)mean(&s->counter));
		line(opaque, text);
	}
}
