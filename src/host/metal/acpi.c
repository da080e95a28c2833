/* Reading ACPI's tables (acpi.h). They are the firmware's, which is trusted, but lengths are kept to all the same. */
#include "host/metal/acpi.h"

#include "host/metal/map.h"
#include "host/metal/pages.h"
#include "host/port.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define HEADER 36
#define TABLE_MAX BIT(20)
#define BIOS_START 0xe0000u
#define BIOS_SIZE 0x20000u
#define RSDP_SIZE 36 /* of the newer, larger one */
#define TABLES_MAX 256

static bool sum_is_zero(const u8 *p, size_t size)
{
	u8 sum = 0;
	while (size--)
		sum = (u8)(sum + *p++);
	return !sum;
}

/* Tables lie in memory that is nobody's: mapped for as long as nadir runs, some pages. */
static const u8 *map_table(u64 address, u32 *size)
{
	const u8 *header = map_device(address, HEADER);
	*size = header ? get_u32(header + 4) : 0;
	if (*size < HEADER || *size > TABLE_MAX)
		return NULL;
	const u8 *table = map_device(address, *size);
	return table && sum_is_zero(table, *size) ? table : NULL;
}

static bool is_rsdp(const u8 *p)
{
	return !memcmp(p, "RSD PTR ", 8) && sum_is_zero(p, 20);
}

static const u8 *find_rsdp(void)
{
	const u8 *bios = map_device(BIOS_START, BIOS_SIZE);
	for (u32 offset = 0; bios && offset + RSDP_SIZE <= BIOS_SIZE; offset += 16)
		if (is_rsdp(bios + offset))
			return bios + offset;
	return NULL;
}

/* ---- MADT ---- */

static void add_cpu(struct acpi_info *info, u32 id, u32 flags)
{
	if (!(flags & 1)) /* enabled */
		return;
	for (unsigned i = 0; i < info->cpus; i++)
		if (info->apic_id[i] == id)
			return;
	if (info->cpus < CPUS_MAX)
		info->apic_id[info->cpus++] = id;
	else
		info->cpus_left_out++;
}

/* "Interrupt Source Override Structure": its flags are polarity and trigger mode, of two bits each. */
static void add_override(struct acpi_info *info, const u8 *entry)
{
	u16 flags = get_u16(entry + 8);
	if (entry[2] == 0 && entry[3] < ACPI_ISA_LINES)
		info->isa[entry[3]] = (struct acpi_isa){ .input = get_u32(entry + 4), .level = (flags >> 2 & 3) == 3, .low = (flags & 3) == 3 };
}

static void read_madt(struct acpi_info *info, const u8 *table, u32 size)
{
	for (u32 offset = 44; offset + 2 <= size && table[offset + 1] >= 2 && offset + table[offset + 1] <= size; offset += table[offset + 1]) {
		const u8 *entry = table + offset;
		if (entry[0] == 0 && entry[1] >= 8)
			add_cpu(info, entry[3], get_u32(entry + 4));
		else if (entry[0] == 9 && entry[1] >= 16)
			add_cpu(info, get_u32(entry + 4), get_u32(entry + 8));
		else if (entry[0] == 1 && entry[1] >= 12 && !get_u32(entry + 8))
			info->ioapic = get_u32(entry + 4);
		else if (entry[0] == 2 && entry[1] >= 10)
			add_override(info, entry);
	}
}

/* ---- MCFG ---- */

static void read_mcfg(struct acpi_info *info, const u8 *table, u32 size)
{
	for (u32 offset = 44; offset + 16 <= size && info->ecams < ACPI_UNITS_MAX; offset += 16) {
		const u8 *entry = table + offset;
		info->ecam[info->ecams++] = (struct acpi_ecam){ get_u64(entry), get_u16(entry + 8), entry[10], entry[11] };
	}
}

/* ---- IOMMUs ---- */

static void add_iommu(struct acpi_info *info, u64 address)
{
	if (info->iommus < ACPI_UNITS_MAX)
		info->iommu[info->iommus++] = address;
}

/* Remapping structures of type 0, DRHD, name the hardware. */
static void read_dmar(struct acpi_info *info, const u8 *table, u32 size)
{
	for (u32 offset = 48; offset + 4 <= size;) {
		u16 length = get_u16(table + offset + 2);
		if (length < 4 || length > size - offset)
			return;
		if (get_u16(table + offset) == 0 && length >= 16)
			add_iommu(info, get_u64(table + offset + 8));
		offset += length;
	}
}

