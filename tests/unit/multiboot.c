/* Loading multiboot 1 and 2 kernels, raw and ELF: the information they find, and bad headers. */
#include "boot/boot.h"
#include "dev/map.h"
#include "elf_image.h"
#include "guest_memory.h"
#include "mmu/mmu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define RAM_SIZE (8u << 20)
#define LOAD 0x200000
#define HEADER_AT 0x40
#define FILE_SIZE 0x1000

static u8 file[FILE_SIZE], module[5000];
static char error[256];
static struct boot_entry entry;
static struct ram ram;

static struct boot_source source(void)
{
	return (struct boot_source){
		.kernel = file,
		.kernel_size = sizeof(file),
		.initrd = module,
		.initrd_size = sizeof(module),
		.cmdline = "one two",
		.cpus = 1,
		.ram_size = RAM_SIZE,
	};
}

static bool load(const struct boot_source *s)
{
	error[0] = 0;
	memset(&entry, 0, sizeof(entry));
	return boot_load(&ram, s, &entry, error, sizeof(error));
}

static void expect_error(const struct boot_source *s, const char *text)
{
	assert_false(load(s));
	if (!strstr(error, text))
		fail_msg("expected \"%s\" in \"%s\"", text, error);
}

static void put_header1(u32 at, u32 flags)
{
	put_u32(file + at, 0x1badb002);
	put_u32(file + at + 4, flags);
	put_u32(file + at + 8, -(0x1badb002 + flags));
}

/* A raw image of the whole file at LOAD, with a bss of a page. */
static void make_raw1(void)
{
	memset(file, 0x77, sizeof(file));
	put_header1(HEADER_AT, 0x10003);
	put_u32(file + HEADER_AT + 12, LOAD + HEADER_AT);
	put_u32(file + HEADER_AT + 16, LOAD);
	put_u32(file + HEADER_AT + 20, LOAD + FILE_SIZE);
	put_u32(file + HEADER_AT + 24, LOAD + FILE_SIZE + 0x1000);
	put_u32(file + HEADER_AT + 28, LOAD + 0x80);
}

static u32 put_tag2(u32 at, u16 type, u16 flags, u32 size)
{
	put_u16(file + at, type);
	put_u16(file + at + 2, flags);
	put_u32(file + at + 4, size);
	return at + ((size + 7) & ~7u);
}

static void put_header2(u32 end)
{
	u32 length = end - HEADER_AT;

	put_u32(file + HEADER_AT, 0xe85250d6);
	put_u32(file + HEADER_AT + 4, 0);
	put_u32(file + HEADER_AT + 8, length);
	put_u32(file + HEADER_AT + 12, -(0xe85250d6 + length));
}

/* The same image for version 2, with one more tag of `size` bytes (0: none). Returns where that tag is. */
static u32 make_raw2(u16 type, u16 flags, u32 size)
{
	u32 at = HEADER_AT + 16, extra;

	memset(file, 0x77, sizeof(file));
	put_u32(file + at + 8, LOAD + HEADER_AT);
	put_u32(file + at + 12, LOAD);
	put_u32(file + at + 16, 0);
	put_u32(file + at + 20, LOAD + FILE_SIZE + 0x1000);
	at = put_tag2(at, 2, 0, 24);
	put_u32(file + at + 8, LOAD + 0x80);
	at = put_tag2(at, 3, 0, 12);
	extra = at;
	if (size)
		at = put_tag2(at, type, flags, size);
	put_header2(put_tag2(at, 0, 0, 8));
	return extra;
}

static int setup(void **state)
{
	guest_memory_create(&ram, RAM_SIZE);
	memset(module, 0x22, sizeof(module));
	return 0;
}

static int teardown(void **state)
{
	guest_memory_destroy(&ram);
	return 0;
}

static void check_raw(const u8 *m)
{
	assert_int_equal(entry.rip, LOAD + 0x80);
	assert_memory_equal(m + LOAD, file, FILE_SIZE);
	for (unsigned i = 0; i < 0x1000; i++)
		assert_int_equal(m[LOAD + FILE_SIZE + i], 0);
	assert_int_equal(m[LOAD + FILE_SIZE + 0x1000], 0xcc);
}

