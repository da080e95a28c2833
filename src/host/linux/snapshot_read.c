/* Reading snapshots (snapshot_read.h). Whatever the files hold, nothing outside the given memory is touched, and every chunk is checked. */
#define _GNU_SOURCE
#include "host/linux/snapshot_read.h"

#include "host/linux/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* A file of the snapshot that is being opened. */
struct part {
	const char *folder, *name;
	int fd;
	u64 size;
};

static int complain(const struct part *p, const char *why)
{
	fprintf(stderr, "nadir: the snapshot %s cannot be restored: %s%s%s\n", p->folder, p->name ? p->name : "", p->name ? ": " : "", why);
	return -1;
}

/* True if all `size` bytes at `offset` were read; errno is 0 if the file ends before. preadv is what the sandbox allows. */
static bool read_at(int fd, void *to, size_t size, u64 offset)
{
	while (size) {
		struct iovec piece = { to, size };
		ssize_t n = preadv(fd, &piece, 1, (off_t)offset);
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

static int read_part(const struct part *p, void *to, size_t size, u64 offset)
{
	if (read_at(p->fd, to, size, offset))
		return 0;
	return complain(p, errno ? strerror(errno) : "the file is truncated");
}

static int open_part(struct part *p, int folder)
{
	struct stat st;
	p->fd = openat(folder, p->name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (p->fd < 0 || fstat(p->fd, &st) < 0)
		return complain(p, strerror(errno));
	p->size = (u64)st.st_size;
	return S_ISREG(st.st_mode) ? 0 : complain(p, "it is not a regular file");
}

/* What both headers begin with. */
static int check_start(const struct part *p, const char *magic, const char *wanted, u32 version)
{
	if (memcmp(magic, wanted, 8))
		return complain(p, "it is not a file of a snapshot");
	if (version > SNAPSHOT_VERSION)
		return complain(p, "it was written by a newer version of nadir");
	return version == SNAPSHOT_VERSION ? 0 : complain(p, "it is damaged: there is no version 0");
}

/* ---- the state ---- */

static int load_state(struct snapshot *s, const struct part *p, u8 id[SNAPSHOT_ID_SIZE])
{
	struct state_header h;
	if (read_part(p, &h, sizeof(h), 0) < 0 || check_start(p, h.magic, STATE_MAGIC, h.version) < 0)
		return -1;
	if (crc32c(&h, offsetof(struct state_header, crc)) != h.crc || !h.size || h.size > STATE_SIZE_MAX)
		return complain(p, "its header is damaged");
	if (p->size != sizeof(h) + h.size)
		return complain(p, p->size < sizeof(h) + h.size ? "the file is truncated" : "it is damaged: it is too long");
	s->state = malloc(h.size);
	s->state_size = h.size;
	if (!s->state)
		return complain(p, "out of memory");
	if (read_part(p, s->state, h.size, sizeof(h)) < 0)
		return -1;
	memcpy(id, h.id, SNAPSHOT_ID_SIZE);
	return crc32c(s->state, h.size) == h.state_crc ? 0 : complain(p, "it is damaged: its checksum is wrong");
}

/* ---- memory ---- */

u64 snapshot_chunk_bytes(const struct snapshot *snapshot, u64 chunk)
{
	return MIN(snapshot->chunk_size, snapshot->memory_size - chunk * snapshot->chunk_size);
}

static bool entry_good(const struct snapshot *s, const struct part *p, u64 chunk)
{
	const struct chunk_entry *e = &s->index[chunk];
	u64 bytes = snapshot_chunk_bytes(s, chunk);
	if (e->kind == CHUNK_ZERO)
		return true;
	return e->kind == CHUNK_PLAIN && e->stored == bytes && e->offset <= p->size && e->stored <= p->size - e->offset;
}

static int load_index(struct snapshot *s, const struct part *p, const struct memory_header *h)
{
	u64 size = s->chunks * sizeof(*s->index);
	if (h->index > p->size || size > p->size - h->index)
		return complain(p, "the file is truncated");
	s->index = malloc(size);
	if (!s->index)
		return complain(p, "out of memory");
	if (read_part(p, s->index, size, h->index) < 0)
		return -1;
	if (crc32c(s->index, size) != h->index_crc)
		return complain(p, "it is damaged: the checksum of its index is wrong");
	for (u64 i = 0; i < s->chunks; i++)
		if (!entry_good(s, p, i))
			return complain(p, "it is damaged: its index names what is not there");
	return 0;
}

static int load_memory(struct snapshot *s, const struct part *p, const u8 id[SNAPSHOT_ID_SIZE])
{
	struct memory_header h;
	if (read_part(p, &h, sizeof(h), 0) < 0 || check_start(p, h.magic, MEMORY_MAGIC, h.version) < 0)
		return -1;
	if (crc32c(&h, offsetof(struct memory_header, crc)) != h.crc || !h.size || h.size > MEMORY_SIZE_MAX || h.size % PAGE_SIZE ||
	    h.chunk_size < CHUNK_SIZE_MIN || h.chunk_size > CHUNK_SIZE_MAX || (h.chunk_size & (h.chunk_size - 1)))
		return complain(p, "its header is damaged");
	if (memcmp(h.id, id, SNAPSHOT_ID_SIZE))
		return complain(p, "it belongs to another snapshot");
	s->memory_size = h.size;
	s->chunk_size = h.chunk_size;
	s->chunks = chunk_count(h.size, h.chunk_size);
	return load_index(s, p, &h);
}

const char *snapshot_read_chunk(const struct snapshot *snapshot, u64 chunk, u8 *to)
{
	const struct chunk_entry *e = &snapshot->index[chunk];
	u64 bytes = snapshot_chunk_bytes(snapshot, chunk);
	if (!read_at(snapshot->memory, to, bytes, e->offset))
		return errno ? "it cannot be read" : "the file is truncated";
	return crc32c(to, bytes) == e->crc ? NULL : "it is damaged: a checksum is wrong";
}

/* ---- both ---- */

int snapshot_open(struct snapshot *snapshot, const char *folder)
{
	struct part state = { folder, SNAPSHOT_STATE, -1, 0 }, memory = { folder, SNAPSHOT_MEMORY, -1, 0 };
	u8 id[SNAPSHOT_ID_SIZE];
	*snapshot = (struct snapshot){ .memory = -1 };
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return complain(&(struct part){ .folder = folder }, strerror(errno));
	int result = open_part(&state, fd) < 0 || open_part(&memory, fd) < 0 || load_state(snapshot, &state, id) < 0 ||
				     load_memory(snapshot, &memory, id) < 0
			     ? -1
			     : 0;
	snapshot->memory = memory.fd;
	close(state.fd);
	close(fd);
	if (result < 0)
		snapshot_close(snapshot);
	return result;
}

u64 snapshot_tsc_hz(const char *folder)
{
	struct state_header h = { 0 };
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int state = fd < 0 ? -1 : openat(fd, SNAPSHOT_STATE, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	bool good = state >= 0 && read_at(state, &h, sizeof(h), 0) && crc32c(&h, offsetof(struct state_header, crc)) == h.crc;
	if (state >= 0)
		close(state);
	if (fd >= 0)
		close(fd);
	return good ? h.tsc_khz * 1000ull : 0;
}

void snapshot_forget_state(struct snapshot *snapshot)
{
	free(snapshot->state);
	snapshot->state = NULL;
}

void snapshot_close(struct snapshot *snapshot)
{
	snapshot_forget_state(snapshot);
	free(snapshot->index);
	snapshot->index = NULL;
	if (snapshot->memory >= 0)
		close(snapshot->memory);
	snapshot->memory = -1;
}
