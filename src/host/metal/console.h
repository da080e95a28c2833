/* The consoles of the guests on one serial port. One guest is in front: what is typed goes to it, and what it says is shown as it comes. Of the
 * others whole lines are shown, with their names in front. Ctrl-a and a letter command the host. */
#ifndef NADIR_HOST_METAL_CONSOLE_H
#define NADIR_HOST_METAL_CONSOLE_H

#include "arch/types.h"

#define CONSOLE_LINE_MAX 256

struct console {
	struct console *next;
	const char *name;
	char line[CONSOLE_LINE_MAX]; /* of a guest that is not in front */
	unsigned length;
	u8 input[256]; /* a ring; the lock of all consoles */
	unsigned first, count;
	/* Input waits. Called on the console's thread. */
	void (*ready)(void *opaque);
	void *opaque;
};

/* Add a guest's console; the first is in front. Before console_start. The name stays the caller's. */
void console_add(struct console *console);
/* The thread that reads. stats: show them. */
void console_start(void (*stats)(void));
/* What is left of a line. */
void console_flush(struct console *console);

/* Cables of the board (vm/board.h); opaque is a struct console. */
void console_put(void *opaque, u8 byte);
bool console_get(void *opaque, u8 *byte);

#endif
