/* `nadir restore`: what differs from `nadir run` (restore.h). */
#include "host/linux/restore.h"

#include "host/linux/clock.h"
#include "host/linux/memory_lazy.h"
#include "host/linux/run.h"
#include "host/linux/terminal.h"
#include "host/port.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *restored; /* the folder */
static bool running;

/* Memory that is not as it was cannot be had otherwise, whatever the guest is doing: the machine ends. Perhaps in a signal handler. */
_Noreturn static void memory_failed(const char *why)
{
	terminal_restore();
	host_log(LOG_ERROR, "the snapshot %s cannot be restored: memory: %s", restored, why);
	_exit(running ? STATUS_FAILURE : STATUS_USAGE);
}

void restore_prepare(const struct run_options *options)
{
	if (options->restore)
		time_expect_tsc_hz(snapshot_tsc_hz(options->restore));
}

int restore_open(struct snapshot *snapshot, const struct run_options *options)
{
	*snapshot = (struct snapshot){ .memory = -1 };
	if (!options->restore) {
		if (options->prefault)
			fprintf(stderr, "nadir: --prefault goes with nadir restore\n");
		return options->prefault ? -1 : 0;
	}
	restored = options->restore;
	if (snapshot_open(snapshot, restored) < 0)
		return -1;
	if (snapshot->memory_size == (options->memory & PAGE_MASK))
		return 0;
	fprintf(stderr, "nadir: the snapshot %s cannot be restored: it is of a machine with %llu MiB of memory\n", restored,
		(unsigned long long)(snapshot->memory_size >> 20));
	snapshot_close(snapshot);
	return -1;
}

bool restore_boots(const struct run_options *options)
{
	bool there = (!options->kernel || !access(options->kernel, R_OK)) && (!options->initrd || !access(options->initrd, R_OK));
	if (!there)
		host_log(LOG_INFO, "the kernel or initrd that the guest booted from is not there any more: the machine ends when it reboots");
	return there;
}

int restore_memory(struct vm *vm, struct snapshot *snapshot, bool prefault)
{
	snapshot_forget_state(snapshot);
	int error = lazy_start(vm->memory, snapshot, memory_failed);
	if (error) {
		fprintf(stderr, "nadir: the snapshot %s cannot be restored: %s\n", restored, strerror(-error));
		return -1;
	}
	if (prefault)
		lazy_finish();
	running = true;
	return 0;
}

void restore_forget(struct snapshot *snapshot)
{
	lazy_forget();
	snapshot_close(snapshot);
}
