/* The files of a snapshot, as docs/snapshot-format.md describes them. A snapshot is a folder with
 *
 *     vm.conf   the description of the VM, as `nadir run` takes it
 *     state     everything but memory: struct state_header, then what vm_save wrote
 *     memory    struct memory_header, perhaps struct memory_base, the chunks, and their index
 *     base      of an incremental snapshot: the folder of the snapshot that the rest of memory is in, as a path from this folder
 *
 * Numbers are little-endian. */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_FORMAT_H
#define NADIR_HOST_LINUX_SNAPSHOT_FORMAT_H

#include "arch/types.h"

#define SNAPSHOT_DESCRIPTION "vm.conf"
#define SNAPSHOT_STATE "state"
#define SNAPSHOT_MEMORY "memory"
#define SNAPSHOT_BASE "base"

#define SNAPSHOT_VERSION 2
#define SNAPSHOT_VERSION_PLAIN 1 /* memory is neither incremental nor packed; states are of this version */
#define SNAPSHOT_CHAIN_MAX 64 /* snapshots that one needs, itself included */
#define SNAPSHOT_PATH_MAX 4096
#define SNAPSHOT_ID_SIZE 16
#define STATE_MAGIC "nadirSTA"
#define MEMORY_MAGIC "nadirMEM"

#define STATE_SIZE_MAX (128u << 20)

struct state_header {
	char magic[8];
	u32 version;
	u32 tsc_khz; /* the frequency of the time-stamp counter of the machine where it was taken */
	u64 size; /* of what follows */
	u8 id[SNAPSHOT_ID_SIZE]; /* random; the same in both files */
	u32 state_crc; /* of what follows */
	u32 crc; /* of this header up to here */
};
static_assert(sizeof(struct state_header) == 48, "the state's header");

/* Memory is in chunks, of which each can be read alone. Those of zeros are not there. */
#define CHUNK_SIZE_MIN (64u << 10)
#define CHUNK_SIZE_MAX (64u << 20)
#define CHUNKS_WANTED 16384u /* so that so many mappings suffice (memory_lazy.c): larger memories have larger chunks */
#define MEMORY_SIZE_MAX (1ull << 40)

struct memory_header {
	char magic[8];
	u32 version;
	u32 chunk_size; /* a power of two; the last chunk may be shorter */
	u64 size; /* of the guest's memory */
	u64 index; /* where in the file */
	u8 id[SNAPSHOT_ID_SIZE];
	u32 index_crc;
	u32 crc; /* of this header up to here */
};
static_assert(sizeof(struct memory_header) == 56, "the memory's header");
#define MEMORY_CHUNKS_AT 4096 /* where chunks begin in the file */

/* Behind the header, from version 2 on. */
struct memory_base {
	u8 id[SNAPSHOT_ID_SIZE]; /* of the base; zeros: there is none */
	u32 reserved;
	u32 crc; /* of this struct up to here */
};
static_assert(sizeof(struct memory_base) == 24, "the base's identity");

/* CHUNK_BASE: as in the base, and nothing is stored. CHUNK_PAGES: as in the base but for some pages: a bitmap of these, of chunk_map_size bytes, and
 * the pages. */
enum chunk_kind { CHUNK_ZERO, CHUNK_PLAIN, CHUNK_BASE, CHUNK_PAGES };
enum chunk_packing { PACKING_NONE, PACKING_ZSTD };

/* An entry of the index, one for each chunk. */
struct chunk_entry {
	u64 offset; /* in the file */
	u32 stored; /* bytes there */
	u32 kind; /* enum chunk_kind */
	u32 crc; /* of the chunk's contents in memory; not CHUNK_BASE */
	u32 packing; /* enum chunk_packing: how the stored bytes are to be unpacked first */
};
static_assert(sizeof(struct chunk_entry) == 24, "an index entry");

static inline u32 chunk_size_for(u64 memory)
{
	u32 size = CHUNK_SIZE_MIN;
	while (memory / size > CHUNKS_WANTED && size < CHUNK_SIZE_MAX)
		size *= 2;
	return size;
}

/* Whole words. */
static inline u32 chunk_map_size(u32 chunk_size)
{
	return (chunk_size / (u32)PAGE_SIZE + 63) / 64 * 8;
}

static inline u64 chunk_count(u64 memory, u32 chunk_size)
{
	return (memory + chunk_size - 1) / chunk_size;
}

#endif
