/* What the files of the virtio network device share. */
#ifndef NADIR_DEV_VIRTIO_NET_INTERNAL_H
#define NADIR_DEV_VIRTIO_NET_INTERNAL_H

#include "dev/virtio/net.h"

/* "Feature bits" */
#define F_CSUM BIT(0)
#define F_GUEST_CSUM BIT(1)
#define F_GUEST_OFFLOADS BIT(2)
#define F_MTU BIT(3)
#define F_MAC BIT(5)
#define F_GUEST_TSO4 BIT(7)
#define F_GUEST_TSO6 BIT(8)
#define F_GUEST_ECN BIT(9)
#define F_HOST_TSO4 BIT(11)
#define F_HOST_TSO6 BIT(12)
#define F_HOST_ECN BIT(13)
#define F_MRG_RXBUF BIT(15)
#define F_STATUS BIT(16)
#define F_CTRL_VQ BIT(17)
#define F_CTRL_RX BIT(18)
#define F_CTRL_VLAN BIT(19)
#define F_CTRL_RX_EXTRA BIT(20)
#define F_MQ BIT(22)
#define F_CTRL_MAC_ADDR BIT(23)

/* "Virtqueues": those of a pair, and behind all pairs the one for control. */
static inline unsigned net_rx(unsigned pair)
{
	return 2 * pair;
}

static inline unsigned net_tx(unsigned pair)
{
	return 2 * pair + 1;
}

/* A driver that does not know of several pairs looks for it behind the first. */
static inline unsigned net_control_queue(const struct virtio_net *n)
{
	return virtio_has(&n->virtio, F_MQ) ? n->virtio.queues - 1 : 2;
}

/* The NET_OFFLOADS that features stand for, those that others are missing for left out: of frames to the guest, or from it. */
u32 net_offloads_of(u64 features, bool guest);
void net_accept(struct virtio_net *n, u32 offloads);

/* There is more to do for a queue. */
void net_later(struct virtio_net *n, unsigned queue);
/* The driver notified the control queue. */
void net_control(struct virtio_net *n);
void net_control_reset(struct virtio_net *n);
/* Whether a frame from the network, of NET_FRAME_MIN bytes at least, is for this station. */
bool net_filter(const struct virtio_net *n, const u8 *frame, u32 size);

/* Which pair frames are for (net_flow.c). Forget all connections; n->chain, without its header, was sent by `pair`; a frame came. */
void net_flow_forget(struct virtio_net *n);
void net_flow_sent(struct virtio_net *n, unsigned pair);
unsigned net_flow_pair(const struct virtio_net *n, const u8 *frame, u32 size);

#endif
