/* Reading multiboot information. Multiboot2 Specification version 2.0, "Boot information format"; Multiboot Specification version 0.6.96, likewise.
 * The boot loader is trusted as the firmware is, but its tables may be larger than ours, or broken: what does not fit is left out, and nothing is
 * read but through boot_at, with its length. */
#include "host/metal/boot_info.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define MAGIC_MULTIBOOT1 0x2badb002u
#define MAGIC_MULTIBOOT2 0x36d76289u

#define ADDRESS_END BIT(52) /* no RAM lies there */

/* How long the text at `address` is, `limit` at most: to its end, or to where memory ends. */
static size_t text_length(u64 address, size_t limit)
{
	size_t n = 0;
	const u8 *c;
	while (n < limit && (c = boot_at(address + n, 1)) && *c)
		n++;
	return n;
}

static const char *copy_text(struct boot_info *info, const char *text, size_t length)
{
	if (length >= sizeof(info->text) - info->text_used)
		return "";
	char *to = info->text + info->text_used;
	memcpy(to, text, length);
	to[length] = 0;
	info->text_used += length + 1;
	return to;
}

static void add_range(struct boot_info *info, u64 base, u64 size)
{
	if (info->ranges < BOOT_RANGES_MAX && size && base < ADDRESS_END && size <= ADDRESS_END - base)
		info->ram[info->ranges++] = (struct boot_range){ base, size };
}

static void add_module(struct boot_info *info, u64 base, u64 end, const char *text, const char *text_end)
{
	if (info->modules == BOOT_MODULES_MAX || end < base)
		return;
	while (text < text_end && *text == ' ')
		text++;
	const char *name = text;
	for (; text < text_end && *text != ' '; text++)
		name = *text == '/' ? text + 1 : name;
	size_t length = (size_t)(text - name);
	while (text < text_end && *text == ' ')
		text++;
	info->module[info->modules++] = (struct boot_module){ copy_text(info, name, length), copy_text(info, text, (size_t)(text_end - text)), base, end - base };
}

/* Without the name of the program, which QEMU puts in front; GRUB does not. */
static void set_cmdline(struct boot_info *info, const char *text, const char *text_end)
{
	const char *end = text;
	while (end < text_end && *end != ' ')
		end++;
	if (end - text >= 4 && !memcmp(end - 4, ".elf", 4))
		text = end;
	size_t length = MIN((size_t)(text_end - text), sizeof(info->cmdline) - 1);
	memcpy(info->cmdline, text, length);
	info->cmdline[length] = 0;
}

/* ---- multiboot2 ---- */

enum { TAG_END = 0, TAG_CMDLINE = 1, TAG_MODULE = 3, TAG_MEMORY = 6, TAG_ACPI_OLD = 14, TAG_ACPI_NEW = 15 };

static void read_cmdline_tag(struct boot_info *info, u64 address, const u8 *tag, u32 size)
{
	const char *text = (const char *)tag + 8;
	set_cmdline(info, text, text + text_length(address + 8, size - 8));
}

static void read_module_tag(struct boot_info *info, u64 address, const u8 *tag, u32 size)
{
	const char *text = (const char *)tag + 16;
	if (size >= 16)
		add_module(info, get_u32(tag + 8), get_u32(tag + 12), text, text + text_length(address + 16, size - 16));
}

static void read_memory_tag(struct boot_info *info, u64 address, const u8 *tag, u32 size)
{
	u32 entry_size = size >= 16 ? get_u32(tag + 8) : 0;
	for (u64 offset = 16; entry_size >= 24 && offset + entry_size <= size; offset += entry_size)
		if (get_u32(tag + offset + 16) == 1)
			add_range(info, get_u64(tag + offset), get_u64(tag + offset + 8));
}

/* The new one has more, and counts if there are both. */
static void read_acpi_tag(struct boot_info *info, u64 address, const u8 *tag, u32 size)
{
	bool is_new = get_u32(tag) == TAG_ACPI_NEW;
	if (size - 8 < (is_new ? sizeof(info->rsdp_copy) : 20) || (info->rsdp && !is_new))
		return;
	memcpy(info->rsdp_copy, tag + 8, MIN(size - 8, sizeof(info->rsdp_copy)));
	info->rsdp = true;
}

