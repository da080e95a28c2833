/* A machine whose firmware left ACPI tables: for tests and fuzzing of host/metal's reading of them. What map_device gives is a copy of exactly what was
 * asked for, so that the address sanitizer finds who reads more. */
#ifndef NADIR_TESTS_ACPI_MACHINE_H
#define NADIR_TESTS_ACPI_MACHINE_H

#include "host/metal/acpi.h"
#include "host/metal/map.h"
#include "lib/bytes.h"

#include <stdlib.h>
#include <string.h>

#define ACPI_MACHINE_TABLES 0x7fe0000u /* physical */
#define ACPI_MACHINE_SIZE 0x20000u
#define ACPI_MACHINE_BIOS 0xe0000u
#define ACPI_MACHINE_HEADER 36u

static struct {
	u8 tables[ACPI_MACHINE_SIZE], bios[ACPI_MACHINE_SIZE];
	u32 used;
	bool gone;
	u8 revision;
	u64 table[64];
	unsigned count;
	void *copy[4096];
	unsigned copies;
} acpi_machine;

static void acpi_machine_free(void)
{
	while (acpi_machine.copies)
		free(acpi_machine.copy[--acpi_machine.copies]);
}

static inline int acpi_machine_teardown(void **state)
{
	acpi_machine_free();
	return 0;
}

void *map_device(u64 address, u64 size)
{
	const u8 *from = NULL;
	if (!acpi_machine.gone && address >= ACPI_MACHINE_TABLES && range_within(address - ACPI_MACHINE_TABLES, size, ACPI_MACHINE_SIZE))
		from = acpi_machine.tables + (address - ACPI_MACHINE_TABLES);
	if (address >= ACPI_MACHINE_BIOS && range_within(address - ACPI_MACHINE_BIOS, size, ACPI_MACHINE_SIZE))
		from = acpi_machine.bios + (address - ACPI_MACHINE_BIOS);
	if (!from || acpi_machine.copies == ARRAY_SIZE(acpi_machine.copy))
		return NULL;
	u8 *copy = acpi_machine.copy[acpi_machine.copies++] = malloc(size);
	return memcpy(copy, from, size);
}

static inline void acpi_machine_seal(u8 *p, size_t size, unsigned at)
{
	u8 sum = 0;
	p[at] = 0;
	for (size_t i = 0; i < size; i++)
		sum = (u8)(sum + p[i]);
	p[at] = (u8)-sum;
}

/* ACPI revision 0 (with an RSDT) or 2 (with an XSDT). */
static inline void acpi_machine_begin(u8 revision)
{
	acpi_machine_free();
	memset(&acpi_machine, 0, sizeof(acpi_machine));
	acpi_machine.revision = revision;
}

/* A table with this behind its header. */
static inline u8 *acpi_machine_add(const char *signature, const void *body, size_t size)
{
	u8 *table = acpi_machine.tables + acpi_machine.used;
	acpi_machine.table[acpi_machine.count++] = ACPI_MACHINE_TABLES + acpi_machine.used;
	memcpy(table, signature, 4);
	put_u32(table + 4, (u32)(ACPI_MACHINE_HEADER + size));
	if (size)
		memcpy(table + ACPI_MACHINE_HEADER, body, size);
	acpi_machine_seal(table, ACPI_MACHINE_HEADER + size, 9);
	acpi_machine.used += (u32)(ACPI_MACHINE_HEADER + size + 15) & ~15u;
	return table;
}

/* The list of tables, and the root pointer; it is in the BIOS' area, too. */
static inline const u8 *acpi_machine_end(void)
{
	bool wide = acpi_machine.revision >= 2;
	u8 *list = acpi_machine.tables + acpi_machine.used, *rsdp = acpi_machine.bios + 0x1230;
	u64 address = ACPI_MACHINE_TABLES + acpi_machine.used;
	unsigned width = wide ? 8 : 4, size = ACPI_MACHINE_HEADER + acpi_machine.count * width;
	memcpy(list, wide ? "XSDT" : "RSDT", 4);
	put_u32(list + 4, size);
	for (unsigned i = 0; i < acpi_machine.count; i++)
		memcpy(list + ACPI_MACHINE_HEADER + i * width, &acpi_machine.table[i], width);
	acpi_machine_seal(list, size, 9);
	memcpy(rsdp, "RSD PTR ", 8);
	rsdp[15] = acpi_machine.revision;
	put_u32(rsdp + 16, wide ? 0 : (u32)address);
	put_u64(rsdp + 24, wide ? address : ~0ull);
	acpi_machine_seal(rsdp, 20, 8);
	return rsdp;
}

/* The addresses in the list lead nowhere. */
static inline void acpi_machine_forget_tables(void)
{
	acpi_machine.gone = true;
}

#endif
