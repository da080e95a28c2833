/* `--balloon` (balloon_option.h). */
#define _GNU_SOURCE
#include "host/linux/balloon_option.h"

#include "host/linux/options.h"

#include <string.h>

int balloon_parse(const char *text, bool *fitted, bool *reporting, u64 *size)
{
	char copy[64], *rest = copy;
	*fitted = *reporting = strcmp(text, "off");
	*size = 0;
	bool good = (size_t)snprintf(copy, sizeof(copy), "%s", text) < sizeof(copy);
	while (*fitted && good && rest) {
		char *word = strsep(&rest, ",");
		bool on = !strcmp(word, "reporting=on");
		if (on || !strcmp(word, "reporting=off"))
			*reporting = on;
		else
			good = !strncmp(word, "size=", 5) && options_size(word + 5, size);
	}
	if (!good)
		fprintf(stderr, "nadir: --balloon: '%s' is not off or size=SIZE[,reporting=on|off]\n", text);
	return good ? 0 : -1;
}
