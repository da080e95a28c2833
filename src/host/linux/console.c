/* The guest's consoles. Output is gathered and written in one piece a millisecond after the first byte, or when much has gathered: a
 * system call per byte would make the serial port the slowest device of all. On a terminal, Ctrl-a introduces a command to nadir, as in
 * QEMU and in terminal programs. The last output is kept for those who attach later. */
#define _GNU_SOURCE
#include "host/linux/console.h"

#include "host/linux/console_target.h"
#include "host/linux/event.h"
#include "host/linux/terminal.h"
#include "host/port.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HISTORY_SIZE 65536u /* a power of two */
#define RECENT_SIZE 4096u
#define OUTPUT_SIZE 4096
#define INPUT_SIZE 4096
#define FLUSH_DELAY 1000000ull
#define CTRL_A 0x01

struct console {
	const char *option; /* its name on the command line */
	pthread_mutex_t lock; /* guards what follows up to `notify`, and the target's output */
	struct console_target target;
	bool failed; /* the output takes no more: what follows is lost */
	u64 written, flushed; /* bytes so far; those in between wait to be written out */
	u8 history[HISTORY_SIZE]; /* the last bytes */
	u8 input[INPUT_SIZE];
	size_t input_head, input_used;
	void (*notify)(void *opaque);
	void *notify_opaque;
	struct host_timer *timer;
	bool command; /* Ctrl-a was the last key; event thread */
	bool ended; /* the input is at its end; event thread */
	struct console_keys keys;
};

void console_hurry(void)
{
	target_hurry();
}

/* ---- output ---- */

/* A stretch of history that is in one piece. */
static size_t piece_of(const struct console *c, u64 from, u64 to, const u8 **data)
{
	size_t at = from % HISTORY_SIZE;
	*data = c->history + at;
	return (size_t)MIN(to - from, (u64)(HISTORY_SIZE - at));
}

/* Called with the lock held. A reader that has gone away is its own affair; any other failure is told, once. */
static void flush_locked(struct console *c)
{
	bool any = c->flushed != c->written;
	while (c->flushed != c->written) {
		const u8 *data;
		size_t size = piece_of(c, c->flushed, c->written, &data);
		c->flushed += size;
		int error = c->failed ? 0 : target_write(&c->target, data, size);
		if (!error || target_hurries())
			continue;
		c->failed = c->target.kind != TARGET_SOCKET;
		if (c->failed && error != EPIPE && error != EIO)
			host_log(LOG_WARN, "--%s: %s: what the guest writes from here on is lost", c->option, strerror(error));
	}
	if (any && c->notify)
		c->notify(c->notify_opaque);
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

void console_put(void *console, u8 byte)
{
	struct console *c = console;
	pthread_mutex_lock(&c->lock);
	bool first = c->flushed == c->written;
	c->history[c->written++ % HISTORY_SIZE] = byte;
	if (c->written - c->flushed == OUTPUT_SIZE)
		flush_locked(c);
	pthread_mutex_unlock(&c->lock);
	if (first)
		host_timer_arm(c->timer, host_now() + FLUSH_DELAY);
}

/* ---- those who look on ---- */

void console_watch(struct console *console, void (*notify)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&console->lock);
	console->notify_opaque = opaque;
	console->notify = notify;
	pthread_mutex_unlock(&console->lock);
}

u64 console_recent(struct console *console)
{
	pthread_mutex_lock(&console->lock);
	u64 written = console->written;
	pthread_mutex_unlock(&console->lock);
	return written > RECENT_SIZE ? written - RECENT_SIZE : 0;
}

size_t console_read(struct console *console, u64 *position, u8 *buffer, size_t size)
{
	struct console *c = console;
	const u8 *data;
	pthread_mutex_lock(&c->lock);
	if (c->written - *position > HISTORY_SIZE)
		*position = c->written - HISTORY_SIZE;
	size_t n = MIN(piece_of(c, *position, c->written, &data), size);
	memcpy(buffer, data, n);
	*position += n;
	pthread_mutex_unlock(&c->lock);
	return n;
}

