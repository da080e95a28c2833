/* virtio block device (Virtual I/O Device Specification 1.2, "Block Device"), and the cable between it and a disk on the
 * host.
 *
 * Requests are carried out elsewhere, in any order, while guest and device go on. A flush covers the writes that had
 * completed when it was submitted. */
#ifndef NADIR_DEV_VIRTIO_BLOCK_H
#define NADIR_DEV_VIRTIO_BLOCK_H

#include "dev/virtio/device.h"
#include "lib/state.h"

#define BLOCK_SECTOR 512u
#define BLOCK_SERIAL_SIZE 20u
#define BLOCK_REQUESTS_MAX 256u    /* at once, of one disk */
#define BLOCK_SIZE_MAX (1u << 30)  /* bytes of one BLOCK_READ or BLOCK_WRITE */
#define BLOCK_ZERO_MAX (32u << 20) /* bytes of one BLOCK_DISCARD or BLOCK_ZERO */

enum block_kind { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_ZERO };
#define BLOCK_KINDS (BLOCK_ZERO + 1)

struct block_request {
	enum block_kind kind;
	bool durable; /* what it changes must be on stable storage when it is complete */
	bool unmap;   /* BLOCK_ZERO: storage may be given back */
	u64 offset, size;                /* bytes within the disk, of whole sectors */
	const struct virtq_piece *piece; /* for reads and writes: `size` bytes of guest memory; pieces may be empty */
	unsigned pieces;
	int error;                  /* set by the backend: 0 or negative */
	struct block_request *next; /* the backend's, until it is complete */
};

/* A disk on the host. The board's lock is held in all calls, and none may take it. */
struct block_backend {
	/* Begin. True: it is complete already, and is not given back by `completed`. */
	bool (*submit)(void *disk, struct block_request *request);
	/* The next one that is complete, or NULL. When there are some, the host calls vm_disk_completed. */
	struct block_request *(*completed)(void *disk);
	/* Give up what has not begun and wait for the rest: afterwards guest memory is not touched, and all are complete. */
	void (*drain)(void *disk);
	/* Bring what is complete to stable storage, whatever the guest asked for: then the disk's files are whole. 0 or negative. May be NULL. Without
	 * the lock, while no requests come. */
	int (*flush)(void *disk);
	void *disk;
	u64 size; /* bytes, a multiple of BLOCK_SECTOR */
	bool readonly;
	char serial[BLOCK_SERIAL_SIZE]; /* padded with zeros */
};

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

struct block_count {
	u64 requests, bytes;
};

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
