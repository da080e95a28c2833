/* Builds small ELF files for tests of loaders, by the offsets of the specifications. */
#ifndef NADIR_TESTS_ELF_IMAGE_H
#define NADIR_TESTS_ELF_IMAGE_H

#include "lib/bytes.h"

#include <string.h>

#define ELF_CODE_OFFSET 0x400
#define ELF_CODE_SIZE 0x100
#define ELF_FILE_SIZE (ELF_CODE_OFFSET + ELF_CODE_SIZE)
#define ELF_NOTE_OFFSET 0x200
#define ELF_PADDR 0x200000
#define ELF_VADDR 0xc0200000
#define ELF_BSS 0x3000

static inline void elf_put_word(u8 *file, bool is64, u32 offset, u64 value)
{
	if (is64)
		put_u64(file + offset, value);
	else
		put_u32(file + offset, value);
}

/* One program header. `at` is the header's offset in the file. */
static inline void elf_put_segment(u8 *f, bool is64, u32 at, u32 type, u64 offset, u64 file_size, u64 memory_size)
{
	put_u32(f + at, type);
	elf_put_word(f, is64, at + (is64 ? 8 : 4), offset);
	elf_put_word(f, is64, at + (is64 ? 16 : 8), ELF_VADDR);
	elf_put_word(f, is64, at + (is64 ? 24 : 12), ELF_PADDR);
	elf_put_word(f, is64, at + (is64 ? 32 : 16), file_size);
	elf_put_word(f, is64, at + (is64 ? 40 : 20), memory_size);
	elf_put_word(f, is64, at + (is64 ? 48 : 28), 4);
}

/* A file of ELF_FILE_SIZE bytes: a note segment with two notes, the second the PVH entry at ELF_PADDR + 0x10, and a
 * load segment with ELF_BSS bytes after what the file has. The header's entry is ELF_VADDR + 0x20. */
static inline void elf_make(u8 *f, bool is64)
{
	u32 table = is64 ? 64 : 52, entry_size = is64 ? 56 : 32;
	static const u8 notes[] = {
		4, 0, 0, 0, 2, 0, 0, 0, 1,  0, 0, 0, 'G', 'N', 'U', 0, 1,    2, 0,    0,
		4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, 'X', 'e', 'n', 0, 0x10, 0, 0x20, 0,
	};

	memset(f, 0, ELF_FILE_SIZE);
	memcpy(f, "\177ELF", 4);
	f[4] = is64 ? 2 : 1;
	f[5] = f[6] = 1;
	put_u16(f + 16, 2);
	put_u16(f + 18, is64 ? 62 : 3);
	put_u32(f + 20, 1);
	elf_put_word(f, is64, 24, ELF_VADDR + 0x20);
	elf_put_word(f, is64, is64 ? 32 : 28, table);
	put_u16(f + (is64 ? 54 : 42), entry_size);
	put_u16(f + (is64 ? 56 : 44), 2);
	elf_put_segment(f, is64, table, 4, ELF_NOTE_OFFSET, sizeof(notes), sizeof(notes));
	elf_put_segment(f, is64, table + entry_size, 1, ELF_CODE_OFFSET, ELF_CODE_SIZE, ELF_CODE_SIZE + ELF_BSS);
	memcpy(f + ELF_NOTE_OFFSET, notes, sizeof(notes));
	for (unsigned i = 0; i < ELF_CODE_SIZE; i++)
		f[ELF_CODE_OFFSET + i] = i ^ 0x33;
}

#endif
