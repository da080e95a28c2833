/* `nadir switch`: an Ethernet switch for the virtual machines of one host, which connect to its Unix socket (net_switch.h, net_stream.h).
 *
 * It learns which station is at which port, as every switch does. Machines that take frames with work left to do get them as they are; for
 * others, QEMU's among them, it does that work. A machine that does not fetch its frames loses some, and keeps nobody else waiting. */
#define _GNU_SOURCE
#include "host/linux/net_switch.h"

#include "host/linux/net_internal.h"
#include "host/linux/net_offload.h"
#include "host/linux/net_stream.h"
#include "host/linux/run.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PORTS_MAX 128
#define STATIONS 4096u
#define FRAMES_AT_ONCE 64u
#define BACKLOG_MOST 0x200000u
#define NO_PORT 0xff

struct port {
	struct stream stream;
	bool used, more; /* more: frames wait in its buffer */
};

/* The one switch of the process. */
static struct {
	int listener;
	struct port port[PORTS_MAX];
	struct station {
		u8 mac[NET_MAC_SIZE];
		u8 port;
	} station[STATIONS]; /* by a hash of the address; the last one seen of those with the same */
} sw;

/* ---- stations ---- */

static struct station *station_of(const u8 *mac)
{
	u32 hash = get_be32(mac + 2) * 0x9e3779b1u ^ get_be16(mac);
	return &sw.station[(hash ^ hash >> 16) % STATIONS];
}

static void learn(const u8 *mac, unsigned port)
{
	struct station *s = station_of(mac);
	if (mac[0] & 1)
		return;
	memcpy(s->mac, mac, NET_MAC_SIZE);
	s->port = (u8)port;
}

/* NO_PORT: all of them. */
static unsigned look_up(const u8 *mac)
{
	const struct station *s = station_of(mac);
	return !(mac[0] & 1) && !memcmp(s->mac, mac, NET_MAC_SIZE) ? s->port : NO_PORT;
}

static void forget(unsigned port)
{
	for (unsigned i = 0; i < STATIONS; i++)
		if (sw.station[i].port == port)
			sw.station[i].port = NO_PORT;
}

/* ---- frames ---- */

static void put(struct port *p, const struct net_header *header, const u8 *frame, u32 size)
{
	const struct iovec vector[] = { { (void *)(uintptr_t)header, sizeof(*header) }, { (void *)(uintptr_t)frame, size } };
	bool headers = p->stream.headers_out;
	stream_send(&p->stream, vector + !headers, headers ? 2 : 1);
}

static void put_complete(void *port, u8 *frame, u32 size)
{
	const struct net_header none = { 0 };
	put(port, &none, frame, size);
}

static void give(struct port *p, const struct net_header *header, const u8 *frame, u32 size)
{
	static u8 copy[NET_FRAME_MAX];
	struct net_header h = *header;
	if (!(p->stream.accepts & NET_CHECKSUM))
		h.flags &= (u8)~NET_DATA_VALID;
	if (offload_accepted(&h, p->stream.accepts)) {
		put(p, &h, frame, size);
		return;
	}
	memcpy(copy, frame, size);
	offload_complete(&h, copy, size, put_complete, p);
}

static void forward(unsigned from, const struct net_header *header, const u8 *frame, u32 size)
{
	learn(frame + NET_MAC_SIZE, from);
	unsigned to = look_up(frame);
	for (unsigned i = 0; i < PORTS_MAX; i++)
		if (sw.port[i].used && i != from && (to == NO_PORT || to == i))
			give(&sw.port[i], header, frame, size);
}

static void read_frames(unsigned from)
{
	struct port *p = &sw.port[from];
	unsigned i;
	for (i = 0; i < FRAMES_AT_ONCE; i++) {
		u32 size;
		struct net_header header = { 0 };
		const u8 *frame = stream_peek(&p->stream, &size);
		if (p->stream.headers_in && !p->stream.headers_out)
			stream_accept(&p->stream, NET_OFFLOADS);
		if (!frame)
			break;
		u32 skip = p->stream.headers_in ? sizeof(header) : 0;
		memcpy(&header, frame, skip);
		forward(from, &header, frame + skip, size - skip);
		stream_next(&p->stream);
	}
	p->more = i == FRAMES_AT_ONCE;
}

/* ---- ports ---- */

