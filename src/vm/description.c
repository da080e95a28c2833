/* The VM description file, read in place: keys and values get their terminators where the text has a character that has done its work. */
#include "vm/description.h"

#include "lib/string.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_key(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

static char *skip_blanks(char *s)
{
	while (is_blank(*s))
		s++;
	return s;
}

static bool ends(const char *s)
{
	return !*s || *s == '#';
}

void description_open(struct description *d, char *text, size_t size)
{
	*d = (struct description){ .next = text, .end = text + size };
}

/* Cut the next line off: terminated, without its line end. NULL: none is left. `clean` says whether it is text. */
static char *take_line(struct description *d, bool *clean)
{
	if (d->next == d->end)
		return NULL;
	char *line = d->next, *s = line;
	*clean = true;
	for (; s < d->end && *s != '\n'; s++)
		*clean &= (unsigned char)*s >= ' ' || is_blank(*s) || (*s == '\r' && s + 1 < d->end && s[1] == '\n');
	d->next = s < d->end ? s + 1 : s;
	d->line++;
	*s = 0;
	if (s > line && s[-1] == '\r')
		s[-1] = 0;
	return line;
}

/* ---- values ---- */

/* In quotes: from behind the first one. Returns what is wrong, or NULL. */
static const char *read_quoted(char *s)
{
	char *to = s;
	for (; *s != '"'; s++) {
		if (*s == '\\' && s[1] != '"' && s[1] != '\\')
			return "only \\\" and \\\\ may follow a backslash in quotes; write \\\\ for a backslash";
		s += *s == '\\';
		if (!*s)
			return "a closing \" is missing";
		*to++ = *s;
	}
	if (!ends(skip_blanks(s + 1)))
		return "something follows the closing \"; put the whole value into quotes";
	*to = 0;
	return NULL;
}

/* Without: up to a comment, less the blanks in front of it. */
static void read_bare(char *s)
{
	char *end = s;
	for (; *s && !(*s == '#' && is_blank(s[-1])); s++)
		end = is_blank(*s) ? end : s + 1;
	*end = 0;
}

static const char *read_value(char *s, struct description_entry *entry)
{
	s = skip_blanks(s);
	if (ends(s))
		return "a value is missing after =; write \"\" for an empty one";
	entry->value = s;
	if (*s != '"') {
		read_bare(s);
		return NULL;
	}
	entry->value = s + 1;
	return read_quoted(s + 1);
}

static const char *read_entry(char *s, struct description_entry *entry)
{
	char *end = s;
	while (is_key(*end))
		end++;
	char *after = skip_blanks(end);
	bool alone = ends(after);
	if (end == s || (!alone && *after != '=') || (*end == '#'))
		return "this is not KEY = VALUE, where KEY is the name of an option of nadir run, without the two dashes";
	*entry = (struct description_entry){ .key = s };
	const char *why = alone ? NULL : read_value(after + 1, entry);
	*end = 0;
	return why;
}

enum description_result description_next(struct description *d, struct description_entry *entry, const char **why)
{
	bool clean;
	char *line;
	while ((line = take_line(d, &clean))) {
		line = skip_blanks(line);
		if (clean && ends(line))
			continue;
		*why = clean ? read_entry(line, entry) : "there is a control character in it; this is not a description of a VM";
		return *why ? DESCRIPTION_WRONG : DESCRIPTION_ENTRY;
	}
	return DESCRIPTION_END;
}
