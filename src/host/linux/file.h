/* Files given on the command line (file.c). */
#ifndef NADIR_HOST_LINUX_FILE_H
#define NADIR_HOST_LINUX_FILE_H

#include "arch/types.h"

struct file {
	const u8 *data;
	size_t size;
};

/* Read the file of option --`what`. 0, or -1 after one sentence on stderr. Refused: what is not a regular file, an empty file, and one of
 * more than `limit` bytes. The file is mapped, not copied, so that it costs no memory while the guest runs: whoever cuts it short before a reset of the VM ends that VM. */
int file_load(struct file *file, const char *what, const char *path, u64 limit);
/* A part of a file's contents is not needed for a while (until the VM is reset): its memory is given back. */
void file_settle_part(const void *data, u64 size);
/* The same for all of it. */
void file_settle(const struct file *file);
void file_release(struct file *file);

#endif
