/* virtio socket device (Virtual I/O Device Specification 1.2, "Socket Device"): connections between programs in the guest and on the host, and the cable to
 * whoever has the host's ends.
 *
 * The device carries packets between rings and the cable, and knows nothing of connections: these, and how much may be on its way, are between the
 * driver and the other end of the cable. Nothing is ever lost: what cannot be taken waits in the rings or in the cable. */
#ifndef NADIR_DEV_VIRTIO_VSOCK_H
#define NADIR_DEV_VIRTIO_VSOCK_H

#include "dev/virtio/device.h"

#define VSOCK_CID_HOST 2u
#define VSOCK_CID_FIRST 3u /* of guests */
#define VSOCK_CID_LAST 0xfffffffeu
#define VSOCK_PAYLOAD_MAX 0x10000u

/* "Device Operation": struct virtio_vsock_hdr, little-endian. */
struct vsock_header {
	u64 from_cid, to_cid;
	u32 from_port, to_port;
	u32 length; /* of what follows */
	u16 type, operation;
	u32 flags;
	u32 room, taken; /* buf_alloc, fwd_cnt: "Buffer Space Management" */
} __attribute__((packed));
static_assert(sizeof(struct vsock_header) == 44, "struct virtio_vsock_hdr");

/* The other end. The board's lock is held in all calls. */
struct vsock_backend {
	/* Send a packet, whose payload are the header's `length` bytes at these pieces. False: there is no room now; the host calls vm_vsock_ready. */
	bool (*send)(void *cable, const struct vsock_header *header, const struct virtq_piece *piece, unsigned pieces);
	/* The packet that waits, header and payload; it stays until `next`. NULL: there is none; the host calls vm_vsock_ready. */
	const u8 *(*peek)(void *cable, u32 *size);
	void (*next)(void *cable);
	/* The driver begins anew: no connection goes on. */
	void (*reset)(void *cable);
	void *cable;
	u32 cid; /* the guest's */
};

struct virtio_vsock {
	struct virtio_device virtio;
	struct vsock_backend backend;
	u64 cid; /* the configuration */
	u32 sent; /* bytes of the waiting packet's payload that the driver has already */
	bool rx_stalled, tx_stalled; /* waiting for buffers, for room */
	bool moved; /* the driver is still to be told that its connections are gone ("Device Events") */
	struct virtq_chain chain; /* the buffer in work */
};

extern const struct state_table virtio_vsock_state;

/* Reset and plug in as PCI device `slot`. 0 or negative. */
int virtio_vsock_attach(struct virtio_vsock *vsock, const struct vsock_backend *backend, struct pci_host *host, struct ram *ram, unsigned slot);

/* Packets wait, or there is room again. */
void virtio_vsock_ready(struct virtio_vsock *vsock);

#endif
