/* The process that writes snapshots (snapshot_write.c), and what it is told. */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_WRITE_H
#define NADIR_HOST_LINUX_SNAPSHOT_WRITE_H

#include "host/linux/snapshot.h"
#include "host/linux/snapshot_format.h"

/* On the socket, to the writer: this, then the bitmap of pages written since the base, then the state. Or this alone, with the file of snapshot_device if there is
 * one: that is all it knows of the devices that come, for it believes no word of who sends it. */
struct snapshot_order {
	bool is_device;
	u32 kind, index; /* of the device */
	u32 there[2]; /* which devices the machine has, by kind; a bit each */
	char name[SNAPSHOT_NAME_MAX + 1]; /* checked by the writer, too; empty: it chooses one */
	bool zstd;
	u8 base_id[SNAPSHOT_ID_SIZE];
	char base[SNAPSHOT_PATH_MAX]; /* the base's folder, from the snapshot's; empty: all of memory is written */
	u64 state_size, map_size; /* bytes; without a base there is no bitmap */
};

/* Back comes this, twice, or once with an error: that everything has been copied; that the snapshot is complete. */
struct snapshot_answer {
	struct snapshot_result result;
	u8 id[SNAPSHOT_ID_SIZE];
};

struct snapshot_writer {
	int socket, folder; /* the other end, and where snapshots go */
	int memory; /* the file of the guest's memory */
	u64 memory_size;
	const char *description;
	struct snapshot_devices devices;
};

bool snapshot_name_ok(const char *name);
/* Obey orders until the socket is closed. */
_Noreturn void snapshot_write_all(struct snapshot_writer *writer);

#endif
