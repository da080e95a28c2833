/* Formatted text of the bare machine: a format of any flags, width, precision and length prints what the C library prints, and no byte more. */
#include "host/metal/print.h"
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print(char *buffer, size_t size, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = print_format(buffer, size, format, args);
	va_end(args);
	return n;
}

/* One conversion, as far as both know it: no flags that mean nothing there. */
static void make_format(struct input *in, char *format, bool *is_text)
{
	static const char *const numbers[] = { "d", "u", "x", "ld", "lu", "lx", "lld", "llx", "zu", "i" };
	u8 flags = input_u8(in), pick = input_u8(in);
	*is_text = pick % 11 == 10;
	const char *conversion = *is_text ? "s" : numbers[pick % 11];
	char width[16] = "", precision[16] = "";
	if (flags & 4)
		snprintf(width, sizeof(width), "%u", input_u8(in) % 50 + 1u);
	if (flags & 8)
		snprintf(precision, sizeof(precision), ".%u", input_u8(in) % 50 + 1u);
	snprintf(format, 64, "<%%%s%s%s%s%s>", flags & 1 ? "-" : "", (flags & 3) == 2 && !*is_text ? "0" : "", width, precision, conversion);
}

#pragma clang diagnostic ignored "-Wformat-nonliteral"
#pragma clang diagnostic ignored "-Wformat-security"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	char format[64], text[17] = { 0 }, theirs[256];
	bool is_text;
	make_format(&in, format, &is_text);
	size_t room = input_u8(&in);
	u64 value = input_take(&in, 8);
	memcpy(text, &value, sizeof(value));
	char *ours = malloc(room);
	int n = is_text ? print(ours, room, format, text) : print(ours, room, format, value);
	int m = is_text ? snprintf(theirs, room, format, text) : snprintf(theirs, room, format, value);
	CHECK(n == m && (!room || !strcmp(ours, theirs)));
	free(ours);
	return 0;
}
