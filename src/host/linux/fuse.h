/* A server of FUSE's protocol (linux/fuse.h) for one folder: requests and answers lie in memory of the client's, who is not to be trusted.
 *
 * A client never names a path. It names files that it was told of (nodes), each kept open here, and single names within them: no "..", nothing with a
 * slash, no symbolic link is ever followed, and the client's own kernel resolves paths. So nothing outside of the folder can be reached, whatever is
 * renamed meanwhile. Nothing but plain files and folders is ever opened for reading or writing.
 *
 * The current folder must be /proc/self/fd: what has no other way than a path goes through that (fuse_node.c). The file creation mask should be 0. */
#ifndef NADIR_HOST_LINUX_FUSE_H
#define NADIR_HOST_LINUX_FUSE_H

#include "arch/types.h"

#include <sys/uio.h>

#define FUSE_PIECES_MAX 128

/* How long the client may believe what it was told, when others may change the files too. */
enum fuse_cache {
	FUSE_CACHE_AUTO,   /* names and attributes for a second, contents until a file is opened and found changed */
	FUSE_CACHE_NONE,   /* not at all */
	FUSE_CACHE_ALWAYS, /* for ever, and it may keep what it writes for a while: nobody else changes files */
};

struct fuse_wishes {
	int folder; /* open, the caller's */
	bool readonly;
	enum fuse_cache cache;
	bool owners; /* we may give files to others: what is made belongs to who makes it */
};

struct fuse_session;

/* NULL: no memory. */
struct fuse_session *fuse_session_create(const struct fuse_wishes *wishes);
void fuse_session_destroy(struct fuse_session *session);

/* Memory for one request at a time: each thread has its own. */
struct fuse_worker {
	alignas(16) u8 in[0x22000], out[0x20000];
};

/* Carry out the request in `in`, of `ins` pieces, and write the answer to `out`. How many bytes it has; 0: none is due. Pieces are FUSE_PIECES_MAX at
 * most. From any number of threads. */
u32 fuse_serve(struct fuse_session *session, struct fuse_worker *worker, const struct iovec *in, unsigned ins, const struct iovec *out, unsigned outs);

#endif
