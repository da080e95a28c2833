/* Descriptors: finding them in the GDT and LDT, checking them by use, and the accessed and busy bits. Internal to cpu/.
 * Intel SDM volume 3, "Protected-Mode Memory Management", "Protection".
 *
 * Functions that can fault take the vector to raise for a bad descriptor (#GP for instructions, #TS for task switches and stacks
 * out of a TSS) and `ext`, which is ERR_EXT while an event from outside the program is delivered, else 0. The error code is the
 * selector without its RPL, with ext. */
#ifndef NADIR_CPU_DESCRIPTOR_H
#define NADIR_CPU_DESCRIPTOR_H

#include "mmu/mmu.h"
#include "vcpu/vcpu.h"

struct descriptor {
	u64 raw; /* the 8 bytes in the table */
	u64 high; /* bytes 8 to 15 of a 16-byte system descriptor, once descriptor_read_high was called */
	gla_t gla; /* where it lies */
	u32 attr; /* SEG_ATTR_* */
	u16 selector;
};

/* Call, interrupt, trap or task gate. Intel SDM volume 3, "Call Gates", "IDT Descriptors". */
struct gate {
	u64 offset;
	u16 selector;
	u8 type; /* enum system_type */
	u8 count; /* parameters of a call gate */
};

static inline bool selector_is_null(u16 selector)
{
	return !(selector & ~SELECTOR_RPL);
}

static inline unsigned attr_dpl(u32 attr)
{
	return (attr & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT;
}

static inline bool attr_is_code(u32 attr)
{
	return (attr & (SEG_ATTR_S | SEG_ATTR_CODE)) == (SEG_ATTR_S | SEG_ATTR_CODE);
}

static inline bool attr_is_conforming(u32 attr)
{
	const u32 bits = SEG_ATTR_S | SEG_ATTR_CODE | SEG_ATTR_CONFORMING;
	return (attr & bits) == bits;
}

static inline bool attr_is_writable_data(u32 attr)
{
	return (attr & (SEG_ATTR_S | SEG_ATTR_CODE | SEG_ATTR_WRITABLE)) == (SEG_ATTR_S | SEG_ATTR_WRITABLE);
}

/* Data, or code that may be read. */
static inline bool attr_is_readable(u32 attr)
{
	return (attr & SEG_ATTR_S) && (!(attr & SEG_ATTR_CODE) || (attr & SEG_ATTR_READABLE));
}

/* enum system_type, or 0 (which is reserved) for code and data. */
static inline unsigned attr_system_type(u32 attr)
{
	return (attr & SEG_ATTR_S) ? 0 : attr & SEG_ATTR_TYPE;
}

static inline u32 descriptor_attr(u64 raw)
{
	return (raw >> 40) & 0xf0ff;
}

/* 64-bit code, if the segment is going to be CS. */
static inline bool segment_is_64bit(const struct vcpu *vcpu, const struct segment *cs)
{
	return vcpu_long_mode(vcpu) && (cs->attr & SEG_ATTR_L);
}

/* Set RFLAGS and what hangs on them. */
static inline void cpu_set_rflags(struct vcpu *vcpu, u64 rflags)
{
	u64 changed = vcpu->rflags ^ rflags;
	vcpu->rflags = rflags | RFLAGS_FIXED1;
	if (changed & RFLAGS_AC)
		mmu_update_view(vcpu);
}

/* Raise `vector` with a selector's error code; returns false. */
static inline bool raise_selector(struct vcpu *vcpu, u8 vector, u16 selector, u32 ext)
{
	return vcpu_raise_error(vcpu, vector, (selector & ~SELECTOR_RPL) | ext);
}

/* Read or write a descriptor table or a TSS: implicit supervisor accesses. False: #PF, or #GP(0) for a non-canonical address. */
bool system_read(struct vcpu *vcpu, gla_t gla, void *buf, unsigned size);
bool system_write(struct vcpu *vcpu, gla_t gla, const void *buf, unsigned size);
bool system_probe_write(struct vcpu *vcpu, gla_t gla, unsigned size);

/* Where the selector's descriptor of `size` bytes (8 or 16) lies; false if the table's limit or a missing LDT forbids it. No
 * fault is raised. */
bool descriptor_locate(const struct vcpu *vcpu, u16 selector, unsigned size, gla_t *gla);
/* Read a descriptor. Null selectors are the caller's matter. */
bool descriptor_read(struct vcpu *vcpu, u16 selector, u8 vector, u32 ext, struct descriptor *d);
/* Read the upper half of a system descriptor of IA-32e mode; its type field must be 0. */
bool descriptor_read_high(struct vcpu *vcpu, struct descriptor *d, u8 vector, u32 ext);
/* Set and clear bits of the type field in memory, atomically, as hardware does for the accessed and the busy bit. */
bool descriptor_change_type(struct vcpu *vcpu, gla_t gla, u8 set, u8 clear);
/* Set the accessed bit, if it is clear, and parse the descriptor into a segment register with `selector`. */
bool descriptor_load(struct vcpu *vcpu, struct descriptor *d, u16 selector, struct segment *seg);
/* Parse a system descriptor (LDT or TSS, 8 or 16 bytes) into a segment register. */
void descriptor_parse_system(const struct descriptor *d, struct segment *seg);
/* The fields of a gate; `high` is 0 outside IA-32e mode. The offset of a 16-bit gate is cut to 16 bits. */
void gate_parse(u64 raw, u64 high, struct gate *gate);

/* A null selector in the hidden part's form; SS keeps its DPL there. */
struct segment segment_null(u16 selector, unsigned dpl);

/* Each of the following checks a selector for one use, sets the accessed bit and fills *seg; nothing else changes. */

/* SS for privilege level cpl; null selectors are refused with vector(ext). Not present is #SS(selector). */
bool segment_fetch_stack(struct vcpu *vcpu, u16 selector, unsigned cpl, u8 vector, u32 ext, struct segment *seg);
/* DS, ES, FS or GS for privilege level cpl; a null selector is fine. Not present is #NP(selector). */
bool segment_fetch_data(struct vcpu *vcpu, u16 selector, unsigned cpl, u8 vector, u32 ext, struct segment *seg);
/* CS as a return or a task switch loads it, RPL being the new CPL. Not present is #NP(selector). */
bool segment_fetch_code(struct vcpu *vcpu, u16 selector, u8 vector, u32 ext, struct segment *seg);
/* LDTR; a null selector is fine. Not present raises `absent`(selector). */
bool segment_fetch_ldt(struct vcpu *vcpu, u16 selector, u8 vector, u8 absent, u32 ext, struct segment *seg);

/* The target of a transfer must be within the new CS's limit, or canonical in 64-bit mode: else #GP(ext). */
bool segment_check_target(struct vcpu *vcpu, const struct segment *cs, u64 rip, u32 ext);
/* After a return to a less privileged level: null the data segment registers that it must not use. */
void segment_drop_privileged(struct vcpu *vcpu);
/* Whether [offset, +size) is within the limit, expand-down segments included. */
bool segment_within_limit(const struct segment *seg, u64 offset, unsigned size);

#endif
