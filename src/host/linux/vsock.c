/* The cable between the virtio socket device and the process that has the host's ends (vsock.h).
 *
 * Sending is done by the vCPU that asks, in its exit. The thread sleeps until packets come, or room that somebody asked for; the socket is watched for edges
 * alone, since what the device leaves because its driver has no buffers is fetched by the vCPU that brings some. */
#define _GNU_SOURCE
#include "host/linux/vsock.h"

#include "host/linux/runtime.h"
#include "host/linux/sandbox_thread.h"
#include "host/port.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* The one cable of the process. */
static struct {
	int fd; /* -1: there is none */
	bool waits; /* for room; this and what follows up to `lost`: under the board's lock */
	bool reset_due;
	u32 size; /* of the message that waits; 0: none */
	u8 *message;
	bool lost; /* the process is gone */

	int epoll, stop;
	bool running;
	pthread_t thread;
	void (*ready)(void *opaque);
	void *opaque;
} cable = { .fd = -1, .epoll = -1, .stop = -1 };

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "nadir: --vsock: %s: %s\n", what, why);
	return -1;
}

/* ---- the cable ---- */

static int watch(int operation)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET | (cable.waits ? EPOLLOUT : 0), .data.fd = cable.fd };
	return cable.epoll < 0 ? 0 : epoll_ctl(cable.epoll, operation, cable.fd, &event);
}

static void wait_for_room(bool waits)
{
	if (cable.waits == waits)
		return;
	cable.waits = waits;
	watch(EPOLL_CTL_MOD);
}

static void lose(void)
{
	if (!cable.lost)
		host_log(LOG_ERROR, "the process of the guest's sockets has ended: none can be connected any more");
	cable.lost = true;
}

/* One message. False: there is no room. */
static bool put(const struct iovec *piece, unsigned pieces)
{
	ssize_t n;
	do
		n = writev(cable.fd, piece, (int)pieces);
	while (n < 0 && errno == EINTR);
	bool full = n < 0 && errno == EAGAIN;
	if (n < 0 && !full)
		lose();
	wait_for_room(full);
	return !full;
}

static bool put_reset(void)
{
	u8 byte = 0;
	if (cable.reset_due)
		cable.reset_due = !put(&(struct iovec){ &byte, 1 }, 1);
	return !cable.reset_due;
}

static bool cable_send(void *opaque, const struct vsock_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	struct iovec vector[VIRTQ_PIECES_MAX + 1] = { { (void *)(uintptr_t)header, sizeof(*header) } };
	for (unsigned i = 0; i < pieces; i++)
		vector[i + 1] = (struct iovec){ piece[i].data, piece[i].size };
	return put_reset() && put(vector, pieces + 1);
}

static const u8 *cable_peek(void *opaque, u32 *size)
{
	ssize_t n = cable.size;
	while (!n) {
		n = read(cable.fd, cable.message, VSOCK_MESSAGE_MAX);
		if (!n)
			lose();
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			return NULL;
	}
	cable.size = *size = (u32)n;
	return cable.message;
}

static void cable_next(void *opaque)
{
	cable.size = 0;
}

static void cable_reset(void *opaque)
{
	cable.reset_due = true;
	put_reset();
}

/* ---- the option ---- */

struct wishes {
	u32 cid;
	char *path;
};

static int parse_cid(const char *text, u32 *cid)
{
	char *end;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || n < VSOCK_CID_FIRST || n > VSOCK_CID_LAST)
		return complain(text, "a CID is a number from 3 to 4294967294");
	*cid = (u32)n;
	return 0;
}

static int parse(char *text, struct wishes *w)
{
	char *rest = text;
	for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ",")) {
		if (!strncmp(word, "cid=", 4)) {
			if (parse_cid(word + 4, &w->cid) < 0)
				return -1;
		} else if (!strncmp(word, "path=", 5) && word[5]) {
			w->path = word + 5;
		} else {
			return complain(word, "it is not cid=N,path=SOCKET");
		}
	}
	return w->cid && w->path ? 0 : complain(text, "both are needed: cid=N,path=SOCKET");
}

/* ---- life ---- */

static int start_process(const struct wishes *w, int listener, bool confine)
{
	int fd[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) < 0)
		return complain(w->path, strerror(errno));
	const struct vsock_server server = { .cable = fd[1], .listener = listener, .path = w->path, .cid = w->cid, .confine = confine };
	pid_t pid = fork();
	if (!pid)
		vsock_serve(&server);
	close(fd[1]);
	cable.fd = fd[0];
	if (pid < 0)
		return complain(w->path, strerror(errno));
	u8 byte;
	poll(&(struct pollfd){ .fd = cable.fd, .events = POLLIN }, 1, -1);
	return read(cable.fd, &byte, 1) == 1 ? 0 : -1; /* it has said why */
}

int vsock_open(const char *option, bool confine, struct vsock_backend *backend)
{
	struct wishes w = { 0 };
	char *text = strdup(option);
	cable.message = malloc(VSOCK_MESSAGE_MAX);
	if (!text || !cable.message) {
		free(text);
		return complain(option, strerror(ENOMEM));
	}
	int error = parse(text, &w);
	int listener = error ? -1 : runtime_listen("vsock", w.path);
	if (!error)
		error = listener < 0 ? -1 : start_process(&w, listener, confine);
	if (listener >= 0)
		close(listener);
	free(text);
	*backend = (struct vsock_backend){ .send = cable_send, .peek = cable_peek, .next = cable_next, .reset = cable_reset, .cid = w.cid };
	return error;
}

static void *cable_thread(void *opaque)
{
	for (;;) {
		struct epoll_event event;
		if (epoll_wait(cable.epoll, &event, 1, -1) != 1)
			continue;
		if (event.data.fd == cable.stop)
			return NULL;
		cable.ready(cable.opaque);
	}
}

int vsock_start(void (*ready)(void *opaque), void *opaque)
{
	if (cable.fd < 0)
		return 0;
	cable.ready = ready;
	cable.opaque = opaque;
	cable.epoll = epoll_create1(EPOLL_CLOEXEC);
	cable.stop = eventfd(0, EFD_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = cable.stop };
	if (cable.epoll < 0 || cable.stop < 0 || epoll_ctl(cable.epoll, EPOLL_CTL_ADD, cable.stop, &event) < 0 || watch(EPOLL_CTL_ADD) < 0)
		return errno;
	int error = sandbox_thread_create(&cable.thread, SANDBOX_VSOCK, cable_thread, NULL);
	cable.running = !error;
	return error;
}

void vsock_stop(void)
{
	if (!cable.running)
		return;
	eventfd_write(cable.stop, 1);
	pthread_join(cable.thread, NULL);
	cable.running = false;
}

static void close_file(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void vsock_close(void)
{
	free(cable.message);
	cable.message = NULL;
	close_file(&cable.fd);
	close_file(&cable.epoll);
	close_file(&cable.stop);
}
