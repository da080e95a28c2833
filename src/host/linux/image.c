/* Opening images (image.h): files, their locks, and which format they are of.
 *
 * The format goes by the option or the name, never by what the file holds: a guest that writes a qcow2 header to its raw disk would have any
 * file of the host opened as its backing file the next time. */
#define _GNU_SOURCE
#include "host/linux/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
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
	int fd = open(w->path, (w->readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC);
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

static struct image *open_raw(const struct image_wish *w)
{
	u64 size;
	int direct = -1, fd = open_locked(w, &size);
	if (fd < 0)
		return NULL;
	if (!size || size % IMAGE_SECTOR) {
		complain(w, "its size is not a multiple of 512 bytes, as that of a raw disk image is; truncate -s %512 rounds it up");
		close(fd);
		return NULL;
	}
	if (w->direct)
		direct = open(w->path, (w->readonly ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC | O_DIRECT);
	if (w->direct && direct < 0) {
		complain(w, "the file system has no direct I/O; leave direct=on out");
		close(fd);
		return NULL;
	}
	struct image *image = raw_open(fd, direct, size, w->readonly);
	if (!image)
		complain(w, strerror(ENOMEM));
	return image;
}

struct image *image_open(const struct image_wish *wish)
{
	return open_raw(wish);
}

void image_close(struct image *image)
{
	image->ops->close(image);
}
