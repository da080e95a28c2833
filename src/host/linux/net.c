/* Networks (net.h): cables between virtio network devices and files that give and take frames.
 *
 * Frames are sent by the vCPU that asks, in its exit, or by the thread when there are many (dev/virtio/net.c), as far as the file takes them at
 * once. The thread sleeps until frames come, or room that somebody asked for, or a device wakes it; the device fetches and sends them under the
 * board's lock. Files are watched for edges alone. */
#define _GNU_SOURCE
#include "host/linux/net.h"

#include "dev/map.h"
#include "host/linux/disk.h"
#include "host/linux/net_internal.h"
#include "host/linux/net_stream.h"
#include "host/linux/passed_files.h"
#include "host/linux/sandbox.h"
#include "host/port.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

static_assert(NET_PAIRS_MAX == 3, "what set_queues says");
#define WAKE NETS_MAX /* in place of an index */
#define PATIENCE 10000 /* ms, for the first word of a network that somebody else made */

struct net {
	_Atomic bool live; /* there is such a network; what follows does not change meanwhile, or only under the board's lock */
	_Atomic bool due; /* the thread shall call the device */
	unsigned index;
	bool waits; /* for room */
	struct stream stream; /* a tap interface uses `fd` alone */
	u8 *frame; /* tap: the one that came */
	u32 size;
	int keeper; /* of a switch: connects again (net_keeper.c), or -1 */
	bool asked; /* it was told to */
	u32 accepted; /* NET_OFFLOADS that the other side was told */
};

/* All networks of the process. A net is guarded by the board's lock; the rest is constant while the thread runs. */
static struct {
	struct net net[NETS_MAX];
	int epoll, wake;
	_Atomic bool sleeping, stop;
	bool running;
	pthread_t thread;
	bool (*ready)(void *opaque, unsigned index);
	void *opaque;
} all = { .epoll = -1, .wake = -1 };

int net_complain(const char *what, const char *why)
{
	fprintf(stderr, "nadir: --net: %s: %s\n", what, why);
	return -1;
}

/* ---- cables ---- */

static int watch(const struct net *n, int operation, int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET | (n->waits ? EPOLLOUT : 0), .data.u32 = n->index };
	return all.epoll < 0 || fd < 0 ? 0 : epoll_ctl(all.epoll, operation, fd, &event);
}

static void wait_for_room(struct net *n, bool waits)
{
	if (n->waits == waits)
		return;
	n->waits = waits;
	watch(n, EPOLL_CTL_MOD, n->stream.fd);
}

/* Who finds the thread asleep wakes it; if it is about to fall asleep, it sees what is due. */
static void wake_thread(void)
{
	if (atomic_exchange(&all.sleeping, false))
		eventfd_write(all.wake, 1);
}

static void net_wake(void *net)
{
	((struct net *)net)->due = true;
	wake_thread();
}

static unsigned make_vector(struct iovec *vector, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	vector[0] = (struct iovec){ (void *)(uintptr_t)header, sizeof(*header) };
	for (unsigned i = 0; i < pieces; i++)
		vector[i + 1] = (struct iovec){ piece[i].data, piece[i].size };
	return pieces + 1;
}

static bool link_send(void *net, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	struct net *n = net;
	struct iovec vector[STREAM_PIECES_MAX];
	return stream_send(&n->stream, vector, make_vector(vector, header, piece, pieces));
}

static void link_flush(void *net)
{
	struct net *n = net;
	wait_for_room(n, !stream_flush(&n->stream));
}

/* Frames without headers came before the other side knew of headers. */
static const u8 *link_peek(void *net, u32 *size)
{
	struct net *n = net;
	const u8 *frame;
	while ((frame = stream_peek(&n->stream, size)) && !n->stream.headers_in)
		stream_next(&n->stream);
	return frame;
}

static void link_next(void *net)
{
	stream_next(&((struct net *)net)->stream);
}

static void link_accept(void *net, u32 offloads)
{
	struct net *n = net;
	n->accepted = offloads;
	stream_accept(&n->stream, offloads);
}

/* The other side is gone: ask for a new connection, and use it when it is there. */
static void connect_again(struct net *n)
{
	n->asked = n->asked || net_keeper_ask(n->keeper);
	int fd = net_keeper_take(n->keeper);
	if (fd < 0)
		return;
	stream_renew(&n->stream, fd);
	n->asked = n->waits = false;
	stream_accept(&n->stream, n->accepted);
	watch(n, EPOLL_CTL_ADD, n->stream.fd);
}

