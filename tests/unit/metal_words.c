/* Options made of words on the bare machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/metal/words.h"

#include <stdio.h>
#include <string.h>

struct wishes {
	const char *path, *bus;
	bool readonly;
};

static const struct word_key keys[] = {
	{ "path", false, offsetof(struct wishes, path) },
	{ "bus", false, offsetof(struct wishes, bus) },
	{ "readonly", true, offsetof(struct wishes, readonly) },
};

static struct wishes wishes;
static char text[128], error[128];

static bool read_words(const char *words)
{
	memset(&wishes, 0, sizeof(wishes));
	snprintf(text, sizeof(text), "%s", words);
	return words_read(text, keys, ARRAY_SIZE(keys), &wishes, "disk", error, sizeof(error));
}

static void test_good(void **state)
{
	assert_true(read_words("path=a=b.img,readonly=on,bus=sata"));
	assert_string_equal(wishes.path, "a=b.img");
	assert_string_equal(wishes.bus, "sata");
	assert_true(wishes.readonly);
	assert_true(read_words("readonly=on,readonly=off"));
	assert_false(wishes.readonly);
}

static void test_bad(void **state)
{
	static const struct {
		const char *words, *says;
	} bad[] = {
		{ "", "disk: '' is not of the form KEY=VALUE" },
		{ "path", "disk: 'path' is not of the form KEY=VALUE" },
		{ "path=", "disk: 'path' is not of the form KEY=VALUE" },
		{ "path=a,", "disk: '' is not of the form KEY=VALUE" },
		{ "cache=none", "disk: there is no key 'cache' on the bare machine" },
		{ "readonly=1", "disk: readonly: '1' is not on or off" },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(read_words(bad[i].words));
		assert_string_equal(error, bad[i].says);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_good), cmocka_unit_test(test_bad) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
