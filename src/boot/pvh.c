/* Loads a PVH kernel and hands it its start info, whose address it finds in EBX. Xen, "x86/HVM direct boot ABI". */
#include "boot/pvh.h"

#include "boot/e820.h"
#include "boot/elf.h"
#include "lib/bytes.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_MAGIC 0x336ec578
#define START_VERSION 1

struct start_info {
	u32 magic, version, flags, module_count;
	u64 modules, cmdline, rsdp;
	u64 memory_map;
	u32 memory_map_count, reserved;
};
static_assert(offsetof(struct start_info, memory_map) == 40, "struct hvm_start_info");
static_assert(sizeof(struct start_info) == 56, "struct hvm_start_info");

struct module {
	u64 base, size, cmdline, reserved;
};
static_assert(sizeof(struct module) == 32, "struct hvm_modlist_entry");

struct map_entry {
	u64 base, size;
	u32 type, reserved; /* types are those of E820 */
};
static_assert(sizeof(struct map_entry) == 24, "struct hvm_memmap_table_entry");

/* What start_info points to. */
struct start_data {
	struct module module;
	struct map_entry map[E820_ENTRIES_MAX];
};

static bool find_entry(const struct elf *elf, u64 *entry)
{
	const u8 *descriptor;
	u32 size;

	if (!elf_find_note(elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &descriptor, &size) || (size != 4 && size != 8))
		return false;
	*entry = size == 8 ? get_u64(descriptor) : get_u32(descriptor);
	return true;
}

bool pvh_probe(const struct boot_source *s)
{
	struct elf elf;
	u64 entry;

	return elf_open(NULL, s, &elf) && find_entry(&elf, &entry);
}

static bool put_start_info(struct boot_job *job)
{
	struct start_data data = { .module = { job->entry->initrd_base, job->entry->initrd_size, 0, 0 } };
	struct e820_entry map[E820_ENTRIES_MAX];
	struct start_info info = {
		.magic = START_MAGIC,
		.version = START_VERSION,
		.module_count = job->entry->initrd_size ? 1 : 0,
		.modules = job->entry->initrd_size ? BOOT_DATA + offsetof(struct start_data, module) : 0,
		.cmdline = BOOT_CMDLINE,
		.rsdp = job->rsdp,
		.memory_map = BOOT_DATA + offsetof(struct start_data, map),
		.memory_map_count = e820_build(job->source->ram_size, map),
	};

	for (unsigned i = 0; i < info.memory_map_count; i++)
		data.map[i] = (struct map_entry){ map[i].base, map[i].size, map[i].type, 0 };
	return boot_copy(job, BOOT_DATA, &data, sizeof(data)) && boot_copy(job, BOOT_INFO, &info, sizeof(info));
}

bool pvh_load(struct boot_job *job)
{
	struct elf elf;
	u64 entry;

	if (!elf_open(job, job->source, &elf))
		return false;
	if (!find_entry(&elf, &entry))
		return boot_fail(job,
				 "kernel: the ELF file has no PVH entry note: link it with a Xen PHYS32_ENTRY note");
	if (!elf_load(job, &elf) || !boot_set_start(job, entry))
		return false;
	job->entry->gpr[RBX] = BOOT_INFO;
	return boot_place_initrd(job, ~0ull) && boot_put_cmdline(job, ~0ull) && put_start_info(job) &&
	       boot_put_descriptors(job, BOOT_MODE_PROTECTED);
}
