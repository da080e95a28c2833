/* The bare machine's reading of ACPI's tables: what it finds in whole ones, and that damaged ones are as if they were not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "acpi_machine.h"

static struct acpi_info info;

static void expect_nothing(void)
{
	assert_int_equal(info.cpus, 0);
	assert_int_equal(info.ecams, 0);
	assert_int_equal(info.iommus, 0);
}

static const u8 madt[] = {
	0, 0, 0xe0, 0xfe, 1, 0, 0, 0,		   /* local APICs at FEE00000H */
	0, 8, 0, 3, 1, 0, 0, 0,			   /* enabled, ID 3 */
	0, 8, 1, 4, 0, 0, 0, 0,			   /* not enabled */
	0, 8, 2, 3, 1, 0, 0, 0,			   /* 3 again */
	9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, /* x2APIC, ID 256 */
	1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0, /* I/O APIC at FEC00000H */
};

static void test_madt(void **state)
{
	acpi_machine_begin(2);
	acpi_machine_add("APIC", madt, sizeof(madt));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.cpus, 2);
	assert_int_equal(info.apic_id[0], 3);
	assert_int_equal(info.apic_id[1], 256);
	assert_int_equal(info.ioapic, 0xfec00000);
}

/* A machine of before ACPI 2.0 has no XSDT; nor has one whose loader says nothing: the BIOS' area is searched. */
static void test_old(void **state)
{
	acpi_machine_begin(0);
	acpi_machine_add("APIC", madt, sizeof(madt));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.cpus, 2);
	acpi_machine_begin(0);
	acpi_machine_add("APIC", madt, sizeof(madt));
	acpi_machine_end();
	assert_true(acpi_read(&info, NULL));
	assert_int_equal(info.cpus, 2);
}

static void test_mcfg_and_iommus(void **state)
{
	u8 mcfg[8 + 16] = { [8 + 3] = 0xe0, [8 + 11] = 0xff }, dmar[12 + 16 + 16] = { 0 }, ivrs[12 + 24 + 24] = { 0 };
	put_u16(dmar + 12 + 2, 16);
	put_u64(dmar + 12 + 8, 0xfed90000);
	put_u16(dmar + 28, 1); /* of another type */
	put_u16(dmar + 28 + 2, 16);
	for (unsigned i = 0; i < 2; i++) { /* the same one twice */
		ivrs[12 + i * 24] = 0x10;
		put_u16(ivrs + 12 + i * 24 + 2, 24);
		put_u64(ivrs + 12 + i * 24 + 8, 0xfeb80000);
	}
	acpi_machine_begin(2);
	acpi_machine_add("MCFG", mcfg, sizeof(mcfg));
	acpi_machine_add("DMAR", dmar, sizeof(dmar));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.ecams, 1);
	assert_int_equal(info.ecam[0].base, 0xe0000000);
	assert_int_equal(info.ecam[0].last_bus, 0xff);
	assert_int_equal(info.iommus, 1);
	assert_int_equal(info.iommu[0], 0xfed90000);
	assert_false(info.iommu_is_amd);
	acpi_machine_begin(2);
	acpi_machine_add("IVRS", ivrs, sizeof(ivrs));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.iommus, 1);
	assert_int_equal(info.iommu[0], 0xfeb80000);
	assert_true(info.iommu_is_amd);
}

static void test_nothing(void **state)
{
	acpi_machine_begin(2);
	assert_false(acpi_read(&info, NULL));
	expect_nothing();
	assert_true(acpi_read(&info, acpi_machine_end()));
	expect_nothing();
}

/* A table with a wrong checksum or length, or at an address where there is nothing. */
static void test_damaged(void **state)
{
	for (unsigned damage = 0; damage < 4; damage++) {
		acpi_machine_begin(2);
		u8 *table = acpi_machine_add("APIC", madt, sizeof(madt));
		const u8 *rsdp = acpi_machine_end();
		if (damage == 0)
			table[40]++;
		else if (damage == 1)
			put_u32(table + 4, 35);
		else if (damage == 2)
			put_u32(table + 4, 0xffffffff);
		else
			acpi_machine_forget_tables();
		acpi_read(&info, rsdp);
		expect_nothing();
	}
}

/* Entries that end behind their table, or have no length, end it. */
static void test_entries(void **state)
{
	static const u8 last[] = { 0, 1, 2, 16, 255 };
	for (unsigned i = 0; i < sizeof(last); i++) {
		u8 body[8 + 8 + 8] = { [8] = 0, 8, 0, 3, 1, [16] = 9, last[i], 0, 0, 1, 1, 1, 1 };
		acpi_machine_begin(2);
		acpi_machine_add("APIC", body, sizeof(body));
		acpi_machine_add("DMAR", body, sizeof(body));
		acpi_machine_add("IVRS", body, sizeof(body));
		acpi_machine_add("MCFG", body, sizeof(body));
		assert_true(acpi_read(&info, acpi_machine_end()));
		assert_int_equal(info.cpus, 1);
		assert_int_equal(info.iommus, 0);
	}
}

