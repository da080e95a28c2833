/* Files that one process opens for another (passed_files.h). */
#define _GNU_SOURCE
#include "host/linux/passed_files.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static _Thread_local struct passed_files *current;
static _Thread_local bool takes;

void passed_record(struct passed_files *files)
{
	*files = (struct passed_files){ 0 };
	current = files;
	takes = false;
}

void passed_take(struct passed_files *files)
{
	files->next = 0;
	current = files;
	takes = true;
}

void passed_end(void)
{
	current = NULL;
	takes = false;
}

struct passed_files *passed_suspend(void)
{
	struct passed_files *files = current;
	current = NULL;
	return files;
}

void passed_resume(struct passed_files *files)
{
	current = files;
}

bool passed_on(void)
{
	return current;
}

bool passed_taking(void)
{
	return takes;
}

int passed_next(void)
{
	if (current->next == current->count) {
		errno = EBADF;
		return -1;
	}
	int fd = current->fd[current->next];
	current->fd[current->next++] = -1;
	return fd;
}

int passed_note(int fd)
{
	if (!current || fd < 0)
		return fd;
	if (current->count < PASSED_FILES_MAX) {
		current->fd[current->count++] = fd;
		return fd;
	}
	close(fd);
	errno = EMFILE;
	return -1;
}

int passed_open(const char *path, int flags, mode_t mode)
{
	return takes ? passed_next() : passed_note(open(path, flags, mode));
}

void passed_close(struct passed_files *files)
{
	for (unsigned i = 0; i < files->count; i++)
		if (files->fd[i] >= 0)
			close(files->fd[i]);
	files->count = 0;
}
