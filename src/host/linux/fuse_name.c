/* Names in folders: the FUSE server's operations that look them up, make, move and remove them. */
#define _GNU_SOURCE
#include "host/linux/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define SET_IDS (S_ISUID | S_ISGID)

/* ---- looking up ---- */

static int tell_name(struct fuse_call *c, const struct fuse_node *folder, const char *name, struct fuse_entry_out *entry)
{
	int fd = openat(folder->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fuse_node_tell(c->session, fd, entry);
}

int fuse_lookup(struct fuse_call *c)
{
	struct fuse_node *folder = fuse_node_get(c->session, c->header.nodeid);
	if (!folder)
		return -ESTALE;
	int error = tell_name(c, folder, c->name[0], c->reply);
	fuse_node_put(c->session, folder);
	return error;
}

/* ---- making ---- */

/* Where we may, what was made is given to who made it; in a folder with the set-group-ID bit the group is the folder's. That clears set-ID bits, so that
 * they are set afterwards. */
static int give_away(struct fuse_call *c, const struct fuse_node *folder, int fd, u32 mode)
{
	struct stat st;
	if (!c->session->wishes.owners)
		return 0;
	if (fstat(folder->fd, &st) < 0)
		return -errno;
	gid_t group = st.st_mode & S_ISGID ? (gid_t)-1 : c->header.gid;
	if (fchownat(fd, "", c->header.uid, group, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if ((mode & SET_IDS) && fchmodat(AT_FDCWD, fuse_path_of(fd).text, mode & 07777, 0) < 0)
		return -errno;
	return 0;
}

/* What was just made, to be given away and told. What cannot be is removed. */
static int made(struct fuse_call *c, const struct fuse_node *folder, u32 mode, bool is_folder)
{
	int fd = openat(folder->fd, c->name[0], O_PATH | O_NOFOLLOW | O_CLOEXEC);
	int error = fd < 0 ? -errno : give_away(c, folder, fd, mode);
	if (error && fd >= 0) {
		close(fd);
		unlinkat(folder->fd, c->name[0], is_folder ? AT_REMOVEDIR : 0);
	}
	return error ? error : fuse_node_tell(c->session, fd, c->reply);
}

/* Set-ID bits come when the owner is the right one. */
static mode_t first_mode(const struct fuse_call *c, u32 mode)
{
	return mode & 07777 & ~(c->session->wishes.owners ? (u32)SET_IDS : 0);
}

int fuse_mknod(struct fuse_call *c)
{
	const struct fuse_mknod_in *in = c->arg;
	u32 type = in->mode & S_IFMT;
	if (type && type != S_IFREG && type != S_IFIFO && type != S_IFSOCK)
		return -EPERM;
	struct fuse_node *folder = fuse_node_get(c->session, c->header.nodeid);
	if (!folder)
		return -ESTALE;
	int error = mknodat(folder->fd, c->name[0], type | first_mode(c, in->mode), 0) < 0 ? -errno : made(c, folder, in->mode, false);
	fuse_node_put(c->session, folder);
	return error;
}

int fuse_mkdir(struct fuse_call *c)
{
	const struct fuse_mkdir_in *in = c->arg;
	struct fuse_node *folder = fuse_node_get(c->session, c->header.nodeid);
	if (!folder)
		return -ESTALE;
	int error = mkdirat(folder->fd, c->name[0], in->mode & 07777) < 0 ? -errno : made(c, folder, 0, true);
	fuse_node_put(c->session, folder);
	return error;
}

int fuse_symlink(struct fuse_call *c)
{
	struct fuse_node *folder = fuse_node_get(c->session, c->header.nodeid);
	if (!folder)
		return -ESTALE;
	int error = symlinkat(c->name[1], folder->fd, c->name[0]) < 0 ? -errno : made(c, folder, 0, false);
	fuse_node_put(c->session, folder);
	return error;
}

int fuse_link(struct fuse_call *c)
{
	const struct fuse_link_in *in = c->arg;
	struct fuse_node *node = fuse_node_get(c->session, in->oldnodeid), *folder = fuse_node_get(c->session, c->header.nodeid);
	int error = node && folder ? 0 : -ESTALE;
	if (!error && linkat(AT_FDCWD, fuse_path_of(node->fd).text, folder->fd, c->name[0], AT_SYMLINK_FOLLOW) < 0)
		error = -errno;
	if (!error)
		error = tell_name(c, folder, c->name[0], c->reply);
	if (node)
		fuse_node_put(c->session, node);
	if (folder)
		fuse_node_put(c->session, folder);
	return error;
}

/* ---- making a file and opening it ---- */

/* The name is new, and the file ours. */
static int create_new(struct fuse_call *c, struct fuse_node *folder, struct fuse_open_out *out)
{
	const struct fuse_create_in *in = c->arg;
	int flags = fuse_open_flags(c->session, in->flags) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
	int fd = openat(folder->fd, c->name[0], flags, first_mode(c, in->mode));
	if (fd < 0)
		return -errno;
	int again = openat(AT_FDCWD, fuse_path_of(fd).text, O_PATH | O_CLOEXEC);
	int error = again < 0 ? -errno : give_away(c, folder, fd, in->mode);
	if (error) {
		if (again >= 0)
			close(again);
		close(fd);
		unlinkat(folder->fd, c->name[0], 0);
		return error;
	}
	error = fuse_node_tell(c->session, again, c->reply);
	if (!error)
		return fuse_opened(c, NULL, fd, out);
	close(fd);
	return error;
}

int fuse_create(struct fuse_call *c)
{
	const struct fuse_create_in *in = c->arg;
	struct fuse_entry_out *entry = c->reply;
	struct fuse_open_out *out = (struct fuse_open_out *)(entry + 1);
	struct fuse_node *folder = fuse_node_get(c->session, c->header.nodeid);
	if (!folder)
		return -ESTALE;
	int error = create_new(c, folder, out);
	if (error == -EEXIST && !(in->flags & O_EXCL)) {
		error = tell_name(c, folder, c->name[0], entry);
		error = error ? error : fuse_open_node(c, entry->nodeid, in->flags, in->open_flags & FUSE_OPEN_KILL_SUIDGID, out);
		if (error && entry->nodeid)
			fuse_node_forget(c->session, entry->nodeid, 1);
	}
	fuse_node_put(c->session, folder);
	return error;
}

/* ---- removing and moving ---- */

static int remove_name(struct fuse_call *c, int flags)
{
	struct fuse_node *folder = fuse_node_get(c->session, c->header.nodeid);
	if (!folder)
		return -ESTALE;
	int error = unlinkat(folder->fd, c->name[0], flags) < 0 ? -errno : 0;
	fuse_node_put(c->session, folder);
	return error;
}

int fuse_unlink(struct fuse_call *c)
{
	return remove_name(c, 0);
}

int fuse_rmdir(struct fuse_call *c)
{
	return remove_name(c, AT_REMOVEDIR);
}

static int move(struct fuse_call *c, u64 to, unsigned flags)
{
	struct fuse_node *from = fuse_node_get(c->session, c->header.nodeid), *into = fuse_node_get(c->session, to);
	int error = from && into ? 0 : -ESTALE;
	if (!error && renameat2(from->fd, c->name[0], into->fd, c->name[1], flags) < 0)
		error = -errno;
	if (from)
		fuse_node_put(c->session, from);
	if (into)
		fuse_node_put(c->session, into);
	return error;
}

int fuse_rename(struct fuse_call *c)
{
	return move(c, ((const struct fuse_rename_in *)c->arg)->newdir, 0);
}

int fuse_rename2(struct fuse_call *c)
{
	const struct fuse_rename2_in *in = c->arg;
	return in->flags & ~(u32)(RENAME_NOREPLACE | RENAME_EXCHANGE) ? -EINVAL : move(c, in->newdir, in->flags);
}
