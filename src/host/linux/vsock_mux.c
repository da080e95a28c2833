/* Connections between a guest and the host's programs (vsock_mux.h). */
#define _GNU_SOURCE
#include "host/linux/vsock_mux.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TYPE_STREAM 1
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { NO_MORE_TAKEN = 1, NO_MORE_SENT = 2, NO_MORE = 3 }; /* flags of SHUTDOWN */

#define FIRST_PORT 0x40000000u /* of programs here that connect to the guest */
#define CHUNK 0x8000u
#define QUEUED_MOST 1024u
#define GREETING_MAX 32u

enum stage {
	GREETING, /* the program is to say where it wants to */
	ASKED,	  /* the guest is to answer */
	OPEN,
	ENDING, /* the guest has ended it; what it sent is still to be taken */
};

struct connection {
	enum stage stage;
	char line[GREETING_MAX + 1]; /* while GREETING: what it has said */
	u32 line_size;
	int fd, poll; /* its place among the wishes, or -1 */
	u32 host_port, guest_port;
	u32 guest_room, guest_taken, sent; /* to the guest: what it last said, and bytes sent so far */
	u32 taken, told; /* from the guest: bytes that the program has, and what the guest knows of that */
	bool asked; /* for room */
	bool host_ended, host_deaf; /* the program sends, takes no more; the guest knows */
	u32 guest_flags; /* NO_MORE: of the guest */
	u8 *waiting; /* a ring of VSOCK_ROOM bytes for the program; NULL until it is needed */
	u32 begin, size;
};

struct packet {
	struct packet *next;
	u32 size;
	u8 data[];
};

struct vsock_mux {
	u32 cid, next_port;
	int (*dial)(void *opaque, u32 port);
	void *opaque;
	struct connection *connection[VSOCK_CONNECTIONS_MAX];
	struct packet *first, **last;
	unsigned queued;
};

/* ---- packets for the guest ---- */

static void queue(struct vsock_mux *m, struct packet *p)
{
	p->next = NULL;
	*m->last = p;
	m->last = &p->next;
	m->queued++;
}

/* Room for a packet with `length` bytes of payload; a NULL loses one, and with it the connection. */
static struct packet *make(u32 length)
{
	struct packet *p = malloc(sizeof(*p) + sizeof(struct vsock_header) + length);
	if (p)
		p->size = (u32)sizeof(struct vsock_header) + length;
	return p;
}

static void fill(const struct vsock_mux *m, struct packet *p, struct connection *c, u16 operation, u32 flags)
{
	const struct vsock_header header = {
		.from_cid = VSOCK_CID_HOST,
		.to_cid = m->cid,
		.from_port = c->host_port,
		.to_port = c->guest_port,
		.length = p->size - (u32)sizeof(header),
		.type = TYPE_STREAM,
		.operation = operation,
		.flags = flags,
		.room = VSOCK_ROOM,
		.taken = c->taken,
	};
	memcpy(p->data, &header, sizeof(header));
	c->told = c->taken;
}

static void tell(struct vsock_mux *m, struct connection *c, u16 operation, u32 flags)
{
	struct packet *p = make(0);
	if (!p)
		return;
	fill(m, p, c, operation, flags);
	queue(m, p);
}

/* Answer a packet that belongs to no connection. */
static void refuse(struct vsock_mux *m, const struct vsock_header *h)
{
	struct packet *p = h->operation == RST ? NULL : make(0);
	if (!p)
		return;
	const struct vsock_header answer = { .from_cid = h->to_cid, .to_cid = h->from_cid, .from_port = h->to_port, .to_port = h->from_port,
					     .type = h->type, .operation = RST };
	memcpy(p->data, &answer, sizeof(answer));
	queue(m, p);
}

const u8 *vsock_mux_peek(const struct vsock_mux *mux, u32 *size)
{
	if (!mux->first)
		return NULL;
	*size = mux->first->size;
	return mux->first->data;
}

void vsock_mux_next(struct vsock_mux *mux)
{
	struct packet *p = mux->first;
	mux->first = p->next;
	if (!mux->first)
		mux->last = &mux->first;
	mux->queued--;
	free(p);
}

