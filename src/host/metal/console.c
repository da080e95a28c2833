/* Consoles on one serial port (console.h). */
#include "host/metal/console.h"

#include "host/metal/log.h"
#include "host/metal/serial.h"
#include "host/metal/thread.h"
#include "host/port.h"

#define CTRL_A 1
#define POLL_NS (10 * 1000 * 1000ull) /* without interrupts */
#define LOOK_NS (100 * POLL_NS) /* with them, should one be lost */

static struct {
	struct host_lock lock;
	struct console *all, *front; /* front: atomic */
	bool command; /* Ctrl-a was typed */
	void (*stats)(void);
} consoles;

static bool alone(void)
{
	return !consoles.all->next;
}

static void show_line(struct console *c)
{
	char text[CONSOLE_LINE_MAX + 64];
	c->line[c->length] = 0;
	host_snprintf(text, sizeof(text), "%s| %s", c->name, c->line);
	c->length = 0;
	serial_line(text);
}

void console_flush(struct console *c)
{
	if (c->length)
		show_line(c);
}

void console_put(void *opaque, u8 byte)
{
	struct console *c = opaque;
	if (c == __atomic_load_n(&consoles.front, __ATOMIC_RELAXED)) {
		console_flush(c);
		serial_put(byte);
		return;
	}
	if (byte == '\n' || c->length == CONSOLE_LINE_MAX - 1)
		show_line(c);
	if (byte >= ' ' || byte == '\t')
		c->line[c->length++] = (char)byte;
}

bool console_get(void *opaque, u8 *byte)
{
	struct console *c = opaque;
	host_lock(&consoles.lock);
	bool some = c->count;
	if (some) {
		*byte = c->input[c->first];
		c->first = (c->first + 1) % sizeof(c->input);
		c->count--;
	}
	host_unlock(&consoles.lock);
	return some;
}

/* ---- input ---- */

static void type(u8 byte)
{
	struct console *c = consoles.front;
	host_lock(&consoles.lock);
	if (c->count < sizeof(c->input))
		c->input[(c->first + c->count++) % sizeof(c->input)] = byte;
	host_unlock(&consoles.lock);
	c->ready(c->opaque);
}

static void show_next(void)
{
	struct console *next = consoles.front->next ? consoles.front->next : consoles.all;
	__atomic_store_n(&consoles.front, next, __ATOMIC_RELAXED);
	log_line("%s is in front", next->name);
}

static void show_help(void)
{
	log_line("Ctrl-a n  the next guest comes in front");
	log_line("Ctrl-a s  statistics");
	log_line("Ctrl-a a  Ctrl-a for the guest");
	log_line("Ctrl-a h  this help");
	if (!alone())
		log_line("%s is in front; lines of others have their names in front", consoles.front->name);
}

static void command(u8 byte)
{
	switch (byte) {
	case 'n':
		show_next();
		break;
	case 's':
		consoles.stats();
		break;
	case CTRL_A:
	case 'a':
		type(CTRL_A);
		break;
	default:
		show_help();
		break;
	}
}

static void read_serial(void *opaque)
{
	u8 byte;
	serial_start_interrupts();
	for (;;) {
		while (serial_get(&byte)) {
			bool is_command = consoles.command;
			consoles.command = !is_command && byte == CTRL_A;
			if (is_command)
				command(byte);
			else if (!consoles.command)
				type(byte);
		}
		serial_wait(serial_has_interrupts() ? LOOK_NS : POLL_NS);
	}
}

void console_add(struct console *console)
{
	struct console **link = &consoles.all;
	while (*link)
		link = &(*link)->next;
	*link = console;
	if (!consoles.front)
		consoles.front = console;
}

void console_start(void (*stats)(void))
{
	const struct thread_setup setup = { .name = "console", .run = read_serial, .urgent = true };
	consoles.stats = stats;
	if (consoles.all && !thread_create(&setup))
		host_panic("no memory for the thread of the console");
}
