/* Going on from a snapshot: `nadir restore` (restore.c). */
#ifndef NADIR_HOST_LINUX_RESTORE_H
#define NADIR_HOST_LINUX_RESTORE_H

#include "host/linux/options.h"
#include "host/linux/snapshot_read.h"
#include "vm/vm.h"

/* Before anything looks at the clocks. */
void restore_prepare(const struct run_options *options);
/* Open what options->restore names, if it names anything. 0, or -1 after one sentence on stderr. */
int restore_open(struct snapshot *snapshot, const struct run_options *options);
/* Whether the files that the guest once booted from are still there, so that it can reboot. */
bool restore_boots(const struct run_options *options);
/* The VM has been made from the state: let its memory come from the snapshot, as it is used or (prefault) at once. 0, or -1 after one sentence on
 * stderr. */
int restore_memory(struct vm *vm, struct snapshot *snapshot, bool prefault);
/* No vCPU runs any more. */
void restore_forget(struct snapshot *snapshot);

#endif
