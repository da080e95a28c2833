/* RFB, the server's side: handshakes, requests, keys, pictures in both encodings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "host/linux/rfb.h"

static struct rfb rfb;
static char heard[256];

static void on_key(void *opaque, u16 code, bool down)
{
	size_t n = strlen(heard);
	snprintf(heard + n, sizeof(heard) - n, "%x%c ", code, down ? '+' : '-');
}

static void on_pointer(void *opaque, u16 x, u16 y, u8 buttons)
{
	size_t n = strlen(heard);
	snprintf(heard + n, sizeof(heard) - n, "%u,%u,%u ", x, y, buttons);
}

static const struct rfb_events events = { .key = on_key, .pointer = on_pointer };

#define SAY(bytes) rfb_take(&rfb, (const u8 *)(bytes), sizeof(bytes) - 1)

/* What it sent since the last time. */
static const u8 *sent(size_t *size)
{
	const u8 *at = rfb.out + rfb.out_sent;
	*size = rfb.out_used - rfb.out_sent;
	rfb.out_sent = rfb.out_used;
	return at;
}

static void expect(const void *bytes, size_t size)
{
	size_t n;
	const u8 *at = sent(&n);
	assert_int_equal(n, size);
	assert_memory_equal(at, bytes, size);
}
#define EXPECT(bytes) expect(bytes, sizeof(bytes) - 1)

static int setup(void **state)
{
	heard[0] = 0;
	rfb_init(&rfb, &events, 130, 70);
	return 0;
}

static int teardown(void **state)
{
	rfb_release(&rfb);
	return 0;
}

static void greet(void)
{
	size_t n;
	assert_true(SAY("RFB 003.008\n\x01\x01"));
	sent(&n);
}

static void test_handshake(void **state)
{
	EXPECT("RFB 003.008\n");
	for (const char *p = "RFB 003.008\n"; *p; p++)
		assert_true(rfb_take(&rfb, (const u8 *)p, 1));
	EXPECT("\x01\x01");
	assert_true(SAY("\x01"));
	EXPECT("\0\0\0\0");
	assert_true(SAY("\x01"));
	EXPECT("\0\x82\0\x46\x20\x18\0\x01\0\xff\0\xff\0\xff\x10\x08\0\0\0\0\0\0\0\x05nadir");
}

static void test_old_versions(void **state)
{
	size_t n;
	sent(&n);
	assert_true(SAY("RFB 003.003\n"));
	EXPECT("\0\0\0\x01");
	assert_true(SAY("\x01"));
	assert_int_equal(rfb.stage, RFB_NORMAL);
	rfb_release(&rfb);
	rfb_init(&rfb, &events, 8, 8);
	sent(&n);
	assert_true(SAY("RFB 003.007\n"));
	EXPECT("\x01\x01");
	assert_true(SAY("\x01"));
	sent(&n);
	assert_int_equal(n, 0);
}

static const char *password;
static unsigned refusals;

static void on_random(void *opaque, u8 *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (u8)i;
}

static void on_refused(void *opaque)
{
	refusals++;
}

/* Begin anew, with a password, as a client of this version that has greeted. */
static void setup_password(const char *version)
{
	static struct rfb_events asking;
	size_t n;
	asking = (struct rfb_events){ .key = on_key, .pointer = on_pointer, .password = password, .random = on_random, .refused = on_refused };
	rfb_release(&rfb);
	rfb_init(&rfb, &asking, 130, 70);
	sent(&n);
	assert_true(rfb_take(&rfb, (const u8 *)version, 12));
}

/* What OpenSSL's des-ecb makes of the challenge with the keys 8646c636ee2e1e00 ("abclwtx") and ce4e4e4ece4e4e4e ("srrrsrrr"). */
#define CHALLENGE "\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
#define RESPONSE_1 "\055\260\022\274\352\274\306\222\254\021\353\342\177\163\313\125"
#define RESPONSE_2 "\050\102\107\364\176\250\115\141\273\326\122\324\300\234\231\020"

static void test_password(void **state)
{
	password = "abclwtx";
	setup_password("RFB 003.008\n");
	EXPECT("\x01\x02");
	assert_true(SAY("\x02"));
	EXPECT(CHALLENGE);
	assert_true(SAY(RESPONSE_1));
	EXPECT("\0\0\0\0");
	assert_int_equal(rfb.stage, RFB_INIT);
	password = "srrrsrrr";
	setup_password("RFB 003.003\n");
	EXPECT("\0\0\0\x02" CHALLENGE);
	assert_true(SAY(RESPONSE_2));
	EXPECT("\0\0\0\0");
	assert_int_equal(refusals, 0);
}

