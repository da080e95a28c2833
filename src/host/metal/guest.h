/* The guests of this machine. */
#ifndef NADIR_HOST_METAL_GUEST_H
#define NADIR_HOST_METAL_GUEST_H

#include "host/metal/boot_info.h"

/* Make the guests that the boot loader's modules and command line describe, and run them. Returns when the last has ended. */
void guests_run(const struct boot_info *info);

#endif
