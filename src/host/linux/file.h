/* Files given on the command line (file.c). */
#ifndef NADIR_HOST_LINUX_FILE_H
#define NADIR_HOST_LINUX_FILE_H

#include "arch/types.h"

struct file {
	const u8 *data;
	size_t size;
};

/* Read the file of option --`what`. 0, or -1 after one sentence on stderr. Refused: what is not a regular file, an empty file, and one of
 * more than `limit` bytes. The contents are copied, so that a file that shrinks later cannot end the VM by SIGBUS. */
int file_load(struct file *file, const char *what, const char *path, u64 limit);
void file_release(struct file *file);

#endif
