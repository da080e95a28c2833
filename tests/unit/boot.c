/* Loading Linux: the memory map, what the zero page says, where things go, the registers, and every kind of bad file.
 */
#include "boot/boot.h"
#include "boot/e820.h"
#include "dev/map.h"
#include "guest_memory.h"
#include "lib/bytes.h"
#include "mmu/mmu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define MIB (1ull << 20)
#define SETUP_SECTS 3
#define PAYLOAD_OFFSET ((SETUP_SECTS + 1) * 512)
#define PAYLOAD_SIZE 4096
#define KERNEL_SIZE (PAYLOAD_OFFSET + PAYLOAD_SIZE)
#define PREF (16 * MIB)
#define INIT_SIZE (8 * MIB)

static u8 kernel[KERNEL_SIZE], initrd[10000];
static char error[256];
static struct boot_entry entry;

/* A bzImage as of protocol 2.15, by the offsets of boot.rst. */
static void make_kernel(void)
{
	memset(kernel, 0, PAYLOAD_OFFSET);
	for (unsigned i = PAYLOAD_OFFSET; i < KERNEL_SIZE; i++)
		kernel[i] = i * 7;
	kernel[0x1f1] = SETUP_SECTS;
	put_u32(kernel + 0x1f4, PAYLOAD_SIZE / 16);
	put_u16(kernel + 0x1fe, 0xaa55);
	kernel[0x201] = 0x26c - 0x202;
	memcpy(kernel + 0x202, "HdrS", 4);
	put_u16(kernel + 0x206, 0x020f);
	kernel[0x211] = 1;
	put_u32(kernel + 0x214, 0x100000);
	put_u32(kernel + 0x22c, 0x7fffffff);
	put_u32(kernel + 0x230, 0x200000);
	kernel[0x234] = 1;
	put_u16(kernel + 0x236, 1);
	put_u32(kernel + 0x238, 2047);
	put_u64(kernel + 0x258, PREF);
	put_u32(kernel + 0x260, INIT_SIZE);
}

static struct boot_source source(u64 ram_size)
{
	return (struct boot_source){
		.kernel = kernel,
		.kernel_size = sizeof(kernel),
		.initrd = initrd,
		.initrd_size = sizeof(initrd),
		.cmdline = "console=ttyS0",
		.cpus = 1,
		.ram_size = ram_size,
	};
}

static bool load(struct ram *ram, const struct boot_source *s)
{
	error[0] = 0;
	memset(&entry, 0, sizeof(entry));
	return boot_load(ram, s, &entry, error, sizeof(error));
}

static void test_e820(void **state)
{
	struct e820_entry map[E820_ENTRIES_MAX];
	u64 sizes[] = { 2 * MIB, 512 * MIB, 3072 * MIB, 3073 * MIB, 65536 * MIB };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		unsigned n = e820_build(sizes[i], map);
		u64 ram = 0, end = 0;
		for (unsigned j = 0; j < n; j++) {
			assert_true(map[j].base >= end);
			end = map[j].base + map[j].size;
			if (map[j].type == E820_RAM)
				ram += map[j].size;
		}
		/* All RAM but the legacy area. */
		assert_int_equal(ram, sizes[i] - (0x100000 - 0x9fc00));
	}
	assert_int_equal(e820_build(4096 * MIB, map), 5);
	assert_int_equal(map[2].base + map[2].size, 0xb0000000);
	assert_int_equal(map[4].base, 0x100000000);
	assert_int_equal(map[4].size, 1280 * MIB);
}

