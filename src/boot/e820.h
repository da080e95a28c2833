/* The guest's physical memory map, in the form that BIOS interrupt 15h, AX=E820h gave it: ACPI specification, "System
 * Address Map Interfaces".
 *
 * RAM of ram_size bytes lies in [0, MAP_LOW_RAM_END) and goes on at MAP_HIGH_RAM. The legacy area from the EBDA to 1
 * MiB is backed by RAM too, but reserved: ACPI tables and firmware are there. */
#ifndef NADIR_BOOT_E820_H
#define NADIR_BOOT_E820_H

#include "arch/types.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_entry {
	u64 base, size;
	u32 type; /* enum e820_type */
} __attribute__((packed));

static_assert(sizeof(struct e820_entry) == 20, "an entry has 20 bytes in memory");

#define E820_ENTRIES_MAX 8

/* The first address after the RAM below 4 GiB. */
u64 e820_low_end(u64 ram_size);

/* Fill the table, sorted, without overlaps; returns the number of entries. ram_size is at least 1 MiB. */
unsigned e820_build(u64 ram_size, struct e820_entry table[E820_ENTRIES_MAX]);

#endif
