/* A small guest memory for tests of loaders: RAM of a given size in the slots the board would make, filled with rubbish
 * first, since a guest that is restarted finds its old memory. */
#ifndef NADIR_TESTS_GUEST_MEMORY_H
#define NADIR_TESTS_GUEST_MEMORY_H

#include "boot/e820.h"
#include "host/port.h"
#include "mmu/ram.h"

#include <stdlib.h>
#include <string.h>

static inline void guest_memory_create(struct ram *ram, u64 size)
{
	u8 *hva = host_ram_create(size);

	memset(ram, 0, sizeof(*ram));
	if (!hva || size > MIN(size, e820_low_end(size)) || ram_add(ram, 0, size, hva, false) < 0)
		abort();
	memset(hva, 0xcc, MIN(size, 4u << 20));
}

static inline void guest_memory_destroy(struct ram *ram)
{
	for (unsigned i = 0; i < ram->slots; i++)
		host_ram_destroy(ram->slot[i].hva, ram->slot[i].size);
	ram_release(ram);
}

#endif
