/* nadir screenshot: the display of a running VM as a PNG file. */
#define _GNU_SOURCE
#include "host/linux/commands.h"

#include "host/linux/client.h"
#include "host/linux/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] = "usage: nadir screenshot NAME FILE.png\n"
			   "\n"
			   "Writes what the display of a virtual machine (--vga) shows to a PNG file, or to standard output if FILE.png is -.\n";

static int write_file(const char *path, const char *data, size_t size)
{
	FILE *out = strcmp(path, "-") ? fopen(path, "wbe") : stdout;
	bool good = out && fwrite(data, 1, size, out) == size && !fflush(out);
	if (!good)
		fprintf(stderr, "nadir: screenshot: %s: %s\n", path, strerror(errno));
	if (out && out != stdout)
		fclose(out);
	return good ? STATUS_OK : STATUS_FAILURE;
}

int command_screenshot(int argc, char **argv)
{
	size_t size;
	if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		fputs(help, stdout);
		return STATUS_OK;
	}
	if (argc != 3 || *argv[1] == '-') {
		fprintf(stderr, "nadir: screenshot wants the name of one virtual machine and a file for the picture; nadir list shows those there are\n");
		return STATUS_USAGE;
	}
	char *data = client_fetch(argv[1], "/api/v1/vm.screenshot", &size);
	if (!data)
		return STATUS_FAILURE;
	int status = write_file(argv[2], data, size);
	free(data);
	return status;
}
