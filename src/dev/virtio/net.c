/* virtio network device (net.h): frames from buffers to the back end and the other way round. The control queue is in net_control.c. */
#include "dev/virtio/net_internal.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define ID 1
#define CLASS 0x020000 /* Ethernet */

#define LINK_UP 1u
#define FRAMES_AT_ONCE 64u       /* each way, before others get the lock, */
#define BYTES_AT_ONCE 0x40000u   /* or so many bytes */
#define LARGE 4096u              /* bytes of a frame that takes longer to move than a thread to wake */
#define SMALL_FRAMES 64u         /* after so many others, */
#define OFTEN 50000u             /* notifications that follow each other within so many ns are left to the network's thread */
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
	if (!n->backend.send(n->backend.net, &header, n->chain.piece, n->chain.readable))
		return false;
	n->count.tx_frames++;
	n->count.tx_bytes += virtq_readable(&n->chain);
	return true;
}

/* Count `sent` frames, unless they are large. */
static void note_size(struct virtio_net *n, u64 size, u32 sent)
{
	u32 small = size > LARGE ? 0 : MIN(n->small + sent, SMALL_FRAMES);
	__atomic_store_n(&n->small, small, __ATOMIC_RELAXED);
}

/* False: there is none, or no room for it. */
static bool transmit_one(struct virtio_net *n, unsigned pair, u64 *bytes)
{
	struct virtq *q = &n->virtio.queue[net_tx(pair)];
	struct virtq_place place = virtq_mark(q);
	if (!virtio_pop(&n->virtio, net_tx(pair), &n->chain))
		return false;
	u64 size = virtq_readable(&n->chain);
	if (send(n)) {
		*bytes += size;
		note_size(n, size, 1);
		if (n->pairs > 1)
			net_flow_sent(n, pair);
		return true;
	}
	virtq_rewind(q, place);
	n->tx_stalled |= BIT(net_tx(pair));
	return false;
}

/* The driver hears of all of them at once. True: there may be more. */
static bool transmit(struct virtio_net *n, unsigned pair)
{
	struct virtq_used used[FRAMES_AT_ONCE];
	unsigned count = 0;
	u64 bytes = 0;
	n->tx_stalled &= ~BIT(net_tx(pair));
	while (count < FRAMES_AT_ONCE && bytes < BYTES_AT_ONCE && transmit_one(n, pair, &bytes))
		used[count++] = (struct virtq_used){ n->chain.id, n->chain.descriptors, 0 };
	n->backend.flush(n->backend.net);
	if (count)
		virtio_push_all(&n->virtio, net_tx(pair), used, count);
	return count == FRAMES_AT_ONCE || bytes >= BYTES_AT_ONCE;
}

/* ---- from the network ---- */

