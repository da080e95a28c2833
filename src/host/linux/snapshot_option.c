/* From options to the writer of snapshots (snapshot_option.h). */
#include "host/linux/snapshot_option.h"

#include "host/linux/disks.h"
#include "host/linux/net.h"
#include "host/linux/snapshot.h"

#include <string.h>

static bool is_cdrom(const struct run_options *options, const char *option)
{
	bool is = false;
	for (unsigned i = 0; i < options->cdrom.count; i++)
		is |= options->cdrom.item[i] == option;
	return is;
}

/* All but disks and networks, which come and go. */
static char *describe_rest(const struct run_options *options)
{
	struct run_options rest = *options;
	rest.disk.count = rest.net.count = 0;
	return options_describe(&rest);
}

static void describe_devices(const struct run_options *options, struct snapshot_devices *devices)
{
	for (unsigned i = 0; i < DISKS_MAX; i++) {
		const char *option = disks_option(i);
		if (option && is_cdrom(options, option))
			devices->cdroms |= (u32)BIT(i);
		else if (option)
			devices->option[BOARD_DISK][i] = options_absolute("disk", option);
	}
	for (unsigned i = 0; i < NETS_MAX; i++)
		if (nets_option(i))
			devices->option[BOARD_NET][i] = options_absolute("net", nets_option(i));
}

int snapshot_option_start(const struct run_options *options, struct vm *vm, const struct snapshot *from, char **description)
{
	struct snapshot_place place = { .folder = options->snapshot_dir, .confine = strcmp(options->sandbox, "off"), .base = options->restore };
	enum snapshot_compression compression;
	if (!options->snapshot_dir)
		return 0;
	snapshot_compression_named(options->snapshot_compression, &compression);
	place.compress = compression == COMPRESSION_ZSTD;
	place.description = *description = describe_rest(options);
	describe_devices(options, &place.devices);
	if (!place.description || snapshot_start(&place, vm) < 0)
		return -1;
	if (options->restore)
		snapshot_went_on(vm, options->restore, from);
	return 0;
}
