/* virtio balloon device (Virtual I/O Device Specification 1.2, "Traditional Memory Balloon Device"): memory of the guest's that goes back to the host
 * (E8). The host asks for so many pages; the driver takes them from the guest and names them. With free page reporting it also names
 * pages that are free anyway, unasked, and takes them back by touching them. */
#ifndef NADIR_DEV_VIRTIO_BALLOON_H
#define NADIR_DEV_VIRTIO_BALLOON_H

#include "dev/virtio/device.h"

/* "Device configuration layout" */
struct balloon_config {
	u32 pages; /* that the host wants, of 4 KiB whatever the guest's are */
	u32 actual; /* that the driver has given: it writes this */
};

struct virtio_balloon {
	struct virtio_device virtio;
	/* Wired by the board before virtio_balloon_attach. */
	void (*discard)(void *hva, u64 size); /* whole pages; they read as zero afterwards */
	bool reporting; /* offer free page reporting */

	struct balloon_config config;
	u64 reported; /* bytes so far: what statistics tell of free page reporting */
	struct virtq_chain chain; /* the buffer in work */
};

int virtio_balloon_attach(struct virtio_balloon *balloon, struct pci_host *host, struct ram *ram, unsigned slot);

/* Ask the driver for so many bytes, cut down to pages and to what there is. */
void virtio_balloon_resize(struct virtio_balloon *balloon, u64 size);

extern const struct state_table virtio_balloon_state;

#endif
