/* SMBIOS structures (smbios.h), each as the chapter of its type lists its fields. A structure is a header, its fields, then its strings, which
 * the fields name by number, and a zero; without strings two zeros. */
#include "boot/smbios.h"

#include "dev/map.h"
#include "lib/bytes.h"
#include "lib/string.h"

enum { SYSTEM = 1, CHASSIS = 3, PROCESSOR = 4, MEMORY_ARRAY = 16, MEMORY_DEVICE = 17, MEMORY_MAPPED = 19, SYSTEM_BOOT = 32, END = 127 };

/* Handles: the type in the upper byte, or as the entries of many begin. */
#define HANDLE(type, index) ((u16)((type) << 8 | (index)))
#define NO_HANDLE 0xfffe /* "not provided" */

#define OTHER 1
#define UNKNOWN 2
#define MADE_BY "nadir"

#define KIB 10
#define MIB 20
#define SIZE_EXTENDED 0x7fff /* the size is in the extended field */

struct writer {
	struct smbios *smbios;
	u32 start; /* of the structure in hand */
	unsigned structures;
	u32 largest;
	u8 strings;
};

static void put(struct writer *w, const void *bytes, u32 size)
{
	struct smbios *s = w->smbios;
	memcpy(s->tables + s->size, bytes, size);
	s->size += size;
}

/* `fields` follow the 4 bytes of the header, `size` of them. */
static void begin(struct writer *w, u8 type, u16 handle, const void *fields, u8 size)
{
	const u8 header[4] = { type, (u8)(size + 4), (u8)handle, (u8)(handle >> 8) };
	w->start = w->smbios->size;
	w->strings = 0;
	put(w, header, sizeof(header));
	put(w, fields, size);
}

static void string(struct writer *w, const char *text)
{
	put(w, text, (u32)string_length(text) + 1);
	w->strings++;
}

static void end(struct writer *w)
{
	put(w, "\0", w->strings ? 1 : 2);
	w->structures++;
	w->largest = MAX(w->largest, w->smbios->size - w->start);
}

static void put_system(struct writer *w)
{
	const struct {
		u8 manufacturer, product, version, serial, uuid[16], wake_up, sku, family;
	} __attribute__((packed)) f = { .manufacturer = 1, .product = 2, .version = 3, .wake_up = 6 /* power switch */ };
	begin(w, SYSTEM, HANDLE(SYSTEM, 0), &f, sizeof(f));
	string(w, MADE_BY);
	string(w, "Virtual Machine (Q35)");
	string(w, "1");
	end(w);
}

static void put_chassis(struct writer *w)
{
	const struct {
		u8 manufacturer, type, version, serial, asset_tag, boot_up, power, thermal, security;
		u32 oem;
		u8 height, power_cords, elements, element_size, sku;
	} __attribute__((packed)) f = { .manufacturer = 1, .type = OTHER, .boot_up = 3, .power = 3, .thermal = 3, .security = UNKNOWN };
	begin(w, CHASSIS, HANDLE(CHASSIS, 0), &f, sizeof(f));
	string(w, MADE_BY);
	end(w);
}

static void put_processor(struct writer *w, unsigned index)
{
	const struct {
		u8 socket, type, family, manufacturer;
		u64 id;
		u8 version, voltage;
		u16 clock, max_speed, speed;
		u8 status, upgrade;
		u16 cache[3];
		u8 serial, asset_tag, part, cores, cores_enabled, threads;
		u16 characteristics, family2;
	} __attribute__((packed)) f = {
		.socket = 1, .type = 3 /* central processor */, .family = OTHER, .manufacturer = 2, .status = 0x41 /* there, enabled */,
		.upgrade = OTHER, .cache = { 0xffff, 0xffff, 0xffff }, .cores = 1, .cores_enabled = 1, .threads = 1,
		.characteristics = 4 /* 64 bits */, .family2 = OTHER,
	};
	const char name[] = { 'C', 'P', 'U', ' ', (char)('0' + index / 10), (char)('0' + index % 10), 0 };
	begin(w, PROCESSOR, HANDLE(PROCESSOR, index), &f, sizeof(f));
	string(w, name);
	string(w, MADE_BY);
	end(w);
}