static void test_wrong_password(void **state)
{
	password = "abclwtx";
	setup_password("RFB 003.008\n");
	assert_false(SAY("\x01")); /* it is not to be gone round */
	setup_password("RFB 003.008\n");
	assert_true(SAY("\x02"));
	EXPECT("\x01\x02" CHALLENGE);
	assert_false(SAY(RESPONSE_2));
	EXPECT("\0\0\0\x01\0\0\0\x0ewrong password");
	assert_int_equal(refusals, 1);
	setup_password("RFB 003.007\n");
	assert_true(SAY("\x02"));
	EXPECT("\x01\x02" CHALLENGE);
	assert_false(SAY(CHALLENGE));
	EXPECT("\0\0\0\x01");
	assert_int_equal(refusals, 2);
	assert_false(rfb.stage > RFB_PASSWORD);
}

static void test_refused(void **state)
{
	assert_false(SAY("GET / HTTP/1.1\r\n"));
	teardown(NULL);
	setup(NULL);
	assert_false(SAY("RFB 003.008\n\x02"));
	static const char *const bad[] = { "\x01", "\x07", "\xff\x01" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		teardown(NULL);
		setup(NULL);
		greet();
		assert_false(rfb_take(&rfb, (const u8 *)bad[i], strlen(bad[i])));
	}
	teardown(NULL);
	setup(NULL);
	greet();
	assert_false(SAY("\x02\0\xff\xff")); /* more encodings than there are */
	teardown(NULL);
	setup(NULL);
	greet();
	assert_false(SAY("\0\0\0\0\x20\x18\0\x01\0\xff\0\xff\0\xff\x20\x08\0\0\0\0")); /* a shift out of the pixel */
}

static void test_input(void **state)
{
	greet();
	assert_true(SAY("\x04\x01\0\0\0\0\0a\x04\0\0\0\0\0\0a"));
	assert_true(SAY("\x04\x01\0\0\0\0\xff\x53")); /* the right arrow */
	assert_true(SAY("\x04\x01\0\0\0\0\x12\x34")); /* no key */
	assert_true(SAY("\xff\0\0\x01\0\0\0\0\0\0\0\xcb\xff\0\0\0\0\0\0\0\0\0\0\x1e"));
	assert_true(SAY("\x05\x05\0\x07\x01\0"));
	assert_string_equal(heard, "1e+ 1e- e04d+ e04b+ 1e- 7,256,5 ");
	/* Text that was cut is passed over, however long. */
	assert_true(SAY("\x06\0\0\0\0\0\0\x03xyz\x05\0\0\0\0\0"));
	assert_string_equal(heard, "1e+ 1e- e04d+ e04b+ 1e- 7,256,5 0,0,0 ");
}

static void test_symbols(void **state)
{
	static const struct {
		u32 symbol;
		u16 code;
	} rows[] = { { '1', 2 }, { '=', 0x0d }, { 'q', 0x10 }, { ']', 0x1b }, { 'A', 0x1e }, { '`', 0x29 }, { '~', 0x29 }, { '\\', 0x2b }, { 'z', 0x2c },
		     { '/', 0x35 }, { '?', 0x35 }, { '*', 9 }, { ' ', 0x39 }, { 0xff0d, 0x1c }, { 0xffe9, 0x38 }, { 0, 0 }, { 7, 0 }, { 0xffffffff, 0 } };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(rfb_key_code(rows[i].symbol), rows[i].code);
}

/* ---- pictures ---- */

static u32 pixel[130 * 70];
static const struct rfb_picture picture = { pixel, 130, 70 };

