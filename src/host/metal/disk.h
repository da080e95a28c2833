/* Disks in memory: what a boot loader's module holds, which stays as it is, and pages in front of it for what is written, gone when the guest ends. So
 * one module can be the disk of several guests. */
#ifndef NADIR_HOST_METAL_DISK_H
#define NADIR_HOST_METAL_DISK_H

#include "dev/block.h"

struct disk;

/* A disk of `size` bytes; the image stays the caller's, and must stay. Its cable goes to `backend`, but for bus and serial. NULL: there is no
 * memory. */
struct disk *disk_create(const u8 *image, u64 size, bool readonly, struct block_backend *backend);
void disk_destroy(struct disk *disk);
/* Memory that it holds for what was written, in bytes. */
u64 disk_written(const struct disk *disk);

/* Requests that take long are carried out by a thread, that of whoever calls this: it returns when there is none, and what has been done waits for
 * the device. True: there is something for it, by vm_disk_completed. Without the board's lock. */
bool disk_work(struct disk *disk);
/* Whom to tell when there is work for disk_work; called with the board's lock. Before the first request. */
void disk_set_waker(struct disk *disk, void (*wake)(void *opaque), void *opaque);

#endif
