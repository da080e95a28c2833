/* Reading one chunk of a snapshot's memory: what is packed is unpacked, what is in a base is read there (snapshot_chunk.c). */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_CHUNK_H
#define NADIR_HOST_LINUX_SNAPSHOT_CHUNK_H

#include "host/linux/snapshot_read.h"

/* Memory to unpack chunks in, for `size` bytes before and after; made beforehand, since a signal handler wants it. NULL: out of memory. */
struct unpackers *unpackers_create(u64 size);
void unpackers_destroy(struct unpackers *unpackers);

/* True if all `size` bytes at `offset` were read; errno is 0 if the file ends before. */
bool snapshot_read_at(int file, void *to, size_t size, u64 offset);

#endif
