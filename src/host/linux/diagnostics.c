/* Diagnostics by the options of `nadir run` (diagnostics.h). */
#define _GNU_SOURCE
#include "host/linux/diagnostics.h"

#include "host/linux/log.h"
#include "host/port.h"
#include "vcpu/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

u32 diagnostics_trace(const char *names)
{
	static const struct {
		const char *name;
		u32 bit;
	} kinds[] = {
		{ "exits", TRACE_EXITS }, { "io", TRACE_IO }, { "mmio", TRACE_MMIO }, { "msr", TRACE_MSR }, { "irq", TRACE_IRQ },
		{ "int", TRACE_INT }, { "exec", TRACE_EXEC }, { "in_asm", TRACE_IN_ASM }, { "out_asm", TRACE_OUT_ASM },
	};
	u32 bits = 0;
	while (names && *names) {
		size_t length = strcspn(names, ",");
		u32 found = 0;
		for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
			if (strlen(kinds[i].name) == length && !strncmp(kinds[i].name, names, length))
				found = kinds[i].bit;
		if (!found) {
			fprintf(stderr, "nadir: --trace: '%.*s' is not one of exits, io, mmio, msr, irq, int, exec, in_asm, out_asm\n", (int)length,
				names);
			return ~0u;
		}
		bits |= found;
		names += length + (names[length] == ',');
	}
	return bits;
}

static enum host_log_level log_level(const char *name)
{
	return !strcmp(name, "error") ? LOG_ERROR : !strcmp(name, "info") ? LOG_INFO : !strcmp(name, "debug") ? LOG_DEBUG : LOG_WARN;
}

static int open_log(const struct run_options *o)
{
	log_set_level(o->trace ? LOG_DEBUG : log_level(o->log_level));
	if (!o->log_file)
		return 0;
	int fd = open(o->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0) {
		fprintf(stderr, "nadir: --log-file: %s: %s\n", o->log_file, strerror(errno));
		return -1;
	}
	log_set_fd(fd);
	return 0;
}

/* perf believes the file of that name if it belongs to its user. */
static int open_perf_map(const struct run_options *o)
{
	char path[64];
	if (!o->perf_map)
		return 0;
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0) {
		fprintf(stderr, "nadir: --perf-map: %s: %s\n", path, strerror(errno));
		return -1;
	}
	log_set_code_map(fd);
	return 0;
}

int diagnostics_open(const struct run_options *options)
{
	return open_log(options) < 0 ? -1 : open_perf_map(options);
}
