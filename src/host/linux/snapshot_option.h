/* --snapshot-dir and what goes with it (snapshot_option.c). */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_OPTION_H
#define NADIR_HOST_LINUX_SNAPSHOT_OPTION_H

#include "host/linux/options.h"
#include "host/linux/snapshot_read.h"
#include "vm/vm.h"

/* Start the writer of snapshots, if there is to be one. `from` is what the machine goes on from, if options->restore. *description, which the caller frees,
 * must stay. 0, or -1 after one sentence on stderr. */
int snapshot_option_start(const struct run_options *options, struct vm *vm, const struct snapshot *from, char **description);

#endif
