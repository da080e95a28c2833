/* What ACPI's tables tell of the machine. ACPI Specification 6.5, "ACPI Software Programming Model"; PCI Firmware Specification, "MCFG"; Intel VT-d
 * Specification, "DMA Remapping Reporting Structure"; AMD IOMMU Specification, "I/O Virtualization Reporting Structure". */
#ifndef NADIR_HOST_METAL_ACPI_H
#define NADIR_HOST_METAL_ACPI_H

#include "host/metal/cpu.h"

#define ACPI_UNITS_MAX 16
#define ACPI_ISA_LINES 16

struct acpi_info {
	u32 apic_id[CPUS_MAX]; /* of CPUs that can be started, the boot CPU among them, in the order of the table */
	unsigned cpus;
	unsigned cpus_left_out; /* for which there was no room */
	u64 ioapic; /* physical address of the I/O APIC that has the interrupts of ISA devices, or 0 */
	struct acpi_isa {
		u32 input; /* of that I/O APIC */
		bool level, low; /* else edges, active high */
	} isa[ACPI_ISA_LINES]; /* where the lines of ISA devices go */
	struct acpi_power {
		u16 pm1a, pm1b; /* ports of the PM1 control registers; 0: there is none */
		u16 smi; /* port where `enable` makes ACPI own them; 0: it does */
		u8 enable;
		bool s5; /* the sleeping types of S5 are known */
		u8 type_a, type_b;
	} power;
	struct acpi_ecam {
		u64 base;
		u16 segment;
		u8 first_bus, last_bus;
	} ecam[ACPI_UNITS_MAX]; /* PCI configuration space in memory */
	unsigned ecams;
	u64 iommu[ACPI_UNITS_MAX]; /* physical addresses of registers: VT-d's units, or AMD's */
	unsigned iommus;
	bool iommu_is_amd;
};

/* Read the tables, from the root pointer that the boot loader gave (copied; virtual address), or as BIOSes leave it. Tables that are damaged are
 * as if they were not there. False: there are no tables. */
bool acpi_read(struct acpi_info *info, const u8 *rsdp);

#endif
