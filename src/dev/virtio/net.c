/* virtio network device (net.h): frames from buffers to the back end and the other way round. The control queue is in net_control.c. */
#include "dev/virtio/net_internal.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define ID 1
#define CLASS 0x020000 /* Ethernet */

#define LINK_UP 1u
#define FRAMES_AT_ONCE 64u /* each way, before others get the lock */
#define HEADER_BUFFERS offsetof(struct net_header, buffers)

static struct virtio_net *net_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_net, virtio);
}

/* ---- features ---- */

/* Offloads and the features that stand for them, in the two directions. */
static const struct {
	u32 offload;
	u64 host, guest;
} offload_rows[] = {
	{ NET_CHECKSUM, F_CSUM, F_GUEST_CSUM },
	{ NET_TSO4, F_HOST_TSO4, F_GUEST_TSO4 },
	{ NET_TSO6, F_HOST_TSO6, F_GUEST_TSO6 },
	{ NET_ECN, F_HOST_ECN, F_GUEST_ECN },
};

u32 net_offloads_of(u64 features, bool guest)
{
	u32 offloads = 0;
	for (size_t i = 0; i < ARRAY_SIZE(offload_rows); i++)
		if (features & (guest ? offload_rows[i].guest : offload_rows[i].host))
			offloads |= offload_rows[i].offload;
	if (!(offloads & NET_CHECKSUM))
		return 0;
	return offloads & (NET_TSO4 | NET_TSO6) ? offloads : NET_CHECKSUM;
}

void net_accept(struct virtio_net *n, u32 offloads)
{
	n->accepted = offloads;
	n->backend.accept(n->backend.net, offloads);
}

/* What a header leaves to do; false if it is none. */
static bool wishes(const struct net_header *h, u32 *offloads)
{
	*offloads = h->flags & NET_NEEDS_CHECKSUM ? NET_CHECKSUM : 0;
	if (h->gso_type == NET_GSO_NONE)
		return true;
	*offloads |= h->gso_type & NET_GSO_ECN ? NET_ECN : 0;
	switch (h->gso_type & ~NET_GSO_ECN) {
	case NET_GSO_TCPV4:
		*offloads |= NET_TSO4;
		break;
	case NET_GSO_TCPV6:
		*offloads |= NET_TSO6;
		break;
	default:
		return false;
	}
	return h->gso_size && (*offloads & NET_CHECKSUM);
}

/* ---- to the network ---- */

/* A frame's header as the driver wrote it, made true for the back end. False: the frame is not one. */
static bool check_sent(const struct virtio_net *n, struct net_header *h, u64 size)
{
	u32 wanted;
	h->flags &= NET_NEEDS_CHECKSUM;
	h->buffers = 0;
	if (size < NET_FRAME_MIN || size > NET_FRAME_MAX || !wishes(h, &wanted) ||
	    (wanted & ~net_offloads_of(n->virtio.driver_features, false)))
		return false;
	if (h->gso_type == NET_GSO_NONE)
		h->gso_size = h->header_length = 0;
	h->header_length = (u16)MIN(h->header_length, size);
	if (!(h->flags & NET_NEEDS_CHECKSUM)) {
		h->checksum_start = h->checksum_offset = 0;
		return true;
	}
	return h->checksum_start >= NET_FRAME_MIN && (u64)h->checksum_start + h->checksum_offset + 2 <= size;
}

/* Send what is in n->chain; false: later. What is not a frame is taken and forgotten. */
static bool send(struct virtio_net *n)
{
	struct net_header header;
	if (!virtq_take(&n->chain, &header, sizeof(header)) || !check_sent(n, &header, virtq_readable(&n->chain)))
		return true;
	return n->backend.send(n->backend.net, &header, n->chain.piece, n->chain.readable);
}

/* False: there is none, or no room for it. */
static bool transmit_one(struct virtio_net *n)
{
	struct virtq *q = &n->virtio.queue[QUEUE_TX];
	struct virtq_place place = virtq_mark(q);
	if (!virtio_pop(&n->virtio, QUEUE_TX, &n->chain))
		return false;
	if (!send(n)) {
		virtq_rewind(q, place);
		n->tx_stalled = true;
		return false;
	}
	virtio_push(&n->virtio, QUEUE_TX, &n->chain, 0);
	return true;
}

