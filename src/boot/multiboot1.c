/* Multiboot 1: the header's checks and the information structure, whose address the kernel finds in EBX.
 * "Multiboot Specification version 0.6.96", "OS image format", "Machine state", "Boot information format". */
#include "boot/multiboot.h"

#include "boot/e820.h"
#include "lib/bytes.h"

#define HEADER_MAGIC 0x1badb002u
#define BOOTLOADER_MAGIC 0x2badb002u
#define SEARCH_LIMIT 8192
#define SEARCH_STEP 4

/* What the kernel demands. Modules are page-aligned and memory information is there in any case. */
#define WANT_PAGE_ALIGN BIT(0)
#define WANT_MEMORY BIT(1)
#define WANT_VIDEO BIT(2)
#define WANT_KNOWN (WANT_PAGE_ALIGN | WANT_MEMORY)
#define WANT_MASK 0xffffu
#define HAS_ADDRESS BIT(16)

struct header {
	u32 magic, flags, checksum;
	struct multiboot_address address;
	u32 entry;
};
#define HEADER_SHORT offsetof(struct header, address)

#define INFO_MEMORY BIT(0)
#define INFO_CMDLINE BIT(2)
#define INFO_MODULES BIT(3)
#define INFO_MAP BIT(6)
#define INFO_LOADER_NAME BIT(9)

struct info {
	u32 flags, memory_lower, memory_upper, boot_device, cmdline, module_count, modules;
	u32 symbols[4];
	u32 map_length, map;
	u32 drives_length, drives, config_table, loader_name, apm_table;
	u32 vbe[4];
	u32 framebuffer[7];
};
static_assert(offsetof(struct info, map_length) == 44, "Boot information format");
static_assert(offsetof(struct info, loader_name) == 64, "Boot information format");

struct map_entry {
	u32 size; /* of what follows */
	struct e820_entry entry;
} __attribute__((packed));
static_assert(sizeof(struct map_entry) == 24, "Boot information format");

struct module {
	u32 start, end, name, reserved;
};

/* What the information points to. */
struct info_data {
	struct module module;
	char empty[8], loader_name[8];
	struct map_entry map[E820_ENTRIES_MAX];
};

static bool find_header(const struct boot_source *s, u64 *offset, struct header *h)
{
	u64 limit = MIN(s->kernel_size, SEARCH_LIMIT);

	for (u64 i = 0; i + HEADER_SHORT <= limit; i += SEARCH_STEP) {
		const u8 *p = s->kernel + i;
		if (get_u32(p) != HEADER_MAGIC || get_u32(p) + get_u32(p + 4) + get_u32(p + 8))
			continue;
		*offset = i;
		*h = (struct header){ 0 };
		__builtin_memcpy(h, p, MIN(sizeof(*h), s->kernel_size - i));
		return true;
	}
	return false;
}

bool multiboot1_probe(const struct boot_source *s)
{
	struct header h;
	u64 offset;

	return find_header(s, &offset, &h);
}

static bool check_header(struct boot_job *job, const struct header *h, u64 offset)
{
	u32 unknown = h->flags & WANT_MASK & ~WANT_KNOWN;

	if (unknown & WANT_VIDEO)
		return boot_fail(
			job,
			"kernel: its multiboot header demands a video mode, and there is no display: clear flag 2");
	if (unknown)
		return boot_fail(job, "kernel: its multiboot header demands unknown features (flags %#x): clear them",
				 unknown);
	if ((h->flags & HAS_ADDRESS) && job->source->kernel_size - offset < sizeof(*h))
		return boot_fail(job, "kernel: the file is truncated within its multiboot header");
	return true;
}

static bool put_info(struct boot_job *job)
{
	const struct boot_entry *e = job->entry;
	struct e820_entry map[E820_ENTRIES_MAX];
	unsigned count = e820_build(job->source->ram_size, map);
	struct info_data data = {
		.module = { e->initrd_base, e->initrd_base + e->initrd_size,
			    BOOT_DATA + offsetof(struct info_data, empty), 0 },
		.loader_name = BOOT_LOADER_NAME,
	};
	struct info info = {
		.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER_NAME,
		.memory_lower = multiboot_lower_kib(),
		.memory_upper = multiboot_upper_kib(job),
		.cmdline = BOOT_CMDLINE,
		.module_count = e->initrd_size ? 1 : 0,
		.modules = BOOT_DATA + offsetof(struct info_data, module),
		.map_length = count * sizeof(struct map_entry),
		.map = BOOT_DATA + offsetof(struct info_data, map),
		.loader_name = BOOT_DATA + offsetof(struct info_data, loader_name),
	};

	for (unsigned i = 0; i < count; i++)
		data.map[i] = (struct map_entry){ sizeof(map[i]), map[i] };
	return boot_copy(job, BOOT_DATA, &data, sizeof(data)) && boot_copy(job, BOOT_INFO, &info, sizeof(info));
}

bool multiboot1_load(struct boot_job *job)
{
	struct header h;
	u64 offset;

	if (!find_header(job->source, &offset, &h))
		return boot_fail(job,
				 "kernel: no multiboot header in its first 8192 bytes: link the header to the front");
	bool raw = h.flags & HAS_ADDRESS;
	if (!check_header(job, &h, offset) ||
	    !multiboot_load_image(job, offset, raw ? &h.address : NULL, raw ? &h.entry : NULL))
		return false;
	job->entry->gpr[RAX] = BOOTLOADER_MAGIC;
	job->entry->gpr[RBX] = BOOT_INFO;
	return boot_place_initrd(job, ~0ull) && boot_put_cmdline(job, ~0ull) && put_info(job) &&
	       boot_put_descriptors(job, BOOT_MODE_PROTECTED);
}
