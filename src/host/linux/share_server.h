/* Between nadir and the process of a shared folder (share.h). */
#ifndef NADIR_HOST_LINUX_SHARE_SERVER_H
#define NADIR_HOST_LINUX_SHARE_SERVER_H

#include "dev/virtio/fs.h"
#include "host/linux/fuse.h"

/* A request: where in guest RAM it is. Written by nadir before its index goes into the pipe, `written` by the server before it comes back. */
struct share_slot {
	u32 readable, pieces;
	u32 written;
	struct {
		u64 offset, size; /* within guest RAM */
	} piece[VIRTQ_PIECES_MAX];
};

#define SHARE_READY (~0u) /* through the pipe of answers, once, in place of an index */

struct share_server {
	struct fuse_wishes wishes;
	int requests, answers; /* the ends that are the server's */
	int memory; /* guest RAM */
	u64 memory_size;
	struct share_slot *slot; /* FS_REQUESTS_MAX */
	bool confine;
};

/* Be the server until nobody writes requests any more. */
_Noreturn void share_serve(const struct share_server *server);

/* Give up all that serving files does not need, for all threads alike, after they were made: share_sandbox_files before. 0 or negative. */
int share_sandbox_enter(void);
/* No files but those below the folder, by Landlock where the kernel has it; for this thread and those that it makes. 0 or negative. */
int share_sandbox_files(int folder, bool readonly);
/* The parts of that for others: Landlock, which lets files below another folder be read, too (-1: none), where no new privileges can be had; and of root's
 * capabilities these alone. */
int share_sandbox_restrict(int folder, bool readonly, int read);
int share_sandbox_keep(u32 capabilities);

#endif
