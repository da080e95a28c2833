/* The bare machine's reading of what a boot loader left: multiboot2 and multiboot 1, whole and broken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/metal/boot_info.h"
#include "lib/bytes.h"

#include <string.h>

#define BASE 0x9000u
#define MULTIBOOT1 0x2badb002u
#define MULTIBOOT2 0x36d76289u

static u8 memory[0x4000]; /* at BASE */
static struct boot_info info;
static u32 used;

const u8 *boot_at(u64 address, u64 size)
{
	return address >= BASE && range_within(address - BASE, size, sizeof(memory)) ? memory + (address - BASE) : NULL;
}

static const char *read(u32 magic)
{
	memset(&info, 0, sizeof(info));
	return boot_info_read(&info, magic, BASE);
}

static void put_text(u8 *to, const char *text)
{
	memcpy(to, text, strlen(text) + 1);
}

/* ---- multiboot2 ---- */

static void begin(void)
{
	memset(memory, 0, sizeof(memory));
	used = 8;
}

static u8 *tag(u32 type, u32 size)
{
	u8 *t = memory + used;
	put_u32(t, type);
	put_u32(t + 4, size);
	used += (size + 7) & ~7u;
	put_u32(memory, used);
	return t;
}

static void add_memory(u64 base, u64 size, u32 type)
{
	u8 *t = tag(6, 16 + 24);
	put_u32(t + 8, 24);
	put_u64(t + 16, base);
	put_u64(t + 24, size);
	put_u32(t + 32, type);
}

static void add_module(u32 start, u32 end, const char *text)
{
	u8 *t = tag(3, 16 + (u32)strlen(text) + 1);
	put_u32(t + 8, start);
	put_u32(t + 12, end);
	put_text(t + 16, text);
}

static void test_multiboot2(void **state)
{
	begin();
	add_memory(0x100000, 0x1000000, 1);
	add_memory(0xfec00000, 0x1000, 2);
	put_text(tag(1, 8 + 20) + 8, "--engine step");
	add_module(0x200000, 0x300000, "/boot/one.vm  a b");
	add_module(0x300000, 0x300000, "");
	memcpy(tag(14, 8 + 20) + 8, "RSD PTR old", 11);
	memcpy(tag(15, 8 + 36) + 8, "RSD PTR new", 11);
	memcpy(tag(14, 8 + 20) + 8, "RSD PTR old", 11);
	tag(0, 8);
	add_memory(0x8000000, 0x1000, 1); /* behind the end */
	assert_null(read(MULTIBOOT2));
	assert_string_equal(info.cmdline, "--engine step");
	assert_int_equal(info.ranges, 1);
	assert_int_equal(info.ram[0].base, 0x100000);
	assert_int_equal(info.ram[0].size, 0x1000000);
	assert_int_equal(info.modules, 2);
	assert_string_equal(info.module[0].name, "one.vm");
	assert_string_equal(info.module[0].arguments, "a b");
	assert_int_equal(info.module[0].base, 0x200000);
	assert_int_equal(info.module[0].size, 0x100000);
	assert_string_equal(info.module[1].name, "");
	assert_true(info.rsdp);
	assert_memory_equal(info.rsdp_copy, "RSD PTR new", 11);
}

/* QEMU puts the program's name in front. */
static void test_program_name(void **state)
{
	begin();
	add_memory(0x100000, 0x1000000, 1);
	put_text(tag(1, 8 + 30) + 8, "build/nadir.elf --stats");
	assert_null(read(MULTIBOOT2));
	assert_string_equal(info.cmdline, " --stats");
}

static void test_no_memory(void **state)
{
	begin();
	assert_non_null(read(MULTIBOOT2));
	assert_non_null(read(MULTIBOOT1));
	assert_non_null(read(0x12345678));
	add_memory(0x100000, 0x1000, 2);
	assert_non_null(read(MULTIBOOT2));
}

/* Ranges that wrap around, or where no CPU has RAM. */
static void test_impossible_ranges(void **state)
{
	begin();
	add_memory(0xfffffffffffff000, 0x2000, 1);
	add_memory(0x100000, ~0ull, 1);
	add_memory(1ull << 60, 0x1000, 1);
	add_memory(0x100000, 0, 1);
	add_memory(0x100000, 0x1000, 1);
	assert_null(read(MULTIBOOT2));
	assert_int_equal(info.ranges, 1);
}

