/* Lines about added disks and networks (device_text.h). */
#define _GNU_SOURCE
#include "host/linux/device_text.h"

#include "host/linux/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

int device_text_make(const char *name, const char *value)
{
	char *absolute = options_absolute(name, value), *line = NULL;
	int size = absolute ? asprintf(&line, "%s %s", name, absolute) : -1;
	int file = size < 0 ? -1 : memfd_create("nadir-device", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	bool good = file >= 0 && write(file, line, (size_t)size) == size && !fcntl(file, F_ADD_SEALS, SEALS);
	if (file >= 0 && !good)
		close(file);
	free(absolute);
	if (size >= 0)
		free(line);
	return good ? file : -1;
}

/* No line may become two. */
static bool is_plain(const char *text, size_t size)
{
	bool plain = true;
	for (size_t i = 0; i < size; i++)
		plain &= (unsigned char)text[i] >= ' ';
	return plain;
}

char *device_text_read(int file, const char *name)
{
	struct stat st;
	size_t skip = strlen(name) + 1;
	int seals = fcntl(file, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS || fstat(file, &st) < 0 || st.st_size <= (off_t)skip || st.st_size > (off_t)DEVICE_TEXT_MAX)
		return NULL;
	size_t size = (size_t)st.st_size;
	char *line = calloc(1, size + 1);
	if (!line)
		return NULL;
	bool good = pread(file, line, size, 0) == (ssize_t)size && is_plain(line, size) && !strncmp(line, name, skip - 1) && line[skip - 1] == ' ';
	memmove(line, line + skip, size - skip + 1);
	if (good)
		return line;
	free(line);
	return NULL;
}
