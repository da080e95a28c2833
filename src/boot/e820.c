/* The memory map every boot protocol hands over. ACPI specification, "System Address Map Interfaces". */
#include "boot/e820.h"

#include "dev/map.h"

u64 e820_low_end(u64 ram_size)
{
	return MIN(ram_size, MAP_LOW_RAM_END);
}

unsigned e820_build(u64 ram_size, struct e820_entry table[E820_ENTRIES_MAX])
{
	u64 low_end = e820_low_end(ram_size);
	const struct e820_entry map[] = {
		{ 0, MAP_EBDA, E820_RAM },
		{ MAP_EBDA, MAP_LEGACY_END - MAP_EBDA, E820_RESERVED },
		{ MAP_LEGACY_END, low_end - MAP_LEGACY_END, E820_RAM },
		{ MAP_ECAM, MAP_ECAM_SIZE, E820_RESERVED },
		{ MAP_HIGH_RAM, ram_size - low_end, E820_RAM },
	};
	static_assert(ARRAY_SIZE(map) <= E820_ENTRIES_MAX, "the table holds the map");
	unsigned count = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
		if (map[i].size)
			table[count++] = map[i];
	return count;
}
