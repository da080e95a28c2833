/* Shared folders (--share): a folder of the host's that the guest mounts by virtio-fs.
 *
 * The files are opened, read and written by a process for each folder (share_server.c), which is confined to it, has the guest's memory mapped, and
 * reads and writes it itself; this process passes on where. Requests lie in memory that both share, a slot for each; which slots are new and which are
 * done is told through two pipes. */
#ifndef NADIR_HOST_LINUX_SHARE_H
#define NADIR_HOST_LINUX_SHARE_H

#include "dev/virtio/fs.h"

#define SHARES_MAX 2

/* Open shared folder `index`, each after the one before, as the option says: path=FOLDER[,tag=NAME][,readonly=on|off][,cache=auto|none|always]. 0, or -1
 * after one sentence on stderr. The cable goes to `backend`, and lives until shares_close. */
int share_open(unsigned index, const char *option, struct fs_backend *backend);
/* Start their processes, for guest RAM as host_ram_create gave it, and wait until they are ready. Before any thread is there. 0, or -1 after one sentence
 * on stderr. */
int shares_start(void *memory, u64 size, bool confine);
/* Start the threads that call `completed` when it is due (fs_backend), without locks. 0 or an error number. */
int shares_run(void (*completed)(void *opaque, unsigned index), void *opaque);
/* End both. */
void shares_stop(void);
void shares_close(void);

#endif
