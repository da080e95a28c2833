/* The control socket's thread: connections, their requests, and streams of events and console output.
 *
 * Clients run as the user who owns the VM, but they may still be broken or slow: no connection waits for another, each has its limits, and none holds up
 * the VM. */
#define _GNU_SOURCE
#include "host/linux/control.h"

#include "host/linux/runtime.h"
#include "host/linux/sandbox.h"
#include "host/port.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 32
#define STREAMS_MAX 24 /* so that requests always find a place */
#define EVENTS_MAX 64
#define OUT_MAX (1u << 20) /* bytes on their way to one client; a stream that falls back further is ended */
#define ANSWER_MAX (20u << 20) /* of an answer: a picture of noise */
#define REQUEST_TIME 10000000000ull /* for a client to send what it began, and to read the answer */
#define RETRY_MS 20 /* until a guest that did not take input is looked at again */
#define LAST_WORDS_MS 500 /* for the clients to read what is on its way, at the end */

struct connection {
	int fd;
	struct http http;
	struct passed_files files; /* that came with what was received, for the request in hand */
	enum api_stream stream;
	bool closing; /* when everything is sent */
	u64 deadline; /* on host_now()'s scale; HOST_NEVER: it may take its time */
	char in[4096];
	size_t in_used;
	char *out;
	size_t out_size, out_used, out_sent;
	u64 position; /* API_CONSOLE: of the output that it has */
};

static struct control {
	int listening, wake; /* -1: there is no socket */
	pthread_t thread;
	bool running;
	bool stop; /* atomic */
	const struct api_vm *vm;
	struct console *console;
	struct connection *connection[CONNECTIONS_MAX]; /* the thread's */
	pthread_mutex_t lock; /* of the events that wait */
	char *event[EVENTS_MAX];
	unsigned events;
} control = { .listening = -1, .wake = -1, .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- what is sent ---- */

static void send_bytes(struct connection *c, const void *bytes, size_t size)
{
	if (c->out_sent == c->out_used)
		c->out_sent = c->out_used = 0;
	size_t wanted = c->out_used + size;
	if (wanted > c->out_size) {
		char *out = c->out_used - c->out_sent + size > (c->stream ? OUT_MAX : ANSWER_MAX) ? NULL : realloc(c->out, wanted);
		if (!out) {
			c->closing = true;
			return;
		}
		c->out = out;
		c->out_size = wanted;
	}
	memcpy(c->out + c->out_used, bytes, size);
	c->out_used = wanted;
}

static void send_text(struct connection *c, const char *text)
{
	send_bytes(c, text, strlen(text));
}

static void send_chunk(struct connection *c, const char *text)
{
	char size[24];
	snprintf(size, sizeof(size), "%zx\r\n", strlen(text));
	send_text(c, size);
	send_text(c, text);
	send_text(c, "\r\n");
}

static void send_response(struct connection *c, const struct api_response *r, bool keep_alive)
{
	char head[512];
	int n = snprintf(head, sizeof(head), "HTTP/1.1 %d %s\r\nServer: nadir/%s\r\n", r->status, http_status_text(r->status), NADIR_VERSION);
	if (r->type)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Content-Type: %s\r\n", r->type);
	if (r->stream == API_EVENTS)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Transfer-Encoding: chunked\r\n");
	else if (r->stream == API_CONSOLE)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Connection: Upgrade\r\nUpgrade: console\r\n");
	else if (r->status != 204)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Content-Length: %zu\r\n", r->size);
	if (!keep_alive && r->stream != API_CONSOLE)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Connection: close\r\n");
	snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
	send_text(c, head);
	send_bytes(c, r->body ? r->body : "", r->size);
	c->closing |= !keep_alive && !r->stream;
}

/* Send what the client takes now; false if it is gone. */
static bool flush(struct connection *c)
{
	while (c->out_sent < c->out_used) {
		ssize_t n = write(c->fd, c->out + c->out_sent, c->out_used - c->out_sent);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		c->out_sent += (size_t)n;
	}
	return !c->closing;
}

/* ---- what is received ---- */

static unsigned streams(void)
{
	unsigned n = 0;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		n += control.connection[i] && control.connection[i]->stream;
	return n;
}

static void answer(struct connection *c, const struct api_vm *vm)
{
	struct api_response response = { 0 };
	struct http_request *request = &c->http.request;
	request->files = &c->files;
	api_answer(vm, request, &response);
	if (response.stream && (streams() >= STREAMS_MAX || (response.stream == API_CONSOLE && !control.console)))
		api_refuse(503, "too many clients listen already", &response);
	send_response(c, &response, request->keep_alive && !request->upgrade);
	free(response.body);
	passed_close(&c->files);
	c->stream = response.stream;
	if (c->stream == API_CONSOLE)
		c->position = console_recent(control.console);
	if (request->upgrade && !c->stream)
		c->closing = true;
	http_next(&c->http);
}

static void refuse(struct connection *c, int status)
{
	struct api_response response;
	api_refuse(status, "this request is no HTTP, or too large, or took too long", &response);
	send_response(c, &response, false);
	free(response.body);
	c->closing = true;
}

static void drop_input(struct connection *c, size_t n)
{
	memmove(c->in, c->in + n, c->in_used - n);
	c->in_used -= n;
}

/* Go through what was received, up to what must wait: for its answer's way out, or for the guest. */
static void take_input(struct connection *c, const struct api_vm *vm)
{
	while (c->in_used && !c->closing && c->out_used == c->out_sent) {
		size_t used = c->in_used;
		if (c->stream == API_EVENTS) {
			c->in_used = 0; /* there is nothing to say */
		} else if (c->stream == API_CONSOLE) {
			used = console_type(control.console, (u8 *)c->in, c->in_used);
			drop_input(c, used);
			return;
		} else {
			enum http_result result = http_take(&c->http, c->in, c->in_used, &used);
			drop_input(c, MIN(used, c->in_used));
			if (result == HTTP_REFUSED)
				refuse(c, c->http.error);
			else if (result == HTTP_COMPLETE)
				answer(c, vm);
		}
		if (!flush(c))
			c->closing = true;
	}
	bool waits = !c->stream && (c->in_used || c->out_used != c->out_sent || c->http.parser.nread);
	c->deadline = !waits ? HOST_NEVER : c->deadline == HOST_NEVER ? host_now() + REQUEST_TIME : c->deadline;
}

static void keep_files(struct connection *c, const struct cmsghdr *message)
{
	size_t count = (message->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (size_t i = 0; i < count; i++) {
		int fd;
		memcpy(&fd, CMSG_DATA(message) + i * sizeof(fd), sizeof(fd));
		if (c->files.count < PASSED_FILES_MAX)
			c->files.fd[c->files.count++] = fd;
		else
			close(fd);
	}
}

/* As read, and files that come along (unix(7), SCM_RIGHTS). What there is no room for is closed by the kernel. */
static ssize_t read_with_files(struct connection *c, void *bytes, size_t size)
{
	alignas(struct cmsghdr) char room[CMSG_SPACE(PASSED_FILES_MAX * sizeof(int))];
	struct iovec vector = { bytes, size };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	ssize_t n = recvmsg(c->fd, &message, MSG_CMSG_CLOEXEC);
	for (struct cmsghdr *m = n < 0 ? NULL : CMSG_FIRSTHDR(&message); m; m = CMSG_NXTHDR(&message, m))
		if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_RIGHTS)
			keep_files(c, m);
	return n;
}

/* False: the client is gone. */
static bool receive(struct connection *c, const struct api_vm *vm)
{
	ssize_t n = read_with_files(c, c->in + c->in_used, sizeof(c->in) - c->in_used);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!n)
		return false;
	c->in_used += (size_t)n;
	take_input(c, vm);
	return true;
}