static void test_raw(void **state)
{
	size_t n;
	greet();
	assert_true(rfb_update(&rfb, &picture)); /* nobody asked */
	sent(&n);
	assert_int_equal(n, 0);
	assert_true(SAY("\x02\0\0\x01\0\0\0\0\x03\0\0\0\0\0\0\x82\0\x46"));
	pixel[0] = 0x123456;
	assert_true(rfb_update(&rfb, &picture));
	const u8 *at = sent(&n);
	assert_int_equal(n, 4 + 6 * 12 + 4 * sizeof(pixel) / sizeof(pixel[0]));
	assert_memory_equal(at, "\0\0\0\x06\0\0\0\0\0\x40\0\x40\0\0\0\0\x56\x34\x12\0", 20);
	/* Nothing has changed: the request waits. */
	assert_true(SAY("\x03\x01\0\0\0\0\0\x82\0\x46"));
	assert_true(rfb_update(&rfb, &picture));
	sent(&n);
	assert_int_equal(n, 0);
	assert_true(rfb.wants);
	pixel[69 * 130 + 129] = 0xffffff; /* in the last tile, of 2 x 6 */
	assert_true(rfb_update(&rfb, &picture));
	at = sent(&n);
	assert_int_equal(n, 4 + 12 + 4 * 12);
	assert_memory_equal(at, "\0\0\0\x01\0\x80\0\x40\0\x02\0\x06\0\0\0\0", 16);
	assert_false(rfb.wants);
}

static void test_format(void **state)
{
	size_t n;
	greet();
	/* 16 bits, big-endian, 5-6-5 */
	assert_true(SAY("\0\0\0\0\x10\x10\x01\x01\0\x1f\0\x3f\0\x1f\x0b\x05\0\0\0\0\x03\0\0\0\0\0\0\x82\0\x46"));
	pixel[0] = 0xff0000;
	assert_true(rfb_update(&rfb, &picture));
	const u8 *at = sent(&n);
	assert_memory_equal(at + 16, "\xf8\0", 2);
	assert_int_equal(n, 4 + 6 * 12 + 2 * sizeof(pixel) / sizeof(pixel[0]));
}

static void test_zrle(void **state)
{
	static u8 tile[20000];
	z_stream z = { 0 };
	size_t n;
	inflateInit(&z);
	greet();
	memset(pixel, 0, sizeof(pixel));
	pixel[1] = 0x123456;
	assert_true(SAY("\x02\0\0\x01\0\0\0\x10\x03\0\0\0\0\0\0\x82\0\x46"));
	assert_true(rfb_update(&rfb, &picture));
	const u8 *at = sent(&n), *end = at + n;
	at += 4;
	for (unsigned i = 0; i < 6; i++) {
		u32 size = (u32)at[12] << 24 | (u32)at[13] << 16 | (u32)at[14] << 8 | at[15];
		assert_memory_equal(at + 8, "\0\0\0\x10", 4);
		z.next_in = (u8 *)(uintptr_t)at + 16;
		z.avail_in = size;
		z.next_out = tile;
		z.avail_out = sizeof(tile);
		assert_int_equal(inflate(&z, Z_SYNC_FLUSH), Z_OK);
		assert_int_equal(sizeof(tile) - z.avail_out, i ? 4 : 1 + 3 * 64 * 64);
		assert_int_equal(tile[0], i ? 1 : 0);
		if (!i)
			assert_memory_equal(tile + 1, "\0\0\0\x56\x34\x12\0", 7);
		at += 16 + size;
	}
	assert_ptr_equal(at, end);
	inflateEnd(&z);
}

static void test_resize(void **state)
{
	const struct rfb_picture larger = { calloc(200 * 100, 4), 200, 100 };
	size_t n;
	greet();
	assert_true(SAY("\x03\0\0\0\0\0\0\x82\0\x46"));
	assert_true(rfb_update(&rfb, &larger)); /* the client cannot: it sees what fits */
	sent(&n);
	assert_int_equal(rfb.width, 130);
	assert_true(SAY("\x02\0\0\x02\0\0\0\0\xff\xff\xff\x21\x03\x01\0\0\0\0\0\x82\0\x46"));
	assert_true(rfb_update(&rfb, &larger));
	EXPECT("\0\0\0\x01\0\0\0\0\0\xc8\0\x64\xff\xff\xff\x21");
	assert_true(SAY("\x03\x01\0\0\0\0\0\xc8\0\x64"));
	assert_true(rfb_update(&rfb, &larger)); /* all of it, though only changes were asked for */
	sent(&n);
	assert_int_equal(n, 4 + 8 * 12 + 4 * 200 * 100);
	free((void *)(uintptr_t)larger.pixel);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = { TEST(test_handshake), TEST(test_old_versions), TEST(test_password), TEST(test_wrong_password), TEST(test_refused), TEST(test_input), TEST(test_symbols),
					    TEST(test_raw), TEST(test_format), TEST(test_zrle), TEST(test_resize) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
