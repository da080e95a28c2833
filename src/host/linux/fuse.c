/* Requests of the FUSE server: taking them apart, the table of operations, and answers (fuse.h). */
#define _GNU_SOURCE
#include "host/linux/fuse_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of FUSE's protocol 7.36, whose structures have not changed since 7.28 for those who do not ask for more. */
#define MINOR 36u
#define MINOR_LEAST 27u
#define WRITE_MAX 0x100000u
#define BACKGROUND_MAX 64u

/* What is offered to the client: see linux/fuse.h for each. */
#define FLAGS (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS | FUSE_ATOMIC_O_TRUNC | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | \
	       FUSE_AUTO_INVAL_DATA | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2 | FUSE_ASYNC_DIO | FUSE_CACHE_SYMLINKS)

/* ---- pieces of memory ---- */

void fuse_pieces_skip(struct iovec *piece, unsigned *pieces, size_t size)
{
	unsigned whole = 0;
	while (whole < *pieces && piece[whole].iov_len <= size)
		size -= piece[whole++].iov_len;
	*pieces -= whole;
	memmove(piece, piece + whole, *pieces * sizeof(*piece));
	if (*pieces) {
		piece->iov_base = (u8 *)piece->iov_base + size;
		piece->iov_len -= size;
	}
}

void fuse_pieces_limit(struct iovec *piece, unsigned *pieces, size_t size)
{
	unsigned i = 0;
	while (i < *pieces && size) {
		piece[i].iov_len = MIN(piece[i].iov_len, size);
		size -= piece[i++].iov_len;
	}
	*pieces = i;
}

static size_t sum(const struct iovec *piece, unsigned pieces)
{
	size_t size = 0;
	for (unsigned i = 0; i < pieces; i++)
		size += piece[i].iov_len;
	return size;
}

static size_t gather(void *to, size_t size, const struct iovec *piece, unsigned pieces)
{
	size_t done = 0;
	for (unsigned i = 0; i < pieces && done < size; i++) {
		size_t n = MIN(piece[i].iov_len, size - done);
		if (n)
			memcpy((u8 *)to + done, piece[i].iov_base, n);
		done += n;
	}
	return done;
}

static void scatter(const struct iovec *piece, unsigned pieces, const void *from, size_t size)
{
	size_t done = 0;
	for (unsigned i = 0; i < pieces && done < size; i++) {
		size_t n = MIN(piece[i].iov_len, size - done);
		if (n)
			memcpy(piece[i].iov_base, (const u8 *)from + done, n);
		done += n;
	}
}

/* ---- what the session itself is asked ---- */

static int init(struct fuse_call *c)
{
	const struct fuse_init_in *in = c->arg;
	struct fuse_init_out *out = c->reply;
	struct fuse_session *s = c->session;
	*out = (struct fuse_init_out){ .major = FUSE_KERNEL_VERSION, .minor = MINOR };
	c->reply_size = sizeof(*out);
	if (in->major > FUSE_KERNEL_VERSION)
		return 0; /* it will ask again */
	if (in->major < FUSE_KERNEL_VERSION || in->minor < MINOR_LEAST)
		return -EPROTO;
	int error = fuse_nodes_reset(s, s->wishes.folder);
	if (error)
		return error;
	bool always = s->wishes.cache == FUSE_CACHE_ALWAYS;
	out->minor = MIN(in->minor, MINOR);
	out->max_readahead = in->max_readahead;
	out->flags = in->flags & (FLAGS | (always ? FUSE_WRITEBACK_CACHE : 0));
	out->max_background = BACKGROUND_MAX;
	out->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	out->max_write = WRITE_MAX;
	out->max_pages = WRITE_MAX / PAGE_SIZE;
	out->time_gran = 1;
	__atomic_store_n(&s->ready, true, __ATOMIC_RELEASE);
	return 0;
}

static int destroy(struct fuse_call *c)
{
	__atomic_store_n(&c->session->ready, false, __ATOMIC_RELEASE);
	return fuse_nodes_reset(c->session, -1);
}

static int forget(struct fuse_call *c)
{
	const struct fuse_forget_in *in = c->arg;
	fuse_node_forget(c->session, c->header.nodeid, in->nlookup);
	return 0;
}

static int forget_several(struct fuse_call *c)
{
	const struct fuse_batch_forget_in *in = c->arg;
	const u8 *p = c->rest;
	for (u32 i = 0, left = c->rest_size / sizeof(struct fuse_forget_one); i < MIN(in->count, left); i++) {
		struct fuse_forget_one one;
		memcpy(&one, p + i * sizeof(one), sizeof(one));
		fuse_node_forget(c->session, one.nodeid, one.nlookup);
	}
	return 0;
}

/* Nothing here waits for long: the answer comes anyway. */
static int interrupt(struct fuse_call *c)
{
	return 0;
}

/* ---- the table of operations ---- */

