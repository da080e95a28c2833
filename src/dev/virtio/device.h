/* A virtio device behind PCI: what is common to all (transport, features, status, queues) and what each brings along
 * (Virtual I/O Device Specification 1.2, "Basic Facilities of a Virtio Device" and "Virtio Over PCI Bus"). The legacy
 * interface is not offered.
 *
 * A device model embeds a struct virtio_device, fills the part that is its own, and calls virtio_attach. From then on it
 * is told when the driver notified a queue. The board's lock is held in all calls but `doorbell`. */
#ifndef NADIR_DEV_VIRTIO_DEVICE_H
#define NADIR_DEV_VIRTIO_DEVICE_H

#include "dev/msix.h"
#include "dev/virtio/queue.h"
#include "lib/state.h"

#define VIRTIO_QUEUES_MAX 8

#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX BIT(29)
#define VIRTIO_F_VERSION_1 BIT(32)
#define VIRTIO_F_RING_PACKED BIT(34)
#define VIRTIO_NO_VECTOR 0xffff

struct virtio_device {
	/* Set by the device model before virtio_attach. */
	u16 id; /* "Device Types" */
	u32 class_code;
	const char *name;
	const struct state_table *state; /* of the struct that begins with this one */
	u64 features; /* offered, beside VERSION_1 */
	unsigned queues;
	unsigned number; /* of the PCI function in its slot */
	const void *config; /* the device-specific part, as the driver reads it */
	unsigned config_size;
	/* The driver wrote to it. NULL: such writes have no effect. */
	void (*configure)(struct virtio_device *device, u64 offset, unsigned size, u64 value);
	/* The driver notified a queue that works, or `again` asked for this call. */
	void (*notify)(struct virtio_device *device, unsigned queue);
	/* The driver notified a queue, which need not work: told on its vCPU's thread, without the lock. True: the device model sees to it by itself.
	 * False: `notify` is called, with the lock. May be NULL. */
	bool (*doorbell)(struct virtio_device *device, unsigned queue, u64 now);
	/* The driver is ready (DRIVER_OK): features and queues are settled. May be NULL. */
	void (*start)(struct virtio_device *device);
	/* Forget all buffers: when this returns, nothing that they belong to is read or written any more. May be NULL. */
	void (*stop)(struct virtio_device *device);
	/* Whether buffers are in the hands of a back end that will give them back by itself. May be NULL: never. */
	bool (*busy)(const struct virtio_device *device);

	struct pci_function function;
	struct msix msix;
	struct ram *ram;
	struct virtq queue[VIRTIO_QUEUES_MAX];
	u16 vector[VIRTIO_QUEUES_MAX];
	u64 driver_features;
	u32 again; /* queues that the device model wants to be notified of soon: a bit each (virtio_advance) */
	u32 feature_select, driver_feature_select;
	u16 config_vector, queue_select;
	u8 status, isr, generation; /* the last: how often the device-specific part changed */
	unsigned window; /* of VIRTIO_PCI_CAP_PCI_CFG, in configuration space */
};

/* Reset and plug in as PCI device `slot`. 0 or negative. */
int virtio_attach(struct virtio_device *device, struct pci_host *host, struct ram *ram, unsigned slot);
void virtio_reset(struct virtio_device *device);

static inline bool virtio_has(const struct virtio_device *device, u64 feature)
{
	return device->driver_features & feature;
}

/* The next buffer of a queue. A queue that turns out broken makes the device need a reset. */
bool virtio_pop(struct virtio_device *device, unsigned queue, struct virtq_chain *chain);
/* Give it back, and interrupt the driver if it wants that. */
void virtio_push(struct virtio_device *device, unsigned queue, const struct virtq_chain *chain, u32 written);
/* Several at once (virtq_push_all). */
void virtio_push_all(struct virtio_device *device, unsigned queue, const struct virtq_used *used, unsigned count);

/* A vCPU writes to `gpa`, which is no RAM. True: it was a doorbell, and the device took it. Any thread, without the lock. */
bool virtio_doorbell(struct virtio_device *device, gpa_t gpa, u64 now);

/* Whether the driver is ready and the device needs no reset. */
bool virtio_works(const struct virtio_device *device);
/* The device-specific part has changed. */
void virtio_config_changed(struct virtio_device *device);

/* Whether virtio_advance has something to do: what a device left for later, so that no driver keeps the lock for ever. */
static inline bool virtio_due(const struct virtio_device *device)
{
	return device->again;
}
void virtio_advance(struct virtio_device *device);

extern const struct state_table virtio_device_state; /* part of each device's own */

#endif
