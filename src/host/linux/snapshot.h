/* Taking snapshots of the running VM (snapshot.c; H1). docs/snapshot-format.md says what one is.
 *
 * The files are written by a process of its own, made before nadir confines itself: it knows the folder, nadir does not need the right to write files.
 * The guest stands still until its memory has been copied; making that durable goes on beside it. */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_H
#define NADIR_HOST_LINUX_SNAPSHOT_H

#include "host/linux/snapshot_wish.h"
#include "vm/vm.h"

#define SNAPSHOT_NAME_MAX 64

/* The options of disks and networks by their places (enum board_kind), with absolute paths; NULL: there is none, or its description is elsewhere. */
struct snapshot_devices {
	char *option[2][BOARD_DISKS_MAX];
	u32 cdroms; /* places of disks that the rest of the description has, a bit each */
};

struct snapshot_place {
	const char *folder; /* made if it is missing */
	const char *description; /* goes along with each: all but */
	struct snapshot_devices devices; /* those that are there when it is taken, of these and of what snapshot_device told */
	bool compress; /* unless the wish says otherwise */
	bool confine; /* the writer: it sees the folder alone, and: */
	const char *base; /* the snapshot that the machine goes on from, or NULL */
};

/* Start the writer for snapshots. Before threads are made, with the VM's memory in place. 0, or -1 after one sentence on stderr. */
int snapshot_start(const struct snapshot_place *place, const struct vm *vm);
/* The VM, which does not run yet, goes on from the snapshot in `folder`: others can be based on that. */
struct snapshot;
void snapshot_went_on(struct vm *vm, const char *folder, const struct snapshot *from);

/* To be called when the event loop was woken: takes a snapshot if SIGUSR2 asked for one. */
void snapshot_woken(struct vm *vm);

struct snapshot_result {
	char name[SNAPSHOT_NAME_MAX + 1];
	char error[200]; /* one sentence; empty: there is none */
};

/* Take a snapshot. A name is of letters, digits, '.', '_' and '-', not at the start. The VM is held until all has been copied. Any thread but a vCPU's. False, with an error, if it failed; there is no snapshot then. Else it has a name, and later `done` is called on the
 * event loop's thread, when it is complete on the disk or has failed after all. */
bool snapshot_take(struct vm *vm, const struct snapshot_wish *wish, void (*done)(const struct snapshot_result *result), struct snapshot_result *result);
/* A disk or network is about to be added in that place; `text` says what it is (device_text.h), -1: nobody does. Any thread. */
void snapshot_device(enum board_kind kind, unsigned index, int text);
/* For those who need not know: tells the log and the control socket's listeners. */
void snapshot_tell(const struct snapshot_result *result);

#endif
