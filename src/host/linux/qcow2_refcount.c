/* Which clusters of a qcow2 file are in use (qcow2.h): a reference count for each, in refcount blocks, and a table of these. */
#define _GNU_SOURCE
#include "host/linux/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX BIT(55) /* what an offset in an entry can reach */
#define TABLE_MAX (8u << 20) /* bytes */

static u64 counts_per_block(const struct qcow2 *q)
{
	return q->cluster_size * 8 >> q->refcount_order;
}

static bool overlaps(u64 offset, u64 size, const struct qcow2_table *table)
{
	return offset < table->offset + 8ull * table->entries && table->offset < offset + size;
}

bool qcow2_is_cluster(const struct qcow2 *q, u64 offset)
{
	return offset && offset % q->cluster_size == 0 && offset < q->end && !overlaps(offset, q->cluster_size, &q->l1) &&
	       !overlaps(offset, q->cluster_size, &q->refcounts);
}

/* ---- counts of 1 to 64 bits ---- */

static u64 get_count(const struct qcow2 *q, const u8 *unit, u64 index)
{
	unsigned bits = 1u << q->refcount_order;
	u64 count = 0;
	if (bits < 8)
		return unit[index * bits / 8] >> (index * bits % 8) & (BIT(bits) - 1);
	for (unsigned i = 0; i < bits / 8; i++)
		count = count << 8 | unit[index * (bits / 8) + i];
	return count;
}

static void set_count(const struct qcow2 *q, u8 *unit, u64 index, u64 count)
{
	unsigned bits = 1u << q->refcount_order;
	if (bits < 8) {
		u8 *byte = &unit[index * bits / 8];
		unsigned shift = (unsigned)(index * bits % 8);
		*byte = (u8)((*byte & ~((BIT(bits) - 1) << shift)) | count << shift);
		return;
	}
	for (unsigned i = bits / 8; i--; count >>= 8)
		unit[index * (bits / 8) + i] = (u8)count;
}

/* The unit with a cluster's count, and the count's index in it; NULL with *error 0: no block has it, so it is 0. */
static u8 *find_count(struct qcow2 *q, u64 cluster, bool dirty, u64 *index, int *error)
{
	u64 block = cluster / counts_per_block(q), in_block = cluster % counts_per_block(q);
	*error = 0;
	u64 offset = block < q->refcounts.entries ? qcow2_table_get(&q->refcounts, (u32)block) : 0;
	if (!offset)
		return NULL;
	if (!qcow2_is_cluster(q, offset)) {
		*error = -EIO;
		return NULL;
	}
	u64 per_unit = q->unit_size * 8 >> q->refcount_order;
	*index = in_block % per_unit;
	return qcow2_cache(q, QCOW2_REFCOUNTS, offset + in_block / per_unit * q->unit_size, dirty, error);
}

/* ---- room for more counts ---- */

static void take_end(struct qcow2 *q, u64 offset, u64 size)
{
	q->end = MAX(q->end, offset + size);
}

/* The cluster becomes block number `block`: zeros. */
static int place_block(struct qcow2 *q, u64 block, u64 cluster)
{
	u64 offset = cluster * q->cluster_size;
	if (block >= q->refcounts.entries)
		return -EFBIG;
	take_end(q, offset, q->cluster_size);
	if (!qcow2_is_cluster(q, offset))
		return -EIO;
	qcow2_cache_forget(q, offset);
	memset(q->bounce, 0, q->cluster_size);
	int error = qcow2_file_write(q, q->bounce, offset, q->cluster_size);
	if (!error)
		qcow2_table_set(&q->refcounts, (u32)block, offset);
	return error;
}

static int count_one(struct qcow2 *q, u64 cluster)
{
	u64 index;
	int error;
	u8 *unit = find_count(q, cluster, true, &index, &error);
	if (unit)
		set_count(q, unit, index, 1);
	return unit ? 0 : error ? error : -EIO;
}

/* There is no block for this cluster, so it is free: it becomes the block, with itself in it. */
static int make_block(struct qcow2 *q, u64 cluster)
{
	int error = place_block(q, cluster / counts_per_block(q), cluster);
	return error ? error : count_one(q, cluster);
}

/* The header's offset and size of the table: what was written before must be there when it changes. */
static int switch_table(struct qcow2 *q, const struct qcow2_table *table)
{
	struct {
		u64 offset;
		u32 clusters;
	} __attribute__((packed)) field = { htobe64(table->offset), htobe32((u32)(8ull * table->entries / q->cluster_size)) };
	int error = qcow2_file_flush(q);
	error = error ? error : qcow2_file_write(q, &field, 48, sizeof(field));
	return error ? error : qcow2_file_flush(q);
}

/* Count clusters [first, + n); blocks that this takes come behind them, and are counted, too. */
static int count_new(struct qcow2 *q, u64 first, u64 n)
{
	for (u64 i = 0; i < n; i++) {
		u64 block = (first + i) / counts_per_block(q);
		int error = 0;
		if (block >= q->refcounts.entries || !qcow2_table_get(&q->refcounts, (u32)block))
			error = place_block(q, block, first + n++);
		error = error ? error : count_one(q, first + i);
		if (error)
			return error;
	}
	return 0;
}

/* How many clusters a table takes that begins at cluster `first`, reaches `cluster`, and counts itself. */
static u64 table_clusters(const struct qcow2 *q, u64 first, u64 cluster)
{
	u64 per_cluster = q->cluster_size / 8, wanted = q->refcounts.entries * 3ull / 2, clusters, reach;
	do {
		clusters = (wanted + per_cluster - 1) / per_cluster;
		reach = MAX(cluster, first + clusters + clusters * per_cluster / counts_per_block(q)) / counts_per_block(q) + 3;
	} while (reach > clusters * per_cluster && (wanted = reach) * 8 <= TABLE_MAX);
	return clusters;
}

