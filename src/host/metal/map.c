/* Page tables (map.h). */
#include "host/metal/map.h"

#include "cpu/host_cpuid.h"
#include "host/metal/asm.h"
#include "host/metal/cpu.h"
#include "host/metal/pages.h"
#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define AREA_BASE PHYSICAL_END
#define LAZY_BASE 0xffffe00000000000ull
#define LAZY_END 0xfffff00000000000ull
#define KERNEL_BASE 0xffffffff80000000ull
#define LEVELS 4

extern const u8 image_start[], text_start[], text_end[], rodata_end[], image_end[]; /* metal.ld */
extern const u8 boot_stack_guard[]; /* entry.S: the first CPU's stack is above it */

static struct {
	struct spinlock lock; /* of the tables */
	u64 root;
	u64 next, next_lazy; /* atomic */
} map = { .next = AREA_BASE, .next_lazy = LAZY_BASE };

static u64 zeroed_page(void)
{
	u64 page = pages_alloc(1, 1);
	if (page != NO_PAGE)
		memset(physical(page), 0, PAGE_SIZE);
	return page;
}

/* The entry of `virtual` in the tables of `level` (1: of 4 KiB pages). NULL: a table is missing, or `make` and there is no memory, or a large
 * page lies there. */
static u64 *entry_of(u64 virtual, unsigned level, bool make)
{
	u64 table = map.root;
	for (unsigned l = LEVELS;; l--) {
		u64 *entry = (u64 *)physical(table) + (virtual >> (PAGE_SHIFT + 9 * (l - 1)) & 511);
		if (l == level)
			return entry;
		if (!(*entry & PTE_P)) {
			u64 page = make ? zeroed_page() : NO_PAGE;
			if (page == NO_PAGE)
				return NULL;
			*entry = page | PTE_P | PTE_W | PTE_A;
		} else if (*entry & PTE_PS) {
			return NULL;
		}
		table = *entry & PTE_ADDR;
	}
}

bool map_pages(u64 virtual, u64 address, u64 size, u64 rights)
{
	bool good = true;
	u64 flags = spin_lock(&map.lock), step;
	for (u64 end = virtual + size; good && virtual != end; virtual += step, address += step) {
		bool large = !((virtual | address) & (LARGE_SIZE - 1)) && end - virtual >= LARGE_SIZE;
		step = large ? LARGE_SIZE : PAGE_SIZE;
		u64 *entry = entry_of(virtual, large ? 2 : 1, true);
		good = entry != NULL;
		if (good)
			__atomic_store_n(entry, address | rights | PTE_G | (large ? PTE_PS : 0), __ATOMIC_RELEASE);
	}
	spin_unlock(&map.lock, flags);
	return good;
}

/* The entry that maps `virtual`, and the size of its page; NULL: none does. */
static u64 *leaf_of(u64 virtual, u64 *size)
{
	u64 *entry = entry_of(virtual, 2, false);
	*size = LARGE_SIZE;
	if (entry && (*entry & PTE_P) && !(*entry & PTE_PS)) {
		entry = entry_of(virtual, 1, false);
		*size = PAGE_SIZE;
	}
	return entry && (*entry & PTE_P) ? entry : NULL;
}

/* Part of a large page is about to go: make it small ones. */
static bool split(u64 *entry)
{
	u64 page = pages_alloc(1, 1), old = *entry;
	if (page == NO_PAGE)
		return false;
	for (unsigned i = 0; i < 512; i++)
		((u64 *)physical(page))[i] = (old & ~PTE_PS) + i * PAGE_SIZE;
	__atomic_store_n(entry, page | PTE_P | PTE_W | PTE_A, __ATOMIC_RELEASE);
	return true;
}

void unmap_pages(u64 virtual, u64 size)
{
	u64 start = virtual, end = virtual + size, flags = spin_lock(&map.lock);
	while (virtual < end) {
		u64 step, *entry = leaf_of(virtual, &step);
		if (entry && ((virtual & (step - 1)) || end - virtual < step)) {
			if (!split(entry))
				host_panic("no memory to take a large page apart");
			continue;
		}
		if (entry)
			__atomic_store_n(entry, 0, __ATOMIC_RELEASE);
		virtual += entry ? step : PAGE_SIZE;
	}
	spin_unlock(&map.lock, flags);
	cpu_flush_all(start, size);
}

unsigned unmap_batch(u64 *virtual, u64 end, struct map_piece *piece)
{
	unsigned count = 0;
	u64 start = *virtual, at = start, flags = spin_lock(&map.lock);
	while (at < end && count < MAP_BATCH) {
		u64 step, *entry = leaf_of(at, &step);
		if (entry) {
			piece[count++] = (struct map_piece){ *entry & PTE_ADDR & ~(step - 1), step };
			__atomic_store_n(entry, 0, __ATOMIC_RELEASE);
		}
		at += entry ? step : PAGE_SIZE;
	}
	spin_unlock(&map.lock, flags);
	*virtual = at;
	if (count)
		cpu_flush_all(start, at - start);
	return count;
}

u64 map_find_run(u64 virtual, u64 *size)
{
	u64 page, flags = spin_lock(&map.lock);
	const u64 *entry = leaf_of(virtual, &page);
	u64 offset = virtual & (page - 1), address = entry ? (*entry & PTE_ADDR & ~(page - 1)) | offset : NO_PAGE;
	*size = entry ? page - offset : 0;
	spin_unlock(&map.lock, flags);
	return address;
}

