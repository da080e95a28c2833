/* Disks: raw image files and block devices, and the threads that read and write them (disk.c). */
#ifndef NADIR_HOST_LINUX_DISK_H
#define NADIR_HOST_LINUX_DISK_H

#include "dev/virtio/block.h"

#define DISKS_MAX 16

/* Open disk `index` as the option says: "path=FILE[,readonly=on|off][,serial=TEXT]". The file is locked against other users that
 * lock as well. 0, or -1 after one sentence on stderr. Its cable goes to `backend`, and lives until disks_close. */
int disk_open(unsigned index, const char *option, struct block_backend *backend);

/* Start the threads, if there are disks; `completed` is called by any of them, without locks, when requests of a disk are complete. 0 or
 * an error number. Before the process is confined. */
int disks_start(void (*completed)(void *opaque, unsigned index), void *opaque);
/* Finish what was submitted and end the threads. No more requests come. */
void disks_stop(void);
void disks_close(void);

#endif
