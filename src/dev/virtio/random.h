/* virtio entropy device: random bytes of the host's (Virtual I/O Device Specification 1.2, "Entropy Device"). */
#ifndef NADIR_DEV_VIRTIO_RANDOM_H
#define NADIR_DEV_VIRTIO_RANDOM_H

#include "dev/virtio/device.h"
#include "lib/state.h"

struct virtio_random {
	struct virtio_device virtio;
	/* Wired by the board before virtio_random_attach. */
	void (*fill)(void *buffer, size_t size);
	struct virtq_chain chain; /* the buffer in work */
};

int virtio_random_attach(struct virtio_random *random, struct pci_host *host, struct ram *ram, unsigned slot);

extern const struct state_table virtio_random_state;

#endif