enum {
	CHANGES = 1, /* refused where nothing may be changed */
	SILENT = 2,  /* no answer */
	BEFORE = 4,  /* may come before FUSE_INIT */
	TARGET = 8,  /* the second name is a symbolic link's target, */
	XATTR = 16,  /* the name is an extended attribute's: not a file's */
};

static const struct operation {
	u32 opcode;
	u16 arg, reply; /* bytes */
	u8 names, flags;
	fuse_operation *carry_out;
} operations[] = {
	{ FUSE_LOOKUP, 0, sizeof(struct fuse_entry_out), 1, 0, fuse_lookup },
	{ FUSE_FORGET, sizeof(struct fuse_forget_in), 0, 0, SILENT, forget },
	{ FUSE_BATCH_FORGET, sizeof(struct fuse_batch_forget_in), 0, 0, SILENT, forget_several },
	{ FUSE_GETATTR, sizeof(struct fuse_getattr_in), sizeof(struct fuse_attr_out), 0, 0, fuse_getattr },
	{ FUSE_SETATTR, sizeof(struct fuse_setattr_in), sizeof(struct fuse_attr_out), 0, CHANGES, fuse_setattr },
	{ FUSE_READLINK, 0, 0, 0, 0, fuse_readlink },
	{ FUSE_SYMLINK, 0, sizeof(struct fuse_entry_out), 2, CHANGES | TARGET, fuse_symlink },
	{ FUSE_MKNOD, sizeof(struct fuse_mknod_in), sizeof(struct fuse_entry_out), 1, CHANGES, fuse_mknod },
	{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in), sizeof(struct fuse_entry_out), 1, CHANGES, fuse_mkdir },
	{ FUSE_UNLINK, 0, 0, 1, CHANGES, fuse_unlink },
	{ FUSE_RMDIR, 0, 0, 1, CHANGES, fuse_rmdir },
	{ FUSE_RENAME, sizeof(struct fuse_rename_in), 0, 2, CHANGES, fuse_rename },
	{ FUSE_RENAME2, sizeof(struct fuse_rename2_in), 0, 2, CHANGES, fuse_rename2 },
	{ FUSE_LINK, sizeof(struct fuse_link_in), sizeof(struct fuse_entry_out), 1, CHANGES, fuse_link },
	{ FUSE_OPEN, sizeof(struct fuse_open_in), sizeof(struct fuse_open_out), 0, 0, fuse_open },
	{ FUSE_CREATE, sizeof(struct fuse_create_in), sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out), 1, CHANGES, fuse_create },
	{ FUSE_READ, sizeof(struct fuse_read_in), 0, 0, 0, fuse_read },
	{ FUSE_WRITE, sizeof(struct fuse_write_in), sizeof(struct fuse_write_out), 0, CHANGES, fuse_write },
	{ FUSE_STATFS, 0, sizeof(struct fuse_statfs_out), 0, 0, fuse_statfs },
	{ FUSE_RELEASE, sizeof(struct fuse_release_in), 0, 0, 0, fuse_release },
	{ FUSE_FSYNC, sizeof(struct fuse_fsync_in), 0, 0, 0, fuse_fsync },
	{ FUSE_SYNCFS, 0, 0, 0, 0, fuse_syncfs },
	{ FUSE_SETXATTR, FUSE_COMPAT_SETXATTR_IN_SIZE, 0, 1, CHANGES | XATTR, fuse_setxattr },
	{ FUSE_GETXATTR, sizeof(struct fuse_getxattr_in), 0, 1, XATTR, fuse_getxattr },
	{ FUSE_LISTXATTR, sizeof(struct fuse_getxattr_in), 0, 0, 0, fuse_listxattr },
	{ FUSE_REMOVEXATTR, 0, 0, 1, CHANGES | XATTR, fuse_removexattr },
	{ FUSE_INIT, offsetof(struct fuse_init_in, flags2), sizeof(struct fuse_init_out), 0, BEFORE, init },
	{ FUSE_OPENDIR, sizeof(struct fuse_open_in), sizeof(struct fuse_open_out), 0, 0, fuse_opendir },
	{ FUSE_READDIR, sizeof(struct fuse_read_in), 0, 0, 0, fuse_readdir },
	{ FUSE_READDIRPLUS, sizeof(struct fuse_read_in), 0, 0, 0, fuse_readdirplus },
	{ FUSE_RELEASEDIR, sizeof(struct fuse_release_in), 0, 0, 0, fuse_releasedir },
	{ FUSE_FSYNCDIR, sizeof(struct fuse_fsync_in), 0, 0, 0, fuse_fsync },
	{ FUSE_INTERRUPT, sizeof(struct fuse_interrupt_in), 0, 0, SILENT, interrupt },
	{ FUSE_DESTROY, 0, 0, 0, BEFORE, destroy },
	{ FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in), 0, 0, CHANGES, fuse_fallocate },
	{ FUSE_LSEEK, sizeof(struct fuse_lseek_in), sizeof(struct fuse_lseek_out), 0, 0, fuse_lseek },
	{ FUSE_COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), sizeof(struct fuse_write_out), 0, CHANGES, fuse_copy },
};

