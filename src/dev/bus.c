/* Look-up and splitting of accesses on the two device buses (bus.h). The array is sorted by base and its regions never
 * overlap. */
#include "dev/bus.h"

#include "lib/string.h"

/* The index of the first region that begins above `address`. */
static unsigned upper_bound(const struct bus *bus, u64 address)
{
	unsigned low = 0, high = bus->count;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (bus->region[middle].base <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The region that holds all `size` bytes from `address`, or NULL. */
static const struct region *find(const struct bus *bus, u64 address, unsigned size)
{
	unsigned after = upper_bound(bus, address);
	if (!after)
		return NULL;
	const struct region *r = &bus->region[after - 1];
	u64 offset = address - r->base;
	return offset < r->size && size <= r->size - offset ? r : NULL;
}

int bus_add(struct bus *bus, const char *name, u64 base, u64 size, const struct region_ops *ops, void *device)
{
	if (!size || base + (size - 1) < base || bus->count == BUS_REGIONS_MAX)
		return -1;
	unsigned at = upper_bound(bus, base);
	if (at && base - bus->region[at - 1].base < bus->region[at - 1].size)
		return -1;
	if (at < bus->count && bus->region[at].base - base < size)
		return -1;
	memmove(&bus->region[at + 1], &bus->region[at], (bus->count - at) * sizeof(bus->region[0]));
	bus->region[at] = (struct region){ .base = base, .size = size, .device = device, .ops = ops, .name = name };
	bus->count++;
	return 0;
}

void bus_remove(struct bus *bus, void *device)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < bus->count; i++)
		if (bus->region[i].device != device)
			bus->region[kept++] = bus->region[i];
	bus->count = kept;
}

/* `r`: where it is; NULL: nowhere. A device may add and remove regions while it answers (PCI BARs), so it is read before the call. */
static u64 read_one(const struct region *r, u64 address, unsigned size, u64 now)
{
	return r ? r->ops->read(r->device, address - r->base, size, now) & size_mask(size) : size_mask(size);
}

static void write_one(const struct region *r, u64 address, unsigned size, u64 value, u64 now)
{
	if (r)
		r->ops->write(r->device, address - r->base, size, value & size_mask(size), now);
}

/* The size of the pieces in which an access is done: whole, as wide as its device goes, or bytes when it leaves the
 * region. */
static unsigned piece(const struct region *r, unsigned size)
{
	if (!r)
		return 1;
	return r->ops->width ? MIN(size, r->ops->width) : size;
}

u64 bus_read(struct bus *bus, u64 address, unsigned size, u64 now)
{
	const struct region *r = find(bus, address, size);
	unsigned step = piece(r, size);
	u64 value = 0;
	if (likely(step == size))
		return read_one(r, address, size, now);
	for (unsigned i = 0; i < size; i += step)
		value |= read_one(find(bus, address + i, step), address + i, step, now) << (8 * i);
	return value;
}

void bus_write(struct bus *bus, u64 address, unsigned size, u64 value, u64 now)
{
	const struct region *r = find(bus, address, size);
	unsigned step = piece(r, size);
	if (likely(step == size)) {
		write_one(r, address, size, value, now);
		return;
	}
	for (unsigned i = 0; i < size; i += step)
		write_one(find(bus, address + i, step), address + i, step, value >> (8 * i), now);
}
