/* nadir console: this terminal on the console of a running VM, until Ctrl-] or the machine's end. */
#define _GNU_SOURCE
#include "host/linux/commands.h"

#include "host/linux/client.h"
#include "host/linux/run.h"
#include "host/linux/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DETACH 0x1d /* Ctrl-] */

static volatile sig_atomic_t ended_by_signal;

static void on_signal(int number)
{
	ended_by_signal = number;
}

static bool write_all(int fd, const char *bytes, size_t size)
{
	while (size) {
		ssize_t n = write(fd, bytes, size);
		if (n < 0 && errno != EINTR)
			return false;
		bytes += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

enum next { NEXT_GO_ON, NEXT_DETACHED, NEXT_INPUT_ENDED, NEXT_MACHINE_ENDED };

static enum next keys(int fd)
{
	char buffer[1024];
	ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer));
	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? NEXT_GO_ON : NEXT_INPUT_ENDED;
	if (!n)
		return NEXT_INPUT_ENDED;
	char *detach = terminal_is_raw() ? memchr(buffer, DETACH, (size_t)n) : NULL;
	if (!write_all(fd, buffer, detach ? (size_t)(detach - buffer) : (size_t)n))
		return NEXT_MACHINE_ENDED;
	return detach ? NEXT_DETACHED : NEXT_GO_ON;
}

static enum next output(int fd)
{
	char buffer[4096];
	ssize_t n = read(fd, buffer, sizeof(buffer));
	if (n < 0 && errno == EINTR)
		return NEXT_GO_ON;
	return n > 0 && write_all(STDOUT_FILENO, buffer, (size_t)n) ? NEXT_GO_ON : NEXT_MACHINE_ENDED;
}

/* Without a terminal, the end of the input is no reason to go: what the guest says is still to come. */
static enum next converse(int fd)
{
	struct pollfd fds[] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
	enum next next = NEXT_GO_ON;
	while (next == NEXT_GO_ON && !ended_by_signal) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents)
			next = output(fd);
		if (next == NEXT_GO_ON && fds[0].revents)
			next = keys(fd);
		if (next == NEXT_INPUT_ENDED && !terminal_is_raw()) {
			fds[0].fd = -1;
			next = NEXT_GO_ON;
		}
	}
	return next;
}

static int attach(const char *who, int fd)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct sigaction end = { .sa_handler = on_signal };
	if (client_stream(who, fd, "PUT", "/api/v1/vm.console", true) < 0)
		return STATUS_FAILURE;
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &end, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (isatty(STDIN_FILENO))
		fprintf(stderr, "nadir: attached to %s; Ctrl-] detaches\n", who);
	if (terminal_raw() < 0) {
		fprintf(stderr, "nadir: the terminal cannot be put into raw mode: %s\n", strerror(errno));
		return STATUS_FAILURE;
	}
	bool raw = terminal_is_raw();
	enum next next = converse(fd);
	terminal_restore();
	if (raw)
		fprintf(stderr, "\nnadir: %s\n", next == NEXT_MACHINE_ENDED ? "the machine has ended" : "detached");
	return ended_by_signal ? 128 + ended_by_signal : STATUS_OK;
}

int command_console(int argc, char **argv)
{
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs("usage: nadir console NAME\n\nPuts this terminal on the first serial port of a virtual machine. Ctrl-] detaches; the machine goes on.\n",
		      stdout);
		return STATUS_OK;
	}
	if (argc != 2 || *argv[1] == '-') {
		fprintf(stderr, "nadir: console wants the name of one virtual machine; nadir list shows those there are\n");
		return STATUS_USAGE;
	}
	int fd = client_connect(argv[1]);
	int status = fd < 0 ? STATUS_FAILURE : attach(argv[1], fd);
	if (fd >= 0)
		close(fd);
	return status;
}
