/* The ACPI tables' loader script (acpi_loader.h). Pointers in the tables hold offsets in the file, to which the script has the file's address
 * added; checksums of moved tables are left zero for it. */
#include "boot/acpi_loader.h"

#include "lib/bytes.h"
#include "lib/string.h"

enum { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

#define NAME_SIZE 56
#define TABLES_ALIGNMENT 64 /* the FACS demands it */
#define RSDP_ALIGNMENT 16

struct script {
	u8 *next;
};

static u8 *begin_entry(struct script *s, u32 command, const char *file)
{
	u8 *entry = s->next;
	s->next += ACPI_LOADER_ENTRY_SIZE;
	put_u32(entry, command);
	memcpy(entry + 4, file, string_length(file));
	return entry + 4 + NAME_SIZE;
}

static void allocate(struct script *s, const char *file, u32 alignment, u8 zone)
{
	u8 *rest = begin_entry(s, ALLOCATE, file);
	put_u32(rest, alignment);
	rest[4] = zone;
}

/* All pointers lead into the tables file. */
static void add_pointer(struct script *s, const char *file, u32 offset, u8 size)
{
	u8 *rest = begin_entry(s, ADD_POINTER, file);
	memcpy(rest, ACPI_LOADER_TABLES, sizeof(ACPI_LOADER_TABLES));
	put_u32(rest + NAME_SIZE, offset);
	rest[NAME_SIZE + 4] = size;
}

static void add_checksum(struct script *s, const char *file, u32 offset, u32 start, u32 length)
{
	u8 *rest = begin_entry(s, ADD_CHECKSUM, file);
	put_u32(rest, offset);
	put_u32(rest + 4, start);
	put_u32(rest + 8, length);
}

static void add_pointers(struct script *s, const struct acpi_links *links)
{
	for (unsigned i = 0; i < links->pointers; i++) {
		const struct acpi_pointer *p = &links->pointer[i];
		if (p->at < ACPI_RSDP_SIZE)
			add_pointer(s, ACPI_LOADER_RSDP, p->at, p->size);
		else
			add_pointer(s, ACPI_LOADER_TABLES, p->at - ACPI_LOADER_TABLES_START, p->size);
	}
}

static void add_checksums(struct script *s, u8 *tables, const struct acpi_links *links)
{
	for (unsigned i = 0; i < links->tables; i++) {
		u32 start = links->table[i].start;
		tables[start + ACPI_CHECKSUM] = 0;
		start -= ACPI_LOADER_TABLES_START;
		add_checksum(s, ACPI_LOADER_TABLES, start + ACPI_CHECKSUM, start, links->table[i].size);
	}
	tables[ACPI_RSDP_CHECKSUM] = tables[ACPI_RSDP_EXTENDED_CHECKSUM] = 0;
	add_checksum(s, ACPI_LOADER_RSDP, ACPI_RSDP_CHECKSUM, 0, ACPI_RSDP_V1_SIZE);
	add_checksum(s, ACPI_LOADER_RSDP, ACPI_RSDP_EXTENDED_CHECKSUM, 0, ACPI_RSDP_SIZE);
}

u32 acpi_loader_build(u8 *tables, u32 size, u8 script[ACPI_LOADER_SIZE], const struct acpi_machine *machine)
{
	struct acpi_links links;
	struct script s = { script };
	memset(tables, 0, size);
	memset(script, 0, ACPI_LOADER_SIZE);
	u32 used = acpi_tables(tables, size, (u32)-ACPI_LOADER_TABLES_START, machine, &links);
	if (!used)
		return 0;
	allocate(&s, ACPI_LOADER_RSDP, RSDP_ALIGNMENT, ZONE_FSEG);
	allocate(&s, ACPI_LOADER_TABLES, TABLES_ALIGNMENT, ZONE_HIGH);
	add_pointers(&s, &links);
	add_checksums(&s, tables, &links);
	return used - ACPI_LOADER_TABLES_START;
}
