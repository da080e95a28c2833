/* Multiboot 2: the header's tags and the information tags, whose address the kernel finds in EBX.
 * "Multiboot2 Specification version 2.0", "OS image format", "Machine state", "Boot information format". */
#include "boot/multiboot.h"

#include "boot/e820.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define HEADER_MAGIC 0xe85250d6u
#define BOOTLOADER_MAGIC 0x36d76289u
#define SEARCH_LIMIT 32768
#define SEARCH_STEP 8
#define HEADER_SIZE 16
#define TAG_SIZE 8
#define ARCHITECTURE_I386 0
#define TAG_OPTIONAL BIT(0)
#define LOAD_FROM_FILE_START 0xffffffffu

enum header_tag {
	HEADER_END = 0,
	HEADER_REQUEST = 1,
	HEADER_ADDRESS = 2,
	HEADER_ENTRY = 3,
	HEADER_CONSOLE = 4,
	HEADER_FRAMEBUFFER = 5,
	HEADER_MODULE_ALIGN = 6,
	HEADER_EFI_SERVICES = 7,
	HEADER_EFI32_ENTRY = 8,
	HEADER_EFI64_ENTRY = 9,
	HEADER_RELOCATABLE = 10,
};

enum info_tag {
	INFO_END = 0,
	INFO_CMDLINE = 1,
	INFO_LOADER_NAME = 2,
	INFO_MODULE = 3,
	INFO_MEMORY = 4,
	INFO_MAP = 6,
	INFO_ACPI_OLD = 14,
	INFO_ACPI_NEW = 15,
	INFO_LOAD_BASE = 21,
};

#define INFO_KNOWN                                                                                                     \
	(BIT(INFO_CMDLINE) | BIT(INFO_LOADER_NAME) | BIT(INFO_MODULE) | BIT(INFO_MEMORY) | BIT(INFO_MAP) |             \
	 BIT(INFO_ACPI_OLD) | BIT(INFO_ACPI_NEW) | BIT(INFO_LOAD_BASE))

#define RSDP_OLD_SIZE 20
#define RSDP_NEW_SIZE 36

/* What the header's tags say. */
struct request {
	bool has_address, has_entry;
	struct multiboot_address address;
	u32 entry;
};

static bool find_header(const struct boot_source *s, u64 *offset)
{
	u64 limit = MIN(s->kernel_size, SEARCH_LIMIT);

	for (u64 i = 0; i + HEADER_SIZE <= limit; i += SEARCH_STEP) {
		const u8 *p = s->kernel + i;
		if (get_u32(p) != HEADER_MAGIC || get_u32(p) + get_u32(p + 4) + get_u32(p + 8) + get_u32(p + 12))
			continue;
		*offset = i;
		return true;
	}
	return false;
}

bool multiboot2_probe(const struct boot_source *s)
{
	u64 offset;

	return find_header(s, &offset);
}

/* ---- header tags; `p` is the tag, `size` its size, which lies within the header ---- */

static bool check_requested_info(struct boot_job *job, const u8 *p, u32 size)
{
	for (u32 i = TAG_SIZE; i + 4 <= size; i += 4) {
		u32 type = get_u32(p + i);
		if (type >= 64 || !(BIT(type) & INFO_KNOWN))
			return boot_fail(
				job,
				"kernel: its multiboot2 header demands information of type %u, which there is not: "
				"make the tag optional",
				type);
	}
	return true;
}

static bool read_address(struct boot_job *job, const u8 *p, u32 size, u64 offset, struct request *r)
{
	if (size < TAG_SIZE + sizeof(r->address))
		return boot_fail(job, "kernel: the address tag of its multiboot2 header is too short: mend the header");
	r->has_address = true;
	__builtin_memcpy(&r->address, p + TAG_SIZE, sizeof(r->address));
	if (r->address.load == LOAD_FROM_FILE_START)
		r->address.load = r->address.header - offset;
	return true;
}

static bool read_entry(struct boot_job *job, const u8 *p, u32 size, struct request *r)
{
	if (size < TAG_SIZE + 4)
		return boot_fail(job, "kernel: the entry tag of its multiboot2 header is too short: mend the header");
	r->has_entry = true;
	r->entry = get_u32(p + TAG_SIZE);
	return true;
}

static bool read_tag(struct boot_job *job, const u8 *p, u32 size, u64 offset, struct request *r)
{
	u16 type = get_u16(p);
	bool optional = get_u16(p + 2) & TAG_OPTIONAL;

	switch (type) {
	case HEADER_REQUEST:
		return optional || check_requested_info(job, p, size);
	case HEADER_ADDRESS:
		return read_address(job, p, size, offset, r);
	case HEADER_ENTRY:
		return read_entry(job, p, size, r);
	case HEADER_CONSOLE:      /* the serial line is always there */
	case HEADER_MODULE_ALIGN: /* modules are page-aligned in any case */
	case HEADER_RELOCATABLE:  /* a permission, not a demand */
	case HEADER_EFI32_ENTRY:  /* entries for a firmware that is not there */
	case HEADER_EFI64_ENTRY:
		return true;
	}
	if (optional)
		return true;
	return boot_fail(job, "kernel: its multiboot2 header demands %s (tag %u): make the tag optional",
			 type == HEADER_FRAMEBUFFER    ? "a framebuffer, and there is no display"
			 : type == HEADER_EFI_SERVICES ? "EFI boot services, and there is no EFI"
						       : "something unknown",
			 type);
}

