/* virtio block device (Virtual I/O Device Specification 1.2, "Block Device"), at the cable of dev/block.h. */
#ifndef NADIR_DEV_VIRTIO_BLOCK_H
#define NADIR_DEV_VIRTIO_BLOCK_H

#include "dev/block.h"
#include "dev/virtio/device.h"
#include "lib/state.h"

/* "Device configuration layout" */
struct block_config {
	u64 capacity; /* in sectors */
	u32 size_max, seg_max;
	u16 cylinders;
	u8 heads, sectors;
	u32 block_size;
	u8 topology[8];
	u8 writeback, unused;
	u16 queues;
	u32 max_discard_sectors, max_discard_segments, discard_alignment;
	u32 max_zero_sectors, max_zero_segments;
	u8 zero_may_unmap, unused1[3];
};

struct virtio_block_request;

struct virtio_block {
	struct virtio_device virtio;
	struct block_backend backend;
	struct block_config config;
	struct virtio_block_request *request; /* all there are */
	struct virtio_block_request *idle;    /* those that were in use before */
	unsigned fresh;                       /* the first that was never used: their memory is not there yet */
	unsigned submitted;                   /* requests in the hands of the backend */
	struct block_count count[BLOCK_KINDS]; /* since the device was made: for statistics */
	u32 stalled;                          /* queues that wait for an idle request, a bit each */
};

/* Reset and plug in as PCI device `slot`, with as many queues as there are CPUs, if possible. 0 or negative. */
int virtio_block_attach(struct virtio_block *block, const struct block_backend *backend, unsigned cpus,
			struct pci_host *host, struct ram *ram, unsigned slot);
void virtio_block_destroy(struct virtio_block *block);

/* Requests are complete. */
void virtio_block_completed(struct virtio_block *block);

extern const struct state_table virtio_block_state;

#endif
