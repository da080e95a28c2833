/* Where a console of the guest is on the host: standard input and output, a file, a pseudo-terminal, or a Unix socket (console_target.c). Everything is
 * opened before the process is confined. The owner serializes calls, but for those that the event loop makes by itself (console.c). */
#ifndef NADIR_HOST_LINUX_CONSOLE_TARGET_H
#define NADIR_HOST_LINUX_CONSOLE_TARGET_H

#include "arch/types.h"

#define TARGET_KEEP_MAX 16

enum console_target_kind { TARGET_NONE, TARGET_STDIO, TARGET_FILE, TARGET_PTY, TARGET_SOCKET };

struct console_target {
	enum console_target_kind kind;
	int out, in; /* -1: none, now */
	int listening; /* TARGET_SOCKET: for the one that may connect */
	int other_end; /* TARGET_PTY: kept open, so that programs may come and go */
	u64 limit, size; /* TARGET_FILE: rotated when `limit` is reached; 0: never */
	unsigned keep; /* so many older files are kept */
	int older[TARGET_KEEP_MAX]; /* the youngest first */
};

/* Open what `where` names: stdio, none, pty, unix:PATH, file:PATH[,size=SIZE][,keep=N]. 0, or -1 after one sentence on stderr, in which `option`
 * is the option's name. */
int target_open(struct console_target *target, const char *option, const char *where);
void target_close(struct console_target *target);

/* Write it all, if anybody reads it: 0, or an error number, EPIPE or EIO if nobody will. A reader of standard output is waited for, until
 * target_hurry; programs at a pseudo-terminal or socket that do not keep up lose what they have no room for. */
int target_write(struct console_target *target, const u8 *data, size_t size);
/* The user wants the end: readers that do not read are not waited for. Also from signal handlers. */
void target_hurry(void);
bool target_hurries(void);

/* Somebody wants to connect: the one at a time is let in. The new descriptor, or -1. */
int target_accept(struct console_target *target);
/* Whoever was connected is gone. */
void target_disconnect(struct console_target *target);

#endif
