/* The command line of `nadir run`: every option, every kind of bad value, and that each is told in one sentence. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/options.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARGUMENTS_MAX 8

static char said[1024]; /* on stderr, by the last parse */

/* Parse the words of `line`, separated by blanks; `_` stands for a blank within a word, `~` for an empty word. */
static int parse(struct run_options *options, const char *line)
{
	static char words[1024];
	char *argv[ARGUMENTS_MAX + 2] = { (char *)"run" };
	int argc = 1;
	snprintf(words, sizeof(words), "%s", line);
	for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) {
		assert_true(argc <= ARGUMENTS_MAX);
		for (char *c = word; *c; c++)
			*c = *c == '_' ? ' ' : *c;
		argv[argc++] = strcmp(word, "~") ? word : (char *)"";
	}
	int fd = memfd_create("stderr", 0), saved = dup(STDERR_FILENO);
	fflush(stderr);
	dup2(fd, STDERR_FILENO);
	int result = options_parse(options, argc, argv);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	ssize_t n = pread(fd, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = 0;
	close(fd);
	return result;
}

static struct run_options good(const char *line)
{
	struct run_options o;
	int result = parse(&o, line);
	if (result)
		print_error("'%s' was refused: %s", line, said);
	assert_int_equal(result, 0);
	assert_string_equal(said, "");
	return o;
}

/* Refused, with exactly one line on stderr that begins with "nadir: " and contains `word`. */
static void bad(const char *line, const char *word)
{
	struct run_options o;
	int result = parse(&o, line);
	size_t length = strcspn(said, "\n");
	bool one_line = said[length] && !said[length + 1];
	bool good_words = !strncmp(said, "nadir: ", 7) && strstr(said, word);
	if (result != -1 || !one_line || !good_words)
		print_error("'%s' gave %d and said: %s", line, result, said);
	assert_int_equal(result, -1);
	assert_true(one_line);
	assert_true(good_words);
}

static void test_presets(void **state)
{
	struct run_options o = good("");
	assert_null(o.kernel);
	assert_null(o.initrd);
	assert_null(o.trace);
	assert_null(o.log_file);
	assert_null(o.debug_console);
	assert_string_equal(o.append, "console=ttyS0");
	assert_string_equal(o.protocol, "auto");
	assert_string_equal(o.cpu, "host");
	assert_string_equal(o.engine, "auto");
	assert_string_equal(o.serial, "stdio");
	assert_string_equal(o.on_crash, "report");
	assert_string_equal(o.log_level, "warn");
	assert_string_equal(o.sandbox, "on");
	assert_int_equal(o.memory, 512ull << 20);
	assert_int_equal(o.cpus, 1);
	assert_int_equal(o.hang_timeout, 30);
	assert_false(o.debug_exit || o.no_reboot || o.stats || o.json || o.help);
}

