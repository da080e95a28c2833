/* What is believed about an added device: a sealed file, of one line, of the right option. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/device_text.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALL (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static void made_ones_are_read(void **state)
{
	assert_int_equal(chdir("/"), 0);
	int file = device_text_make("disk", "path=a,readonly=on");
	assert_true(file >= 0);
	char *text = device_text_read(file, "disk");
	assert_string_equal(text, "path=//a,readonly=on");
	free(text);
	assert_null(device_text_read(file, "net"));
	assert_null(device_text_read(file, "dis"));
	assert_int_equal(pwrite(file, "x", 1, 0), -1);
	close(file);
}

static int make(const char *text, size_t size, int seals)
{
	int file = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(write(file, text, size), size);
	assert_int_equal(fcntl(file, F_ADD_SEALS, seals), 0);
	return file;
}

static void others_are_not(void **state)
{
	static char large[DEVICE_TEXT_MAX + 1];
	memset(large, 'a', sizeof(large));
	memcpy(large, "disk ", 5);
	const struct {
		const char *text;
		size_t size;
		int seals;
	} rows[] = {
		{ "disk path=/a", 12, ALL & ~F_SEAL_WRITE }, { "disk path=/a", 12, ALL & ~F_SEAL_GROW }, { "disk path=/a", 12, ALL & ~F_SEAL_SHRINK },
		{ "disk path=/a", 12, ALL & ~F_SEAL_SEAL },  { "disk path=/a\nshare = /", 22, ALL },	 { "disk path=/a\0", 13, ALL },
		{ "diskpath=/a", 11, ALL },		     { "disk ", 5, ALL },			 { "", 0, ALL },
		{ large, sizeof(large), ALL },
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int file = make(rows[i].text, rows[i].size, rows[i].seals);
		assert_null(device_text_read(file, "disk"));
		close(file);
	}
	int null = open("/dev/null", O_RDONLY);
	assert_null(device_text_read(null, "disk"));
	assert_null(device_text_read(-1, "disk"));
	close(null);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(made_ones_are_read), cmocka_unit_test(others_are_not) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
