/* The cable between a device that is a disk to the guest (virtio/block.h, ahci.h) and a disk on the host.
 *
 * Requests are carried out elsewhere, in any order, while guest and device go on. A flush covers the writes that had
 * completed when it was submitted. */
#ifndef NADIR_DEV_BLOCK_H
#define NADIR_DEV_BLOCK_H

#include "dev/virtio/queue.h"

#define BLOCK_SECTOR 512u
#define BLOCK_SERIAL_SIZE 20u
#define BLOCK_REQUESTS_MAX 256u    /* at once, of one disk */
#define BLOCK_SIZE_MAX (1u << 30)  /* bytes of one BLOCK_READ or BLOCK_WRITE */
#define BLOCK_ZERO_MAX (32u << 20) /* bytes of one BLOCK_DISCARD or BLOCK_ZERO */

/* What the guest sees a disk as. */
enum block_bus { BLOCK_VIRTIO, BLOCK_SATA, BLOCK_CDROM /* an ATAPI drive at SATA */ };

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
	enum block_bus bus;
	bool readonly;
	char serial[BLOCK_SERIAL_SIZE]; /* padded with zeros */
};

/* What a device asked of its disk, by kind: for statistics. */
struct block_count {
	u64 requests, bytes;
};

#endif
