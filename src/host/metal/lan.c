/* Networks between guests (lan.h). A port has a ring of frames on their way to its guest: the sender, under its own board's lock, copies them in under the
 * ring's lock, and the thread of lan_work tells the receiver, since two guests that send each other frames must not take each other's locks. */
#include "host/metal/lan.h"

#include "host/port.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define RING_SIZE 0x40000u
#define STATIONS 1024u
#define WORD 4u
#define HEADER sizeof(struct net_header)

struct lan_port {
	char name[LAN_NAME_MAX]; /* of its switch */
	bool (*ready)(void *opaque);
	void *opaque;
	u32 due; /* `ready` is to be called; atomic */
	struct host_lock lock; /* of the ring */
	u32 head, tail; /* bytes ever put in and taken out; each entry is its length, a header and a frame, rounded up to a word */
	u8 *ring, *frame; /* frame: a copy of the one that is looked at */
	u32 frame_size; /* 0: none */
};

static struct {
	struct host_lock lock; /* of ports: taken before the lock of a ring */
	struct lan_port *port[LAN_PORTS_MAX];
	struct station {
		u8 mac[NET_MAC_SIZE];
		u8 port; /* plus one; 0: nobody */
	} station[STATIONS]; /* by a hash of the address; the last one seen of those with the same */
	u32 due; /* counts ports that became due; atomic */
	u32 calling; /* the port, plus one, whose `ready` runs */
} lan;

/* ---- rings; the lock is held ---- */

static void ring_put(struct lan_port *p, const void *data, u32 size)
{
	for (u32 done = 0, step; done < size; done += step) {
		u32 at = (p->head + done) % RING_SIZE;
		step = MIN(size - done, RING_SIZE - at);
		memcpy(p->ring + at, (const u8 *)data + done, step);
	}
	p->head += size;
}

static void ring_take(struct lan_port *p, void *data, u32 size)
{
	for (u32 done = 0, step; done < size; done += step) {
		u32 at = (p->tail + done) % RING_SIZE;
		step = MIN(size - done, RING_SIZE - at);
		memcpy((u8 *)data + done, p->ring + at, step);
	}
	p->tail += size;
}

static u32 rounded(u32 size)
{
	return (size + WORD - 1) & ~(WORD - 1);
}

/* ---- frames ---- */

static void tell(struct lan_port *p)
{
	__atomic_store_n(&p->due, 1, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&lan.due, 1, __ATOMIC_SEQ_CST);
	host_wake(&lan.due);
}

static void give(struct lan_port *p, const struct virtq_piece *piece, unsigned pieces, u32 size)
{
	static const u8 padding[WORD];
	static const struct net_header none;
	host_lock(&p->lock);
	bool was_empty = p->head == p->tail, fits = RING_SIZE - (p->head - p->tail) >= WORD + HEADER + rounded(size);
	if (fits) {
		u32 length = HEADER + size;
		ring_put(p, &length, WORD);
		ring_put(p, &none, HEADER);
		for (unsigned i = 0; i < pieces; i++)
			ring_put(p, piece[i].data, piece[i].size);
		ring_put(p, padding, rounded(size) - size);
	}
	host_unlock(&p->lock);
	if (fits && was_empty)
		tell(p);
}

static struct station *station_of(const u8 *mac)
{
	u32 hash = get_u32(mac + 2) * 0x9e3779b1u ^ get_u16(mac);
	return &lan.station[(hash ^ hash >> 16) % STATIONS];
}

static void learn(const u8 *mac, unsigned port)
{
	struct station *s = station_of(mac);
	if (mac[0] & 1)
		return;
	memcpy(s->mac, mac, NET_MAC_SIZE);
	s->port = (u8)(port + 1);
}

/* LAN_PORTS_MAX: nobody knows. */
static unsigned look_up(const u8 *mac)
{
	const struct station *s = station_of(mac);
	return !(mac[0] & 1) && s->port && !memcmp(s->mac, mac, NET_MAC_SIZE) ? s->port - 1u : LAN_PORTS_MAX;
}

static unsigned index_of(const struct lan_port *p)
{
	unsigned i = 0;
	while (i < LAN_PORTS_MAX && lan.port[i] != p)
		i++;
	return i;
}

/* The two addresses at the start of a frame, wherever its pieces are cut. The sizes are added up: 0 if there is no frame. */
static u32 read_addresses(const struct virtq_piece *piece, unsigned pieces, u8 *addresses)
{
	u64 size = 0;
	for (unsigned i = 0; i < pieces; size += piece[i++].size)
		for (u32 n = 0; n < piece[i].size && size + n < 2 * NET_MAC_SIZE; n++)
			addresses[size + n] = piece[i].data[n];
	return size < NET_FRAME_MIN || size > NET_FRAME_MAX ? 0 : (u32)size;
}

