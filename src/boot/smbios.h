/* What the machine says it is: tables of the System Management BIOS (SMBIOS) Reference Specification, version 2.8, for firmware to place. */
#ifndef NADIR_BOOT_SMBIOS_H
#define NADIR_BOOT_SMBIOS_H

#include "arch/types.h"

#define SMBIOS_ANCHOR_SIZE 31
#define SMBIOS_SIZE_MAX 8192

struct smbios {
	u8 anchor[SMBIOS_ANCHOR_SIZE]; /* "SMBIOS 2.1 (32-bit) Entry Point"; the tables' address and the checksums are left to the firmware */
	u8 tables[SMBIOS_SIZE_MAX];
	u32 size; /* of the tables */
};

/* `smbios` is zeroed. A firmware adds what is about itself (type 0). */
void smbios_build(struct smbios *smbios, unsigned cpus, u64 memory);

#endif