static bool link_poll(void *net)
{
	struct net *n = net;
	if (n->stream.closed && n->keeper >= 0)
		connect_again(n);
	link_flush(n);
	return !n->stream.closed;
}

static bool tap_send(void *net, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	struct net *n = net;
	struct iovec vector[STREAM_PIECES_MAX];
	int count = (int)make_vector(vector, header, piece, pieces);
	ssize_t done;
	do
		done = writev(n->stream.fd, vector, count);
	while (done < 0 && errno == EINTR);
	bool full = done < 0 && errno == EAGAIN; /* else it is sent, or lost: the interface is down, say */
	wait_for_room(n, full);
	return !full;
}

static void tap_flush(void *net)
{
}

static const u8 *tap_peek(void *net, u32 *size)
{
	struct net *n = net;
	ssize_t got = n->size;
	while (got <= 0) {
		got = read(n->stream.fd, n->frame, sizeof(struct net_header) + NET_FRAME_MAX);
		if (got < 0 && errno != EINTR)
			return NULL;
	}
	n->size = *size = (u32)got;
	return n->frame;
}

static void tap_next(void *net)
{
	((struct net *)net)->size = 0;
}

static void tap_accept(void *net, u32 offloads)
{
	net_tap_accept(((struct net *)net)->stream.fd, offloads);
}

static bool tap_poll(void *net)
{
	return true;
}

static const struct net_backend link_backend = { .wake = net_wake, .send = link_send, .flush = link_flush, .peek = link_peek, .next = link_next, .accept = link_accept, .poll = link_poll };
static const struct net_backend tap_backend = { .wake = net_wake, .send = tap_send, .flush = tap_flush, .peek = tap_peek, .next = tap_next, .accept = tap_accept, .poll = tap_poll };

/* ---- options ---- */

static int parse_switch(const char *value, bool *on)
{
	*on = !strcmp(value, "on");
	return *on || !strcmp(value, "off") ? 0 : net_complain(value, "it is on or off");
}

static int set_path(char *value, struct net_wishes *w)
{
	w->path = value;
	return 0;
}

static int set_interface(char *value, struct net_wishes *w)
{
	w->interface = value;
	return 0;
}

static int set_mac(char *value, struct net_wishes *w)
{
	return net_parse_mac(value, w);
}

static int set_queues(char *value, struct net_wishes *w)
{
	w->pairs = *value >= '1' && *value <= '0' + (int)NET_PAIRS_MAX && !value[1] ? (unsigned)(*value - '0') : 0;
	return w->pairs ? 0 : net_complain(value, "a card has 1, 2 or 3 pairs of queues");
}

static int set_slot(char *value, struct net_wishes *w)
{
	return slot_parse(value, PCI_SLOT_NET, NETS_MAX, &w->slot) ? 0 : net_complain(value, "slot is the number of a PCI device, 20 to 27 for a network");
}

static int set_restrict(char *value, struct net_wishes *w)
{
	return parse_switch(value, &w->restricted);
}

static int set_ipv6(char *value, struct net_wishes *w)
{
	return parse_switch(value, &w->ipv6);
}

/* Slirp opens files as they are asked for, when the process is elsewhere. */
static int set_tftp(char *value, struct net_wishes *w)
{
	struct stat s;
	if (passed_taking())
		return 0; /* its process knows */
	w->tftp = realpath(value, NULL);
	return w->tftp && !stat(w->tftp, &s) && S_ISDIR(s.st_mode) ? 0 : net_complain(value, "tftp is a folder whose files the guest may load, and this is none");
}

static int set_bootfile(char *value, struct net_wishes *w)
{
	w->bootfile = value;
	return strlen(value) < 128 ? 0 : net_complain(value, "a bootfile has 127 characters at most");
}

static const struct {
	const char *kind, *key; /* kind NULL: all */
	int (*set)(char *value, struct net_wishes *w);
} keys[] = {
	{ NULL, "mac", set_mac },
	{ NULL, "queues", set_queues },
	{ NULL, "slot", set_slot },
	{ "user", "hostfwd", net_parse_forward },
	{ "user", "net", net_parse_network },
	{ "user", "restrict", set_restrict },
	{ "user", "ipv6", set_ipv6 },
	{ "user", "tftp", set_tftp },
	{ "user", "bootfile", set_bootfile },
	{ "tap", "ifname", set_interface },
	{ "switch", "path", set_path },
};

