/* The variables of UEFI firmware, as a file of the flash chip's contents (variables.h).
 *
 * The bytes are kept in memory, and written and synced where they change, before the guest's write is over: firmware itself writes them in an
 * order that survives a power cut at any moment. A new file is written beside and renamed, so that it is there whole or not at all. */
#define _GNU_SOURCE
#include "host/linux/variables.h"

#include "host/linux/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_LIMIT (16u << 20)

/* The file of the one machine, or -1. */
static int file = -1;

static int complain(const char *path, const char *why)
{
	fprintf(stderr, "nadir: --pflash: %s: %s\n", path, why);
	return -1;
}

static int write_all(int fd, const u8 *data, u64 size, u64 offset)
{
	while (size) {
		ssize_t n = pwrite(fd, data, size, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		data += n;
		offset += (u64)n;
		size -= (u64)n;
	}
	return 0;
}

static int sync_file(int fd)
{
	int result;
	do
		result = fdatasync(fd);
	while (result < 0 && errno == EINTR);
	return result;
}

static int store(void *opaque, u64 offset, u64 size)
{
	const struct pflash_backend *backend = opaque;
	if (write_all(file, backend->data + offset, size, offset) < 0)
		return -1;
	return sync_file(file);
}

/* ---- the template ---- */

/* The template's path for an image's; false if there is none. */
static bool template_path(const char *rom, char path[PATH_MAX])
{
	const char *name = strrchr(rom, '/') ? strrchr(rom, '/') + 1 : rom;
	const char *code = strstr(name, "CODE");
	if (!code || strlen(rom) >= PATH_MAX)
		return false;
	snprintf(path, PATH_MAX, "%.*sVARS%s", (int)(code - rom), rom, code + strlen("CODE"));
	char *secure = strstr(path, ".secboot");
	if (secure) /* the same variables */
		memmove(secure, secure + strlen(".secboot"), strlen(secure + strlen(".secboot")) + 1);
	return !access(path, R_OK);
}

static int sync_directory(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int result = fd < 0 ? -1 : fsync(fd);
	if (fd >= 0)
		close(fd);
	free(copy);
	return result;
}

/* Make the file of a template's bytes: 0, or -1 with errno set. */
static int make(const char *path, const struct file *template)
{
	char part[PATH_MAX];
	if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	int result = write_all(fd, template->data, template->size, 0) < 0 || fsync(fd) < 0 ? -1 : 0;
	close(fd);
	if (!result && (rename(part, path) < 0 || sync_directory(path) < 0))
		result = -1;
	return result;
}

static int make_from_template(const char *path, const char *rom)
{
	char template[PATH_MAX];
	struct file bytes;
	if (!template_path(rom, template))
		return complain(path, "it does not exist, and the firmware has no template of it (an image named CODE, and VARS beside)");
	if (file_load(&bytes, "firmware", template, SIZE_LIMIT) < 0)
		return -1;
	int result = make(path, &bytes);
	if (result < 0)
		complain(path, strerror(errno));
	file_release(&bytes);
	return result;
}

/* ---- opening ---- */

static int read_all(const char *path, int fd, struct pflash_backend *backend)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return complain(path, strerror(errno));
	if (!S_ISREG(st.st_mode) || !st.st_size || st.st_size % PFLASH_SECTOR || st.st_size > SIZE_LIMIT)
		return complain(path, "it is not a file of 4 KiB to 16 MiB, in steps of 4 KiB, as a flash chip's contents are");
	backend->size = (u64)st.st_size;
	backend->data = malloc(backend->size);
	if (!backend->data || pread(fd, backend->data, backend->size, 0) != st.st_size)
		return complain(path, "it cannot be read");
	return 0;
}

static int open_file(const char *path, struct pflash_backend *backend)
{
	file = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (file < 0)
		return complain(path, strerror(errno));
	if (flock(file, LOCK_EX | LOCK_NB) < 0)
		return complain(path, "it is in use");
	if (read_all(path, file, backend) < 0)
		return -1;
	backend->store = store;
	backend->opaque = backend;
	return 0;
}

/* A copy of the template that nobody keeps. */
static int open_volatile(const char *rom, struct pflash_backend *backend)
{
	char path[PATH_MAX];
	if (!template_path(rom, path))
		return 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int result = fd < 0 ? complain(path, strerror(errno)) : read_all(path, fd, backend);
	if (fd >= 0)
		close(fd);
	return result;
}

int variables_open(const char *path, const char *rom, struct pflash_backend *backend)
{
	if (!path)
		return open_volatile(rom, backend);
	if (access(path, F_OK) < 0 && errno == ENOENT && make_from_template(path, rom) < 0)
		return -1;
	return open_file(path, backend);
}

void variables_close(struct pflash_backend *backend)
{
	if (file >= 0)
		close(file);
	file = -1;
	free(backend->data);
	backend->data = NULL;
}
