/* virtio network device (Virtual I/O Device Specification 1.2, "Network Device"), and the cable between it and a network of the host's.
 *
 * Pairs of queues, usually one, and a queue for control. A driver that uses several pairs spreads its own work over CPUs; all go through the board's lock. Only
 * a driver that sends many small frames notifies the device without it. */
#ifndef NADIR_DEV_VIRTIO_NET_H
#define NADIR_DEV_VIRTIO_NET_H

#include "dev/virtio/device.h"

#define NET_MAC_SIZE 6u
#define NET_FRAME_MIN 14u           /* an Ethernet header */
#define NET_FRAME_MAX (65535u + 18) /* the largest IP packet behind one with a VLAN tag */
#define NET_MTU 1500u
#define NET_PAIRS_MAX ((VIRTIO_QUEUES_MAX - 1u) / 2)
#define NET_FLOWS 256u
#define NET_NO_PAIR 0xff

/* "struct virtio_net_hdr": stands before each frame, and says what is left to do with it. Little-endian. */
struct net_header {
	u8 flags, gso_type;
	u16 header_length, gso_size, checksum_start, checksum_offset;
	u16 buffers;
};
static_assert(sizeof(struct net_header) == 12, "struct virtio_net_hdr");

/* flags: from checksum_start on, the sum of which is to be stored at checksum_offset from there (what is there now counts); was checked */
#define NET_NEEDS_CHECKSUM 1u
#define NET_DATA_VALID 2u
/* gso_type: segments of one TCP connection, gso_size bytes of data each but for the last */
enum { NET_GSO_NONE, NET_GSO_TCPV4 = 1, NET_GSO_TCPV6 = 4 };
#define NET_GSO_ECN 0x80u

/* What may be left to the receiver of a frame. */
#define NET_CHECKSUM BIT(0)
#define NET_TSO4 BIT(1) /* segmentation; with NET_CHECKSUM only */
#define NET_TSO6 BIT(2)
#define NET_ECN BIT(3) /* segmentation of those with the flag CWR; with one of the former only */
#define NET_OFFLOADS (NET_CHECKSUM | NET_TSO4 | NET_TSO6 | NET_ECN)

/* A network on the host. The board's lock is held in all calls, and none may take it. None waits. */
struct net_backend {
	/* Have the host call vm_net_ready soon. On any thread, without the lock, too. May be NULL: then everything is done by those who call. */
	void (*wake)(void *net);
	/* Send a frame that lies in `piece`. False: there is no room, and the host calls vm_net_ready when there is. */
	bool (*send)(void *net, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces);
	/* No more frames come for now: do not gather them any longer. */
	void (*flush)(void *net);
	/* The frame that came, behind its header, `size` bytes with that; the same one until `next` is called. NULL: there is none, and
	 * the host calls vm_net_ready when there is. */
	const u8 *(*peek)(void *net, u32 *size);
	void (*next)(void *net);
	/* NET_OFFLOADS that frames may come with from now on. Some that are on their way may still have more. */
	void (*accept)(void *net, u32 offloads);
	/* The host called vm_net_ready: do what was put off. Whether the cable is plugged in at the other end. */
	bool (*poll)(void *net);
	void *net;
	u32 offloads; /* that `send` and `accept` know */
	u8 mac[NET_MAC_SIZE];
	unsigned pairs; /* of queues that the card has; up to NET_PAIRS_MAX, 0 is 1 */
};

/* "Device configuration layout" */
struct net_config {
	u8 mac[NET_MAC_SIZE];
	u16 status, queue_pairs, mtu;
};

#define NET_MACS_MAX 64 /* of each list of the filter; more let all through */

struct net_macs {
	u8 mac[NET_MACS_MAX][NET_MAC_SIZE];
	unsigned count;
	bool all; /* there were more */
};

/* Frames to the network and from it, and their bytes without the header in front. */
struct net_count {
	u64 tx_frames, tx_bytes, rx_frames, rx_bytes;
};

struct virtio_net {
	struct virtio_device virtio;
	struct net_backend backend;
	struct net_config config;
	u32 accepted;  /* NET_OFFLOADS that the driver takes */
	u32 pairs;     /* of queues that the driver uses */
	u32 tx_stalled, rx_stalled; /* frames wait: for room, for buffers; a bit for each queue */
	u64 rang;    /* when the driver last notified the queue to the network; atomic */
	u32 small;   /* frames that it sent since the last large one, either way; atomic */
	u32 waiting; /* queues that it notified, and nobody has looked at: a bit each; atomic */
	/* "Device Operation: Control Virtqueue" */
	u8 mac[NET_MAC_SIZE];
	u8 mode[6]; /* by command of class NET_RX: promiscuous, ... */
	struct net_macs unicast, multicast;
	u64 vlans[64]; /* a bit each */
	u8 flow[NET_FLOWS]; /* the pair that connections of this hash were last sent by, or NET_NO_PAIR */
	struct virtq_chain chain; /* the buffer in work */
	struct net_count count; /* since the device was made: for statistics */
};

extern const struct state_table virtio_net_state;

/* Reset and plug in as PCI device `slot`. 0 or negative. */
int virtio_net_attach(struct virtio_net *net, const struct net_backend *backend, struct pci_host *host, struct ram *ram, unsigned slot);

/* Something changed at the back end: frames, room, or the link; or the device asked for this call. True: there is more to do, but the lock was
 * kept long enough. */
bool virtio_net_ready(struct virtio_net *net);
/* Likewise, after a time in which nobody looked. */
void virtio_net_resume(struct virtio_net *net);

#endif
