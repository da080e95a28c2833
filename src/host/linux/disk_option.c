/* `--disk KEY=VALUE[,KEY=VALUE...]`: from the option to a disk. Its image is a file (path=) or remote (nbd=), an overlay in front of a file that stays as it is
 * (base=, overlay=), or a file in front of which changes are thrown away at the end (snapshot=on). */
#define _GNU_SOURCE
#include "host/linux/disk.h"

#include "dev/map.h"
#include "host/linux/image.h"
#include "host/linux/passed_files.h"
#include "host/linux/qcow2.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CDROM_BLOCK 2048u

struct wishes {
	char *path, *nbd, *format, *base, *overlay, *serial, *bus, *media, *aio, *slot;
	unsigned place; /* what slot says */
	bool readonly, direct, snapshot;
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
	{ "nbd", false, offsetof(struct wishes, nbd) },
	{ "format", false, offsetof(struct wishes, format) },
	{ "base", false, offsetof(struct wishes, base) },
	{ "overlay", false, offsetof(struct wishes, overlay) },
	{ "serial", false, offsetof(struct wishes, serial) },
	{ "bus", false, offsetof(struct wishes, bus) },
	{ "media", false, offsetof(struct wishes, media) },
	{ "aio", false, offsetof(struct wishes, aio) },
	{ "slot", false, offsetof(struct wishes, slot) },
	{ "readonly", true, offsetof(struct wishes, readonly) },
	{ "direct", true, offsetof(struct wishes, direct) },
	{ "snapshot", true, offsetof(struct wishes, snapshot) },
};

static int set_switch(const struct key *key, const char *value, bool *field)
{
	char why[64];
	snprintf(why, sizeof(why), "%s is on or off", key->name);
	*field = !strcmp(value, "on");
	return *field || !strcmp(value, "off") ? 0 : complain(value, why);
}

bool slot_parse(const char *text, unsigned first, unsigned count, unsigned *slot)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	*slot = (unsigned)n;
	return *text >= '0' && *text <= '9' && !*end && n >= first && n < first + count;
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
	return complain(word, "there is no such key; the keys are path, nbd, format, base, overlay, bus, media, serial, slot, readonly, direct, aio and snapshot");
}

static bool is_cdrom(const struct wishes *w)
{
	return w->media && !strcmp(w->media, "cdrom");
}

static bool is_one_of(const char *value, const char *first, const char *second)
{
	return !value || !strcmp(value, first) || !strcmp(value, second);
}

static int parse(char *text, struct wishes *w)
{
	char *rest = text;
	for (char *word = strsep(&rest, ","); word; word = strsep(&rest, ","))
		if (parse_word(word, w) < 0)
			return -1;
	if ((w->base && *w->base) != (w->overlay && *w->overlay))
		return complain("base", "base=FILE and overlay=FILE go together");
	if (w->nbd && (w->path || w->base || w->format || w->direct))
		return complain("nbd", "path, base, overlay, format and direct do not go with it");
	if (!w->base && !w->nbd && (!w->path || !*w->path))
		return complain("path", "no file is given; write path=FILE");
	if (w->base && (w->path || w->snapshot || w->readonly))
		return complain("base", "path, snapshot and readonly do not go with base and overlay");
	if (!is_one_of(w->bus, "virtio", "sata"))
		return complain(w->bus, "bus is virtio or sata");
	if (!is_one_of(w->media, "disk", "cdrom"))
		return complain(w->media, "media is disk or cdrom");
	if (!is_one_of(w->aio, "auto", "threads"))
		return complain(w->aio, "aio is auto (io_uring, where the kernel offers it) or threads");
	if (w->slot && (is_cdrom(w) || (w->bus && !strcmp(w->bus, "sata"))))
		return complain("slot", "a disk at SATA has no PCI device of its own");
	if (w->slot && !slot_parse(w->slot, PCI_SLOT_DISK, DISKS_MAX, &w->place))
		return complain(w->slot, "slot is the number of a PCI device, 4 to 19 for a disk");
	if (is_cdrom(w) && ((w->bus && strcmp(w->bus, "sata")) || w->base || w->snapshot || w->serial))
		return complain("media=cdrom", "a CD-ROM is at bus=sata, and has no base, overlay, snapshot or serial");
	if (w->serial && strlen(w->serial) > BLOCK_SERIAL_SIZE)
		return complain(w->serial, "a serial number has 20 characters at most");
	return 0;
}

