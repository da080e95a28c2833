/* What the boot loader told us, copied out of its tables: memory, modules, command line, ACPI. */
#ifndef NADIR_HOST_METAL_BOOT_INFO_H
#define NADIR_HOST_METAL_BOOT_INFO_H

#include "arch/types.h"

#define BOOT_RANGES_MAX 128
#define BOOT_MODULES_MAX 32
#define BOOT_TEXT_MAX 1024

struct boot_range {
	u64 base, size;
};

/* A file that the boot loader loaded. Its name is the first word of its string, less folders: GRUB's `module2 FILE NAME ...` passes what stands
 * behind FILE, others pass all of it. The rest of the string are its arguments. */
struct boot_module {
	const char *name, *arguments;
	u64 base, size; /* physical */
};

struct boot_info {
	const char *loader;
	char cmdline[BOOT_TEXT_MAX];
	struct boot_range ram[BOOT_RANGES_MAX]; /* in no order; what is in use by modules included */
	unsigned ranges;
	struct boot_module module[BOOT_MODULES_MAX];
	unsigned modules;
	bool rsdp; /* rsdp_copy holds ACPI's root pointer */
	char text[8 * BOOT_TEXT_MAX]; /* of names and arguments */
	size_t text_used;
	u8 rsdp_copy[36];
};

/* Read the tables at `address`, which the loader's `magic` in EAX says the kind of, into `info`, which is zeroed. Whatever they hold, ranges and
 * modules do not wrap around, and texts end. NULL, or what is wrong. */
const char *boot_info_read(struct boot_info *info, u32 magic, u64 address);

/* The module of this name; NULL: there is none. */
const struct boot_module *boot_info_find(const struct boot_info *info, const char *name);

/* What it reads by (main.c): [address, address + size) of physical memory; NULL: that is not all mapped. */
const u8 *boot_at(u64 address, u64 size);

#endif
