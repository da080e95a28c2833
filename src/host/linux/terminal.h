/* The user's terminal in raw mode while a guest's console is on it, and restored whatever happens (terminal.c). */
#ifndef NADIR_HOST_LINUX_TERMINAL_H
#define NADIR_HOST_LINUX_TERMINAL_H

#include "arch/types.h"

/* Put the terminal on stdin, if it is one, into raw mode; restored at exit. 0 or -errno. */
int terminal_raw(void);
bool terminal_is_raw(void);
/* Back to what it was; any number of times, from any thread and from signal handlers. */
void terminal_restore(void);

#endif