static void test_raw1(void **state)
{
	struct boot_source s = source();
	struct vcpu v = { .linear_bits = 48, .physical_bits = 46, .ram = &ram };

	make_raw1();
	assert_true(load(&s));
	assert_int_equal(entry.protocol, BOOT_MULTIBOOT1);
	const u8 *m = ram_pointer(&ram, 0, RAM_SIZE);
	check_raw(m);
	assert_int_equal(entry.gpr[RAX], 0x2badb002);
	const u8 *info = m + entry.gpr[RBX];
	assert_int_equal(get_u32(info), 0x24d);
	assert_int_equal(get_u32(info + 4), 639);
	assert_int_equal(get_u32(info + 8), 7 * 1024);
	assert_string_equal((const char *)m + get_u32(info + 16), "one two");
	assert_int_equal(get_u32(info + 20), 1);
	const u8 *mod = m + get_u32(info + 24);
	assert_int_equal(get_u32(mod + 4) - get_u32(mod), sizeof(module));
	assert_int_equal(get_u32(mod) % 4096, 0);
	assert_memory_equal(m + get_u32(mod), module, sizeof(module));
	assert_int_equal(get_u32(info + 44), 4 * 24);
	const u8 *map = m + get_u32(info + 48);
	assert_int_equal(get_u32(map), 20);
	assert_int_equal(get_u64(map + 48 + 4), 0x100000);
	assert_string_equal((const char *)m + get_u32(info + 64), "nadir");

	assert_int_equal(mmu_create(&v), 0);
	boot_set_cpu(&v, &entry);
	assert_int_equal(vcpu_code_bits(&v), 32);
	assert_int_equal(v.gpr[RBX], entry.gpr[RBX]);
	mmu_destroy(&v);
}

static void test_elf1(void **state)
{
	struct boot_source s = source();

	for (unsigned is64 = 0; is64 < 2; is64++) {
		elf_make(file, is64);
		memset(file + ELF_NOTE_OFFSET, 0, 64); /* no PVH note */
		put_header1(0x300, 3);
		s.kernel_size = ELF_FILE_SIZE;
		assert_true(load(&s));
		assert_int_equal(entry.protocol, BOOT_MULTIBOOT1);
		/* The virtual entry point, translated. */
		assert_int_equal(entry.rip, ELF_PADDR + 0x20);
	}
}

static void test_bad1(void **state)
{
	struct boot_source s = source();

	make_raw1();
	put_header1(HEADER_AT, 0x10007);
	expect_error(&s, "video");
	put_header1(HEADER_AT, 0x10023);
	expect_error(&s, "flags 0x20");
	make_raw1();
	file[HEADER_AT + 8]++;
	expect_error(&s, "not a bootable image");
	make_raw1();
	put_u32(file + HEADER_AT + 16, LOAD + HEADER_AT + 1);
	expect_error(&s, "load address");
	make_raw1();
	put_u32(file + HEADER_AT + 16, LOAD - 1);
	expect_error(&s, "load address");
	make_raw1();
	put_u32(file + HEADER_AT + 20, LOAD - 1);
	expect_error(&s, "end before its start");
	make_raw1();
	put_u32(file + HEADER_AT + 20, LOAD + FILE_SIZE + 1);
	expect_error(&s, "truncated");
	make_raw1();
	put_u32(file + HEADER_AT + 24, 0xffffffff);
	expect_error(&s, "3 GiB");
	make_raw1();
	put_u32(file + HEADER_AT + 28, LOAD - 1);
	expect_error(&s, "entry point");
}

/* The tag of a type in the information, or NULL. */
static const u8 *find_info2(const u8 *info, u32 type)
{
	u32 total = get_u32(info);

	for (u32 at = 8; at < total; at += (get_u32(info + at + 4) + 7) & ~7u)
		if (get_u32(info + at) == type)
			return info + at;
	return NULL;
}

static void test_raw2(void **state)
{
	struct boot_source s = source();

	make_raw2(0, 0, 0);
	assert_true(load(&s));
	assert_int_equal(entry.protocol, BOOT_MULTIBOOT2);
	const u8 *m = ram_pointer(&ram, 0, RAM_SIZE);
	check_raw(m);
	assert_int_equal(entry.gpr[RAX], 0x36d76289);
	assert_int_equal(entry.gpr[RBX] % 8, 0);
	const u8 *info = m + entry.gpr[RBX];
	assert_string_equal((const char *)find_info2(info, 1) + 8, "one two");
	assert_string_equal((const char *)find_info2(info, 2) + 8, "nadir");
	const u8 *mod = find_info2(info, 3);
	assert_memory_equal(m + get_u32(mod + 8), module, sizeof(module));
	assert_int_equal(get_u32(mod + 12) - get_u32(mod + 8), sizeof(module));
	assert_int_equal(get_u32(find_info2(info, 4) + 8), 639);
	const u8 *map = find_info2(info, 6);
	assert_int_equal(get_u32(map + 4), 16 + 4 * 24);
	assert_int_equal(get_u32(map + 8), 24);
	assert_int_equal(get_u64(map + 16 + 48), 0x100000);
	assert_memory_equal(find_info2(info, 14) + 8, "RSD PTR ", 8);
	assert_int_equal(get_u32(find_info2(info, 15) + 4), 8 + 36);
	assert_int_equal(get_u32(find_info2(info, 21) + 8), LOAD);
	const u8 *end = find_info2(info, 0);
	assert_ptr_equal(end + 8, info + get_u32(info));
}

