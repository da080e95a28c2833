/* The file of a UEFI firmware's variables (variables.c). */
#ifndef NADIR_HOST_LINUX_VARIABLES_H
#define NADIR_HOST_LINUX_VARIABLES_H

#include "dev/pflash.h"

/* The chip that holds the variables of the firmware image at `rom`. `path` is what --pflash says: a file that is written when variables change,
 * and is made from the firmware's template if it does not exist. NULL: changes are lost at the end; the chip is left out (backend->data stays
 * NULL) if no template is found, which is named as the image with VARS for CODE. 0, or -1 after one sentence on stderr. */
int variables_open(const char *path, const char *rom, struct pflash_backend *backend);
void variables_close(struct pflash_backend *backend);

#endif
