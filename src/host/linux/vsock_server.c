/* The process that has the host's ends of a guest's sockets (vsock.h). Of the VMM it has nothing but the socket through which packets come and go, and a
 * filter of its own, so that the VMM needs to connect to nothing. */
#define _GNU_SOURCE
#include "host/linux/vsock.h"

#include "host/linux/net_internal.h"
#include "host/linux/vsock_mux.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGES_AT_ONCE 64u
#define CABLE 3
#define LISTENER 4

/* The one server of this process. */
static struct {
	struct vsock_mux *mux;
	char name[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* of the listener, in the current folder */
	u8 message[VSOCK_MESSAGE_MAX];
	struct pollfd poll[VSOCK_CONNECTIONS_MAX + 2];
} self;

static int dial(void *opaque, u32 port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", self.name, port);
	int fd = (size_t)length < sizeof(address.sun_path) ? socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
	if (fd >= 0 && connect(fd, (const void *)&address, sizeof(address)) < 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Write what waits for the guest, as much as the cable takes. */
static void write_packets(void)
{
	const u8 *packet;
	u32 size;
	while ((packet = vsock_mux_peek(self.mux, &size))) {
		ssize_t n = write(CABLE, packet, size);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && errno != EINTR)
			_exit(0);
		if (n >= 0)
			vsock_mux_next(self.mux);
	}
}

static void read_packets(void)
{
	for (unsigned i = 0; i < MESSAGES_AT_ONCE && !vsock_mux_full(self.mux); i++) {
		struct vsock_header header;
		ssize_t n = read(CABLE, self.message, sizeof(self.message));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0)
			_exit(0);
		if (n == 1) {
			vsock_mux_reset(self.mux);
			continue;
		}
		memcpy(&header, self.message, sizeof(header));
		if ((size_t)n >= sizeof(header) && header.length == (size_t)n - sizeof(header))
			vsock_mux_packet(self.mux, &header, self.message + sizeof(header));
	}
}

static void turn(void)
{
	u32 size;
	unsigned count = vsock_mux_wishes(self.mux, self.poll + 2) + 2;
	bool waiting = vsock_mux_peek(self.mux, &size), full = vsock_mux_full(self.mux);
	self.poll[0] = (struct pollfd){ .fd = CABLE, .events = (short)((full ? 0 : POLLIN) | (waiting ? POLLOUT : 0)) };
	self.poll[1] = (struct pollfd){ .fd = LISTENER, .events = POLLIN };
	poll(self.poll, count, -1);
	vsock_mux_ready(self.mux, self.poll + 2);
	if (self.poll[0].revents & (POLLIN | POLLHUP | POLLERR))
		read_packets();
	int fd = self.poll[1].revents ? accept4(LISTENER, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : -1;
	if (fd >= 0)
		vsock_mux_accept(self.mux, fd);
	write_packets();
}

/* ---- the start ---- */

static _Noreturn void give_up(const char *why)
{
	fprintf(stderr, "nadir: --vsock: %s\n", why);
	_exit(1);
}

/* Nothing of the VMM's: not its files, and not the terminal's signals. Names are within the socket's folder, however long its path is. */
static void detach(const struct vsock_server *s)
{
	char *folder = strdup(s->path), *name = strdup(s->path);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), cable = fcntl(s->cable, F_DUPFD, 64), listener = fcntl(s->listener, F_DUPFD, 64);
	if (!folder || !name || null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(cable, CABLE) < 0 ||
	    dup2(listener, LISTENER) < 0 || close_range(LISTENER + 1, ~0u, 0) < 0 || chdir(dirname(folder)) < 0)
		give_up(strerror(errno));
	snprintf(self.name, sizeof(self.name), "%s", basename(name));
	setsid();
	prctl(PR_SET_NAME, "nadir-vsock");
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
	free(folder);
	free(name);
}

void vsock_serve(const struct vsock_server *server)
{
	detach(server);
	self.mux = vsock_mux_create(server->cid, dial, NULL);
	if (!self.mux)
		give_up(strerror(ENOMEM));
	if (server->confine && net_sandbox_enter(NET_MAY_RELAY, NULL) < 0)
		give_up("its process cannot be confined; --sandbox off runs without");
	dup2(STDIN_FILENO, STDERR_FILENO);
	if (write(CABLE, "", 1) != 1)
		_exit(0);
	for (;;)
		turn();
}
