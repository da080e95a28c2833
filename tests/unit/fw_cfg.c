/* The firmware configuration device against QEMU's docs/specs/fw_cfg.rst. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/fw_cfg.h"
#include "dev/map.h"
#include "lib/bytes.h"

#define MEMORY 0x10000
#define COMMAND 0x1000
#define TARGET 0x2000

static u8 memory[MEMORY] __attribute__((aligned(4096)));
static const u8 hello[] = "hello";
static u8 large[3 << 20];

static struct board {
	struct bus io;
	struct ram ram;
	struct fw_cfg fw;
	unsigned selected;
	u64 copied;
} b;

static void on_select(void *opaque, unsigned key)
{
	((struct board *)opaque)->selected = key;
}

static void on_copied(const void *data, u64 size)
{
	assert_ptr_equal(data, large + b.copied);
	b.copied += size;
}

static int setup(void **state)
{
	memset(&b, 0, sizeof(b));
	memset(memory, 0xcc, sizeof(memory));
	b.fw = (struct fw_cfg){ .selected = on_select, .copied = on_copied, .opaque = &b };
	assert_int_equal(ram_add(&b.ram, 0, MEMORY, memory, false), 0);
	fw_cfg_add_number(&b.fw, FW_CFG_CPUS, 3, 2);
	assert_int_equal(fw_cfg_add_file(&b.fw, "opt/hello", hello, 5), FW_CFG_FILES);
	assert_int_equal(fw_cfg_add_file_number(&b.fw, "etc/number", 0x12345678, 4), FW_CFG_FILES + 1);
	assert_int_equal(fw_cfg_add_file(&b.fw, "large", large, sizeof(large)), FW_CFG_FILES + 2);
	return fw_cfg_attach(&b.fw, &b.io, &b.ram);
}

static int teardown(void **state)
{
	ram_release(&b.ram);
	return 0;
}

static void choose(u16 key)
{
	bus_write(&b.io, PORT_FW_CFG, 2, key, 0);
}

static u8 next(void)
{
	return (u8)bus_read(&b.io, PORT_FW_CFG + 1, 1, 0);
}

static u32 next32(void)
{
	u32 value = 0;
	for (unsigned i = 0; i < 4; i++)
		value |= (u32)next() << (8 * i);
	return value;
}

static void test_ports(void **state)
{
	choose(FW_CFG_SIGNATURE);
	assert_int_equal(next32(), 0x554d4551); /* "QEMU" */
	assert_int_equal(next(), 0); /* the end */
	choose(FW_CFG_SIGNATURE); /* from the beginning again */
	assert_int_equal(next(), 'Q');
	choose(FW_CFG_ID);
	assert_int_equal(next32(), 3);
	choose(FW_CFG_CPUS);
	assert_int_equal(next32(), 3);
	assert_int_equal(b.selected, FW_CFG_CPUS);
	static const u16 absent[] = { FW_CFG_KERNEL_SIZE, FW_CFG_FILES + 3, 0x3fff, 0x4000, 0x8000, 0xffff };
	for (unsigned i = 0; i < ARRAY_SIZE(absent); i++) {
		choose(absent[i]);
		assert_int_equal(next32(), 0);
	}
}

static void test_directory(void **state)
{
	choose(FW_CFG_DIRECTORY);
	assert_int_equal(next32(), __builtin_bswap32(3));
	assert_int_equal(next32(), __builtin_bswap32(5));
	assert_int_equal(next32(), __builtin_bswap16(FW_CFG_FILES));
	char name[FW_CFG_NAME_SIZE];
	for (unsigned i = 0; i < sizeof(name); i++)
		name[i] = (char)next();
	assert_string_equal(name, "opt/hello");
	choose(FW_CFG_FILES);
	assert_int_equal(next(), 'h');
	choose(FW_CFG_FILES + 1);
	assert_int_equal(next32(), 0x12345678);
}

static u32 command(u32 control, u32 length, u64 address)
{
	put_u32(memory + COMMAND, __builtin_bswap32(control));
	put_u32(memory + COMMAND + 4, __builtin_bswap32(length));
	put_u64(memory + COMMAND + 8, __builtin_bswap64(address));
	bus_write(&b.io, PORT_FW_CFG_DMA, 4, 0, 0);
	bus_write(&b.io, PORT_FW_CFG_DMA + 4, 4, __builtin_bswap32(COMMAND), 0);
	return __builtin_bswap32(get_u32(memory + COMMAND));
}

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static void test_transfer(void **state)
{
	assert_int_equal(bus_read(&b.io, PORT_FW_CFG_DMA, 8, 0), __builtin_bswap64(0x51454d5520434647));
	assert_int_equal(command(SELECT | READ | FW_CFG_FILES << 16, 8, TARGET), 0);
	assert_memory_equal(memory + TARGET, "hello\0\0\0\xcc", 9); /* zeroes behind the end */
	assert_int_equal(command(SELECT | SKIP | FW_CFG_FILES << 16, 2, 0), 0);
	assert_int_equal(command(READ, 2, TARGET), 0);
	assert_memory_equal(memory + TARGET, "llllo", 5);
	assert_int_equal(command(SKIP, ~0u, 0), 0);
	assert_int_equal(next(), 0);
	assert_int_equal(command(SELECT | FW_CFG_FILES << 16, 0, 0), 0);
	assert_int_equal(next(), 'h');
	assert_int_equal(command(READ, 0, ~0ull), 0); /* nothing to nowhere */
}

static void test_bad_transfers(void **state)
{
	assert_int_equal(command(SELECT | WRITE | FW_CFG_FILES << 16, 1, TARGET), ERROR);
	assert_int_equal(command(SELECT | READ | FW_CFG_FILES << 16, 5, MEMORY), ERROR);
	assert_int_equal(command(SELECT | READ | FW_CFG_FILES << 16, 5, MEMORY - 2), ERROR);
	assert_int_equal(command(SELECT | READ | FW_CFG_FILES << 16, 5, ~0ull - 1), ERROR);
	assert_int_equal(command(SELECT | READ | FW_CFG_FILES << 16, ~0u, TARGET), ERROR);
	assert_memory_equal(hello, "hello", 5);
	/* A command that is nowhere. */
	bus_write(&b.io, PORT_FW_CFG_DMA, 4, 0xffffffff, 0);
	bus_write(&b.io, PORT_FW_CFG_DMA + 4, 4, 0xffffffff, 0);
}

/* The owner hears of whole MiB that were read. */
static void test_copied(void **state)
{
	choose(FW_CFG_FILES + 2);
	for (unsigned i = 0; i < sizeof(large) / 0x8000; i++) {
		assert_int_equal(command(READ, 0x8000, TARGET), 0);
		assert_int_equal(b.copied, (i + 1) * 0x8000ull >> 20 << 20);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transfer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_transfers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copied, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
