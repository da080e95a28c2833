/* Executable and Linkable Format, 32 and 64 bits, x86: as much as loading a kernel at its physical addresses takes.
 * TIS, "Executable and Linking Format Specification version 1.2"; "ELF-64 Object File Format". */
#ifndef NADIR_BOOT_ELF_H
#define NADIR_BOOT_ELF_H

#include "boot/loader.h"

/* A file whose header and program header table have been checked: the table lies within the file. */
struct elf {
	const u8 *file;
	u64 size;
	bool is64;
	u64 entry; /* as the header gives it: a virtual address */
	u64 table;
	u16 entry_size, count;
};

/* Does the file begin as an ELF file does? */
bool elf_probe(const struct boot_source *source);

/* Check the header. False if it is no x86 ELF executable; job may be NULL, else the error is written there. */
bool elf_open(struct boot_job *job, const struct boot_source *source, struct elf *elf);

/* The descriptor of a note, by owner and type: a pointer into the file and its size. False if there is none. */
bool elf_find_note(const struct elf *elf, const char *owner, u32 type, const u8 **descriptor, u32 *size);

/* Load every PT_LOAD segment at its physical address, zero what the file does not fill; note where the kernel is. */
bool elf_load(struct boot_job *job, const struct elf *elf);

/* The physical address of the header's entry point; the address itself if no segment holds it. */
u64 elf_physical_entry(const struct elf *elf);

#endif