static void put_memory_array(struct writer *w, u64 memory)
{
	const bool large = memory >> KIB >= 0x80000000;
	const struct {
		u8 location, use, correction;
		u32 capacity; /* KiB */
		u16 error_handle, devices;
		u64 extended; /* bytes */
	} __attribute__((packed)) f = {
		.location = OTHER, .use = 3 /* system memory */, .correction = 3 /* none */,
		.capacity = large ? 0x80000000 : (u32)(memory >> KIB), .error_handle = NO_HANDLE, .devices = 1, .extended = large ? memory : 0,
	};
	begin(w, MEMORY_ARRAY, HANDLE(MEMORY_ARRAY, 0), &f, sizeof(f));
	end(w);
}

static void put_memory_device(struct writer *w, u64 memory)
{
	const bool large = memory >> MIB >= SIZE_EXTENDED;
	const struct {
		u16 array, error_handle, total_width, data_width, size;
		u8 form, set, locator, bank, type;
		u16 detail, speed;
		u8 manufacturer, serial, asset_tag, part, attributes;
		u32 extended;
		u16 configured_speed, voltage[3];
	} __attribute__((packed)) f = {
		.array = HANDLE(MEMORY_ARRAY, 0), .error_handle = NO_HANDLE, .total_width = 0xffff, .data_width = 0xffff,
		.size = large ? SIZE_EXTENDED : (u16)(memory >> MIB), .form = 9 /* DIMM */, .locator = 1, .type = 7 /* RAM */, .detail = BIT(1),
		.manufacturer = 2, .extended = large ? (u32)(memory >> MIB) : 0,
	};
	begin(w, MEMORY_DEVICE, HANDLE(MEMORY_DEVICE, 0), &f, sizeof(f));
	string(w, "DIMM 0");
	string(w, MADE_BY);
	end(w);
}

/* Addresses in KiB, the last one included, or in bytes where that is too little. */
static void put_memory_mapped(struct writer *w, unsigned index, u64 base, u64 size)
{
	const u64 last = base + size - 1;
	const bool large = last >> KIB >= 0xffffffff;
	const struct {
		u32 start, end;
		u16 array;
		u8 width;
		u64 extended_start, extended_end;
	} __attribute__((packed)) f = {
		.start = large ? ~0u : (u32)(base >> KIB), .end = large ? ~0u : (u32)(last >> KIB), .array = HANDLE(MEMORY_ARRAY, 0), .width = 1,
		.extended_start = large ? base : 0, .extended_end = large ? last : 0,
	};
	begin(w, MEMORY_MAPPED, HANDLE(MEMORY_MAPPED, index), &f, sizeof(f));
	end(w);
}

static void put_boot(struct writer *w)
{
	static const u8 fields[7]; /* no errors */
	begin(w, SYSTEM_BOOT, HANDLE(SYSTEM_BOOT, 0), fields, sizeof(fields));
	end(w);
	begin(w, END, HANDLE(END, 0), fields, 0);
	end(w);
}

static void fill_anchor(const struct writer *w)
{
	u8 *a = w->smbios->anchor;
	memcpy(a, "_SM_", 4);
	a[5] = SMBIOS_ANCHOR_SIZE;
	a[6] = 2;
	a[7] = 8;
	put_u16(a + 8, (u16)w->largest);
	memcpy(a + 16, "_DMI_", 5);
	put_u16(a + 22, (u16)w->smbios->size);
	put_u16(a + 28, (u16)w->structures);
	a[30] = 0x28; /* version, BCD */
}

void smbios_build(struct smbios *smbios, unsigned cpus, u64 memory)
{
	struct writer w = { .smbios = smbios };
	u64 low = MIN(memory, MAP_LOW_RAM_END);
	put_system(&w);
	put_chassis(&w);
	for (unsigned i = 0; i < cpus; i++)
		put_processor(&w, i);
	put_memory_array(&w, memory);
	put_memory_device(&w, memory);
	put_memory_mapped(&w, 0, 0, low);
	if (memory > low)
		put_memory_mapped(&w, 1, MAP_HIGH_RAM, memory - low);
	put_boot(&w);
	fill_anchor(&w);
}
