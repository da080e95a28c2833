/* The qcow2 image format, versions 2 and 3, as QEMU's docs/interop/qcow2.txt describes it. What the parts of the implementation share:
 *
 *   qcow2.c             reading, writing, zeroing, discarding: the image_ops
 *   qcow2_open.c        the header: checked, or written for a new image
 *   qcow2_map.c         L1 and L2 tables: where a guest cluster is
 *   qcow2_refcount.c    which clusters of the file are in use
 *   qcow2_cache.c       pieces of tables in memory, and the order in which they go to the file
 *   qcow2_compressed.c  compressed clusters, which are only read
 *
 * An image is hostile input: every offset found in it is checked when it is used (qcow2_is_cluster), counts are bounded when it is opened. A damaged image
 * gives errors, and may be damaged further by writing, but nothing else is.
 *
 * Tables change in memory first. A flush writes them in an order in which each step, once it is on stable storage, leaves nothing pointing at
 * what may be used otherwise: new clusters' reference counts, then what refers to these clusters, then fewer references for what is
 * not referred to any more. A power cut in between leaks clusters at worst. Clusters are free for others only after that, and when no transfer that
 * has found them before is under way.
 *
 * Not supported, and refused: encryption, external data files, extended L2 entries. Internal snapshots are kept and cannot be made or used. */
#ifndef NADIR_HOST_LINUX_QCOW2_H
#define NADIR_HOST_LINUX_QCOW2_H

#include "host/linux/image.h"

#include <pthread.h>

#define QCOW2_COPIED BIT(63) /* of an entry: the only reference */
#define QCOW2_COMPRESSED BIT(62)
#define QCOW2_ZERO BIT(0)
#define QCOW2_OFFSET 0x00fffffffffffe00ull
#define QCOW2_BACKING_DEPTH 16 /* files behind one another, at most */

#define QCOW2_SETS 128u
#define QCOW2_WAYS 4u

enum qcow2_kind { QCOW2_REFCOUNTS, QCOW2_L2 };

/* A piece of a table. */
struct qcow2_unit {
	u64 offset; /* in the file; 0: none (the header is there) */
	u64 used;   /* when */
	enum qcow2_kind kind;
	bool dirty;
};

/* A table that is in memory as a whole, in the file's byte order. */
struct qcow2_table {
	u64 *entry;
	u64 offset;
	u32 entries;
	u32 dirty_from, dirty_to; /* entries that the file does not have yet */
};

struct qcow2_range {
	u64 offset, size;
};

struct qcow2 {
	/* These do not change. */
	struct image image;
	struct image *file;
	struct image *backing; /* or NULL */
	unsigned version, cluster_bits, refcount_order;
	u64 cluster_size, unit_size;
	bool zstd;	/* what compressed clusters are compressed with; else deflate */
	bool throwaway; /* nobody will open it again: order and stable storage do not matter */

	/* Held while a transfer uses an offset from the tables, by several; by one while clusters become free. Comes before `lock`. */
	pthread_rwlock_t use;
	pthread_mutex_t flushing; /* one flush at a time; comes before both others */

	pthread_mutex_t lock; /* of all that follows */
	struct qcow2_table l1, refcounts; /* `refcounts` is the table of refcount blocks */
	u64 end; /* of what is in use in the file, whole clusters */
	u64 fresh; /* from here on the file holds nothing yet: it reads as zeros */
	u64 hint; /* no cluster before this one is free */
	bool broken; /* nothing may be allocated any more */
	u8 *bounce; /* a cluster; what is in it does not survive an allocation */
	struct qcow2_range *freed; /* not referred to any more, but not yet free */
	u32 freed_count, freed_room;
	u64 clock; /* of the cache */
	struct qcow2_unit unit[QCOW2_SETS][QCOW2_WAYS];
	u8 *units; /* their data, in the same order */

	pthread_mutex_t unpack; /* of the next two */
	u64 unpacked; /* the L2 entry whose cluster is in unpacked_data; 0: none */
	u8 *unpacked_data;
};

/* ---- opening and making (qcow2_open.c) ---- */