static void test_load_from_file_start(void **state)
{
	struct boot_source s = source();

	make_raw2(0, 0, 0);
	put_u32(file + HEADER_AT + 16 + 12, 0xffffffff);
	assert_true(load(&s));
	check_raw(ram_pointer(&ram, 0, RAM_SIZE));
}

static void test_long_cmdline(void **state)
{
	struct boot_source s = source();
	static char line[20000];

	make_raw2(0, 0, 0);
	memset(line, 'y', 16383);
	s.cmdline = line;
	assert_true(load(&s));
	const u8 *info = ram_pointer(&ram, entry.gpr[RBX], 32768);
	assert_string_equal((const char *)find_info2(info, 1) + 8, line);
	line[16383] = 'y';
	expect_error(&s, "--append");
}

static void test_tags2(void **state)
{
	struct boot_source s = source();

	put_u32(file + make_raw2(1, 0, 12) + 8, 6);
	assert_true(load(&s));
	put_u32(file + make_raw2(1, 0, 12) + 8, 9);
	expect_error(&s, "information of type 9");
	put_u32(file + make_raw2(1, 0, 12) + 8, 0xffffffff);
	expect_error(&s, "information of type");
	put_u32(file + make_raw2(1, 1, 12) + 8, 9);
	assert_true(load(&s));
	make_raw2(5, 1, 20);
	assert_true(load(&s));
	make_raw2(5, 0, 20);
	expect_error(&s, "framebuffer");
	make_raw2(7, 0, 8);
	expect_error(&s, "EFI");
	make_raw2(77, 0, 8);
	expect_error(&s, "unknown");
	put_u32(file + make_raw2(6, 0, 8) + 4, 0);
	expect_error(&s, "impossible size");
	put_u32(file + make_raw2(6, 0, 8) + 4, 0xfffffff9);
	expect_error(&s, "impossible size");
	put_u16(file + make_raw2(6, 0, 8) - 16, 6); /* the entry tag becomes another */
	expect_error(&s, "no entry tag");
}

/* Cut at every byte within and after the header. */
static void test_truncations(void **state)
{
	struct boot_source s = source();

	for (unsigned version = 1; version <= 2; version++) {
		if (version == 1)
			make_raw1();
		else
			make_raw2(6, 0, 8);
		put_u32(file + HEADER_AT + (version == 1 ? 20 : 32), LOAD + FILE_SIZE);
		for (size_t size = 0; size < sizeof(file); size++) {
			u8 *copy = malloc(size ? size : 1);
			memcpy(copy, file, size);
			s.kernel = copy;
			s.kernel_size = size;
			assert_false(load(&s));
			assert_true(strlen(error) > 10);
			free(copy);
		}
	}
}

static void test_damage(void **state)
{
	static const u8 values[] = { 0, 1, 8, 0x7f, 0x80, 0xff };
	struct boot_source s = source();

	for (unsigned at = HEADER_AT; at < HEADER_AT + 80; at++) {
		for (unsigned i = 0; i < sizeof(values); i++) {
			make_raw2(6, 0, 8);
			file[at] = values[i];
			if (load(&s))
				assert_true(entry.kernel_base + entry.kernel_size <= RAM_SIZE);
			make_raw1();
			file[at] = values[i];
			if (load(&s))
				assert_true(entry.kernel_base + entry.kernel_size <= RAM_SIZE);
		}
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_raw1),
		TEST(test_elf1),
		TEST(test_bad1),
		TEST(test_raw2),
		TEST(test_load_from_file_start),
		TEST(test_long_cmdline),
		TEST(test_tags2),
		TEST(test_truncations),
		TEST(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
