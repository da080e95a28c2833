/* Disk images: what lies in one file or several, seen as one row of bytes. One ops struct for each format (image_raw.c, qcow2.c).
 *
 * Unless stated otherwise functions may be called by several threads at once, and give 0 or a negative error number. Ranges lie within the
 * image. Vectors hold exactly `size` bytes; parts of them may be empty. */
#ifndef NADIR_HOST_LINUX_IMAGE_H
#define NADIR_HOST_LINUX_IMAGE_H

#include "arch/types.h"

#include <sys/uio.h>

#define IMAGE_SECTOR 512u
#define IMAGE_VECTOR_MAX 256u
#define IMAGE_FILES_MAX 2
#define IMAGE_PARTS_MAX (IMAGE_VECTOR_MAX - 2) /* of a request's vector; formats add what lies around it */

struct image {
	const struct image_ops *ops;
	u64 size; /* bytes. Raw files that qcow2 lies in: what it was when they were opened; such files grow. */
	bool readonly;
	bool direct; /* raw: most transfers go past the host's page cache */
	bool remote; /* everything waits for another process or machine */
	u64 device, inode; /* of the file, as stat tells them */
};

struct image_ops {
	int (*read)(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size);
	int (*write)(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size);
	/* Zeros from here on; `unmap`: the storage may be given back. */
	int (*zero)(struct image *image, u64 offset, u64 size, bool unmap);
	/* What is there does not matter any more. */
	int (*discard)(struct image *image, u64 offset, u64 size);
	/* What was complete before is on stable storage when this returns 0. */
	int (*flush)(struct image *image);
	/* read or write without waiting for storage, one caller at a time. False: nothing is settled, part of it may have been done; it can be
	 * done again. NULL: never. */
	bool (*try_read)(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size);
	bool (*try_write)(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size);
	/* The files whose bytes are the image's, at the same places: through the host's page cache, and past it or -1. NULL: there are none. */
	void (*files)(struct image *image, int file[IMAGE_FILES_MAX]);
	/* Which of them takes this transfer. */
	unsigned (*file_for)(struct image *image, const struct iovec *vector, unsigned count, u64 offset);
	/* Last call. What was not flushed is written, without waiting for stable storage. */
	void (*close)(struct image *image);
};

/* How a file is opened. Errors are told by one sentence on stderr that begins with `who` (an option's name, say) and names the file. */
struct image_wish {
	const char *who, *path;
	const char *format; /* "raw", "qcow2" or NULL: by the file's name */
	bool readonly, direct;
	bool remote; /* `path` is the URI of a Network Block Device, as it is: a raw image */
};

/* The image in a file, or NULL. The file is locked against other users that lock as well: for writing by one, for reading by several. */
struct image *image_open(const struct image_wish *wish);
/* The image behind an empty one that nobody else will see: it can be written, and what is written is gone when it is closed. */
struct image *image_open_throwaway(const struct image_wish *wish);
/* Make a new image of `size` bytes; with a base, a qcow2 one in front of that, of its size if `size` is 0. 0, or -1 after one sentence on
 * stderr. */
int image_create(const struct image_wish *wish, u64 size, const struct image_wish *base);
void image_close(struct image *image);

/* A raw image in an open file of `size` bytes, which belongs to the image from then on, as does `direct`, the same file opened with
 * O_DIRECT or -1. `grows`: beyond the end of the file are zeros, and it grows when something is written there. NULL: no memory, and both files are
 * closed. */
struct image *raw_open(int fd, int direct, u64 size, bool readonly, bool grows);

/* `size` bytes of a vector from `skip` on, as a vector. Gives the number of its parts. */
unsigned vector_slice(const struct iovec *vector, unsigned count, u64 skip, u64 size, struct iovec *slice);
void vector_zero(const struct iovec *vector, unsigned count);
void vector_fill(const struct iovec *vector, unsigned count, const void *data);

#endif
