/* The registers as GDB numbers them: one table for the target description, for g, G, p and P. GDB manual, "Target Descriptions", "i386
 * Features"; its order of the core registers is fixed, that of the others is ours. */
#ifndef NADIR_GDB_REGISTERS_H
#define NADIR_GDB_REGISTERS_H

#include "gdb/packet.h"
#include "vm/vm.h"

/* What GDB takes the guest for: it cannot change its mind while it is connected. The other two have the registers of 32-bit code; they differ in how
 * GDB reads code. */
enum gdb_architecture { GDB_X86_64, GDB_I386, GDB_I8086 };

/* Which file of the target description. */
enum gdb_feature { GDB_CORE, GDB_SSE, GDB_AVX, GDB_AVX512, GDB_SEGMENTS, GDB_SYSTEM, GDB_FEATURES };

#define GDB_REGISTER_MAX 32 /* bytes */
#define GDB_REGISTERS_MAX 256

struct gdb_register {
	char name[10];
	u8 size; /* bytes */
	u8 feature;
	u8 kind; /* of the accessor, with `index` its register: registers.c */
	u16 index;
	const char *type;
	const char *group; /* NULL: by its type */
};

struct gdb_registers {
	enum gdb_architecture architecture;
	unsigned count;
	struct gdb_register row[GDB_REGISTERS_MAX];
};

/* The table for a VM's CPUs. */
void gdb_registers_init(struct gdb_registers *registers, enum gdb_architecture architecture, const struct cpuid_policy *policy);

static inline const struct gdb_register *gdb_rip(const struct gdb_registers *registers)
{
	return &registers->row[registers->architecture == GDB_X86_64 ? 16 : 8];
}

/* Of a vCPU that is stopped, the lock held. Values are little-endian, of the row's size. Write: false if the register cannot be
 * written, or not so; a write of what is there anyway always succeeds. */
void gdb_register_read(struct vm_cpu *cpu, const struct gdb_register *row, u8 value[GDB_REGISTER_MAX]);
bool gdb_register_write(struct vm_cpu *cpu, const struct gdb_register *row, const u8 value[GDB_REGISTER_MAX]);

/* The target description in XML. */
void gdb_describe(const struct gdb_registers *registers, struct gdb_text *xml);

#endif
