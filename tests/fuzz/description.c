/* The VM description file: whatever it holds, keys and values lie within it, are terminated, and the end is reached. */
#include "input.h"
#include "vm/description.h"

#include <stdlib.h>
#include <string.h>

static void check_within(const char *s, const char *text, size_t size)
{
	CHECK(s >= text && s + strlen(s) <= text + size);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct description d;
	struct description_entry entry;
	const char *why = NULL;
	enum description_result result;
	char *text = malloc(size + 1);
	unsigned line = 0;
	memcpy(text, bytes, size);
	description_open(&d, text, size);
	while ((result = description_next(&d, &entry, &why)) != DESCRIPTION_END) {
		CHECK(d.line > line && d.line <= size);
		line = d.line;
		if (result == DESCRIPTION_WRONG) {
			CHECK(why && *why);
			continue;
		}
		check_within(entry.key, text, size);
		CHECK(*entry.key);
		if (entry.value)
			check_within(entry.value, text, size);
	}
	free(text);
	return 0;
}
