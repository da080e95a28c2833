/* Connections to a switch that come back: a process beside the confined VMM, which can connect when the VMM cannot any more. Told by a byte that
 * the connection is lost, it tries until the switch is there again and hands over the new one. It holds nothing else and reads nothing else. */
#define _GNU_SOURCE
#include "host/linux/net_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAUSE 300 /* milliseconds between attempts */

/* A message of one byte, with a file. */
struct parcel {
	char byte;
	alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec vector;
	struct msghdr message;
};

static void wrap(struct parcel *p)
{
	*p = (struct parcel){ .vector = { &p->byte, 1 } };
	p->message = (struct msghdr){ .msg_iov = &p->vector, .msg_iovlen = 1, .msg_control = p->control, .msg_controllen = sizeof(p->control) };
}

static bool hand_over(int keeper, int fd)
{
	struct parcel p;
	wrap(&p);
	struct cmsghdr *c = CMSG_FIRSTHDR(&p.message);
	*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fd)) };
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return sendmsg(keeper, &p.message, MSG_NOSIGNAL) == 1;
}

/* Whether the VMM is gone, after a while at most. */
static bool deserted(int keeper)
{
	struct pollfd on = { .fd = keeper };
	return poll(&on, 1, PAUSE) > 0;
}

static _Noreturn void live(int keeper, const char *path, bool confine)
{
	char byte;
	keeper = net_detach(keeper, "nadir-keeper") ? NET_DETACHED : -1;
	dup2(STDIN_FILENO, STDERR_FILENO); /* it says nothing, and keeps nobody waiting who reads what a command says */
	if (keeper < 0 || (confine && net_sandbox_enter(NET_MAY_CONNECT, NULL) < 0))
		_exit(1);
	while (read(keeper, &byte, 1) == 1) {
		int fd;
		while ((fd = net_connect_to(path)) < 0)
			if (deserted(keeper))
				_exit(0);
		if (!hand_over(keeper, fd))
			_exit(0);
		close(fd);
	}
	_exit(0);
}

int net_keeper_start(const char *path, bool confine)
{
	int fd[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) < 0)
		return net_complain(path, strerror(errno));
	pid_t pid = fork();
	if (!pid)
		live(fd[1], path, confine);
	close(fd[1]);
	if (pid > 0)
		return fd[0];
	close(fd[0]);
	return net_complain(path, strerror(errno));
}

bool net_keeper_ask(int keeper)
{
	const char byte = 0;
	return write(keeper, &byte, 1) == 1;
}

int net_keeper_take(int keeper)
{
	struct parcel p;
	int fd = -1;
	wrap(&p);
	if (recvmsg(keeper, &p.message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return -1;
	const struct cmsghdr *c = CMSG_FIRSTHDR(&p.message);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(fd)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}
