/* Options made of words (words.h). */
#include "host/metal/words.h"

#include "host/port.h"
#include "lib/string.h"

#define fail(...) (host_snprintf(error, error_size, __VA_ARGS__), false)

/* Cut `text` where the character is first; what is behind it, or NULL. */
static char *cut(char *text, char at)
{
	while (*text && *text != at)
		text++;
	if (!*text)
		return NULL;
	*text = 0;
	return text + 1;
}

static bool set(const struct word_key *key, const char *value, void *to, const char *what, char *error, size_t error_size)
{
	void *field = (u8 *)to + key->offset;
	if (!key->is_switch) {
		*(const char **)field = value;
		return true;
	}
	bool on = string_equal(value, "on");
	if (!on && !string_equal(value, "off"))
		return fail("%s: %s: '%s' is not on or off", what, key->name, value);
	*(bool *)field = on;
	return true;
}

static bool read_word(char *word, const struct word_key *keys, size_t count, void *to, const char *what, char *error, size_t error_size)
{
	const char *value = cut(word, '=');
	if (!value || !*value)
		return fail("%s: '%s' is not of the form KEY=VALUE", what, word);
	for (size_t i = 0; i < count; i++)
		if (string_equal(keys[i].name, word))
			return set(&keys[i], value, to, what, error, error_size);
	return fail("%s: there is no key '%s' on the bare machine", what, word);
}

bool words_read(char *text, const struct word_key *keys, size_t count, void *to, const char *what, char *error, size_t error_size)
{
	while (text) {
		char *rest = cut(text, ',');
		if (!read_word(text, keys, count, to, what, error, error_size))
			return false;
		text = rest;
	}
	return true;
}
