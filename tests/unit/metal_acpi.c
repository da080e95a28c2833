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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_madt),	cmocka_unit_test(test_old),	cmocka_unit_test(test_mcfg_and_iommus), cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_damaged), cmocka_unit_test(test_entries), cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, acpi_machine_teardown);
}
