/* Exit statistics for a person and for a program. */
#include "host/linux/stats_print.h"

#include "host/port.h"

#include <json-c/json.h>

#define SITES_SHOWN 20

static double ticks_to_ns(u64 ticks)
{
	return (double)ticks * 1e9 / (double)host_tsc_hz();
}

static double mean_ns(const struct stats_counter *c)
{
	return c->count ? ticks_to_ns(c->ticks) / (double)c->count : 0;
}

void stats_print_table(FILE *out, struct stats *stats, const char *newline)
{
	fprintf(out, "%s%-28s %12s %12s %10s%s", newline, "exits by reason", "count", "time ms", "mean ns", newline);
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++) {
		const struct stats_counter *c = &stats->reason[i];
		if (c->count)
			fprintf(out, "%-28s %12llu %12.1f %10.0f%s", exit_reason_name((enum exit_reason)i), (unsigned long long)c->count,
				ticks_to_ns(c->ticks) / 1e6, mean_ns(c), newline);
	}
	fprintf(out, "%-28s %12llu%s", "interrupts delivered", (unsigned long long)stats->interrupts, newline);
	fprintf(out, "%-28s %25.1f%s", "halted", (double)stats->halted_ns / 1e6, newline);
	if (!stats->by_site)
		return;
	unsigned n = stats_sort_sites(stats);
	fprintf(out, "%sexits by guest address (the first %u of %u)%s", newline, MIN(n, SITES_SHOWN), n, newline);
	for (unsigned i = 0; i < MIN(n, SITES_SHOWN); i++) {
		const struct stats_site *s = &stats->site[i];
		fprintf(out, "%016llx  %-24s %8x %12llu %10.0f ns%s", (unsigned long long)s->rip,
			exit_reason_name((enum exit_reason)s->reason), s->detail, (unsigned long long)s->counter.count, mean_ns(&s->counter),
			newline);
	}
}

static void add_counter(struct json_object *to, const struct stats_counter *c)
{
	json_object_object_add(to, "count", json_object_new_int64((int64_t)c->count));
	json_object_object_add(to, "nanoseconds", json_object_new_int64((int64_t)ticks_to_ns(c->ticks)));
}

void stats_print_json(FILE *out, struct stats *stats)
{
	struct json_object *root = json_object_new_object(), *exits = json_object_new_object(), *sites = json_object_new_array();
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++) {
		if (!stats->reason[i].count)
			continue;
		struct json_object *o = json_object_new_object();
		add_counter(o, &stats->reason[i]);
		json_object_object_add(exits, exit_reason_name((enum exit_reason)i), o);
	}
	unsigned n = stats_sort_sites(stats);
	for (unsigned i = 0; i < n; i++) {
		const struct stats_site *s = &stats->site[i];
		struct json_object *o = json_object_new_object();
		char rip[20];
		snprintf(rip, sizeof(rip), "0x%llx", (unsigned long long)s->rip);
		json_object_object_add(o, "rip", json_object_new_string(rip));
		json_object_object_add(o, "reason", json_object_new_string(exit_reason_name((enum exit_reason)s->reason)));
		json_object_object_add(o, "detail", json_object_new_int64(s->detail));
		add_counter(o, &s->counter);
		json_object_array_add(sites, o);
	}
	json_object_object_add(root, "exits", exits);
	json_object_object_add(root, "interrupts", json_object_new_int64((int64_t)stats->interrupts));
	json_object_object_add(root, "halted_nanoseconds", json_object_new_int64((int64_t)stats->halted_ns));
	json_object_object_add(root, "sites", sites);
	json_object_object_add(root, "sites_lost", json_object_new_int64((int64_t)stats->lost));
	fprintf(out, "%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(root);
}
