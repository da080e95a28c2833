/* The host port's diagnostics: one line each on stderr, or in the file of --log-file. */
#define _GNU_SOURCE
#include "host/linux/log.h"

#include "host/linux/terminal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static enum host_log_level threshold = LOG_WARN;
static int log_fd = STDERR_FILENO;
static void (*panic_dump)(void);

void log_set_level(enum host_log_level level)
{
	threshold = level;
}

void log_set_fd(int fd)
{
	log_fd = fd;
}

void log_set_panic_dump(void (*dump)(void))
{
	panic_dump = dump;
}

/* One write per line, so that lines of several threads do not mix. On a raw terminal a line needs its carriage return. */
static void log_line(const char *prefix, const char *fmt, va_list args)
{
	char line[1024];
	int n = snprintf(line, sizeof(line), "%s", prefix);
	int m = vsnprintf(line + n, sizeof(line) - (size_t)n - 2, fmt, args);
	size_t length = MIN((size_t)n + (size_t)MAX(m, 0), sizeof(line) - 3);
	if (log_fd == STDERR_FILENO && terminal_is_raw())
		line[length++] = '\r';
	line[length++] = '\n';
	while (write(log_fd, line, length) < 0 && errno == EINTR)
		;
}

void host_log(enum host_log_level level, const char *fmt, ...)
{
	static const char *const prefix[] = {
		[LOG_ERROR] = "nadir: error: ",
		[LOG_WARN] = "nadir: warning: ",
		[LOG_INFO] = "nadir: ",
		[LOG_DEBUG] = "nadir: debug: ",
	};
	if (level > threshold)
		return;
	va_list args;
	va_start(args, fmt);
	log_line(prefix[level], fmt, args);
	va_end(args);
}

void host_panic(const char *fmt, ...)
{
	terminal_restore();
	va_list args;
	va_start(args, fmt);
	log_line("nadir: bug: ", fmt, args);
	va_end(args);
	/* A second panic, while the first dumps or on another thread, only says its line. */
	void (*dump)(void) = __atomic_exchange_n(&panic_dump, NULL, __ATOMIC_SEQ_CST);
	if (dump)
		dump();
	abort();
}

int host_snprintf(char *buf, size_t size, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(buf, size, fmt, args);
	va_end(args);
	return n;
}

void host_random(void *buf, size_t size)
{
	u8 *p = buf;
	while (size) {
		ssize_t n = getrandom(p, size, 0);
		if (n < 0 && errno != EINTR)
			host_panic("getrandom: %s", strerror(errno));
		if (n > 0) {
			p += n;
			size -= (size_t)n;
		}
	}
}

/* ---- the map of generated code ---- */

static int code_map = -1;

void log_set_code_map(int fd)
{
	code_map = fd;
}

bool log_has_code_map(void)
{
	return code_map >= 0;
}

/* A profile that lacks a line is no reason to stop. */
void host_note_code(const void *code, size_t size, u64 guest)
{
	char line[96];
	if (code_map < 0)
		return;
	int n = snprintf(line, sizeof(line), "%llx %zx guest_%llx\n", (unsigned long long)(uintptr_t)code, size, (unsigned long long)guest);
	if (write(code_map, line, (size_t)n) != n)
		code_map = -1;
}