static int make_overlay(const struct image_wish *overlay, const struct image_wish *base)
{
	if (!access(overlay->path, F_OK))
		return 0;
	struct passed_files *files = passed_suspend();
	int error = image_create(overlay, 0, base);
	passed_resume(files);
	return error;
}

/* The overlay, made if it is not there yet. */
static struct image *open_overlay(const struct wishes *w)
{
	const struct image_wish base = { .who = "--disk", .path = w->base, .format = w->format, .readonly = true };
	const struct image_wish overlay = { .who = "--disk", .path = w->overlay, .format = "qcow2", .direct = w->direct };
	if (!passed_taking() && make_overlay(&overlay, &base) < 0)
		return NULL;
	struct image *image = image_open(&overlay);
	if (!image || passed_taking() || qcow2_is_behind(image, w->base))
		return image;
	complain(w->overlay, "it is not an overlay of that base");
	image_close(image);
	return NULL;
}

static const char *name_of(const struct wishes *w)
{
	return w->nbd ? w->nbd : w->path ? w->path : w->overlay;
}

static struct image *open_image(const struct wishes *w)
{
	const struct image_wish wish = { .who = "--disk", .path = name_of(w), .remote = w->nbd, .format = w->format,
					 .readonly = w->readonly || is_cdrom(w), .direct = w->direct };
	return w->base ? open_overlay(w) : w->snapshot ? image_open_throwaway(&wish) : image_open(&wish);
}

static bool has_bad_size(const struct wishes *w, const struct image *image)
{
	u64 unit = is_cdrom(w) ? CDROM_BLOCK : IMAGE_SECTOR;
	return !image->size || image->size % unit;
}

static struct disk *open_wish(const struct wishes *w, struct block_backend *backend)
{
	struct image *image = open_image(w);
	if (image && is_cdrom(w) && has_bad_size(w, image)) {
		complain(name_of(w), "its size is not a multiple of 2048 bytes, as that of a CD-ROM is; it may be incomplete");
		image_close(image);
		return NULL;
	}
	if (image && has_bad_size(w, image)) {
		complain(name_of(w), "its size is not a multiple of 512 bytes, as that of a disk is; truncate -s %512 rounds a raw image up");
		image_close(image);
		return NULL;
	}
	struct disk *disk = image ? disk_create(image, backend) : NULL;
	if (image && !disk)
		complain("a disk", "there is not enough memory");
	if (disk)
		backend->bus = is_cdrom(w) ? BLOCK_CDROM : w->bus && !strcmp(w->bus, "sata") ? BLOCK_SATA : BLOCK_VIRTIO;
	if (disk && w->aio && !strcmp(w->aio, "threads"))
		disk_keep_to_threads(disk);
	if (disk && w->serial)
		memcpy(backend->serial, w->serial, strlen(w->serial));
	return disk;
}

int disk_slot(const char *option)
{
	struct wishes w = { 0 };
	char *text = strdup(option);
	int slot = text && !parse(text, &w) ? (int)w.place : -1;
	free(text);
	return slot;
}

struct disk *disk_open(const char *option, struct block_backend *backend)
{
	struct wishes w = { 0 };
	char *text = strdup(option);
	struct disk *disk = text && !parse(text, &w) ? open_wish(&w, backend) : NULL;
	free(text);
	return disk;
}

struct disk *disk_open_cdrom(const char *path, struct block_backend *backend)
{
	char raw[] = "raw", cdrom[] = "cdrom", *copy = strdup(path);
	struct wishes w = { .path = copy, .format = raw, .media = cdrom };
	struct disk *disk = copy ? open_wish(&w, backend) : NULL;
	free(copy);
	return disk;
}

int disk_prepare(const char *option, struct passed_files *files)
{
	struct block_backend backend;
	passed_record(files);
	struct disk *disk = disk_open(option, &backend);
	passed_end();
	if (disk && backend.bus == BLOCK_VIRTIO)
		return 0;
	return disk ? complain("bus=sata", "only virtio disks can be added to a machine that runs") : -1;
}
