/* Attributes of files, extended ones among them, and of file systems: the FUSE server's operations that read and change them.
 *
 * Extended attributes are those that programs use (user.*): what the host's own kernel believes, such as a file's capabilities, is not the guest's to
 * say. */
#define _GNU_SOURCE
#include "host/linux/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define TARGET_MAX 4096u
#define XATTR_MAX 0x10000u /* Linux' own limit of a value, and of a list */

/* ---- which file ---- */

int fuse_target_get(struct fuse_call *c, struct fuse_target *target, bool by_handle, u64 fh)
{
	struct fuse_session *s = c->session;
	*target = (struct fuse_target){ .node = fuse_node_get(s, c->header.nodeid) };
	if (!target->node)
		return -ESTALE;
	if (by_handle && !(target->handle = fuse_handle_get(s, fh, target->node->type == S_IFDIR))) {
		fuse_target_put(c, target);
		return -EBADF;
	}
	return 0;
}

void fuse_target_put(struct fuse_call *c, struct fuse_target *target)
{
	if (target->handle)
		fuse_handle_put(c->session, target->handle);
	fuse_node_put(c->session, target->node);
}

/* ---- attributes ---- */

static int reply_attr(struct fuse_call *c, const struct fuse_target *t)
{
	struct fuse_attr_out *out = c->reply;
	struct stat st;
	if (fstat(t->handle ? t->handle->fd : t->node->fd, &st) < 0)
		return -errno;
	out->attr_valid = fuse_seconds_valid(c->session);
	fuse_fill_attr(&out->attr, &st);
	return 0;
}

int fuse_getattr(struct fuse_call *c)
{
	const struct fuse_getattr_in *in = c->arg;
	struct fuse_target t;
	int error = fuse_target_get(c, &t, in->getattr_flags & FUSE_GETATTR_FH, in->fh);
	if (error)
		return error;
	error = reply_attr(c, &t);
	fuse_target_put(c, &t);
	return error;
}

static int set_mode(const struct fuse_target *t, u32 mode)
{
	if (t->node->type == S_IFLNK)
		return -EOPNOTSUPP;
	return fchmodat(AT_FDCWD, fuse_path_of(t->node->fd).text, mode & 07777, 0) < 0 ? -errno : 0;
}

