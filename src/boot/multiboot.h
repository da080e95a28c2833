/* Multiboot, both versions: a header somewhere at the start of an ELF file or of a raw image that says where it goes.
 * "Multiboot Specification version 0.6.96"; "Multiboot2 Specification version 2.0". */
#ifndef NADIR_BOOT_MULTIBOOT_H
#define NADIR_BOOT_MULTIBOOT_H

#include "boot/loader.h"

/* Where a raw image goes, from the header's address fields. Zero in load_end: to the end of the file; in bss_end: no
 * bss. */
struct multiboot_address {
	u32 header, load, load_end, bss_end;
};

bool multiboot1_probe(const struct boot_source *source);
bool multiboot2_probe(const struct boot_source *source);
bool multiboot1_load(struct boot_job *job);
bool multiboot2_load(struct boot_job *job);

/* Shared by the two: load the image by its address fields, its header being at `offset` in the file; or, where
 * `address` is NULL, as an ELF file. It starts at `entry`; for an ELF file that may be NULL: its header's entry point.
 */
bool multiboot_load_image(struct boot_job *job, u64 offset, const struct multiboot_address *address, const u32 *entry);

/* KiB of RAM below the EBDA, and from 1 MiB to the first hole. */
u32 multiboot_lower_kib(void);
u32 multiboot_upper_kib(const struct boot_job *job);

#endif
