/* virtio file system device (Virtual I/O Device Specification 1.2, "File System Device"), and the cable between it and whoever keeps the files.
 *
 * The device carries requests and knows nothing of what they say (FUSE's protocol): a request is memory that the back end reads and memory that it
 * writes. They are carried out elsewhere, in any order, while guest and device go on.
 *
 * What a driver knows of files is known by the back end too, and cannot be carried to another machine: such a device is not saved. */
#ifndef NADIR_DEV_VIRTIO_FS_H
#define NADIR_DEV_VIRTIO_FS_H

#include "dev/virtio/device.h"

#define FS_TAG_SIZE 36u
#define FS_REQUESTS_MAX 128u /* at once, of one device */

struct fs_request {
	unsigned index; /* below FS_REQUESTS_MAX, of this request alone as long as it is in work */
	const struct virtq_piece *piece; /* `readable` ones to read, then those to write */
	unsigned readable, pieces;
	u32 written; /* set by the back end: how many of the bytes to write it has written, from the first */
	struct fs_request *next; /* the back end's, until it is complete */
};

/* The other end. The board's lock is held in all calls, and none may take it. */
struct fs_backend {
	/* Begin. True: it is complete already, and is not given back by `completed`. */
	bool (*submit)(void *share, struct fs_request *request);
	/* The next one that is complete, or NULL. When there are some, the host calls vm_share_completed. */
	struct fs_request *(*completed)(void *share);
	/* Wait for all: afterwards guest memory is not touched. */
	void (*drain)(void *share);
	void *share;
	char tag[FS_TAG_SIZE]; /* what the guest mounts it by; padded with zeros */
};

/* "Device configuration layout" */
struct fs_config {
	char tag[FS_TAG_SIZE];
	u32 queues; /* for requests: without the one for those in a hurry */
};
static_assert(sizeof(struct fs_config) == 40, "struct virtio_fs_config");

struct virtio_fs_request;

struct virtio_fs {
	struct virtio_device virtio;
	struct fs_backend backend;
	struct fs_config config;
	struct virtio_fs_request *request; /* all there are */
	struct virtio_fs_request *idle;    /* those that were in use before */
	unsigned fresh;                    /* the first that was never used: their memory is not there yet */
	unsigned submitted;                /* requests in the hands of the back end */
	u32 stalled;                       /* queues that wait for an idle request, a bit each */
};

/* Reset and plug in as PCI device `slot`. 0 or negative. */
int virtio_fs_attach(struct virtio_fs *fs, const struct fs_backend *backend, struct pci_host *host, struct ram *ram, unsigned slot);
void virtio_fs_destroy(struct virtio_fs *fs);

/* Requests are complete. */
void virtio_fs_completed(struct virtio_fs *fs);

#endif