static int set_owner(const struct fuse_target *t, const struct fuse_setattr_in *in)
{
	uid_t user = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
	gid_t group = in->valid & FATTR_GID ? in->gid : (gid_t)-1;
	return fchownat(t->node->fd, "", user, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_size(const struct fuse_target *t, u64 size)
{
	int fd = t->handle ? t->handle->fd : t->node->type == S_IFREG ? fuse_node_open(t->node, O_WRONLY) : -EINVAL;
	if (fd < 0)
		return fd;
	int error = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	if (!t->handle)
		close(fd);
	return error;
}

static struct timespec time_of(const struct fuse_setattr_in *in, u32 set, u32 now, u64 seconds, u32 nanoseconds)
{
	if (in->valid & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	return in->valid & set ? (struct timespec){ (time_t)seconds, (long)nanoseconds } : (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_times(const struct fuse_target *t, const struct fuse_setattr_in *in)
{
	const struct timespec times[] = { time_of(in, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
					  time_of(in, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec) };
	return utimensat(t->node->fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int fuse_strip_ids(int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	u32 gone = (st.st_mode & S_ISUID) | (st.st_mode & S_IXGRP ? st.st_mode & S_ISGID : 0);
	bool strip = gone && S_ISREG(st.st_mode);
	return strip && fchmodat(AT_FDCWD, fuse_path_of(fd).text, st.st_mode & 07777 & ~gone, 0) < 0 ? -errno : 0;
}

static int set_attr(const struct fuse_target *t, const struct fuse_setattr_in *in)
{
	int error = 0;
	if (in->valid & (FATTR_UID | FATTR_GID))
		error = set_owner(t, in);
	if (!error && (in->valid & FATTR_MODE))
		error = set_mode(t, in->mode);
	if (!error && (in->valid & FATTR_KILL_SUIDGID))
		error = fuse_strip_ids(t->node->fd);
	if (!error && (in->valid & FATTR_SIZE))
		error = set_size(t, in->size);
	if (!error && (in->valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)))
		error = set_times(t, in);
	return error;
}

int fuse_setattr(struct fuse_call *c)
{
	const struct fuse_setattr_in *in = c->arg;
	struct fuse_target t;
	int error = fuse_target_get(c, &t, in->valid & FATTR_FH, in->fh);
	if (error)
		return error;
	error = set_attr(&t, in);
	error = error ? error : reply_attr(c, &t);
	fuse_target_put(c, &t);
	return error;
}

int fuse_readlink(struct fuse_call *c)
{
	struct fuse_node *node = fuse_node_get(c->session, c->header.nodeid);
	if (!node)
		return -ESTALE;
	ssize_t n = readlinkat(node->fd, "", c->reply, TARGET_MAX);
	int error = n < 0 ? -errno : 0;
	fuse_node_put(c->session, node);
	c->reply_size = n < 0 ? 0 : (u32)n;
	return error;
}

/* ---- extended attributes ---- */

static bool is_programs(const char *name)
{
	return !strncmp(name, "user.", 5);
}

/* What an operation on extended attributes gave, of the file that `path` leads to: a size or -errno. */
typedef ssize_t xattr_access(struct fuse_call *c, const char *path);

static ssize_t access_file(struct fuse_call *c, xattr_access *access)
{
	struct fuse_node *node = fuse_node_get(c->session, c->header.nodeid);
	if (!node)
		return -ESTALE;
	bool possible = node->type == S_IFREG || node->type == S_IFDIR;
	ssize_t n = possible ? access(c, fuse_path_of(node->fd).text) : -EOPNOTSUPP;
	fuse_node_put(c->session, node);
	return n;
}

static ssize_t set(struct fuse_call *c, const char *path)
{
	const struct fuse_setxattr_in *in = c->arg;
	return setxattr(path, c->name[0], c->rest, in->size, (int)in->flags) < 0 ? -errno : 0;
}

static ssize_t get(struct fuse_call *c, const char *path)
{
	ssize_t n = getxattr(path, c->name[0], c->reply, MIN(c->reply_max, XATTR_MAX));
	return n < 0 ? -errno : n;
}

/* Those of programs alone. */
static ssize_t list(struct fuse_call *c, const char *path)
{
	char *names = c->reply;
	ssize_t n = listxattr(path, names, MIN(c->reply_max, XATTR_MAX)), kept = 0;
	for (ssize_t at = 0, length; at < n; at += length) {
		length = (ssize_t)strlen(names + at) + 1;
		if (!is_programs(names + at))
			continue;
		memmove(names + kept, names + at, (size_t)length);
		kept += length;
	}
	return n < 0 ? -errno : kept;
}

static ssize_t take_away(struct fuse_call *c, const char *path)
{
	return removexattr(path, c->name[0]) < 0 ? -errno : 0;
}

/* The client may ask for the size alone, by 0. */
static int reply_xattr(struct fuse_call *c, xattr_access *access)
{
	const struct fuse_getxattr_in *in = c->arg;
	ssize_t n = access_file(c, access);
	if (n < 0)
		return (int)n;
	c->reply_size = (u32)n;
	if (in->size)
		return (u32)n > in->size ? -ERANGE : 0;
	*(struct fuse_getxattr_out *)c->reply = (struct fuse_getxattr_out){ .size = (u32)n };
	c->reply_size = sizeof(struct fuse_getxattr_out);
	return 0;
}

int fuse_setxattr(struct fuse_call *c)
{
	const struct fuse_setxattr_in *in = c->arg;
	if (!is_programs(c->name[0]))
		return -EOPNOTSUPP;
	return in->size > c->rest_size ? -EINVAL : (int)access_file(c, set);
}

int fuse_getxattr(struct fuse_call *c)
{
	return is_programs(c->name[0]) ? reply_xattr(c, get) : -ENODATA;
}

int fuse_listxattr(struct fuse_call *c)
{
	return reply_xattr(c, list);
}

int fuse_removexattr(struct fuse_call *c)
{
	return is_programs(c->name[0]) ? (int)access_file(c, take_away) : -EOPNOTSUPP;
}

/* ---- file systems ---- */

int fuse_statfs(struct fuse_call *c)
{
	struct fuse_statfs_out *out = c->reply;
	struct statfs fs;
	struct fuse_node *node = fuse_node_get(c->session, c->header.nodeid);
	if (!node)
		return -ESTALE;
	int error = fstatfs(node->fd, &fs) < 0 ? -errno : 0;
	fuse_node_put(c->session, node);
	if (!error)
		out->st = (struct fuse_kstatfs){ .blocks = fs.f_blocks, .bfree = fs.f_bfree, .bavail = fs.f_bavail, .files = fs.f_files, .ffree = fs.f_ffree,
						 .bsize = (u32)fs.f_bsize, .namelen = (u32)fs.f_namelen, .frsize = (u32)fs.f_frsize };
	return error;
}

int fuse_syncfs(struct fuse_call *c)
{
	return syncfs(c->session->wishes.folder) < 0 ? -errno : 0;
}
