/* Tables of a qcow2 image in memory (qcow2.h): pieces of L2 tables and refcount blocks, found by hash, and the two tables above them. */
#define _GNU_SOURCE
#include "host/linux/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* ---- the file ---- */

int qcow2_file_read(struct qcow2 *q, void *data, u64 offset, u64 size)
{
	const struct iovec vector = { data, size };
	return q->file->ops->read(q->file, &vector, 1, offset, size);
}

int qcow2_file_write(struct qcow2 *q, const void *data, u64 offset, u64 size)
{
	const struct iovec vector = { (void *)data, size };
	q->fresh = MAX(q->fresh, offset + size);
	return q->file->ops->write(q->file, &vector, 1, offset, size);
}

int qcow2_file_flush(struct qcow2 *q)
{
	return q->throwaway ? 0 : q->file->ops->flush(q->file);
}

/* ---- units ---- */

static u8 *data_of(struct qcow2 *q, unsigned set, unsigned way)
{
	return q->units + (u64)(set * QCOW2_WAYS + way) * q->unit_size;
}

static unsigned set_of(const struct qcow2 *q, u64 offset)
{
	return (unsigned)(offset / q->unit_size * 0x9e3779b97f4a7c15ull >> 32) % QCOW2_SETS;
}

static int find_way(struct qcow2 *q, unsigned set, u64 unit)
{
	for (unsigned way = 0; way < QCOW2_WAYS; way++)
		if (q->unit[set][way].offset == unit)
			return (int)way;
	return -1;
}

static unsigned oldest_way(struct qcow2 *q, unsigned set)
{
	unsigned oldest = 0;
	for (unsigned way = 1; way < QCOW2_WAYS; way++)
		if (q->unit[set][way].used < q->unit[set][oldest].used)
			oldest = way;
	return oldest;
}

/* Fill a place with a unit, after what is there was written if need be. */
static int load(struct qcow2 *q, unsigned set, unsigned way, enum qcow2_kind kind, u64 unit)
{
	struct qcow2_unit *u = &q->unit[set][way];
	int error = u->dirty ? qcow2_write_back(q) : 0;
	if (error)
		return error;
	*u = (struct qcow2_unit){ 0 };
	error = qcow2_file_read(q, data_of(q, set, way), unit, q->unit_size);
	if (!error)
		*u = (struct qcow2_unit){ .offset = unit, .kind = kind };
	return error;
}

u8 *qcow2_cache(struct qcow2 *q, enum qcow2_kind kind, u64 offset, bool dirty, int *error)
{
	u64 unit = offset & ~(q->unit_size - 1);
	unsigned set = set_of(q, unit);
	int way = find_way(q, set, unit);
	*error = 0;
	if (way < 0) {
		way = (int)oldest_way(q, set);
		*error = load(q, set, (unsigned)way, kind, unit);
		if (*error)
			return NULL;
	}
	struct qcow2_unit *u = &q->unit[set][way];
	u->used = ++q->clock;
	u->dirty |= dirty;
	return data_of(q, set, (unsigned)way) + (offset - unit);
}

u8 *qcow2_cache_peek(struct qcow2 *q, u64 offset)
{
	u64 unit = offset & ~(q->unit_size - 1);
	unsigned set = set_of(q, unit);
	int way = find_way(q, set, unit);
	return way < 0 ? NULL : data_of(q, set, (unsigned)way) + (offset - unit);
}

void qcow2_cache_forget(struct qcow2 *q, u64 cluster)
{
	for (u64 unit = cluster; unit < cluster + q->cluster_size; unit += q->unit_size) {
		unsigned set = set_of(q, unit);
		int way = find_way(q, set, unit);
		if (way >= 0)
			q->unit[set][way] = (struct qcow2_unit){ 0 };
	}
}

static bool any_dirty(const struct qcow2 *q, enum qcow2_kind kind)
{
	for (unsigned i = 0; i < QCOW2_SETS * QCOW2_WAYS; i++) {
		const struct qcow2_unit *u = &q->unit[i / QCOW2_WAYS][i % QCOW2_WAYS];
		if (u->dirty && u->kind == kind)
			return true;
	}
	return false;
}

static int write_units(struct qcow2 *q, enum qcow2_kind kind)
{
	int error = 0;
	for (unsigned i = 0; i < QCOW2_SETS * QCOW2_WAYS && !error; i++) {
		struct qcow2_unit *u = &q->unit[i / QCOW2_WAYS][i % QCOW2_WAYS];
		if (!u->dirty || u->kind != kind)
			continue;
		error = qcow2_file_write(q, data_of(q, i / QCOW2_WAYS, i % QCOW2_WAYS), u->offset, q->unit_size);
		u->dirty = error;
	}
	return error;
}

/* ---- the tables above ---- */

u64 qcow2_table_get(const struct qcow2_table *table, u32 index)
{
	return be64toh(table->entry[index]);
}

void qcow2_table_set(struct qcow2_table *table, u32 index, u64 entry)
{
	bool clean = table->dirty_from == table->dirty_to;
	table->entry[index] = htobe64(entry);
	table->dirty_from = clean ? index : MIN(table->dirty_from, index);
	table->dirty_to = clean ? index + 1 : MAX(table->dirty_to, index + 1);
}

static bool table_dirty(const struct qcow2_table *table)
{
	return table->dirty_from < table->dirty_to;
}

/* After all that was written before. */
static int write_table(struct qcow2 *q, struct qcow2_table *table)
{
	if (!table_dirty(table))
		return 0;
	int error = qcow2_file_flush(q);
	if (!error)
		error = qcow2_file_write(q, table->entry + table->dirty_from, table->offset + 8ull * table->dirty_from,
					 8ull * (table->dirty_to - table->dirty_from));
	if (!error)
		table->dirty_from = table->dirty_to = 0;
	return error;
}

int qcow2_write_back(struct qcow2 *q)
{
	int error = write_units(q, QCOW2_REFCOUNTS);
	error = error ? error : write_table(q, &q->refcounts);
	if (error || (!any_dirty(q, QCOW2_L2) && !table_dirty(&q->l1)))
		return error;
	error = qcow2_file_flush(q);
	error = error ? error : write_units(q, QCOW2_L2);
	return error ? error : write_table(q, &q->l1);
}

bool qcow2_is_dirty(const struct qcow2 *q)
{
	return any_dirty(q, QCOW2_REFCOUNTS) || any_dirty(q, QCOW2_L2) || table_dirty(&q->l1) || table_dirty(&q->refcounts) || q->freed_count;
}
