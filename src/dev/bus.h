/* The two address spaces devices answer in: I/O ports and memory-mapped I/O. A region belongs to one device; its ops
 * get the offset within the region and the time of the access. Regions are few, so look-up is a binary search over a
 * sorted array.
 *
 * A device is a pure state machine: (state, access, now) gives (state, value, wire level). It holds no clock, thread,
 * file or lock; the board serializes access. Reads of nothing give all ones, writes to nothing vanish, as on a PC's
 * bus. */
#ifndef NADIR_DEV_BUS_H
#define NADIR_DEV_BUS_H

#include "arch/types.h"

struct region_ops {
	/* size is 1, 2, 4 or 8, and offset + size is within the region. `now` is host_now(). The value is in the low
	 * bytes. */
	u64 (*read)(void *device, u64 offset, unsigned size, u64 now);
	void (*write)(void *device, u64 offset, unsigned size, u64 value, u64 now);
	/* The widest access the device takes: a wider one reaches it in pieces of this size, low address first. 0: any.
	 */
	unsigned width;
};

struct region {
	u64 base, size;
	void *device;
	const struct region_ops *ops;
	const char *name;
};

#define BUS_REGIONS_MAX 128

struct bus {
	struct region region[BUS_REGIONS_MAX];
	unsigned count;
};

/* Add a region; 0, or a negative value on overlap or a full table. Before the vCPUs run, or under the board's lock. */
int bus_add(struct bus *bus, const char *name, u64 base, u64 size, const struct region_ops *ops, void *device);
void bus_remove(struct bus *bus, void *device);

/* One access of 1, 2, 4 or 8 bytes at any alignment. An access that runs past a region's end, or over several regions,
 * is split into bytes. */
u64 bus_read(struct bus *bus, u64 address, unsigned size, u64 now);
void bus_write(struct bus *bus, u64 address, unsigned size, u64 value, u64 now);

#endif
