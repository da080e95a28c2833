/* Reading snapshots (snapshot_read.h). Whatever the files hold, nothing outside the given memory is touched, and every chunk is checked. */
#define _GNU_SOURCE
#include "host/linux/snapshot_read.h"

#include "host/linux/crc32c.h"
#include "host/linux/snapshot_chunk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file of the snapshot that is being opened, or of one that it is based on. */
struct part {
	const char *folder; /* as the user named it */
	const char *base; /* the base's folder; NULL: it is the snapshot itself */
	const char *name;
	int fd;
	u64 size;
};

static int complain(const struct part *p, const char *why)
{
	const char *base = p->base ? p->base : "", *name = p->name ? p->name : "";
	fprintf(stderr, "nadir: the snapshot %s cannot be restored: %s%s%s%s%s%s\n", p->folder, *base ? "its base " : "", base, *base ? ": " : "", name,
		*name ? ": " : "", why);
	return -1;
}

static int read_part(const struct part *p, void *to, size_t size, u64 offset)
{
	if (snapshot_read_at(p->fd, to, size, offset))
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
static int check_start(const struct part *p, const char *magic, const char *wanted, u32 version, u32 newest)
{
	if (memcmp(magic, wanted, 8))
		return complain(p, "it is not a file of a snapshot");
	if (version > newest)
		return complain(p, "it was written by a newer version of nadir");
	return version ? 0 : complain(p, "it is damaged: there is no version 0");
}

/* ---- the state ---- */

static int load_state(struct snapshot *s, const struct part *p, u8 id[SNAPSHOT_ID_SIZE])
{
	struct state_header h;
	if (read_part(p, &h, sizeof(h), 0) < 0 || check_start(p, h.magic, STATE_MAGIC, h.version, SNAPSHOT_VERSION_PLAIN) < 0)
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
	u64 bytes = snapshot_chunk_bytes(s, chunk), map = e->kind == CHUNK_PAGES ? chunk_map_size(s->chunk_size) : 0;
	if (e->kind == CHUNK_ZERO)
		return true;
	if (e->kind > CHUNK_PAGES || e->packing > PACKING_ZSTD || (e->kind >= CHUNK_BASE && !s->base))
		return false;
	if (e->kind == CHUNK_BASE)
		return true;
	bool whole = e->kind == CHUNK_PLAIN && e->packing == PACKING_NONE;
	return (whole ? e->stored == bytes : e->stored && e->stored <= map + bytes) && e->offset <= p->size && e->stored <= p->size - e->offset;
}

/* Zeros far below are zeros. */
static void see_through(struct snapshot *s)
{
	for (u64 i = 0; s->base && i < s->chunks; i++)
		if (s->index[i].kind == CHUNK_BASE && s->base->index[i].kind == CHUNK_ZERO)
			s->index[i].kind = CHUNK_ZERO;
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
	see_through(s);
	return 0;
}

static int load_header(const struct part *p, struct memory_header *h, struct memory_base *base)
{
	*base = (struct memory_base){ 0 };
	if (read_part(p, h, sizeof(*h), 0) < 0 || check_start(p, h->magic, MEMORY_MAGIC, h->version, SNAPSHOT_VERSION) < 0)
		return -1;
	if (crc32c(h, offsetof(struct memory_header, crc)) != h->crc || !h->size || h->size > MEMORY_SIZE_MAX || h->size % PAGE_SIZE ||
	    h->chunk_size < CHUNK_SIZE_MIN || h->chunk_size > CHUNK_SIZE_MAX || (h->chunk_size & (h->chunk_size - 1)))
		return complain(p, "its header is damaged");
	if (h->version == SNAPSHOT_VERSION_PLAIN)
		return 0;
	if (read_part(p, base, sizeof(*base), sizeof(*h)) < 0)
		return -1;
	return crc32c(base, offsetof(struct memory_base, crc)) == base->crc ? 0 : complain(p, "its header is damaged");
}

/* The chain, link by link: a snapshot that is opened, whose state is not asked for but of the first. */
struct link {
	struct snapshot *snapshot;
	const char *folder, *base; /* as in struct part */
	int fd; /* of the folder */
};

static int open_memory(const struct link *l);

/* The line in the file `base`. */
static int read_way(const struct link *l, char way[SNAPSHOT_PATH_MAX])
{
	struct part p = { l->folder, l->base, SNAPSHOT_BASE, -1, 0 };
	int result = open_part(&p, l->fd);
	if (!result && p.size >= SNAPSHOT_PATH_MAX)
		result = complain(&p, "it is too long");
	if (!result)
		result = read_part(&p, way, p.size, 0);
	if (p.fd >= 0)
		close(p.fd);
	way[result ? 0 : p.size] = 0;
	way[strcspn(way, "\n")] = 0;
	return result;
}

static const char *mismatch(const struct snapshot *base, const struct memory_header *h, const u8 id[SNAPSHOT_ID_SIZE])
{
	if (memcmp(base->id, id, SNAPSHOT_ID_SIZE))
		return "it is not the snapshot that this one was based on";
	return base->memory_size != h->size || base->chunk_size != h->chunk_size ? "its memory is of another size" : NULL;
}

static int open_base(const struct link *l, const struct memory_header *h, const u8 id[SNAPSHOT_ID_SIZE]) /* NOLINT(misc-no-recursion) */
{
	char way[SNAPSHOT_PATH_MAX], shown[2 * SNAPSHOT_PATH_MAX];
	struct snapshot *base = calloc(1, sizeof(*base));
	struct part whole = { l->folder, shown, NULL, -1, 0 };
	if (!base)
		return complain(&(struct part){ .folder = l->folder }, "out of memory");
	*base = (struct snapshot){ .memory = -1, .depth = l->snapshot->depth + 1 };
	l->snapshot->base = base;
	if (read_way(l, way) < 0)
		return -1;
	bool absolute = *way == '/';
	snprintf(shown, sizeof(shown), "%s%s%s", absolute ? "" : l->base ? l->base : l->folder, absolute ? "" : "/", way);
	if (base->depth > SNAPSHOT_CHAIN_MAX)
		return complain(&whole, "there are too many bases of bases");
	int fd = openat(l->fd, way, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return complain(&whole, strerror(errno));
	int result = open_memory(&(struct link){ base, l->folder, shown, fd });
	close(fd);
	const char *why = result ? NULL : mismatch(base, h, id);
	return why ? complain(&whole, why) : result;
}

static int open_memory(const struct link *l) /* NOLINT(misc-no-recursion) */
{
	static const u8 nobody[SNAPSHOT_ID_SIZE];
	struct part p = { l->folder, l->base, SNAPSHOT_MEMORY, -1, 0 };
	struct snapshot *s = l->snapshot;
	struct memory_header h;
	struct memory_base base;
	int result = open_part(&p, l->fd);
	s->memory = p.fd;
	if (result < 0 || load_header(&p, &h, &base) < 0)
		return -1;
	if (memcmp(base.id, nobody, sizeof(nobody)) && open_base(l, &h, base.id) < 0)
		return -1;
	memcpy(s->id, h.id, SNAPSHOT_ID_SIZE);
	s->memory_size = h.size;
	s->chunk_size = h.chunk_size;
	s->chunks = chunk_count(h.size, h.chunk_size);
	if (h.version > SNAPSHOT_VERSION_PLAIN) {
		s->unpackers = unpackers_create(chunk_map_size(h.chunk_size) + h.chunk_size);
		if (!s->unpackers)
			return complain(&p, "out of memory");
	}
	return load_index(s, &p, &h);
}

/* ---- both ---- */

static unsigned count_chain(const struct snapshot *s)
{
	unsigned n = 0;
	for (; s; s = s->base)
		n++;
	return n;
}

int snapshot_open(struct snapshot *snapshot, const char *folder)
{
	struct part state = { folder, NULL, SNAPSHOT_STATE, -1, 0 }, memory = { folder, NULL, SNAPSHOT_MEMORY, -1, 0 };
	u8 id[SNAPSHOT_ID_SIZE];
	*snapshot = (struct snapshot){ .memory = -1, .depth = 1 };
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return complain(&(struct part){ .folder = folder }, strerror(errno));
	int result = open_part(&state, fd) < 0 || load_state(snapshot, &state, id) < 0 ||
				     open_memory(&(struct link){ snapshot, folder, NULL, fd }) < 0
			     ? -1
			     : 0;
	if (!result && memcmp(snapshot->id, id, SNAPSHOT_ID_SIZE))
		result = complain(&memory, "it belongs to another snapshot");
	snapshot->depth = count_chain(snapshot);
	if (state.fd >= 0)
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
	bool good = state >= 0 && snapshot_read_at(state, &h, sizeof(h), 0) && crc32c(&h, offsetof(struct state_header, crc)) == h.crc;
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

void snapshot_close(struct snapshot *snapshot) /* NOLINT(misc-no-recursion) */
{
	snapshot_forget_state(snapshot);
	free(snapshot->index);
	snapshot->index = NULL;
	if (snapshot->memory >= 0)
		close(snapshot->memory);
	snapshot->memory = -1;
	unpackers_destroy(snapshot->unpackers);
	snapshot->unpackers = NULL;
	if (snapshot->base)
		snapshot_close(snapshot->base);
	free(snapshot->base);
	snapshot->base = NULL;
}