/* ---- input ---- */

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

static bool give(struct console *c, u8 byte)
{
	pthread_mutex_lock(&c->lock);
	bool room = c->input_used < INPUT_SIZE;
	if (room)
		c->input[(c->input_head + c->input_used++) % INPUT_SIZE] = byte;
	pthread_mutex_unlock(&c->lock);
	return room;
}

size_t console_type(struct console *console, const u8 *bytes, size_t size)
{
	size_t n = 0;
	while (n < size && give(console, bytes[n]))
		n++;
	if (n && console->keys.input)
		console->keys.input(console->keys.opaque);
	return n;
}

/* ---- keys; event thread ---- */

static void show_help(void)
{
	static const char text[] = "\r\n"
				   "Ctrl-a h  this help\r\n"
				   "Ctrl-a x  end the virtual machine\r\n"
				   "Ctrl-a s  show exit statistics\r\n"
				   "Ctrl-a Ctrl-a  send Ctrl-a to the guest\r\n";
	fputs(text, stderr);
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
	bool terminal = c->target.kind == TARGET_STDIO && terminal_is_raw();
	if (c->command) {
		c->command = false;
		obey_key(c, key);
	} else if (key == CTRL_A && terminal) {
		c->command = true;
	} else {
		give(c, key);
	}
}

/* Standard input at its end: the guest goes on without. At a socket another may connect. */
static void input_ended(struct console *c)
{
	if (c->target.kind != TARGET_SOCKET) {
		c->ended = true;
		event_enable(c->target.in, false);
		return;
	}
	event_forget(c->target.in);
	pthread_mutex_lock(&c->lock);
	target_disconnect(&c->target);
	pthread_mutex_unlock(&c->lock);
	event_enable(c->target.listening, true);
}

static void input_ready(void *opaque)
{
	struct console *c = opaque;
	u8 buffer[256];
	pthread_mutex_lock(&c->lock);
	size_t room = INPUT_SIZE - c->input_used;
	pthread_mutex_unlock(&c->lock);
	if (!room) {
		event_enable(c->target.in, false);
		return;
	}
	ssize_t n = read(c->target.in, buffer, MIN(room, sizeof(buffer)));
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		input_ended(c);
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		take_key(c, buffer[i]);
	c->keys.input(c->keys.opaque);
}

static void connection_ready(void *opaque)
{
	struct console *c = opaque;
	pthread_mutex_lock(&c->lock);
	int fd = target_accept(&c->target);
	pthread_mutex_unlock(&c->lock);
	if (fd < 0)
		return;
	event_enable(c->target.listening, false);
	if (event_watch(fd, input_ready, c) < 0)
		input_ended(c);
}

void console_resume_input(struct console *console)
{
	if (console->target.in >= 0 && !console->ended)
		event_enable(console->target.in, true);
}

int console_start_input(struct console *console, const struct console_keys *keys)
{
	console->keys = *keys;
	if (console->target.kind == TARGET_SOCKET)
		return event_watch(console->target.listening, connection_ready, console);
	if (console->target.in < 0)
		return 0;
	int error = console->target.kind == TARGET_STDIO ? terminal_raw() : 0;
	return error ? error : event_watch(console->target.in, input_ready, console);
}

int console_listening(const struct console *console)
{
	return console->target.listening;
}

/* ---- life ---- */

struct console *console_open(const char *option, const char *where)
{
	struct console *c = calloc(1, sizeof(*c));
	if (!c || !(c->timer = host_timer_create(flush_timer, c))) {
		fprintf(stderr, "nadir: --%s: out of memory\n", option);
		free(c);
		return NULL;
	}
	c->option = option;
	pthread_mutex_init(&c->lock, NULL);
	if (!target_open(&c->target, option, where))
		return c;
	host_timer_destroy(c->timer);
	free(c);
	return NULL;
}

void console_close(struct console *console)
{
	if (!console)
		return;
	host_timer_destroy(console->timer);
	console_flush(console);
	target_close(&console->target);
	free(console);
}