/* The guest may change a frame under our hands: what was learnt was read once. */
static bool send(void *net, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	struct lan_port *from = net;
	u8 addresses[2 * NET_MAC_SIZE];
	u32 size = read_addresses(piece, pieces, addresses);
	if (!size)
		return true;
	host_lock(&lan.lock);
	unsigned own = index_of(from);
	if (own < LAN_PORTS_MAX)
		learn(addresses + NET_MAC_SIZE, own);
	unsigned to = look_up(addresses);
	bool known = to < LAN_PORTS_MAX && lan.port[to] && string_equal(lan.port[to]->name, from->name);
	for (unsigned i = 0; i < LAN_PORTS_MAX; i++) {
		struct lan_port *p = lan.port[i];
		if (p && p != from && (known ? i == to : (bool)string_equal(p->name, from->name)))
			give(p, piece, pieces, size);
	}
	host_unlock(&lan.lock);
	return true;
}

static const u8 *peek(void *net, u32 *size)
{
	struct lan_port *p = net;
	host_lock(&p->lock);
	if (!p->frame_size && p->head != p->tail) {
		u8 padding[WORD];
		ring_take(p, &p->frame_size, WORD);
		ring_take(p, p->frame, p->frame_size);
		ring_take(p, padding, rounded(p->frame_size) - p->frame_size);
	}
	host_unlock(&p->lock);
	*size = p->frame_size;
	return p->frame_size ? p->frame : NULL;
}

static void next(void *net)
{
	((struct lan_port *)net)->frame_size = 0;
}

static void flush(void *net)
{
}

static void accept(void *net, u32 offloads)
{
}

static bool poll(void *net)
{
	return true;
}

static void wake(void *net)
{
	tell(net);
}

/* ---- life ---- */

static struct lan_port *new_port(const char *name)
{
	struct lan_port *p = host_alloc(sizeof(*p));
	if (!p)
		return NULL;
	host_lock_init(&p->lock);
	host_snprintf(p->name, sizeof(p->name), "%s", name);
	p->ring = host_alloc(RING_SIZE);
	p->frame = host_alloc(HEADER + NET_FRAME_MAX);
	return p;
}

static void free_port(struct lan_port *p)
{
	if (!p)
		return;
	host_free(p->ring);
	host_free(p->frame);
	host_free(p);
}

struct lan_port *lan_create(const char *name, bool (*ready)(void *opaque), void *opaque, struct net_backend *backend)
{
	struct lan_port *p = new_port(name);
	host_lock(&lan.lock);
	unsigned i = index_of(NULL);
	bool good = p && p->ring && p->frame && i < LAN_PORTS_MAX;
	if (good)
		lan.port[i] = p;
	host_unlock(&lan.lock);
	if (!good) {
		free_port(p);
		return NULL;
	}
	p->ready = ready;
	p->opaque = opaque;
	*backend = (struct net_backend){ .wake = wake, .send = send, .flush = flush, .peek = peek, .next = next, .accept = accept, .poll = poll, .net = p };
	return p;
}

void lan_detach(struct lan_port *p)
{
	host_lock(&lan.lock);
	unsigned i = index_of(p);
	if (i < LAN_PORTS_MAX)
		lan.port[i] = NULL;
	for (unsigned n = 0; n < STATIONS; n++)
		if (lan.station[n].port == i + 1)
			lan.station[n].port = 0;
	while (i < LAN_PORTS_MAX && lan.calling == i + 1) {
		host_unlock(&lan.lock);
		host_yield();
		host_lock(&lan.lock);
	}
	host_unlock(&lan.lock);
}

void lan_destroy(struct lan_port *p)
{
	if (!p)
		return;
	lan_detach(p);
	free_port(p);
}

/* ---- the thread ---- */

static bool work_at(unsigned i)
{
	host_lock(&lan.lock);
	struct lan_port *p = lan.port[i];
	bool due = p && __atomic_exchange_n(&p->due, 0, __ATOMIC_SEQ_CST);
	lan.calling = due ? i + 1 : 0;
	host_unlock(&lan.lock);
	if (!due)
		return false;
	bool more = p->ready(p->opaque);
	if (more)
		__atomic_store_n(&p->due, 1, __ATOMIC_SEQ_CST);
	host_lock(&lan.lock);
	lan.calling = 0;
	host_unlock(&lan.lock);
	return more;
}

bool lan_work(void)
{
	bool more = false;
	for (unsigned i = 0; i < LAN_PORTS_MAX; i++)
		more |= work_at(i);
	return more;
}

void lan_wait(void)
{
	u32 due = __atomic_load_n(&lan.due, __ATOMIC_SEQ_CST);
	while (lan_work())
		;
	host_wait(&lan.due, due, HOST_NEVER);
}

/* ---- addresses ---- */

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool lan_read_mac(const char *text, u8 *mac)
{
	u8 any = 0;
	for (unsigned i = 0; i < NET_MAC_SIZE; i++, text += 3) {
		if (digit(text[0]) < 0 || digit(text[1]) < 0 || text[2] != (i == NET_MAC_SIZE - 1 ? 0 : ':'))
			return false;
		mac[i] = (u8)(digit(text[0]) << 4 | digit(text[1]));
		any |= mac[i];
	}
	return any && !(mac[0] & 1);
}
