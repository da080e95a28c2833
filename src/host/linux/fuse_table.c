/* Numbered things (fuse_internal.h). */
#include "host/linux/fuse_internal.h"

#include <stdlib.h>

static bool grow(struct fuse_table *t)
{
	u32 size = t->size ? 2 * t->size : 64;
	void **item = realloc(t->item, size * sizeof(*item));
	if (!item)
		return false;
	t->item = item;
	u32 *idle = realloc(t->idle, size * sizeof(*idle));
	if (!idle)
		return false;
	t->idle = idle;
	t->size = size;
	return true;
}

s64 fuse_table_add(struct fuse_table *table, void *item)
{
	struct fuse_table *t = table;
	if (!t->idles && t->used == t->size && !grow(t))
		return -1;
	u32 number = t->idles ? t->idle[--t->idles] : t->used++;
	t->item[number] = item;
	return number;
}

void fuse_table_remove(struct fuse_table *table, u64 number)
{
	table->item[number] = NULL;
	table->idle[table->idles++] = (u32)number;
}

void fuse_table_release(struct fuse_table *table)
{
	free(table->item);
	free(table->idle);
	*table = (struct fuse_table){ 0 };
}