/* A frame on its way into buffers. */
struct filling {
	const u8 *from;
	u32 left, done;
	struct virtq_used used[VIRTQ_SIZE_MAX];
	unsigned queue, buffers;
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
	for (unsigned i = 0; i < 2 && f->count[i].data; i++) { /* both are there: the frame begins with the header */
		*f->count[i].data = (u8)(f->buffers >> (8 * i));
		ram_written(n->virtio.ram, f->count[i].gpa, 1);
	}
	virtio_push_all(&n->virtio, f->queue, f->used, f->buffers);
	n->count.rx_frames++;
	n->count.rx_bytes += f->done - sizeof(struct net_header);
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
static bool deliver(struct virtio_net *n, unsigned queue, const u8 *frame, u32 size)
{
	struct virtq *q = &n->virtio.queue[queue];
	struct virtq_place start = virtq_mark(q);
	struct filling f;
	f.queue = queue;
	f.from = frame;
	f.left = size;
	f.done = f.buffers = 0;
	f.count[0].data = f.count[1].data = NULL;
	unsigned most = virtio_has(&n->virtio, F_MRG_RXBUF) ? VIRTQ_SIZE_MAX : 1;
	while (f.left) {
		if (f.buffers == most || !virtio_pop(&n->virtio, queue, &n->chain)) {
			virtq_rewind(q, start);
			return f.buffers == most;
		}
		fill(n, &f);
	}
	hand_over(n, &f);
	return true;
}

static unsigned queue_for(const struct virtio_net *n, const u8 *frame, u32 size)
{
	return n->pairs > 1 ? net_rx(net_flow_pair(n, frame + sizeof(struct net_header), size - (u32)sizeof(struct net_header))) : net_rx(0);
}

/* A frame for whose queue there are no buffers is waited for, and those behind it wait, too. True: there may be more. */
static bool receive(struct virtio_net *n)
{
	const u8 *frame;
	u32 size;
	u64 bytes = 0;
	n->rx_stalled = 0;
	for (unsigned i = 0; i < FRAMES_AT_ONCE && bytes < BYTES_AT_ONCE; i++) {
		if (!(frame = n->backend.peek(n->backend.net, &size)))
			return false;
		bool takes = virtio_works(&n->virtio) && wanted(n, frame, size);
		unsigned queue = takes ? queue_for(n, frame, size) : 0;
		if (takes && !deliver(n, queue, frame, size)) {
			n->rx_stalled = virtio_works(&n->virtio) ? (u32)BIT(queue) : 0;
			return false;
		}
		n->backend.next(n->backend.net);
		note_size(n, size, 0);
		bytes += size;
	}
	return true;
}

/* ---- what happens ---- */

void net_later(struct virtio_net *n, unsigned queue)
{
	if (!n->backend.wake) {
		n->rx_stalled |= queue & 1 ? 0 : (u32)BIT(queue);
		n->virtio.again |= BIT(queue);
		return;
	}
	__atomic_fetch_or(&n->waiting, BIT(queue), __ATOMIC_SEQ_CST);
	n->backend.wake(n->backend.net);
}

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_net *n = net_of(device);
	if (queue == net_control_queue(n))
		net_control(n);
	else if ((queue & 1) && !(n->tx_stalled & BIT(queue)) && transmit(n, queue / 2))
		net_later(n, queue);
	else if (!(queue & 1) && (n->rx_stalled & BIT(queue)) && receive(n))
		net_later(n, queue);
}

/* A frame now and then is sent at once by the vCPU, since waking a thread takes longer, and so is a large one. When there are many small ones, the
 * network's thread takes them in large numbers, and while it does the driver need not notify. */
static bool doorbell(struct virtio_device *device, unsigned queue, u64 now)
{
	struct virtio_net *n = net_of(device);
	if (!n->backend.wake || !(queue & 1))
		return false;
	u64 before = __atomic_exchange_n(&n->rang, now, __ATOMIC_RELAXED);
	if (now - before > OFTEN || __atomic_load_n(&n->small, __ATOMIC_RELAXED) < SMALL_FRAMES)
		return false;
	net_later(n, queue);
	return true;
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
	u32 waiting = __atomic_exchange_n(&net->waiting, 0, __ATOMIC_SEQ_CST);
	set_link(net, net->backend.poll(net->backend.net));
	u32 to_send = net->tx_stalled | waiting, more_to_send = 0;
	for (unsigned pair = 0; pair < net->config.queue_pairs; pair++)
		if ((to_send & BIT(net_tx(pair))) && transmit(net, pair))
			more_to_send |= (u32)BIT(net_tx(pair));
	if (more_to_send)
		__atomic_fetch_or(&net->waiting, more_to_send, __ATOMIC_SEQ_CST);
	bool more_to_receive = (!net->rx_stalled || (waiting & net->rx_stalled)) && receive(net);
	set_link(net, net->backend.poll(net->backend.net)); /* that the other side is gone is seen when nothing more comes */
	return more_to_send || more_to_receive;
}

