/* Opening images (image.h): files, their locks, and which format they are of.
 *
 * The format goes by the option or the name, never by what the file holds: a guest that writes a qcow2 header to its raw disk would have any
 * file of the host opened as its backing file the next time. */
#define _GNU_SOURCE
#include "host/linux/image.h"

#include "host/linux/image_nbd.h"
#include "host/linux/passed_files.h"
#include "host/linux/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int complain(const struct image_wish *w, const char *why)
{
	fprintf(stderr, "nadir: %s: %s: %s\n", w->who, w->path, why);
	return -1;
}

static int find_size(int fd, const struct image_wish *w, u64 *size)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return complain(w, strerror(errno));
	*size = (u64)st.st_size;
	if (S_ISBLK(st.st_mode) ? ioctl(fd, BLKGETSIZE64, size) < 0 : !S_ISREG(st.st_mode))
		return complain(w, S_ISDIR(st.st_mode) ? "it is a directory" : "it is neither a file nor a block device");
	return 0;
}

static int open_locked(const struct image_wish *w, u64 *size)
{
	int fd = passed_open(w->path, (w->readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0)
		return complain(w, strerror(errno));
	if (flock(fd, (w->readonly ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0) {
		complain(w, errno == EWOULDBLOCK ? "it is in use by another virtual machine or as another disk" : strerror(errno));
		close(fd);
		return -1;
	}
	if (find_size(fd, w, size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The file as it is. `grows`: another format lies in it. */
static struct image *open_file(const struct image_wish *w, bool grows)
{
	u64 size;
	int direct = -1, fd = open_locked(w, &size);
	if (fd < 0)
		return NULL;
	if (w->direct)
		direct = passed_open(w->path, (w->readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC | O_DIRECT, 0);
	if (w->direct && direct < 0) {
		complain(w, "the file system has no direct I/O; leave direct=on out");
		close(fd);
		return NULL;
	}
	struct image *image = raw_open(fd, direct, size, w->readonly, grows);
	if (!image)
		complain(w, strerror(ENOMEM));
	return image;
}

static bool begins_as_qcow2(struct image *image)
{
	char magic[4];
	const struct iovec vector = { magic, sizeof(magic) };
	return image->size >= sizeof(magic) && !image->ops->read(image, &vector, 1, 0, sizeof(magic)) && !memcmp(magic, "QFI\xfb", sizeof(magic));
}

static struct image *open_raw(const struct image_wish *w)
{
	struct image *image = open_file(w, false);
	if (!image || w->format || !begins_as_qcow2(image))
		return image;
	complain(w, "it is called like a raw image and begins like a qcow2 image; say format=qcow2 or format=raw");
	image_close(image);
	return NULL;
}

static bool named_qcow2(const char *path)
{
	const char *dot = strrchr(path, '.');
	return dot && !strcasecmp(dot, ".qcow2");
}

static const char *format_of(const struct image_wish *w)
{
	return w->format ? w->format : named_qcow2(w->path) ? "qcow2" : "raw";
}

struct image *image_open_behind(const struct image_wish *wish, unsigned depth)
{
	const char *format = format_of(wish);
	if (wish->remote && passed_on())
		return complain(wish, "a network block device cannot be given to a machine that runs"), NULL;
	if (wish->remote)
		return nbd_open(wish);
	if (!strcmp(format, "raw"))
		return open_raw(wish);
	if (strcmp(format, "qcow2")) {
		fprintf(stderr, "nadir: %s: %s: there is no format %s; the formats are raw and qcow2\n", wish->who, wish->path, format);
		return NULL;
	}
	struct image *file = open_file(wish, true);
	return file ? qcow2_open(file, wish, NULL, false, depth) : NULL;
}

struct image *image_open(const struct image_wish *wish)
{
	return image_open_behind(wish, 0);
}

/* ---- overlays ---- */

/* An empty qcow2 image in a file without a name. */
static struct image *open_unnamed(const struct image_wish *w, u64 size)
{
	struct stat st;
	int fd = passed_open(w->path, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	int error = fd < 0 ? -errno : passed_taking() ? 0 : qcow2_create(fd, size, NULL, NULL);
	if (error || fstat(fd, &st) < 0) {
		complain(w, strerror(error ? -error : errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	struct image *file = raw_open(fd, -1, (u64)st.st_size, false, true);
	if (!file)
		complain(w, strerror(ENOMEM));
	return file;
}

struct image *image_open_throwaway(const struct image_wish *wish)
{
	const char *folder = getenv("TMPDIR");
	const struct image_wish base = { wish->who, wish->path, wish->format, .readonly = true, .direct = wish->direct, .remote = wish->remote };
	const struct image_wish own = { wish->who, folder && *folder ? folder : "/var/tmp", "qcow2" };
	struct image *behind = image_open(&base);
	if (!behind)
		return NULL;
	struct image *file = open_unnamed(&own, behind->size);
	struct image *image = file ? qcow2_open(file, &own, behind, true, 0) : NULL;
	if (image)
		image->remote = wish->remote;
	if (file)
		return image;
	image_close(behind);
	return NULL;
}

/* The name of the base as it is to be found from the overlay's folder: whole. */
int image_create(const struct image_wish *wish, u64 size, const struct image_wish *base)
{
	char *behind = base ? realpath(base->path, NULL) : NULL;
	struct image *image = base ? image_open(base) : NULL;
	if (base && (!image || !behind)) {
		if (image)
			image_close(image);
		free(behind);
		return image ? complain(base, strerror(errno)) : -1;
	}
	int fd = open(wish->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	int error = fd < 0 ? -errno : 0;
	if (!error && !strcmp(format_of(wish), "raw"))
		error = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	else if (!error)
		error = qcow2_create(fd, size || !image ? size : image->size, behind, base ? format_of(base) : NULL);
	if (error && fd >= 0)
		unlink(wish->path);
	if (fd >= 0)
		close(fd);
	if (image)
		image_close(image);
	free(behind);
	return error ? complain(wish, strerror(-error)) : 0;
}

void image_close(struct image *image)
{
	image->ops->close(image);
}
