/* Where the guest's clusters are in a qcow2 file (qcow2.h): the L1 table, which is in memory, and L2 tables. */
#define _GNU_SOURCE
#include "host/linux/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static u64 entries_per_table(const struct qcow2 *q)
{
	return q->cluster_size / 8;
}

static u32 l1_index(const struct qcow2 *q, u64 guest)
{
	return (u32)(guest / q->cluster_size / entries_per_table(q));
}

static u64 l2_entry_offset(const struct qcow2 *q, u64 table, u64 guest)
{
	return table + guest / q->cluster_size % entries_per_table(q) * 8;
}

/* What an entry says, and whether that can be. */
static int understand(const struct qcow2 *q, u64 entry, struct qcow2_place *place)
{
	*place = (struct qcow2_place){ .entry = entry, .own = entry & QCOW2_COPIED, .offset = entry & QCOW2_OFFSET };
	if (entry & QCOW2_COMPRESSED) {
		const struct qcow2_range r = qcow2_packed_range(q, entry);
		place->type = QCOW2_PACKED;
		place->own = false;
		return r.offset + r.size <= q->end ? 0 : -EIO;
	}
	place->type = place->offset ? QCOW2_DATA : QCOW2_NOTHING;
	if (q->version > 2 && (entry & QCOW2_ZERO))
		place->type = QCOW2_ZEROS;
	return place->offset && !qcow2_is_cluster(q, place->offset) ? -EIO : 0;
}

int qcow2_find(struct qcow2 *q, u64 guest, struct qcow2_place *place, bool peek)
{
	if (guest >= q->image.size)
		return -EINVAL;
	u64 table = qcow2_table_get(&q->l1, l1_index(q, guest)) & QCOW2_OFFSET, entry;
	int error = 0;
	if (!table) {
		*place = (struct qcow2_place){ 0 };
		return 0;
	}
	if (!qcow2_is_cluster(q, table))
		return -EIO;
	u64 offset = l2_entry_offset(q, table, guest);
	const u8 *at = peek ? qcow2_cache_peek(q, offset) : qcow2_cache(q, QCOW2_L2, offset, false, &error);
	if (!at)
		return peek ? -EAGAIN : error;
	memcpy(&entry, at, 8);
	return understand(q, be64toh(entry), place);
}

/* Fill the new table at `to` from the one at `from`, or with zeros. Nothing refers to it yet. */
static int fill_table(struct qcow2 *q, u64 from, u64 to)
{
	int error = 0;
	if (!from)
		memset(q->bounce, 0, q->cluster_size);
	for (u64 at = 0; from && at < q->cluster_size; at += q->unit_size) {
		const u8 *unit = qcow2_cache(q, QCOW2_L2, from + at, false, &error);
		if (!unit)
			return error;
		memcpy(q->bounce + at, unit, q->unit_size);
	}
	return qcow2_file_write(q, q->bounce, to, q->cluster_size);
}

/* An L2 table for `guest` that nobody else uses. */
static int own_table(struct qcow2 *q, u64 guest, u64 *table)
{
	u32 index = l1_index(q, guest);
	u64 entry = qcow2_table_get(&q->l1, index), old = entry & QCOW2_OFFSET;
	if (old && !qcow2_is_cluster(q, old))
		return -EIO;
	*table = old;
	if (old && (entry & QCOW2_COPIED))
		return 0;
	int error = qcow2_allocate(q, table);
	if (error)
		return error;
	error = fill_table(q, old, *table);
	if (error) {
		qcow2_give_back(q, *table);
		return error;
	}
	if (old)
		qcow2_free_later(q, old, q->cluster_size);
	qcow2_table_set(&q->l1, index, *table | QCOW2_COPIED);
	return 0;
}

int qcow2_set_entry(struct qcow2 *q, u64 guest, u64 entry)
{
	u64 table;
	int error = own_table(q, guest, &table);
	if (error)
		return error;
	u8 *at = qcow2_cache(q, QCOW2_L2, l2_entry_offset(q, table, guest), true, &error);
	if (!at)
		return error;
	entry = htobe64(entry);
	memcpy(at, &entry, 8);
	return 0;
}