static bool read_header(struct boot_job *job, u64 offset, struct request *r)
{
	const u8 *header = job->source->kernel + offset;
	u64 length = get_u32(header + 8);

	if (get_u32(header + 4) != ARCHITECTURE_I386)
		return boot_fail(job,
				 "kernel: its multiboot2 header is for another kind of machine: use an x86 kernel");
	if (!range_within(offset, length, job->source->kernel_size))
		return boot_fail(job, "kernel: the file is truncated within its multiboot2 header");
	for (u64 at = HEADER_SIZE; at + TAG_SIZE <= length;) {
		u32 size = get_u32(header + at + 4);
		if (size < TAG_SIZE || size > length - at)
			return boot_fail(
				job, "kernel: a tag of its multiboot2 header has an impossible size: mend the header");
		if (get_u16(header + at) == HEADER_END)
			return true;
		if (!read_tag(job, header + at, size, offset, r))
			return false;
		at += boot_round_up(size, SEARCH_STEP);
	}
	return boot_fail(job, "kernel: its multiboot2 header has no end tag: mend the header");
}

/* ---- information tags ---- */

#define INFO_SIZE_MAX (BOOT_LOW_END - BOOT_INFO)

/* The sum of all parts is bounded: the command line by BOOT_CMDLINE_MAX, the others by far less than a page. */
struct info {
	u8 *data;
	u32 used;
};
static_assert(BOOT_CMDLINE_MAX + PAGE_SIZE < INFO_SIZE_MAX, "the information always fits");

/* Add a tag: its own bytes, then those of `tail`. */
static void put_tag(struct info *info, u32 type, const void *body, u32 size, const void *tail, u32 tail_size)
{
	u8 *p = info->data + info->used;
	u32 total = TAG_SIZE + size + tail_size;

	put_u32(p, type);
	put_u32(p + 4, total);
	__builtin_memcpy(p + TAG_SIZE, body, size);
	__builtin_memcpy(p + TAG_SIZE + size, tail, tail_size);
	info->used += boot_round_up(total, TAG_SIZE);
}

static void put_string(struct info *info, u32 type, const char *string)
{
	put_tag(info, type, string, string_length(string) + 1, "", 0);
}

static void put_map(struct info *info, u64 ram_size)
{
	struct map_entry {
		u64 base, size;
		u32 type, reserved;
	} entries[E820_ENTRIES_MAX];
	const u32 head[] = { sizeof(entries[0]), 0 };
	struct e820_entry map[E820_ENTRIES_MAX];
	unsigned count = e820_build(ram_size, map);

	for (unsigned i = 0; i < count; i++)
		entries[i] = (struct map_entry){ map[i].base, map[i].size, map[i].type, 0 };
	put_tag(info, INFO_MAP, head, sizeof(head), entries, count * sizeof(entries[0]));
}

static void put_acpi(struct boot_job *job, struct info *info)
{
	u8 rsdp[RSDP_NEW_SIZE];

	if (!ram_read(job->ram, job->rsdp, rsdp, sizeof(rsdp)))
		return;
	put_tag(info, INFO_ACPI_OLD, rsdp, RSDP_OLD_SIZE, "", 0);
	put_tag(info, INFO_ACPI_NEW, rsdp, RSDP_NEW_SIZE, "", 0);
}

static void put_tags(struct boot_job *job, struct info *info)
{
	const struct boot_entry *e = job->entry;
	const u32 module[] = { e->initrd_base, e->initrd_base + e->initrd_size };
	const u32 memory[] = { multiboot_lower_kib(), multiboot_upper_kib(job) };
	const u32 base = e->kernel_base;

	put_string(info, INFO_CMDLINE, job->source->cmdline ? job->source->cmdline : "");
	put_string(info, INFO_LOADER_NAME, BOOT_LOADER_NAME);
	if (e->initrd_size)
		put_tag(info, INFO_MODULE, module, sizeof(module), "", 1);
	put_tag(info, INFO_MEMORY, memory, sizeof(memory), "", 0);
	put_map(info, job->source->ram_size);
	put_acpi(job, info);
	put_tag(info, INFO_LOAD_BASE, &base, sizeof(base), "", 0);
	put_tag(info, INFO_END, "", 0, "", 0);
	put_u32(info->data, info->used);
}

static bool put_info(struct boot_job *job)
{
	struct info info = { .data = host_alloc(INFO_SIZE_MAX), .used = TAG_SIZE };
	bool done;

	if (!info.data)
		return boot_fail(job, "the host has no memory left");
	put_tags(job, &info);
	done = boot_copy(job, BOOT_INFO, info.data, info.used);
	host_free(info.data);
	return done;
}

bool multiboot2_load(struct boot_job *job)
{
	struct request r = { 0 };
	u64 offset;

	if (!find_header(job->source, &offset))
		return boot_fail(job,
				 "kernel: no multiboot2 header in its first 32768 bytes: link the header to the front");
	if (!read_header(job, offset, &r))
		return false;
	if (r.has_address && !r.has_entry)
		return boot_fail(job, "kernel: its multiboot2 header has an address tag but no entry tag: add one");
	if (!multiboot_load_image(job, offset, r.has_address ? &r.address : NULL, r.has_entry ? &r.entry : NULL))
		return false;
	job->entry->gpr[RAX] = BOOTLOADER_MAGIC;
	job->entry->gpr[RBX] = BOOT_INFO;
	/* The command line goes into the information; this bounds it. */
	return boot_place_initrd(job, ~0ull) && boot_put_cmdline(job, ~0ull) && put_info(job) &&
	       boot_put_descriptors(job, BOOT_MODE_PROTECTED);
}