static void transmit(struct virtio_net *n)
{
	unsigned i = 0;
	n->tx_stalled = false;
	while (i < FRAMES_AT_ONCE && transmit_one(n))
		i++;
	if (i == FRAMES_AT_ONCE)
		n->virtio.again |= BIT(QUEUE_TX);
	n->backend.flush(n->backend.net);
}

/* ---- from the network ---- */

/* A frame on its way into buffers. */
struct filling {
	const u8 *from;
	u32 left, done;
	struct virtq_used used[VIRTQ_SIZE_MAX];
	unsigned buffers;
	struct { /* where the header's count of buffers went */
		u8 *data;
		gpa_t gpa;
	} count[2];
};

/* Remember where the bytes of the count go, however the driver has cut its buffers. */
static void note_count(struct filling *f, const struct virtq_piece *p)
{
	for (unsigned i = 0; i < 2; i++) {
		u32 at = HEADER_BUFFERS + i;
		if (at < f->done || at - f->done >= p->size)
			continue;
		f->count[i].data = p->data + (at - f->done);
		f->count[i].gpa = p->gpa + (at - f->done);
	}
}

/* Fill one buffer. */
static void fill(struct virtio_net *n, struct filling *f)
{
	const struct virtq_chain *chain = &n->chain;
	u32 before = f->done;
	for (unsigned i = chain->readable; i < chain->pieces && f->left; i++) {
		const struct virtq_piece *p = &chain->piece[i];
		u32 size = MIN(p->size, f->left);
		if (f->done <= HEADER_BUFFERS + 1)
			note_count(f, p);
		memcpy(p->data, f->from + f->done, size);
		ram_written(n->virtio.ram, p->gpa, size);
		f->done += size;
		f->left -= size;
	}
	f->used[f->buffers++] = (struct virtq_used){ chain->id, chain->descriptors, f->done - before };
}

static void hand_over(struct virtio_net *n, struct filling *f)
{
	for (unsigned i = 0; i < 2; i++) {
		*f->count[i].data = (u8)(f->buffers >> (8 * i));
		ram_written(n->virtio.ram, f->count[i].gpa, 1);
	}
	virtio_push_all(&n->virtio, QUEUE_RX, f->used, f->buffers);
}

/* Whether the frame can be given to this driver. */
static bool wanted(const struct virtio_net *n, const u8 *frame, u32 size)
{
	struct net_header header;
	u32 offloads;
	if (size < sizeof(header) + NET_FRAME_MIN || size > sizeof(header) + NET_FRAME_MAX)
		return false;
	memcpy(&header, frame, sizeof(header));
	size -= sizeof(header);
	if ((header.flags & NET_NEEDS_CHECKSUM) && (u32)header.checksum_start + header.checksum_offset + 2 > size)
		return false;
	return wishes(&header, &offloads) && !(offloads & ~n->accepted) && net_filter(n, frame + sizeof(header), size);
}

/* Put the frame into buffers; false: there are not enough yet. One that fits into none is lost. */
static bool deliver(struct virtio_net *n, const u8 *frame, u32 size)
{
	struct virtq *q = &n->virtio.queue[QUEUE_RX];
	struct virtq_place start = virtq_mark(q);
	struct filling f;
	f.from = frame;
	f.left = size;
	f.done = f.buffers = 0;
	unsigned most = virtio_has(&n->virtio, F_MRG_RXBUF) ? VIRTQ_SIZE_MAX : 1;
	while (f.left) {
		if (f.buffers == most || !virtio_pop(&n->virtio, QUEUE_RX, &n->chain)) {
			virtq_rewind(q, start);
			return f.buffers == most;
		}
		fill(n, &f);
	}
	hand_over(n, &f);
	return true;
}

/* True: there may be more. */
static bool receive(struct virtio_net *n)
{
	const u8 *frame;
	u32 size;
	n->rx_stalled = false;
	for (unsigned i = 0; i < FRAMES_AT_ONCE; i++) {
		if (!(frame = n->backend.peek(n->backend.net, &size)))
			return false;
		if (virtio_works(&n->virtio) && wanted(n, frame, size) && !deliver(n, frame, size)) {
			n->rx_stalled = virtio_works(&n->virtio);
			return false;
		}
		n->backend.next(n->backend.net);
	}
	return true;
}

