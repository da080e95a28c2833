/* virtio entropy device (random.h). */
#include "dev/virtio/random.h"

#define ID 4
#define CLASS 0x100000      /* encryption controller: network and computing */
#define BYTES_AT_ONCE 4096u /* a buffer gets no more: the device may give less than it was offered */

static void answer(struct virtio_random *r)
{
	const struct virtq_chain *chain = &r->chain;
	u32 written = 0;
	for (unsigned i = chain->readable; i < chain->pieces && written < BYTES_AT_ONCE; i++) {
		u32 n = MIN(chain->piece[i].size, BYTES_AT_ONCE - written);
		r->fill(chain->piece[i].data, n);
		written += n;
	}
	virtio_push(&r->virtio, 0, chain, written);
}

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_random *r = container_of(device, struct virtio_random, virtio);
	for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++) {
		if (!virtio_pop(device, queue, &r->chain))
			return;
		answer(r);
	}
	device->again |= BIT(queue);
}

int virtio_random_attach(struct virtio_random *random, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &random->virtio;
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-rng";
	v->state = &virtio_random_state;
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	v->queues = 1;
	v->notify = notify;
	return virtio_attach(v, host, ram, slot);
}

const struct state_table virtio_random_state = STATE_TABLE(struct virtio_random, NULL,
	STATE_IN(struct virtio_random, virtio, virtio_device_state), STATE_NONE(struct virtio_random, fill),
	STATE_NONE(struct virtio_random, chain));
