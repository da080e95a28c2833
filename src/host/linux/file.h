/* Files given on the command line, mapped read-only (file.c). */
#ifndef NADIR_HOST_LINUX_FILE_H
#define NADIR_HOST_LINUX_FILE_H

#include "arch/types.h"

struct file {
	const u8 *data;
	size_t size;
};

/* Map the file of option --`what`. 0, or -1 after one sentence on stderr. An empty file is refused. The contents are copied, so that a
 * file that shrinks later cannot end the VM by SIGBUS. */
int file_load(struct file *file, const char *what, const char *path);
void file_release(struct file *file);

#endif
