/* What the files of the FUSE server share (fuse.h). */
#ifndef NADIR_HOST_LINUX_FUSE_INTERNAL_H
#define NADIR_HOST_LINUX_FUSE_INTERNAL_H

#include "host/linux/fuse.h"

#include <linux/fuse.h>
#include <pthread.h>
#include <sys/stat.h>

/* ---- numbered things (fuse_table.c) ---- */

/* Things by number. The owner has a lock around it. */
struct fuse_table {
	void **item;
	u32 *idle; /* numbers that were given back */
	u32 size, used, idles;
};
/* The number, or -1: no memory. */
s64 fuse_table_add(struct fuse_table *table, void *item);
static inline void *fuse_table_at(const struct fuse_table *table, u64 number)
{
	return number < table->used ? table->item[number] : NULL;
}
void fuse_table_remove(struct fuse_table *table, u64 number);
void fuse_table_release(struct fuse_table *table);

/* ---- nodes: files that the client was told of (fuse_node.c) ---- */

struct fuse_node {
	int fd; /* O_PATH */
	u32 type; /* S_IFMT of its mode, which never changes */
	u64 id, generation;
	dev_t device;
	ino_t inode;
	struct fuse_node *next; /* of the same hash */
	u64 told; /* how often the client was told of it, and has not forgotten that */
	u32 users; /* 1 as long as it is in the table, and 1 for each fuse_node_get */
	/* As it was when it was last opened, if that was some time after it was changed. */
	struct timespec opened_changed;
	off_t opened_size;
};

/* An open file or folder. */
struct fuse_handle {
	int fd;
	u32 users;
	bool is_folder;
	pthread_mutex_t reading; /* of a folder, whose place moves */
};

struct fuse_session {
	struct fuse_wishes wishes;
	pthread_mutex_t lock; /* of all that follows, and of what says whose nodes and handles are */
	struct fuse_table nodes, handles;
	struct fuse_node **hash;
	u32 hashes, count;
	u64 generation;
	bool ready; /* FUSE_INIT was taken */
};

/* The node; until fuse_node_put. NULL: there is none of that number. */
struct fuse_node *fuse_node_get(struct fuse_session *s, u64 id);
void fuse_node_put(struct fuse_session *s, struct fuse_node *node);
/* Tell the client of a file, known or not, open by O_PATH, which becomes ours. 0 or -errno. */
int fuse_node_tell(struct fuse_session *s, int fd, struct fuse_entry_out *entry);
void fuse_node_forget(struct fuse_session *s, u64 id, u64 times);
/* The client begins anew, or ends. `folder` -1: ends. 0 or -errno. */
int fuse_nodes_reset(struct fuse_session *s, int folder);

/* "N", for the current folder's descriptors. */
struct fuse_path {
	char text[16];
};
struct fuse_path fuse_path_of(int fd);
/* Open what a node is, a plain file or a folder, anew. A descriptor or -errno. */
int fuse_node_open(const struct fuse_node *node, int flags);

struct fuse_handle *fuse_handle_get(struct fuse_session *s, u64 number, bool is_folder);
void fuse_handle_put(struct fuse_session *s, struct fuse_handle *handle);
/* Take over a descriptor. The number, or -errno. */
s64 fuse_handle_add(struct fuse_session *s, int fd, bool is_folder);
void fuse_handle_remove(struct fuse_session *s, u64 number, bool is_folder);

void fuse_fill_attr(struct fuse_attr *attr, const struct stat *st);
/* Fill an entry's attributes and how long it holds. */
void fuse_fill_entry(const struct fuse_session *s, struct fuse_entry_out *entry, const struct stat *st);
u64 fuse_seconds_valid(const struct fuse_session *s);

/* ---- a request ---- */

struct fuse_call {
	struct fuse_session *session;
	struct fuse_in_header header;
	const void *arg; /* as large as the table of operations says; a copy, as are the names */
	const char *name[2]; /* of files: each a single name, not empty, ".", ".." or with a slash; else the table says so */
	const u8 *rest; /* behind them */
	u32 rest_size;
	struct iovec data[FUSE_PIECES_MAX]; /* FUSE_WRITE: what is behind its argument, in the client's memory */
	unsigned data_pieces;
	struct iovec room[FUSE_PIECES_MAX]; /* the client's memory for the answer, behind its header */
	unsigned room_pieces;
	u32 room_size;
	void *reply; /* a buffer to build an answer in, zeroed where the table says how large it is */
	u32 reply_max; /* its size */
	u32 reply_size; /* of the answer */
	bool in_place; /* the answer is in `room` already */
};

/* Cut the first `size` bytes off, or everything behind them. */
void fuse_pieces_skip(struct iovec *piece, unsigned *pieces, size_t size);
void fuse_pieces_limit(struct iovec *piece, unsigned *pieces, size_t size);

/* The descriptor to ask for a file's attributes: of handle `fh` if `by_handle`, else of the node. Until fuse_target_put. 0 or -errno. */
struct fuse_target {
	struct fuse_node *node;
	struct fuse_handle *handle;
};
int fuse_target_get(struct fuse_call *c, struct fuse_target *target, bool by_handle, u64 fh);
void fuse_target_put(struct fuse_call *c, struct fuse_target *target);

/* Flags to open by, of those that the client asks for. */
int fuse_open_flags(const struct fuse_session *s, u32 flags);
/* Open a plain file for the client; with `kill`, without set-ID bits. 0 or -errno. */
int fuse_open_node(struct fuse_call *c, u64 id, u32 flags, bool kill, struct fuse_open_out *out);
/* Take over a descriptor that was opened for the client; node NULL: of a new file. Likewise. */
int fuse_opened(struct fuse_call *c, struct fuse_node *node, int fd, struct fuse_open_out *out);

/* Take a plain file's set-ID bits, as a write by somebody without privileges does (FUSE_HANDLE_KILLPRIV_V2). 0 or -errno. */
int fuse_strip_ids(int fd);

/* The operations: 0 or -errno. */
typedef int fuse_operation(struct fuse_call *c);
fuse_operation fuse_lookup, fuse_create, fuse_mknod, fuse_mkdir, fuse_symlink, fuse_link, fuse_unlink, fuse_rmdir, fuse_rename, fuse_rename2; /* fuse_name.c */
fuse_operation fuse_open, fuse_release, fuse_read, fuse_write, fuse_fsync, fuse_lseek, fuse_fallocate, fuse_copy; /* fuse_file.c */
fuse_operation fuse_opendir, fuse_releasedir, fuse_readdir, fuse_readdirplus; /* fuse_folder.c */
fuse_operation fuse_getattr, fuse_setattr, fuse_readlink, fuse_statfs, fuse_syncfs, fuse_setxattr, fuse_getxattr, fuse_listxattr, fuse_removexattr; /* fuse_attr.c */

#endif
