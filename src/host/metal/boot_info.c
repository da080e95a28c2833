/* Reading multiboot information. Multiboot2 Specification version 2.0, "Boot information format"; Multiboot Specification version 0.6.96, likewise.
 * The boot loader is trusted as the firmware is, but its tables may be larger than ours: what does not fit is left out, and said. */
#include "host/metal/boot_info.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define MAGIC_MULTIBOOT1 0x2badb002u
#define MAGIC_MULTIBOOT2 0x36d76289u

static const u8 *at(u64 address)
{
	return (const u8 *)(uintptr_t)address;
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
	if (info->ranges < BOOT_RANGES_MAX && size)
		info->ram[info->ranges++] = (struct boot_range){ base, size };
}

static void add_module(struct boot_info *info, u64 base, u64 end, const char *text)
{
	if (info->modules == BOOT_MODULES_MAX || end < base)
		return;
	while (*text == ' ')
		text++;
	const char *name = text;
	for (; *text && *text != ' '; text++)
		name = *text == '/' ? text + 1 : name;
	size_t length = (size_t)(text - name);
	while (*text == ' ')
		text++;
	info->module[info->modules++] = (struct boot_module){ copy_text(info, name, length), copy_text(info, text, string_length(text)), base, end - base };
}

/* Without the name of the program, which QEMU puts in front; GRUB does not. */
static void set_cmdline(struct boot_info *info, const char *text)
{
	const char *end = text;
	while (*end && *end != ' ')
		end++;
	if (end - text >= 4 && !memcmp(end - 4, ".elf", 4))
		text = end;
	size_t length = MIN(string_length(text), sizeof(info->cmdline) - 1);
	memcpy(info->cmdline, text, length);
	info->cmdline[length] = 0;
}

/* ---- multiboot2 ---- */

enum { TAG_END = 0, TAG_CMDLINE = 1, TAG_MODULE = 3, TAG_MEMORY = 6, TAG_ACPI_OLD = 14, TAG_ACPI_NEW = 15 };

static void read_memory_tag(struct boot_info *info, const u8 *tag, u32 size)
{
	u32 entry_size = get_u32(tag + 8);
	for (u32 offset = 16; entry_size >= 24 && offset + entry_size <= size; offset += entry_size)
		if (get_u32(tag + offset + 16) == 1)
			add_range(info, get_u64(tag + offset), get_u64(tag + offset + 8));
}

static void read_acpi_tag(struct boot_info *info, const u8 *tag, u32 size)
{
	memcpy(info->rsdp_copy, tag + 8, MIN(size - 8, sizeof(info->rsdp_copy)));
	info->rsdp = true;
}

static const char *read_multiboot2(struct boot_info *info, u64 address)
{
	u32 total = get_u32(at(address));
	info->loader = "multiboot2";
	for (u32 offset = 8; offset + 8 <= total;) {
		const u8 *tag = at(address + offset);
		u32 type = get_u32(tag), size = get_u32(tag + 4);
		if (type == TAG_END || size < 8)
			break;
		if (type == TAG_CMDLINE)
			set_cmdline(info, (const char *)tag + 8);
		else if (type == TAG_MODULE)
			add_module(info, get_u32(tag + 8), get_u32(tag + 12), (const char *)tag + 16);
		else if (type == TAG_MEMORY)
			read_memory_tag(info, tag, size);
		else if (type == TAG_ACPI_NEW || (type == TAG_ACPI_OLD && !info->rsdp))
			read_acpi_tag(info, tag, size);
		offset += (size + 7) & ~7u;
	}
	return info->ranges ? NULL : "the boot loader gave no memory map";
}

/* ---- multiboot 1 ---- */

#define FLAG_CMDLINE BIT(2)
#define FLAG_MODULES BIT(3)
#define FLAG_MEMORY BIT(6)

static const char *read_multiboot1(struct boot_info *info, u64 address)
{
	const u8 *mbi = at(address);
	u32 flags = get_u32(mbi);
	info->loader = "multiboot 1";
	if (!(flags & FLAG_MEMORY))
		return "the boot loader gave no memory map";
	if (flags & FLAG_CMDLINE)
		set_cmdline(info, (const char *)at(get_u32(mbi + 16)));
	u32 map = get_u32(mbi + 48), length = get_u32(mbi + 44);
	for (u32 offset = 0; offset + 24 <= length; offset += get_u32(at(map + offset)) + 4)
		if (get_u32(at(map + offset + 20)) == 1)
			add_range(info, get_u64(at(map + offset + 4)), get_u64(at(map + offset + 12)));
	u32 count = flags & FLAG_MODULES ? get_u32(mbi + 20) : 0;
	for (u32 i = 0; i < count; i++) {
		const u8 *module = at(get_u32(mbi + 24) + i * 16);
		u32 text = get_u32(module + 8);
		add_module(info, get_u32(module), get_u32(module + 4), text ? (const char *)at(text) : "");
	}
	return NULL;
}

const char *boot_info_read(struct boot_info *info, u32 magic, u64 address)
{
	if (magic == MAGIC_MULTIBOOT2)
		return read_multiboot2(info, address);
	if (magic == MAGIC_MULTIBOOT1)
		return read_multiboot1(info, address);
	return "this boot loader speaks neither multiboot2 nor multiboot 1";
}
