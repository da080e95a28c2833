/* Runs in the guest: sockets of AF_VSOCK for scripts.
 *
 * usage: vsock cid | vsock connect CID PORT | vsock listen PORT...
 *
 * connect and listen (for one connection) send what comes from standard input, say when that has ended, and write what comes to standard output, until both
 * have ended. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int write_all(int fd, const char *data, ssize_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, (size_t)size);
		if (n <= 0)
			return -1;
		data += n;
		size -= n;
	}
	return 0;
}

static int relay(int fd)
{
	static char buffer[1 << 17];
	struct pollfd p[2] = { { .fd = 0, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
	while (p[0].fd >= 0 || p[1].fd >= 0) {
		poll(p, 2, -1);
		if (p[0].revents) {
			ssize_t n = read(0, buffer, sizeof(buffer));
			if (n > 0 && write_all(fd, buffer, n) < 0)
				return fail("send");
			if (n <= 0) {
				shutdown(fd, SHUT_WR);
				p[0].fd = -1;
			}
		}
		if (p[1].revents) {
			ssize_t n = read(fd, buffer, sizeof(buffer));
			if (n < 0)
				return fail("receive");
			if (n == 0)
				p[1].fd = -1;
			if (write_all(1, buffer, n) < 0)
				return fail("write");
		}
	}
	return 0;
}

static int print_cid(void)
{
	unsigned cid = 0;
	int fd = open("/dev/vsock", O_RDONLY);
	if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0)
		return fail("/dev/vsock");
	printf("%u\n", cid);
	return 0;
}

int main(int argc, char **argv)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };
	if (fd < 0)
		return fail("socket");
	if (argc == 2 && !strcmp(argv[1], "cid"))
		return print_cid();
	if (argc == 4 && !strcmp(argv[1], "connect")) {
		address.svm_cid = (unsigned)strtoul(argv[2], NULL, 10);
		address.svm_port = (unsigned)strtoul(argv[3], NULL, 10);
		return connect(fd, (void *)&address, sizeof(address)) < 0 ? fail("connect") : relay(fd);
	}
	if (argc == 3 && !strcmp(argv[1], "listen")) {
		address.svm_port = (unsigned)strtoul(argv[2], NULL, 10);
		if (bind(fd, (void *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
			return fail("listen");
		int one = accept(fd, NULL, NULL);
		return one < 0 ? fail("accept") : relay(one);
	}
	return 2;
}
