/* Chunks: stored as they are or packed by zstd, whole or as the pages that differ from a base (snapshot_format.h). All of it may run in a signal
 * handler: no memory is allocated here, and zstd works in memory that it was given. */
#define _GNU_SOURCE
#define ZSTD_STATIC_LINKING_ONLY /* for memory of our own */
#include "host/linux/snapshot_chunk.h"

#include "host/linux/crc32c.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <zstd.h>

/* preadv is what the sandbox allows. */
bool snapshot_read_at(int file, void *to, size_t size, u64 offset)
{
	while (size) {
		struct iovec piece = { to, size };
		ssize_t n = preadv(file, &piece, 1, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n ? errno : 0;
			return false;
		}
		to = (u8 *)to + n;
		size -= (size_t)n;
		offset += (u64)n;
	}
	return true;
}

/* ---- who unpacks ---- */

#define UNPACKERS 4 /* so many threads at once; others wait */

struct unpacker {
	bool busy; /* atomic */
	u8 *packed, *unpacked; /* `size` bytes each */
	ZSTD_DCtx *zstd;
};

struct unpackers {
	u64 size;
	u8 *memory;
	u64 memory_size;
	struct unpacker unpacker[UNPACKERS];
};

struct unpackers *unpackers_create(u64 size)
{
	struct unpackers *u = calloc(1, sizeof(*u));
	size_t context = (ZSTD_estimateDCtxSize() + PAGE_SIZE - 1) & PAGE_MASK;
	u64 room = (size + PAGE_SIZE - 1) & PAGE_MASK, each = 2 * room + context;
	void *memory = mmap(NULL, UNPACKERS * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!u || memory == MAP_FAILED) {
		free(u);
		return NULL;
	}
	*u = (struct unpackers){ .size = size, .memory = memory, .memory_size = UNPACKERS * each };
	for (unsigned i = 0; i < UNPACKERS; i++) {
		u8 *p = u->memory + i * each;
		u->unpacker[i] = (struct unpacker){ .packed = p, .unpacked = p + room, .zstd = ZSTD_initStaticDCtx(p + 2 * room, context) };
	}
	return u;
}

void unpackers_destroy(struct unpackers *unpackers)
{
	if (unpackers)
		munmap(unpackers->memory, unpackers->memory_size);
	free(unpackers);
}

/* Whoever has one is reading, and gives it back soon. */
static struct unpacker *take(struct unpackers *all)
{
	for (unsigned i = 0;; i = (i + 1) % UNPACKERS) {
		if (!__atomic_exchange_n(&all->unpacker[i].busy, true, __ATOMIC_ACQUIRE))
			return &all->unpacker[i];
		if (i == UNPACKERS - 1)
			sched_yield();
	}
}

static void give_back(struct unpacker *u)
{
	__atomic_store_n(&u->busy, false, __ATOMIC_RELEASE);
}

/* ---- stored bytes ---- */

static const char damaged[] = "it is damaged: it cannot be unpacked";

static const char *read_stored(const struct snapshot *s, const struct chunk_entry *e, u8 *to)
{
	if (snapshot_read_at(s->memory, to, e->stored, e->offset))
		return NULL;
	return errno ? "it cannot be read" : "the file is truncated";
}

/* What was stored, unpacked: *size bytes of at most `room`. */
static const char *read_unpacked(const struct snapshot *s, const struct chunk_entry *e, struct unpacker *u, u8 *to, u64 room, u64 *size)
{
	if (e->packing == PACKING_NONE) {
		*size = e->stored;
		return read_stored(s, e, to);
	}
	const char *why = read_stored(s, e, u->packed);
	size_t n = why ? 0 : ZSTD_decompressDCtx(u->zstd, to, room, u->packed, e->stored);
	*size = n;
	return why ? why : ZSTD_isError(n) ? damaged : NULL;
}

/* Lay the pages over what is in the base. */
static const char *lay_over(const u8 *stored, u64 size, u32 map_size, u8 *to, u64 bytes)
{
	const u8 *page = stored + map_size, *end = stored + size;
	if (size < map_size)
		return damaged;
	for (u64 i = 0; i < bytes / PAGE_SIZE; i++) {
		if (!(stored[i / 8] >> i % 8 & 1))
			continue;
		if (end - page < (s64)PAGE_SIZE)
			return damaged;
		memcpy(to + i * PAGE_SIZE, page, PAGE_SIZE);
		page += PAGE_SIZE;
	}
	return page == end ? NULL : damaged;
}

static const char *read_whole(const struct snapshot *s, const struct chunk_entry *e, u8 *to, u64 bytes)
{
	u64 size;
	if (e->packing == PACKING_NONE)
		return read_stored(s, e, to);
	struct unpacker *u = take(s->unpackers);
	const char *why = read_unpacked(s, e, u, to, bytes, &size);
	give_back(u);
	return why ? why : size == bytes ? NULL : damaged;
}

static const char *read_pages(const struct snapshot *s, const struct chunk_entry *e, u8 *to, u64 bytes)
{
	u64 size;
	u32 map_size = chunk_map_size(s->chunk_size);
	struct unpacker *u = take(s->unpackers);
	const char *why = read_unpacked(s, e, u, u->unpacked, map_size + s->chunk_size, &size);
	if (!why)
		why = lay_over(u->unpacked, size, map_size, to, bytes);
	give_back(u);
	return why;
}

/* Goes as deep as the chain is long. */
const char *snapshot_read_chunk(const struct snapshot *snapshot, u64 chunk, u8 *to) /* NOLINT(misc-no-recursion) */
{
	const struct chunk_entry *e = &snapshot->index[chunk];
	u64 bytes = snapshot_chunk_bytes(snapshot, chunk);
	const char *why = NULL;
	switch (e->kind) {
	case CHUNK_ZERO:
		return NULL;
	case CHUNK_BASE:
		return snapshot_read_chunk(snapshot->base, chunk, to);
	case CHUNK_PAGES:
		why = snapshot_read_chunk(snapshot->base, chunk, to);
		if (!why)
			why = read_pages(snapshot, e, to, bytes);
		break;
	default:
		why = read_whole(snapshot, e, to, bytes);
	}
	if (why)
		return why;
	return crc32c(to, bytes) == e->crc ? NULL : "it is damaged: a checksum is wrong";
}
