/* Segmentation: from an offset in a segment to a linear address, and loading segment registers with their hidden parts (B7).
 * Intel SDM volume 3, "Protected-Mode Memory Management", "Protection"; volume 2, MOV, LDS, LLDT, LTR, LAR, LSL, VERR. */
#ifndef NADIR_CPU_SEGMENT_H
#define NADIR_CPU_SEGMENT_H

#include "mmu/mmu.h"
#include "vcpu/vcpu.h"

/* Linear address of [seg:offset, +size) for `kind` of access (enum access), with all checks: usability, type, limit
 * (expand-down too), canonicality in 64-bit mode. False: #GP(0) or #SS(0). Works in every mode; outside 64-bit mode the result
 * is truncated to 32 bits. */
bool segment_linear(struct vcpu *vcpu, enum segment_register seg, gva_t offset, unsigned size, unsigned kind, gla_t *gla);

/* Read and write guest memory through a segment. */
bool segment_read(struct vcpu *vcpu, enum segment_register seg, gva_t offset, void *buf, unsigned size);
bool segment_write(struct vcpu *vcpu, enum segment_register seg, gva_t offset, const void *buf, unsigned size);

/* MOV/POP/LxS to a segment register other than CS (real, V86, protected, 64-bit): checks, accessed bit, hidden part. MOV SS sets no
 * shadow here: the instruction does. */
bool segment_load(struct vcpu *vcpu, enum segment_register seg, u16 selector);
/* LLDT and LTR (the caller has checked CPL and mode). */
bool segment_load_ldt(struct vcpu *vcpu, u16 selector);
bool segment_load_tr(struct vcpu *vcpu, u16 selector);

/* LAR, LSL, VERR, VERW: *ok is ZF. False only for faults of the table access itself. */
bool segment_lar(struct vcpu *vcpu, u16 selector, u32 *value, bool *ok);
bool segment_lsl(struct vcpu *vcpu, u16 selector, u32 *value, bool *ok);
bool segment_verify(struct vcpu *vcpu, u16 selector, bool write, bool *ok);

/* Set a segment register as real mode or V86 mode loads it: base = selector * 16; in real mode limit and attributes stay (unreal
 * mode), in V86 mode they are the architectural ones. */
void segment_set_real(struct vcpu *vcpu, enum segment_register seg, u16 selector);
/* Set CS's or SS's CPL-derived state after a transfer: cpl and the MMU's privilege view. */
void cpu_set_cpl(struct vcpu *vcpu, u8 cpl);

/* Parse the 8 bytes of a code or data descriptor into the hidden part. */
void segment_parse(u64 descriptor, u16 selector, struct segment *seg);

/* Push and pop with the current stack width. size is the operand's bytes: 2, 4 or 8. RSP moves only on success. */
bool cpu_push(struct vcpu *vcpu, u64 value, unsigned size);
bool cpu_pop(struct vcpu *vcpu, u64 *value, unsigned size);
/* Set RSP/ESP/SP by the width of the stack, leaving the rest of RSP as the mode demands. */
void cpu_set_sp(struct vcpu *vcpu, u64 sp);

#endif
