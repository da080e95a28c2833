/* What an added disk or network is, for the description in snapshots (device_text.c): a line in a sealed file of memory.
 *
 * A snapshot's description is read later by an unconfined nadir, so the confined one must have no say in what it names. It can neither make nor seal such a
 * file: one comes from a client, and goes to the writer of snapshots as it is. */
#ifndef NADIR_HOST_LINUX_DEVICE_TEXT_H
#define NADIR_HOST_LINUX_DEVICE_TEXT_H

#include "arch/types.h"

#define DEVICE_TEXT_MAX 16384u

/* A file that says that option --`name` is `value`, whose paths are made absolute. -1 and errno. */
int device_text_make(const char *name, const char *value);
/* The value; the caller frees it. NULL: it is no such file, or of another option. */
char *device_text_read(int file, const char *name);

#endif
