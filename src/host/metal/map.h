/* The host's address space. One set of page tables for all CPUs:
 *
 *   PHYSICAL_BASE        ffff8000 00000000   RAM that is the host's, at its physical address plus this; writable, never executable
 *   AREA_BASE            ffffc000 00000000   pieces mapped one by one, with a page between them that is not: stacks, tables, guests' memory,
 *                                            generated code, devices
 *   the program          ffffffff 80200000   code executable, constants readable, data writable
 *
 * No page is writable and executable, and nothing is mapped in the lower half, so that a NULL pointer with an offset of a guest's choice
 * faults. Intel SDM volume 3, "4-Level Paging". */
#ifndef NADIR_HOST_METAL_MAP_H
#define NADIR_HOST_METAL_MAP_H

#include "arch/paging.h"
#include "host/metal/boot_info.h"

#define MAP_READ (PTE_P | PTE_A | PTE_NX)
#define MAP_WRITE (PTE_P | PTE_W | PTE_A | PTE_D | PTE_NX)
#define MAP_EXEC (PTE_P | PTE_A)
#define MAP_DEVICE (MAP_WRITE | PTE_PCD | PTE_PWT)

/* Build the tables and use them. */
void map_init(const struct boot_info *info);
/* The physical address of the root, for the other CPUs. */
u64 map_root(void);

/* Addresses for `size` bytes, and nothing there yet. They are never given out again: there are enough for centuries. */
u64 area_reserve(u64 size);
/* Map physical pages, or make them gone; tables are made as needed. False: there is no memory for them. */
bool map_pages(u64 virtual, u64 address, u64 size, u64 rights);
/* All CPUs forget the translations. */
void unmap_pages(u64 virtual, u64 size);
/* The same for whole pages, large ones included, from *virtual on: up to MAP_BATCH of them, with one interruption of the other CPUs, so that
 * their owner can free them. Returns how many; *virtual moves on, to `end` when all is done. */
#define MAP_BATCH 256
struct map_piece {
	u64 address, size; /* physical */
};
unsigned unmap_batch(u64 *virtual, u64 end, struct map_piece *piece);
/* Where a virtual address lies in physical memory; NO_PAGE: nowhere. */
u64 map_find(u64 virtual);
/* The same, and how many bytes are left to the end of the page, which may be large. */
u64 map_find_run(u64 virtual, u64 *size);

/* Zeroed memory in an area of its own, of pages that lie anywhere. NULL: there is none. */
void *area_alloc(u64 size);
void area_free(void *area, u64 size);
/* Registers of a device, or tables of the firmware's. NULL: there is no memory for page tables, or no such address. */
void *map_device(u64 address, u64 size);

/* A table of which each page is there once it was touched (host_table_create); and whether a page fault was only that. */
void *area_lazy(u64 size);
bool map_touch(u64 virtual);

#endif
