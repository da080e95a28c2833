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
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return complain(what, path, strerror(errno));
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

void file_settle_part(const void *data, u64 size)
{
	uintptr_t from = ((uintptr_t)data + PAGE_SIZE - 1) & PAGE_MASK, to = ((uintptr_t)data + size) & PAGE_MASK;
	if (from < to)
		(void)madvise((void *)from, to - from, MADV_DONTNEED);
}

void file_settle(const struct file *file)
{
	if (file->data)
		(void)madvise((void *)file->data, file->size, MADV_DONTNEED);
}

void file_release(struct file *file)
{
	if (file->data)
		munmap((void *)file->data, file->size);
	*file = (struct file){ 0 };
}