static int parse_word(char *word, struct net_wishes *w)
{
	char *value = strchr(word, '=');
	if (value)
		*value++ = 0;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strcmp(keys[i].key, word) && (!keys[i].kind || !strcmp(keys[i].kind, w->kind)))
			return value && *value ? keys[i].set(value, w) : net_complain(word, "it needs a value: write it as KEY=VALUE");
	return net_complain(word, !strcmp(w->kind, "user")  ? "the keys of user are hostfwd, net, restrict, ipv6, queues, tftp, bootfile, slot and mac"
				  : !strcmp(w->kind, "tap") ? "the keys of tap are ifname, queues, slot and mac"
							    : "the keys of switch are path, queues, slot and mac");
}

static int parse(char *text, struct net_wishes *w)
{
	char *rest = text;
	w->kind = strsep(&rest, ",");
	if (strcmp(w->kind, "user") && strcmp(w->kind, "tap") && strcmp(w->kind, "switch"))
		return net_complain(w->kind, "it is not one of user, tap and switch");
	for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ","))
		if (parse_word(word, w) < 0)
			return -1;
	if (!strcmp(w->kind, "tap") && !w->interface)
		return net_complain("tap", "no interface is given; write tap,ifname=NAME");
	if (!strcmp(w->kind, "switch") && !w->path)
		return net_complain("switch", "no socket is given; write switch,path=SOCKET");
	return 0;
}

/* ---- opening ---- */

/* Wait for the other side to say what it accepts: then it is ready. One that was made by somebody else has not for ever. */
static bool greet(struct stream *s, int patience)
{
	u32 size;
	stream_accept(s, 0);
	while (!s->headers_in && !s->closed) {
		if (!poll(&(struct pollfd){ .fd = s->fd, .events = POLLIN }, 1, patience))
			return false;
		if (stream_peek(s, &size) && !s->headers_in)
			stream_next(s);
	}
	return !s->closed;
}

static bool is_user(const struct net_wishes *w)
{
	return !strcmp(w->kind, "user");
}

/* The files of a link: its socket, and the keeper's or -1. */
struct link {
	int socket, keeper;
};

static int make_link(const struct net_wishes *w, struct link *link)
{
	link->keeper = -1;
	link->socket = passed_note(is_user(w) ? net_user_start(w) : net_switch_connect(w->path));
	if (link->socket < 0 || is_user(w))
		return link->socket < 0 ? -1 : 0;
	link->keeper = passed_note(net_keeper_start(w->path, w->confine));
	return link->keeper < 0 ? -1 : 0;
}

static int take_link(const struct net_wishes *w, struct link *link)
{
	link->socket = passed_next();
	link->keeper = is_user(w) ? -1 : passed_next();
	return link->socket < 0 || (!is_user(w) && link->keeper < 0) ? net_complain(w->kind, "its files did not come along") : 0;
}

static int open_link(struct net *n, const struct net_wishes *w, struct net_backend *backend)
{
	struct link link;
	bool taken = passed_taking();
	int error = taken ? take_link(w, &link) : make_link(w, &link);
	n->stream.fd = link.socket;
	n->keeper = link.keeper;
	if (error)
		return -1;
	*backend = link_backend;
	if (stream_init(&n->stream, link.socket, 1) && greet(&n->stream, taken ? PATIENCE : -1)) {
		if (!taken)
			sandbox_allow_messages(n->keeper);
		return 0;
	}
	return is_user(w) && !taken ? -1 /* it has said why */ : net_complain(is_user(w) ? w->kind : w->path, "what is at the other end is no network of nadir's");
}

static int open_tap(struct net *n, const struct net_wishes *w, struct net_backend *backend)
{
	n->stream.fd = passed_taking() ? passed_next() : net_tap_open(w->interface);
	n->frame = malloc(sizeof(struct net_header) + NET_FRAME_MAX);
	*backend = tap_backend;
	return n->stream.fd >= 0 && n->frame ? 0 : -1;
}

static void release(struct net *n)
{
	free(n->frame);
	n->frame = NULL;
	if (n->stream.fd >= 0)
		stream_release(&n->stream);
	if (n->keeper >= 0)
		close(n->keeper);
	n->stream.fd = n->keeper = -1;
}

/* Addresses of nobody's, of those that virtual machines use. */
static void choose_mac(u8 *mac)
{
	static const u8 prefix[] = { 0x52, 0x54, 0x00 };
	memcpy(mac, prefix, sizeof(prefix));
	host_random(mac + sizeof(prefix), NET_MAC_SIZE - sizeof(prefix));
}

static int parse_option(char *text, bool confine, struct net_wishes *w)
{
	char usual[] = "10.0.2.0/24";
	*w = (struct net_wishes){ .ipv6 = true, .confine = confine };
	return !text || net_parse_network(usual, w) < 0 ? -1 : parse(text, w);
}

