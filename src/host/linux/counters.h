/* What a running VM counts, as one picture (counters.c), and its forms: JSON for programs, OpenMetrics for monitoring. */
#ifndef NADIR_HOST_LINUX_COUNTERS_H
#define NADIR_HOST_LINUX_COUNTERS_H

#include "vm/stats.h"

#include <json-c/json.h>

#define COUNTERS_ENGINE_MAX 128
#define COUNTERS_CPUS_MAX 64
#define COUNTERS_DISKS_MAX 16
#define COUNTERS_NETS_MAX 8

struct counters {
	u64 time; /* nanoseconds of guest time since the VM was made */
	u64 balloon_wanted, balloon_actual; /* bytes that the guest is asked for, and has given */
	u64 reported; /* bytes that it ever reported as free */
	u64 resident; /* bytes of memory that the process has, guest memory included; 0: not known */
	struct counters_exit {
		u64 count, nanoseconds;
	} exit[EXIT_REASON_COUNT];
	u64 interrupts;
	unsigned cpus;
	struct counters_cpu {
		u64 exits, interrupts, halted; /* nanoseconds asleep in HLT */
		u64 busy; /* nanoseconds of a host CPU: guest code, translation, exits */
	} cpu[COUNTERS_CPUS_MAX];
	unsigned disks;
	struct counters_disk {
		u64 reads, read_bytes, writes, write_bytes, flushes;
	} disk[COUNTERS_DISKS_MAX];
	unsigned nets;
	struct counters_net {
		u64 tx_frames, tx_bytes, rx_frames, rx_bytes; /* of the guest's view: tx is what it sent */
	} net[COUNTERS_NETS_MAX];
	/* The engine's own, summed over the vCPUs. */
	unsigned engine_count;
	struct counters_engine {
		char name[48];
		u64 value;
	} engine[COUNTERS_ENGINE_MAX];
};

/* Add one of the engine's lines, "  VALUE  NAME". */
void counters_add_line(struct counters *counters, const char *line);

struct json_object *counters_json(const struct counters *counters);
/* From what counters_json made; false if it is not that. */
bool counters_parse(struct counters *counters, struct json_object *json);
/* OpenMetrics text (the OpenMetrics specification, "Text format"). The caller frees it; NULL: out of memory. */
char *counters_metrics(const struct counters *counters, const char *vm);

#endif