static void take_in(void)
{
	int fd = accept4(sw.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	for (unsigned i = 0; fd >= 0 && i < PORTS_MAX; i++) {
		struct port *p = &sw.port[i];
		if (p->used)
			continue;
		p->used = stream_init(&p->stream, fd, BACKLOG_MOST);
		if (!p->used)
			break;
		p->stream.level = true;
		return;
	}
	if (fd >= 0)
		close(fd);
}

static void flush_and_close(void)
{
	for (unsigned i = 0; i < PORTS_MAX; i++) {
		struct port *p = &sw.port[i];
		if (p->used)
			stream_flush(&p->stream);
		if (!p->used || !p->stream.closed)
			continue;
		stream_release(&p->stream);
		*p = (struct port){ 0 };
		forget(i);
	}
}

static void turn(void)
{
	struct pollfd on[PORTS_MAX + 1];
	bool more = false;
	for (unsigned i = 0; i < PORTS_MAX; i++) {
		const struct port *p = &sw.port[i];
		on[i] = (struct pollfd){ .fd = p->used ? p->stream.fd : -1, .events = (short)(POLLIN | (p->stream.out_end ? POLLOUT : 0)) };
		more |= p->more;
	}
	on[PORTS_MAX] = (struct pollfd){ .fd = sw.listener, .events = POLLIN };
	if (poll(on, ARRAY_SIZE(on), more ? 0 : -1) < 0)
		return;
	for (unsigned i = 0; i < PORTS_MAX; i++) {
		struct port *p = &sw.port[i];
		if (p->used && (p->more || (on[i].revents & ~POLLOUT)))
			read_frames(i);
	}
	flush_and_close();
	if (on[PORTS_MAX].revents)
		take_in();
}

/* ---- the socket ---- */

static int refuse(const char *path, const char *why)
{
	fprintf(stderr, "nadir: --path: %s: %s\n", path, why);
	return -1;
}

static bool make_address(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(address->sun_path)) {
		errno = ENAMETOOLONG;
		return false;
	}
	memcpy(address->sun_path, path, strlen(path));
	return true;
}

static int connect_to(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

int net_connect_to(const char *path)
{
	struct sockaddr_un address;
	return make_address(&address, path) ? connect_to(&address) : -1;
}

int net_switch_connect(const char *path)
{
	int fd = net_connect_to(path);
	if (fd >= 0)
		return fd;
	return net_complain(path, errno == ENAMETOOLONG ? "the path of a socket has 107 characters at most"
				  : errno == ENOENT || errno == ECONNREFUSED ? "no switch is there; start one with nadir switch --path"
									     : strerror(errno));
}

/* A socket that nobody listens at is left by an earlier switch. */
static bool make_way(const struct sockaddr_un *address)
{
	int fd = connect_to(address);
	if (fd >= 0)
		close(fd);
	return fd < 0 && (errno == ENOENT || (errno == ECONNREFUSED && !unlink(address->sun_path)));
}

/* For its user alone: who can connect can speak for every station. */
static int open_socket(const char *path)
{
	struct sockaddr_un address;
	if (!make_address(&address, path))
		return refuse(path, "the path of a socket has 107 characters at most");
	if (!make_way(&address))
		return refuse(path, errno == ECONNREFUSED || !errno ? "it is in use" : strerror(errno));
	sw.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	mode_t mask = umask(0077);
	bool made = sw.listener >= 0 && !bind(sw.listener, (const struct sockaddr *)&address, sizeof(address)) && !listen(sw.listener, 64);
	umask(mask);
	return made ? 0 : refuse(path, strerror(errno));
}

/* ---- the command ---- */

static void on_end(int number)
{
	_exit(STATUS_OK);
}

static int help(void)
{
	printf("usage: nadir switch --path SOCKET [--sandbox on|off]\n\n"
	       "An Ethernet switch for the virtual machines of this host: nadir run --net switch,path=SOCKET connects one, and QEMU's\n"
	       "-netdev stream,server=off,addr.type=unix,addr.path=SOCKET. It runs until it is interrupted.\n");
	return STATUS_OK;
}

static int run_switch(const char *path, bool confine)
{
	errno = 0;
	if (open_socket(path) < 0)
		return STATUS_USAGE;
	for (unsigned i = 0; i < STATIONS; i++)
		sw.station[i].port = NO_PORT;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, on_end);
	signal(SIGTERM, on_end);
	if (confine && net_sandbox_enter(NET_MAY_SWITCH, NULL) < 0) {
		fprintf(stderr, "nadir: the switch cannot be confined; --sandbox off runs without\n");
		return STATUS_FAILURE;
	}
	for (;;)
		turn();
}

int switch_main(int argc, char **argv)
{
	static const struct option options[] = { { "path", 1, NULL, 'p' }, { "sandbox", 1, NULL, 's' }, { "help", 0, NULL, 'h' }, { 0 } };
	const char *path = NULL;
	bool confine = true;
	int option;
	while ((option = getopt_long(argc, argv, "p:h", options, NULL)) != -1) {
		if (option == 'h')
			return help();
		if (option == 'p')
			path = optarg;
		else if (option == 's' && (!strcmp(optarg, "on") || !strcmp(optarg, "off")))
			confine = !strcmp(optarg, "on");
		else if (option == 's')
			return fprintf(stderr, "nadir: --sandbox: '%s' is not one of on|off\n", optarg), STATUS_USAGE;
		else
			return STATUS_USAGE;
	}
	if (!path || optind < argc) {
		fprintf(stderr, "nadir: switch needs --path SOCKET and nothing else; see nadir switch --help\n");
		return STATUS_USAGE;
	}
	return run_switch(path, confine);
}