static void test_linux64(void **state)
{
	struct boot_source s = source(64 * MIB);
	struct ram ram;
	struct vcpu v = { .linear_bits = 48, .physical_bits = 46 };

	make_kernel();
	memset(initrd, 0x5a, sizeof(initrd));
	guest_memory_create(&ram, s.ram_size);
	assert_true(load(&ram, &s));
	assert_int_equal(entry.protocol, BOOT_LINUX64);
	assert_int_equal(entry.rip, PREF + 0x200);

	u8 *m = ram_pointer(&ram, 0, s.ram_size);
	u8 *zero_page = m + entry.gpr[RSI];
	assert_memory_equal(m + PREF, kernel + PAYLOAD_OFFSET, PAYLOAD_SIZE);
	assert_int_equal(zero_page[0x0f], 0); /* orig_video_isVGA */
	assert_int_equal(get_u64(zero_page + 0x70), MAP_ACPI);
	assert_memory_equal(m + MAP_ACPI, "RSD PTR ", 8);
	assert_int_equal(zero_page[0x1e8], 4);
	assert_memory_equal(zero_page + 0x202, "HdrS", 4);
	assert_int_equal(zero_page[0x210], 0xff);
	assert_int_equal(get_u32(zero_page + 0x214), PREF);
	assert_string_equal((char *)m + get_u32(zero_page + 0x228), "console=ttyS0");
	u32 ramdisk = get_u32(zero_page + 0x218);
	assert_int_equal(get_u32(zero_page + 0x21c), sizeof(initrd));
	assert_int_equal(ramdisk % PAGE_SIZE, 0);
	assert_true(ramdisk >= PREF + INIT_SIZE);
	assert_memory_equal(m + ramdisk, initrd, sizeof(initrd));
	u8 *seed = m + get_u64(zero_page + 0x250);
	assert_int_equal(get_u64(seed), 0);
	assert_int_equal(get_u32(seed + 8), 9);
	assert_int_equal(get_u32(seed + 12), 32);
	assert_int_equal(get_u64(zero_page + 0x2d0 + 40), MIB);
	assert_int_equal(get_u64(zero_page + 0x2d0 + 48), 63 * MIB);

	v.ram = &ram;
	assert_int_equal(mmu_create(&v), 0);
	boot_set_cpu(&v, &entry);
	assert_true(vcpu_64bit(&v));
	assert_int_equal(v.seg[SEG_CS].selector, 0x10);
	assert_int_equal(v.seg[SEG_DS].selector, 0x18);
	/* The descriptors in the table are those in the registers: CS again from memory. */
	u64 code = get_u64(m + v.gdtr.base + 0x10);
	assert_int_equal(code, 0x00af9b000000ffffull);
	assert_int_equal(get_u64(m + v.gdtr.base + 0x18), 0x00cf93000000ffffull);
	gpa_t gpa;
	for (u64 gla = 0; gla < 4096 * MIB; gla += 511 * MIB) {
		assert_true(mmu_debug_translate(&v, gla, &gpa));
		assert_int_equal(gpa, gla);
	}
	assert_false(mmu_debug_translate(&v, 4096 * MIB, &gpa));
	mmu_destroy(&v);
	guest_memory_destroy(&ram);
}

