/* User-mode network: libslirp, which ends the guest's connections and makes them anew by sockets of the host's, in a process of its own. It has no
 * guest memory, no files but its sockets, and a filter of its own, so that the VMM needs no sockets at all.
 *
 * Slirp sends and takes large segments, which cost no more than small ones: a driver that takes large frames finds its offers of a segment size
 * raised on their way, and gets each segment as one frame that says how it would be cut. Who does not, gets it cut. */
#define _GNU_SOURCE
#include "host/linux/library.h"
#include "host/linux/net_internal.h"
#include "host/linux/net_offload.h"
#include "host/linux/net_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MTU 65520u            /* Slirp's; the guest's is NET_MTU */
#define SEGMENT_SIZE 65460u   /* what the guest seems to take */
#define SEGMENT_SIZE_USUAL 1460u
#define FLOWS 1024u
#define BACKLOG 0x40000u      /* of frames to the guest, with which no more is read from sockets */
#define BACKLOG_MOST 0x400000u /* with which frames are lost */
#define FRAMES_AT_ONCE 64u
#define TIMERS_MAX 8
#define LIBRARY "libslirp.so.0"
#define FUNCTIONS(F) F(slirp_, new) F(slirp_, add_hostfwd) F(slirp_, input) F(slirp_, pollfds_fill) F(slirp_, pollfds_poll)

static struct {
	FUNCTIONS(LIBRARY_MEMBER)
} lib; /* loaded by `live`: the VMM does without it */

struct timer {
	SlirpTimerCb fire;
	void *opaque;
	int64_t due; /* milliseconds; 0: not set */
	bool used;
};

/* The one network of this process. */
static struct {
	struct stream stream;
	Slirp *slirp;
	struct pollfd *poll;
	unsigned polls, polls_size;
	struct timer timer[TIMERS_MAX];
	u16 flow[FLOWS]; /* segment sizes that the guest offered, by a hash of ports */
} user;

/* ---- large segments ---- */

static u16 *flow_of(const u8 *guest_port, const u8 *other_port)
{
	return &user.flow[(get_be16(guest_port) * 31u + get_be16(other_port)) % FLOWS];
}

static u32 tso_of(const struct tcp_place *place)
{
	return place->ipv6 ? NET_TSO6 : NET_TSO4;
}

static void store_tcp_sum(u8 *frame, const struct tcp_place *place)
{
	struct net_header sum = { .flags = NET_NEEDS_CHECKSUM, .checksum_start = (u16)place->transport, .checksum_offset = 16 };
	u16 pseudo = tcp_pseudo_sum(frame, place);
	memcpy(frame + place->transport + 16, &pseudo, sizeof(pseudo));
	offload_checksum(&sum, frame, place->end);
}

/* The guest opens a connection: remember its segment size, and make Slirp believe in a larger one. */
static void raise_segment_size(u8 *frame, const struct tcp_place *place)
{
	u8 *tcp = frame + place->transport, *option = tcp_segment_size_option(frame, place);
	if (!option || !(user.stream.accepts & tso_of(place)))
		return;
	*flow_of(tcp, tcp + 2) = get_be16(option);
	put_be16(option, SEGMENT_SIZE);
	store_tcp_sum(frame, place);
}

/* A frame with a large segment for the guest: how to cut it. */
static struct net_header describe(u8 *frame, const struct tcp_place *place)
{
	const u8 *tcp = frame + place->transport;
	u16 size = *flow_of(tcp + 2, tcp), pseudo = tcp_pseudo_sum(frame, place);
	memcpy(frame + place->transport + 16, &pseudo, sizeof(pseudo));
	return (struct net_header){
		.flags = NET_NEEDS_CHECKSUM,
		.gso_type = place->ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4,
		.header_length = (u16)place->data,
		.gso_size = size ? size : SEGMENT_SIZE_USUAL,
		.checksum_start = (u16)place->transport,
		.checksum_offset = 16,
	};
}

/* ---- frames ---- */

static void put(const struct net_header *header, const u8 *frame, u32 size)
{
	const struct iovec vector[] = { { (void *)(uintptr_t)header, sizeof(*header) }, { (void *)(uintptr_t)frame, size } };
	stream_send(&user.stream, vector, ARRAY_SIZE(vector));
}

static void put_complete(void *opaque, u8 *frame, u32 size)
{
	const struct net_header none = { 0 };
	put(&none, frame, size);
}

