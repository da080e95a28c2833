/* The header of qcow2 images (qcow2.h): checked and understood, or written for a new image. */
#define _GNU_SOURCE
#include "host/linux/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0x514649fbu /* QFI\xfb */
#define VERSION_2_SIZE 72u
#define VERSION_3_SIZE 104u
#define NAME_MAX_SIZE 1023u
#define L1_MAX (32u << 20)	/* bytes */
#define REFCOUNTS_MAX (8u << 20)
#define SIZE_MAX_BITS 62
#define UNIT_MAX 4096u

#define INCOMPATIBLE_DIRTY BIT(0)
#define INCOMPATIBLE_CORRUPT BIT(1)
#define INCOMPATIBLE_COMPRESSION BIT(3)
#define EXTENSION_END 0u
#define EXTENSION_FORMAT 0xe2792acau

/* All big-endian in the file. */
struct header {
	u32 magic, version;
	u64 backing_offset;
	u32 backing_size, cluster_bits;
	u64 size;
	u32 crypt, l1_entries;
	u64 l1_offset, refcounts_offset;
	u32 refcounts_clusters, snapshots;
	u64 snapshots_offset;
	/* version 3 */
	u64 incompatible, compatible, autoclear;
	u32 refcount_order, header_size;
	u8 compression, unused[7];
};
static_assert(sizeof(struct header) == 112, "the header of version 3, with its compression type");

struct opening {
	const struct image_wish *wish;
	struct header header; /* in the host's byte order */
	u8 *cluster; /* the first one */
	char backing[NAME_MAX_SIZE + 1], format[16];
};

