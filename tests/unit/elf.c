/* Loading ELF kernels by PVH: segments, notes, the start info, and bad files. */
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

static u8 file[ELF_FILE_SIZE], module[5000];
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
		.cmdline = "hello",
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

static int setup(void **state)
{
	guest_memory_create(&ram, RAM_SIZE);
	elf_make(file, true);
	return 0;
}

static int teardown(void **state)
{
	guest_memory_destroy(&ram);
	return 0;
}

static void check_start_info(const u8 *m)
{
	const u8 *info = m + entry.gpr[RBX];

	assert_int_equal(get_u32(info), 0x336ec578);
	assert_int_equal(get_u32(info + 4), 1);
	assert_int_equal(get_u32(info + 12), 1);
	const u8 *modules = m + get_u64(info + 16);
	assert_int_equal(get_u64(modules + 8), sizeof(module));
	assert_memory_equal(m + get_u64(modules), module, sizeof(module));
	assert_string_equal((const char *)m + get_u64(info + 24), "hello");
	assert_int_equal(get_u64(info + 32), MAP_ACPI);
	const u8 *map = m + get_u64(info + 40);
	assert_int_equal(get_u32(info + 48), 4);
	assert_int_equal(get_u64(map), 0);
	assert_int_equal(get_u64(map + 48), 0x100000);
	assert_int_equal(get_u64(map + 56), RAM_SIZE - 0x100000);
	assert_int_equal(get_u32(map + 64), 1);
}

static void test_pvh(void **state)
{
	for (unsigned is64 = 0; is64 < 2; is64++) {
		struct boot_source s = source();
		elf_make(file, is64);
		memset(module, 0x11, sizeof(module));
		assert_true(load(&s));
		const u8 *m = ram_pointer(&ram, 0, RAM_SIZE);
		assert_int_equal(entry.protocol, BOOT_PVH);
		assert_int_equal(entry.rip, ELF_PADDR + 0x10);
		assert_memory_equal(m + ELF_PADDR, file + ELF_CODE_OFFSET, ELF_CODE_SIZE);
		for (unsigned i = 0; i < ELF_BSS; i++)
			assert_int_equal(m[ELF_PADDR + ELF_CODE_SIZE + i], 0);
		assert_int_equal(m[ELF_PADDR + ELF_CODE_SIZE + ELF_BSS], 0xcc);
		check_start_info(m);
	}
}

static void test_cpu_state(void **state)
{
	struct vcpu v = { .linear_bits = 48, .physical_bits = 46, .ram = &ram };
	struct boot_source s = source();

	assert_true(load(&s));
	assert_int_equal(mmu_create(&v), 0);
	boot_set_cpu(&v, &entry);
	assert_int_equal(v.cr0, CR0_PE | CR0_ET);
	assert_int_equal(v.cr4, 0);
	assert_int_equal(v.rflags, RFLAGS_FIXED1);
	assert_int_equal(vcpu_code_bits(&v), 32);
	assert_int_equal(v.seg[SEG_DS].base, 0);
	assert_int_equal(v.seg[SEG_DS].limit, 0xffffffff);
	assert_int_equal(v.tr.limit, 0x67);
	assert_int_equal(v.tr.attr, SEG_ATTR_P | SYS_TSS_BUSY);
	mmu_destroy(&v);
}

/* Nothing to load as module: the list is empty. */
static void test_no_module(void **state)
{
	struct boot_source s = source();

	s.initrd = NULL;
	s.initrd_size = 0;
	assert_true(load(&s));
	const u8 *info = ram_pointer(&ram, entry.gpr[RBX], 56);
	assert_int_equal(get_u32(info + 12), 0);
	assert_int_equal(get_u64(info + 16), 0);
}

static void test_wrong_kind(void **state)
{
	struct boot_source s = source();

	file[ELF_NOTE_OFFSET + 28] = 17;
	expect_error(&s, "not a bootable image");
	s.protocol = BOOT_PVH;
	expect_error(&s, "PVH entry note");
	elf_make(file, true);
	put_u16(file + 18, 183);
	expect_error(&s, "another kind of machine");
	elf_make(file, true);
	put_u16(file + 56, 0);
	expect_error(&s, "no segments");
	put_u16(file + 56, 65535);
	expect_error(&s, "more than 64");
	elf_make(file, true);
	put_u16(file + 54, 32);
	expect_error(&s, "too small");
}

static void test_bad_segments(void **state)
{
	struct boot_source s = source();
	u32 load_segment = 64 + 56;

	put_u64(file + load_segment + 8, ~0ull);
	expect_error(&s, "truncated");
	elf_make(file, true);
	put_u64(file + load_segment + 32, ELF_CODE_SIZE + ELF_BSS + 1);
	expect_error(&s, "more bytes in the file than in memory");
	elf_make(file, true);
	put_u64(file + load_segment + 40, ~0ull);
	expect_error(&s, "3 GiB");
	elf_make(file, true);
	put_u64(file + load_segment + 40, 100 << 20);
	expect_error(&s, "8 MiB is too little for this kernel, which needs 102 MiB: use --memory");
	elf_make(file, true);
	put_u64(file + load_segment + 24, 0x9f000);
	expect_error(&s, "below 1 MiB");
	put_u64(file + load_segment + 24, 0x8000);
	expect_error(&s, "below 1 MiB");
	elf_make(file, true);
	put_u32(file + ELF_NOTE_OFFSET + 36, 0x100);
	expect_error(&s, "entry point");
}

/* A kernel may also lie between the boot data and the EBDA. */
static void test_low_kernel(void **state)
{
	struct boot_source s = source();

	put_u64(file + 64 + 56 + 24, 0x20000);
	put_u32(file + ELF_NOTE_OFFSET + 36, 0x20000);
	assert_true(load(&s));
	assert_true(entry.initrd_base >= 0x100000);
}

static void test_truncations(void **state)
{
	struct boot_source s = source();

	for (unsigned is64 = 0; is64 < 2; is64++) {
		elf_make(file, is64);
		for (unsigned protocol = BOOT_AUTO; protocol <= BOOT_PVH; protocol += BOOT_PVH) {
			for (size_t size = 0; size < sizeof(file); size++) {
				u8 *copy = malloc(size ? size : 1);
				memcpy(copy, file, size);
				s.kernel = copy;
				s.kernel_size = size;
				s.protocol = protocol;
				assert_false(load(&s));
				assert_true(strlen(error) > 10);
				free(copy);
			}
		}
	}
}

/* Every byte of headers and notes set to extremes: refused or loaded, never out of bounds. */
static void test_damage(void **state)
{
	static const u8 values[] = { 0, 1, 4, 0x7f, 0x80, 0xff };
	struct boot_source s = source();

	for (unsigned is64 = 0; is64 < 2; is64++) {
		for (unsigned at = 0; at < ELF_NOTE_OFFSET + 40; at++) {
			for (unsigned i = 0; i < sizeof(values); i++) {
				elf_make(file, is64);
				file[at] = values[i];
				if (load(&s))
					assert_true(entry.kernel_base + entry.kernel_size <= RAM_SIZE);
				else
					assert_true(strlen(error) > 10);
			}
		}
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_pvh),          TEST(test_cpu_state),  TEST(test_no_module),   TEST(test_wrong_kind),
		TEST(test_bad_segments), TEST(test_low_kernel), TEST(test_truncations), TEST(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