static void receive_later(struct virtio_net *n)
{
	n->rx_stalled = true;
	n->virtio.again |= BIT(QUEUE_RX);
}

/* ---- what happens ---- */

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_net *n = net_of(device);
	if (queue == QUEUE_CONTROL)
		net_control(n);
	else if (queue == QUEUE_TX && !n->tx_stalled)
		transmit(n);
	else if (queue == QUEUE_RX && n->rx_stalled && receive(n))
		receive_later(n);
}

static void set_link(struct virtio_net *n, bool up)
{
	u16 status = up ? LINK_UP : 0;
	if (status == n->config.status)
		return;
	n->config.status = status;
	virtio_config_changed(&n->virtio);
}

bool virtio_net_ready(struct virtio_net *net)
{
	set_link(net, net->backend.poll(net->backend.net));
	if (net->tx_stalled)
		transmit(net);
	return !net->rx_stalled && receive(net);
}

void virtio_net_resume(struct virtio_net *net)
{
	if (virtio_net_ready(net))
		receive_later(net);
}

static void start(struct virtio_device *device)
{
	struct virtio_net *n = net_of(device);
	net_accept(n, net_offloads_of(device->driver_features, true));
}

static void stop(struct virtio_device *device)
{
	struct virtio_net *n = net_of(device);
	n->tx_stalled = n->rx_stalled = false;
	net_control_reset(n);
	net_accept(n, 0);
}

/* ---- assembly ---- */

int virtio_net_attach(struct virtio_net *net, const struct net_backend *backend, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &net->virtio;
	net->backend = *backend;
	net->config = (struct net_config){ .status = LINK_UP, .queue_pairs = 1, .mtu = NET_MTU };
	memcpy(net->config.mac, backend->mac, sizeof(net->config.mac));
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-net";
	v->queues = QUEUES;
	v->config = &net->config;
	v->config_size = sizeof(net->config);
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | F_MAC | F_STATUS | F_MTU | F_MRG_RXBUF | F_CTRL_VQ | F_CTRL_RX |
		      F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR | F_GUEST_OFFLOADS;
	for (size_t i = 0; i < ARRAY_SIZE(offload_rows); i++)
		if (backend->offloads & offload_rows[i].offload)
			v->features |= offload_rows[i].host | offload_rows[i].guest;
	v->state = &virtio_net_state;
	v->notify = notify;
	v->start = start;
	v->stop = stop;
	return virtio_attach(v, host, ram, slot);
}

/* ---- state ---- */

/* What was about to be sent is tried again; the link is as it is found here. */
static bool loaded(void *object)
{
	struct virtio_net *n = object;
	n->virtio.again |= BIT(QUEUE_TX);
	n->backend.accept(n->backend.net, n->accepted);
	return true;
}

static const struct state_table net_config_state = STATE_TABLE(struct net_config, NULL,
	STATE(struct net_config, mac), STATE(struct net_config, status), STATE_SAME(struct net_config, queue_pairs),
	STATE_SAME(struct net_config, mtu));

static const struct state_table net_macs_state = STATE_TABLE(struct net_macs, NULL,
	STATE(struct net_macs, mac), STATE_MAX(struct net_macs, count, NET_MACS_MAX), STATE(struct net_macs, all));

const struct state_table virtio_net_state = STATE_TABLE(struct virtio_net, loaded,
	STATE_IN(struct virtio_net, virtio, virtio_device_state), STATE_NONE(struct virtio_net, backend),
	STATE_IN(struct virtio_net, config, net_config_state), STATE_MAX(struct virtio_net, accepted, NET_OFFLOADS),
	STATE_NONE(struct virtio_net, tx_stalled), STATE(struct virtio_net, rx_stalled), STATE(struct virtio_net, mac),
	STATE(struct virtio_net, mode), STATE_IN(struct virtio_net, unicast, net_macs_state),
	STATE_IN(struct virtio_net, multicast, net_macs_state), STATE(struct virtio_net, vlans), STATE_NONE(struct virtio_net, chain));
