/* Raw images (image.h): a file or a block device is the disk. */
#define _GNU_SOURCE
#include "host/linux/image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZERO_PIECE 65536u

struct raw {
	struct image image;
	int fd, direct; /* direct: -1 if the host's page cache is used for all */
	u64 align_memory, align_offset; /* what `direct` takes; what is not aligned so goes through the page cache */
	bool grows;
	bool read_waits, write_waits; /* the file system does not know RWF_NOWAIT. Callers of try_read and try_write only. */
};

static struct raw *raw_of(struct image *image)
{
	return container_of(image, struct raw, image);
}

/* ---- vectors ---- */

unsigned vector_slice(const struct iovec *vector, unsigned count, u64 skip, u64 size, struct iovec *slice)
{
	unsigned n = 0;
	for (unsigned i = 0; i < count && size; i++) {
		u64 length = vector[i].iov_len;
		if (skip >= length) {
			skip -= length;
			continue;
		}
		length = MIN(length - skip, size);
		slice[n++] = (struct iovec){ (u8 *)vector[i].iov_base + skip, length };
		size -= length;
		skip = 0;
	}
	return n;
}

void vector_zero(const struct iovec *vector, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		memset(vector[i].iov_base, 0, vector[i].iov_len);
}

void vector_fill(const struct iovec *vector, unsigned count, const void *data)
{
	for (unsigned i = 0; i < count; i++) {
		memcpy(vector[i].iov_base, data, vector[i].iov_len);
		data = (const u8 *)data + vector[i].iov_len;
	}
}

/* ---- reading and writing ---- */

/* O_DIRECT wants memory, offsets and lengths aligned. */
static bool goes_direct(const struct raw *raw, const struct iovec *vector, unsigned count, u64 offset)
{
	u64 places = offset % raw->align_offset;
	if (raw->direct < 0)
		return false;
	for (unsigned i = 0; i < count; i++)
		places |= (uintptr_t)vector[i].iov_base % raw->align_memory | vector[i].iov_len % raw->align_offset;
	return !places;
}

static int file_for(const struct raw *raw, const struct iovec *vector, unsigned count, u64 offset)
{
	return goes_direct(raw, vector, count, offset) ? raw->direct : raw->fd;
}

static void raw_files(struct image *image, int file[IMAGE_FILES_MAX])
{
	file[0] = raw_of(image)->fd;
	file[1] = raw_of(image)->direct;
}

static unsigned raw_file_for(struct image *image, const struct iovec *vector, unsigned count, u64 offset)
{
	return goes_direct(raw_of(image), vector, count, offset);
}

static ssize_t call(int fd, bool write, const struct iovec *vector, unsigned count, u64 offset, int flags)
{
	ssize_t n;
	do
		n = write ? pwritev2(fd, vector, (int)count, (off_t)offset, flags) : preadv2(fd, vector, (int)count, (off_t)offset, flags);
	while (n < 0 && errno == EINTR);
	return n;
}

static int transfer(struct raw *raw, bool write, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	struct iovec rest[IMAGE_VECTOR_MAX];
	for (u64 done = 0; done < size;) {
		unsigned n = vector_slice(vector, count, done, size - done, rest);
		ssize_t moved = call(file_for(raw, rest, n, offset + done), write, rest, n, offset + done, 0);
		if (!moved && !write && raw->grows) {
			vector_zero(rest, n);
			return 0;
		}
		if (moved <= 0)
			return moved ? -errno : -EIO; /* the file was cut short */
		done += (u64)moved;
	}
	return 0;
}

static int raw_read(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	return transfer(raw_of(image), false, vector, count, offset, size);
}

static int raw_write(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	return transfer(raw_of(image), true, vector, count, offset, size);
}

static bool try(struct raw *raw, bool write, bool *waits, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	if (*waits || raw->direct >= 0)
		return false;
	ssize_t n = call(raw->fd, write, vector, count, offset, RWF_NOWAIT);
	*waits = n < 0 && errno == EOPNOTSUPP;
	return n >= 0 && (u64)n == size;
}

static bool raw_try_read(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	return try(raw_of(image), false, &raw_of(image)->read_waits, vector, count, offset, size);
}

static bool raw_try_write(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	return try(raw_of(image), true, &raw_of(image)->write_waits, vector, count, offset, size);
}

/* ---- zeros and stable storage ---- */

/* The file system cannot do it in one go. */
static int write_zeros(int fd, u64 offset, u64 size)
{
	static const u8 zeros[ZERO_PIECE];
	while (size) {
		ssize_t n = pwrite(fd, zeros, MIN(size, sizeof(zeros)), (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		offset += (u64)n;
		size -= (u64)n;
	}
	return 0;
}

static int allocate(int fd, int mode, u64 offset, u64 size)
{
	int result;
	do
		result = size ? fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) : 0;
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : 0;
}

static int raw_zero(struct image *image, u64 offset, u64 size, bool unmap)
{
	int fd = raw_of(image)->fd;
	int error = allocate(fd, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, offset, size);
	return error == -EOPNOTSUPP ? write_zeros(fd, offset, size) : error;
}

/* A file system that cannot give storage back keeps it: that is allowed. */
static int raw_discard(struct image *image, u64 offset, u64 size)
{
	int error = allocate(raw_of(image)->fd, FALLOC_FL_PUNCH_HOLE, offset, size);
	return error == -EOPNOTSUPP ? 0 : error;
}

static int raw_flush(struct image *image)
{
	int result;
	do
		result = fdatasync(raw_of(image)->fd);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : 0;
}

/* ---- life ---- */

static void raw_close(struct image *image)
{
	struct raw *raw = raw_of(image);
	close(raw->fd);
	if (raw->direct >= 0)
		close(raw->direct);
	free(raw);
}

static const struct image_ops raw_ops = {
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.discard = raw_discard,
	.flush = raw_flush,
	.try_read = raw_try_read,
	.try_write = raw_try_write,
	.files = raw_files,
	.file_for = raw_file_for,
	.close = raw_close,
};

static void find_alignment(struct raw *raw)
{
	struct statx x;
	raw->align_memory = raw->align_offset = 4096;
#ifdef STATX_DIOALIGN
	if (raw->direct >= 0 && !statx(raw->direct, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) && (x.stx_mask & STATX_DIOALIGN) &&
	    x.stx_dio_offset_align) {
		raw->align_memory = x.stx_dio_mem_align;
		raw->align_offset = x.stx_dio_offset_align;
	}
#endif
}

struct image *raw_open(int fd, int direct, u64 size, bool readonly, bool grows)
{
	struct raw *raw = malloc(sizeof(*raw));
	if (!raw) {
		close(fd);
		if (direct >= 0)
			close(direct);
		return NULL;
	}
	*raw = (struct raw){ .image = { .ops = &raw_ops, .size = size, .readonly = readonly, .direct = direct >= 0 }, .fd = fd, .direct = direct, .grows = grows };
	struct stat st;
	if (!fstat(fd, &st)) {
		raw->image.device = st.st_dev;
		raw->image.inode = st.st_ino;
	}
	find_alignment(raw);
	return &raw->image;
}
