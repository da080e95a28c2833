/* The option --boot. */
#ifndef NADIR_HOST_LINUX_BOOT_OPTION_H
#define NADIR_HOST_LINUX_BOOT_OPTION_H

#include "boot/boot.h"

/* The order in which firmware tries devices. `text` may be NULL, `order` is zeroed. 0, or -1 after one sentence on stderr. */
int boot_option(const char *text, enum boot_device order[BOOT_DEVICES]);
/* Whether it names the network. */
bool boot_option_network(const char *text);

#endif