static void test_texts(void **state)
{
	static const struct {
		const char *option;
		size_t field;
		const char *value;
	} rows[] = {
		{ "--kernel", offsetof(struct run_options, kernel), "k" },
		{ "-k", offsetof(struct run_options, kernel), "k2" },
		{ "--initrd", offsetof(struct run_options, initrd), "i" },
		{ "-i", offsetof(struct run_options, initrd), "i2" },
		{ "--append", offsetof(struct run_options, append), "a=b" },
		{ "-a", offsetof(struct run_options, append), "-dash" },
		{ "--protocol", offsetof(struct run_options, protocol), "multiboot2" },
		{ "--protocol", offsetof(struct run_options, protocol), "flat" },
		{ "--cpu", offsetof(struct run_options, cpu), "x86-64-v2,-avx" },
		{ "--engine", offsetof(struct run_options, engine), "step" },
		{ "-e", offsetof(struct run_options, engine), "auto" },
		{ "--serial", offsetof(struct run_options, serial), "file:x" },
		{ "-s", offsetof(struct run_options, serial), "none" },
		{ "--debug-console", offsetof(struct run_options, debug_console), "stdio" },
		{ "--on-crash", offsetof(struct run_options, on_crash), "debug" },
		{ "--trace", offsetof(struct run_options, trace), "io,msr" },
		{ "-t", offsetof(struct run_options, trace), "exits" },
		{ "--log-level", offsetof(struct run_options, log_level), "debug" },
		{ "--log-file", offsetof(struct run_options, log_file), "/tmp/log" },
		{ "--sandbox", offsetof(struct run_options, sandbox), "off" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char line[128];
		snprintf(line, sizeof(line), "%s %s", rows[i].option, rows[i].value);
		struct run_options o = good(line);
		assert_string_equal(*(const char **)((char *)&o + rows[i].field), rows[i].value);
	}
}

static void test_flags(void **state)
{
	assert_true(good("--debug-exit").debug_exit);
	assert_true(good("--no-reboot").no_reboot);
	assert_true(good("--stats").stats);
	assert_true(good("--json").json);
	assert_true(good("--help").help);
	assert_true(good("-h").help);
	struct run_options o = good("--stats --json --no-reboot -k x");
	assert_true(o.stats && o.json && o.no_reboot);
	assert_string_equal(o.kernel, "x");
}

static void test_forms(void **state)
{
	assert_string_equal(good("--kernel=a=b").kernel, "a=b");
	assert_string_equal(good("-ka").kernel, "a");
	assert_string_equal(good("--append ~").append, "");
	assert_string_equal(good("--append one_two").append, "one two");
	assert_string_equal(good("--mem 1G --kern x").kernel, "x"); /* an abbreviation that names one option */
	assert_int_equal(good("--memory 1G --memory 2G").memory, 2ull << 30); /* the last one wins */
	assert_int_equal(good("-hm 64M").memory, 64ull << 20);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		u64 size;
	} rows[] = {
		{ "1M", 1ull << 20 },      { "1m", 1ull << 20 },       { "1MB", 1ull << 20 },
		{ "1MiB", 1ull << 20 },    { "1mib", 1ull << 20 },     { "1024K", 1ull << 20 },
		{ "1048576", 1ull << 20 }, { "1048576B", 1ull << 20 }, { "0x100000", 1ull << 20 },
		{ "0x1M", 1ull << 20 },    { "4G", 4ull << 30 },       { "1T", 1ull << 40 },
		{ "1024g", 1ull << 40 },   { "0010M", 10ull << 20 },   { "1099511627776", 1ull << 40 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char line[64];
		snprintf(line, sizeof(line), "--memory %s", rows[i].text);
		assert_int_equal(good(line).memory, rows[i].size);
	}
}

static void test_bad_sizes(void **state)
{
	static const char *const texts[] = {
		"~",
		"0",
		"M",
		"-1M",
		"+1M",
		"_1M",
		"1M_",
		"1.5G",
		"1X",
		"1MM",
		"1BB",
		"1MiX",
		"1iB",
		"1_M",
		"1023K",
		"512",
		"1048575",
		"2T",
		"1025G",
		"1P",
		"0x",
		"0xM",
		"nan",
		"1e9",
		"99999999999999999999",
		"18446744073709551615",
		"18446744073709551615T",
		"16777216T",
		"17592186044417M",
		"--",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		char line[64];
		snprintf(line, sizeof(line), "--memory %s", texts[i]);
		bad(line, "--memory");
	}
}

static void test_numbers(void **state)
{
	assert_int_equal(good("--cpus 1").cpus, 1);
	assert_int_equal(good("-c 64").cpus, 64);
	assert_int_equal(good("-c 010").cpus, 10);
	assert_int_equal(good("-c 0x10").cpus, 16);
	assert_int_equal(good("--hang-timeout 0").hang_timeout, 0);
	assert_int_equal(good("--hang-timeout 86400").hang_timeout, 86400);
	static const char *const texts[] = {
		"0", "65", "-1", "1K", "1B", "two", "~", "1_", "_-18446744073709551615", "18446744073709551617"
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		char line[64];
		snprintf(line, sizeof(line), "--cpus %s", texts[i]);
		bad(line, "a number from 1 to 64");
	}
	bad("--hang-timeout 86401", "--hang-timeout");
}

static void test_bad_choices(void **state)
{
	static const char *const options[] = { "--protocol", "--engine", "--on-crash", "--log-level", "--sandbox" };
	static const char *const texts[] = { "~",     "|",   "bogus", "AUTO",   "auto|step", "auto|",
					     "|auto", "aut", "autoo", "on|off", "error|warn" };
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		for (size_t j = 0; j < ARRAY_SIZE(texts); j++) {
			char line[64];
			snprintf(line, sizeof(line), "%s %s", options[i], texts[j]);
			bad(line, "one of ");
		}
}

static void test_bad_options(void **state)
{
	bad("--bogus", "no option --bogus");
	bad("--bogus=1", "no option --bogus=1");
	bad("-z", "no option -z");
	bad("-hz", "no option -z");
	bad("-", "'-' cannot be read");
	bad("--debug", "--debug"); /* of --debug-console and --debug-exit */
	bad("--stats=1", "--stats takes no argument");
	bad("--kernel", "option --kernel needs an argument");
	bad("-k", "option -k needs an argument");
	bad("-hk", "option -k needs an argument");
	bad("--stats kernel stray", "unexpected argument 'stray'");
	bad("-- --stats", "'--stats' cannot be read as the description of a VM: No such file");
	bad("~", "'' cannot be read");
}

/* ---- the description file ---- */

static char path[64];

/* Write it: the line with its path in front. */
static const char *with_file(const char *text, const char *line)
{
	static char words[256];
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	snprintf(words, sizeof(words), "%s %s", path, line);
	return words;
}

static void test_file(void **state)
{
	struct run_options o = good(with_file("# a machine\n"
					      "kernel = vmlinuz\n"
					      "append=\"a  b # c\"   # quoted\n"
					      "\n"
					      "memory = 1G\r\n"
					      "disk = path=a\n"
					      "disk = path=b,readonly=on\n"
					      "no-reboot\n"
					      "stats = on\n"
					      "json = off\n",
					      "--memory 2G --disk path=c --kernel other"));
	assert_string_equal(o.kernel, "other");
	assert_string_equal(o.append, "a  b # c");
	assert_int_equal(o.memory, 2ull << 30);
	assert_int_equal(o.disk.count, 3);
	assert_string_equal(o.disk.item[1], "path=b,readonly=on");
	assert_string_equal(o.disk.item[2], "path=c");
	assert_true(o.no_reboot && o.stats && !o.json);
	assert_string_equal(o.engine, "auto");
	options_release(&o);
}

static void test_bad_files(void **state)
{
	static const struct {
		const char *text, *words;
	} rows[] = {
		{ "kernel = a\n\nmemory = lots\n", ":3: memory: 'lots' is not a size" },
		{ "cpus 2\n", ":1: this is not KEY = VALUE" },
		{ "--cpus = 2\n", ":1: there is no key '--cpus'" },
		{ "memroy = 1G\n", ":1: there is no key 'memroy'" },
		{ "help\n", ":1: there is no key 'help'" },
		{ "kernel\n", ":1: kernel needs a value; write kernel = FILE" },
		{ "kernel =\n", ":1: a value is missing" },
		{ "stats = yes\n", ":1: stats: 'yes' is not on or off" },
		{ "append = \"a\n", ":1: a closing \" is missing" },
		{ "engine = warp", ":1: engine: 'warp' is not one of" },
		{ "\x7f" "ELF\1\2\n", ":1: there is a control character" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		bad(with_file(rows[i].text, ""), rows[i].words);
	bad("/tmp", "it is not a file of 1 MiB at most");
	bad("/dev/zero", "it is not a file of 1 MiB at most");
}

static void test_help(void **state)
{
	char text[8192];
	FILE *out = fmemopen(text, sizeof(text), "w");
	options_help(out);
	fclose(out);
	static const char *const words[] = { "-k, --kernel FILE", "    --sandbox on|off", "[512M]", "--no-reboot\n" };
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		assert_non_null(strstr(text, words[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_presets), cmocka_unit_test(test_texts),       cmocka_unit_test(test_flags),
		cmocka_unit_test(test_forms),   cmocka_unit_test(test_sizes),       cmocka_unit_test(test_bad_sizes),
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_bad_choices), cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_help),    cmocka_unit_test(test_file),        cmocka_unit_test(test_bad_files),
	};
	snprintf(path, sizeof(path), "/tmp/nadir-unit-options.%d", (int)getpid());
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return failed;
}
