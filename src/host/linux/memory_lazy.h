/* Guest RAM that is filled from a snapshot as it is used (memory_lazy.c).
 *
 * Chunks that have not been read are not accessible; a fault in one reads it and goes on. This needs no help of the kernel's beyond mprotect and
 * signals, so that it works wherever nadir does. What the kernel accesses for us, or another process, must be made ready before: the host port asks
 * for that by host_ram_ready, memory.c and space.c by lazy_ready. */
#ifndef NADIR_HOST_LINUX_MEMORY_LAZY_H
#define NADIR_HOST_LINUX_MEMORY_LAZY_H

#include "host/linux/snapshot_read.h"

/* Let the RAM at `ram`, of snapshot->memory_size bytes and all zeros, have what the snapshot says, from now on. `failed` is called when a chunk cannot
 * be read, perhaps in a signal handler, and does not return. The snapshot must stay until lazy_forget. 0 or -errno. One RAM at a time. */
int lazy_start(void *ram, const struct snapshot *snapshot, void (*failed)(const char *why));
/* Read all that has not been read. */
void lazy_finish(void);
void lazy_forget(void);

/* Make sure that these bytes, of any memory, can be accessed by others. */
void lazy_ready(const void *p, u64 size);
/* What lies in whole pages of memory is about to be given up: chunks that lie in them need not be read. */
void lazy_discard(void *p, u64 size);

#endif