static void test_linux32(void **state)
{
	struct boot_source s = source(64 * MIB);
	struct ram ram;
	struct vcpu v = { .linear_bits = 48, .physical_bits = 46 };

	make_kernel();
	guest_memory_create(&ram, s.ram_size);
	s.protocol = BOOT_LINUX32;
	assert_true(load(&ram, &s));
	assert_int_equal(entry.rip, PREF);
	v.ram = &ram;
	assert_int_equal(mmu_create(&v), 0);
	boot_set_cpu(&v, &entry);
	assert_int_equal(vcpu_code_bits(&v), 32);
	assert_int_equal(v.cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(v.gpr[RBP] | v.gpr[RDI] | v.gpr[RBX], 0);
	assert_int_equal(v.rflags, RFLAGS_FIXED1);
	mmu_destroy(&v);

	/* A kernel without a 64-bit entry is started at its 32-bit one, and not otherwise. */
	put_u16(kernel + 0x236, 0);
	s.protocol = BOOT_AUTO;
	assert_true(load(&ram, &s));
	assert_int_equal(entry.protocol, BOOT_LINUX32);
	s.protocol = BOOT_LINUX64;
	assert_false(load(&ram, &s));
	assert_non_null(strstr(error, "linux32"));
	guest_memory_destroy(&ram);
}

/* Old protocols do not know the newer fields: bytes there are code, and mean nothing. */
static void test_old_protocol(void **state)
{
	struct boot_source s = source(64 * MIB);
	struct ram ram;

	make_kernel();
	put_u16(kernel + 0x206, 0x0206);
	kernel[0x201] = 0x23c - 0x202;
	guest_memory_create(&ram, s.ram_size);
	assert_true(load(&ram, &s));
	assert_int_equal(entry.protocol, BOOT_LINUX32);
	assert_int_equal(entry.rip, MIB);
	put_u16(kernel + 0x206, 0x0205);
	assert_false(load(&ram, &s));
	assert_non_null(strstr(error, "2.05"));
	guest_memory_destroy(&ram);
}

static void expect_error(struct ram *ram, const struct boot_source *s, const char *text)
{
	assert_false(load(ram, s));
	if (!strstr(error, text))
		fail_msg("expected \"%s\" in \"%s\"", text, error);
}

static void test_too_little_memory(void **state)
{
	struct boot_source s = source(16 * MIB);
	struct ram ram;

	make_kernel();
	guest_memory_create(&ram, 16 * MIB);
	expect_error(&ram, &s, "memory: 16 MiB is too little for this kernel, which needs 24 MiB: use --memory");
	s.ram_size = MIB;
	expect_error(&ram, &s, "--memory");
	s.ram_size = 16 * MIB + 1;
	expect_error(&ram, &s, "4K");
	guest_memory_destroy(&ram);

	/* Just enough for the kernel; the initrd then goes below it. */
	s.ram_size = 24 * MIB;
	guest_memory_create(&ram, 24 * MIB);
	assert_true(load(&ram, &s));
	assert_true(entry.initrd_base + sizeof(initrd) <= PREF);
	guest_memory_destroy(&ram);
}

static void test_initrd_too_large(void **state)
{
	struct boot_source s = source(32 * MIB);
	struct ram ram;
	u8 *large = calloc(1, 40 * MIB);

	make_kernel();
	guest_memory_create(&ram, s.ram_size);
	s.initrd = large;
	s.initrd_size = 40 * MIB;
	expect_error(&ram, &s, "too little for this kernel and its initrd, which need 64 MiB: use --memory");
	put_u32(kernel + 0x22c, 32 * MIB);
	expect_error(&ram, &s, "initrd: ");
	free(large);
	guest_memory_destroy(&ram);
}

static void test_cmdline(void **state)
{
	struct boot_source s = source(64 * MIB);
	struct ram ram;
	char line[3000];

	make_kernel();
	guest_memory_create(&ram, s.ram_size);
	memset(line, 'x', sizeof(line));
	line[2047] = 0;
	s.cmdline = line;
	assert_true(load(&ram, &s));
	line[2047] = 'x';
	line[2048] = 0;
	expect_error(&ram, &s, "has 2048 bytes, this kernel takes at most 2047");
	s.cmdline = NULL;
	assert_true(load(&ram, &s));
	assert_int_equal(*ram_pointer(&ram, get_u32(ram_pointer(&ram, entry.gpr[RSI] + 0x228, 4)), 1), 0);
	guest_memory_destroy(&ram);
}

static void test_foreign_files(void **state)
{
	struct boot_source s = source(64 * MIB);
	struct ram ram;

	guest_memory_create(&ram, s.ram_size);
	memset(kernel, 0x90, sizeof(kernel));
	expect_error(&ram, &s, "not a bootable image: no bzImage, PVH/ELF or multiboot header found");
	s.protocol = BOOT_LINUX64;
	expect_error(&ram, &s, "bzImage");
	s.kernel_size = 0;
	expect_error(&ram, &s, "empty");
	s = source(64 * MIB);
	make_kernel();
	kernel[0x211] = 0;
	expect_error(&ram, &s, "zImage");
	make_kernel();
	put_u32(kernel + 0x1f4, 0);
	expect_error(&ram, &s, "empty");
	/* So short that the 64-bit entry would lie behind it. */
	make_kernel();
	put_u32(kernel + 0x1f4, 2);
	put_u32(kernel + 0x260, 0);
	expect_error(&ram, &s, "entry point");
	guest_memory_destroy(&ram);
}

/* Cut at every byte: refused, in a copy of exactly that size, so that a sanitizer sees a read past the end. */
static void test_truncations(void **state)
{
	struct boot_source s = source(32 * MIB);
	struct ram ram;

	make_kernel();
	guest_memory_create(&ram, s.ram_size);
	for (size_t size = 0; size < KERNEL_SIZE - 15; size++) {
		u8 *copy = malloc(size ? size : 1);
		memcpy(copy, kernel, size);
		s.kernel = copy;
		s.kernel_size = size;
		assert_false(load(&ram, &s));
		assert_true(strlen(error) > 10);
		free(copy);
	}
	s.kernel = kernel;
	s.kernel_size = 2048;
	expect_error(&ram, &s, "kernel: the file is truncated: its header promises 6144 bytes, the file has 2048");
	guest_memory_destroy(&ram);
}

/* Fields that place things, with the values that overflow sums. */
static void test_hostile_fields(void **state)
{
	static const struct {
		u16 offset;
		u8 size;
	} fields[] = { { 0x1f1, 1 }, { 0x1f4, 4 }, { 0x201, 1 }, { 0x206, 2 },
		       { 0x22c, 4 }, { 0x238, 4 }, { 0x258, 8 }, { 0x260, 4 } };
	static const u64 values[] = { 0,        1,          0x7f,       0x80,     0xfff, 0x100000 - 1,
				      0x100000, 0x7fffffff, 0x80000000, ~0xffull, ~0ull };
	struct boot_source s = source(32 * MIB);
	struct ram ram;

	guest_memory_create(&ram, s.ram_size);
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		for (unsigned j = 0; j < ARRAY_SIZE(values); j++) {
			make_kernel();
			memcpy(kernel + fields[i].offset, &values[j], fields[i].size);
			if (!load(&ram, &s)) {
				assert_true(strlen(error) > 10);
				continue;
			}
			assert_true(entry.kernel_base >= MIB);
			assert_true(entry.kernel_base + entry.kernel_size <= s.ram_size);
			assert_true(entry.initrd_base + entry.initrd_size <= s.ram_size);
			assert_true(entry.initrd_base >= entry.kernel_base + entry.kernel_size ||
				    entry.initrd_base + entry.initrd_size <= entry.kernel_base);
		}
	}
	guest_memory_destroy(&ram);
}

