/* Nodes and handles of the FUSE server (fuse_internal.h).
 *
 * A node holds a descriptor by O_PATH, so that it is the same file wherever it is moved; two names of one file are one node. What cannot be done by
 * such a descriptor goes through /proc/self/fd, which leads to the same file without looking at a path. Whoever uses a node or handle counts as a
 * user, so that no descriptor is closed, and its number used again, under the hands of another thread. */
#define _GNU_SOURCE
#include "host/linux/fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define HASHES_FIRST 256u

/* ---- what a file is like ---- */

u64 fuse_seconds_valid(const struct fuse_session *s)
{
	static const u64 seconds[] = { [FUSE_CACHE_AUTO] = 1, [FUSE_CACHE_NONE] = 0, [FUSE_CACHE_ALWAYS] = 86400 };
	return seconds[s->wishes.cache];
}

void fuse_fill_attr(struct fuse_attr *attr, const struct stat *st)
{
	u32 major_number = major(st->st_rdev), minor_number = minor(st->st_rdev);
	*attr = (struct fuse_attr){
		.ino = st->st_ino,
		.size = (u64)st->st_size,
		.blocks = (u64)st->st_blocks,
		.atime = (u64)st->st_atim.tv_sec,
		.mtime = (u64)st->st_mtim.tv_sec,
		.ctime = (u64)st->st_ctim.tv_sec,
		.atimensec = (u32)st->st_atim.tv_nsec,
		.mtimensec = (u32)st->st_mtim.tv_nsec,
		.ctimensec = (u32)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (u32)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = (minor_number & 0xff) | major_number << 8 | (minor_number & ~0xffu) << 12,
		.blksize = (u32)st->st_blksize,
	};
}

void fuse_fill_entry(const struct fuse_session *s, struct fuse_entry_out *entry, const struct stat *st)
{
	fuse_fill_attr(&entry->attr, st);
	entry->entry_valid = entry->attr_valid = fuse_seconds_valid(s);
}

/* ---- the hash ---- */

static struct fuse_node **bucket(const struct fuse_session *s, dev_t device, ino_t inode)
{
	u64 h = (u64)inode * 0x9e3779b97f4a7c15ull ^ (u64)device * 0xc2b2ae3d27d4eb4full;
	return &s->hash[(h >> 32) & (s->hashes - 1)];
}

static struct fuse_node *find(const struct fuse_session *s, dev_t device, ino_t inode)
{
	for (struct fuse_node *n = *bucket(s, device, inode); n; n = n->next)
		if (n->device == device && n->inode == inode)
			return n;
	return NULL;
}

static void link_in(const struct fuse_session *s, struct fuse_node *n)
{
	struct fuse_node **at = bucket(s, n->device, n->inode);
	n->next = *at;
	*at = n;
}

static void link_out(const struct fuse_session *s, const struct fuse_node *n)
{
	struct fuse_node **at = bucket(s, n->device, n->inode);
	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
}

/* Without memory for a larger one the old one does. */
static void grow_hash(struct fuse_session *s)
{
	struct fuse_node **larger = s->count < s->hashes ? NULL : calloc(2 * (size_t)s->hashes, sizeof(struct fuse_node *));
	if (!larger)
		return;
	free(s->hash);
	s->hash = larger;
	s->hashes *= 2;
	for (u32 i = 0; i < s->nodes.used; i++)
		if (fuse_table_at(&s->nodes, i))
			link_in(s, fuse_table_at(&s->nodes, i));
}

/* ---- nodes; all of these with the lock ---- */

static void drop(struct fuse_node *n)
{
	if (--n->users)
		return;
	close(n->fd);
	free(n);
}

static struct fuse_node *add(struct fuse_session *s, int fd, const struct stat *st)
{
	struct fuse_node *n = calloc(1, sizeof(*n));
	s64 number = n ? fuse_table_add(&s->nodes, n) : -1;
	if (number < 0) {
		free(n);
		return NULL;
	}
	*n = (struct fuse_node){ .fd = fd, .type = st->st_mode & S_IFMT, .id = (u64)number + FUSE_ROOT_ID, .generation = s->generation++,
				 .device = st->st_dev, .inode = st->st_ino, .users = 1 };
	link_in(s, n);
	s->count++;
	grow_hash(s);
	return n;
}

static void remove_node(struct fuse_session *s, struct fuse_node *n)
{
	link_out(s, n);
	fuse_table_remove(&s->nodes, n->id - FUSE_ROOT_ID);
	s->count--;
	drop(n);
}

/* ---- nodes ---- */

struct fuse_node *fuse_node_get(struct fuse_session *s, u64 id)
{
	pthread_mutex_lock(&s->lock);
	struct fuse_node *n = fuse_table_at(&s->nodes, id - FUSE_ROOT_ID);
	if (n)
		n->users++;
	pthread_mutex_unlock(&s->lock);
	return n;
}

void fuse_node_put(struct fuse_session *s, struct fuse_node *node)
{
	pthread_mutex_lock(&s->lock);
	drop(node);
	pthread_mutex_unlock(&s->lock);
}