bool vsock_mux_full(const struct vsock_mux *mux)
{
	return mux->queued >= QUEUED_MOST;
}

/* ---- connections ---- */

static struct connection *find(const struct vsock_mux *m, u32 host_port, u32 guest_port)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		struct connection *c = m->connection[i];
		if (c && c->stage != GREETING && c->host_port == host_port && c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

/* Takes the descriptor over. NULL: there are too many. */
static struct connection *add(struct vsock_mux *m, int fd, enum stage stage)
{
	unsigned i = 0;
	while (i < VSOCK_CONNECTIONS_MAX && m->connection[i])
		i++;
	struct connection *c = i < VSOCK_CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c) {
		close(fd);
		return NULL;
	}
	c->stage = stage;
	c->fd = fd;
	c->poll = -1;
	m->connection[i] = c;
	return c;
}

static void drop(struct vsock_mux *m, struct connection *c)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		if (m->connection[i] == c)
			m->connection[i] = NULL;
	close(c->fd);
	free(c->waiting);
	free(c);
}

static void abort_connection(struct vsock_mux *m, struct connection *c)
{
	tell(m, c, RST, 0);
	drop(m, c);
}

void vsock_mux_accept(struct vsock_mux *mux, int fd)
{
	add(mux, fd, GREETING);
}

/* ---- to the program ---- */

/* The program takes no more: what the guest sends is thrown away. */
static void deafen(struct vsock_mux *m, struct connection *c)
{
	c->taken += c->size;
	c->size = 0;
	if (!c->host_deaf && c->stage == OPEN)
		tell(m, c, SHUTDOWN, NO_MORE_TAKEN);
	c->host_deaf = true;
}

/* How many bytes the program took. */
static u32 write_now(struct vsock_mux *m, struct connection *c, const u8 *data, u32 size)
{
	ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		deafen(m, c);
		return size;
	}
	return n < 0 ? 0 : (u32)n;
}

static void flush(struct vsock_mux *m, struct connection *c)
{
	while (c->size) {
		u32 piece = MIN(c->size, VSOCK_ROOM - c->begin), n = write_now(m, c, c->waiting + c->begin, piece);
		if (!n || c->host_deaf)
			return;
		c->begin = (c->begin + n) % VSOCK_ROOM;
		c->size -= n;
		c->taken += n;
	}
}

/* False: no memory. */
static bool keep(struct connection *c, const u8 *data, u32 size)
{
	if (!c->waiting && !(c->waiting = malloc(VSOCK_ROOM)))
		return false;
	while (size) {
		u32 at = (c->begin + c->size) % VSOCK_ROOM, n = MIN(size, VSOCK_ROOM - at);
		memcpy(c->waiting + at, data, n);
		c->size += n;
		data += n;
		size -= n;
	}
	return true;
}

/* After the program took something: tell the guest when it is worth it, and end what has only waited for this. False: the connection is gone. */
static bool taken(struct vsock_mux *m, struct connection *c)
{
	if (c->stage == OPEN && c->taken - c->told >= VSOCK_ROOM / 4)
		tell(m, c, CREDIT_UPDATE, 0);
	if (!c->size && c->stage == ENDING) {
		abort_connection(m, c);
		return false;
	}
	if (!c->size && (c->guest_flags & NO_MORE_SENT))
		shutdown(c->fd, SHUT_WR);
	return true;
}

static void take_data(struct vsock_mux *m, struct connection *c, const u8 *data, u32 size)
{
	if (c->stage != OPEN || (c->guest_flags & NO_MORE_SENT) || size > VSOCK_ROOM - c->size) {
		abort_connection(m, c); /* it was told how much there is room for */
		return;
	}
	u32 n = c->host_deaf ? size : c->size ? 0 : write_now(m, c, data, size);
	c->taken += n;
	if (n < size && !keep(c, data + n, size - n))
		abort_connection(m, c);
	else
		taken(m, c);
}

/* ---- from the program ---- */

