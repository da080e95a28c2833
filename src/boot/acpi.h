/* The ACPI tables that tell the guest what machine it runs on: everything in them comes from dev/map.h and the number
 * of CPUs. ACPI specification 6.4, "ACPI Software Programming Model"; PCI Firmware Specification, "MCFG Table". */
#ifndef NADIR_BOOT_ACPI_H
#define NADIR_BOOT_ACPI_H

#include "boot/aml.h"
#include "mmu/ram.h"

struct acpi_machine {
	unsigned cpus; /* CPU n has APIC ID n and processor UID n */
	gpa_t ecam; /* 0: none */
	gpa_t bars; /* where PCI BARs may begin, below MAP_PCI_MMIO_END */
	gpa_t high_bars, high_bars_end; /* and above all memory; both 0: nowhere */
	bool vga; /* there is one, with its window */
};

/* What somebody who moves the tables must mend. Offsets are from the beginning of the buffer. */
#define ACPI_TABLES_MAX 10
#define ACPI_POINTERS_MAX 24
struct acpi_links {
	struct acpi_pointer {
		u32 at;
		u8 size;
	} pointer[ACPI_POINTERS_MAX];
	unsigned pointers;
	struct acpi_table {
		u32 start, size;
	} table[ACPI_TABLES_MAX]; /* those with a checksum in their header */
	unsigned tables;
};

#define ACPI_RSDP_SIZE 36
#define ACPI_RSDP_V1_SIZE 20
#define ACPI_RSDP_CHECKSUM 8
#define ACPI_RSDP_EXTENDED_CHECKSUM 32
#define ACPI_CHECKSUM 9 /* in the header of all other tables */

/* Build the tables as they are to lie at guest physical address `base` (64-byte aligned), RSDP first. Returns their
 * size in bytes, or 0 if they do not fit. `buffer` must be zeroed. `links` may be NULL. */
u32 acpi_tables(u8 *buffer, u32 size, gpa_t base, const struct acpi_machine *machine, struct acpi_links *links);

/* Write the DSDT's definition block, without the table header. */
void acpi_dsdt(struct aml *aml, const struct acpi_machine *machine);

/* Put the tables at MAP_ACPI; false if they do not fit there or the guest has no RAM there. */
bool acpi_build(struct ram *ram, unsigned cpus, bool vga);

#endif