/* Tags that are too small for what they should hold, or end behind the whole. */
static void test_broken_tags(void **state)
{
	static const u32 types[] = { 1, 3, 6, 14, 15 };
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		for (u32 size = 8; size < 40; size++) {
			begin();
			add_memory(0x100000, 0x1000, 1);
			memset(tag(types[i], size) + 8, 0xff, size - 8);
			assert_null(read(MULTIBOOT2));
			assert_int_equal(info.ranges, 1);
		}
	}
	static const u32 sizes[] = { 0, 7, 0x40, 0xfffffff8, 0xffffffff };
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		begin();
		add_memory(0x100000, 0x1000, 1);
		put_u32(tag(1, 16) + 4, sizes[i]);
		assert_null(read(MULTIBOOT2));
		assert_string_equal(info.cmdline, "");
	}
	begin();
	add_memory(0x100000, 0x1000, 1);
	put_u32(memory, 0xffffffff); /* longer than there is memory */
	assert_null(read(MULTIBOOT2));
}

static void test_long_texts(void **state)
{
	begin();
	add_memory(0x100000, 0x1000, 1);
	u8 *t = tag(1, 8 + 3 * BOOT_TEXT_MAX);
	memset(t + 8, 'x', 3 * BOOT_TEXT_MAX); /* nor does it end */
	assert_null(read(MULTIBOOT2));
	assert_int_equal(strlen(info.cmdline), BOOT_TEXT_MAX - 1);
}

static void test_many(void **state)
{
	begin();
	for (unsigned i = 0; i < BOOT_MODULES_MAX + 5; i++)
		add_module(0x100000, 0x200000, "a");
	for (unsigned i = 0; i < BOOT_RANGES_MAX + 5; i++)
		add_memory(0x100000 + i * 0x10000, 0x1000, 1);
	assert_null(read(MULTIBOOT2));
	assert_int_equal(info.modules, BOOT_MODULES_MAX);
	assert_int_equal(info.ranges, BOOT_RANGES_MAX);
}

/* ---- multiboot 1 ---- */

static void begin1(void)
{
	memset(memory, 0, sizeof(memory));
	put_u32(memory, BIT(2) | BIT(3) | BIT(6));
	put_u32(memory + 16, BASE + 0x100);
	put_u32(memory + 20, 2);
	put_u32(memory + 24, BASE + 0x200);
	put_u32(memory + 44, 48);
	put_u32(memory + 48, BASE + 0x300);
	put_text(memory + 0x100, "nadir.elf --stats");
	put_u32(memory + 0x200, 0x200000);
	put_u32(memory + 0x204, 0x201000);
	put_u32(memory + 0x208, BASE + 0x280);
	put_u32(memory + 0x210, 0x300000);
	put_u32(memory + 0x214, 0x2fffff); /* ends before it begins */
	put_text(memory + 0x280, "flags-64.img x=1");
	put_u32(memory + 0x300, 20);
	put_u64(memory + 0x304, 0x100000);
	put_u64(memory + 0x30c, 0x1000000);
	put_u32(memory + 0x314, 1);
	put_u32(memory + 0x318, 20);
}

static void test_multiboot1(void **state)
{
	begin1();
	assert_null(read(MULTIBOOT1));
	assert_string_equal(info.cmdline, " --stats");
	assert_int_equal(info.modules, 1);
	assert_string_equal(info.module[0].name, "flags-64.img");
	assert_string_equal(info.module[0].arguments, "x=1");
	assert_int_equal(info.ranges, 1);
	assert_int_equal(info.ram[0].size, 0x1000000);
}

/* Pointers to where there is nothing, counts without end. */
static void test_wild(void **state)
{
	static const u32 at[] = { 16, 20, 24, 44, 0x208, 0x300, 0x318 };
	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		begin1();
		put_u32(memory + at[i], 0xfffffffe);
		assert_null(read(MULTIBOOT1));
		begin1();
		put_u32(memory + at[i], 0);
		read(MULTIBOOT1);
	}
	begin1();
	put_u32(memory + 48, 4);
	assert_non_null(read(MULTIBOOT1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_multiboot2),   cmocka_unit_test(test_program_name), cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_impossible_ranges), cmocka_unit_test(test_broken_tags), cmocka_unit_test(test_long_texts),
		cmocka_unit_test(test_many),	     cmocka_unit_test(test_multiboot1),	  cmocka_unit_test(test_wild),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