int fuse_node_tell(struct fuse_session *s, int fd, struct fuse_entry_out *entry)
{
	struct stat st;
	if (fstat(fd, &st) < 0) {
		int error = errno;
		close(fd);
		return -error;
	}
	fuse_fill_entry(s, entry, &st);
	pthread_mutex_lock(&s->lock);
	struct fuse_node *n = s->hash ? find(s, st.st_dev, st.st_ino) : NULL;
	bool known = n;
	if (!known && s->hash)
		n = add(s, fd, &st);
	if (n) {
		n->told++;
		entry->nodeid = n->id;
		entry->generation = n->generation;
	}
	pthread_mutex_unlock(&s->lock);
	if (known || !n)
		close(fd);
	return n ? 0 : -ENOMEM;
}

void fuse_node_forget(struct fuse_session *s, u64 id, u64 times)
{
	pthread_mutex_lock(&s->lock);
	struct fuse_node *n = id == FUSE_ROOT_ID ? NULL : fuse_table_at(&s->nodes, id - FUSE_ROOT_ID);
	if (n) {
		n->told -= MIN(n->told, times);
		if (!n->told)
			remove_node(s, n);
	}
	pthread_mutex_unlock(&s->lock);
}

static void drop_handle(struct fuse_handle *h)
{
	if (--h->users)
		return;
	pthread_mutex_destroy(&h->reading);
	close(h->fd);
	free(h);
}

/* With the lock. */
static void forget_all(struct fuse_session *s)
{
	for (u32 i = 0; i < s->handles.used; i++)
		if (fuse_table_at(&s->handles, i))
			drop_handle(fuse_table_at(&s->handles, i));
	for (u32 i = 0; i < s->nodes.used; i++)
		if (fuse_table_at(&s->nodes, i))
			drop(fuse_table_at(&s->nodes, i));
	fuse_table_release(&s->handles);
	fuse_table_release(&s->nodes);
	free(s->hash);
	s->hash = NULL;
	s->hashes = s->count = 0;
}

static int begin(struct fuse_session *s, int folder)
{
	struct stat st;
	int fd = openat(folder, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	s->hash = calloc(HASHES_FIRST, sizeof(struct fuse_node *));
	s->hashes = HASHES_FIRST;
	int error = fd < 0 || fstat(fd, &st) < 0 ? errno : !s->hash || !add(s, fd, &st) ? ENOMEM : 0;
	if (error && fd >= 0)
		close(fd);
	return -error;
}

int fuse_nodes_reset(struct fuse_session *s, int folder)
{
	pthread_mutex_lock(&s->lock);
	forget_all(s);
	int error = folder < 0 ? 0 : begin(s, folder);
	pthread_mutex_unlock(&s->lock);
	return error;
}

/* ---- files of nodes ---- */

struct fuse_path fuse_path_of(int fd)
{
	struct fuse_path path;
	snprintf(path.text, sizeof(path.text), "%d", fd);
	return path;
}

/* A device, a pipe or a socket of the host's is no business of the guest's: those of this name in the guest are its own kernel's. */
int fuse_node_open(const struct fuse_node *node, int flags)
{
	if (node->type != S_IFREG && node->type != S_IFDIR)
		return node->type == S_IFLNK ? -ELOOP : -EACCES;
	int fd = openat(AT_FDCWD, fuse_path_of(node->fd).text, flags | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* ---- handles ---- */

struct fuse_handle *fuse_handle_get(struct fuse_session *s, u64 number, bool is_folder)
{
	pthread_mutex_lock(&s->lock);
	struct fuse_handle *h = fuse_table_at(&s->handles, number);
	if (h && h->is_folder != is_folder)
		h = NULL;
	if (h)
		h->users++;
	pthread_mutex_unlock(&s->lock);
	return h;
}

void fuse_handle_put(struct fuse_session *s, struct fuse_handle *handle)
{
	pthread_mutex_lock(&s->lock);
	drop_handle(handle);
	pthread_mutex_unlock(&s->lock);
}

s64 fuse_handle_add(struct fuse_session *s, int fd, bool is_folder)
{
	struct fuse_handle *h = calloc(1, sizeof(*h));
	s64 number = -1;
	if (h) {
		*h = (struct fuse_handle){ .fd = fd, .users = 1, .is_folder = is_folder };
		pthread_mutex_init(&h->reading, NULL);
		pthread_mutex_lock(&s->lock);
		number = fuse_table_add(&s->handles, h);
		pthread_mutex_unlock(&s->lock);
	}
	if (number >= 0)
		return number;
	free(h);
	close(fd);
	return -ENOMEM;
}

void fuse_handle_remove(struct fuse_session *s, u64 number, bool is_folder)
{
	pthread_mutex_lock(&s->lock);
	struct fuse_handle *h = fuse_table_at(&s->handles, number);
	if (h && h->is_folder == is_folder) {
		fuse_table_remove(&s->handles, number);
		drop_handle(h);
	}
	pthread_mutex_unlock(&s->lock);
}
