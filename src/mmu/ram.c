/* Guest physical memory: the slots, their page flags and generations, and copies for devices and loaders (mmu/ram.h).
 */
#include "mmu/ram.h"

#include "host/port.h"
#include "lib/string.h"

/* Any slot but `own`, which may be NULL. */
static bool slot_overlaps(const struct ram *ram, const struct ram_slot *own, gpa_t base, u64 size)
{
	for (unsigned i = 0; i < ram->slots; i++) {
		const struct ram_slot *s = &ram->slot[i];
		if (s != own && base < s->base + s->size && s->base < base + size)
			return true;
	}
	return false;
}

int ram_add(struct ram *ram, gpa_t base, u64 size, u8 *hva, bool readonly)
{
	if (ram->slots == RAM_SLOTS_MAX || !size || ((base | size) & ~PAGE_MASK) || base + size < base)
		return -1;
	if (slot_overlaps(ram, NULL, base, size))
		return -1;
	u64 pages = size >> PAGE_SHIFT;
	u8 *flags = host_alloc(pages);
	u32 *generation = host_alloc(pages * sizeof(*generation));
	if (!flags || !generation) {
		host_free(flags);
		host_free(generation);
		return -1;
	}
	ram->slot[ram->slots++] = (struct ram_slot){
		.base = base, .size = size, .hva = hva, .readonly = readonly, .flags = flags, .generation = generation
	};
	return 0;
}

bool ram_move(struct ram *ram, const u8 *hva, gpa_t base)
{
	struct ram_slot *s = ram->slot;
	while (s->hva != hva)
		s++;
	if ((base & ~PAGE_MASK) || base + s->size < base || slot_overlaps(ram, s, base, s->size))
		return false;
	ram_written(ram, s->base, s->size); /* whoever holds code of it looks again */
	s->base = base;
	__atomic_fetch_add(&ram->layout, 1, __ATOMIC_SEQ_CST);
	return true;
}

gpa_t ram_place(const struct ram *ram, const u8 *hva)
{
	return ram_slot_at(ram, hva)->base;
}

void ram_release(struct ram *ram)
{
	for (unsigned i = 0; i < ram->slots; i++) {
		host_free(ram->slot[i].flags);
		host_free(ram->slot[i].generation);
	}
	ram->slots = 0;
}

struct ram_slot *ram_find(struct ram *ram, gpa_t gpa)
{
	for (unsigned i = 0; i < ram->slots; i++)
		if (gpa - ram->slot[i].base < ram->slot[i].size)
			return &ram->slot[i];
	return NULL;
}

u8 *ram_pointer(struct ram *ram, gpa_t gpa, u64 size)
{
	struct ram_slot *s = ram_find(ram, gpa);
	if (!s || size > s->size - (gpa - s->base))
		return NULL;
	host_ram_ready(s->hva + (gpa - s->base), size);
	return s->hva + (gpa - s->base);
}

/* Whether all of [gpa, gpa + size) is RAM, perhaps of several slots. */
static bool range_is_ram(struct ram *ram, gpa_t gpa, u64 size)
{
	while (size) {
		struct ram_slot *s = ram_find(ram, gpa);
		if (!s)
			return false;
		u64 n = MIN(size, s->size - (gpa - s->base));
		gpa += n;
		size -= n;
	}
	return true;
}

bool ram_read(struct ram *ram, gpa_t gpa, void *buf, u64 size)
{
	if (!range_is_ram(ram, gpa, size))
		return false;
	for (u8 *to = buf; size;) {
		struct ram_slot *s = ram_find(ram, gpa);
		u64 n = MIN(size, s->size - (gpa - s->base));
		memcpy(to, s->hva + (gpa - s->base), n);
		to += n;
		gpa += n;
		size -= n;
	}
	return true;
}

bool ram_write(struct ram *ram, gpa_t gpa, const void *buf, u64 size)
{
	if (!range_is_ram(ram, gpa, size))
		return false;
	for (const u8 *from = buf; size;) {
		struct ram_slot *s = ram_find(ram, gpa);
		u64 n = MIN(size, s->size - (gpa - s->base));
		memcpy(s->hva + (gpa - s->base), from, n);
		ram_written(ram, gpa, n);
		from += n;
		gpa += n;
		size -= n;
	}
	return true;
}

/* PAGE_CODE goes first, so that whoever finds the new generation sets it again before relying on it. */
static void code_written(struct ram *ram, struct ram_slot *s, u64 page)
{
	u8 flags = __atomic_load_n(&s->flags[page], __ATOMIC_SEQ_CST);
	if (ram->protect_code && !(flags & PAGE_MIXED))
		__atomic_fetch_and(&s->flags[page], (u8)~PAGE_CODE, __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&s->generation[page], 1, __ATOMIC_SEQ_CST);
	if (!ram->protect_code && !(flags & PAGE_TABLE))
		return;
	u64 position = __atomic_fetch_add(&ram->code_logged, 1, __ATOMIC_SEQ_CST);
	u64 number = (s->base >> PAGE_SHIFT) + page;
	__atomic_store_n(&ram->code_log[position % CODE_LOG_SIZE], number | (position + 1) << 40, __ATOMIC_SEQ_CST);
}

