/* `--disk KEY=VALUE[,KEY=VALUE...]`: from the option to a disk. */
#define _GNU_SOURCE
#include "host/linux/disk.h"

#include "host/linux/image.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct wishes {
	char *path, *serial;
	bool readonly, direct;
};

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "nadir: --disk: %s: %s\n", what, why);
	return -1;
}

static const struct key {
	const char *name;
	bool is_switch; /* on or off */
	size_t offset;	/* in struct wishes: char * or bool */
} keys[] = {
	{ "path", false, offsetof(struct wishes, path) },
	{ "serial", false, offsetof(struct wishes, serial) },
	{ "readonly", true, offsetof(struct wishes, readonly) },
	{ "direct", true, offsetof(struct wishes, direct) },
};

static int set_switch(const struct key *key, const char *value, bool *field)
{
	char why[64];
	snprintf(why, sizeof(why), "%s is on or off", key->name);
	*field = !strcmp(value, "on");
	return *field || !strcmp(value, "off") ? 0 : complain(value, why);
}

/* One KEY=VALUE of the option. */
static int parse_word(char *word, struct wishes *w)
{
	char *value = strchr(word, '=');
	if (!value)
		return complain(word, "it is not of the form KEY=VALUE, as in path=FILE,readonly=on");
	*value++ = 0;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		void *field = (char *)w + keys[i].offset;
		if (strcmp(word, keys[i].name))
			continue;
		if (keys[i].is_switch)
			return set_switch(&keys[i], value, field);
		*(char **)field = value;
		return 0;
	}
	return complain(word, "there is no such key; the keys are path, serial, readonly and direct");
}

static int parse(char *text, struct wishes *w)
{
	char *rest = text;
	for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ","))
		if (parse_word(word, w) < 0)
			return -1;
	if (!w->path || !*w->path)
		return complain("path", "no file is given; write path=FILE");
	if (w->serial && strlen(w->serial) > BLOCK_SERIAL_SIZE)
		return complain(w->serial, "a serial number has 20 characters at most");
	return 0;
}

static struct disk *open_wish(const struct wishes *w, struct block_backend *backend)
{
	const struct image_wish wish = { .who = "--disk", .path = w->path, .readonly = w->readonly, .direct = w->direct };
	struct image *image = image_open(&wish);
	struct disk *disk = image ? disk_create(image, backend) : NULL;
	if (image && !disk)
		complain(w->path, "there is not enough memory");
	if (disk && w->serial)
		memcpy(backend->serial, w->serial, strlen(w->serial));
	return disk;
}

struct disk *disk_open(const char *option, struct block_backend *backend)
{
	struct wishes w = { 0 };
	char *text = strdup(option);
	struct disk *disk = text && !parse(text, &w) ? open_wish(&w, backend) : NULL;
	free(text);
	return disk;
}
