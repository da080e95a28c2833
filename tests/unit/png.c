/* PNG files: read back as the specification says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "host/linux/png.h"

static u32 be32(const u8 *p)
{
	return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
}

static const u8 *chunk(const u8 *at, const char *type, u32 *size)
{
	*size = be32(at);
	assert_memory_equal(at + 4, type, 4);
	assert_int_equal(be32(at + 8 + *size), crc32(0, at + 4, *size + 4));
	return at + 12 + *size;
}

static void check(const u32 *pixel, unsigned width, unsigned height)
{
	size_t size;
	u32 n, line = 3 * width + 1;
	u8 *file = png_encode(pixel, width, height, &size), *raw = calloc(line, height);
	uLongf raw_size = (uLongf)line * height;
	assert_non_null(file);
	assert_memory_equal(file, "\x89PNG\r\n\x1a\n", 8);
	const u8 *data = chunk(file + 8, "IHDR", &n);
	assert_int_equal(be32(file + 16), width);
	assert_int_equal(be32(file + 20), height);
	assert_memory_equal(file + 24, "\x08\x02\0\0\0", 5);
	const u8 *end = chunk(data, "IDAT", &n);
	assert_int_equal(uncompress(raw, &raw_size, data + 8, n), Z_OK);
	assert_int_equal(raw_size, line * height);
	assert_ptr_equal(chunk(end, "IEND", &n), file + size);
	for (unsigned y = 0; y < height; y++) {
		assert_int_equal(raw[y * line], 2);
		for (unsigned i = 1; i < line; i++) {
			raw[y * line + i] += y ? raw[(y - 1) * line + i] : 0;
			assert_int_equal(raw[y * line + i], pixel[y * width + (i - 1) / 3] >> (16 - 8 * ((i - 1) % 3)) & 0xff);
		}
	}
	free(file);
	free(raw);
}

static void test_pictures(void **state)
{
	static u32 pixel[300 * 200];
	check(pixel, 1, 1);
	check(pixel, 300, 200);
	for (u32 i = 0; i < ARRAY_SIZE(pixel); i++)
		pixel[i] = i * 0x9e3779b1u;
	check(pixel, 300, 200);
	check(pixel, 7, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_pictures) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
