/* The guest's consoles. Output is gathered and written in one piece a millisecond after the first byte, or when much has gathered: a
 * system call per byte would make the serial port the slowest device of all. On a terminal, Ctrl-a introduces a command to nadir, as in
 * QEMU and in terminal programs. */
#define _GNU_SOURCE
#include "host/linux/console.h"

#include "host/linux/event.h"
#include "host/linux/terminal.h"
#include "host/port.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OUTPUT_SIZE 4096
#define INPUT_SIZE 4096
#define FLUSH_DELAY 1000000ull
#define READER_WAIT 200 /* milliseconds between two looks whether to go on waiting for a reader */
#define CTRL_A 0x01

struct console {
	const char *option; /* its name on the command line */
	pthread_mutex_t lock; /* guards the two buffers and failed */
	int fd; /* output; -1: none */
	bool owns_fd;
	bool failed; /* the output takes no more: what follows is lost */
	struct host_timer *timer;
	u8 output[OUTPUT_SIZE];
	size_t output_used;
	u8 input[INPUT_SIZE];
	size_t input_head, input_used;
	bool command; /* Ctrl-a was the last key; event thread */
	bool ended; /* the input is at its end; event thread */
	struct console_keys keys;
};

/* The user wants the end: readers that do not read are not waited for. */
static volatile sig_atomic_t hurry;

void console_hurry(void)
{
	hurry = 1;
}

static bool wait_for_reader(int fd)
{
	while (poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, READER_WAIT) <= 0)
		if (hurry)
			return false;
	return true;
}

/* Write everything; 0, or an error number: EPIPE or EIO if nobody will read it. */
static int write_all(int fd, const u8 *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);
		if (n < 0 && errno == EAGAIN) {
			if (!wait_for_reader(fd))
				return EPIPE;
			continue;
		}
		if (n < 0 && errno != EINTR)
			return errno;
		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
	}
	return 0;
}

/* Called with the lock held. A reader that has gone away is its own affair; any other failure is told, once. */
static void flush_locked(struct console *c)
{
	size_t size = c->output_used;
	c->output_used = 0;
	if (c->fd < 0 || c->failed || !size)
		return;
	int error = write_all(c->fd, c->output, size);
	c->failed = error && !hurry;
	if (c->failed && error != EPIPE && error != EIO)
		host_log(LOG_WARN, "--%s: %s: what the guest writes from here on is lost", c->option, strerror(error));
}

void console_flush(struct console *console)
{
	pthread_mutex_lock(&console->lock);
	flush_locked(console);
	pthread_mutex_unlock(&console->lock);
}

static void flush_timer(void *opaque)
{
	console_flush(opaque);
}

/* Standard output for the guest. A terminal or pipe is opened anew, so that writes to it never block for ever, without making it
 * non-blocking for those we share it with. */
static int open_stdout(bool *owned)
{
	struct stat st;
	int fd = -1;
	if (!fstat(STDOUT_FILENO, &st) && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	*owned = fd >= 0;
	return *owned ? fd : STDOUT_FILENO;
}

static int open_output(const char *option, const char *where, bool *owned)
{
	*owned = false;
	if (!strcmp(where, "stdio"))
		return open_stdout(owned);
	if (!strcmp(where, "none"))
		return -1;
	if (strncmp(where, "file:", 5) || !where[5]) {
		fprintf(stderr, "nadir: --%s: '%s' is not one of stdio, none or file:PATH\n", option, where);
		return -2;
	}
	*owned = true;
	int fd = open(where + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		fprintf(stderr, "nadir: --%s: %s: %s\n", option, where + 5, strerror(errno));
	return fd < 0 ? -2 : fd;
}

struct console *console_open(const char *option, const char *where)
{
	bool owned;
	int fd = open_output(option, where, &owned);
	if (fd == -2)
		return NULL;
	struct console *c = calloc(1, sizeof(*c));
	if (c)
		c->timer = host_timer_create(flush_timer, c);
	if (!c || !c->timer) {
		fprintf(stderr, "nadir: --%s: out of memory\n", option);
		free(c);
		if (owned)
			close(fd);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	c->option = option;
	c->fd = fd;
	c->owns_fd = owned;
	return c;
}

void console_close(struct console *console)
{
	if (!console)
		return;
	host_timer_destroy(console->timer);
	console_flush(console);
	if (console->owns_fd)
		close(console->fd);
	free(console);
}

void console_put(void *console, u8 byte)
{
	struct console *c = console;
	pthread_mutex_lock(&c->lock);
	bool first = !c->output_used;
	c->output[c->output_used++] = byte;
	if (c->output_used == OUTPUT_SIZE)
		flush_locked(c);
	pthread_mutex_unlock(&c->lock);
	if (first)
		host_timer_arm(c->timer, host_now() + FLUSH_DELAY);
}

bool console_get(void *console, u8 *byte)
{
	struct console *c = console;
	pthread_mutex_lock(&c->lock);
	bool any = c->input_used;
	if (any) {
		*byte = c->input[c->input_head];
		c->input_head = (c->input_head + 1) % INPUT_SIZE;
		if (c->input_used-- == INPUT_SIZE)
			event_wake(); /* the loop looks again whether to read on */
	}
	pthread_mutex_unlock(&c->lock);
	return any;
}

/* ---- the keyboard; event thread ---- */

static void give(struct console *c, u8 byte)
{
	pthread_mutex_lock(&c->lock);
	if (c->input_used < INPUT_SIZE)
		c->input[(c->input_head + c->input_used++) % INPUT_SIZE] = byte;
	pthread_mutex_unlock(&c->lock);
}

static void show_help(void)
{
	static const char text[] = "\r\n"
				   "Ctrl-a h  this help\r\n"
				   "Ctrl-a x  end the virtual machine\r\n"
				   "Ctrl-a s  show exit statistics\r\n"
				   "Ctrl-a Ctrl-a  send Ctrl-a to the guest\r\n";
	write_all(STDERR_FILENO, (const u8 *)text, sizeof(text) - 1);
}

static void obey_key(struct console *c, u8 key)
{
	switch (key) {
	case 'h':
	case '?':
		show_help();
		break;
	case 'x':
		c->keys.quit(c->keys.opaque);
		break;
	case 's':
		c->keys.stats(c->keys.opaque);
		break;
	case 'a':
	case CTRL_A:
		give(c, CTRL_A);
		break;
	default:
		break;
	}
}

static void take_key(struct console *c, u8 key)
{
	if (c->command) {
		c->command = false;
		obey_key(c, key);
	} else if (key == CTRL_A && terminal_is_raw()) {
		c->command = true;
	} else {
		give(c, key);
	}
}

static void keyboard_ready(void *opaque)
{
	struct console *c = opaque;
	u8 buffer[256];
	pthread_mutex_lock(&c->lock);
	size_t room = INPUT_SIZE - c->input_used;
	pthread_mutex_unlock(&c->lock);
	if (!room) {
		event_enable(STDIN_FILENO, false);
		return;
	}
	ssize_t n = read(STDIN_FILENO, buffer, MIN(room, sizeof(buffer)));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		c->ended = true; /* the guest goes on without */
		event_enable(STDIN_FILENO, false);
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		take_key(c, buffer[i]);
	c->keys.input(c->keys.opaque);
}

void console_resume_input(struct console *console)
{
	if (!console->ended)
		event_enable(STDIN_FILENO, true);
}

int console_start_input(struct console *console, const struct console_keys *keys)
{
	console->keys = *keys;
	int error = terminal_raw();
	return error ? error : event_watch(STDIN_FILENO, keyboard_ready, console);
}
