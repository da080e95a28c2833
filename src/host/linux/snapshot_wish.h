/* What a snapshot is to be like, as users ask for it by the command, the API and a signal. */
#ifndef NADIR_HOST_LINUX_SNAPSHOT_WISH_H
#define NADIR_HOST_LINUX_SNAPSHOT_WISH_H

#include "arch/types.h"

#include <string.h>

enum snapshot_compression { COMPRESSION_DEFAULT, COMPRESSION_NONE, COMPRESSION_ZSTD };

struct snapshot_wish {
	const char *name; /* NULL: the first number that is free */
	bool incremental; /* only what was written since: */
	const char *base; /* a snapshot of this machine; NULL: the last */
	enum snapshot_compression compression; /* COMPRESSION_DEFAULT: as the machine was told */
};

/* "none" or "zstd"; false: another word. */
static inline bool snapshot_compression_named(const char *word, enum snapshot_compression *compression)
{
	bool zstd = !strcmp(word, "zstd");
	*compression = zstd ? COMPRESSION_ZSTD : COMPRESSION_NONE;
	return zstd || !strcmp(word, "none");
}

#endif