void virtio_net_resume(struct virtio_net *net)
{
	for (unsigned pair = 0; pair < net->config.queue_pairs; pair++) {
		net_later(net, net_tx(pair));
		net_later(net, net_rx(pair));
	}
}

static void start(struct virtio_device *device)
{
	struct virtio_net *n = net_of(device);
	net_accept(n, net_offloads_of(device->driver_features, true));
}

static void stop(struct virtio_device *device)
{
	struct virtio_net *n = net_of(device);
	n->tx_stalled = n->rx_stalled = 0;
	net_control_reset(n);
	net_accept(n, 0);
}

/* ---- assembly ---- */

int virtio_net_attach(struct virtio_net *net, const struct net_backend *backend, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &net->virtio;
	net->backend = *backend;
	net->config = (struct net_config){ .status = LINK_UP, .queue_pairs = (u16)MAX(backend->pairs, 1u), .mtu = NET_MTU };
	memcpy(net->config.mac, backend->mac, sizeof(net->config.mac));
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-net";
	v->queues = 2u * net->config.queue_pairs + 1;
	v->config = &net->config;
	v->config_size = sizeof(net->config);
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | F_MAC | F_STATUS | F_MTU | F_MRG_RXBUF | F_CTRL_VQ | F_CTRL_RX |
		      F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR | F_GUEST_OFFLOADS;
	v->features |= net->config.queue_pairs > 1 ? F_MQ : 0;
	for (size_t i = 0; i < ARRAY_SIZE(offload_rows); i++)
		if (backend->offloads & offload_rows[i].offload)
			v->features |= offload_rows[i].host | offload_rows[i].guest;
	v->state = &virtio_net_state;
	v->notify = notify;
	v->doorbell = doorbell;
	v->start = start;
	v->stop = stop;
	return virtio_attach(v, host, ram, slot);
}

/* ---- state ---- */

/* What was about to be sent is tried again; the link is as it is found here. */
static bool loaded(void *object)
{
	struct virtio_net *n = object;
	n->waiting = (u32)BIT(n->virtio.queues) - 1;
	for (unsigned pair = 0; pair < n->config.queue_pairs; pair++)
		n->virtio.again |= (u32)BIT(net_tx(pair));
	net_flow_forget(n);
	n->backend.accept(n->backend.net, n->accepted);
	return n->pairs && n->pairs <= n->config.queue_pairs;
}

static const struct state_table net_config_state = STATE_TABLE(struct net_config, NULL,
	STATE(struct net_config, mac), STATE(struct net_config, status), STATE_SAME(struct net_config, queue_pairs),
	STATE_SAME(struct net_config, mtu));

static const struct state_table net_macs_state = STATE_TABLE(struct net_macs, NULL,
	STATE(struct net_macs, mac), STATE_MAX(struct net_macs, count, NET_MACS_MAX), STATE(struct net_macs, all));

const struct state_table virtio_net_state = STATE_TABLE(struct virtio_net, loaded,
	STATE_IN(struct virtio_net, virtio, virtio_device_state), STATE_NONE(struct virtio_net, backend),
	STATE_IN(struct virtio_net, config, net_config_state), STATE_MAX(struct virtio_net, accepted, NET_OFFLOADS),
	STATE_NONE(struct virtio_net, rang), STATE_NONE(struct virtio_net, small), STATE_NONE(struct virtio_net, waiting),
	STATE_NONE(struct virtio_net, tx_stalled), STATE_MAX(struct virtio_net, rx_stalled, BIT(VIRTIO_QUEUES_MAX) - 1),
	STATE_MAX(struct virtio_net, pairs, NET_PAIRS_MAX), STATE_NONE(struct virtio_net, flow), STATE(struct virtio_net, mac),
	STATE(struct virtio_net, mode), STATE_IN(struct virtio_net, unicast, net_macs_state),
	STATE_IN(struct virtio_net, multicast, net_macs_state), STATE(struct virtio_net, vlans), STATE_NONE(struct virtio_net, chain),
	STATE_NONE(struct virtio_net, count));
