/* Transfers by io_uring: many at once for one thread, where the host's kernel offers it (disk_ring.c).
 *
 * The ring knows the image's files and no others, and reads and writes them alone: whoever held the VMM could do no more by it than by the
 * VMM's own system calls.
 *
 * All but disk_ring_wake is for one thread. */
#ifndef NADIR_HOST_LINUX_DISK_RING_H
#define NADIR_HOST_LINUX_DISK_RING_H

#include "dev/block.h"
#include "host/linux/image.h"

struct disk_ring;

/* For an image that names its files. NULL: it does not, or the kernel has no io_uring for us. */
struct disk_ring *disk_ring_create(struct image *image);
/* NULL is allowed. Nothing may be under way. */
void disk_ring_destroy(struct disk_ring *ring);
/* The file of io_uring_enter, which is all that is called from the next on. */
int disk_ring_file(const struct disk_ring *ring);
/* The calling thread is the one that uses it. False: the kernel does not want it. */
bool disk_ring_begin(struct disk_ring *ring);

/* Begin to read or write with the next wait; BLOCK_REQUESTS_MAX at once. */
void disk_ring_add(struct disk_ring *ring, struct block_request *request);
/* Sleep until something is complete, or somebody woke us. */
void disk_ring_wait(struct disk_ring *ring);
/* The next one that is complete, or NULL. `whole`: all of it was moved. */
struct block_request *disk_ring_take(struct disk_ring *ring, bool *whole);
/* Make the thread's wait, or its next one, return; any thread. */
void disk_ring_wake(struct disk_ring *ring);

#endif
