/* The sockets of running VMs. A VM cannot remove its own when it ends, since it is confined by then: the file stays until somebody finds that
 * nobody listens, and removes it. So that nobody finds a socket at which nobody listens yet, it gets its name when somebody does. */
#define _GNU_SOURCE
#include "host/linux/runtime.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

bool runtime_name_ok(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	return length && length <= VM_NAME_MAX && !name[length] && *name != '.' && *name != '-';
}

/* Nobody else may put sockets there, or take them away. */
static bool is_ours(const char *path)
{
	struct stat st;
	return !lstat(path, &st) && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022);
}

int runtime_folder(char path[PATH_MAX], bool make)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	if (base && *base == '/')
		snprintf(path, PATH_MAX, "%s/nadir", base);
	else if (!geteuid())
		snprintf(path, PATH_MAX, "/run/nadir");
	else
		snprintf(path, PATH_MAX, "/tmp/nadir-%u", (unsigned)geteuid());
	if (make && mkdir(path, 0700) < 0 && errno != EEXIST) {
		fprintf(stderr, "nadir: --name: the folder %s for control sockets cannot be made: %s\n", path, strerror(errno));
		return -1;
	}
	if (is_ours(path))
		return 0;
	if (make)
		fprintf(stderr, "nadir: --name: %s is not a folder that only you can write; set XDG_RUNTIME_DIR, or give a path by --api-socket\n", path);
	return -1;
}

int runtime_socket(const char *who, char path[SOCKET_PATH_SIZE])
{
	char folder[PATH_MAX];
	bool is_path = strchr(who, '/');
	if (!is_path && !runtime_name_ok(who)) {
		fprintf(stderr, "nadir: '%s' is not the name of a virtual machine, nor the path of a control socket\n", who);
		return -1;
	}
	int length = 0;
	if (is_path)
		length = snprintf(path, SOCKET_PATH_SIZE, "%s", who);
	else if (!runtime_folder(folder, false))
		length = snprintf(path, SOCKET_PATH_SIZE, "%s/%s.sock", folder, who);
	if (length > 0 && (size_t)length < SOCKET_PATH_SIZE)
		return 0;
	if (length)
		fprintf(stderr, "nadir: %s: a socket's path has %zu characters at most\n", who, SOCKET_PATH_SIZE - 1);
	else
		fprintf(stderr, "nadir: there is no running virtual machine '%s'; nadir list shows those there are\n", who);
	return -1;
}

/* False: it is too long. */
static bool set_address(struct sockaddr_un *address, const char *path)
{
	size_t size = strlen(path) + 1;
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (size > sizeof(address->sun_path))
		return false;
	memcpy(address->sun_path, path, size);
	return true;
}

int runtime_connect(const char *path)
{
	struct sockaddr_un address;
	if (!set_address(&address, path))
		return -ENAMETOOLONG;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		int error = -errno;
		close(fd);
		return error;
	}
	return fd < 0 ? -errno : fd;
}

static int complain(const char *option, const char *path, const char *why)
{
	fprintf(stderr, "nadir: --%s: %s: %s\n", option, path, why);
	return -1;
}

/* Bind and listen under a name of its own. */
static int listen_at(const char *path)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || !set_address(&address, path))
		return -1;
	mode_t mask = umask(0177);
	int error = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (!error && !listen(fd, SOMAXCONN))
		return fd;
	int why = errno;
	close(fd);
	errno = why;
	return -1;
}

int runtime_remove_left(const char *path)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return -errno;
	return !S_ISSOCK(st.st_mode) ? -ENOTSOCK : unlink(path) < 0 ? -errno : 0;
}

/* Give it its name; a name that a dead VM left is free. */
static int publish(const char *from, const char *to)
{
	for (int tries = 0; tries < 3; tries++) {
		if (!link(from, to))
			return 0;
		if (errno != EEXIST)
			return -errno;
		int fd = runtime_connect(to);
		if (fd >= 0)
			close(fd);
		int error = fd >= 0 ? -EADDRINUSE : fd == -ECONNREFUSED ? runtime_remove_left(to) : fd;
		if (error && error != -ENOENT)
			return error;
	}
	return -EADDRINUSE;
}

int runtime_listen(const char *option, const char *path)
{
	char own[SOCKET_PATH_SIZE + 16];
	if ((size_t)snprintf(own, sizeof(own), "%s.%d", path, (int)getpid()) >= SOCKET_PATH_SIZE)
		return complain(option, path, "the path of a socket must be shorter");
	unlink(own);
	int fd = listen_at(own);
	if (fd < 0)
		return complain(option, path, strerror(errno));
	int error = publish(own, path);
	unlink(own);
	if (!error)
		return fd;
	close(fd);
	return complain(option, path, error == -EADDRINUSE ? "a virtual machine with this control socket is running" :
			error == -ENOTSOCK ? "there is a file of this name, which is not a socket" : strerror(-error));
}
