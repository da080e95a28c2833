/* CPUs and weight of a machine, as Linux' scheduler takes them: an affinity mask, and a nice value, each of which stands for a weight 1.25 times that of
 * the next (sched(7)). Threads and processes inherit both: helpers and spaces work for the guest, too. */
#define _GNU_SOURCE
#include "host/linux/scheduling.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define NICE_LEAST (-20)
#define NICE_MOST 19

/* One part of a list: N or N-M. NULL: it is none; else what follows. */
static const char *parse_range(const char *text, cpu_set_t *set)
{
	char *end;
	if (*text < '0' || *text > '9')
		return NULL;
	unsigned long first = strtoul(text, &end, 10), last = first;
	if (*end == '-') {
		if (end[1] < '0' || end[1] > '9')
			return NULL;
		last = strtoul(end + 1, &end, 10);
	}
	if (last < first || last >= CPU_SETSIZE)
		return NULL;
	for (unsigned long cpu = first; cpu <= last; cpu++)
		CPU_SET(cpu, set);
	return end;
}

static bool parse_cpus(const char *text, cpu_set_t *set)
{
	CPU_ZERO(set);
	for (; (text = parse_range(text, set)) && *text; text++)
		if (*text != ',')
			return false;
	return text;
}

static int pin(const char *cpus)
{
	cpu_set_t wanted, there;
	if (!parse_cpus(cpus, &wanted)) {
		fprintf(stderr, "nadir: --pin: '%s' is not a list of CPUs such as 0,2-3\n", cpus);
		return -1;
	}
	int error = sched_setaffinity(0, sizeof(wanted), &wanted) < 0 || sched_getaffinity(0, sizeof(there), &there) < 0 ? errno : 0;
	if (error || !CPU_EQUAL(&wanted, &there)) {
		fprintf(stderr, "nadir: --pin: this program cannot run on all of the CPUs %s\n", cpus);
		return -1;
	}
	return 0;
}

/* The nice value whose weight is nearest, 100 being that of 0. */
static int nice_of(u64 weight)
{
	u64 at = 100 << 20;
	int nice = 0;
	for (weight <<= 20; nice > NICE_LEAST && weight > at * 9 / 8; nice--)
		at = at * 5 / 4;
	for (; nice < NICE_MOST && weight < at * 8 / 9; nice++)
		at = at * 4 / 5;
	return nice;
}

static int weigh(u64 weight)
{
	if (weight == 100 || !setpriority(PRIO_PROCESS, 0, nice_of(weight)))
		return 0;
	fprintf(stderr, "nadir: --weight: %s; more than 100 is for those who may raise priorities (RLIMIT_NICE)\n", strerror(errno));
	return -1;
}

int scheduling_start(const struct run_options *options)
{
	return (options->pin && pin(options->pin) < 0) || weigh(options->weight) < 0 ? -1 : 0;
}
