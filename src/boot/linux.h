/* The Linux/x86 boot protocol, version 2.06 and later, in its 64-bit and 32-bit forms.
 * Linux, Documentation/arch/x86/boot.rst and zero-page.rst. */
#ifndef NADIR_BOOT_LINUX_H
#define NADIR_BOOT_LINUX_H

#include "boot/loader.h"

/* Has the file a bzImage header, and for the first: one with a 64-bit entry? */
bool linux64_probe(const struct boot_source *source);
bool linux32_probe(const struct boot_source *source);
bool linux64_load(struct boot_job *job);
bool linux32_load(struct boot_job *job);

#endif
