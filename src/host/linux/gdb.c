/* The socket at which GDB finds a VM: one client at a time, served by a thread of its own, which sleeps as long as nobody comes. */
#define _GNU_SOURCE
#include "host/linux/gdb.h"

#include "gdb/session.h"
#include "host/linux/sandbox.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define READER_WAIT 200 /* milliseconds between two looks whether to go on waiting for a reader */

/* The one debugger of the process. All but `ending` belongs to its thread once that runs. */
static struct {
	int listener, wake, client; /* -1: none */
	bool broken; /* the client takes or gives no more */
	bool ending; /* atomic */
	int status; /* with `ending` */
	enum gdb_architecture architecture;
	char target[sizeof(struct sockaddr_un)]; /* where to go to, in GDB's words */
	struct gdb_session *session;
	pthread_t thread;
	bool started;
	u8 input[4096];
	size_t at, end; /* of the input that has not been given to the session */
} debugger = { .listener = -1, .wake = -1, .client = -1 };

/* ---- where ---- */

static int complain(const char *where, const char *what)
{
	fprintf(stderr, "nadir: --gdb: %s: %s\n", where, what);
	return -1;
}

/* A socket that nobody listens at any more is in the way. */
static void remove_stale(const struct sockaddr_un *address)
{
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (!lstat(address->sun_path, &st) && S_ISSOCK(st.st_mode) && connect(fd, (const void *)address, sizeof(*address)) < 0 &&
	    errno == ECONNREFUSED)
		unlink(address->sun_path);
	close(fd);
}

/* Who may debug a guest owns it: the socket is for its user alone. */
static int listen_unix(const char *where, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (!*path || strlen(path) >= sizeof(address.sun_path))
		return complain(where, "the path is empty or too long for a socket");
	memcpy(address.sun_path, path, strlen(path) + 1);
	remove_stale(&address);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask = umask(0077);
	bool ok = fd >= 0 && !bind(fd, (const void *)&address, sizeof(address)) && !listen(fd, 1);
	int error = errno;
	umask(mask);
	if (!ok)
		return complain(where, strerror(error));
	snprintf(debugger.target, sizeof(debugger.target), "%s", path);
	return fd;
}

/* Small packets go back and forth: they must not wait for more. What is accepted inherits that. */
static int listen_at(const struct addrinfo *at)
{
	static const int one = 1;
	int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (!bind(fd, at->ai_addr, at->ai_addrlen) && !listen(fd, 1))
		return fd;
	close(fd);
	return -1;
}

static void name_target(int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);
	char host[64], port[8];
	if (getsockname(fd, (void *)&address, &size) ||
	    getnameinfo((void *)&address, size, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	snprintf(debugger.target, sizeof(debugger.target), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

/* HOST:PORT; an empty host is this one. */
static int listen_tcp(const char *where, char *host)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *found;
	char *port = strrchr(host, ':');
	if (!port || !port[1])
		return complain(where, "a port is missing");
	*port++ = 0;
	size_t length = strlen(host);
	if (host[0] == '[' && host[length - 1] == ']') {
		host[length - 1] = 0;
		host++;
	}
	int error = getaddrinfo(*host ? host : "127.0.0.1", port, &hints, &found);
	if (error)
		return complain(where, gai_strerror(error));
	int fd = listen_at(found);
	error = errno;
	freeaddrinfo(found);
	if (fd < 0)
		return complain(where, strerror(error));
	name_target(fd);
	return fd;
}

static bool is_port(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == 0;
}

static int take_options(const char *where, char *text)
{
	static const struct {
		const char *text;
		enum gdb_architecture architecture;
	} rows[] = { { "arch=x86-64", GDB_X86_64 }, { "arch=i386", GDB_I386 }, { "arch=i8086", GDB_I8086 } };
	char *comma = strchr(text, ',');
	if (!comma)
		return 0;
	*comma++ = 0;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (strcmp(comma, rows[i].text))
			continue;
		debugger.architecture = rows[i].architecture;
		return 0;
	}
	return complain(where, "behind the comma only arch=x86-64, arch=i386 or arch=i8086 may stand");
}

int gdb_listen(const char *where)
{
	char text[256], local[264];
	if (strlen(where) >= sizeof(text))
		return complain(where, "this is too long");
	memcpy(text, where, strlen(where) + 1);
	if (take_options(where, text) < 0)
		return -1;
	if (!strncmp(text, "unix:", 5)) {
		debugger.listener = listen_unix(where, text + 5);
	} else if (is_port(text)) {
		snprintf(local, sizeof(local), ":%s", text);
		debugger.listener = listen_tcp(where, local);
	} else if (!strncmp(text, "tcp:", 4)) {
		debugger.listener = listen_tcp(where, text + 4);
	} else {
		return complain(where, "this is not one of tcp:HOST:PORT, PORT or unix:PATH");
	}
	sandbox_allow_accept(debugger.listener, SANDBOX_DEBUGGER);
	return debugger.listener < 0 ? -1 : 0;
}

/* ---- the connection; the debugger's thread ---- */

static bool ending(void)
{
	return __atomic_load_n(&debugger.ending, __ATOMIC_SEQ_CST);
}

static void send_all(void *opaque, const void *data, size_t size)
{
	const u8 *from = data;
	while (size && !debugger.broken) {
		ssize_t n = write(debugger.client, from, size);
		if (n < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){ .fd = debugger.client, .events = POLLOUT }, 1, READER_WAIT);
			debugger.broken = ending();
		} else if (n < 0 && errno != EINTR) {
			debugger.broken = true;
		} else if (n > 0) {
			from += n;
			size -= (size_t)n;
		}
	}
}