/* Others are unknown here: the client then does without, or does it itself (FUSE_FLUSH, locks, FUSE_ACCESS). */
static const struct operation *find(u32 opcode)
{
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
		if (operations[i].opcode == opcode)
			return &operations[i];
	return NULL;
}

/* ---- taking apart ---- */

static bool is_single_name(const char *name)
{
	return *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

/* [p, p + size) as argument, names, and the rest. */
static int split(struct fuse_call *c, const struct operation *o, const u8 *p, u32 size)
{
	if (size < o->arg)
		return -EINVAL;
	c->arg = p;
	p += o->arg;
	size -= o->arg;
	for (unsigned i = 0; i < o->names; i++) {
		size_t length = strnlen((const char *)p, size);
		if (length == size)
			return -EINVAL;
		c->name[i] = (const char *)p;
		if (!(o->flags & (i ? TARGET : XATTR)) && !is_single_name(c->name[i]))
			return -EINVAL;
		p += length + 1;
		size -= (u32)length + 1;
	}
	c->rest = p;
	c->rest_size = size;
	return 0;
}

/* What is written stays where it is; all else is copied, so that it does not change any more. */
static int fetch(struct fuse_call *c, struct fuse_worker *w, const struct operation *o, const struct iovec *in, unsigned ins)
{
	size_t there = sum(in, ins), head = sizeof(c->header);
	bool write = c->header.opcode == FUSE_WRITE;
	if (c->header.len < head || c->header.len > there || (!write && c->header.len - head > sizeof(w->in)))
		return -EINVAL;
	struct iovec piece[FUSE_PIECES_MAX];
	unsigned pieces = ins;
	memcpy(piece, in, ins * sizeof(*in));
	fuse_pieces_limit(piece, &pieces, c->header.len);
	fuse_pieces_skip(piece, &pieces, head);
	size_t size = gather(w->in, write ? o->arg : sizeof(w->in), piece, pieces);
	if (write) {
		fuse_pieces_skip(piece, &pieces, size);
		memcpy(c->data, piece, pieces * sizeof(*piece));
		c->data_pieces = pieces;
	}
	return split(c, o, w->in, (u32)size);
}

static int carry_out(struct fuse_call *c, struct fuse_worker *w, const struct operation *o, const struct iovec *in, unsigned ins)
{
	if (!o)
		return -ENOSYS;
	if (!(o->flags & BEFORE) && !__atomic_load_n(&c->session->ready, __ATOMIC_ACQUIRE))
		return -EIO;
	if ((o->flags & CHANGES) && c->session->wishes.readonly)
		return -EROFS;
	int error = fetch(c, w, o, in, ins);
	memset(w->out, 0, o->reply);
	c->reply = w->out;
	c->reply_max = sizeof(w->out);
	c->reply_size = o->reply;
	return error ? error : o->carry_out(c);
}

u32 fuse_serve(struct fuse_session *session, struct fuse_worker *worker, const struct iovec *in, unsigned ins, const struct iovec *out, unsigned outs)
{
	struct fuse_call c = { .session = session };
	struct fuse_out_header head = { .len = sizeof(head) };
	if (gather(&c.header, sizeof(c.header), in, ins) < sizeof(c.header))
		return 0;
	size_t room = MIN(sum(out, outs), (size_t)UINT32_MAX);
	memcpy(c.room, out, outs * sizeof(*out));
	c.room_pieces = outs;
	c.room_size = room < sizeof(head) ? 0 : (u32)(room - sizeof(head));
	fuse_pieces_skip(c.room, &c.room_pieces, sizeof(head));
	const struct operation *o = find(c.header.opcode);
	int error = carry_out(&c, worker, o, in, ins);
	if ((o && (o->flags & SILENT)) || room < sizeof(head))
		return 0;
	if (!error && c.reply_size > c.room_size)
		error = -EINVAL;
	if (!error && !c.in_place)
		scatter(c.room, c.room_pieces, c.reply, c.reply_size);
	head.len += error ? 0 : c.reply_size;
	head.error = error;
	head.unique = c.header.unique;
	scatter(out, outs, &head, sizeof(head));
	return head.len;
}

/* ---- life ---- */

struct fuse_session *fuse_session_create(const struct fuse_wishes *wishes)
{
	struct fuse_session *s = calloc(1, sizeof(*s));
	if (s) {
		s->wishes = *wishes;
		pthread_mutex_init(&s->lock, NULL);
	}
	return s;
}

void fuse_session_destroy(struct fuse_session *session)
{
	fuse_nodes_reset(session, -1);
	pthread_mutex_destroy(&session->lock);
	free(session);
}
