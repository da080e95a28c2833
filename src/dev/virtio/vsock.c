/* virtio socket device (vsock.h): packets from buffers to the cable and the other way round. */
#include "dev/virtio/vsock.h"

#include "lib/string.h"

#define ID 19
#define CLASS 0x078000 /* communication, other */

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUES };

#define EVENT_TRANSPORT_RESET 0u
#define PACKETS_AT_ONCE 64u /* each way, before others get the lock */

static struct virtio_vsock *vsock_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_vsock, virtio);
}

/* ---- from the guest ---- */

/* Cut what is to be read down to `size` bytes; false if there are fewer. */
static bool limit(struct virtq_chain *chain, u32 size)
{
	unsigned i = 0;
	for (; i < chain->readable && size; i++) {
		chain->piece[i].size = MIN(chain->piece[i].size, size);
		size -= chain->piece[i].size;
	}
	chain->readable = i;
	return !size;
}

/* Send what is in v->chain; false: later. What is no packet is taken and forgotten. */
static bool send(struct virtio_vsock *v)
{
	struct vsock_header header;
	unsigned writable = v->chain.readable;
	if (!virtq_take(&v->chain, &header, sizeof(header)) || header.length > VSOCK_PAYLOAD_MAX || !limit(&v->chain, header.length))
		return true;
	header.from_cid = v->cid;
	bool sent = v->backend.send(v->backend.cable, &header, v->chain.piece, v->chain.readable);
	v->chain.readable = writable;
	return sent;
}

/* False: there is none, or no room for it. */
static bool transmit_one(struct virtio_vsock *v)
{
	struct virtq *q = &v->virtio.queue[QUEUE_TX];
	struct virtq_place place = virtq_mark(q);
	if (!virtio_pop(&v->virtio, QUEUE_TX, &v->chain))
		return false;
	if (!send(v)) {
		virtq_rewind(q, place);
		v->tx_stalled = true;
		return false;
	}
	virtio_push(&v->virtio, QUEUE_TX, &v->chain, 0);
	return true;
}

static void transmit(struct virtio_vsock *v)
{
	unsigned i = 0;
	v->tx_stalled = false;
	while (i < PACKETS_AT_ONCE && transmit_one(v))
		i++;
	if (i == PACKETS_AT_ONCE)
		v->virtio.again |= BIT(QUEUE_TX);
}

/* ---- to the guest ---- */

static void put(struct virtio_vsock *v, u32 at, const void *data, u32 size)
{
	const u8 *from = data;
	for (unsigned i = v->chain.readable; i < v->chain.pieces && size; i++) {
		const struct virtq_piece *p = &v->chain.piece[i];
		u32 skip = MIN(at, p->size), n = MIN(p->size - skip, size);
		memcpy(p->data + skip, from, n);
		at -= skip;
		from += n;
		size -= n;
	}
}

/* As much of the packet as fits into one buffer, as a packet of its own: the driver's buffers may be smaller than the payload. False: there is none. */
static bool deliver(struct virtio_vsock *v, const u8 *packet)
{
	struct vsock_header header;
	if (!virtio_pop(&v->virtio, QUEUE_RX, &v->chain))
		return false;
	u64 room = virtq_writable(&v->chain);
	memcpy(&header, packet, sizeof(header));
	if (room < sizeof(header) || (room == sizeof(header) && header.length)) { /* no use for anything */
		virtio_push(&v->virtio, QUEUE_RX, &v->chain, 0);
		return true;
	}
	u32 left = header.length - v->sent, size = (u32)MIN(left, room - sizeof(header));
	header.length = size;
	put(v, 0, &header, sizeof(header));
	put(v, sizeof(header), packet + sizeof(header) + v->sent, size);
	virtio_push(&v->virtio, QUEUE_RX, &v->chain, (u32)sizeof(header) + size);
	v->sent += size;
	if (size == left) {
		v->sent = 0;
		v->backend.next(v->backend.cable);
	}
	return true;
}

static bool is_packet(const u8 *packet, u32 size)
{
	struct vsock_header header;
	if (size < sizeof(header))
		return false;
	memcpy(&header, packet, sizeof(header));
	return header.length == size - sizeof(header);
}

static void receive(struct virtio_vsock *v)
{
	const u8 *packet;
	u32 size;
	v->rx_stalled = false;
	for (unsigned i = 0; i < PACKETS_AT_ONCE; i++) {
		if (!(packet = v->backend.peek(v->backend.cable, &size)))
			return;
		if (!is_packet(packet, size)) {
			v->backend.next(v->backend.cable);
		} else if (!deliver(v, packet)) {
			v->rx_stalled = true;
			return;
		}
	}
	v->rx_stalled = true;
	v->virtio.again |= BIT(QUEUE_RX);
}

/* ---- events ---- */

static void tell_moved(struct virtio_vsock *v)
{
	const u32 event = EVENT_TRANSPORT_RESET;
	if (!v->moved || !virtio_pop(&v->virtio, QUEUE_EVENT, &v->chain))
		return;
	v->moved = false;
	put(v, 0, &event, sizeof(event));
	virtio_push(&v->virtio, QUEUE_EVENT, &v->chain, (u32)MIN(sizeof(event), virtq_writable(&v->chain)));
}

/* ---- what happens ---- */

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_vsock *v = vsock_of(device);
	if (queue == QUEUE_EVENT)
		tell_moved(v);
	else if (queue == QUEUE_TX && !v->tx_stalled)
		transmit(v);
	else if (queue == QUEUE_RX && v->rx_stalled)
		receive(v);
}

void virtio_vsock_ready(struct virtio_vsock *vsock)
{
	if (vsock->tx_stalled)
		transmit(vsock);
	if (!vsock->rx_stalled)
		receive(vsock);
}

/* Who wanted to connect before the driver was there has waited for it. */
static void start(struct virtio_device *device)
{
	vsock_of(device)->rx_stalled = true;
	device->again |= BIT(QUEUE_RX);
}

static void stop(struct virtio_device *device)
{
	struct virtio_vsock *v = vsock_of(device);
	v->rx_stalled = v->tx_stalled = v->moved = false;
	v->sent = 0;
	v->backend.reset(v->backend.cable);
}

/* ---- assembly ---- */

int virtio_vsock_attach(struct virtio_vsock *vsock, const struct vsock_backend *backend, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &vsock->virtio;
	vsock->backend = *backend;
	vsock->cid = backend->cid;
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-vsock";
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	v->queues = QUEUES;
	v->config = &vsock->cid;
	v->config_size = sizeof(vsock->cid);
	v->state = &virtio_vsock_state;
	v->notify = notify;
	v->start = start;
	v->stop = stop;
	return virtio_attach(v, host, ram, slot);
}

/* ---- state ---- */

/* Its connections ended with the machine that was saved; it may have another number now. */
static bool loaded(void *object)
{
	struct virtio_vsock *v = object;
	v->moved = true;
	v->virtio.again |= BIT(QUEUE_TX) | BIT(QUEUE_EVENT);
	return true;
}

const struct state_table virtio_vsock_state = STATE_TABLE(struct virtio_vsock, loaded,
	STATE_IN(struct virtio_vsock, virtio, virtio_device_state), STATE_NONE(struct virtio_vsock, backend), STATE_NONE(struct virtio_vsock, cid),
	STATE_NONE(struct virtio_vsock, sent), STATE_NONE(struct virtio_vsock, rx_stalled), STATE_NONE(struct virtio_vsock, tx_stalled),
	STATE_NONE(struct virtio_vsock, moved), STATE_NONE(struct virtio_vsock, chain));
