/* qcow2 images that hold anything: a small sound one, changed wherever the input likes, and then used. Bytes: 1 how it is opened; then pairs of
 * change and request until they run out. */
#include "host/linux/qcow2.h"
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX 0x40000u
#define CLUSTER 512u
#define SIZE 0x20000u
#define PIECE_MAX 0x3000u

/* ---- a file in memory ---- */

static u8 bytes_of_file[FILE_MAX];
static struct image file;

static int file_read(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	static const u8 zeros[FILE_MAX];
	CHECK(size <= FILE_MAX);
	vector_fill(vector, count, offset <= FILE_MAX - size ? bytes_of_file + offset : zeros);
	return 0;
}

static int file_write(struct image *image, const struct iovec *vector, unsigned count, u64 offset, u64 size)
{
	if (offset > FILE_MAX || size > FILE_MAX - offset)
		return -28;
	for (unsigned i = 0; i < count; offset += vector[i++].iov_len)
		memcpy(bytes_of_file + offset, vector[i].iov_base, vector[i].iov_len);
	return 0;
}

static int file_discard(struct image *image, u64 offset, u64 size)
{
	return 0;
}

static int file_flush(struct image *image)
{
	return 0;
}

static void file_close(struct image *image)
{
}

static const struct image_ops file_ops = { .read = file_read, .try_read = NULL, .write = file_write, .discard = file_discard, .flush = file_flush,
					   .close = file_close };

static void put(u64 offset, unsigned size, u64 value)
{
	for (unsigned i = 0; i < size; i++)
		bytes_of_file[offset + i] = (u8)(value >> (8 * (size - 1 - i)));
}

/* Header, refcount table, one block, L1 table, L2 table, two clusters of data. */
static void make_sound(void)
{
	memset(bytes_of_file, 0, sizeof(bytes_of_file));
	put(0, 4, 0x514649fb);
	put(4, 4, 3);
	put(20, 4, 9);
	put(24, 8, SIZE);
	put(36, 4, SIZE / (CLUSTER * CLUSTER / 8));
	put(40, 8, 3 * CLUSTER);
	put(48, 8, CLUSTER);
	put(56, 4, 1);
	put(96, 4, 4);
	put(100, 4, 112);
	put(CLUSTER, 8, 2 * CLUSTER);
	for (unsigned i = 0; i < 7; i++)
		put(2 * CLUSTER + 2 * i, 2, 1);
	put(3 * CLUSTER, 8, 4 * CLUSTER | QCOW2_COPIED);
	put(4 * CLUSTER, 8, 5 * CLUSTER | QCOW2_COPIED);
	put(4 * CLUSTER + 8, 8, 6 * CLUSTER | QCOW2_COMPRESSED);
	file = (struct image){ .ops = &file_ops, .size = 7 * CLUSTER };
}

/* ---- using it ---- */

static void change(struct input *in)
{
	unsigned size = input_size(in);
	u64 offset = input_take(in, 2) % (7 * CLUSTER), value = input_take(in, size);
	put(offset, size, value);
}

static void request(struct image *image, struct input *in)
{
	static u8 data[PIECE_MAX];
	u8 kind = input_u8(in);
	u64 offset = input_take(in, 2) * CLUSTER, size = (input_u8(in) % (PIECE_MAX / CLUSTER) + 1) * CLUSTER;
	if (offset >= image->size)
		offset %= image->size;
	size = MIN(size, image->size - offset);
	const struct iovec vector[] = { { data, size / 3 }, { data + size / 3, size - size / 3 } };
	if (kind % 8 < 2)
		image->ops->read(image, vector, 2, offset, size);
	else if (kind % 8 == 2)
		image->ops->try_read(image, vector, 2, offset, size);
	else if (image->readonly)
		return;
	else if (kind % 8 < 5)
		image->ops->write(image, vector, 2, offset, size);
	else if (kind % 8 == 5)
		image->ops->zero(image, offset, size, kind & 8);
	else if (kind % 8 == 6)
		image->ops->discard(image, offset, size);
	else
		image->ops->flush(image);
}

/* What is said about the image is not looked at here. */
static void be_silent(void)
{
	static bool silent;
	if (!silent)
		stderr = fopen("/dev/null", "w");
	silent = true;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };
	u8 how = input_u8(&in);
	const struct image_wish wish = { .who = "fuzz", .path = "image", .readonly = how & 1 };
	be_silent();
	make_sound();
	for (unsigned i = how >> 1 & 15; i; i--)
		change(&in);
	struct image *image = qcow2_open(&file, &wish, NULL, how >> 5 & 1, QCOW2_BACKING_DEPTH);
	if (!image)
		return 0;
	for (unsigned i = 0; in.left && i < 200; i++) {
		if (input_u8(&in) & 1)
			change(&in);
		request(image, &in);
	}
	image_close(image);
	return 0;
}
