/* The guest's consoles on the host (console.c): the first serial port and the debug console, on this terminal or in files. */
#ifndef NADIR_HOST_LINUX_CONSOLE_H
#define NADIR_HOST_LINUX_CONSOLE_H

#include "arch/types.h"

/* What the user asked for by Ctrl-a and a letter. */
struct console_keys {
	void (*quit)(void *opaque);
	void (*stats)(void *opaque);
	void (*input)(void *opaque); /* bytes for the guest wait in the console */
	void *opaque;
};

struct console;

/* Open the console that `where` names: "stdio", "none", "file:PATH". NULL after one sentence on stderr. `option` is the option's name
 * for that sentence. Lives until console_close. */
struct console *console_open(const char *option, const char *where);
void console_close(struct console *console);

/* Read the keyboard from now on (stdio only): raw mode on a terminal, Ctrl-a commands there. After event_init. 0 or negative. */
int console_start_input(struct console *console, const struct console_keys *keys);

/* The event loop was woken: read on, if reading had stopped because the guest did not listen. Event thread. */
void console_resume_input(struct console *console);

/* A byte from the guest; from any thread. Written out within a millisecond or so. */
void console_put(void *console, u8 byte);
/* The next byte for the guest; false if there is none. From any thread. */
bool console_get(void *console, u8 *byte);
/* Write out what waits. */
void console_flush(struct console *console);
/* The user wants the end: from now on, output that nobody reads is thrown away instead of waited for. Also from signal handlers. */
void console_hurry(void);

#endif
