/* The ACPI tables: found from the RSDP as a guest finds them, every checksum and pointer right, and the AML encodings
 * of the manual. With a directory as argument it writes the tables there instead, one file a table, for iasl. */
#include "boot/acpi_loader.h"
#include "dev/map.h"
#include "lib/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static u8 tables[MAP_ACPI_SIZE];

static u8 *at(u64 gpa)
{
	if (gpa < MAP_ACPI || gpa >= MAP_ACPI + MAP_ACPI_SIZE)
		abort();
	return tables + (gpa - MAP_ACPI);
}

static u32 build_in(u32 size, unsigned cpus)
{
	const struct acpi_machine machine = { .cpus = cpus, .ecam = MAP_ECAM, .bars = MAP_PCI_MMIO };
	return acpi_tables(tables, size, MAP_ACPI, &machine, NULL);
}

static u32 build(unsigned cpus)
{
	memset(tables, 0, sizeof(tables));
	return build_in(sizeof(tables), cpus);
}

static u8 sum(const u8 *p, u32 size)
{
	u8 s = 0;
	while (size--)
		s += *p++;
	return s;
}

static u8 *xsdt(void)
{
	return at(get_u64(tables + 24));
}

static unsigned xsdt_count(void)
{
	return (get_u32(xsdt() + 4) - 36) / 8;
}

static u8 *find(const char *signature)
{
	for (unsigned i = 0; i < xsdt_count(); i++) {
		u8 *t = at(get_u64(xsdt() + 36 + i * 8));
		if (!memcmp(t, signature, 4))
			return t;
	}
	return NULL;
}

static void test_checksums(void **state)
{
	u32 size = build(4);

	assert_in_range(size, 1, MAP_ACPI_SIZE);
	assert_memory_equal(tables, "RSD PTR ", 8);
	assert_int_equal(sum(tables, 20), 0);
	assert_int_equal(sum(tables, 36), 0);
	assert_int_equal(xsdt_count(), 5);
	u8 *rsdt = at(get_u32(tables + 16));
	assert_memory_equal(rsdt, "RSDT", 4);
	assert_int_equal(sum(rsdt, get_u32(rsdt + 4)), 0);
	assert_int_equal(sum(xsdt(), get_u32(xsdt() + 4)), 0);
	for (unsigned i = 0; i < xsdt_count(); i++) {
		u64 gpa = get_u64(xsdt() + 36 + i * 8);
		assert_int_equal(gpa, get_u32(rsdt + 36 + i * 4));
		assert_int_equal(gpa % 16, 0);
		assert_int_equal(sum(at(gpa), get_u32(at(gpa) + 4)), 0);
	}
	u8 *dsdt = at(get_u32(find("FACP") + 40));
	assert_memory_equal(dsdt, "DSDT", 4);
	assert_int_equal(sum(dsdt, get_u32(dsdt + 4)), 0);
	assert_int_equal(get_u64(find("FACP") + 140), get_u32(find("FACP") + 40));
	u32 facs = get_u32(find("FACP") + 36);
	assert_memory_equal(at(facs), "FACS", 4);
	assert_int_equal(facs % 64, 0);
}

/* Offsets of the manual's table, not of our struct. */
static void test_fadt(void **state)
{
	build(1);
	u8 *f = find("FACP");

	assert_int_equal(get_u32(f + 4), 276);
	assert_int_equal(f[8], 6);
	assert_int_equal(get_u16(f + 46), 9);
	assert_int_equal(get_u32(f + 56), 0x600);
	assert_int_equal(get_u32(f + 64), 0x604);
	assert_int_equal(get_u32(f + 76), 0x608);
	assert_int_equal(get_u16(f + 109), 7);
	assert_int_equal(get_u32(f + 112) >> 10 & 1, 1);
	assert_int_equal(get_u64(f + 116 + 4), 0xcf9);
	assert_int_equal(f[128], 6);
	assert_int_equal(get_u64(f + 148 + 4), 0x600);
	assert_int_equal(get_u64(f + 208 + 4), 0x608);
}

struct madt_count {
	unsigned type[16];
};

static struct madt_count count_madt(void)
{
	struct madt_count c = { 0 };
	u8 *m = find("APIC");

	assert_int_equal(get_u32(m + 36), 0xfee00000);
	for (u32 i = 44; i < get_u32(m + 4); i += m[i + 1]) {
		assert_in_range(m[i + 1], 2, 16);
		c.type[m[i] & 15]++;
	}
	return c;
}

static void test_madt(void **state)
{
	build(3);
	struct madt_count c = count_madt();
	assert_int_equal(c.type[0], 3);
	assert_int_equal(c.type[1], 1);
	assert_int_equal(c.type[2], 2);
	assert_int_equal(c.type[4], 1);
	assert_int_equal(c.type[9], 0);
	assert_int_equal(c.type[10], 0);

	build(300);
	c = count_madt();
	assert_int_equal(c.type[0], 255);
	assert_int_equal(c.type[9], 45);
	assert_int_equal(c.type[10], 1);
}

