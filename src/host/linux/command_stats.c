/* nadir stats: what a running VM does, as top shows it, once, or as JSON. */
#define _GNU_SOURCE
#include "host/linux/commands.h"

#include "host/linux/client.h"
#include "host/linux/counters.h"
#include "host/linux/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROWS_MAX 20

struct stats_options {
	const char *who;
	bool once, json;
	long interval; /* seconds */
};

/* One picture and when it was taken. */
struct picture {
	struct counters counters;
	double time;
};

static int fetch(const char *who, struct json_object **json)
{
	return client_request(who, "GET", "/api/v1/vm.counters", NULL, json);
}

static int take(const char *who, struct picture *p)
{
	struct json_object *json = NULL;
	struct timespec now;
	if (fetch(who, &json) < 0)
		return -1;
	bool ok = counters_parse(&p->counters, json);
	json_object_put(json);
	clock_gettime(CLOCK_MONOTONIC, &now);
	p->time = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	if (!ok)
		fprintf(stderr, "nadir: %s: its counters are not of this version of nadir\n", who);
	return ok ? 0 : -1;
}

/* ---- the screen: rates are those since the last picture, or since the start ---- */

static double rate(u64 now, u64 before, double seconds)
{
	return seconds > 0 && now >= before ? (double)(now - before) / seconds : 0;
}

static void print_cpus(const struct counters *c, const struct counters *before, double seconds)
{
	printf("%-6s %8s %8s %12s %12s\n", "vCPU", "busy %", "halted %", "exits/s", "interrupts/s");
	for (unsigned i = 0; i < c->cpus; i++) {
		const struct counters_cpu *n = &c->cpu[i], *b = &before->cpu[i];
		printf("%-6u %8.1f %8.1f %12.0f %12.0f\n", i, rate(n->busy, b->busy, seconds) / 1e7, rate(n->halted, b->halted, seconds) / 1e7,
		       rate(n->exits, b->exits, seconds), rate(n->interrupts, b->interrupts, seconds));
	}
}

static void print_exits(const struct counters *c, const struct counters *before, double seconds)
{
	printf("\n%-28s %14s %12s %10s %8s\n", "exits", "count", "per second", "mean ns", "time %");
	for (unsigned i = 0; i < EXIT_REASON_COUNT; i++) {
		const struct counters_exit *n = &c->exit[i], *b = &before->exit[i];
		if (n->count)
			printf("%-28s %14llu %12.0f %10.0f %8.2f\n", exit_reason_name((enum exit_reason)i), (unsigned long long)n->count,
			       rate(n->count, b->count, seconds), (double)n->nanoseconds / (double)n->count,
			       rate(n->nanoseconds, b->nanoseconds, seconds) / 1e7);
	}
}

static void print_disks(const struct counters *c, const struct counters *before, double seconds)
{
	if (c->disks)
		printf("\n%-6s %12s %12s %12s %12s %12s\n", "disk", "reads/s", "read KiB/s", "writes/s", "write KiB/s", "flushes/s");
	for (unsigned i = 0; i < c->disks; i++) {
		const struct counters_disk *n = &c->disk[i], *b = &before->disk[i];
		printf("%-6u %12.0f %12.0f %12.0f %12.0f %12.0f\n", i, rate(n->reads, b->reads, seconds),
		       rate(n->read_bytes, b->read_bytes, seconds) / 1024, rate(n->writes, b->writes, seconds),
		       rate(n->write_bytes, b->write_bytes, seconds) / 1024, rate(n->flushes, b->flushes, seconds));
	}
}

static void print_nets(const struct counters *c, const struct counters *before, double seconds)
{
	if (c->nets)
		printf("\n%-6s %12s %12s %12s %12s\n", "net", "sent/s", "sent KiB/s", "received/s", "KiB/s");
	for (unsigned i = 0; i < c->nets; i++) {
		const struct counters_net *n = &c->net[i], *b = &before->net[i];
		printf("%-6u %12.0f %12.0f %12.0f %12.0f\n", i, rate(n->tx_frames, b->tx_frames, seconds), rate(n->tx_bytes, b->tx_bytes, seconds) / 1024,
		       rate(n->rx_frames, b->rx_frames, seconds), rate(n->rx_bytes, b->rx_bytes, seconds) / 1024);
	}
}

