/* Chunk by chunk: what is zeros is left out, of what has a base only pages that were written since are stored, and what zstd makes smaller is packed. */
#define _GNU_SOURCE
#include "host/linux/snapshot_memory.h"

#include "host/linux/crc32c.h"
#include "host/linux/snapshot_chunk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zstd.h>

#define LEVEL 1 /* the guest stands still meanwhile */

struct work {
	const struct snapshot_memory *memory;
	const u8 *data;
	u64 chunks;
	u32 chunk_size, map_size;
	struct chunk_entry *index;
	int to;
	u64 end; /* of what has been written, where chunks do not lie at their addresses */
	u8 *pages, *packed; /* for one chunk each */
	ZSTD_CCtx *zstd;
};

bool snapshot_write_at(int fd, const void *data, size_t size, u64 offset)
{
	for (const u8 *p = data; size;) {
		ssize_t n = pwrite(fd, p, size, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		offset += (u64)n;
		size -= (size_t)n;
	}
	return true;
}

static bool is_zero(const u8 *p, u64 size)
{
	return !p[0] && !memcmp(p, p + 1, size - 1);
}

/* Without bases and packing the file is a sparse image of memory. */
static bool is_plain(const struct snapshot_memory *memory)
{
	return !memory->base_id && !memory->zstd;
}

static u64 chunk_bytes(const struct work *w, u64 chunk)
{
	return MIN(w->chunk_size, w->memory->size - chunk * w->chunk_size);
}

/* ---- one chunk ---- */

static bool is_written(const struct work *w, u64 page)
{
	return w->memory->written[page / 64] >> page % 64 & 1;
}

static u64 written_pages(const struct work *w, u64 chunk)
{
	u64 first = chunk * (w->chunk_size / PAGE_SIZE), count = 0;
	for (u64 i = 0; i < chunk_bytes(w, chunk) / PAGE_SIZE; i++)
		count += is_written(w, first + i);
	return count;
}

/* The bitmap and the pages; their size. */
static u64 gather_pages(struct work *w, u64 chunk)
{
	u64 first = chunk * (w->chunk_size / PAGE_SIZE);
	u8 *to = w->pages + w->map_size;
	memset(w->pages, 0, w->map_size);
	for (u64 i = 0; i < chunk_bytes(w, chunk) / PAGE_SIZE; i++) {
		if (!is_written(w, first + i))
			continue;
		w->pages[i / 8] |= (u8)(1u << i % 8);
		memcpy(to, w->data + (first + i) * PAGE_SIZE, PAGE_SIZE);
		to += PAGE_SIZE;
	}
	return (u64)(to - w->pages);
}

static bool store(struct work *w, struct chunk_entry *e, const u8 *data, u64 size)
{
	if (w->zstd) {
		size_t packed = ZSTD_compressCCtx(w->zstd, w->packed, size - 1, data, size, LEVEL);
		if (!ZSTD_isError(packed)) {
			e->packing = PACKING_ZSTD;
			data = w->packed;
			size = packed;
		}
	}
	e->stored = (u32)size;
	e->offset = w->end;
	w->end += size;
	return snapshot_write_at(w->to, data, size, e->offset);
}

static bool write_chunk(struct work *w, u64 chunk)
{
	u64 at = chunk * w->chunk_size, bytes = chunk_bytes(w, chunk);
	struct chunk_entry *e = &w->index[chunk];
	const u8 *data = w->data + at;
	*e = (struct chunk_entry){ .kind = CHUNK_ZERO };
	if (is_zero(data, bytes))
		return true;
	e->crc = crc32c(data, bytes);
	e->kind = CHUNK_PLAIN;
	if (is_plain(w->memory))
		w->end = MEMORY_CHUNKS_AT + at;
	if (!w->memory->base_id || written_pages(w, chunk) * PAGE_SIZE + w->map_size >= bytes)
		return store(w, e, data, bytes);
	e->kind = CHUNK_PAGES;
	return store(w, e, w->pages, gather_pages(w, chunk));
}

/* ---- all ---- */

/* Memory that was never touched is a hole in its file, and is not looked at. */
static bool write_all(struct work *w)
{
	int file = w->memory->file;
	for (u64 at = 0; at < w->memory->size;) {
		off_t data = lseek(file, (off_t)at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO;
		off_t hole = lseek(file, data, SEEK_HOLE);
		u64 chunk = (u64)data / w->chunk_size;
		for (; chunk * w->chunk_size < (u64)hole && chunk < w->chunks; chunk++)
			if (!write_chunk(w, chunk))
				return false;
		at = chunk * w->chunk_size;
	}
	return true;
}

/* A hole that was not written may be memory that has not been read from the base yet; one that was is zeros. */
static bool write_changes(struct work *w)
{
	for (u64 chunk = 0; chunk < w->chunks; chunk++) {
		w->index[chunk].kind = CHUNK_BASE;
		if (!written_pages(w, chunk))
			continue;
		off_t data = lseek(w->memory->file, (off_t)(chunk * w->chunk_size), SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return false;
		if (data < 0 || (u64)data >= (chunk + 1) * w->chunk_size)
			w->index[chunk].kind = CHUNK_ZERO;
		else if (!write_chunk(w, chunk))
			return false;
	}
	return true;
}

static bool write_index(struct work *w)
{
	const struct snapshot_memory *memory = w->memory;
	bool plain = is_plain(memory);
	u64 size = w->chunks * sizeof(*w->index);
	struct {
		struct memory_header header;
		struct memory_base base;
	} h = { .header = { .version = plain ? SNAPSHOT_VERSION_PLAIN : SNAPSHOT_VERSION, .chunk_size = w->chunk_size, .size = memory->size,
			    .index = plain ? MEMORY_CHUNKS_AT + memory->size : w->end, .index_crc = crc32c(w->index, size) } };
	memcpy(h.header.magic, MEMORY_MAGIC, sizeof(h.header.magic));
	memcpy(h.header.id, memory->id, SNAPSHOT_ID_SIZE);
	if (memory->base_id)
		memcpy(h.base.id, memory->base_id, SNAPSHOT_ID_SIZE);
	h.header.crc = crc32c(&h.header, offsetof(struct memory_header, crc));
	h.base.crc = crc32c(&h.base, offsetof(struct memory_base, crc));
	return snapshot_write_at(w->to, w->index, size, h.header.index) && snapshot_write_at(w->to, &h, plain ? sizeof(h.header) : sizeof(h), 0);
}

static bool prepare(struct work *w)
{
	w->index = calloc(w->chunks, sizeof(*w->index));
	w->pages = malloc(w->map_size + w->chunk_size);
	w->packed = malloc(w->map_size + w->chunk_size);
	w->zstd = w->memory->zstd ? ZSTD_createCCtx() : NULL;
	if (w->index && w->pages && w->packed && !w->zstd == !w->memory->zstd)
		return true;
	errno = ENOMEM;
	return false;
}

bool snapshot_memory_write(const struct snapshot_memory *memory, int to)
{
	u32 chunk_size = chunk_size_for(memory->size);
	struct work w = { .memory = memory, .chunk_size = chunk_size, .map_size = chunk_map_size(chunk_size),
			  .chunks = chunk_count(memory->size, chunk_size), .to = to, .end = MEMORY_CHUNKS_AT };
	void *data = mmap(NULL, memory->size, PROT_READ, MAP_SHARED | MAP_NORESERVE, memory->file, 0);
	w.data = data;
	bool good = data != MAP_FAILED && prepare(&w) && (memory->base_id ? write_changes(&w) : write_all(&w)) && write_index(&w);
	int error = errno;
	free(w.index);
	free(w.pages);
	free(w.packed);
	ZSTD_freeCCtx(w.zstd);
	if (data != MAP_FAILED)
		munmap(data, memory->size);
	errno = error;
	return good;
}

bool snapshot_memory_is(int folder, const u8 id[SNAPSHOT_ID_SIZE])
{
	struct memory_header h;
	int fd = openat(folder, SNAPSHOT_MEMORY, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	bool good = fd >= 0 && snapshot_read_at(fd, &h, sizeof(h), 0) && !memcmp(h.magic, MEMORY_MAGIC, sizeof(h.magic)) &&
		    crc32c(&h, offsetof(struct memory_header, crc)) == h.crc && !memcmp(h.id, id, SNAPSHOT_ID_SIZE);
	if (fd >= 0)
		close(fd);
	return good;
}
