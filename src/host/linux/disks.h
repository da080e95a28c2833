/* All disks of the machine: from `--disk` and `--cdrom` to their threads, and to their end. */
#ifndef NADIR_HOST_LINUX_DISKS_H
#define NADIR_HOST_LINUX_DISKS_H

#include "host/linux/disk.h"
#include "host/linux/options.h"

/* Open them, the cables to `backend`, which has room for DISKS_MAX and is zeroed. How many rows of it there are, of which some may be empty, or -1 after one sentence
 * on stderr. */
int disks_open(const struct run_options *options, struct block_backend *backend);
/* The option of one that was opened so, or NULL. */
const char *disks_option(unsigned index);
/* Start their threads; `completed` is called by any of them, without locks, when requests of that disk are complete. 0, or -1 after one sentence
 * on stderr. Before the process is confined. */
int disks_start(void (*completed)(unsigned disk));
/* Open one more, which is disk `index`, and start its threads, while the machine runs (passed_files.h). 0, or -1 after one sentence on stderr. */
int disk_begin(unsigned index, const char *option, struct block_backend *backend);
/* End the threads of one that nobody uses, and close it. */
void disk_end(unsigned index);
/* Finish what was submitted and end the threads. No more requests come. */
void disks_stop(void);
void disks_close(void);

#endif