static void test_flat(void **state)
{
	struct boot_source s = source(2 * MIB);
	struct vcpu v = { .linear_bits = 48, .physical_bits = 46, .cr0 = 0x60000010, .gpr = { [RDX] = 0x600 } };
	struct ram ram;

	guest_memory_create(&ram, s.ram_size);
	memset(kernel, 0x90, sizeof(kernel));
	s.protocol = BOOT_FLAT;
	assert_true(load(&ram, &s));
	assert_memory_equal(ram_pointer(&ram, 0x7c00, sizeof(kernel)), kernel, sizeof(kernel));
	v.ram = &ram;
	v.seg[SEG_CS] = (struct segment){ .selector = 0xf000, .base = 0xffff0000, .limit = 0xffff, .attr = 0x9b };
	assert_int_equal(mmu_create(&v), 0);
	boot_set_cpu(&v, &entry);
	assert_int_equal(v.seg[SEG_CS].base + v.rip, 0x7c00);
	assert_int_equal(v.seg[SEG_CS].selector, 0);
	assert_int_equal(v.gpr[RDX], 0x80);
	assert_false(vcpu_protected(&v));
	mmu_destroy(&v);
	s.kernel_size = 0x98001;
	expect_error(&ram, &s, "flat image");
	guest_memory_destroy(&ram);
}

static void test_firmware(void **state)
{
	static u8 rom[256 * 1024];
	struct boot_source s = source(2 * MIB);
	struct vcpu v = { .rip = 0xfff0 };
	struct ram ram;

	for (unsigned i = 0; i < sizeof(rom); i++)
		rom[i] = i >> 8;
	guest_memory_create(&ram, s.ram_size);
	s.kernel_size = 0;
	s.firmware = rom;
	s.firmware_size = sizeof(rom);
	s.protocol = BOOT_FIRMWARE;
	assert_true(load(&ram, &s));
	assert_memory_equal(ram_pointer(&ram, 0xfffc0000, sizeof(rom)), rom, sizeof(rom));
	assert_true(ram_find(&ram, 0xfffffff0)->readonly);
	assert_memory_equal(ram_pointer(&ram, 0xe0000, 0x20000), rom + 0x20000, 0x20000);
	/* A restart finds the ROM in place. */
	assert_true(boot_load(&ram, &s, &entry, error, sizeof(error)));
	assert_int_equal(ram.slots, 2);
	boot_set_cpu(&v, &entry);
	assert_int_equal(v.rip, 0xfff0);
	s.firmware_size -= 4096;
	assert_false(boot_load(&ram, &s, &entry, error, sizeof(error)));
	s.firmware_size = 1000;
	expect_error(&ram, &s, "multiple of 4 KiB");
	s.firmware_size = 0;
	expect_error(&ram, &s, "multiple of 4 KiB");
	guest_memory_destroy(&ram);
}

static void test_protocol_names(void **state)
{
	enum boot_protocol p;

	assert_true(boot_protocol_find("auto", &p));
	assert_int_equal(p, BOOT_AUTO);
	assert_true(boot_protocol_find("linux32", &p));
	assert_int_equal(p, BOOT_LINUX32);
	assert_false(boot_protocol_find("linux", &p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_e820),
		cmocka_unit_test(test_linux64),
		cmocka_unit_test(test_linux32),
		cmocka_unit_test(test_old_protocol),
		cmocka_unit_test(test_too_little_memory),
		cmocka_unit_test(test_initrd_too_large),
		cmocka_unit_test(test_cmdline),
		cmocka_unit_test(test_foreign_files),
		cmocka_unit_test(test_truncations),
		cmocka_unit_test(test_hostile_fields),
		cmocka_unit_test(test_flat),
		cmocka_unit_test(test_firmware),
		cmocka_unit_test(test_protocol_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
