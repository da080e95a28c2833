/* The snapshots that this machine's next ones may be based on (snapshot_base.c): those that were taken of it since it started, and the one that it
 * went on from. For each it is known which pages were written since. */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_BASE_H
#define NADIR_HOST_LINUX_SNAPSHOT_BASE_H

#include "host/linux/snapshot_format.h"
#include "vm/vm.h"

#define SNAPSHOT_BASES_MAX 16 /* the oldest but the first is forgotten */

struct snapshot_base {
	char *name, *path; /* as users call it; from the folder of a snapshot beside those that are taken */
	u8 id[SNAPSHOT_ID_SIZE];
	unsigned depth; /* snapshots in its chain, itself included */
	u64 *written; /* ram_log_words: pages */
};

/* The VM stands still, as it was when the snapshot was taken: log from here on. Whoever calls these takes turns. False: no memory, and the snapshot is
 * no base. */
bool snapshot_base_add(struct vm *vm, const char *name, const char *path, const u8 id[SNAPSHOT_ID_SIZE], unsigned depth);
/* The last that was added is none after all. */
void snapshot_base_drop(void);
/* The VM stands still: bring what is known of all bases up to now. */
void snapshot_base_update(struct vm *vm);
/* The base of that name, or the last one (NULL). NULL: there is none. */
const struct snapshot_base *snapshot_base_find(const char *name);

#endif
