/* Options of the bare machine: keys of a description, the command line, and what is said about wrong ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/hw/features.h"
#include "host/metal/options.h"

#include <stdio.h>
#include <string.h>

static struct guest_options options;
static char text[1024], error[256];

static bool read_file(const char *content)
{
	options_init(&options);
	snprintf(text, sizeof(text), "%s", content);
	return options_read_file(&options, "one.vm", text, strlen(content), error, sizeof(error));
}

static bool read_line(const char *content)
{
	options_init(&options);
	snprintf(text, sizeof(text), "%s", content);
	return options_read_line(&options, text, error, sizeof(error));
}

static void test_defaults(void **state)
{
	options_init(&options);
	assert_null(options.kernel);
	assert_int_equal(options.memory, 64 << 20);
	assert_int_equal(options.cpus, 1);
	assert_int_equal(options.weight, 100);
	assert_string_equal(options.engine, "auto");
	assert_string_equal(options.end, "halt");
}

static void test_file(void **state)
{
	assert_true(read_file("kernel = k\nappend = \"a b\"\nmemory = 1G\ncpus = 4\nno-reboot\nstats = off\n"));
	assert_string_equal(options.kernel, "k");
	assert_string_equal(options.append, "a b");
	assert_int_equal(options.memory, 1 << 30);
	assert_int_equal(options.cpus, 4);
	assert_true(options.no_reboot);
	assert_false(options.stats);
}

static void test_line(void **state)
{
	assert_true(read_line("  --engine step --debug-exit --append=\"a \\\" b\"  --weight 50"));
	assert_string_equal(options.engine, "step");
	assert_true(options.debug_exit);
	assert_string_equal(options.append, "a \" b");
	assert_int_equal(options.weight, 50);
	assert_true(read_line(""));
	assert_true(read_line("--stats=off"));
}

static void test_cpu_list(void **state)
{
	static const struct {
		const char *text;
		u64 mask;
	} good[] = { { "0", 1 }, { "0-1,3", 11 }, { "63", 1ull << 63 }, { "0-63", ~0ull }, { "2,2-2", 4 } };
	static const char *const bad[] = { "", "64", "1-0", "x", "1,", ",1", "1-", "-1", "1 2", "0-64", "99999999999999999999" };
	u64 mask;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(options_cpu_list(good[i].text, &mask));
		assert_int_equal(mask, good[i].mask);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(options_cpu_list(bad[i], &mask));
	assert_true(read_file("pin = 0,2\ncap = 150\n"));
	assert_string_equal(options.pin, "0,2");
	assert_int_equal(options.cap, 150);
	assert_false(read_file("pin = 0,x\n"));
	assert_string_equal(error, "one.vm:1: pin: '0,x' is not a list of CPUs, such as 0-1,3");
}

static void test_techniques(void **state)
{
	static const char *const bad[] = { "", "x", "vpid,", ",vpid", "vpi", "vpidx", "vpid vpid" };
	u64 set;
	assert_true(hw_techniques_read("tpr-shadow", &set));
	assert_int_equal(set, BIT(HW_TPR_SHADOW));
	assert_true(hw_techniques_read("pause-filter,vpid,vpid", &set));
	assert_int_equal(set, BIT(HW_PAUSE_FILTER) | BIT(HW_VPID));
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(hw_techniques_read(bad[i], &set));
	assert_true(read_file("without = virtual-tpr,posted\n"));
	assert_string_equal(options.without, "virtual-tpr,posted");
	assert_false(read_file("without = ept\n"));
	assert_string_equal(error, "one.vm:1: without: 'ept' is not a list of techniques, such as vpid,tpr-shadow");
}

static void test_wrong(void **state)
{
	static const struct {
		const char *file, *says;
	} files[] = {
		{ "x = 1\n", "one.vm:1: there is no key 'x' on the bare machine" },
		{ "\ncpus = 0\n", "one.vm:2: cpus: '0' is not a number from 1 to 64" },
		{ "kernel\n", "one.vm:1: kernel needs a value" },
		{ "stats = maybe\n", "one.vm:1: stats: 'maybe' is not on or off" },
		{ "end = never\n", "one.vm:1: end: 'never' is not one of" },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		assert_false(read_file(files[i].file));
		assert_memory_equal(error, files[i].says, strlen(files[i].says));
	}
	static const char *const lines[] = { "word", "--engine", "--cpus=x", "--", "--=", "-v", "--stats=1", "--append" };
	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
		assert_false(read_line(lines[i]));
		assert_memory_equal(error, "command line: ", 14);
	}
	assert_true(read_line("--append \"never closed"));
	assert_string_equal(options.append, "never closed");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_line),
		cmocka_unit_test(test_cpu_list),
		cmocka_unit_test(test_techniques),
		cmocka_unit_test(test_wrong),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