/* The table has no entry for the block of `cluster`: move it behind the end of the file, larger by half and more. What it takes, its blocks
 * among it, is counted by the new one. */
static int grow_table(struct qcow2 *q, u64 cluster)
{
	u64 first = q->end / q->cluster_size, clusters = table_clusters(q, first, cluster), size = clusters * q->cluster_size;
	struct qcow2_table old = q->refcounts, new = { .offset = q->end, .entries = (u32)(size / 8) };
	if (size > TABLE_MAX)
		return -EFBIG;
	int error = qcow2_write_back(q); /* the old table's changes, which go where it is */
	new.entry = error ? NULL : calloc(clusters, q->cluster_size);
	if (!new.entry)
		return error ? error : -ENOMEM;
	memcpy(new.entry, old.entry, 8ull * old.entries);
	take_end(q, new.offset, size);
	q->refcounts = new;
	error = count_new(q, first, clusters);
	q->refcounts.dirty_from = q->refcounts.dirty_to = 0;
	error = error ? error : qcow2_file_write(q, new.entry, new.offset, size);
	error = error ? error : qcow2_write_back(q); /* the blocks */
	if (error) {
		free(new.entry);
		q->refcounts = old;
		return error;
	}
	free(old.entry);
	error = switch_table(q, &q->refcounts);
	q->broken |= error; /* nobody knows which of them the header names */
	if (!error)
		qcow2_free_later(q, old.offset, 8ull * old.entries);
	return error;
}

/* A block for this cluster, which is free; 1: the cluster was taken for it. */
static int make_room(struct qcow2 *q, u64 cluster)
{
	if (cluster / counts_per_block(q) < q->refcounts.entries) {
		int error = make_block(q, cluster);
		return error ? error : 1;
	}
	return grow_table(q, cluster);
}

/* ---- taking ---- */

/* 1: it was free, and is taken; 0: it was not. */
static int take(struct qcow2 *q, u64 cluster)
{
	u64 index;
	int error;
	if ((cluster + 1) * q->cluster_size > FILE_MAX)
		return -EFBIG;
	u8 *unit = find_count(q, cluster, false, &index, &error);
	if (error)
		return error;
	if (!unit) {
		error = make_room(q, cluster);
		return error < 0 ? error : error ? 0 : take(q, cluster);
	}
	if (get_count(q, unit, index))
		return 0;
	unit = find_count(q, cluster, true, &index, &error);
	if (!unit)
		return error;
	take_end(q, cluster * q->cluster_size, q->cluster_size);
	if (!qcow2_is_cluster(q, cluster * q->cluster_size))
		return -EIO; /* the header or a table is not counted: damaged */
	set_count(q, unit, index, 1);
	qcow2_cache_forget(q, cluster * q->cluster_size);
	return 1;
}

int qcow2_allocate(struct qcow2 *q, u64 *offset)
{
	for (;; q->hint++) {
		u64 end = q->end;
		int taken = q->broken ? -EIO : take(q, q->hint);
		if (taken > 0)
			break;
		if (taken < 0)
			return taken;
		if (q->hint * q->cluster_size >= end && q->end == end)
			return -EIO; /* something is counted that is not in the file: damaged */
	}
	*offset = q->hint++ * q->cluster_size;
	return 0;
}

bool qcow2_allocate_at(struct qcow2 *q, u64 offset)
{
	u64 cluster = offset / q->cluster_size;
	if (cluster < q->hint || take(q, cluster) != 1)
		return false;
	q->hint += cluster == q->hint;
	return true;
}

/* ---- giving back ---- */

static void drop(struct qcow2 *q, u64 cluster)
{
	u64 index;
	int error;
	if (!qcow2_is_cluster(q, cluster * q->cluster_size))
		return; /* damaged: something else is there */
	u8 *unit = find_count(q, cluster, true, &index, &error);
	u64 count = unit ? get_count(q, unit, index) : 0;
	if (!count)
		return; /* likewise, or it cannot be read: the cluster leaks */
	set_count(q, unit, index, count - 1);
	if (count > 1)
		return;
	q->hint = MIN(q->hint, cluster);
	qcow2_cache_forget(q, cluster * q->cluster_size);
	q->file->ops->discard(q->file, cluster * q->cluster_size, q->cluster_size);
}

void qcow2_give_back(struct qcow2 *q, u64 offset)
{
	drop(q, offset / q->cluster_size);
}

void qcow2_free_later(struct qcow2 *q, u64 offset, u64 size)
{
	if (q->freed_count == q->freed_room) {
		u32 room = q->freed_room ? 2 * q->freed_room : 64;
		struct qcow2_range *freed = realloc(q->freed, room * sizeof(*freed));
		if (!freed)
			return; /* it leaks */
		q->freed = freed;
		q->freed_room = room;
	}
	q->freed[q->freed_count++] = (struct qcow2_range){ offset, size };
}

void qcow2_free_now(struct qcow2 *q, u32 count)
{
	for (u32 i = 0; i < count; i++) {
		const struct qcow2_range *r = &q->freed[i];
		for (u64 c = r->offset / q->cluster_size; c <= (r->offset + r->size - 1) / q->cluster_size; c++)
			drop(q, c);
	}
	memmove(q->freed, q->freed + count, (q->freed_count - count) * sizeof(*q->freed));
	q->freed_count -= count;
}
