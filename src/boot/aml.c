/* Encodes AML terms and resource descriptors. ACPI specification, "AML Grammar Definition"; "Resource Data Types for
 * ACPI". */
#include "boot/aml.h"

#include "lib/bytes.h"
#include "lib/string.h"

enum {
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_EXT = 0x5b,
	OP_EXT_REGION = 0x80,
	OP_EXT_FIELD = 0x81,
	OP_EXT_DEVICE = 0x82,
	OP_DUAL_NAME = 0x2e,
	OP_MULTI_NAME = 0x2f,
};

/* Resource descriptors: small items hold their length in the tag, large ones in two bytes after it. */
enum {
	RES_IRQ_NOFLAGS = 0x22,
	RES_IO = 0x47,
	RES_END = 0x79,
	RES_MEMORY32_FIXED = 0x86,
	RES_DWORD_SPACE = 0x87,
	RES_QWORD_SPACE = 0x8a,
	RES_WORD_SPACE = 0x88,
};

enum { SPACE_MEMORY, SPACE_IO, SPACE_BUS };
#define SPACE_FIXED 0x0c /* minimum and maximum are fixed, positive decode, produced for others */
#define SPACE_MEMORY_WRITABLE 0x01
#define SPACE_IO_ENTIRE_RANGE 0x03
#define IO_DECODE16 0x01

#define PKG_LENGTH_MAX 4 /* bytes */

void aml_bytes(struct aml *aml, const void *bytes, u32 size)
{
	if (!range_within(aml->used, size, aml->size)) {
		aml->overflow = true;
		return;
	}
	memcpy(aml->data + aml->used, bytes, size);
	aml->used += size;
}

void aml_byte(struct aml *aml, u8 byte)
{
	aml_bytes(aml, &byte, 1);
}

static void little_endian(struct aml *aml, u64 value, unsigned size)
{
	aml_bytes(aml, &value, size);
}

void aml_integer(struct aml *aml, u64 value)
{
	static const struct {
		u64 max;
		u8 op, size;
	} forms[] = {
		{ 0xff, OP_BYTE, 1 }, { 0xffff, OP_WORD, 2 }, { 0xffffffff, OP_DWORD, 4 }, { ~0ull, OP_QWORD, 8 }
	};
	unsigned i = 0;

	if (value <= 1) {
		aml_byte(aml, value ? AML_ONE : AML_ZERO);
		return;
	}
	while (value > forms[i].max)
		i++;
	aml_byte(aml, forms[i].op);
	little_endian(aml, value, forms[i].size);
}

/* One segment of a path, padded to four characters; returns what follows its dot, or NULL. */
static const char *name_segment(struct aml *aml, const char *path)
{
	unsigned n = 0;

	for (; path[n] && path[n] != '.'; n++)
		aml_byte(aml, path[n]);
	for (unsigned i = n; i < 4; i++)
		aml_byte(aml, '_');
	return path[n] == '.' ? path + n + 1 : NULL;
}

void aml_path(struct aml *aml, const char *path)
{
	unsigned segments = 1;

	if (*path == '\\') {
		aml_byte(aml, '\\');
		path++;
	}
	for (const char *p = path; *p; p++)
		segments += *p == '.';
	if (segments == 2)
		aml_byte(aml, OP_DUAL_NAME);
	if (segments > 2) {
		aml_byte(aml, OP_MULTI_NAME);
		aml_byte(aml, segments);
	}
	while (path)
		path = name_segment(aml, path);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'A' + 10;
}

/* Three letters of five bits and four hexadecimal digits, big-endian. ACPI specification, "EISAID (EISA ID String To
 * Integer Conversion Macro)". */
u32 aml_eisa_id(const char *id)
{
	u32 value = 0;

	for (unsigned i = 0; i < 3; i++)
		value = value << 5 | (id[i] & 0x1f);
	for (unsigned i = 3; i < 7; i++)
		value = value << 4 | hex_digit(id[i]);
	return __builtin_bswap32(value);
}

static void begin(struct aml *aml)
{
	static const u8 room[PKG_LENGTH_MAX];

	if (aml->depth == AML_DEPTH_MAX) {
		aml->overflow = true;
		return;
	}
	aml->open[aml->depth++] = aml->used;
	aml_bytes(aml, room, sizeof(room));
}

/* Write the length, which counts its own bytes, in as few bytes as it takes, and close the gap.
 * ACPI specification, "Package Length Encoding". */
void aml_end(struct aml *aml)
{
	if (aml->overflow || !aml->depth)
		return;
	u32 start = aml->open[--aml->depth];
	u32 body = aml->used - start - PKG_LENGTH_MAX;
	unsigned bytes = body + 1 < 1u << 6 ? 1 : body + 2 < 1u << 12 ? 2 : body + 3 < 1u << 20 ? 3 : 4;
	u32 length = body + bytes;
	u8 *p = aml->data + start;

	memmove(p + bytes, p + PKG_LENGTH_MAX, body);
	aml->used -= PKG_LENGTH_MAX - bytes;
	if (bytes == 1) {
		p[0] = length;
		return;
	}
	p[0] = (bytes - 1) << 6 | (length & 0xf);
	for (unsigned i = 1; i < bytes; i++)
		p[i] = length >> (8 * i - 4);
}

void aml_scope(struct aml *aml, const char *path)
{
	aml_byte(aml, OP_SCOPE);
	begin(aml);
	aml_path(aml, path);
}