static ssize_t from_slirp(const void *data, size_t size, void *opaque)
{
	static u8 frame[NET_FRAME_MAX];
	struct tcp_place place;
	struct net_header header = { .flags = user.stream.accepts & NET_CHECKSUM ? NET_DATA_VALID : 0 };
	if (size < NET_FRAME_MIN || size > sizeof(frame))
		return (ssize_t)size;
	if (size <= NET_FRAME_MIN + NET_MTU) {
		put(&header, data, (u32)size);
		return (ssize_t)size;
	}
	memcpy(frame, data, size);
	if (!tcp_find(frame, (u32)size, &place)) {
		offload_fragment(frame, (u32)size, put_complete, NULL);
		return (ssize_t)size;
	}
	header = describe(frame, &place);
	if (offload_accepted(&header, user.stream.accepts))
		put(&header, frame, place.end);
	else
		offload_complete(&header, frame, place.end, put_complete, NULL);
	return (ssize_t)size;
}

/* A segment of any size is one frame to Slirp. */
static void to_slirp(struct net_header *header, u8 *frame, u32 size)
{
	struct tcp_place place;
	bool tcp = tcp_find(frame, size, &place);
	if (tcp && header->gso_type != NET_GSO_NONE)
		store_tcp_sum(frame, &place);
	else if (!offload_checksum(header, frame, size))
		return;
	if (tcp)
		raise_segment_size(frame, &place);
	lib.input(user.slirp, frame, (int)size);
}

/* True: there is more. */
static bool read_frames(void)
{
	for (unsigned i = 0; i < FRAMES_AT_ONCE; i++) {
		u32 size;
		struct net_header header;
		u8 *frame = (u8 *)(uintptr_t)stream_peek(&user.stream, &size);
		if (!frame)
			return false;
		if (user.stream.headers_in) {
			memcpy(&header, frame, sizeof(header));
			to_slirp(&header, frame + sizeof(header), size - (u32)sizeof(header));
		}
		stream_next(&user.stream);
	}
	return true;
}

/* ---- what Slirp asks of its surroundings ---- */

static int64_t clock_ns(void *opaque)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ms(void)
{
	return clock_ns(NULL) / 1000000;
}

static void *timer_new(SlirpTimerCb fire, void *timer_opaque, void *opaque)
{
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct timer *t = &user.timer[i];
		if (t->used)
			continue;
		*t = (struct timer){ .fire = fire, .opaque = timer_opaque, .used = true };
		return t;
	}
	return NULL;
}

static void timer_free(void *timer, void *opaque)
{
	if (timer)
		((struct timer *)timer)->used = false;
}

static void timer_mod(void *timer, int64_t due, void *opaque)
{
	if (timer)
		((struct timer *)timer)->due = due;
}

static void run_timers(void)
{
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct timer *t = &user.timer[i];
		if (!t->used || !t->due || t->due > now_ms())
			continue;
		t->due = 0;
		t->fire(t->opaque);
	}
}

/* Milliseconds, cut down to the next timer. */
static u32 until_timer(u32 wait)
{
	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		const struct timer *t = &user.timer[i];
		if (t->used && t->due)
			wait = (u32)MIN((int64_t)wait, MAX(t->due - now_ms(), (int64_t)0));
	}
	return wait;
}

static void say_nothing(const char *message, void *opaque)
{
}

static void poll_changed(int fd, void *opaque)
{
}

static void no_notification(void *opaque)
{
}

static const SlirpCb callbacks = {
	.send_packet = from_slirp,
	.guest_error = say_nothing,
	.clock_get_ns = clock_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = poll_changed,
	.unregister_poll_fd = poll_changed,
	.notify = no_notification,
};

/* ---- the loop ---- */

static const struct {
	short poll;
	int slirp;
} events[] = { { POLLIN, SLIRP_POLL_IN }, { POLLOUT, SLIRP_POLL_OUT }, { POLLPRI, SLIRP_POLL_PRI }, { POLLERR, SLIRP_POLL_ERR }, { POLLHUP, SLIRP_POLL_HUP } };

static int add_poll(int fd, int wanted, void *opaque)
{
	if (user.polls == user.polls_size) {
		struct pollfd *more = realloc(user.poll, 2 * user.polls_size * sizeof(*more));
		if (!more)
			return -1;
		user.poll = more;
		user.polls_size *= 2;
	}
	struct pollfd *p = &user.poll[user.polls];
	*p = (struct pollfd){ .fd = fd };
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if ((wanted & events[i].slirp) && events[i].poll != POLLERR && events[i].poll != POLLHUP)
			p->events |= events[i].poll;
	return (int)user.polls++;
}

