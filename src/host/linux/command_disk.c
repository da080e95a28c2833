/* nadir create-disk: a new disk image, empty or in front of another. */
#define _GNU_SOURCE
#include "host/linux/commands.h"

#include "host/linux/image.h"
#include "host/linux/options.h"
#include "host/linux/run.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_MAX_BITS 60

static const char help[] = "usage: nadir create-disk FILE SIZE\n"
			   "       nadir create-disk FILE --base BASE\n"
			   "\n"
			   "Makes a disk image: an empty one of SIZE, with a suffix K, M, G or T; or one that keeps the changes to the image BASE, which stays as it is.\n"
			   "It is a qcow2 image if FILE ends in .qcow2, as the second kind must, and else a raw one, which takes storage as it is filled.\n";

static int parse_size(const char *text, u64 *size)
{
	char *end;
	errno = 0;
	u64 n = strtoull(text, &end, 10);
	int shift = option_unit_shift(end);
	*size = n << MAX(shift, 0);
	if (isdigit((unsigned char)*text) && !errno && shift >= 0 && n && !(n >> (SIZE_MAX_BITS - shift)) && *size % IMAGE_SECTOR == 0)
		return 0;
	fprintf(stderr, "nadir: create-disk: '%s' is not a size of whole sectors of 512 bytes, such as 512M or 20G\n", text);
	return -1;
}

static bool is_qcow2(const char *path)
{
	const char *dot = strrchr(path, '.');
	return dot && !strcasecmp(dot, ".qcow2");
}

int command_create_disk(int argc, char **argv)
{
	u64 size = 0;
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	bool overlay = argc == 4 && !strcmp(argv[2], "--base");
	if (argc != 3 && !overlay) {
		fprintf(stderr, "nadir: create-disk takes a file and its size, or a file and --base BASE; see nadir create-disk --help\n");
		return STATUS_USAGE;
	}
	const struct image_wish wish = { .who = "create-disk", .path = argv[1] };
	const struct image_wish base = { .who = "create-disk", .path = argv[argc - 1], .readonly = true };
	if (overlay && !is_qcow2(argv[1])) {
		fprintf(stderr, "nadir: create-disk: %s: an image in front of another is called something.qcow2\n", argv[1]);
		return STATUS_USAGE;
	}
	if (!overlay && parse_size(argv[2], &size) < 0)
		return STATUS_USAGE;
	return image_create(&wish, size, overlay ? &base : NULL) < 0 ? STATUS_USAGE : STATUS_OK;
}
