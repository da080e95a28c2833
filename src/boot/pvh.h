/* The PVH way to start a kernel: an ELF file with a note that gives its 32-bit entry point.
 * Xen, "x86/HVM direct boot ABI" (docs/misc/pvh.pandoc) and public/arch-x86/hvm/start_info.h. */
#ifndef NADIR_BOOT_PVH_H
#define NADIR_BOOT_PVH_H

#include "boot/loader.h"

bool pvh_probe(const struct boot_source *source);
bool pvh_load(struct boot_job *job);

#endif
