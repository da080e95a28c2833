/* Opening, writing and rotating what a console is on. A confined process can neither open nor rename files: the files of a rotation are all open
 * from the start, and their contents move from one to the next. */
#define _GNU_SOURCE
#include "host/linux/console_target.h"

#include "host/linux/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define READER_WAIT 200 /* milliseconds between two looks whether to go on waiting for a reader */
#define COPY_SIZE 65536
#define LIMIT_MIN 4096ull

static volatile sig_atomic_t hurry;

void target_hurry(void)
{
	hurry = 1;
}

bool target_hurries(void)
{
	return hurry;
}

/* ---- writing ---- */

static bool wait_for_reader(int fd)
{
	while (poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, READER_WAIT) <= 0)
		if (hurry)
			return false;
	return true;
}

static int write_all(int fd, const u8 *data, size_t size, bool wait)
{
	while (size) {
		ssize_t n = write(fd, data, size);
		if (n < 0 && errno == EAGAIN) {
			if (!wait)
				return 0; /* the rest is lost */
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

/* All of one file, over all of another. */
static void move_file(int from, int to)
{
	static u8 buffer[COPY_SIZE]; /* one at a time: under the lock of the only console that rotates, or both wait for the board's */
	ssize_t n;
	if (lseek(from, 0, SEEK_SET) < 0 || lseek(to, 0, SEEK_SET) < 0 || ftruncate(to, 0) < 0)
		return;
	while ((n = read(from, buffer, sizeof(buffer))) > 0)
		if (write_all(to, buffer, (size_t)n, true))
			return;
}

static void rotate(struct console_target *t)
{
	for (unsigned i = t->keep; i--;)
		move_file(i ? t->older[i - 1] : t->out, t->older[i]);
	if (!ftruncate(t->out, 0))
		lseek(t->out, 0, SEEK_SET);
	t->size = 0;
}

int target_write(struct console_target *t, const u8 *data, size_t size)
{
	if (t->out < 0)
		return 0;
	if (t->limit && t->size && t->size + size > t->limit)
		rotate(t);
	t->size += size;
	return write_all(t->out, data, size, t->kind == TARGET_STDIO || t->kind == TARGET_FILE);
}

/* ---- opening ---- */

static int complain(const char *option, const char *what, const char *why)
{
	fprintf(stderr, "nadir: --%s: %s: %s\n", option, what, why);
	return -1;
}

/* Standard output for the guest. A terminal or pipe is opened anew, so that writes to it never block for ever, without making it
 * non-blocking for those we share it with. */
static int open_stdio(struct console_target *t)
{
	struct stat st;
	int fd = -1;
	if (!fstat(STDOUT_FILENO, &st) && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	t->out = fd >= 0 ? fd : STDOUT_FILENO;
	t->in = STDIN_FILENO;
	return 0;
}

static bool parse_limit(const char *text, u64 *value)
{
	static const char units[] = "KMG";
	char *end;
	errno = 0;
	*value = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit)
		*value <<= 10 * (unit - units + 1);
	return end != text && !errno && *text != '-' && !end[unit != NULL] && *value >= LIMIT_MIN && *value <= BIT(40);
}

static bool parse_keep(const char *text, unsigned *keep)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	*keep = (unsigned)MIN(n, TARGET_KEEP_MAX + 1ul);
	return end != text && !*end && *text != '-' && n <= TARGET_KEEP_MAX;
}

/* Cut ",size=..." and ",keep=..." off the end of a path. */
static int parse_rotation(struct console_target *t, const char *option, char *path)
{
	bool kept = false;
	for (char *comma; (comma = strrchr(path, ','));) {
		bool is_size = !strncmp(comma, ",size=", 6), is_keep = !strncmp(comma, ",keep=", 6);
		if (!is_size && !is_keep)
			break;
		if (is_size && !parse_limit(comma + 6, &t->limit))
			return complain(option, comma + 1, "a size is a number from 4K on, with a suffix K, M or G");
		if (is_keep && !parse_keep(comma + 6, &t->keep))
			return complain(option, comma + 1, "0 to 16 older files can be kept");
		kept |= is_keep;
		*comma = 0;
	}
	if (kept && !t->limit)
		return complain(option, "keep", "say when the file is rotated, by size=SIZE");
	t->keep = kept || !t->limit ? t->keep : 1;
	return *path ? 0 : complain(option, "file:", "a path is missing");
}

static int open_older(struct console_target *t, const char *option, const char *path)
{
	for (unsigned i = 0; i < t->keep; i++) {
		char *name;
		if (asprintf(&name, "%s.%u", path, i + 1) < 0)
			return complain(option, path, "out of memory");
		t->older[i] = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		int result = t->older[i] < 0 ? complain(option, name, strerror(errno)) : 0;
		free(name);
		if (result < 0)
			return -1;
	}
	return 0;
}

static int open_file(struct console_target *t, const char *option, const char *where)
{
	char path[PATH_MAX];
	if ((size_t)snprintf(path, sizeof(path), "%s", where) >= sizeof(path))
		return complain(option, where, "the path is too long");
	if (parse_rotation(t, option, path) < 0 || open_older(t, option, path) < 0)
		return -1;
	t->out = open(path, (t->limit ? O_RDWR : O_WRONLY | O_TRUNC) | O_CREAT | O_CLOEXEC, 0644);
	if (t->out < 0)
		return complain(option, path, strerror(errno));
	struct stat st;
	if (t->limit && !fstat(t->out, &st) && st.st_size) /* what an earlier machine wrote */
		rotate(t);
	return 0;
}

static int open_pty(struct console_target *t, const char *option)
{
	char name[64];
	struct termios raw;
	t->out = t->in = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (t->out < 0 || grantpt(t->out) < 0 || unlockpt(t->out) < 0 || ptsname_r(t->out, name, sizeof(name)))
		return complain(option, "pty", strerror(errno));
	t->other_end = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (t->other_end < 0 || tcgetattr(t->other_end, &raw) < 0)
		return complain(option, name, strerror(errno));
	cfmakeraw(&raw);
	tcsetattr(t->other_end, TCSANOW, &raw);
	fprintf(stderr, "nadir: --%s is at %s\n", option, name);
	return 0;
}

static int open_socket(struct console_target *t, const char *option, const char *path)
{
	t->listening = runtime_listen(option, path);
	return t->listening < 0 ? -1 : 0;
}

static int open_kind(struct console_target *t, const char *option, const char *where)
{
	if (!strcmp(where, "none"))
		return 0;
	if (!strcmp(where, "stdio")) {
		t->kind = TARGET_STDIO;
		return open_stdio(t);
	}
	if (!strcmp(where, "pty")) {
		t->kind = TARGET_PTY;
		return open_pty(t, option);
	}
	if (!strncmp(where, "unix:", 5) && where[5]) {
		t->kind = TARGET_SOCKET;
		return open_socket(t, option, where + 5);
	}
	if (!strncmp(where, "file:", 5) && where[5]) {
		t->kind = TARGET_FILE;
		return open_file(t, option, where + 5);
	}
	fprintf(stderr, "nadir: --%s: '%s' is not one of stdio, none, pty, unix:PATH or file:PATH[,size=SIZE][,keep=N]\n", option, where);
	return -1;
}

int target_open(struct console_target *target, const char *option, const char *where)
{
	*target = (struct console_target){ .out = -1, .in = -1, .listening = -1, .other_end = -1 };
	memset(target->older, -1, sizeof(target->older));
	if (!open_kind(target, option, where))
		return 0;
	target_close(target);
	return -1;
}

static void close_fd(int *fd)
{
	if (*fd > STDERR_FILENO)
		close(*fd);
	*fd = -1;
}

void target_close(struct console_target *t)
{
	if (t->in == t->out)
		t->in = -1;
	close_fd(&t->in);
	close_fd(&t->out);
	close_fd(&t->listening);
	close_fd(&t->other_end);
	for (unsigned i = 0; i < TARGET_KEEP_MAX; i++)
		close_fd(&t->older[i]);
}

/* ---- who connects ---- */

int target_accept(struct console_target *t)
{
	int fd = accept4(t->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return -1;
	t->in = t->out = fd;
	return fd;
}

void target_disconnect(struct console_target *t)
{
	close_fd(&t->out);
	t->in = -1;
}
