/* Opening a snapshot, and reading its memory chunk by chunk (snapshot_read.c). Its files are untrusted. */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_READ_H
#define NADIR_HOST_LINUX_SNAPSHOT_READ_H

#include "host/linux/snapshot_format.h"

struct unpackers;

struct snapshot {
	struct snapshot *base; /* where the rest of memory is; NULL: there is no more. Owned */
	unsigned depth; /* of the chain that it begins, itself included */
	u8 id[SNAPSHOT_ID_SIZE];
	struct unpackers *unpackers;
	u8 *state; /* state_size bytes; bases have none */
	size_t state_size;
	int memory; /* the file */
	u64 memory_size, chunks;
	u32 chunk_size;
	struct chunk_entry *index; /* `chunks` of them, checked; CHUNK_BASE is never zeros */
};

/* Open the snapshot in a folder, and those that it is based on. 0, or -1 after one sentence on stderr. */
int snapshot_open(struct snapshot *snapshot, const char *folder);
/* The frequency of the time-stamp counter where a snapshot was taken, if the folder looks like one; else 0. */
u64 snapshot_tsc_hz(const char *folder);
/* Once the VM has been made from it. */
void snapshot_forget_state(struct snapshot *snapshot);
void snapshot_close(struct snapshot *snapshot);

/* Bytes of a chunk in memory. */
u64 snapshot_chunk_bytes(const struct snapshot *snapshot, u64 chunk);
/* Read a chunk to `to`, which is all zeros, and check it. NULL, or what is wrong. Async-signal-safe. */
const char *snapshot_read_chunk(const struct snapshot *snapshot, u64 chunk, u8 *to);

#endif
