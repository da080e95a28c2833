/* Raw mode and back. The settings are those of cfmakeraw(3), without output processing: a guest sends its own carriage returns, and
 * nadir's own lines add theirs. */
#define _GNU_SOURCE
#include "host/linux/terminal.h"

#include <errno.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static bool raw;

int terminal_raw(void)
{
	if (raw || !isatty(STDIN_FILENO))
		return 0;
	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return -errno;
	struct termios t = saved;
	cfmakeraw(&t);
	if (tcsetattr(STDIN_FILENO, TCSANOW, &t) < 0)
		return -errno;
	__atomic_store_n(&raw, true, __ATOMIC_SEQ_CST);
	atexit(terminal_restore);
	return 0;
}

bool terminal_is_raw(void)
{
	return __atomic_load_n(&raw, __ATOMIC_RELAXED);
}

void terminal_restore(void)
{
	if (__atomic_exchange_n(&raw, false, __ATOMIC_SEQ_CST))
		tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}
