/* VNC, the process that speaks with clients (vnc.h). It asks for a picture when a client waits for one, and no more often than thirty times a second; nobody
 * looks, nothing runs. */
#define _GNU_SOURCE
#include "host/linux/vnc.h"

#include "host/linux/net_internal.h"
#include "host/linux/rfb.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 8
#define REFUSAL_MS 1000
#define PERIOD_MS 33
#define PERIOD_IDLE_MS 100 /* when nothing has changed for a while */
#define IDLE_AFTER 30 /* pictures */

static struct {
	int vmm, listening;
	const u32 *pixel;
	unsigned width, height; /* of the picture that is there */
	bool asked; /* for another one */
	u64 asked_at; /* milliseconds */
	u64 deaf_until; /* milliseconds: nobody new is let in before */
	unsigned same; /* pictures in which nothing changed */
	struct client {
		int fd; /* 0: none */
		struct rfb rfb;
	} client[CLIENTS_MAX];
} server = { .width = 720, .height = 400 };

static u64 now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000 + (u64)t.tv_nsec / 1000000;
}

static int until(u64 due)
{
	u64 now = now_ms();
	return due > now ? (int)(due - now) : 0;
}

static void tell(u32 kind, u32 a, u32 b, u32 c)
{
	const struct vnc_message m = { kind, a, b, c };
	if (write(server.vmm, &m, sizeof(m)) != sizeof(m))
		_exit(0);
}

static void on_key(void *opaque, u16 code, bool down)
{
	server.same = 0;
	tell(VNC_KEY, code, down, 0);
}

static void on_pointer(void *opaque, u16 x, u16 y, u8 buttons)
{
	server.same = 0;
	tell(VNC_POINTER, x, y, buttons);
}

/* Whoever guesses passwords does so at this pace, however many connections there are. */
static void on_refused(void *opaque)
{
	server.deaf_until = now_ms() + REFUSAL_MS;
}

/* Not short for so few bytes. */
static void on_random(void *opaque, u8 *bytes, size_t size)
{
	if (getrandom(bytes, size, 0) != (ssize_t)size)
		_exit(1);
}

static struct rfb_events events = { .key = on_key, .pointer = on_pointer, .random = on_random, .refused = on_refused };

/* ---- clients ---- */

static void leave(struct client *c)
{
	close(c->fd);
	rfb_release(&c->rfb);
	c->fd = 0;
}

static void accept_one(void)
{
	int fd = accept4(server.listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	for (unsigned i = 0; fd >= 0 && i < CLIENTS_MAX; i++) {
		struct client *c = &server.client[i];
		if (c->fd)
			continue;
		c->fd = fd;
		rfb_init(&c->rfb, &events, server.width, server.height);
		return;
	}
	if (fd >= 0)
		close(fd);
}

/* False: it is gone. */
static bool receive(struct client *c)
{
	u8 buffer[4096];
	ssize_t n = read(c->fd, buffer, sizeof(buffer));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	return n && rfb_take(&c->rfb, buffer, (size_t)n);
}

static bool flush(struct client *c)
{
	struct rfb *r = &c->rfb;
	while (r->out_sent < r->out_used) {
		ssize_t n = write(c->fd, r->out + r->out_sent, r->out_used - r->out_sent);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		r->out_sent += (size_t)n;
	}
	return !r->broken;
}

static void attend(struct client *c, short ready)
{
	if (!c->fd)
		return;
	bool stays = !(ready & (POLLERR | POLLNVAL)) && (!(ready & (POLLIN | POLLHUP)) || receive(c));
	bool sent = flush(c); /* a client that is refused is told so */
	if (!stays || !sent)
		leave(c);
}

/* ---- pictures ---- */

static bool waits(const struct client *c)
{
	return c->fd && c->rfb.stage == RFB_NORMAL && c->rfb.wants && c->rfb.out_sent == c->rfb.out_used;
}

static void take_picture(void)
{
	struct vnc_message m;
	bool any = false;
	if (read(server.vmm, &m, sizeof(m)) != sizeof(m) || m.kind != VNC_PICTURE || !m.a || !m.b || (u64)m.a * m.b * 4 > VGA_PICTURE_MAX)
		_exit(0);
	server.asked = false;
	server.width = m.a;
	server.height = m.b;
	const struct rfb_picture picture = { server.pixel, m.a, m.b };
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &server.client[i];
		if (!waits(c))
			continue;
		if (!rfb_update(&c->rfb, &picture) || !flush(c)) {
			leave(c);
			continue;
		}
		any |= !c->rfb.wants;
	}
	server.same = any ? 0 : server.same + 1;
}

/* Milliseconds until a picture is to be asked for; -1: nobody looks, or one is on its way. */
static int until_next(void)
{
	bool wanted = false;
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		wanted |= waits(&server.client[i]);
	if (!wanted || server.asked)
		return -1;
	return until(server.asked_at + (server.same > IDLE_AFTER ? PERIOD_IDLE_MS : PERIOD_MS));
}

static void ask_if_due(void)
{
	if (until_next() != 0)
		return;
	server.asked = true;
	server.asked_at = now_ms();
	tell(VNC_WANTED, 0, 0, 0);
}

/* ---- the process ---- */

static void turn(void)
{
	struct pollfd ready[2 + CLIENTS_MAX] = { { .fd = server.vmm, .events = POLLIN }, { .fd = server.listening, .events = POLLIN } };
	for (unsigned i = 0; i < CLIENTS_MAX; i++) {
		const struct client *c = &server.client[i];
		bool sends = c->rfb.out_sent != c->rfb.out_used;
		ready[2 + i] = (struct pollfd){ .fd = c->fd ? c->fd : -1, .events = (short)(POLLIN | (sends ? POLLOUT : 0)) };
	}
	int deaf = until(server.deaf_until), next = until_next();
	ready[1].fd = deaf ? -1 : server.listening;
	if (poll(ready, ARRAY_SIZE(ready), deaf && (next < 0 || deaf < next) ? deaf : next) < 0)
		return;
	if (ready[0].revents)
		take_picture();
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		attend(&server.client[i], ready[2 + i].revents);
	if (ready[1].revents)
		accept_one();
	ask_if_due();
}

/* Nothing of the VMM's but the two sockets, and not the terminal's signals. */
static bool detach(int vmm, int listening)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int high_vmm = fcntl(vmm, F_DUPFD_CLOEXEC, 5), high_listening = fcntl(listening, F_DUPFD_CLOEXEC, 5);
	setsid();
	prctl(PR_SET_NAME, "nadir-vnc");
	signal(SIGPIPE, SIG_IGN);
	return null >= 0 && high_vmm >= 0 && high_listening >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 &&
	       !setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 }) && dup2(high_vmm, 3) >= 0 && dup2(high_listening, 4) >= 0 && !close_range(5, ~0u, 0);
}

void vnc_serve(int vmm, int listening, const u32 *picture, const char *password, bool confine)
{
	static const char why[] = "nadir: --vnc: its process cannot be confined; --sandbox off runs without\n";
	if (!detach(vmm, listening))
		_exit(1);
	server.vmm = 3;
	server.listening = 4;
	server.pixel = picture;
	events.password = password;
	if (confine && net_sandbox_enter(NET_MAY_SWITCH, NULL) < 0) {
		(void)!write(STDERR_FILENO, why, sizeof(why) - 1);
		_exit(1);
	}
	close(STDERR_FILENO);
	for (;;)
		turn();
}
