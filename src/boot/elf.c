/* Reads ELF headers, program headers and notes, and loads segments. The offsets are those of the specifications'
 * structures, which differ between 32 and 64 bits. */
#include "boot/elf.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define EI_CLASS 4
#define EI_DATA 5
#define ELFCLASS32 1
#define ELFCLASS64 2
#define ELFDATA2LSB 1
#define E_MACHINE 18
#define EM_386 3
#define EM_X86_64 62
#define PT_LOAD 1
#define PT_NOTE 4
#define NOTE_HEADER 12
#define SEGMENTS_MAX 64

static const u8 magic[4] = { 0x7f, 'E', 'L', 'F' };

/* Where the fields are in each class. */
static const struct layout {
	u8 header, entry, table, entry_size, count, minimum_entry;
} layouts[2] = {
	{ .header = 52, .entry = 24, .table = 28, .entry_size = 42, .count = 44, .minimum_entry = 32 },
	{ .header = 64, .entry = 24, .table = 32, .entry_size = 54, .count = 56, .minimum_entry = 56 },
};

struct segment_header {
	u32 type;
	u64 offset, vaddr, paddr, file_size, memory_size, align;
};

bool elf_probe(const struct boot_source *s)
{
	return s->kernel_size >= sizeof(magic) && !memcmp(s->kernel, magic, sizeof(magic));
}

static const char *check_identity(const struct boot_source *s)
{
	if (!elf_probe(s) || s->kernel_size < layouts[0].header)
		return "it is no complete ELF file";
	u8 class = s->kernel[EI_CLASS];
	u16 machine = get_u16(s->kernel + E_MACHINE);
	if ((class != ELFCLASS32 && class != ELFCLASS64) || s->kernel[EI_DATA] != ELFDATA2LSB ||
	    (machine != EM_386 && machine != EM_X86_64))
		return "it is an ELF file for another kind of machine: use one for x86";
	if (s->kernel_size < layouts[class == ELFCLASS64].header)
		return "it is no complete ELF file";
	return NULL;
}

static u64 get_word(const u8 *p, bool is64)
{
	return is64 ? get_u64(p) : get_u32(p);
}

static const char *check_table(const struct elf *elf, const struct layout *l)
{
	if (!elf->count)
		return "its ELF header lists no segments: use a linked executable, not an object file";
	if (elf->count > SEGMENTS_MAX)
		return "its ELF header lists more than 64 segments: link it with fewer";
	if (elf->entry_size < l->minimum_entry)
		return "its ELF program header entries are too small: the file is damaged";
	if (!range_within(elf->table, (u64)elf->count * elf->entry_size, elf->size))
		return "the file is truncated: its ELF program headers lie past its end";
	return NULL;
}

bool elf_open(struct boot_job *job, const struct boot_source *s, struct elf *elf)
{
	const char *wrong = check_identity(s);

	if (!wrong) {
		bool is64 = s->kernel[EI_CLASS] == ELFCLASS64;
		const struct layout *l = &layouts[is64];
		*elf = (struct elf){
			.file = s->kernel,
			.size = s->kernel_size,
			.is64 = is64,
			.entry = get_word(s->kernel + l->entry, is64),
			.table = get_word(s->kernel + l->table, is64),
			.entry_size = get_u16(s->kernel + l->entry_size),
			.count = get_u16(s->kernel + l->count),
		};
		wrong = check_table(elf, l);
	}
	return wrong && job ? boot_fail(job, "kernel: %s", wrong) : !wrong;
}

static struct segment_header get_segment(const struct elf *elf, unsigned i)
{
	const u8 *p = elf->file + elf->table + (u64)i * elf->entry_size;

	if (elf->is64)
		return (struct segment_header){ get_u32(p),      get_u64(p + 8),  get_u64(p + 16), get_u64(p + 24),
						get_u64(p + 32), get_u64(p + 40), get_u64(p + 48) };
	return (struct segment_header){ get_u32(p),      get_u32(p + 4),  get_u32(p + 8), get_u32(p + 12),
					get_u32(p + 16), get_u32(p + 20), get_u32(p + 28) };
}

