/* Writing snapshots. A snapshot is made in a folder whose name begins with a dot, made durable, and renamed: it is there as a whole or not at all. */
#define _GNU_SOURCE
#include "host/linux/snapshot_write.h"

#include "host/linux/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* A snapshot in the making. */
struct work {
	const struct snapshot_writer *writer;
	char name[SNAPSHOT_NAME_MAX + 1], partial[SNAPSHOT_NAME_MAX + 16];
	int folder; /* of this snapshot */
	u8 id[SNAPSHOT_ID_SIZE];
	int error; /* errno of what failed first, and: */
	const char *failed;
};

static bool fail(struct work *w, const char *what)
{
	if (!w->error) {
		w->error = errno ? errno : EIO;
		w->failed = what;
	}
	return false;
}

/* ---- bytes ---- */

static bool write_all(int fd, const void *data, size_t size, off_t offset)
{
	for (const u8 *p = data; size;) {
		ssize_t n = pwrite(fd, p, size, offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		offset += n;
		size -= (size_t)n;
	}
	return true;
}

static bool read_all(int fd, void *data, size_t size)
{
	for (u8 *p = data; size;) {
		ssize_t n = read(fd, p, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		size -= (size_t)n;
	}
	return true;
}

static int create_file(struct work *w, const char *name)
{
	int fd = openat(w->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(w, name);
	return fd;
}

static bool finish_file(struct work *w, int fd, const char *name, bool good)
{
	if (!good)
		fail(w, name);
	if (close(fd) < 0)
		fail(w, name);
	return !w->error;
}

/* ---- description and state ---- */

static bool write_description(struct work *w)
{
	const char *text = w->writer->description;
	int fd = create_file(w, SNAPSHOT_DESCRIPTION);
	return fd >= 0 && finish_file(w, fd, SNAPSHOT_DESCRIPTION, write_all(fd, text, strlen(text), 0));
}

static bool write_state(struct work *w, const u8 *state, u64 size)
{
	struct state_header h = { .version = SNAPSHOT_VERSION, .tsc_khz = (u32)(host_tsc_hz() / 1000), .size = size, .state_crc = crc32c(state, size) };
	memcpy(h.magic, STATE_MAGIC, sizeof(h.magic));
	memcpy(h.id, w->id, sizeof(h.id));
	h.crc = crc32c(&h, offsetof(struct state_header, crc));
	int fd = create_file(w, SNAPSHOT_STATE);
	return fd >= 0 && finish_file(w, fd, SNAPSHOT_STATE, write_all(fd, &h, sizeof(h), 0) && write_all(fd, state, size, sizeof(h)));
}

/* ---- memory ---- */

struct memory {
	const u8 *data;
	u64 size, chunks;
	u32 chunk_size;
	struct chunk_entry *index;
};

static bool is_zero(const u8 *p, u64 size)
{
	return !p[0] && !memcmp(p, p + 1, size - 1);
}

static bool write_chunk(const struct memory *m, int fd, u64 chunk)
{
	u64 at = chunk * m->chunk_size, bytes = MIN(m->chunk_size, m->size - at);
	struct chunk_entry *e = &m->index[chunk];
	if (is_zero(m->data + at, bytes))
		return true;
	*e = (struct chunk_entry){ .offset = MEMORY_CHUNKS_AT + at, .stored = (u32)bytes, .kind = CHUNK_PLAIN, .crc = crc32c(m->data + at, bytes) };
	return write_all(fd, m->data + at, bytes, (off_t)e->offset);
}

/* Memory that was never touched is a hole in its file, and is not looked at. */
static bool write_chunks(const struct memory *m, int memory_file, int fd)
{
	for (u64 at = 0; at < m->size;) {
		off_t data = lseek(memory_file, (off_t)at, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO;
		off_t hole = lseek(memory_file, data, SEEK_HOLE);
		u64 chunk = (u64)data / m->chunk_size;
		for (; chunk * m->chunk_size < (u64)hole && chunk < m->chunks; chunk++)
			if (!write_chunk(m, fd, chunk))
				return false;
		at = chunk * m->chunk_size;
	}
	return true;
}

static bool write_index(struct work *w, const struct memory *m, int fd)
{
	u64 size = m->chunks * sizeof(*m->index);
	struct memory_header h = { .version = SNAPSHOT_VERSION, .chunk_size = m->chunk_size, .size = m->size,
				   .index = MEMORY_CHUNKS_AT + m->size, .index_crc = crc32c(m->index, size) };
	memcpy(h.magic, MEMORY_MAGIC, sizeof(h.magic));
	memcpy(h.id, w->id, sizeof(h.id));
	h.crc = crc32c(&h, offsetof(struct memory_header, crc));
	return write_all(fd, m->index, size, (off_t)h.index) && write_all(fd, &h, sizeof(h), 0);
}

static bool write_memory(struct work *w)
{
	struct memory m = { .size = w->writer->memory_size, .chunk_size = chunk_size_for(w->writer->memory_size) };
	m.chunks = chunk_count(m.size, m.chunk_size);
	void *data = mmap(NULL, m.size, PROT_READ, MAP_SHARED | MAP_NORESERVE, w->writer->memory, 0);
	m.data = data;
	m.index = calloc(m.chunks, sizeof(*m.index));
	int fd = data != MAP_FAILED && m.index ? create_file(w, SNAPSHOT_MEMORY) : -1;
	if (fd >= 0)
		finish_file(w, fd, SNAPSHOT_MEMORY, write_chunks(&m, w->writer->memory, fd) && write_index(w, &m, fd));
	else
		fail(w, SNAPSHOT_MEMORY);
	free(m.index);
	if (data != MAP_FAILED)
		munmap(data, m.size);
	return !w->error;
}

/* ---- the folder ---- */

bool snapshot_name_ok(const char *name)
{
	size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	return length && length <= SNAPSHOT_NAME_MAX && !name[length] && name[0] != '.' && name[0] != '-' && name[0] != '_';
}

static const char *const files[] = { SNAPSHOT_DESCRIPTION, SNAPSHOT_STATE, SNAPSHOT_MEMORY };

/* What a writer that was killed left there goes, too. */
static void remove_partial(struct work *w)
{
	int folder = openat(w->writer->folder, w->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	for (size_t i = 0; folder >= 0 && i < ARRAY_SIZE(files); i++)
		unlinkat(folder, files[i], 0);
	if (folder >= 0)
		close(folder);
	unlinkat(w->writer->folder, w->partial, AT_REMOVEDIR);
}

static void choose_name(struct work *w)
{
	unsigned number = 0;
	do
		snprintf(w->name, sizeof(w->name), "%u", ++number);
	while (!faccessat(w->writer->folder, w->name, F_OK, AT_SYMLINK_NOFOLLOW));
}

static bool make_folder(struct work *w, const struct snapshot_order *order)
{
	if (!order->name[0])
		choose_name(w);
	else if (snapshot_name_ok(order->name))
		memcpy(w->name, order->name, sizeof(w->name));
	else {
		errno = EINVAL;
		return fail(w, "its name");
	}
	if (!faccessat(w->writer->folder, w->name, F_OK, AT_SYMLINK_NOFOLLOW)) {
		errno = EEXIST;
		return fail(w, w->name);
	}
	snprintf(w->partial, sizeof(w->partial), ".%s.partial", w->name);
	remove_partial(w);
	if (mkdirat(w->writer->folder, w->partial, 0700) < 0)
		return fail(w, w->name);
	w->folder = openat(w->writer->folder, w->partial, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return w->folder >= 0 || fail(w, w->name);
}

static bool sync_file(struct work *w, const char *name)
{
	int fd = openat(w->folder, name, O_RDONLY | O_CLOEXEC);
	bool good = fd >= 0 && fsync(fd) >= 0;
	if (fd >= 0)
		close(fd);
	return good || fail(w, name);
}

static bool complete(struct work *w)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (!sync_file(w, files[i]))
			return false;
	if (fsync(w->folder) < 0 || renameat2(w->writer->folder, w->partial, w->writer->folder, w->name, RENAME_NOREPLACE) < 0)
		return fail(w, w->name);
	/* It is there; whether its name outlives a power cut at once is the folder's affair. */
	fsync(w->writer->folder);
	return true;
}

/* ---- orders ---- */

static void answer(const struct work *w)
{
	struct snapshot_result a = { 0 };
	memcpy(a.name, w->name, sizeof(a.name));
	if (w->error)
		snprintf(a.error, sizeof(a.error), "%s: %s", w->failed, strerror(w->error));
	(void)!write(w->writer->socket, &a, sizeof(a));
}

static void obey(const struct snapshot_writer *writer, struct snapshot_order *order, const u8 *state)
{
	struct work w = { .writer = writer, .folder = -1 };
	order->name[SNAPSHOT_NAME_MAX] = 0;
	if (getrandom(w.id, sizeof(w.id), 0) != sizeof(w.id))
		fail(&w, "random bytes");
	bool copied = !w.error && make_folder(&w, order) && write_description(&w) && write_state(&w, state, order->state_size) && write_memory(&w);
	if (copied)
		answer(&w);
	if (!copied || !complete(&w))
		remove_partial(&w);
	answer(&w);
	if (w.folder >= 0)
		close(w.folder);
}

_Noreturn void snapshot_write_all(const struct snapshot_writer *writer)
{
	struct snapshot_order order;
	while (read_all(writer->socket, &order, sizeof(order))) {
		u8 *state = order.state_size <= STATE_SIZE_MAX ? malloc(order.state_size) : NULL;
		if (!state || !read_all(writer->socket, state, order.state_size))
			break;
		obey(writer, &order, state);
		free(state);
	}
	_exit(0);
}
