/* The SMBIOS tables, walked as a guest walks them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "boot/smbios.h"
#include "lib/bytes.h"

static struct smbios smbios;
static unsigned count[256];
static const u8 *last[256]; /* structure of each type */

/* Find every structure; returns their number. */
static unsigned walk(void)
{
	unsigned structures = 0;
	u32 largest = 0;
	const u8 *p = smbios.tables, *end = smbios.tables + smbios.size;
	memset(count, 0, sizeof(count));
	while (p < end) {
		const u8 *start = p;
		count[*p]++;
		last[*p] = p;
		assert_in_range(p[1], 4, 255);
		p += p[1];
		if (!*p)
			p++; /* no strings: two zeros */
		while (*p)
			p += strlen((const char *)p) + 1;
		p++;
		structures++;
		largest = MAX(largest, (u32)(p - start));
	}
	assert_ptr_equal(p, end);
	assert_int_equal(*last[127], 127);
	assert_int_equal(get_u16(smbios.anchor + 8), largest);
	return structures;
}

static void build(unsigned cpus, u64 memory)
{
	memset(&smbios, 0, sizeof(smbios));
	smbios_build(&smbios, cpus, memory);
	assert_memory_equal(smbios.anchor, "_SM_", 4);
	assert_memory_equal(smbios.anchor + 16, "_DMI_", 5);
	assert_int_equal(get_u16(smbios.anchor + 22), smbios.size);
	assert_int_equal(get_u16(smbios.anchor + 28), walk());
}

static void test_small(void **state)
{
	build(2, 512ull << 20);
	assert_int_equal(count[1], 1);
	assert_int_equal(count[4], 2);
	assert_int_equal(count[19], 1);
	assert_string_equal((const char *)last[1] + last[1][1], "nadir");
	assert_int_equal(last[1][1], 0x1b);
	assert_int_equal(last[3][1], 0x16);
	assert_int_equal(last[4][1], 0x2a);
	assert_int_equal(last[16][1], 0x17);
	assert_int_equal(last[17][1], 0x28);
	assert_int_equal(last[19][1], 0x1f);
	assert_int_equal(last[32][1], 0x0b);
	assert_int_equal(get_u32(last[16] + 7), 512 << 10);
	assert_int_equal(get_u16(last[17] + 12), 512);
	assert_int_equal(get_u32(last[19] + 4), 0);
	assert_int_equal(get_u32(last[19] + 8), (512 << 10) - 1);
}

static void test_large(void **state)
{
	build(64, BIT(43));
	assert_int_equal(count[4], 64);
	assert_int_equal(count[19], 2);
	assert_int_equal(get_u32(last[16] + 7), 0x80000000);
	assert_int_equal(get_u64(last[16] + 15), BIT(43));
	assert_int_equal(get_u16(last[17] + 12), 0x7fff);
	assert_int_equal(get_u32(last[17] + 28), 8 << 20);
	assert_int_equal(get_u32(last[19] + 4), ~0u);
	assert_int_equal(get_u64(last[19] + 15), BIT(32));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_large),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
