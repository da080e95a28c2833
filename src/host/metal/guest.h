/* The guests of this machine. */
#ifndef NADIR_HOST_METAL_GUEST_H
#define NADIR_HOST_METAL_GUEST_H

#include "host/metal/boot_info.h"

/* Make the guests that the boot loader's modules and command line describe: one of each module whose name ends in ".vm" and is a description;
 * without such, one of the first module as its kernel, with that module's arguments, and the second as its initial RAM disk. Run them all.
 * Returns when the last has ended: what is to become of the machine. */
enum guests_end { GUESTS_HALT, GUESTS_RESET, GUESTS_POWER_OFF };
enum guests_end guests_run(struct boot_info *info);

#endif
