/* The files of a snapshot: headers and index from the input, with checksums that are right now and then, perhaps with a base. They are refused, or every chunk can be read
 * into memory of its size, or is refused. */
#define _GNU_SOURCE
#include "host/linux/crc32c.h"
#include "host/linux/snapshot_read.h"
#include "input.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define FILE_SIZE (200u << 10)
#define BELOW "below/" /* the base, in the snapshot's own folder */

static char folder[] = "/tmp/nadir-fuzz-XXXXXX";

static void forget(void)
{
	if (chdir(folder) || unlink(SNAPSHOT_STATE) || unlink(SNAPSHOT_MEMORY) || unlink(SNAPSHOT_BASE) || unlink(BELOW SNAPSHOT_MEMORY) || rmdir(BELOW) ||
	    rmdir(folder))
		return;
}

static void write_file(const char *name, const void *data, size_t size)
{
	char path[64];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	close(fd);
}

static void begin(void)
{
	static bool begun;
	if (begun)
		return;
	begun = true;
	stderr = fopen("/dev/null", "w"); /* what the reader says is not looked at here */
	if (!mkdtemp(folder))
		abort();
	atexit(forget);
	char path[64];
	snprintf(path, sizeof(path), "%s/" BELOW, folder);
	if (mkdir(path, 0700))
		abort();
	write_file(SNAPSHOT_BASE, BELOW "\n", sizeof(BELOW));
}

static void take(struct input *in, void *to, size_t size)
{
	for (u8 *p = to; size--; p++)
		*p ^= input_u8(in);
}

/* The input is laid over a good one. */
static void write_state(struct input *in)
{
	u8 data[sizeof(struct state_header) + 8] = { 0 };
	struct state_header h = { .version = SNAPSHOT_VERSION_PLAIN, .size = 8, .state_crc = crc32c(data + sizeof(h), 8) };
	memcpy(h.magic, STATE_MAGIC, 8);
	take(in, &h, input_u8(in) & 1 ? sizeof(h) : 0);
	h.crc = input_u8(in) & 3 ? crc32c(&h, offsetof(struct state_header, crc)) : 0;
	memcpy(data, &h, sizeof(h));
	write_file(SNAPSHOT_STATE, data, sizeof(data) - input_u8(in) % 4);
}

/* A chunk that has two pages of its own, the second packed or not: the bitmap, and what is then in the pages. */
static u32 make_pages(struct chunk_entry *e, u8 *to)
{
	u8 stored[8 + 2 * PAGE_SIZE] = { 0x12 };
	memset(stored + 8, 0x55, 2 * PAGE_SIZE);
	if (e->packing == PACKING_NONE) {
		memcpy(to, stored, sizeof(stored));
		return sizeof(stored);
	}
	return (u32)ZSTD_compress(to, 2 * sizeof(stored), stored, sizeof(stored), 1);
}

/* The memory of the snapshot, or of its base. */
static void write_memory(struct input *in, const char *name, bool based)
{
	static u8 data[FILE_SIZE], chunk[CHUNK_SIZE_MIN];
	struct chunk_entry index[2] = { { .offset = MEMORY_CHUNKS_AT, .stored = CHUNK_SIZE_MIN, .kind = CHUNK_PLAIN }, { 0 } };
	struct {
		struct memory_header header;
		struct memory_base base;
	} h = { .header = { .version = SNAPSHOT_VERSION, .chunk_size = CHUNK_SIZE_MIN, .size = 2 * CHUNK_SIZE_MIN, .index = 150000 } };
	memcpy(h.header.magic, MEMORY_MAGIC, 8);
	memset(data, 0, sizeof(data));
	memset(chunk, 0, sizeof(chunk));
	index[0].crc = crc32c(chunk, CHUNK_SIZE_MIN);
	if (based) {
		index[1] = (struct chunk_entry){ .offset = MEMORY_CHUNKS_AT, .kind = CHUNK_PAGES, .packing = input_u8(in) & 1 };
		index[1].stored = make_pages(&index[1], data + MEMORY_CHUNKS_AT);
		memset(chunk + PAGE_SIZE, 0x55, PAGE_SIZE);
		memset(chunk + 4 * PAGE_SIZE, 0x55, PAGE_SIZE);
		index[1].crc = crc32c(chunk, CHUNK_SIZE_MIN);
		index[0].kind = CHUNK_BASE;
		h.base.id[0] = !(input_u8(in) & 1);
	}
	h.header.id[0] = name[0] == BELOW[0];
	take(in, data + MEMORY_CHUNKS_AT, input_u8(in) & 1 ? 64 : 0);
	take(in, index, input_u8(in) & 1 ? sizeof(index) : 0);
	h.header.index_crc = crc32c(index, sizeof(index));
	take(in, &h, input_u8(in) & 1 ? sizeof(h) : 0);
	h.header.crc = input_u8(in) & 3 ? crc32c(&h.header, offsetof(struct memory_header, crc)) : 0;
	h.base.crc = input_u8(in) & 3 ? crc32c(&h.base, offsetof(struct memory_base, crc)) : 0;
	memcpy(data, &h, sizeof(h));
	memcpy(data + 150000, index, sizeof(index));
	write_file(name, data, sizeof(data) - (input_u8(in) & 3 ? 0 : input_u32(in) % sizeof(data)));
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct snapshot snapshot;
	begin();
	write_state(&in);
	write_memory(&in, SNAPSHOT_MEMORY, input_u8(&in) & 1);
	write_memory(&in, BELOW SNAPSHOT_MEMORY, false);
	snapshot_tsc_hz(folder);
	if (snapshot_open(&snapshot, folder) < 0)
		return 0;
	for (u64 chunk = 0; chunk < snapshot.chunks && chunk < 64; chunk++) {
		u64 n = snapshot_chunk_bytes(&snapshot, chunk);
		CHECK(n && n <= snapshot.chunk_size);
		u8 *to = calloc(1, n);
		snapshot_read_chunk(&snapshot, chunk, to);
		free(to);
	}
	snapshot_close(&snapshot);
	return 0;
}
