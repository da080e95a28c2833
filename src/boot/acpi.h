/* The ACPI tables that tell the guest what machine it runs on: everything in them comes from dev/map.h and the number
 * of CPUs. ACPI specification 6.4, "ACPI Software Programming Model"; PCI Firmware Specification, "MCFG Table". */
#ifndef NADIR_BOOT_ACPI_H
#define NADIR_BOOT_ACPI_H

#include "boot/aml.h"
#include "mmu/ram.h"

/* Build the tables as they are to lie at guest physical address `base` (64-byte aligned), RSDP first. Returns their
 * size in bytes, or 0 if they do not fit. `buffer` must be zeroed. CPU n has APIC ID n and processor UID n. */
u32 acpi_tables(u8 *buffer, u32 size, gpa_t base, unsigned cpus);

/* Write the DSDT's definition block, without the table header. */
void acpi_dsdt(struct aml *aml, unsigned cpus);

/* Put the tables at MAP_ACPI; false if they do not fit there or the guest has no RAM there. */
bool acpi_build(struct ram *ram, unsigned cpus);

#endif