/* Blocks of types 10H, 11H and 40H, IVHD: one IOMMU may have several. */
static void read_ivrs(struct acpi_info *info, const u8 *table, u32 size)
{
	info->iommu_is_amd = true;
	for (u32 offset = 48; offset + 4 <= size;) {
		u16 length = get_u16(table + offset + 2);
		u8 type = table[offset];
		if (length < 4 || length > size - offset)
			return;
		u64 address = length >= 16 ? get_u64(table + offset + 8) : 0;
		bool known = false;
		for (unsigned i = 0; i < info->iommus; i++)
			known |= info->iommu[i] == address;
		if ((type == 0x10 || type == 0x11 || type == 0x40) && address && !known)
			add_iommu(info, address);
		offset += length;
	}
}

/* ---- power ---- */

enum { ZERO_OP = 0, ONE_OP = 1, BYTE_PREFIX = 0x0a, WORD_PREFIX = 0x0b, DWORD_PREFIX = 0x0c, PACKAGE_OP = 0x12 };

/* A number of AML; false: this is none. */
static bool take_number(const u8 **p, const u8 *end, u8 *value)
{
	if (*p < end && (**p == ZERO_OP || **p == ONE_OP)) {
		*value = *(*p)++;
		return true;
	}
	unsigned size = *p == end ? 0 : **p == BYTE_PREFIX ? 1 : **p == WORD_PREFIX ? 2 : **p == DWORD_PREFIX ? 4 : 0;
	if (!size || (size_t)(end - *p) < 1 + size)
		return false;
	*value = (*p)[1];
	*p += 1 + size;
	return true;
}

/* Name (_S5, Package () { a, b, ... }): the name is looked for, not the way to it, as it stands nowhere else. ACPI Specification 6.5, "Package Length
 * Encoding", "_Sx (System States)". */
static void read_s5(struct acpi_info *info, const u8 *table, u32 size)
{
	const u8 *end = table + size;
	for (const u8 *p = table + HEADER; end - p > 7 && !info->power.s5; p++) {
		if (memcmp(p, "_S5_", 4) || p[4] != PACKAGE_OP)
			continue;
		const u8 *element = p + 5 + (p[5] >> 6) + 2; /* behind the length, and how many there are */
		struct acpi_power *power = &info->power;
		power->s5 = element < end && take_number(&element, end, &power->type_a);
		if (power->s5 && !take_number(&element, end, &power->type_b))
			power->type_b = 0;
	}
}

/* An I/O port of the FADT: by its old field, or by the generic address that newer revisions have. */
static u16 fadt_port(const u8 *table, u32 size, u32 old, u32 generic)
{
	bool wide = size >= generic + 12 && table[generic] == 1 && get_u64(table + generic + 4);
	u64 port = wide ? get_u64(table + generic + 4) : get_u32(table + old);
	return port <= 0xffff ? (u16)port : 0;
}

/* "Fixed ACPI Description Table". It names the DSDT, which is in no list. */
static void read_fadt(struct acpi_info *info, const u8 *table, u32 size)
{
	u32 dsdt_size;
	if (size < 72)
		return;
	info->power.pm1a = fadt_port(table, size, 64, 172);
	info->power.pm1b = fadt_port(table, size, 68, 184);
	info->power.smi = get_u32(table + 48) <= 0xffff ? (u16)get_u32(table + 48) : 0;
	info->power.enable = table[52];
	u64 dsdt = size >= 148 && get_u64(table + 140) ? get_u64(table + 140) : get_u32(table + 40);
	const u8 *code = map_table(dsdt, &dsdt_size);
	if (code)
		read_s5(info, code, dsdt_size);
}

/* ---- the list of tables ---- */

static void read_table(struct acpi_info *info, u64 address)
{
	static const struct {
		char signature[5];
		void (*read)(struct acpi_info *info, const u8 *table, u32 size);
	} readers[] = { { "APIC", read_madt }, { "MCFG", read_mcfg }, { "DMAR", read_dmar }, { "IVRS", read_ivrs },
			{ "FACP", read_fadt }, { "SSDT", read_s5 } };
	u32 size;
	const u8 *table = map_table(address, &size);
	for (unsigned i = 0; table && i < ARRAY_SIZE(readers); i++)
		if (!memcmp(table, readers[i].signature, 4))
			readers[i].read(info, table, size);
}

bool acpi_read(struct acpi_info *info, const u8 *rsdp)
{
	u32 size;
	*info = (struct acpi_info){ 0 };
	for (u32 line = 0; line < ACPI_ISA_LINES; line++)
		info->isa[line].input = line;
	if (!rsdp || !is_rsdp(rsdp))
		rsdp = find_rsdp();
	if (!rsdp)
		return false;
	u64 xsdt = rsdp[15] >= 2 ? get_u64(rsdp + 24) : 0;
	const u8 *list = map_table(xsdt ? xsdt : get_u32(rsdp + 16), &size);
	unsigned width = xsdt ? 8 : 4;
	for (u32 offset = HEADER, i = 0; list && offset + width <= size && i < TABLES_MAX; offset += width, i++)
		read_table(info, xsdt ? get_u64(list + offset) : get_u32(list + offset));
	return list != NULL;
}