__attribute__((format(printf, 2, 3))) static int complain(const struct image_wish *w, const char *why, ...)
{
	va_list arguments;
	fprintf(stderr, "nadir: %s: %s: ", w->who, w->path);
	va_start(arguments, why);
	vfprintf(stderr, why, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return -1;
}

/* ---- the header's fields ---- */

static void swap(struct header *h)
{
	u32 *const words[] = { &h->magic, &h->version, &h->backing_size, &h->cluster_bits, &h->crypt, &h->l1_entries, &h->refcounts_clusters,
			       &h->snapshots, &h->refcount_order, &h->header_size };
	u64 *const quads[] = { &h->backing_offset, &h->size, &h->l1_offset, &h->refcounts_offset, &h->snapshots_offset, &h->incompatible,
			       &h->compatible, &h->autoclear };
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		*words[i] = be32toh(*words[i]);
	for (size_t i = 0; i < ARRAY_SIZE(quads); i++)
		*quads[i] = be64toh(*quads[i]);
}

static int check_version(struct opening *o)
{
	struct header *h = &o->header;
	if (h->magic != MAGIC)
		return complain(o->wish, "it is not a qcow2 image");
	if (h->version != 2 && h->version != 3)
		return complain(o->wish, "it is of version %u of qcow2; 2 and 3 are known", h->version);
	if (h->version == 2) {
		h->incompatible = h->compatible = h->autoclear = h->compression = 0;
		h->refcount_order = 4;
		h->header_size = VERSION_2_SIZE;
	}
	if (h->cluster_bits < 9 || h->cluster_bits > 21)
		return complain(o->wish, "it is damaged: its clusters are of 2^%u bytes", h->cluster_bits);
	if (h->header_size < (h->version == 2 ? VERSION_2_SIZE : VERSION_3_SIZE) || h->header_size > BIT(h->cluster_bits) || h->refcount_order > 6)
		return complain(o->wish, "it is damaged: its header cannot be right");
	if (h->header_size <= VERSION_3_SIZE)
		h->compression = 0;
	return 0;
}

static int check_features(struct opening *o)
{
	const struct header *h = &o->header;
	bool writes = !o->wish->readonly;
	if (h->crypt)
		return complain(o->wish, "it is encrypted, which nadir cannot read; qemu-img convert decrypts it");
	if (h->incompatible & ~(INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_COMPRESSION))
		return complain(o->wish, "it uses features of qcow2 that nadir does not have (%llx); qemu-img convert makes a plain one",
				(unsigned long long)h->incompatible);
	if (h->compression > 1)
		return complain(o->wish, "its clusters are compressed in a way that is not known (%u)", h->compression);
	if (writes && (h->incompatible & INCOMPATIBLE_CORRUPT))
		return complain(o->wish, "it is marked as damaged; repair it with qemu-img check -r all, or use it with readonly=on");
	if (writes && (h->incompatible & INCOMPATIBLE_DIRTY))
		return complain(o->wish, "it was not closed when it was last used; repair it with qemu-img check -r all, or use it with readonly=on");
	return 0;
}

static bool lies_within(const struct opening *o, u64 offset, u64 size, u64 file_size)
{
	return offset && offset % BIT(o->header.cluster_bits) == 0 && offset <= file_size && size <= file_size - offset;
}

static int check_tables(struct opening *o, u64 file_size)
{
	const struct header *h = &o->header;
	u64 per_l1_entry = BIT(2 * h->cluster_bits - 3), l1_size = 8ull * h->l1_entries, refcounts_size = (u64)h->refcounts_clusters << h->cluster_bits;
	if (!h->size || h->size >> SIZE_MAX_BITS || h->size % IMAGE_SECTOR)
		return complain(o->wish, "a disk of %llu bytes cannot be used", (unsigned long long)h->size);
	if ((h->size + per_l1_entry - 1) / per_l1_entry > h->l1_entries || l1_size > L1_MAX || !lies_within(o, h->l1_offset, l1_size, file_size))
		return complain(o->wish, "it is damaged: its L1 table is not within the file, or too small or large");
	if (refcounts_size > REFCOUNTS_MAX || !refcounts_size || !lies_within(o, h->refcounts_offset, refcounts_size, file_size))
		return complain(o->wish, "it is damaged: its refcount table is not within the file, or too large");
	return 0;
}

static int read_format(struct opening *o)
{
	u64 at = o->header.header_size, end = BIT(o->header.cluster_bits);
	if (o->header.backing_offset)
		end = MIN(end, o->header.backing_offset);
	while (at + 8 <= end) {
		u32 type, size;
		memcpy(&type, o->cluster + at, 4);
		memcpy(&size, o->cluster + at + 4, 4);
		type = be32toh(type);
		size = be32toh(size);
		at += 8;
		if (type == EXTENSION_END)
			break;
		if (size > end - at)
			return complain(o->wish, "it is damaged: a header extension is too long");
		if (type == EXTENSION_FORMAT && size < sizeof(o->format))
			memcpy(o->format, o->cluster + at, size);
		at += (size + 7ull) & ~7ull;
	}
	return 0;
}

static int read_backing_name(struct opening *o)
{
	const struct header *h = &o->header;
	if (!h->backing_offset)
		return 0;
	if (h->backing_size > NAME_MAX_SIZE || h->backing_offset > BIT(h->cluster_bits) || h->backing_size > BIT(h->cluster_bits) - h->backing_offset)
		return complain(o->wish, "it is damaged: the name of the file behind it is too long");
	memcpy(o->backing, o->cluster + h->backing_offset, h->backing_size);
	return read_format(o);
}

/* Read it all and understand it. */
static int read_header(struct opening *o, struct image *file)
{
	const struct iovec small = { &o->header, sizeof(o->header) };
	if (file->size < sizeof(o->header) || file->ops->read(file, &small, 1, 0, sizeof(o->header)) < 0)
		return complain(o->wish, "it is not a qcow2 image");
	swap(&o->header);
	if (check_version(o) < 0 || check_features(o) < 0 || check_tables(o, file->size) < 0)
		return -1;
	o->cluster = malloc(BIT(o->header.cluster_bits));
	const struct iovec all = { o->cluster, BIT(o->header.cluster_bits) };
	if (!o->cluster || file->ops->read(file, &all, 1, 0, all.iov_len) < 0)
		return complain(o->wish, "its header cannot be read");
	return read_backing_name(o);
}

/* ---- what is behind it ---- */

/* Names are relative to the image that holds them. */
static int make_path(const struct opening *o, char *path, size_t size)
{
	const char *name = o->backing, *slash = strrchr(o->wish->path, '/');
	const char *colon = strchr(name, ':');
	if (!strncmp(name, "file:", 5))
		name += 5;
	else if (colon && !memchr(name, '/', (size_t)(colon - name)))
		return complain(o->wish, "what is behind it, %s, is not a file of this machine", name);
	int length = *name == '/' || !slash ? snprintf(path, size, "%s", name)
					    : snprintf(path, size, "%.*s/%s", (int)(slash - o->wish->path), o->wish->path, name);
	return (size_t)length < size ? 0 : complain(o->wish, "the name of the file behind it is too long");
}

static int open_backing(struct qcow2 *q, const struct opening *o, unsigned depth)
{
	char path[4096];
	if (q->backing || !*o->backing)
		return 0;
	if (make_path(o, path, sizeof(path)) < 0)
		return -1;
	const struct image_wish behind = { .who = o->wish->who, .path = path, .format = *o->format ? o->format : NULL, .readonly = true };
	q->backing = depth < QCOW2_BACKING_DEPTH ? image_open_behind(&behind, depth + 1) : NULL;
	if (depth >= QCOW2_BACKING_DEPTH)
		return complain(o->wish, "more than %u files lie behind one another", QCOW2_BACKING_DEPTH);
	return q->backing ? 0 : -1;
}

/* ---- putting it together ---- */

static int load_table(struct qcow2 *q, struct qcow2_table *table, u64 offset, u64 entries)
{
	if (!entries)
		return -EINVAL;
	*table = (struct qcow2_table){ .entry = malloc(8 * entries), .offset = offset, .entries = (u32)entries };
	return table->entry ? qcow2_file_read(q, table->entry, offset, 8 * entries) : -ENOMEM;
}

static int set_up(struct qcow2 *q, const struct opening *o)
{
	const struct header *h = &o->header;
	q->image = (struct image){ .ops = &qcow2_ops, .size = h->size, .readonly = o->wish->readonly,
				    .device = q->file->device, .inode = q->file->inode };
	q->version = h->version;
	q->cluster_bits = h->cluster_bits;
	q->cluster_size = BIT(h->cluster_bits);
	q->unit_size = MIN(q->cluster_size, UNIT_MAX);
	q->refcount_order = h->refcount_order;
	q->zstd = h->compression;
	q->end = q->fresh = (q->file->size + q->cluster_size - 1) & ~(q->cluster_size - 1);
	q->bounce = malloc(q->cluster_size);
	q->units = malloc(QCOW2_SETS * QCOW2_WAYS * q->unit_size);
	if (!q->bounce || !q->units || load_table(q, &q->l1, h->l1_offset, h->l1_entries) < 0 ||
	    load_table(q, &q->refcounts, h->refcounts_offset, ((u64)h->refcounts_clusters << h->cluster_bits) / 8) < 0)
		return complain(o->wish, "its tables cannot be read, or there is not enough memory");
	return 0;
}

/* What depends on nobody changing the image without knowing about it, bitmaps for instance, is not good any more. */
static int clear_autoclear(struct qcow2 *q, const struct opening *o)
{
	static const u64 none;
	if (o->wish->readonly || !o->header.autoclear)
		return 0;
	return qcow2_file_write(q, &none, offsetof(struct header, autoclear), sizeof(none)) < 0 ? complain(o->wish, "its header cannot be written") : 0;
}

static struct qcow2 *make(struct image *file, struct image *backing, bool throwaway)
{
	pthread_rwlockattr_t fair;
	struct qcow2 *q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->file = file;
	q->backing = backing;
	q->throwaway = throwaway;
	pthread_rwlockattr_init(&fair);
	pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&q->use, &fair);
	pthread_rwlockattr_destroy(&fair);
	pthread_mutex_init(&q->flushing, NULL);
	pthread_mutex_init(&q->lock, NULL);
	pthread_mutex_init(&q->unpack, NULL);
	return q;
}