u64 map_find(u64 virtual)
{
	u64 size;
	return map_find_run(virtual, &size);
}

u64 map_root(void)
{
	return map.root;
}

/* ---- set-up ---- */

static void map_image(const u8 *from, const u8 *to, u64 rights)
{
	u64 virtual = (u64)(uintptr_t)from;
	if (!map_pages(virtual, virtual - KERNEL_BASE, (u64)(to - from), rights))
		host_panic("no memory for page tables");
}

/* Host RAM, less the program, which is mapped with its own rights. */
static void map_physical(u64 base, u64 end)
{
	if (base < end && !map_pages(PHYSICAL_BASE + base, base, end - base, MAP_WRITE))
		host_panic("no memory for page tables");
}

void map_init(const struct boot_info *info)
{
	u64 start = (u64)(uintptr_t)image_start, end = (u64)(uintptr_t)image_end;
	map.root = zeroed_page();
	map_image(text_start, text_end, MAP_EXEC);
	map_image(text_end, rodata_end, MAP_READ);
	map_image(rodata_end, boot_stack_guard, MAP_WRITE);
	map_image(boot_stack_guard + PAGE_SIZE, (const u8 *)(uintptr_t)(end + KERNEL_BASE), MAP_WRITE);
	for (unsigned i = 0; i < info->ranges; i++) {
		u64 base = info->ram[i].base & PAGE_MASK, stop = (info->ram[i].base + info->ram[i].size + PAGE_SIZE - 1) & PAGE_MASK;
		map_physical(base, MIN(stop, MAX(base, start)));
		map_physical(MAX(base, end), stop);
	}
	write_cr3(map.root);
	physical_base = PHYSICAL_BASE;
	pages_use_all();
}

/* ---- areas ---- */

static u64 round_up(u64 size)
{
	return (size + PAGE_SIZE - 1) & PAGE_MASK;
}

/* Large pieces begin where large pages can. */
u64 area_reserve(u64 size)
{
	u64 align = size >= LARGE_SIZE ? LARGE_SIZE : PAGE_SIZE;
	u64 room = (round_up(size) + PAGE_SIZE + align - 1) & ~(align - 1);
	u64 old = __atomic_load_n(&map.next, __ATOMIC_RELAXED), base;
	do
		base = (old + align - 1) & ~(align - 1);
	while (!__atomic_compare_exchange_n(&map.next, &old, base + room, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
	return base;
}

static void free_mapped(u64 virtual, u64 size)
{
	struct map_piece piece[MAP_BATCH];
	for (u64 end = virtual + size; virtual < end;) {
		unsigned count = unmap_batch(&virtual, end, piece);
		for (unsigned i = 0; i < count; i++)
			pages_free(piece[i].address, piece[i].size >> PAGE_SHIFT);
	}
}

void *area_alloc(u64 size)
{
	u64 base = area_reserve(size);
	for (u64 offset = 0; offset < round_up(size); offset += PAGE_SIZE) {
		u64 page = zeroed_page();
		if (page != NO_PAGE && map_pages(base + offset, page, PAGE_SIZE, MAP_WRITE))
			continue;
		if (page != NO_PAGE)
			pages_free(page, 1);
		free_mapped(base, offset);
		return NULL;
	}
	return (void *)(uintptr_t)base;
}

void area_free(void *area, u64 size)
{
	if (area)
		free_mapped((u64)(uintptr_t)area, round_up(size));
}

/* What is beyond the CPU's physical addresses would be reserved bits of an entry. */
static bool is_physical(u64 address, u64 size)
{
	u32 bits = host_cpuid_checked(0x80000008, 0).reg[CPUID_EAX] & 0xff;
	return range_within(address, size, BIT(bits ? MIN(bits, 52u) : 36));
}

void *map_device(u64 address, u64 size)
{
	if (!is_physical(address, size))
		return NULL;
	u64 offset = address & ~PAGE_MASK, base = area_reserve(offset + size);
	return map_pages(base, address - offset, round_up(offset + size), MAP_DEVICE) ? (void *)(uintptr_t)(base + offset) : NULL;
}

void *area_lazy(u64 size)
{
	u64 base = __atomic_fetch_add(&map.next_lazy, round_up(size) + PAGE_SIZE, __ATOMIC_SEQ_CST);
	return base + size < LAZY_END ? (void *)(uintptr_t)base : NULL;
}

/* Pages between tables are never touched but by mistake, and are then found by nobody: tables are indexed within their bounds. */
bool map_touch(u64 virtual)
{
	if (virtual < LAZY_BASE || virtual >= __atomic_load_n(&map.next_lazy, __ATOMIC_RELAXED))
		return false;
	u64 page = zeroed_page();
	if (page == NO_PAGE)
		return false;
	bool mine = false, good = false;
	u64 flags = spin_lock(&map.lock);
	u64 *entry = entry_of(virtual, 1, true);
	if (entry) {
		good = true;
		mine = !(*entry & PTE_P); /* else another CPU was faster */
		if (mine)
			__atomic_store_n(entry, page | MAP_WRITE | PTE_G, __ATOMIC_RELEASE);
	}
	spin_unlock(&map.lock, flags);
	if (!mine)
		pages_free(page, 1);
	return good;
}
