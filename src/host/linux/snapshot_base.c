/* What was written since which snapshot: the machine's log is harvested into a bitmap for each base (snapshot_base.h). */
#include "host/linux/snapshot_base.h"

#include <stdlib.h>
#include <string.h>

static struct {
	struct snapshot_base base[SNAPSHOT_BASES_MAX];
	unsigned count;
	bool logging;
} bases;

static void release(unsigned i)
{
	free(bases.base[i].name);
	free(bases.base[i].path);
	free(bases.base[i].written);
	memmove(&bases.base[i], &bases.base[i + 1], (--bases.count - i) * sizeof(bases.base[0]));
}

void snapshot_base_update(struct vm *vm)
{
	u64 words = ram_log_words(&vm->ram), *now = bases.logging ? calloc(words, sizeof(*now)) : NULL;
	if (now)
		vm_harvest_dirty(vm, now);
	for (unsigned i = 0; now && i < bases.count; i++)
		for (u64 word = 0; word < words; word++)
			bases.base[i].written[word] |= now[word];
	/* Without memory for the harvest nothing is lost: the log goes on. But what is known is not up to now, so nothing is known. */
	while (!now && bases.count)
		release(0);
	free(now);
}

bool snapshot_base_add(struct vm *vm, const char *name, const char *path, const u8 id[SNAPSHOT_ID_SIZE], unsigned depth)
{
	struct snapshot_base b = { .name = strdup(name), .path = strdup(path), .depth = depth, .written = calloc(ram_log_words(&vm->ram), sizeof(u64)) };
	memcpy(b.id, id, sizeof(b.id));
	if (bases.count == SNAPSHOT_BASES_MAX)
		release(1);
	bases.base[bases.count++] = b;
	if (!b.name || !b.path || !b.written) {
		snapshot_base_drop();
		return false;
	}
	if (!bases.logging)
		vm_log_dirty(vm, true);
	bases.logging = true;
	return true;
}

void snapshot_base_drop(void)
{
	if (bases.count)
		release(bases.count - 1);
}

const struct snapshot_base *snapshot_base_find(const char *name)
{
	for (unsigned i = bases.count; i-- > 0;)
		if (!name || !strcmp(name, bases.base[i].name))
			return &bases.base[i];
	return NULL;
}