static u64 before_of(const struct counters *before, const char *name)
{
	for (unsigned i = 0; i < before->engine_count; i++)
		if (!strcmp(before->engine[i].name, name))
			return before->engine[i].value;
	return 0;
}

static void print_engine(const struct counters *c, const struct counters *before, double seconds, unsigned rows)
{
	if (c->engine_count)
		printf("\n%-48s %14s %12s\n", "engine", "count", "per second");
	for (unsigned i = 0; i < c->engine_count && rows; i++) {
		const struct counters_engine *e = &c->engine[i];
		if (!e->value)
			continue;
		printf("%-48s %14llu %12.0f\n", e->name, (unsigned long long)e->value, rate(e->value, before_of(before, e->name), seconds));
		rows--;
	}
}

static void print(const char *who, const struct picture *now, const struct picture *before, unsigned rows)
{
	static const struct counters none;
	const struct counters *c = &now->counters, *b = before ? &before->counters : &none;
	double seconds = before ? now->time - before->time : (double)c->time / 1e9;
	printf("%s: %.1f s of guest time, %.1f MiB of memory\n\n", who, (double)c->time / 1e9, (double)c->resident / (1 << 20));
	print_cpus(c, b, seconds);
	print_exits(c, b, seconds);
	print_disks(c, b, seconds);
	print_nets(c, b, seconds);
	print_engine(c, b, seconds, rows);
}

static int watch(const struct stats_options *o, struct picture *p)
{
	bool screen = isatty(STDOUT_FILENO);
	unsigned now = 0;
	if (take(o->who, &p[now]) < 0)
		return STATUS_FAILURE;
	do {
		sleep((unsigned)o->interval);
		now = !now;
		if (take(o->who, &p[now]) < 0)
			return STATUS_FAILURE;
		if (screen)
			fputs("\033[H\033[J", stdout);
		print(o->who, &p[now], &p[!now], ROWS_MAX);
		if (screen)
			fputs("\nCtrl-C ends", stdout);
		else
			putchar('\n');
	} while (!fflush(stdout));
	return STATUS_FAILURE;
}

/* ---- the command ---- */

static int print_json(const char *who)
{
	struct json_object *json = NULL;
	if (fetch(who, &json) < 0)
		return STATUS_FAILURE;
	printf("%s\n", json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(json);
	return STATUS_OK;
}

static int show(const struct stats_options *o)
{
	if (o->json)
		return print_json(o->who);
	struct picture *p = calloc(2, sizeof(*p));
	int status = STATUS_FAILURE;
	if (p && !o->once) {
		status = watch(o, p);
	} else if (p && !take(o->who, p)) {
		print(o->who, p, NULL, COUNTERS_ENGINE_MAX);
		status = STATUS_OK;
	}
	free(p);
	return status;
}

static bool parse(struct stats_options *o, int argc, char **argv)
{
	*o = (struct stats_options){ .interval = 1 };
	for (int i = 1; i < argc; i++) {
		char *end = NULL;
		if (!strcmp(argv[i], "--once"))
			o->once = true;
		else if (!strcmp(argv[i], "--json"))
			o->json = true;
		else if (!strcmp(argv[i], "--interval")) {
			if (++i == argc || (o->interval = strtol(argv[i], &end, 10)) < 1 || *end || o->interval > 3600)
				return false;
		} else if (*argv[i] == '-' || o->who)
			return false;
		else
			o->who = argv[i];
	}
	return o->who;
}

int command_stats(int argc, char **argv)
{
	struct stats_options o;
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs("usage: nadir stats [--once | --json] [--interval SECONDS] NAME\n\n"
		      "Shows what a virtual machine does: exits by reason, time of its CPUs, what the engine counts. Rates are those of the last\n"
		      "interval; with --once, the means since its start.\n",
		      stdout);
		return STATUS_OK;
	}
	if (!parse(&o, argc, argv)) {
		fprintf(stderr, "nadir: stats wants the name of one virtual machine, and --once, --json or --interval SECONDS if need be\n");
		return STATUS_USAGE;
	}
	return show(&o);
}