static void test_many(void **state)
{
	u8 body[8 + 8 * (CPUS_MAX + 6)] = { 0 };
	for (unsigned i = 0; i < CPUS_MAX + 6; i++)
		memcpy(body + 8 + i * 8, (u8[8]){ 0, 8, 0, (u8)i, 1 }, 8);
	acpi_machine_begin(2);
	acpi_machine_add("APIC", body, sizeof(body));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.cpus, CPUS_MAX);
	assert_int_equal(info.cpus_left_out, 6);
}

/* A FADT of an old or a new kind, and the DSDT that it points at. */
static void add_fadt(u32 size, const u8 *code, u32 code_size)
{
	u8 fadt[244] = { 0 }, *dsdt = acpi_machine_add("DSDT", code, code_size);
	acpi_machine.count--; /* it is in no list */
	u64 address = ACPI_MACHINE_TABLES + (u64)(dsdt - acpi_machine.tables);
	put_u32(fadt + 40 - 36, (u32)address);
	put_u32(fadt + 48 - 36, 0xb2);
	fadt[52 - 36] = 0xf1;
	put_u32(fadt + 64 - 36, 0x604);
	put_u32(fadt + 68 - 36, 0x10000); /* no port */
	put_u64(fadt + 140 - 36, address);
	fadt[172 - 36] = 1;
	put_u64(fadt + 172 + 4 - 36, 0x1804);
	acpi_machine_add("FACP", fadt, size - 36);
}

static const u8 s5[] = { 0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x0a, 5, 0x0a, 6, 0x00, 0x00 };

static void test_power(void **state)
{
	acpi_machine_begin(2);
	add_fadt(244, s5, sizeof(s5));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.power.pm1a, 0x1804);
	assert_int_equal(info.power.pm1b, 0);
	assert_int_equal(info.power.smi, 0xb2);
	assert_int_equal(info.power.enable, 0xf1);
	assert_true(info.power.s5);
	assert_int_equal(info.power.type_a, 5);
	assert_int_equal(info.power.type_b, 6);
	acpi_machine_begin(0);
	add_fadt(116, s5, sizeof(s5));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.power.pm1a, 0x604);
	assert_true(info.power.s5);
}

/* Code that ends in the middle, or in which only the name is there. */
static void test_broken_s5(void **state)
{
	for (u32 size = 0; size < 10; size++) {
		acpi_machine_begin(2);
		add_fadt(244, s5, size);
		assert_true(acpi_read(&info, acpi_machine_end()));
		assert_false(info.power.s5);
	}
	u8 code[sizeof(s5)];
	memcpy(code, s5, sizeof(code));
	code[6] = 0xc6; /* a length of four bytes */
	acpi_machine_begin(2);
	add_fadt(71, code, sizeof(code)); /* and too short a FADT */
	acpi_machine_add("SSDT", code, sizeof(code));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.power.pm1a, 0);
	code[6] = 0x06;
	code[8] = 1; /* OneOp */
	acpi_machine_begin(2);
	acpi_machine_add("SSDT", code, sizeof(code));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_true(info.power.s5);
	assert_int_equal(info.power.type_a, 1);
}

static void test_isa_lines(void **state)
{
	static const u8 body[] = {
		0, 0, 0xe0, 0xfe, 1, 0, 0, 0,		   /* */
		1, 12, 1, 0, 0, 0x10, 0xc0, 0xfe, 24, 0, 0, 0, /* the second I/O APIC, */
		1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0,	   /* the first */
		2, 10, 0, 0, 2, 0, 0, 0, 0, 0,		   /* line 0 at input 2, as ISA has it */
		2, 10, 0, 9, 9, 0, 0, 0, 0xf, 0,		   /* line 9, level, low */
		2, 10, 0, 200, 9, 0, 0, 0, 0xf, 0,		   /* no line */
	};
	acpi_machine_begin(2);
	acpi_machine_add("APIC", body, sizeof(body));
	assert_true(acpi_read(&info, acpi_machine_end()));
	assert_int_equal(info.ioapic, 0xfec00000);
	assert_int_equal(info.isa[0].input, 2);
	assert_false(info.isa[0].level || info.isa[0].low);
	assert_int_equal(info.isa[4].input, 4);
	assert_true(info.isa[9].level && info.isa[9].low);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_madt),	cmocka_unit_test(test_old),	cmocka_unit_test(test_mcfg_and_iommus), cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_damaged), cmocka_unit_test(test_entries), cmocka_unit_test(test_many),
		cmocka_unit_test(test_power),	cmocka_unit_test(test_broken_s5), cmocka_unit_test(test_isa_lines),
	};
	return cmocka_run_group_tests(tests, NULL, acpi_machine_teardown);
}