/* One note of a note segment, `rest` bytes before its end. Returns the bytes it takes, 0 at the end or if it is
 * damaged. */
static u64 parse_note(const u8 *p, u64 rest, u64 align, u32 *type, const u8 **descriptor, u32 *size)
{
	if (rest < NOTE_HEADER)
		return 0;
	u64 name_size = get_u32(p);
	*size = get_u32(p + 4);
	*type = get_u32(p + 8);
	u64 at = boot_round_up(NOTE_HEADER + name_size, align);
	if (!range_within(at, *size, rest))
		return 0;
	*descriptor = p + at;
	return MIN(boot_round_up(at + *size, align), rest);
}

static bool find_in_segment(const struct elf *elf, const struct segment_header *s, const char *owner, u32 type,
			    const u8 **descriptor, u32 *size)
{
	u32 owner_size = string_length(owner) + 1, found;

	if (!range_within(s->offset, s->file_size, elf->size))
		return false;
	const u8 *p = elf->file + s->offset;
	u64 rest = s->file_size, used;
	while ((used = parse_note(p, rest, s->align == 8 ? 8 : 4, &found, descriptor, size))) {
		/* A name of this size lies before the descriptor, hence within the segment. */
		if (found == type && get_u32(p) == owner_size && !memcmp(p + NOTE_HEADER, owner, owner_size))
			return true;
		p += used;
		rest -= used;
	}
	return false;
}

bool elf_find_note(const struct elf *elf, const char *owner, u32 type, const u8 **descriptor, u32 *size)
{
	for (unsigned i = 0; i < elf->count; i++) {
		struct segment_header s = get_segment(elf, i);
		if (s.type == PT_NOTE && find_in_segment(elf, &s, owner, type, descriptor, size))
			return true;
	}
	return false;
}

static bool load_segment(struct boot_job *job, const struct elf *elf, const struct segment_header *s)
{
	if (s->file_size > s->memory_size)
		return boot_fail(
			job,
			"kernel: its segment at %#lx has more bytes in the file than in memory: the file is damaged",
			s->paddr);
	if (!range_within(s->offset, s->file_size, elf->size))
		return boot_fail(job,
				 "kernel: the file is truncated: its segment at %#lx ends past the file's %lu bytes",
				 s->paddr, elf->size);
	return boot_check_range(job, s->paddr, s->memory_size) &&
	       boot_copy(job, s->paddr, elf->file + s->offset, s->file_size) &&
	       boot_zero(job, s->paddr + s->file_size, s->memory_size - s->file_size);
}

bool elf_load(struct boot_job *job, const struct elf *elf)
{
	u64 first = ~0ull, end = 0, total = 0;

	for (unsigned i = 0; i < elf->count; i++) {
		struct segment_header s = get_segment(elf, i);
		if (s.type != PT_LOAD || !s.memory_size)
			continue;
		if (!load_segment(job, elf, &s))
			return false;
		/* Segments that overlap could make this loop fill the same memory again and again. */
		total += s.memory_size;
		if (total > job->low_end)
			return boot_fail(job, "kernel: its ELF segments overlap: the file is damaged");
		first = MIN(first, s.paddr);
		end = MAX(end, s.paddr + s.memory_size);
	}
	if (!end)
		return boot_fail(job, "kernel: the ELF file has nothing to load: use a linked executable");
	boot_set_kernel(job, first, end - first);
	return true;
}

u64 elf_physical_entry(const struct elf *elf)
{
	for (unsigned i = 0; i < elf->count; i++) {
		struct segment_header s = get_segment(elf, i);
		if (s.type == PT_LOAD && elf->entry - s.vaddr < s.memory_size)
			return elf->entry - s.vaddr + s.paddr;
	}
	return elf->entry;
}