/* ---- connections ---- */

static struct connection *connection_new(int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->fd = fd;
	c->deadline = HOST_NEVER;
	http_init(&c->http);
	return c;
}

static void connection_end(struct connection **place)
{
	struct connection *c = *place;
	*place = NULL;
	close(c->fd);
	passed_close(&c->files);
	http_release(&c->http);
	free(c->out);
	free(c);
}

/* A place for a new one; that of a client which asks nothing at the moment, if need be. */
static struct connection **find_place(void)
{
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (!control.connection[i])
			return &control.connection[i];
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (!control.connection[i]->stream) {
			connection_end(&control.connection[i]);
			return &control.connection[i];
		}
	return NULL;
}

static void accept_one(void)
{
	int fd = accept4(control.listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct connection **place = fd < 0 ? NULL : find_place();
	if (place)
		*place = connection_new(fd);
	if (fd >= 0 && (!place || !*place))
		close(fd);
}

/* ---- streams ---- */

static void send_events(void)
{
	char *event[EVENTS_MAX];
	pthread_mutex_lock(&control.lock);
	unsigned n = control.events;
	memcpy(event, control.event, n * sizeof(*event));
	control.events = 0;
	pthread_mutex_unlock(&control.lock);
	for (unsigned e = 0; e < n; e++) {
		for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
			if (control.connection[i] && control.connection[i]->stream == API_EVENTS)
				send_chunk(control.connection[i], event[e]);
		free(event[e]);
	}
}

static void send_console(struct connection *c)
{
	u8 buffer[4096];
	size_t n;
	while (c->out_used == c->out_sent && !c->closing && (n = console_read(control.console, &c->position, buffer, sizeof(buffer)))) {
		send_bytes(c, buffer, n);
		c->closing |= !flush(c);
	}
}

/* ---- the loop ---- */

static void wake(void *opaque)
{
	u64 one = 1;
	while (write(control.wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static struct pollfd poll_of(const struct connection *c)
{
	if (!c)
		return (struct pollfd){ .fd = -1 };
	bool sends = c->out_used != c->out_sent, room = c->in_used < sizeof(c->in) && !c->closing;
	return (struct pollfd){ .fd = c->fd, .events = (short)((sends ? POLLOUT : 0) | (room ? POLLIN : 0)) };
}

/* Milliseconds until something must be done by itself; -1: never. */
static int patience(void)
{
	u64 first = HOST_NEVER, now = host_now();
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
		const struct connection *c = control.connection[i];
		if (!c)
			continue;
		first = MIN(first, c->deadline);
		if (c->stream == API_CONSOLE && c->in_used)
			first = MIN(first, now + RETRY_MS * 1000000ull);
	}
	return first == HOST_NEVER ? -1 : first <= now ? 0 : (int)((first - now) / 1000000) + 1;
}

static void attend(struct connection **place, short events)
{
	struct connection *c = *place;
	bool alive = !(events & (POLLERR | POLLNVAL)) && (!(events & POLLIN) || receive(c, control.vm));
	if (alive && c->stream == API_CONSOLE)
		send_console(c);
	alive = alive && flush(c);
	if (alive)
		take_input(c, control.vm);
	if (alive && c->deadline <= host_now()) {
		if (!c->http.error && c->out_used == c->out_sent)
			refuse(c, 408);
		(void)flush(c);
		alive = false;
	}
	if (!alive || (events & POLLHUP && !(events & POLLIN)))
		connection_end(place);
}

static void *control_thread(void *opaque)
{
	struct pollfd fds[2 + CONNECTIONS_MAX];
	while (!__atomic_load_n(&control.stop, __ATOMIC_SEQ_CST)) {
		fds[0] = (struct pollfd){ .fd = control.listening, .events = POLLIN };
		fds[1] = (struct pollfd){ .fd = control.wake, .events = POLLIN };
		for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
			fds[2 + i] = poll_of(control.connection[i]);
		if (poll(fds, ARRAY_SIZE(fds), patience()) < 0)
			continue;
		u64 count;
		if (fds[1].revents && read(control.wake, &count, sizeof(count)) > 0)
			send_events();
		for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
			if (control.connection[i])
				attend(&control.connection[i], fds[2 + i].revents);
		if (fds[0].revents)
			accept_one();
	}
	return NULL;
}

/* ---- life ---- */

int control_listen(const char *option, const char *path)
{
	control.listening = runtime_listen(option, path);
	if (control.listening < 0)
		return -1;
	sandbox_allow_accept(control.listening, SANDBOX_CONTROL);
	sandbox_allow_plugging();
	control.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (control.wake >= 0)
		return 0;
	fprintf(stderr, "nadir: --%s: %s\n", option, strerror(errno));
	return -1;
}

bool control_wanted(void)
{
	return control.listening >= 0;
}

int control_start(const struct api_vm *vm, struct console *console)
{
	if (control.listening < 0)
		return 0;
	control.vm = vm;
	control.console = console;
	console_watch(console, wake, NULL);
	int error = sandbox_thread_create(&control.thread, SANDBOX_CONTROL, control_thread, NULL);
	control.running = !error;
	return error;
}

void control_event(const char *event, const char *detail)
{
	char *text = control.running ? api_event(event, detail) : NULL;
	if (!text)
		return;
	pthread_mutex_lock(&control.lock);
	bool room = control.events < EVENTS_MAX;
	if (room)
		control.event[control.events++] = text;
	pthread_mutex_unlock(&control.lock);
	if (!room)
		free(text);
	wake(NULL);
}

/* The last of the events and of the output, and the end of the streams. */
static void say_farewell(struct connection *c)
{
	if (c->stream == API_CONSOLE)
		send_console(c);
	if (c->stream == API_EVENTS)
		send_text(c, "0\r\n\r\n");
	u64 end = host_now() + LAST_WORDS_MS * 1000000ull;
	while (flush(c) && c->out_sent < c->out_used && host_now() < end)
		(void)poll(&(struct pollfd){ .fd = c->fd, .events = POLLOUT }, 1, 10);
}

void control_stop(void)
{
	if (!control.running)
		return;
	__atomic_store_n(&control.stop, true, __ATOMIC_SEQ_CST);
	wake(NULL);
	pthread_join(control.thread, NULL);
	console_watch(control.console, NULL, NULL);
	send_events();
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		if (control.connection[i]) {
			say_farewell(control.connection[i]);
			connection_end(&control.connection[i]);
		}
	control.running = false;
}
