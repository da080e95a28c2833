/* A small driver for tests of virtio devices: buses, memory, and split rings in it, set up as a driver does that makes no mistakes, and filled
 * with whatever the test wants. */
#ifndef NADIR_TESTS_VIRTIO_DRIVER_H
#define NADIR_TESTS_VIRTIO_DRIVER_H

#include "dev/map.h"
#include "dev/virtio/device.h"
#include "host/port.h"

#include <string.h>

#define DRIVER_RAM 0x40000ull
#define DRIVER_SLOT 4
#define DRIVER_BAR 0xc0000000ull
#define DRIVER_TABLE 0xc0010000ull /* MSI-X */
#define DRIVER_CONFIG (DRIVER_BAR + 0x2000)
#define DRIVER_NOTIFY (DRIVER_BAR + 0x3000)
/* The three parts of a queue's ring. */
#define DRIVER_RING(q) (0x1000ull + (q) * 0x3000ull)
#define DRIVER_AVAILABLE(q) (DRIVER_RING(q) + 0x1000)
#define DRIVER_USED(q) (DRIVER_RING(q) + 0x2000)
#define DRIVER_STATUS_WORKS 15

enum { DESC_NEXT = 1, DESC_WRITE = 2 };

struct driver {
	struct bus io, memory;
	struct pci_host pci;
	struct ram ram;
	u8 *bytes;
	unsigned messages;
};

static inline void driver_set(struct driver *d, u64 offset, unsigned size, u64 value)
{
	bus_write(&d->memory, DRIVER_BAR + offset, size, value, 0);
}

static inline u64 driver_get(struct driver *d, u64 offset, unsigned size)
{
	return bus_read(&d->memory, DRIVER_BAR + offset, size, 0);
}

static void driver_count_message(void *opaque, const struct msi_message *message)
{
	((struct driver *)opaque)->messages++;
}

/* Memory and buses, for a device to be attached to at DRIVER_SLOT. False: no memory. */
static inline bool driver_create(struct driver *d)
{
	d->bytes = host_ram_create(DRIVER_RAM);
	d->pci.message = driver_count_message;
	d->pci.opaque = d;
	return d->bytes && !ram_add(&d->ram, 0, DRIVER_RAM, d->bytes, false) && !pci_attach(&d->pci, &d->io, &d->memory);
}

static inline void driver_destroy(struct driver *d)
{
	ram_release(&d->ram);
	host_ram_destroy(d->bytes, DRIVER_RAM);
}

/* The firmware's part, once the device is attached. */
static inline void driver_plug(struct driver *d)
{
	bus_write(&d->memory, MAP_ECAM + (DRIVER_SLOT << 15) + PCI_BAR0, 4, DRIVER_BAR, 0);
	bus_write(&d->memory, MAP_ECAM + (DRIVER_SLOT << 15) + PCI_BAR0 + 8, 4, DRIVER_TABLE, 0);
	bus_write(&d->memory, MAP_ECAM + (DRIVER_SLOT << 15) + PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
}

static inline u64 driver_offered(struct driver *d)
{
	driver_set(d, 0, 4, 0);
	u64 low = driver_get(d, 4, 4);
	driver_set(d, 0, 4, 1);
	return low | driver_get(d, 4, 4) << 32;
}

/* Reset, clear memory, and go as far as DRIVER_OK with queues [0, queues). */
static inline void driver_start(struct driver *d, u64 features, unsigned queues)
{
	features |= VIRTIO_F_VERSION_1;
	driver_set(d, 20, 1, 0);
	memset(d->bytes, 0, DRIVER_RAM);
	for (u32 i = 0; i < 2; i++) {
		driver_set(d, 8, 4, i);
		driver_set(d, 12, 4, (u32)(features >> (32 * i)));
	}
	driver_set(d, 20, 1, 11);
	for (unsigned q = 0; q < queues; q++) {
		driver_set(d, 22, 2, q);
		driver_set(d, 32, 4, DRIVER_RING(q));
		driver_set(d, 40, 4, DRIVER_AVAILABLE(q));
		driver_set(d, 48, 4, DRIVER_USED(q));
		driver_set(d, 28, 2, 1);
	}
	driver_set(d, 20, 1, DRIVER_STATUS_WORKS);
}

/* A descriptor whose next one is at the next index. */
static inline void driver_descriptor(struct driver *d, unsigned queue, unsigned index, u64 address, u32 length, u16 flags)
{
	const struct {
		u64 address;
		u32 length;
		u16 flags, next;
	} descriptor = { address, length, flags, (u16)(index + 1) };
	memcpy(d->bytes + DRIVER_RING(queue) + 16ull * index, &descriptor, sizeof(descriptor));
}

/* Make the chain that begins at `head` available, without a word. */
static inline void driver_put(struct driver *d, unsigned queue, u16 head)
{
	u16 index;
	u8 *available = d->bytes + DRIVER_AVAILABLE(queue);
	memcpy(&index, available + 2, 2);
	memcpy(available + 4 + 2ull * (index % VIRTQ_SIZE_MAX), &head, 2);
	index++;
	memcpy(available + 2, &index, 2);
}

static inline void driver_notify(struct driver *d, unsigned queue)
{
	driver_set(d, 0x3000 + 4ull * queue, 2, queue);
}

static inline void driver_offer(struct driver *d, unsigned queue, u16 head)
{
	driver_put(d, queue, head);
	driver_notify(d, queue);
}

/* How many buffers came back, and what the last one says. */
static inline u16 driver_used(const struct driver *d, unsigned queue)
{
	u16 index;
	memcpy(&index, d->bytes + DRIVER_USED(queue) + 2, 2);
	return index;
}

static inline u32 driver_written(const struct driver *d, unsigned queue, u16 which)
{
	u32 written;
	memcpy(&written, d->bytes + DRIVER_USED(queue) + 4 + 8ull * (which % VIRTQ_SIZE_MAX) + 4, 4);
	return written;
}

#endif
