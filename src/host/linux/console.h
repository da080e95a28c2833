/* The guest's consoles on the host (console.c): serial ports, virtio consoles and the debug console, each on the terminal, in a file, or at a place
 * where other programs find it (console_target.h); and whoever is attached by the control socket. */
#ifndef NADIR_HOST_LINUX_CONSOLE_H
#define NADIR_HOST_LINUX_CONSOLE_H

#include "arch/types.h"

/* What the user asked for by Ctrl-a and a letter. */
struct console_keys {
	void (*quit)(void *opaque);
	void (*stats)(void *opaque);
	void (*input)(void *opaque); /* bytes for the guest wait in the console; on any thread */
	void *opaque;
};

struct console;

/* Open the console that `where` names, as target_open. NULL after one sentence on stderr. `option` is the option's name for that sentence. Lives until
 * console_close. */
struct console *console_open(const char *option, const char *where);
void console_close(struct console *console);

/* Read what the user types from now on: on standard input, which is put into raw mode if it is a terminal and knows Ctrl-a commands then, or at
 * a pseudo-terminal or socket. Not for consoles that are written only. After event_init. 0 or negative. */
int console_start_input(struct console *console, const struct console_keys *keys);
/* Its socket that others may connect to, or -1. */
int console_listening(const struct console *console);

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

/* ---- for those who look on beside (control.c); any thread ---- */

/* Call notify(opaque) whenever there is new output; soon, and not for each byte. */
void console_watch(struct console *console, void (*notify)(void *opaque), void *opaque);
/* Where the output is that was written last: a place to begin reading, so that the screen shows what was there before. */
u64 console_recent(struct console *console);
/* Read output from *position on, and move it; what is gone is left out. Returns how many bytes. */
size_t console_read(struct console *console, u64 *position, u8 *buffer, size_t size);
/* Type; returns how many bytes were taken. */
size_t console_type(struct console *console, const u8 *bytes, size_t size);

#endif
