/* Files given on the command line. */
#define _GNU_SOURCE
#include "host/linux/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int complain(const char *what, const char *path, const char *why)
{
	fprintf(stderr, "nadir: --%s: %s: %s\n", what, path, why);
	return -1;
}

/* Read exactly `size` bytes; 0, or an error number (ENODATA: the file ended early). */
static int read_all(int fd, u8 *data, size_t size)
{
	while (size) {
		ssize_t n = read(fd, data, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? errno : ENODATA;
		data += n;
		size -= (size_t)n;
	}
	return 0;
}

static int load(struct file *file, int fd, const char *what, const char *path, u64 limit)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return complain(what, path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return complain(what, path, S_ISDIR(st.st_mode) ? "it is a directory" : "it is not a regular file");
	if (!st.st_size)
		return complain(what, path, "the file is empty");
	if ((u64)st.st_size > limit)
		return complain(what, path, "the file is larger than the guest's memory (--memory)");
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return complain(what, path, strerror(errno));
	int error = read_all(fd, p, (size_t)st.st_size);
	if (error) {
		munmap(p, (size_t)st.st_size);
		return complain(what, path, error == ENODATA ? "the file shrank while it was read" : strerror(error));
	}
	*file = (struct file){ .data = p, .size = (size_t)st.st_size };
	return 0;
}

int file_load(struct file *file, const char *what, const char *path, u64 limit)
{
	/* A pipe without a writer would keep us waiting, only to be refused. */
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return complain(what, path, strerror(errno));
	int result = load(file, fd, what, path, limit);
	close(fd);
	return result;
}

void file_release(struct file *file)
{
	if (file->data)
		munmap((void *)file->data, file->size);
	*file = (struct file){ 0 };
}
