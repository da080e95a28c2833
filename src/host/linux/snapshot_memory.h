/* Writing a snapshot's memory, in the process that writes snapshots (snapshot_memory.c). */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_MEMORY_H
#define NADIR_HOST_LINUX_SNAPSHOT_MEMORY_H

#include "host/linux/snapshot_format.h"

struct snapshot_memory {
	int file; /* of the guest's memory */
	u64 size;
	const u8 *id; /* of the snapshot */
	const u8 *base_id; /* NULL: it has no base, and all of memory is written */
	const u64 *written; /* with a base: a bit for each page written since */
	bool zstd;
};

/* Write the file. False, and errno says why. */
bool snapshot_memory_write(const struct snapshot_memory *memory, int to);
/* Whether the snapshot in a folder is that of `id`, as far as its header tells. */
bool snapshot_memory_is(int folder, const u8 id[SNAPSHOT_ID_SIZE]);
bool snapshot_write_at(int fd, const void *data, size_t size, u64 offset);

#endif
