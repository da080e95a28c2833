/* From options to the writer of snapshots (snapshot_option.h). */
#include "host/linux/snapshot_option.h"

#include "host/linux/snapshot.h"

#include <string.h>

int snapshot_option_start(const struct run_options *options, struct vm *vm, const struct snapshot *from, char **description)
{
	struct snapshot_place place = { .folder = options->snapshot_dir, .confine = strcmp(options->sandbox, "off"), .base = options->restore };
	enum snapshot_compression compression;
	if (!options->snapshot_dir)
		return 0;
	snapshot_compression_named(options->snapshot_compression, &compression);
	place.compress = compression == COMPRESSION_ZSTD;
	place.description = *description = options_describe(options);
	if (!place.description || snapshot_start(&place, vm) < 0)
		return -1;
	if (options->restore)
		snapshot_went_on(vm, options->restore, from);
	return 0;
}