static u32 room_of_guest(const struct connection *c)
{
	u32 on_its_way = c->sent - c->guest_taken;
	return on_its_way < c->guest_room ? c->guest_room - on_its_way : 0;
}

/* The program has ended, or what it sends: with the second of both, nothing is left. */
static void end_of_program(struct vsock_mux *m, struct connection *c, bool all)
{
	c->host_ended = true;
	tell(m, c, SHUTDOWN, all || c->host_deaf ? NO_MORE : NO_MORE_SENT);
	if (all || c->host_deaf)
		drop(m, c);
}

static void read_program(struct vsock_mux *m, struct connection *c, bool hung_up)
{
	u32 size = MIN(room_of_guest(c), CHUNK);
	struct packet *p = make(size);
	if (!p)
		return;
	ssize_t n = recv(c->fd, p->data + sizeof(struct vsock_header), size, MSG_DONTWAIT);
	if (n <= 0) {
		free(p);
		if (!n || (errno != EAGAIN && errno != EINTR))
			end_of_program(m, c, hung_up || n < 0);
		return;
	}
	p->size = (u32)sizeof(struct vsock_header) + (u32)n;
	c->sent += (u32)n;
	c->asked = false;
	fill(m, p, c, RW, 0);
	queue(m, p);
}

/* ---- programs that connect to the guest ---- */

static u32 new_port(struct vsock_mux *m, u32 guest_port)
{
	do
		m->next_port = m->next_port < FIRST_PORT || m->next_port == ~0u ? FIRST_PORT : m->next_port + 1;
	while (find(m, m->next_port, guest_port));
	return m->next_port;
}

/* The port of "CONNECT PORT"; ~0: it is something else. */
static u32 port_of(const char *line)
{
	static const char word[] = "CONNECT ";
	const char *number = line + sizeof(word) - 1;
	char *end;
	if (strncmp(line, word, sizeof(word) - 1) != 0 || *number < '0' || *number > '9')
		return ~0u;
	unsigned long port = strtoul(number, &end, 10);
	return *end || port > ~0u ? ~0u : (u32)port;
}

/* Up to the end of the line, and not a byte more: what follows is for the guest. */
static void read_greeting(struct vsock_mux *m, struct connection *c)
{
	ssize_t n;
	char byte = 0;
	while ((n = recv(c->fd, &byte, 1, MSG_DONTWAIT)) == 1 && byte != '\n' && c->line_size < GREETING_MAX)
		c->line[c->line_size++] = byte;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	u32 port = n == 1 && byte == '\n' ? port_of(c->line) : ~0u;
	if (port == ~0u) {
		drop(m, c);
		return;
	}
	c->guest_port = port;
	c->host_port = new_port(m, port);
	c->stage = ASKED;
	tell(m, c, REQUEST, 0);
}

static void take_response(struct vsock_mux *m, struct connection *c)
{
	char line[GREETING_MAX];
	int size = snprintf(line, sizeof(line), "OK %u\n", c->host_port);
	if (c->stage != ASKED || send(c->fd, line, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT) != size)
		abort_connection(m, c);
	else
		c->stage = OPEN;
}

/* ---- packets from the guest ---- */

static void take_request(struct vsock_mux *m, const struct vsock_header *h)
{
	int fd = m->dial(m->opaque, h->to_port);
	struct connection *c = fd < 0 ? NULL : add(m, fd, OPEN);
	if (!c) {
		refuse(m, h);
		return;
	}
	c->host_port = h->to_port;
	c->guest_port = h->from_port;
	c->guest_room = h->room;
	c->guest_taken = h->taken;
	tell(m, c, RESPONSE, 0);
}

static void take_shutdown(struct vsock_mux *m, struct connection *c, u32 flags)
{
	c->guest_flags |= flags & NO_MORE;
	if (c->guest_flags & NO_MORE_TAKEN)
		shutdown(c->fd, SHUT_RD);
	if (c->guest_flags == NO_MORE)
		c->stage = ENDING;
	taken(m, c);
}