static void test_mcfg(void **state)
{
	build(1);
	u8 *m = find("MCFG");

	assert_int_equal(get_u32(m + 4), 60);
	assert_int_equal(get_u64(m + 44), 0xe0000000);
	assert_int_equal(m[54], 0);
	assert_int_equal(m[55], 255);
}

static void test_too_many_cpus(void **state)
{
	assert_int_equal(build(100000), 0);
}

/* Every size that is too small is refused, and nothing is written past it. */
static void test_small_buffer(void **state)
{
	u32 need = build(2);

	for (u32 size = 0; size < need; size++) {
		memset(tables, 0, sizeof(tables));
		tables[size] = 0xa5;
		assert_int_equal(build_in(size, 2), 0);
		assert_int_equal(tables[size], 0xa5);
	}
	assert_int_equal(build_in(need, 2), need);
}

static void test_ram(void **state)
{
	static u8 memory[1 << 20] __attribute__((aligned(4096)));
	struct ram ram = { 0 };

	assert_false(acpi_build(&ram, 1, false));
	assert_int_equal(ram_add(&ram, 0, sizeof(memory), memory, false), 0);
	assert_true(acpi_build(&ram, 1, false));
	assert_memory_equal(memory + MAP_ACPI, "RSD PTR ", 8);
	ram_release(&ram);
}

/* ---- AML ---- */

#define ENCODES(statement, ...)                                                                                        \
	do {                                                                                                           \
		u8 buffer[64];                                                                                         \
		struct aml aml = { .data = buffer, .size = sizeof(buffer) };                                           \
		static const u8 expected[] = { __VA_ARGS__ };                                                          \
		statement;                                                                                             \
		assert_false(aml.overflow);                                                                            \
		assert_int_equal(aml.used, sizeof(expected));                                                          \
		assert_memory_equal(buffer, expected, sizeof(expected));                                               \
	} while (0)

static void test_aml_terms(void **state)
{
	ENCODES(aml_integer(&aml, 0), 0x00);
	ENCODES(aml_integer(&aml, 1), 0x01);
	ENCODES(aml_integer(&aml, 0xff), 0x0a, 0xff);
	ENCODES(aml_integer(&aml, 0x1234), 0x0b, 0x34, 0x12);
	ENCODES(aml_integer(&aml, 0x12345678), 0x0c, 0x78, 0x56, 0x34, 0x12);
	ENCODES(aml_integer(&aml, 0x123456789a), 0x0e, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0);
	ENCODES(aml_path(&aml, "_HID"), '_', 'H', 'I', 'D');
	ENCODES(aml_path(&aml, "RTC"), 'R', 'T', 'C', '_');
	ENCODES(aml_path(&aml, "\\_SB.PCI0"), '\\', 0x2e, '_', 'S', 'B', '_', 'P', 'C', 'I', '0');
	ENCODES(aml_path(&aml, "A.B.C"), 0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_');
	ENCODES(aml_name_eisa_id(&aml, "_HID", "PNP0A03"), 0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x0a, 0x03);
	ENCODES((aml_scope(&aml, "_SB"), aml_end(&aml)), 0x10, 0x05, '_', 'S', 'B', '_');
	ENCODES((aml_package(&aml, 1), aml_integer(&aml, 0), aml_end(&aml)), 0x12, 0x03, 1, 0);
	ENCODES((aml_resources(&aml, "_CRS"), aml_irq(&aml, 4), aml_resources_end(&aml)), 0x08, '_', 'C', 'R', 'S',
		0x11, 0x09, 0x0b, 5, 0, 0x22, 0x10, 0, 0x79, 0);
}

/* The length of a package counts its own bytes, of which there are 1 to 4. */
static void test_aml_length(void **state)
{
	static const u32 sizes[] = { 0, 62, 63, 4093, 4094, 5000, 65535, 1048571, 1048572, 1048573, 1048580 };
	static u8 body[1 << 21], buffer[1 << 21];

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct aml aml = { .data = buffer, .size = sizeof(buffer) };
		aml_block(&aml, AML_ELSE);
		aml_bytes(&aml, body, sizes[i]);
		aml_end(&aml);
		unsigned extra = buffer[1] >> 6;
		u32 length = extra ? buffer[1] & 0xf : buffer[1] & 0x3f;
		for (unsigned j = 0; j < extra; j++)
			length |= (u32)buffer[2 + j] << (4 + 8 * j);
		assert_int_equal(length, aml.used - 1);
		assert_int_equal(length, sizes[i] + 1 + extra);
	}
}

/* ---- the loader's script, carried out as firmware does ---- */

#define PLACE 0x7f000000u /* of the tables file */

static u8 loader_tables[MAP_ACPI_SIZE], script[ACPI_LOADER_SIZE];