static void destroy(struct qcow2 *q)
{
	image_close(q->file);
	if (q->backing)
		image_close(q->backing);
	pthread_rwlock_destroy(&q->use);
	pthread_mutex_destroy(&q->flushing);
	pthread_mutex_destroy(&q->lock);
	pthread_mutex_destroy(&q->unpack);
	free(q->l1.entry);
	free(q->refcounts.entry);
	free(q->bounce);
	free(q->units);
	free(q->freed);
	free(q->unpacked_data);
	free(q);
}

struct image *qcow2_open(struct image *file, const struct image_wish *wish, struct image *backing, bool throwaway, unsigned depth)
{
	struct opening o = { .wish = wish };
	struct qcow2 *q = make(file, backing, throwaway);
	if (!q) {
		complain(wish, "there is not enough memory");
		image_close(file);
		if (backing)
			image_close(backing);
		return NULL;
	}
	bool good = !read_header(&o, file) && !open_backing(q, &o, depth) && !set_up(q, &o) && !clear_autoclear(q, &o);
	free(o.cluster);
	if (good)
		return &q->image;
	destroy(q);
	return NULL;
}

bool qcow2_is_behind(struct image *image, const char *path)
{
	const struct image *backing = qcow2_of(image)->backing;
	struct stat st;
	return backing && !stat(path, &st) && st.st_dev == backing->device && st.st_ino == backing->inode;
}

