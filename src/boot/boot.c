/* Chooses the loader of a boot protocol and runs it. */
#include "boot/boot.h"

#include "boot/acpi.h"
#include "boot/e820.h"
#include "boot/firmware.h"
#include "boot/linux.h"
#include "boot/loader.h"
#include "boot/multiboot.h"
#include "boot/pvh.h"
#include "dev/map.h"
#include "lib/string.h"

struct boot_loader {
	enum boot_protocol protocol;
	const char *option, *name;
	bool (*probe)(const struct boot_source *source); /* is this image of that kind? NULL: only on demand */
	bool (*load)(struct boot_job *job);              /* checks everything itself: probe may not have been asked */
};

/* In the order in which AUTO asks. */
static const struct boot_loader loaders[] = {
	{ BOOT_LINUX64, "linux64", "Linux, 64-bit entry", linux64_probe, linux64_load },
	{ BOOT_LINUX32, "linux32", "Linux, 32-bit entry", linux32_probe, linux32_load },
	{ BOOT_PVH, "pvh", "PVH", pvh_probe, pvh_load },
	{ BOOT_MULTIBOOT2, "multiboot2", "Multiboot 2", multiboot2_probe, multiboot2_load },
	{ BOOT_MULTIBOOT1, "multiboot1", "Multiboot 1", multiboot1_probe, multiboot1_load },
	{ BOOT_FLAT, "flat", "flat real-mode image", NULL, flat_load },
	{ BOOT_FIRMWARE, "firmware", "firmware", NULL, firmware_load },
};

bool boot_protocol_find(const char *name, enum boot_protocol *protocol)
{
	*protocol = BOOT_AUTO;
	if (string_equal(name, "auto"))
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(loaders); i++) {
		*protocol = loaders[i].protocol;
		if (string_equal(name, loaders[i].option))
			return true;
	}
	return false;
}

static const struct boot_loader *choose(const struct boot_source *s)
{
	for (unsigned i = 0; i < ARRAY_SIZE(loaders); i++) {
		const struct boot_loader *l = &loaders[i];
		if (s->protocol == BOOT_AUTO ? l->probe && l->probe(s) : l->protocol == s->protocol)
			return l;
	}
	return NULL;
}

static bool check_source(struct boot_job *job)
{
	const struct boot_source *s = job->source;

	if (s->protocol != BOOT_FIRMWARE && !s->kernel_size)
		return boot_fail(job, "kernel: the file is empty");
	if (s->ram_size < MAP_LEGACY_END + MIB)
		return boot_fail(job, "memory: %lu bytes are too little for any guest: use --memory 2M or more",
				 s->ram_size);
	if (s->ram_size % PAGE_SIZE)
		return boot_fail(job, "memory: %lu bytes are not whole pages: use --memory with a multiple of 4K",
				 s->ram_size);
	return true;
}

bool boot_load(struct ram *ram, const struct boot_source *source, struct boot_entry *entry, char *error,
	       size_t error_size)
{
	struct boot_job job = {
		.ram = ram,
		.source = source,
		.entry = entry,
		.low_end = e820_low_end(source->ram_size),
		.error = error,
		.error_size = error_size,
	};
	const struct boot_loader *loader;

	if (!check_source(&job))
		return false;
	loader = choose(source);
	if (!loader)
		return boot_fail(&job, "not a bootable image: no bzImage, PVH/ELF or multiboot header found");
	*entry = (struct boot_entry){
		.protocol = loader->protocol,
		.name = loader->name,
		.rom = entry->rom,
		.rom_size = entry->rom_size,
	};
	if (loader->protocol != BOOT_FIRMWARE) {
		job.rsdp = MAP_ACPI;
		if (!acpi_build(ram, source->cpus, source->vga))
			return boot_fail(&job, "ACPI tables for %u CPUs do not fit below 1 MiB: use fewer CPUs",
					 source->cpus);
	}
	return loader->load(&job);
}