/* The bytes of a file that the script names. */
static u8 *file_of(const u8 *name)
{
	if (!strcmp((const char *)name, ACPI_LOADER_RSDP))
		return loader_tables;
	assert_string_equal((const char *)name, ACPI_LOADER_TABLES);
	return loader_tables + ACPI_LOADER_TABLES_START;
}

static void add_pointer(const u8 *e)
{
	u8 *p = file_of(e + 4) + get_u32(e + 116);
	assert_string_equal((const char *)e + 60, ACPI_LOADER_TABLES);
	if (e[120] == 4)
		put_u32(p, get_u32(p) + PLACE);
	else
		put_u64(p, get_u64(p) + PLACE);
}

static unsigned run_script(void)
{
	unsigned allocated = 0;
	for (const u8 *e = script; e < script + sizeof(script); e += ACPI_LOADER_ENTRY_SIZE) {
		u8 *p;
		switch (get_u32(e)) {
		case 0:
			break;
		case 1:
			file_of(e + 4);
			allocated++;
			break;
		case 2:
			add_pointer(e);
			break;
		case 3:
			p = file_of(e + 4);
			assert_int_equal(p[get_u32(e + 60)], 0);
			p[get_u32(e + 60)] = (u8)-sum(p + get_u32(e + 64), get_u32(e + 68));
			break;
		default:
			fail();
		}
	}
	return allocated;
}

static const u8 *placed(u64 address)
{
	assert_in_range(address, PLACE, PLACE + sizeof(loader_tables) - ACPI_LOADER_TABLES_START - 36);
	return loader_tables + ACPI_LOADER_TABLES_START + (address - PLACE);
}

static void test_loader(void **state)
{
	const struct acpi_machine machine = {
		.cpus = 3, .ecam = 0xb0000000, .bars = MAP_PCI_MMIO, .high_bars = BIT(33), .high_bars_end = BIT(46)
	};
	u32 size = acpi_loader_build(loader_tables, sizeof(loader_tables), script, &machine);
	assert_in_range(size, 1000, 10000);
	assert_int_equal(run_script(), 2);
	assert_memory_equal(loader_tables, "RSD PTR ", 8);
	assert_int_equal(sum(loader_tables, 20), 0);
	assert_int_equal(sum(loader_tables, 36), 0);
	const u8 *root = placed(get_u64(loader_tables + 24));
	unsigned count = (get_u32(root + 4) - 36) / 8;
	assert_memory_equal(root, "XSDT", 4);
	assert_memory_equal(placed(get_u32(loader_tables + 16)), "RSDT", 4);
	assert_int_equal(sum(root, get_u32(root + 4)), 0);
	assert_int_equal(count, 5);
	for (unsigned i = 0; i < count; i++) {
		const u8 *t = placed(get_u64(root + 36 + 8 * i));
		assert_int_equal(sum(t, get_u32(t + 4)), 0);
		if (!memcmp(t, "FACP", 4)) {
			const u8 *dsdt = placed(get_u64(t + 140));
			assert_memory_equal(dsdt, "DSDT", 4);
			assert_int_equal(sum(dsdt, get_u32(dsdt + 4)), 0);
			assert_ptr_equal(placed(get_u32(t + 40)), dsdt);
			assert_memory_equal(placed(get_u32(t + 36)), "FACS", 4);
			assert_int_equal((get_u32(t + 36) - PLACE) % 64, 0);
		}
		if (!memcmp(t, "MCFG", 4))
			assert_int_equal(get_u64(t + 44), 0xb0000000);
	}
	assert_int_equal(acpi_loader_build(loader_tables, 1000, script, &machine), 0);
}

static int dump_table(const char *directory, const u8 *table)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%.4s.dat", directory, (const char *)table);
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(table, get_u32(table + 4), 1, f) != 1 || fclose(f)) {
		perror(path);
		return 1;
	}
	return 0;
}

static int dump(const char *directory, unsigned cpus)
{
	int failed = 0;

	build(cpus);
	for (unsigned i = 0; i < xsdt_count(); i++)
		failed |= dump_table(directory, at(get_u64(xsdt() + 36 + i * 8)));
	failed |= dump_table(directory, at(get_u32(find("FACP") + 36)));
	failed |= dump_table(directory, at(get_u32(find("FACP") + 40)));
	failed |= dump_table(directory, at(get_u32(tables + 16)));
	failed |= dump_table(directory, xsdt());
	return failed;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checksums),     cmocka_unit_test(test_fadt),
		cmocka_unit_test(test_madt),          cmocka_unit_test(test_mcfg),
		cmocka_unit_test(test_too_many_cpus), cmocka_unit_test(test_small_buffer),
		cmocka_unit_test(test_ram),           cmocka_unit_test(test_aml_terms),
		cmocka_unit_test(test_aml_length),    cmocka_unit_test(test_loader),
	};

	if (argc == 3)
		return dump(argv[1], (unsigned)strtoul(argv[2], NULL, 0));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
