/* --boot (boot_option.h). */
#include "host/linux/boot_option.h"

#include <stdio.h>
#include <string.h>

bool boot_option_network(const char *text)
{
	return text && (!strncmp(text, "net", 3) || strstr(text, ",net"));
}

int boot_option(const char *text, enum boot_device order[BOOT_DEVICES])
{
	static const char *const names[][2] = { [BOOT_DEVICE_DISK] = { "disk", "hd" }, [BOOT_DEVICE_CDROM] = { "cdrom", "cd" },
						[BOOT_DEVICE_NETWORK] = { "network", "net" } };
	for (unsigned count = 0; text && *text; text += *text == ',') {
		size_t length = strcspn(text, ",");
		enum boot_device found = 0;
		for (enum boot_device i = 1; i <= BOOT_DEVICES; i++)
			for (unsigned j = 0; j < 2; j++)
				if (strlen(names[i][j]) == length && !strncmp(names[i][j], text, length))
					found = i;
		if (!found || count == BOOT_DEVICES) {
			fprintf(stderr, "nadir: --boot: '%s' is not an order of cdrom, disk and network, such as cdrom,disk\n", text);
			return -1;
		}
		order[count++] = found;
		text += length;
	}
	return 0;
}
