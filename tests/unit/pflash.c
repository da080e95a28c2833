/* The flash chip: commands, and what is stored when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/pflash.h"

#define BASE 0xffc00000ull
#define SIZE 0x4000

static u8 data[SIZE], stored[SIZE];
static unsigned stores;
static int store_result;
static struct bus bus;
static struct pflash flash;

static int store(void *opaque, u64 offset, u64 size)
{
	memcpy(stored + offset, data + offset, size);
	stores++;
	return store_result;
}

static int setup(void **state)
{
	const struct pflash_backend backend = { .data = data, .size = SIZE, .store = store };
	memset(data, 0xff, SIZE);
	memset(stored, 0xff, SIZE);
	memset(&bus, 0, sizeof(bus));
	memset(&flash, 0, sizeof(flash));
	stores = 0;
	store_result = 0;
	return pflash_attach(&flash, &backend, &bus, BASE);
}

static void put(u64 offset, u64 value)
{
	bus_write(&bus, BASE + offset, 1, value, 0);
}

static u8 get(u64 offset)
{
	return (u8)bus_read(&bus, BASE + offset, 1, 0);
}

/* How OVMF finds out what it has before it. */
static void test_detection(void **state)
{
	u8 original = get(0);
	put(0, 0x50);
	assert_int_equal(get(0), original);
	put(0, 0x70);
	assert_int_equal(get(0), 0);
	put(0, 0xff);
	assert_int_equal(get(0), original);
}

static void test_program(void **state)
{
	put(0x10, 0x10);
	put(0x10, 0xa5);
	assert_int_equal(get(0), 0x80);
	assert_int_equal(stores, 1);
	put(0x11, 0x40);
	put(0x11, 0x5a);
	put(0x12, 0x10);
	put(0x12, 0x00);
	assert_int_equal(stores, 1);
	put(0, 0xff);
	assert_int_equal(stores, 2);
	assert_int_equal(bus_read(&bus, BASE + 0x10, 4, 0), 0xff005aa5);
	assert_memory_equal(stored, data, SIZE);
	put(0x10, 0x10); /* bits are only cleared */
	put(0x10, 0x5a);
	put(0, 0xff);
	assert_int_equal(get(0x10), 0);
	put(0, 0xff);
	assert_int_equal(stores, 3);
}

static void test_erase(void **state)
{
	memset(data, 0, SIZE);
	put(0x1234, 0x20);
	put(0x1234, 0xd0);
	assert_int_equal(get(0), 0x80);
	put(0, 0xff);
	assert_int_equal(get(0xfff), 0);
	assert_int_equal(get(0x1000), 0xff);
	assert_int_equal(get(0x1fff), 0xff);
	assert_int_equal(get(0x2000), 0);
	put(0x2000, 0x20); /* not confirmed */
	put(0x2000, 0xff);
	assert_int_equal(get(0), 0xb0);
	put(0, 0x50);
	assert_int_equal(get(0x2000), 0);
}

static void test_failure(void **state)
{
	store_result = -1;
	put(0, 0x10);
	put(0, 0);
	assert_int_equal(get(0), 0x90);
	put(0, 0x50);
	put(0, 0x70);
	assert_int_equal(get(0), 0);
}

static void test_identity(void **state)
{
	put(0, 0x90);
	assert_int_equal(get(0), 0x89);
	assert_int_equal(get(1), 0x18);
	put(0, 0x00);
	assert_int_equal(get(0), 0xff);
}

static void test_reset(void **state)
{
	put(0, 0x10);
	put(0, 0);
	put(0, 0x70);
	pflash_reset(&flash);
	assert_int_equal(get(0), 0);
	assert_int_equal(stored[0], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_detection, setup), cmocka_unit_test_setup(test_program, setup),
		cmocka_unit_test_setup(test_erase, setup),     cmocka_unit_test_setup(test_failure, setup),
		cmocka_unit_test_setup(test_identity, setup),  cmocka_unit_test_setup(test_reset, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