static void welcome(void)
{
	debugger.client = accept4(debugger.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (debugger.client < 0)
		return;
	debugger.broken = false;
	debugger.at = debugger.end = 0;
	gdb_connected(debugger.session);
}

static void farewell(void)
{
	close(debugger.client);
	debugger.client = -1;
	debugger.at = debugger.end = 0;
	gdb_disconnected(debugger.session);
}

/* Give the session what it wants to take. */
static void feed(void)
{
	gdb_poll(debugger.session);
	while (debugger.at < debugger.end && gdb_ready(debugger.session) && !debugger.broken)
		gdb_byte(debugger.session, debugger.input[debugger.at++]);
}

static void take_input(void)
{
	ssize_t n = read(debugger.client, debugger.input, sizeof(debugger.input));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	debugger.broken = n <= 0;
	debugger.at = 0;
	debugger.end = n > 0 ? (size_t)n : 0;
}

static void drain_wake(void)
{
	u64 count;
	while (read(debugger.wake, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

static void serve(void)
{
	bool open = debugger.client >= 0, wants = open && debugger.at == debugger.end;
	struct pollfd fds[] = {
		{ .fd = debugger.wake, .events = POLLIN },
		{ .fd = open ? debugger.client : -1, .events = wants ? POLLIN : POLLRDHUP },
		{ .fd = !open && gdb_idle(debugger.session) ? debugger.listener : -1, .events = POLLIN },
	};
	if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
		return;
	if (fds[0].revents)
		drain_wake();
	if (fds[2].revents)
		welcome();
	if (fds[1].revents && wants)
		take_input();
	else if (fds[1].revents)
		debugger.broken = true;
	feed();
	if (debugger.client >= 0 && debugger.broken)
		farewell();
}

static void *debugger_thread(void *opaque)
{
	while (!ending())
		serve();
	if (debugger.client >= 0) {
		gdb_ended(debugger.session, debugger.status);
		close(debugger.client);
	}
	return NULL;
}

/* ---- the machine's side ---- */

int gdb_start(struct vm *vm, bool wait)
{
	if (debugger.listener < 0)
		return 0;
	debugger.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	debugger.session = gdb_create(vm, debugger.architecture, &(struct gdb_link){ .send = send_all });
	if (debugger.wake < 0 || !debugger.session)
		return ENOMEM;
	if (wait) {
		fprintf(stderr, "nadir: waiting for GDB: target remote %s\n", debugger.target);
		host_lock(&vm->lock);
		debugger_attach(vm);
		host_unlock(&vm->lock);
	}
	int error = sandbox_thread_create(&debugger.thread, SANDBOX_DEBUGGER, debugger_thread, NULL);
	debugger.started = !error;
	return error;
}

static void wake(void)
{
	u64 one = 1;
	while (write(debugger.wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void gdb_stopped(void)
{
	wake();
}

void gdb_finish(int status)
{
	if (debugger.started) {
		debugger.status = status;
		__atomic_store_n(&debugger.ending, true, __ATOMIC_SEQ_CST);
		wake();
		pthread_join(debugger.thread, NULL);
	}
	gdb_destroy(debugger.session);
	if (debugger.wake >= 0)
		close(debugger.wake);
	if (debugger.listener >= 0)
		close(debugger.listener);
}
