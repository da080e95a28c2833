/* The allocator of physical pages. A bit is set where a page is taken or is no RAM. */
#include "host/metal/pages.h"

#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/string.h"

#define FIRST_USED (1ull << 20) /* below are the firmware's tables, and where other CPUs start */

extern const u8 image_start[], image_end[]; /* metal.ld; physical addresses */

u64 physical_base;

static struct {
	struct spinlock lock;
	u64 *map; /* at its physical address until pages_use_all */
	u64 count; /* of bits */
	u64 limit; /* pages from here on are not mapped yet */
	u64 lowest; /* all below are taken */
	u64 total, available;
} pages;

static bool taken(u64 page)
{
	return pages.map[page / 64] & BIT(page % 64);
}

static void mark(u64 page, bool take)
{
	if (take)
		pages.map[page / 64] |= BIT(page % 64);
	else
		pages.map[page / 64] &= ~BIT(page % 64);
}

/* Whether [base, base + size) meets something that is in use from the start; if so, where that ends. */
static u64 in_use_until(const struct boot_info *info, u64 base, u64 size)
{
	u64 start = (u64)(uintptr_t)image_start, end = (u64)(uintptr_t)image_end;
	if (base < FIRST_USED)
		return FIRST_USED;
	if (base < end && start < base + size)
		return end;
	for (unsigned i = 0; i < info->modules; i++) {
		const struct boot_module *m = &info->module[i];
		if (base < m->base + m->size && m->base < base + size)
			return (m->base + m->size + PAGE_SIZE - 1) & PAGE_MASK;
	}
	return 0;
}

/* A place for the map itself. */
static u64 place_map(const struct boot_info *info, u64 size)
{
	for (unsigned i = 0; i < info->ranges; i++) {
		u64 base = (info->ram[i].base + PAGE_SIZE - 1) & PAGE_MASK, end = MIN(info->ram[i].base + info->ram[i].size, BIT(32)), next;
		while (base + size <= end && (next = in_use_until(info, base, size)))
			base = next;
		if (base + size <= end)
			return base;
	}
	return NO_PAGE;
}

const char *pages_init(const struct boot_info *info)
{
	for (unsigned i = 0; i < info->ranges; i++)
		pages.count = MAX(pages.count, (info->ram[i].base + info->ram[i].size) >> PAGE_SHIFT);
	u64 size = ((pages.count + 63) / 64 * 8 + PAGE_SIZE - 1) & PAGE_MASK;
	u64 map = place_map(info, size);
	if (map == NO_PAGE)
		return "there is no room below 4 GiB for the map of memory";
	pages.map = physical(map);
	memset(pages.map, 0xff, size);
	for (unsigned i = 0; i < info->ranges; i++) {
		u64 page = (info->ram[i].base + PAGE_SIZE - 1) >> PAGE_SHIFT, end = (info->ram[i].base + info->ram[i].size) >> PAGE_SHIFT;
		for (; page < end; page++)
			if (page << PAGE_SHIFT >= FIRST_USED)
				mark(page, false);
	}
	for (u64 address = map; address < map + size; address += PAGE_SIZE)
		mark(address >> PAGE_SHIFT, true);
	for (u64 address = (u64)(uintptr_t)image_start; address < (u64)(uintptr_t)image_end; address += PAGE_SIZE)
		mark(address >> PAGE_SHIFT, true);
	for (unsigned i = 0; i < info->modules; i++)
		for (u64 page = info->module[i].base >> PAGE_SHIFT; page << PAGE_SHIFT < info->module[i].base + info->module[i].size; page++)
			mark(page, true);
	for (u64 page = 0; page < pages.count; page++)
		pages.available += !taken(page);
	pages.total = pages.available;
	pages.limit = MIN(pages.count, BIT(32) >> PAGE_SHIFT);
	return pages.total ? NULL : "there is no free memory";
}

void pages_use_all(void)
{
	pages.map = (u64 *)((u8 *)pages.map + physical_base);
	pages.limit = pages.count;
}

static bool is_free(u64 first, u64 count, u64 *next)
{
	for (u64 page = first; page < first + count; page++) {
		if (taken(page)) {
			*next = page;
			return false;
		}
	}
	return true;
}

static u64 take(u64 first, u64 count)
{
	for (u64 page = first; page < first + count; page++)
		mark(page, true);
	pages.available -= count;
	return first << PAGE_SHIFT;
}

u64 pages_alloc(u64 count, u64 align)
{
	u64 result = NO_PAGE, blocked, flags = spin_lock(&pages.lock);
	while (pages.lowest < pages.limit && taken(pages.lowest))
		pages.lowest++;
	for (u64 page = (pages.lowest + align - 1) & ~(align - 1); page + count <= pages.limit && result == NO_PAGE;) {
		if (is_free(page, count, &blocked))
			result = take(page, count);
		else
			page = (blocked + align) & ~(align - 1);
	}
	spin_unlock(&pages.lock, flags);
	return result;
}

u64 pages_alloc_high(u64 count, u64 align)
{
	u64 result = NO_PAGE, blocked, flags = spin_lock(&pages.lock);
	if (pages.limit >= count) {
		for (u64 page = (pages.limit - count) & ~(align - 1); page >= pages.lowest; page -= align) {
			if (is_free(page, count, &blocked)) {
				result = take(page, count);
				break;
			}
			if (page < align)
				break;
		}
	}
	spin_unlock(&pages.lock, flags);
	return result;
}

void pages_free(u64 address, u64 count)
{
	u64 flags = spin_lock(&pages.lock);
	for (u64 page = address >> PAGE_SHIFT; page < (address >> PAGE_SHIFT) + count; page++) {
		if (!taken(page))
			host_panic("page %llx is freed twice", (unsigned long long)page);
		mark(page, false);
	}
	pages.available += count;
	pages.lowest = MIN(pages.lowest, address >> PAGE_SHIFT);
	spin_unlock(&pages.lock, flags);
}

u64 pages_total(void)
{
	return pages.total;
}

u64 pages_available(void)
{
	return __atomic_load_n(&pages.available, __ATOMIC_RELAXED);
}
