/* The script by which firmware puts ACPI tables where it likes and mends what points into them: QEMU's "etc/table-loader", as described in
 * hw/acpi/bios-linker-loader.c there, and SeaBIOS's and OVMF's readers. */
#ifndef NADIR_BOOT_ACPI_LOADER_H
#define NADIR_BOOT_ACPI_LOADER_H

#include "boot/acpi.h"

#define ACPI_LOADER_RSDP "etc/acpi/rsdp"
#define ACPI_LOADER_TABLES "etc/acpi/tables"
#define ACPI_LOADER_SCRIPT "etc/table-loader"

/* The tables file begins so many bytes behind the RSDP that acpi_tables writes. */
#define ACPI_LOADER_TABLES_START 64u

#define ACPI_LOADER_ENTRY_SIZE 128u
#define ACPI_LOADER_SIZE ((4 + ACPI_POINTERS_MAX + ACPI_TABLES_MAX) * ACPI_LOADER_ENTRY_SIZE)

/* Build tables and script: the RSDP is at the beginning of `tables`, what follows at ACPI_LOADER_TABLES_START. Both buffers are zeroed first;
 * what is not used stays zero, which firmware skips. Returns the bytes of the tables file, or 0 if they do not fit. */
u32 acpi_loader_build(u8 *tables, u32 size, u8 script[ACPI_LOADER_SIZE], const struct acpi_machine *machine);

#endif
