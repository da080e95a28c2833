/* Values of options (option.h). */
#include "vm/option.h"

#include "host/port.h"
#include "lib/string.h"

#define MIB_SHIFT 20

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

int option_unit_shift(const char *text)
{
	static const char prefixes[] = "KMGT";
	int shift = 0;
	for (int i = 0; prefixes[i]; i++)
		if (upper(*text) == prefixes[i])
			shift = 10 * (i + 1);
	text += shift != 0;
	bool ends = !text[0] || (upper(text[0]) == 'B' && !text[1]) || (shift && upper(text[0]) == 'I' && upper(text[1]) == 'B' && !text[2]);
	return ends ? shift : -1;
}

static int digit_of(char c, unsigned base)
{
	int digit = c >= '0' && c <= '9' ? c - '0' : upper(c) >= 'A' && upper(c) <= 'F' ? upper(c) - 'A' + 10 : -1;
	return digit < (int)base ? digit : -1;
}

bool option_number(const char *text, bool unit, u64 *value)
{
	unsigned base = text[0] == '0' && upper(text[1]) == 'X' ? 16 : 10;
	u64 n = 0;
	text += base == 16 ? 2 : 0;
	if (digit_of(*text, base) < 0)
		return false;
	for (; digit_of(*text, base) >= 0; text++)
		if (__builtin_mul_overflow(n, base, &n) || __builtin_add_overflow(n, (u64)digit_of(*text, base), &n))
			return false;
	int shift = unit ? option_unit_shift(text) : *text ? -1 : 0;
	if (shift < 0 || n > ~0ull >> shift)
		return false;
	*value = n << shift;
	return true;
}

static bool set_number(const struct option_row *row, const char *text, u64 *field, char *expected, size_t size)
{
	bool is_size = row->type == TYPE_SIZE;
	unsigned shift = is_size ? MIB_SHIFT : 0;
	u64 n;
	host_snprintf(expected, size, is_size ? "a size from %lluM to %lluM, such as 512M or 2G" : "a number from %llu to %llu",
		      (unsigned long long)(row->minimum >> shift), (unsigned long long)(row->maximum >> shift));
	if (!option_number(text, is_size, &n) || n < row->minimum || n > row->maximum)
		return false;
	*field = n;
	return true;
}

/* Whether it is one of the words. */
static bool is_choice(const char *words, const char *text)
{
	size_t length = string_length(text);
	while (*words) {
		size_t n = 0;
		while (words[n] && words[n] != '|')
			n++;
		if (n && n == length && !memcmp(words, text, n))
			return true;
		words += n + (words[n] == '|');
	}
	return false;
}

bool option_set(const struct option_row *row, void *options, const char *text, char *expected, size_t size)
{
	void *field = (char *)options + row->offset;
	struct option_list *list = field;
	switch (row->type) {
	case TYPE_FLAG:
		*(bool *)field = true;
		return true;
	case TYPE_SIZE:
	case TYPE_NUMBER:
		return set_number(row, text, field, expected, size);
	case TYPE_LIST:
		host_snprintf(expected, size, "one of %d at most", OPTION_LIST_MAX);
		if (list->count == OPTION_LIST_MAX)
			return false;
		list->item[list->count++] = text;
		return true;
	case TYPE_CHOICE:
		host_snprintf(expected, size, "one of %s", row->argument);
		if (!is_choice(row->argument, text))
			return false;
		/* fall through */
	case TYPE_TEXT:
		*(const char **)field = text;
		return true;
	}
	return false;
}
