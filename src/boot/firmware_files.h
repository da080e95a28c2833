/* What firmware finds in the firmware configuration device (dev/fw_cfg.h), by the names that QEMU gave it: memory map, ACPI tables, boot
 * order, where its console goes, and the kernel to boot if there is one. */
#ifndef NADIR_BOOT_FIRMWARE_FILES_H
#define NADIR_BOOT_FIRMWARE_FILES_H

#include "boot/acpi_loader.h"
#include "boot/boot.h"
#include "boot/e820.h"
#include "boot/smbios.h"
#include "dev/block.h"
#include "dev/fw_cfg.h"
#include "dev/mch.h"
#include "dev/virtio/net.h"

struct firmware_files {
	const struct mch *mch; /* where the ECAM window is when the tables are read */
	struct acpi_machine machine;
	u64 low_end;
	u8 *acpi; /* RSDP and tables */
	u8 script[ACPI_LOADER_SIZE];
	unsigned acpi_key[3];
	struct e820_entry e820[2];
	struct smbios smbios;
	char boot_order[2048];
	u8 *setup; /* the kernel's 16-bit part */
};

/* What the machine can boot from: rows of disks, by their buses, and of network cards; some are empty (vm/board.h). */
struct boot_devices {
	const struct block_backend *disk;
	unsigned disks;
	const struct net_backend *net;
	unsigned nets;
};

/* Put everything in. False, with one sentence in `error` that says what is wrong, if it cannot be. `files` is zeroed, and lives as long as the
 * device. */
bool firmware_files_create(struct firmware_files *files, struct fw_cfg *fw, const struct mch *mch, const struct boot_source *source,
			   const struct boot_devices *devices, char *error, size_t error_size);
void firmware_files_destroy(struct firmware_files *files);

#endif