static void read_tag(struct boot_info *info, u64 address, const u8 *tag, u32 size)
{
	static void (*const readers[])(struct boot_info *info, u64 address, const u8 *tag, u32 size) = {
		[TAG_CMDLINE] = read_cmdline_tag, [TAG_MODULE] = read_module_tag, [TAG_MEMORY] = read_memory_tag,
		[TAG_ACPI_OLD] = read_acpi_tag, [TAG_ACPI_NEW] = read_acpi_tag,
	};
	u32 type = get_u32(tag);
	if (type < ARRAY_SIZE(readers) && readers[type])
		readers[type](info, address, tag, size);
}

static const char *read_multiboot2(struct boot_info *info, u64 address)
{
	const u8 *header = boot_at(address, 8);
	u32 total = header ? get_u32(header) : 0;
	info->loader = "multiboot2";
	for (u64 offset = 8; offset + 8 <= total;) {
		const u8 *tag = boot_at(address + offset, 8);
		u32 size = tag ? get_u32(tag + 4) : 0;
		if (size < 8 || get_u32(tag) == TAG_END || size > total - offset || !boot_at(address + offset, size))
			break;
		read_tag(info, address + offset, tag, size);
		offset += (size + 7ull) & ~7ull;
	}
	return info->ranges ? NULL : "the boot loader gave no memory map";
}

/* ---- multiboot 1 ---- */

#define FLAG_CMDLINE BIT(2)
#define FLAG_MODULES BIT(3)
#define FLAG_MEMORY BIT(6)
#define MBI_SIZE 52 /* as far as we read it */

/* The memory in front of each entry's address is its size, itself not counted. */
static void read_map(struct boot_info *info, u64 map, u32 length)
{
	for (u64 offset = 0; offset + 24 <= length;) {
		const u8 *entry = boot_at(map + offset, 24);
		if (!entry || get_u32(entry) < 20)
			return;
		if (get_u32(entry + 20) == 1)
			add_range(info, get_u64(entry + 4), get_u64(entry + 12));
		offset += get_u32(entry) + 4ull;
	}
}

/* The bytes of a text that ends with a zero; empty: it is nowhere. */
static const char *text_at(u64 address, size_t *length)
{
	*length = address ? text_length(address, BOOT_TEXT_MAX) : 0;
	return *length ? (const char *)boot_at(address, *length) : "";
}

static const char *read_multiboot1(struct boot_info *info, u64 address)
{
	const u8 *mbi = boot_at(address, MBI_SIZE), *module;
	u32 flags = mbi ? get_u32(mbi) : 0;
	size_t length;
	info->loader = "multiboot 1";
	if (!(flags & FLAG_MEMORY))
		return "the boot loader gave no memory map";
	if (flags & FLAG_CMDLINE) {
		const char *text = text_at(get_u32(mbi + 16), &length);
		set_cmdline(info, text, text + length);
	}
	read_map(info, get_u32(mbi + 48), get_u32(mbi + 44));
	u32 count = flags & FLAG_MODULES ? get_u32(mbi + 20) : 0;
	for (u32 i = 0; i < count && info->modules < BOOT_MODULES_MAX && (module = boot_at(get_u32(mbi + 24) + i * 16ull, 16)); i++) {
		const char *text = text_at(get_u32(module + 8), &length);
		add_module(info, get_u32(module), get_u32(module + 4), text, text + length);
	}
	return info->ranges ? NULL : "the boot loader gave no memory map";
}

const char *boot_info_read(struct boot_info *info, u32 magic, u64 address)
{
	if (magic == MAGIC_MULTIBOOT2)
		return read_multiboot2(info, address);
	if (magic == MAGIC_MULTIBOOT1)
		return read_multiboot1(info, address);
	return "this boot loader speaks neither multiboot2 nor multiboot 1";
}

const struct boot_module *boot_info_find(const struct boot_info *info, const char *name)
{
	for (unsigned i = 0; i < info->modules; i++)
		if (string_equal(info->module[i].name, name))
			return &info->module[i];
	return NULL;
}