void aml_device(struct aml *aml, const char *name)
{
	aml_byte(aml, OP_EXT);
	aml_byte(aml, OP_EXT_DEVICE);
	begin(aml);
	aml_path(aml, name);
}

void aml_method(struct aml *aml, const char *name, unsigned arguments)
{
	aml_byte(aml, OP_METHOD);
	begin(aml);
	aml_path(aml, name);
	aml_byte(aml, arguments);
}

#define FIELD_DWORD_ZEROS 0x43 /* access by 32 bits, no lock, write zeros to the rest */

void aml_io_registers(struct aml *aml, const char *region, u16 base, const char *const *names, unsigned count)
{
	aml_byte(aml, OP_EXT);
	aml_byte(aml, OP_EXT_REGION);
	aml_path(aml, region);
	aml_byte(aml, SPACE_IO);
	aml_integer(aml, base);
	aml_integer(aml, 4 * count);
	aml_byte(aml, OP_EXT);
	aml_byte(aml, OP_EXT_FIELD);
	begin(aml);
	aml_path(aml, region);
	aml_byte(aml, FIELD_DWORD_ZEROS);
	for (unsigned i = 0; i < count; i++) {
		aml_path(aml, names[i]);
		aml_byte(aml, 32); /* bits, as a package length */
	}
	aml_end(aml);
}

void aml_block(struct aml *aml, enum aml_op op)
{
	aml_byte(aml, op);
	begin(aml);
}

void aml_package(struct aml *aml, u8 count)
{
	aml_byte(aml, OP_PACKAGE);
	begin(aml);
	aml_byte(aml, count);
}

void aml_buffer(struct aml *aml, const void *bytes, u16 size)
{
	aml_byte(aml, OP_BUFFER);
	begin(aml);
	aml_integer(aml, size);
	aml_bytes(aml, bytes, size);
	aml_end(aml);
}

void aml_name(struct aml *aml, const char *name)
{
	aml_byte(aml, OP_NAME);
	aml_path(aml, name);
}

void aml_name_integer(struct aml *aml, const char *name, u64 value)
{
	aml_name(aml, name);
	aml_integer(aml, value);
}

void aml_name_string(struct aml *aml, const char *name, const char *value)
{
	aml_name(aml, name);
	aml_byte(aml, OP_STRING);
	aml_bytes(aml, value, string_length(value) + 1);
}

void aml_name_eisa_id(struct aml *aml, const char *name, const char *id)
{
	aml_name_integer(aml, name, aml_eisa_id(id));
}

/* The buffer's size is not known yet: it is a word that aml_resources_end fills in. */
void aml_resources(struct aml *aml, const char *name)
{
	aml_name(aml, name);
	aml_byte(aml, OP_BUFFER);
	begin(aml);
	aml_byte(aml, OP_WORD);
	little_endian(aml, 0, 2);
}

void aml_resources_end(struct aml *aml)
{
	aml_byte(aml, RES_END);
	aml_byte(aml, 0); /* a checksum of zero is always right */
	if (aml->overflow || !aml->depth)
		return;
	u32 size_at = aml->open[aml->depth - 1] + PKG_LENGTH_MAX + 1;
	put_u16(aml->data + size_at, aml->used - size_at - 2);
	aml_end(aml);
}

void aml_io(struct aml *aml, u16 base, u8 length)
{
	aml_byte(aml, RES_IO);
	aml_byte(aml, IO_DECODE16);
	little_endian(aml, base, 2);
	little_endian(aml, base, 2);
	aml_byte(aml, 1);
	aml_byte(aml, length);
}

void aml_irq(struct aml *aml, unsigned irq)
{
	aml_byte(aml, RES_IRQ_NOFLAGS);
	little_endian(aml, BIT(irq), 2);
}

void aml_memory_fixed(struct aml *aml, u32 base, u32 length)
{
	aml_byte(aml, RES_MEMORY32_FIXED);
	little_endian(aml, 9, 2);
	aml_byte(aml, SPACE_MEMORY_WRITABLE);
	little_endian(aml, base, 4);
	little_endian(aml, length, 4);
}

/* Word, DWord and QWord address space descriptors differ in the width of their five numbers. */
static void window(struct aml *aml, unsigned space, u8 flags, unsigned width, u64 first, u64 last)
{
	aml_byte(aml, width == 2 ? RES_WORD_SPACE : width == 4 ? RES_DWORD_SPACE : RES_QWORD_SPACE);
	little_endian(aml, 3 + 5 * width, 2);
	aml_byte(aml, space);
	aml_byte(aml, SPACE_FIXED);
	aml_byte(aml, flags);
	little_endian(aml, 0, width); /* granularity */
	little_endian(aml, first, width);
	little_endian(aml, last, width);
	little_endian(aml, 0, width); /* translation */
	little_endian(aml, last - first + 1, width);
}

void aml_bus_window(struct aml *aml, u16 first, u16 last)
{
	window(aml, SPACE_BUS, 0, 2, first, last);
}

void aml_io_window(struct aml *aml, u16 first, u16 last)
{
	window(aml, SPACE_IO, SPACE_IO_ENTIRE_RANGE, 2, first, last);
}

void aml_memory_window(struct aml *aml, u64 first, u64 last)
{
	window(aml, SPACE_MEMORY, SPACE_MEMORY_WRITABLE, last >> 32 ? 8 : 4, first, last);
}
