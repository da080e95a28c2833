/* Real-mode images. A ROM ends at 4 GiB, where the CPU fetches its first instruction, and its last 128 KiB also lie
 * below 1 MiB, where the chipset shows them until the firmware asks for RAM there (dev/mch.h). */
#include "boot/firmware.h"

#include "dev/map.h"
#include "lib/string.h"

#define FLAT_ADDRESS 0x7c00
#define FIRST_HARD_DISK 0x80
#define ROM_MAX (16 * MIB)
#define ROM_SHADOW 0x20000

bool flat_load(struct boot_job *job)
{
	const struct boot_source *s = job->source;

	if (s->kernel_size > MAP_EBDA - FLAT_ADDRESS)
		return boot_fail(
			job,
			"kernel: a flat image of %zu bytes does not fit between 0x7c00 and 0x9fc00: make it smaller",
			s->kernel_size);
	boot_set_kernel(job, FLAT_ADDRESS, s->kernel_size);
	job->entry->mode = BOOT_MODE_REAL;
	job->entry->rip = FLAT_ADDRESS;
	job->entry->gpr[RSP] = FLAT_ADDRESS;
	job->entry->gpr[RDX] = FIRST_HARD_DISK;
	return boot_copy(job, FLAT_ADDRESS, s->kernel, s->kernel_size);
}

/* The ROM's memory; on a restart it is there already. */
static bool make_rom(struct boot_job *job, u64 size)
{
	struct boot_entry *e = job->entry;

	if (e->rom && e->rom_size == size)
		return true;
	if (e->rom)
		return boot_fail(job, "firmware: its size has changed since the start: start anew");
	u8 *rom = host_ram_create(size);
	if (!rom)
		return boot_fail(job, "the host has no memory left for the firmware");
	if (ram_add(job->ram, MAP_HIGH_RAM - size, size, rom, true) < 0) {
		host_ram_destroy(rom, size);
		return boot_fail(job, "firmware: the guest has no room for %lu bytes below 4 GiB", size);
	}
	e->rom = rom;
	e->rom_size = size;
	return true;
}

bool firmware_load(struct boot_job *job)
{
	const struct boot_source *s = job->source;
	u64 size = s->firmware_size, shadow = MIN(size, ROM_SHADOW);

	if (!size || size % PAGE_SIZE || size > ROM_MAX)
		return boot_fail(job, "firmware: it has to be a multiple of 4 KiB up to 16 MiB, not %lu bytes: pad it", size);
	if (!make_rom(job, size))
		return false;
	memcpy(job->entry->rom, s->firmware, size);
	boot_set_kernel(job, MAP_HIGH_RAM - size, size);
	job->entry->mode = BOOT_MODE_RESET;
	return boot_copy(job, MAP_LEGACY_END - shadow, s->firmware + size - shadow, shadow);
}
