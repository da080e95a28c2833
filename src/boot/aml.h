/* A writer of ACPI Machine Language, as much of it as the DSDT of this machine takes.
 * ACPI specification, "ACPI Machine Language (AML) Specification" and "Resource Data Types for ACPI".
 *
 * Writing past the buffer sets `overflow` and is otherwise ignored, so that a caller checks once, at the end. Objects
 * with a length (scopes, devices, methods, packages, buffers) are opened and closed with aml_end, nested up to
 * AML_DEPTH_MAX. Names are paths as ASL writes them: "_HID", "\\_SB.PCI0"; shorter segments are padded with '_'. */
#ifndef NADIR_BOOT_AML_H
#define NADIR_BOOT_AML_H

#include "arch/types.h"

#define AML_DEPTH_MAX 8

struct aml {
	u8 *data;
	u32 used, size;
	bool overflow;
	unsigned depth;
	u32 open[AML_DEPTH_MAX]; /* where the length of each open object goes */
};

/* Opcodes that methods are made of. */
enum aml_op {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_LOCAL0 = 0x60,
	AML_ARG0 = 0x68,
	AML_ARG1 = 0x69,
	AML_ARG3 = 0x6b,
	AML_STORE = 0x70,
	AML_AND = 0x7b,
	AML_OR = 0x7d,
	AML_NOTIFY = 0x86,
	AML_CREATE_DWORD_FIELD = 0x8a,
	AML_LNOT = 0x92,
	AML_LEQUAL = 0x93,
	AML_IF = 0xa0,
	AML_ELSE = 0xa1,
	AML_RETURN = 0xa4,
};

void aml_byte(struct aml *aml, u8 byte);
void aml_bytes(struct aml *aml, const void *bytes, u32 size);
void aml_integer(struct aml *aml, u64 value);
void aml_path(struct aml *aml, const char *path);
/* The number that stands for a name such as "PNP0C02". */
u32 aml_eisa_id(const char *id);

void aml_scope(struct aml *aml, const char *path);
void aml_device(struct aml *aml, const char *name);
void aml_method(struct aml *aml, const char *name, unsigned arguments);
#define AML_SERIALIZED 8u /* added to the number of arguments: one caller at a time */
/* If or Else: the predicate, then the body, follow. */
void aml_block(struct aml *aml, enum aml_op op);
/* A package of `count` elements, which follow. */
void aml_package(struct aml *aml, u8 count);
/* A buffer of `size` bytes. */
void aml_buffer(struct aml *aml, const void *bytes, u16 size);
void aml_end(struct aml *aml);
/* I/O ports under a name, and registers of 32 bits in them, one after the other, with a name each; zeros are written to what is not. */
void aml_io_registers(struct aml *aml, const char *region, u16 base, const char *const *names, unsigned count);

/* Name (name, ...): the object follows. */
void aml_name(struct aml *aml, const char *name);
void aml_name_integer(struct aml *aml, const char *name, u64 value);
void aml_name_string(struct aml *aml, const char *name, const char *value);
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id);

/* A resource template under a name; descriptors follow, then aml_resources_end. */
void aml_resources(struct aml *aml, const char *name);
void aml_resources_end(struct aml *aml);
void aml_io(struct aml *aml, u16 base, u8 length);
void aml_irq(struct aml *aml, unsigned irq); /* edge, active high, exclusive */
void aml_memory_fixed(struct aml *aml, u32 base, u32 length);
/* Windows that a bridge passes on. The last address is included. */
void aml_bus_window(struct aml *aml, u16 first, u16 last);
void aml_io_window(struct aml *aml, u16 first, u16 last);
void aml_memory_window(struct aml *aml, u64 first, u64 last);

#endif
