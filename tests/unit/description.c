/* The VM description file: every form of line, and everything that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vm/description.h"

#include <string.h>

static char text[1024];

static void open_text(struct description *d, const char *content)
{
	memset(text, 'x', sizeof(text)); /* no terminator by chance */
	memcpy(text, content, strlen(content));
	description_open(d, text, strlen(content));
}

static void expect(struct description *d, unsigned line, const char *key, const char *value)
{
	struct description_entry entry;
	const char *why = NULL;
	assert_int_equal(description_next(d, &entry, &why), DESCRIPTION_ENTRY);
	assert_int_equal(d->line, line);
	assert_string_equal(entry.key, key);
	if (value)
		assert_string_equal(entry.value, value);
	else
		assert_null(entry.value);
}

static void expect_end(struct description *d)
{
	struct description_entry entry;
	const char *why = NULL;
	assert_int_equal(description_next(d, &entry, &why), DESCRIPTION_END);
	assert_int_equal(description_next(d, &entry, &why), DESCRIPTION_END);
}

static void test_empty(void **state)
{
	static const char *const texts[] = { "", "\n", "\n\n", "# x", "  \t# x\n\r\n", " \t" };
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct description d;
		open_text(&d, texts[i]);
		expect_end(&d);
	}
}

static void test_forms(void **state)
{
	struct description d;
	open_text(&d, "a=b\n"
		      "\t a-1 \t = \t b c \t \n"
		      "\n"
		      "# no = 1\n"
		      "alone\n"
		      "alone  # why\n"
		      "x = a#b # c\r\n"
		      "x = a=b,c=\"d\"\n"
		      "x = \"\"\n"
		      "x = \" a # \\\" \\\\ \"# c\n"
		      "x = \xc3\xa4\n"
		      "last = 1");
	expect(&d, 1, "a", "b");
	expect(&d, 2, "a-1", "b c");
	expect(&d, 5, "alone", NULL);
	expect(&d, 6, "alone", NULL);
	expect(&d, 7, "x", "a#b");
	expect(&d, 8, "x", "a=b,c=\"d\"");
	expect(&d, 9, "x", "");
	expect(&d, 10, "x", " a # \" \\ ");
	expect(&d, 11, "x", "\xc3\xa4");
	expect(&d, 12, "last", "1");
	expect_end(&d);
}

static void test_wrong(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "a b", "KEY = VALUE" },
		{ "a b = c", "KEY = VALUE" },
		{ "= b", "KEY = VALUE" },
		{ "a#b = c", "KEY = VALUE" },
		{ "A = b", "KEY = VALUE" },
		{ "[vm]", "KEY = VALUE" },
		{ "{ \"kernel\": 1 }", "KEY = VALUE" },
		{ "a =", "value is missing" },
		{ "a = # b", "value is missing" },
		{ "a = \"b", "closing" },
		{ "a = \"b\\", "backslash" },
		{ "a = \"b\\n\"", "backslash" },
		{ "a = \"b\" c", "follows" },
		{ "a = b\1", "control" },
		{ "a = b\rc", "control" },
		{ "a = b\r", "control" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct description d;
		struct description_entry entry;
		const char *why = NULL;
		open_text(&d, rows[i].text);
		assert_int_equal(description_next(&d, &entry, &why), DESCRIPTION_WRONG);
		assert_int_equal(d.line, 1);
		if (!strstr(why, rows[i].why))
			print_error("'%s': %s\n", rows[i].text, why);
		assert_non_null(strstr(why, rows[i].why));
	}
}

static void test_zero_byte(void **state)
{
	struct description d;
	struct description_entry entry;
	const char *why;
	memcpy(text, "a = b\0c\n", 8);
	description_open(&d, text, 8);
	assert_int_equal(description_next(&d, &entry, &why), DESCRIPTION_WRONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_zero_byte),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