void ram_set_readonly(struct ram *ram, gpa_t gpa, u64 size, bool readonly)
{
	struct ram_slot *s = ram_find(ram, gpa);
	for (u64 page = (gpa - s->base) >> PAGE_SHIFT; size; page++, size -= PAGE_SIZE) {
		if (readonly)
			__atomic_fetch_or(&s->flags[page], PAGE_READONLY, __ATOMIC_SEQ_CST);
		else
			__atomic_fetch_and(&s->flags[page], (u8)~PAGE_READONLY, __ATOMIC_SEQ_CST);
	}
	__atomic_fetch_add(&ram->layout, 1, __ATOMIC_SEQ_CST);
}

void ram_code_written(struct ram *ram, u8 *flags, u32 *generation)
{
	for (unsigned i = 0; i < ram->slots; i++) {
		struct ram_slot *s = &ram->slot[i];
		if (flags >= s->flags && flags < s->flags + (s->size >> PAGE_SHIFT))
			code_written(ram, s, (u64)(flags - s->flags));
	}
}

/* One page was written: its dirty flag, and its generation where code of it is held. */
static bool page_written(struct ram *ram, struct ram_slot *s, u64 page)
{
	u8 flags = __atomic_load_n(&s->flags[page], __ATOMIC_SEQ_CST);
	if (s->log_dirty && !(flags & PAGE_DIRTY))
		__atomic_fetch_or(&s->flags[page], PAGE_DIRTY, __ATOMIC_SEQ_CST);
	if (!(flags & PAGE_CODE))
		return false;
	code_written(ram, s, page);
	return true;
}

/* ---- the dirty log ---- */

static bool is_logged(const struct ram *ram, const struct ram_slot *s)
{
	return (u64)(s->hva - ram->memory) < ram->memory_size;
}

void ram_log(struct ram *ram, bool on)
{
	for (unsigned i = 0; i < ram->slots; i++) {
		struct ram_slot *s = &ram->slot[i];
		s->log_dirty = on && is_logged(ram, s);
		for (u64 page = 0; page < s->size >> PAGE_SHIFT; page++)
			__atomic_fetch_and(&s->flags[page], (u8)~PAGE_DIRTY, __ATOMIC_RELAXED);
	}
	__atomic_fetch_add(&ram->layout, 1, __ATOMIC_SEQ_CST);
}

void ram_log_add(struct ram_slot *slot, u64 first, u64 pages, const u64 *bitmap)
{
	for (u64 i = 0; i < pages; i += 64)
		for (u64 left = bitmap[i / 64]; left; left &= left - 1) {
			u64 page = i + (unsigned)__builtin_ctzll(left);
			if (page < pages)
				__atomic_fetch_or(&slot->flags[first + page], PAGE_DIRTY, __ATOMIC_SEQ_CST);
		}
}

static u64 harvest_slot(const struct ram *ram, struct ram_slot *s, u64 *bitmap)
{
	u64 first = (u64)(s->hva - ram->memory) >> PAGE_SHIFT, pages = s->size >> PAGE_SHIFT, count = 0, word;
	for (u64 page = 0; page < pages; page++) {
		/* Most pages are clean: eight at a time. */
		if (!(page & 7) && page + 8 <= pages) {
			__builtin_memcpy(&word, &s->flags[page], sizeof(word));
			if (!(word & PAGE_DIRTY * 0x0101010101010101)) {
				page += 7;
				continue;
			}
		}
		if (!(__atomic_fetch_and(&s->flags[page], (u8)~PAGE_DIRTY, __ATOMIC_SEQ_CST) & PAGE_DIRTY))
			continue;
		bitmap[(first + page) / 64] |= BIT((first + page) % 64);
		count++;
	}
	return count;
}

u64 ram_log_harvest(struct ram *ram, u64 *bitmap)
{
	u64 count = 0;
	for (unsigned i = 0; i < ram->slots; i++)
		if (ram->slot[i].log_dirty)
			count += harvest_slot(ram, &ram->slot[i], bitmap);
	__atomic_fetch_add(&ram->layout, 1, __ATOMIC_SEQ_CST);
	return count;
}

bool ram_written(struct ram *ram, gpa_t gpa, u64 size)
{
	bool code = false;
	while (size) {
		struct ram_slot *s = ram_find(ram, gpa);
		if (!s)
			break;
		u64 offset = gpa - s->base;
		u64 n = MIN(size, s->size - offset);
		for (u64 page = offset >> PAGE_SHIFT; page <= (offset + n - 1) >> PAGE_SHIFT; page++)
			code |= page_written(ram, s, page);
		gpa += n;
		size -= n;
	}
	return code;
}
