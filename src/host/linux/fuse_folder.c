/* Open folders: the FUSE server's operations that list them. A place in a listing is the host's file system's own (d_off). */
#define _GNU_SOURCE
#include "host/linux/fuse_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define AT_ONCE 0x8000u

int fuse_opendir(struct fuse_call *c)
{
	struct fuse_open_out *out = c->reply;
	struct fuse_node *node = fuse_node_get(c->session, c->header.nodeid);
	if (!node)
		return -ESTALE;
	int fd = openat(node->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = fd < 0 ? -errno : 0;
	fuse_node_put(c->session, node);
	if (error)
		return error;
	s64 number = fuse_handle_add(c->session, fd, true);
	out->fh = (u64)number;
	out->open_flags = c->session->wishes.cache == FUSE_CACHE_ALWAYS ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : 0;
	return number < 0 ? (int)number : 0;
}

int fuse_releasedir(struct fuse_call *c)
{
	fuse_handle_remove(c->session, ((const struct fuse_release_in *)c->arg)->fh, true);
	return 0;
}

/* Add one entry to the answer; false: it is full. With `folder`, what the entry is is told too, if it can be found out. */
static bool add(struct fuse_call *c, const struct fuse_node *folder, const struct dirent64 *d)
{
	size_t length = strlen(d->d_name), front = folder ? sizeof(struct fuse_entry_out) : 0;
	size_t size = FUSE_DIRENT_ALIGN(front + FUSE_NAME_OFFSET + length);
	u8 *at = (u8 *)c->reply + c->reply_size;
	struct fuse_entry_out entry = { 0 };
	if (size > MIN(c->reply_max, c->room_size) - c->reply_size)
		return false;
	if (folder && strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) {
		int fd = openat(folder->fd, d->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && fuse_node_tell(c->session, fd, &entry) < 0)
			entry.nodeid = 0; /* the client will ask when it needs it */
	}
	const struct fuse_dirent dirent = { .ino = d->d_ino, .off = (u64)d->d_off, .namelen = (u32)length, .type = d->d_type };
	memset(at, 0, size);
	memcpy(at, &entry, front);
	memcpy(at + front, &dirent, FUSE_NAME_OFFSET);
	memcpy(at + front + FUSE_NAME_OFFSET, d->d_name, length);
	c->reply_size += (u32)size;
	return true;
}

/* What does not fit any more is read again the next time, by its place. */
static int list(struct fuse_call *c, const struct fuse_node *folder, struct fuse_handle *h, u64 offset)
{
	alignas(8) u8 buffer[AT_ONCE];
	if (lseek(h->fd, (off_t)offset, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		ssize_t n = getdents64(h->fd, buffer, sizeof(buffer));
		if (n <= 0)
			return n < 0 && !c->reply_size ? -errno : 0;
		for (ssize_t at = 0; at < n;) {
			const struct dirent64 *d = (const struct dirent64 *)(const void *)(buffer + at);
			if (!add(c, folder, d))
				return 0;
			at += d->d_reclen;
		}
	}
}

static int read_folder(struct fuse_call *c, bool plus)
{
	const struct fuse_read_in *in = c->arg;
	struct fuse_handle *h = fuse_handle_get(c->session, in->fh, true);
	struct fuse_node *folder = plus ? fuse_node_get(c->session, c->header.nodeid) : NULL;
	int error = !h ? -EBADF : plus && !folder ? -ESTALE : 0;
	c->room_size = MIN(c->room_size, in->size);
	if (!error) {
		pthread_mutex_lock(&h->reading);
		error = list(c, folder, h, in->offset);
		pthread_mutex_unlock(&h->reading);
	}
	if (h)
		fuse_handle_put(c->session, h);
	if (folder)
		fuse_node_put(c->session, folder);
	return error;
}

int fuse_readdir(struct fuse_call *c)
{
	return read_folder(c, false);
}

int fuse_readdirplus(struct fuse_call *c)
{
	return read_folder(c, true);
}