void qcow2_close(struct image *image)
{
	struct qcow2 *q = qcow2_of(image);
	if (!q->throwaway && qcow2_is_dirty(q) && (qcow2_flush(image) < 0 || qcow2_write_back(q) < 0))
		fprintf(stderr, "nadir: a disk's last changes could not be written\n");
	destroy(q);
}

/* ---- a new one ---- */

#define NEW_BITS 16
#define NEW_CLUSTER BIT(NEW_BITS)

static size_t put_extension(u8 *at, const char *format)
{
	u32 type = htobe32(EXTENSION_FORMAT), size = htobe32((u32)strlen(format));
	memcpy(at, &type, 4);
	memcpy(at + 4, &size, 4);
	memcpy(at + 8, format, strlen(format));
	return 8 + ((strlen(format) + 7) & ~7ull);
}

/* Header, refcount table, one refcount block, L1 table: in this order, and no more. */
static void fill_new(u8 *image, u64 size, u64 l1_entries, u64 l1_clusters, const char *backing, const char *backing_format)
{
	struct header h = { .magic = MAGIC, .version = 3, .cluster_bits = NEW_BITS, .size = size, .l1_entries = (u32)l1_entries,
			    .l1_offset = 3 * NEW_CLUSTER, .refcounts_offset = NEW_CLUSTER, .refcounts_clusters = 1, .refcount_order = 4,
			    .header_size = sizeof(h) };
	size_t end = sizeof(h);
	u64 block = htobe64(2 * NEW_CLUSTER);
	u16 one = htobe16(1);
	if (backing) {
		end += put_extension(image + end, backing_format) + 8;
		h.backing_offset = end;
		h.backing_size = (u32)strlen(backing);
		memcpy(image + end, backing, strlen(backing));
	}
	swap(&h);
	memcpy(image, &h, sizeof(h));
	memcpy(image + NEW_CLUSTER, &block, sizeof(block));
	for (u64 i = 0; i < 3 + l1_clusters; i++)
		memcpy(image + 2 * NEW_CLUSTER + 2 * i, &one, sizeof(one));
}

int qcow2_create(int fd, u64 size, const char *backing, const char *backing_format)
{
	u64 per_l1_entry = BIT(2 * NEW_BITS - 3), l1_entries = (size + per_l1_entry - 1) / per_l1_entry;
	u64 l1_clusters = (8 * l1_entries + NEW_CLUSTER - 1) / NEW_CLUSTER, total = (3 + l1_clusters) * NEW_CLUSTER;
	if (8 * l1_entries > L1_MAX || (backing && strlen(backing) > NAME_MAX_SIZE))
		return -EINVAL;
	u8 *image = calloc(1, total);
	if (!image)
		return -ENOMEM;
	fill_new(image, size, l1_entries, l1_clusters, backing, backing_format);
	ssize_t n = pwrite(fd, image, total, 0);
	int error = n < 0 ? -errno : (u64)n < total ? -ENOSPC : fdatasync(fd) < 0 ? -errno : 0;
	free(image);
	return error;
}