static int get_events(int index, void *opaque)
{
	int got = 0;
	for (size_t i = 0; index >= 0 && i < ARRAY_SIZE(events); i++)
		if (user.poll[index].revents & events[i].poll)
			got |= events[i].slirp;
	return got;
}

static void turn(bool *more)
{
	u32 wait = UINT32_MAX;
	size_t backlog = user.stream.out_end - user.stream.out_begin;
	user.polls = 1;
	if (backlog < BACKLOG)
		lib.pollfds_fill(user.slirp, &wait, add_poll, NULL);
	wait = *more ? 0 : until_timer(wait);
	user.poll[0] = (struct pollfd){ .fd = user.stream.fd, .events = (short)(POLLIN | (backlog ? POLLOUT : 0)) };
	int count = poll(user.poll, user.polls, wait > INT_MAX ? -1 : (int)wait);
	run_timers();
	if (backlog < BACKLOG)
		lib.pollfds_poll(user.slirp, count < 0, get_events, NULL);
	*more = read_frames();
	stream_flush(&user.stream);
}

/* ---- the process ---- */

/* The network's first addresses: the host's is .2, names are served at .3, guests begin at .15. */
static struct in_addr address(const struct net_wishes *w, u32 number)
{
	return (struct in_addr){ htonl(ntohl(w->network.s_addr) + number) };
}

static Slirp *create(const struct net_wishes *w)
{
	SlirpConfig config = {
		.version = 1,
		.restricted = w->restricted,
		.in_enabled = true,
		.vnetwork = w->network,
		.vnetmask = w->mask,
		.vhost = address(w, 2),
		.vnameserver = address(w, 3),
		.vdhcp_start = address(w, 15),
		.tftp_path = w->tftp,
		.bootfile = w->bootfile,
		.in6_enabled = w->ipv6,
		.vprefix_len = 64,
		.if_mtu = MTU,
		.if_mru = MTU,
	};
	inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &config.vhost6);
	inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
	return lib.new(&config, &callbacks, NULL);
}

static bool forward(const struct net_wishes *w)
{
	for (unsigned i = 0; i < w->forwards; i++) {
		const struct net_forward *f = &w->forward[i];
		struct in_addr guest = f->guest.s_addr ? f->guest : address(w, 15);
		if (lib.add_hostfwd(user.slirp, f->udp, f->host, f->host_port, guest, f->guest_port) < 0) {
			net_complain(f->text, strerror(errno));
			return false;
		}
	}
	return true;
}

bool net_detach(int fd, const char *name)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	setsid();
	prctl(PR_SET_NAME, name);
	signal(SIGPIPE, SIG_IGN);
	return null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 && !setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 }) &&
	       dup2(fd, NET_DETACHED) >= 0 && !close_range(NET_DETACHED + 1, ~0u, 0);
}

static _Noreturn void live(int fd, const struct net_wishes *w)
{
	static const char *const names[] = { FUNCTIONS(LIBRARY_NAME) };
	bool more = false;
	const char *why;
	if (!library_load(LIBRARY, names, (void **)&lib, ARRAY_SIZE(names), &why)) {
		net_complain("user", why);
		_exit(1);
	}
	user.polls_size = 64;
	user.poll = malloc(user.polls_size * sizeof(*user.poll));
	if (!user.poll || !net_detach(fd, "nadir-net") || !stream_init(&user.stream, NET_DETACHED, BACKLOG_MOST) || !(user.slirp = create(w))) {
		net_complain("user", "the network cannot be made");
		_exit(1);
	}
	user.stream.level = true;
	if (!forward(w))
		_exit(1);
	if (w->confine && net_sandbox_enter(NET_MAY_INTERNET, w->tftp) < 0) {
		net_complain("user", "its process cannot be confined; --sandbox off runs without");
		_exit(1);
	}
	dup2(STDIN_FILENO, STDERR_FILENO);
	stream_accept(&user.stream, NET_OFFLOADS);
	while (!user.stream.closed)
		turn(&more);
	_exit(0);
}

int net_user_start(const struct net_wishes *w)
{
	int fd[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) < 0)
		return net_complain("user", strerror(errno));
	pid_t pid = fork();
	if (!pid)
		live(fd[1], w);
	close(fd[1]);
	if (pid > 0)
		return fd[0];
	close(fd[0]);
	return net_complain("user", strerror(errno));
}
