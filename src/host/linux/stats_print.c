/* Exit statistics for a person and for a program. */
#include "host/linux/stats_print.h"

#include "host/port.h"
#include "vm/stats_table.h"

#include <json-c/json.h>

static double ticks_to_ns(u64 ticks)
{
	return (double)ticks * 1e9 / (double)host_tsc_hz();
}

struct lines {
	FILE *out;
	const char *newline;
};

static void print_line(void *opaque, const char *text)
{
	const struct lines *lines = opaque;
	fprintf(lines->out, "%s%s", text, lines->newline);
}

void stats_print_table(FILE *out, struct stats *stats, const char *newline)
{
	struct lines lines = { out, newline };
	print_line(&lines, "");
	stats_table(stats, print_line, &lines);
}

static void add_counter(struct json_object *to, const struct stats_counter *c)
{
	json_object_object_add(to, "count", json_object_new_int64((int64_t)c->count));
	json_object_object_add(to, "nanoseconds", json_object_new_int64((int64_t)ticks_to_ns(c->ticks)));
}

/* Ticks of the time-stamp counter that one answer took. */
static void add_cycles(struct json_object *to, const struct histogram *h)
{
	struct json_object *o = json_object_new_object();
	json_object_object_add(o, "least", json_object_new_int64((int64_t)h->least));
	json_object_object_add(o, "median", json_object_new_int64((int64_t)histogram_permille(h, 500)));
	json_object_object_add(o, "p99", json_object_new_int64((int64_t)histogram_permille(h, 990)));
	json_object_object_add(o, "most", json_object_new_int64((int64_t)h->most));
	json_object_object_add(to, "cycles", o);
}

void stats_print_json(FILE *out, struct stats *stats)
{
	struct json_object *root = json_object_new_object(), *exits = json_object_new_object(), *sites = json_object_new_array();
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++) {
		if (!stats->reason[i].count)
			continue;
		struct json_object *o = json_object_new_object();
		add_counter(o, &stats->reason[i]);
		if (stats->spread[i].count)
			add_cycles(o, &stats->spread[i]);
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
