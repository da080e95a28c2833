/* The files of a snapshot: headers and index from the input, with checksums that are right now and then. They are refused, or every chunk can be read
 * into memory of its size, or is refused. */
#define _GNU_SOURCE
#include "host/linux/crc32c.h"
#include "host/linux/snapshot_read.h"
#include "input.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_SIZE (200u << 10)

static char folder[] = "/tmp/nadir-fuzz-XXXXXX";

static void forget(void)
{
	if (chdir(folder) || unlink(SNAPSHOT_STATE) || unlink(SNAPSHOT_MEMORY) || rmdir(folder))
		return;
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
}

static void take(struct input *in, void *to, size_t size)
{
	for (u8 *p = to; size--; p++)
		*p ^= input_u8(in);
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

/* The input is laid over a good one. */
static void write_state(struct input *in)
{
	u8 data[sizeof(struct state_header) + 8] = { 0 };
	struct state_header h = { .version = SNAPSHOT_VERSION, .size = 8, .state_crc = crc32c(data + sizeof(h), 8) };
	memcpy(h.magic, STATE_MAGIC, 8);
	take(in, &h, input_u8(in) & 1 ? sizeof(h) : 0);
	h.crc = input_u8(in) & 3 ? crc32c(&h, offsetof(struct state_header, crc)) : 0;
	memcpy(data, &h, sizeof(h));
	write_file(SNAPSHOT_STATE, data, sizeof(data) - input_u8(in) % 4);
}

static void write_memory(struct input *in)
{
	static u8 data[FILE_SIZE];
	struct chunk_entry index[2] = { { .offset = MEMORY_CHUNKS_AT, .stored = CHUNK_SIZE_MIN, .kind = CHUNK_PLAIN }, { 0 } };
	struct memory_header h = { .version = SNAPSHOT_VERSION, .chunk_size = CHUNK_SIZE_MIN, .size = 2 * CHUNK_SIZE_MIN, .index = 150000 };
	memcpy(h.magic, MEMORY_MAGIC, 8);
	index[0].crc = crc32c(data + MEMORY_CHUNKS_AT, CHUNK_SIZE_MIN);
	take(in, index, input_u8(in) & 1 ? sizeof(index) : 0);
	h.index_crc = crc32c(index, sizeof(index));
	take(in, &h, input_u8(in) & 1 ? sizeof(h) : 0);
	h.crc = input_u8(in) & 3 ? crc32c(&h, offsetof(struct memory_header, crc)) : 0;
	memset(data, 0, sizeof(h));
	memcpy(data, &h, sizeof(h));
	memcpy(data + 150000, index, sizeof(index));
	write_file(SNAPSHOT_MEMORY, data, sizeof(data) - (input_u8(in) & 3 ? 0 : input_u32(in) % sizeof(data)));
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct snapshot snapshot;
	begin();
	write_state(&in);
	write_memory(&in);
	snapshot_tsc_hz(folder);
	if (snapshot_open(&snapshot, folder) < 0)
		return 0;
	for (u64 chunk = 0; chunk < snapshot.chunks && chunk < 64; chunk++) {
		u64 n = snapshot_chunk_bytes(&snapshot, chunk);
		CHECK(n && n <= snapshot.chunk_size);
		u8 *to = malloc(n);
		if (snapshot.index[chunk].kind != CHUNK_ZERO)
			snapshot_read_chunk(&snapshot, chunk, to);
		free(to);
	}
	snapshot_close(&snapshot);
	return 0;
}
