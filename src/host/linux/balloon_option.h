/* The option --balloon. */
#ifndef NADIR_HOST_LINUX_BALLOON_OPTION_H
#define NADIR_HOST_LINUX_BALLOON_OPTION_H

#include "arch/types.h"

/* "off" or "size=SIZE[,reporting=on|off]": whether the device is there, whether it reports free pages, and how much it asks for. 0, or -1 after one
 * sentence on stderr. */
int balloon_parse(const char *text, bool *fitted, bool *reporting, u64 *size);

#endif
