/* What the loaders of the boot protocols share, private to boot/: the job at hand, where things go in low memory, and
 * placing things so that nothing lies over anything else.
 *
 * Low memory while a loader works (flat and firmware images start with an empty machine and use none of it):
 *
 *   0x1000   GDT
 *   0x2000   page tables that map the first 4 GiB to themselves
 *   0x8000   the structure the protocol hands over: zero page, start info, multiboot information
 *   0x9000   what that structure points to
 *   0xc000   command line
 *   0x10000  free for images, up to the EBDA; then again from 1 MiB to the end of low RAM
 */
#ifndef NADIR_BOOT_LOADER_H
#define NADIR_BOOT_LOADER_H

#include "boot/boot.h"
#include "host/port.h"

#define BOOT_GDT 0x1000u
#define BOOT_PAGE_TABLES 0x2000u
#define BOOT_INFO 0x8000u
#define BOOT_DATA 0x9000u
#define BOOT_CMDLINE 0xc000u
#define BOOT_CMDLINE_MAX 0x4000u
#define BOOT_LOW_END 0x10000u

/* Selectors in the boot GDT; Linux demands these two. */
#define BOOT_CS 0x10
#define BOOT_DS 0x18
#define BOOT_TSS 0x20

#define BOOT_LOADER_NAME "nadir"

#define MIB (1ull << 20)

struct boot_job {
	struct ram *ram;
	const struct boot_source *source;
	struct boot_entry *entry;
	u64 low_end; /* end of RAM below 4 GiB */
	gpa_t rsdp;  /* of the ACPI tables; 0: none */
	char *error;
	size_t error_size;
};

/* Write the sentence and be false: `return boot_fail(job, "...");`. */
#define boot_fail(job, ...) (host_snprintf((job)->error, (job)->error_size, __VA_ARGS__), false)

/* May an image occupy [gpa, gpa + size)? It must lie in RAM, clear of the boot data and the legacy area. False: the
 * error is written. */
bool boot_check_range(struct boot_job *job, u64 gpa, u64 size);

/* Copy into, or zero, guest memory; false with the error written if it is not all RAM. */
bool boot_copy(struct boot_job *job, gpa_t gpa, const void *data, u64 size);
bool boot_zero(struct boot_job *job, gpa_t gpa, u64 size);

/* Note where the kernel is: everything in [base, base + size) is its own from now on. */
void boot_set_kernel(struct boot_job *job, gpa_t base, u64 size);

/* Start at `gpa`, which must be within the kernel. */
bool boot_set_start(struct boot_job *job, u64 gpa);

/* Copy the initrd (or module), if there is one, to the highest page-aligned place below `limit` that is clear of the
 * kernel; the place is noted in the entry. */
bool boot_place_initrd(struct boot_job *job, u64 limit);

/* Copy the command line to BOOT_CMDLINE. `limit` is the most bytes the kernel takes, without the terminating zero. */
bool boot_put_cmdline(struct boot_job *job, u64 limit);

/* The GDT, and for 64-bit entries the page tables, that boot_set_cpu loads the registers with. */
bool boot_put_descriptors(struct boot_job *job, enum boot_mode mode);

static inline u64 boot_round_up(u64 value, u64 alignment)
{
	return (value + alignment - 1) & ~(alignment - 1);
}

/* For messages: rounded up. */
static inline u64 boot_mib(u64 bytes)
{
	return boot_round_up(bytes, MIB) / MIB;
}

#endif
