/* The host port's memory in large pieces: tables, guests' memory, generated code. */
#include "host/metal/map.h"
#include "host/metal/pages.h"
#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/string.h"

/* ---- tables ---- */

void *host_table_create(u64 size)
{
	return area_lazy(size);
}

void host_table_discard(void *table, u64 size)
{
	area_free(table, size);
}

void host_table_destroy(void *table, u64 size)
{
	area_free(table, size);
}

void host_table_discard_of(u64 *table, u64 size, u64 value)
{
	for (u64 i = 0; i < size / sizeof(*table); i++)
		table[i] = value;
}

u64 *host_table_create_of(u64 size, u64 value)
{
	u64 *table = area_alloc(size);
	if (table)
		host_table_discard_of(table, size, value);
	return table;
}

/* ---- guests' memory: pages of its own, which the host has nowhere else ---- */

static bool map_guest_pages(u64 base, u64 size)
{
	u64 page = pages_alloc_high(size >> PAGE_SHIFT, size >> PAGE_SHIFT);
	if (page == NO_PAGE)
		return false;
	unmap_pages((u64)(uintptr_t)physical(page), size);
	if (!map_pages(base, page, size, MAP_WRITE))
		host_panic("no memory for page tables");
	memset((void *)(uintptr_t)base, 0, size); /* whatever it held before */
	return true;
}

static void free_guest_pages(u64 base, u64 size)
{
	struct map_piece piece[MAP_BATCH];
	memset((void *)(uintptr_t)base, 0, size);
	for (u64 end = base + size; base < end;) {
		unsigned count = unmap_batch(&base, end, piece);
		for (unsigned i = 0; i < count; i++) {
			if (!map_pages((u64)(uintptr_t)physical(piece[i].address), piece[i].address, piece[i].size, MAP_WRITE))
				host_panic("no memory for page tables");
			pages_free(piece[i].address, piece[i].size >> PAGE_SHIFT);
		}
	}
}

void *host_ram_create(u64 size)
{
	u64 base = area_reserve(size), offset = 0;
	while (offset < size) {
		u64 piece = size - offset >= LARGE_SIZE && map_guest_pages(base + offset, LARGE_SIZE) ? LARGE_SIZE :
			    map_guest_pages(base + offset, PAGE_SIZE)				      ? PAGE_SIZE :
														0;
		if (!piece) {
			free_guest_pages(base, offset);
			return NULL;
		}
		offset += piece;
	}
	return (void *)(uintptr_t)base;
}

void host_ram_destroy(void *hva, u64 size)
{
	free_guest_pages((u64)(uintptr_t)hva, size);
}

void host_ram_discard(void *hva, u64 size)
{
	memset(hva, 0, size);
}

void host_ram_ready(const void *hva, u64 size)
{
}

/* ---- pairs of pages ---- */

#define PAIRS 64

static struct {
	struct spinlock lock;
	u64 base, used;
} pairs;

static u8 *pair_address(unsigned index)
{
	return (u8 *)(uintptr_t)(pairs.base + index * 3 * PAGE_SIZE);
}

u8 *host_map_pair(u8 *first, u8 *second)
{
	u64 a = map_find((u64)(uintptr_t)first), b = map_find((u64)(uintptr_t)second), flags = spin_lock(&pairs.lock);
	if (!pairs.base)
		pairs.base = area_reserve(PAIRS * 3 * PAGE_SIZE);
	unsigned index = ~pairs.used ? (unsigned)__builtin_ctzll(~pairs.used) : PAIRS;
	if (index < PAIRS)
		pairs.used |= BIT(index);
	spin_unlock(&pairs.lock, flags);
	if (index == PAIRS)
		return NULL;
	u8 *pair = pair_address(index);
	if (map_pages((u64)(uintptr_t)pair, a, PAGE_SIZE, MAP_WRITE) && map_pages((u64)(uintptr_t)pair + PAGE_SIZE, b, PAGE_SIZE, MAP_WRITE))
		return pair;
	host_unmap_pair(pair);
	return NULL;
}

void host_unmap_pair(u8 *pair)
{
	unmap_pages((u64)(uintptr_t)pair, 2 * PAGE_SIZE);
	u64 flags = spin_lock(&pairs.lock);
	pairs.used &= ~BIT(((u64)(uintptr_t)pair - pairs.base) / (3 * PAGE_SIZE));
	spin_unlock(&pairs.lock, flags);
}

/* ---- code ---- */

int host_code_create(struct host_code *code, size_t size)
{
	u8 *rw = area_alloc(size);
	u64 rx = area_reserve(size);
	if (!rw)
		return -1;
	for (u64 offset = 0; offset < size; offset += PAGE_SIZE) {
		if (!map_pages(rx + offset, map_find((u64)(uintptr_t)rw + offset), PAGE_SIZE, MAP_EXEC)) {
			unmap_pages(rx, offset);
			area_free(rw, size);
			return -1;
		}
	}
	*code = (struct host_code){ .rw = rw, .rx = (u8 *)(uintptr_t)rx, .size = size };
	return 0;
}

void host_code_discard(const struct host_code *code, size_t offset, size_t size)
{
}

void host_code_destroy(struct host_code *code)
{
	unmap_pages((u64)(uintptr_t)code->rx, code->size);
	area_free(code->rw, code->size);
}

void host_note_code(const void *code, size_t size, u64 guest)
{
}