/* The image in `file`, which belongs to it from then on, and is closed if it cannot be opened. `backing` likewise; NULL: what the header says, opened
 * here (path: the image's own, which names are relative to; depth: how many images lie before this one). NULL after one sentence on stderr. */
struct image *qcow2_open(struct image *file, const struct image_wish *wish, struct image *backing, bool throwaway, unsigned depth);
/* Make an empty image of `size` bytes of the empty file `fd`. `backing` is the name of a file of that format behind it, or NULL. */
int qcow2_create(int fd, u64 size, const char *backing, const char *backing_format);
/* Whether the file of that name is right behind a qcow2 image. */
bool qcow2_is_behind(struct image *image, const char *path);
/* As image_open, for the file behind another. */
struct image *image_open_behind(const struct image_wish *wish, unsigned depth);

/* ---- within qcow2: all below with the lock ---- */

static inline struct qcow2 *qcow2_of(struct image *image)
{
	return container_of(image, struct qcow2, image);
}

/* Whether a whole cluster may lie there: in the file, and not where header, L1 or refcount table are. */
bool qcow2_is_cluster(const struct qcow2 *q, u64 offset);
int qcow2_file_read(struct qcow2 *q, void *data, u64 offset, u64 size);
int qcow2_file_write(struct qcow2 *q, const void *data, u64 offset, u64 size);
int qcow2_file_flush(struct qcow2 *q);

/* `size` bytes of a table in the file, which do not cross a unit; NULL on an I/O error in *error. Good until the next call. With `dirty` they are going to
 * be changed. */
u8 *qcow2_cache(struct qcow2 *q, enum qcow2_kind kind, u64 offset, bool dirty, int *error);
/* The same if it needs no I/O. */
u8 *qcow2_cache_peek(struct qcow2 *q, u64 offset);
/* The cluster there holds something else from now on. */
void qcow2_cache_forget(struct qcow2 *q, u64 cluster);
void qcow2_table_set(struct qcow2_table *table, u32 index, u64 entry);
u64 qcow2_table_get(const struct qcow2_table *table, u32 index);
/* Write all that is dirty, in order. */
int qcow2_write_back(struct qcow2 *q);
bool qcow2_is_dirty(const struct qcow2 *q);

/* Take a free cluster; its old contents are still there, but for those from `fresh` on. */
int qcow2_allocate(struct qcow2 *q, u64 *offset);
/* Take this cluster if it is free. */
bool qcow2_allocate_at(struct qcow2 *q, u64 offset);
/* A cluster was taken, and nothing ever came to refer to it. */
void qcow2_give_back(struct qcow2 *q, u64 offset);
/* There is one reference less to [offset, + size), when this is true on stable storage. */
void qcow2_free_later(struct qcow2 *q, u64 offset, u64 size);
/* It is, for the first `count` of them. Nobody uses offsets from before. */
void qcow2_free_now(struct qcow2 *q, u32 count);

enum qcow2_type { QCOW2_NOTHING, QCOW2_ZEROS, QCOW2_DATA, QCOW2_PACKED };

/* Where a guest cluster is. */
struct qcow2_place {
	enum qcow2_type type;
	bool own;	 /* writable in place: nothing else refers to it */
	u64 offset; /* QCOW2_DATA; QCOW2_ZEROS: of the storage kept for it, or 0 */
	u64 entry;
};
/* The cluster that holds `guest`. `peek`: -EAGAIN rather than I/O. */
int qcow2_find(struct qcow2 *q, u64 guest, struct qcow2_place *place, bool peek);
/* Change its entry. */
int qcow2_set_entry(struct qcow2 *q, u64 guest, u64 entry);

/* ---- without it ---- */

/* [skip, + size) of a compressed cluster. */
int qcow2_read_packed(struct qcow2 *q, u64 entry, const struct iovec *vector, unsigned count, u64 skip);
/* The storage of a compressed cluster. */
struct qcow2_range qcow2_packed_range(const struct qcow2 *q, u64 entry);
void qcow2_close(struct image *image);
int qcow2_flush(struct image *image);
extern const struct image_ops qcow2_ops;

#endif
