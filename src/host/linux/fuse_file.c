/* Open files: the FUSE server's operations that open, read and write them. What is read or written goes straight between the file and the client's
 * memory. */
#define _GNU_SOURCE
#include "host/linux/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#define COPY_MAX 0x1000000u /* bytes at a time: nobody waits for long */

/* ---- opening ---- */

int fuse_open_flags(const struct fuse_session *s, u32 flags)
{
	int wanted = (int)flags & (O_ACCMODE | O_APPEND | O_TRUNC | O_DSYNC | O_SYNC);
	if (s->wishes.cache != FUSE_CACHE_ALWAYS)
		return wanted;
	/* The client knows where the end is, and may have to read what it writes a part of. */
	wanted &= ~O_APPEND;
	return (wanted & O_ACCMODE) == O_WRONLY ? (wanted & ~O_ACCMODE) | O_RDWR : wanted;
}

/* What the client may keep of the contents that it has (enum fuse_cache). A file that was changed shortly before it was opened last may have been changed
 * again since, within the same tick of the clock. */
static u32 cache_flags(struct fuse_session *s, struct fuse_node *node, int fd)
{
	struct stat st;
	struct timespec now;
	if (s->wishes.cache != FUSE_CACHE_AUTO)
		return s->wishes.cache == FUSE_CACHE_ALWAYS ? FOPEN_KEEP_CACHE : FOPEN_DIRECT_IO;
	if (!node || fstat(fd, &st) < 0)
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&s->lock);
	bool same = node->opened_changed.tv_sec && node->opened_size == st.st_size && node->opened_changed.tv_sec == st.st_ctim.tv_sec &&
		    node->opened_changed.tv_nsec == st.st_ctim.tv_nsec;
	bool settled = now.tv_sec > st.st_ctim.tv_sec + 1;
	node->opened_changed = settled ? st.st_ctim : (struct timespec){ 0 };
	node->opened_size = st.st_size;
	pthread_mutex_unlock(&s->lock);
	return same ? FOPEN_KEEP_CACHE : 0;
}

int fuse_opened(struct fuse_call *c, struct fuse_node *node, int fd, struct fuse_open_out *out)
{
	out->open_flags = cache_flags(c->session, node, fd);
	s64 number = fuse_handle_add(c->session, fd, false);
	out->fh = (u64)number;
	return number < 0 ? (int)number : 0;
}

int fuse_open_node(struct fuse_call *c, u64 id, u32 flags, bool kill, struct fuse_open_out *out)
{
	struct fuse_node *node = fuse_node_get(c->session, id);
	if (!node)
		return -ESTALE;
	int fd = node->type == S_IFDIR ? -EISDIR : fuse_node_open(node, fuse_open_flags(c->session, flags));
	int error = fd < 0 ? fd : 0;
	if (!error && kill)
		fuse_strip_ids(fd);
	if (!error)
		error = fuse_opened(c, node, fd, out);
	fuse_node_put(c->session, node);
	return error;
}

int fuse_open(struct fuse_call *c)
{
	const struct fuse_open_in *in = c->arg;
	if (c->session->wishes.readonly && ((in->flags & O_ACCMODE) != O_RDONLY || (in->flags & O_TRUNC)))
		return -EROFS;
	return fuse_open_node(c, c->header.nodeid, in->flags, in->open_flags & FUSE_OPEN_KILL_SUIDGID, c->reply);
}

int fuse_release(struct fuse_call *c)
{
	fuse_handle_remove(c->session, ((const struct fuse_release_in *)c->arg)->fh, false);
	return 0;
}

/* ---- reading and writing ---- */

int fuse_read(struct fuse_call *c)
{
	const struct fuse_read_in *in = c->arg;
	struct fuse_handle *h = fuse_handle_get(c->session, in->fh, false);
	if (!h)
		return -EBADF;
	fuse_pieces_limit(c->room, &c->room_pieces, in->size);
	ssize_t n = preadv(h->fd, c->room, (int)c->room_pieces, (off_t)in->offset);
	int error = n < 0 ? -errno : 0;
	fuse_handle_put(c->session, h);
	c->reply_size = n < 0 ? 0 : (u32)n;
	c->in_place = true;
	return error;
}

int fuse_write(struct fuse_call *c)
{
	const struct fuse_write_in *in = c->arg;
	struct fuse_write_out *out = c->reply;
	struct fuse_handle *h = fuse_handle_get(c->session, in->fh, false);
	if (!h)
		return -EBADF;
	int error = in->write_flags & FUSE_WRITE_KILL_SUIDGID ? fuse_strip_ids(h->fd) : 0;
	fuse_pieces_limit(c->data, &c->data_pieces, in->size);
	ssize_t n = error ? 0 : pwritev(h->fd, c->data, (int)c->data_pieces, (off_t)in->offset);
	if (n < 0)
		error = -errno;
	fuse_handle_put(c->session, h);
	out->size = n < 0 ? 0 : (u32)n;
	return error;
}

/* Of files and folders. */
int fuse_fsync(struct fuse_call *c)
{
	const struct fuse_fsync_in *in = c->arg;
	struct fuse_handle *h = fuse_handle_get(c->session, in->fh, c->header.opcode == FUSE_FSYNCDIR);
	if (!h)
		return -EBADF;
	bool data = in->fsync_flags & FUSE_FSYNC_FDATASYNC;
	int error = (data ? fdatasync(h->fd) : fsync(h->fd)) < 0 ? -errno : 0;
	fuse_handle_put(c->session, h);
	return error;
}

/* What Linux asks for by this: where data or a hole is. The file's own position is of no use to anybody. */
int fuse_lseek(struct fuse_call *c)
{
	const struct fuse_lseek_in *in = c->arg;
	struct fuse_lseek_out *out = c->reply;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	struct fuse_handle *h = fuse_handle_get(c->session, in->fh, false);
	if (!h)
		return -EBADF;
	off_t at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	int error = at < 0 ? -errno : 0;
	fuse_handle_put(c->session, h);
	out->offset = (u64)at;
	return error;
}

int fuse_fallocate(struct fuse_call *c)
{
	const struct fuse_fallocate_in *in = c->arg;
	struct fuse_handle *h = fuse_handle_get(c->session, in->fh, false);
	if (!h)
		return -EBADF;
	int error = fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
	fuse_handle_put(c->session, h);
	return error;
}

int fuse_copy(struct fuse_call *c)
{
	const struct fuse_copy_file_range_in *in = c->arg;
	struct fuse_write_out *out = c->reply;
	struct fuse_handle *from = fuse_handle_get(c->session, in->fh_in, false), *to = fuse_handle_get(c->session, in->fh_out, false);
	off_t from_at = (off_t)in->off_in, to_at = (off_t)in->off_out;
	ssize_t n = -1;
	int error = !from || !to ? -EBADF : in->flags ? -EINVAL : 0;
	if (!error && (n = copy_file_range(from->fd, &from_at, to->fd, &to_at, MIN(in->len, COPY_MAX), 0)) < 0)
		error = -errno;
	if (from)
		fuse_handle_put(c->session, from);
	if (to)
		fuse_handle_put(c->session, to);
	out->size = n < 0 ? 0 : (u32)n;
	return error;
}