void vsock_mux_packet(struct vsock_mux *mux, const struct vsock_header *header, const u8 *payload)
{
	struct vsock_mux *m = mux;
	const struct vsock_header *h = header;
	bool possible = h->from_cid == m->cid && h->to_cid == VSOCK_CID_HOST && h->type == TYPE_STREAM;
	struct connection *c = possible ? find(m, h->to_port, h->from_port) : NULL;
	if (!c && possible && h->operation == REQUEST) {
		take_request(m, h);
		return;
	}
	if (!c) {
		refuse(m, h);
		return;
	}
	c->guest_room = h->room;
	c->guest_taken = h->taken;
	switch (h->operation) {
	case RESPONSE:
		take_response(m, c);
		break;
	case RST:
		drop(m, c);
		break;
	case SHUTDOWN:
		take_shutdown(m, c, h->flags);
		break;
	case RW:
		take_data(m, c, payload, h->length);
		break;
	case CREDIT_REQUEST:
		tell(m, c, CREDIT_UPDATE, 0);
		break;
	case CREDIT_UPDATE:
		break;
	default: /* a second request for the same, or something unknown */
		abort_connection(m, c);
	}
}

/* ---- waiting ---- */

/* A program is read when nothing else is to be told to the guest, and the guest has room. */
static short wishes_of(struct vsock_mux *m, struct connection *c)
{
	if (c->stage == GREETING)
		return POLLIN;
	short wanted = c->size ? POLLOUT : 0;
	if (c->stage != OPEN || c->host_ended || (c->guest_flags & NO_MORE_TAKEN))
		return wanted;
	if (!room_of_guest(c) && !c->asked) {
		c->asked = true;
		tell(m, c, CREDIT_REQUEST, 0);
	}
	return room_of_guest(c) && !m->queued ? wanted | POLLIN : wanted;
}

/* Somebody who hangs up is heard of even where nothing is waited for: wait for that alone where it would be of use. */
unsigned vsock_mux_wishes(struct vsock_mux *mux, struct pollfd *poll)
{
	unsigned count = 0;
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		struct connection *c = mux->connection[i];
		if (!c)
			continue;
		short wanted = wishes_of(mux, c);
		c->poll = -1;
		if (!wanted && !(c->stage == OPEN && c->host_ended))
			continue;
		c->poll = (int)count;
		poll[count++] = (struct pollfd){ .fd = c->fd, .events = wanted };
	}
	return count;
}

static void ready(struct vsock_mux *m, struct connection *c, const struct pollfd *p)
{
	bool hung_up = p->revents & (POLLHUP | POLLERR);
	if (c->stage == GREETING) {
		read_greeting(m, c);
		return;
	}
	if (c->size && (hung_up || (p->revents & POLLOUT))) {
		flush(m, c);
		if (!taken(m, c))
			return;
	}
	if (c->host_ended && hung_up)
		end_of_program(m, c, true);
	else if ((p->events & POLLIN) && (hung_up || (p->revents & POLLIN)))
		read_program(m, c, hung_up);
}

void vsock_mux_ready(struct vsock_mux *mux, const struct pollfd *poll)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		struct connection *c = mux->connection[i];
		if (c && c->poll >= 0 && poll[c->poll].revents)
			ready(mux, c, &poll[c->poll]);
	}
}

/* ---- life ---- */

void vsock_mux_reset(struct vsock_mux *mux)
{
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		if (mux->connection[i] && mux->connection[i]->stage != GREETING)
			drop(mux, mux->connection[i]);
	while (mux->first)
		vsock_mux_next(mux);
}

struct vsock_mux *vsock_mux_create(u32 cid, int (*dial)(void *opaque, u32 port), void *opaque)
{
	struct vsock_mux *m = calloc(1, sizeof(*m));
	if (!m)
		return NULL;
	*m = (struct vsock_mux){ .cid = cid, .dial = dial, .opaque = opaque, .last = &m->first };
	return m;
}

void vsock_mux_destroy(struct vsock_mux *mux)
{
	vsock_mux_reset(mux);
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++)
		if (mux->connection[i])
			drop(mux, mux->connection[i]);
	free(mux);
}