int net_open(unsigned index, const char *option, bool confine, struct net_backend *backend)
{
	struct net *n = &all.net[index];
	struct net_wishes w;
	char *text = strdup(option);
	n->index = index;
	n->stream = (struct stream){ .fd = -1 };
	n->keeper = -1;
	n->waits = n->asked = false;
	n->size = n->accepted = 0;
	int error = parse_option(text, confine, &w);
	if (!error)
		error = !strcmp(w.kind, "tap") ? open_tap(n, &w, backend) : open_link(n, &w, backend);
	if (!error) {
		if (!w.mac_given)
			choose_mac(w.mac);
		memcpy(backend->mac, w.mac, sizeof(backend->mac));
		backend->net = n;
		backend->offloads = NET_OFFLOADS;
		backend->pairs = w.pairs;
		n->live = true;
	} else {
		release(n);
	}
	free(text);
	return error ? -1 : 0;
}

int net_slot(const char *option)
{
	struct net_wishes w;
	char *text = strdup(option);
	int slot = parse_option(text, false, &w) < 0 ? -1 : (int)w.slot;
	free(text);
	return slot;
}

int net_prepare(const char *option, bool confine, struct passed_files *files)
{
	struct net_wishes w;
	struct link link;
	char *text = strdup(option);
	passed_record(files);
	int error = parse_option(text, confine, &w);
	if (!error && !strcmp(w.kind, "tap"))
		error = passed_note(net_tap_open(w.interface)) < 0 ? -1 : 0;
	else if (!error)
		error = make_link(&w, &link);
	passed_end();
	free(text);
	return error;
}

/* ---- the thread ---- */

/* Let the devices that are due do something. */
static void serve(void)
{
	for (unsigned i = 0; i < NETS_MAX; i++)
		if (all.net[i].live && atomic_exchange(&all.net[i].due, false) && all.ready(all.opaque, i))
			all.net[i].due = true;
}

static bool anything_due(void)
{
	bool due = all.stop;
	for (unsigned i = 0; i < NETS_MAX; i++)
		due |= all.net[i].live && all.net[i].due;
	return due;
}

/* See which files have something to say; sleep until one has, unless something is due. */
static void look(void)
{
	struct epoll_event event[NETS_MAX + 1];
	all.sleeping = true;
	int count = epoll_wait(all.epoll, event, ARRAY_SIZE(event), anything_due() ? 0 : -1);
	all.sleeping = false;
	for (int i = 0; i < count; i++) {
		if (event[i].data.u32 != WAKE)
			all.net[event[i].data.u32].due = true;
		else
			eventfd_read(all.wake, &(eventfd_t){ 0 });
	}
}

static void *net_thread(void *opaque)
{
	while (!all.stop) {
		serve();
		look();
	}
	return NULL;
}

static int watch_all(const struct net *n, int operation)
{
	return watch(n, operation, n->stream.fd) < 0 || watch(n, operation, n->keeper) < 0 ? -1 : 0;
}

int nets_start(bool (*ready)(void *opaque, unsigned index), void *opaque, bool more)
{
	for (unsigned i = 0; i < NETS_MAX; i++)
		more |= all.net[i].live;
	if (!more)
		return 0;
	all.ready = ready;
	all.opaque = opaque;
	all.epoll = epoll_create1(EPOLL_CLOEXEC);
	all.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = WAKE };
	if (all.epoll < 0 || all.wake < 0 || epoll_ctl(all.epoll, EPOLL_CTL_ADD, all.wake, &event) < 0)
		return errno;
	for (unsigned i = 0; i < NETS_MAX; i++)
		if (all.net[i].live && watch_all(&all.net[i], EPOLL_CTL_ADD) < 0)
			return errno;
	int error = sandbox_thread_create(&all.thread, SANDBOX_NET, net_thread, NULL);
	all.running = !error;
	return error;
}

int net_begin(unsigned index)
{
	return watch_all(&all.net[index], EPOLL_CTL_ADD);
}

/* The thread may find it due once more, and then finds nothing at the board. */
void net_close(unsigned index)
{
	struct net *n = &all.net[index];
	if (!n->live)
		return;
	n->live = false;
	watch_all(n, EPOLL_CTL_DEL);
	release(n);
	n->due = false;
}

void nets_stop(void)
{
	if (!all.running)
		return;
	all.stop = true;
	wake_thread();
	pthread_join(all.thread, NULL);
	all.running = false;
}

void nets_close(void)
{
	for (unsigned i = 0; i < NETS_MAX; i++)
		net_close(i);
	close(all.epoll);
	close(all.wake);
	all.epoll = all.wake = -1;
}
