/* Formatted text of the bare machine, beside the C library's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/types.h"
#include "host/metal/print.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static int print(char *buffer, size_t size, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = print_format(buffer, size, format, args);
	va_end(args);
	return n;
}

/* In buffers of every size: the same bytes, and the same length. */
#define SAME(...)                                                                                                      \
	do {                                                                                                           \
		for (size_t size = 0; size < 100; size++) {                                                            \
			char ours[100], theirs[100];                                                                   \
			memset(ours, 'x', sizeof(ours));                                                               \
			memset(theirs, 'x', sizeof(theirs));                                                           \
			assert_int_equal(print(ours, size, __VA_ARGS__), snprintf(theirs, size, __VA_ARGS__));         \
			assert_memory_equal(ours, theirs, sizeof(ours));                                               \
		}                                                                                                      \
	} while (0)

#pragma GCC diagnostic ignored "-Wformat-truncation"

static void test_numbers(void **state)
{
	static const int values[] = { 0, 1, -1, 9, 10, -10, INT_MAX, INT_MIN };
	for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
		int v = values[i];
		SAME("%d|%5d|%-5d|%05d|%.3d|%8.3d|%-8.3d|", v, v, v, v, v, v, v);
		SAME("%u|%x|%12u|%-12x|%012x|%i", (unsigned)v, (unsigned)v, (unsigned)v, (unsigned)v, (unsigned)v, v);
	}
	static const long wide[] = { 0, -1, LONG_MAX, LONG_MIN };
	for (unsigned i = 0; i < ARRAY_SIZE(wide); i++) {
		SAME("%ld %lu %lx %zu", wide[i], (unsigned long)wide[i], (unsigned long)wide[i], (size_t)wide[i]);
		SAME("%lld %llu %016llx", (long long)wide[i], (unsigned long long)wide[i], (unsigned long long)wide[i]);
	}
	SAME("%#x %p", 0x1234u, (void *)0x1234);
	SAME("%*d %-*d %*d", 6, 42, 6, 42, -6, 42);
}

static void test_texts(void **state)
{
	SAME("%s %10s %-10s| %.2s %5.1s %%", "abc", "abc", "abc", "abc", "abc");
	SAME("%c%3c%-3c|", 'a', 'b', 'c');
	SAME("%.*s|%*s", 2, "abcdef", 5, "x");
	SAME("plain");
	char text[10];
	assert_int_equal(print(text, sizeof(text), "%s", (const char *)NULL), 6);
	assert_string_equal(text, "(null)");
}

/* A format that ends in the middle, and widths that are too large to count. */
static void test_odd(void **state)
{
	char text[16];
	static const char *const formats[] = { "a%", "a%5", "a%-", "a%.", "a%l", "a%0" };
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
		assert_int_equal(print(text, sizeof(text), formats[i]), 1);
		assert_string_equal(text, "a");
	}
	assert_true(print(text, sizeof(text), "%99999999999d", 1) >= 16);
	assert_true(print(text, sizeof(text), "%.99999999999d", 1) >= 16);
	assert_true(print(text, sizeof(text), "%*d", INT_MIN, 1) >= 16);
	assert_int_equal(strlen(text), 15);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_odd),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
