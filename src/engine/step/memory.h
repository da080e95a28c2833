/* Guest memory as operations see it: an inlined fast path for accesses that hit the TLB inside one page of RAM, and a
 * slow path with all checks for the rest. Values are little-endian integers of 1, 2, 4 or 8 bytes. */
#ifndef NADIR_ENGINE_STEP_MEMORY_H
#define NADIR_ENGINE_STEP_MEMORY_H

#include "cpu/segment.h"
#include "engine/step/state.h"

/* Sizes and kinds are constants at each use: the compiler must see them. */
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* The slow path: segment, alignment, breakpoints, paging, MMIO. Calls vector_sync. Any size up to a page. */
bool memory_read_slow(struct vcpu *vcpu, unsigned segment, gva_t gva, void *buf, unsigned size);
bool memory_write_slow(struct vcpu *vcpu, unsigned segment, gva_t gva, const void *buf, unsigned size);
/* Segment and alignment checks of the slow path, giving the linear address. */
bool memory_linear(struct vcpu *vcpu, unsigned segment, gva_t gva, unsigned size, unsigned kind, gla_t *gla);
/* After an access that succeeded: data breakpoints become a pending debug trap. */
void memory_watch(struct vcpu *vcpu, gla_t gla, unsigned size, unsigned kind);

static ALWAYS_INLINE gva_t op_address(struct vcpu *vcpu, const struct op *op)
{
	u64 address = *vcpu_u64(vcpu, op->base) + (*vcpu_u64(vcpu, op->index) << op->scale) + (u64)op->disp;
	return address << op->address_shift >> op->address_shift;
}

/* Linear address if the segment obviously allows the access: an ordinary present, writable, expand-up data segment. */
static ALWAYS_INLINE bool segment_plain(const struct vcpu *vcpu, unsigned segment, gva_t gva, unsigned size, gla_t *gla)
{
	const struct segment *s = &vcpu->seg[segment];
	const u32 mask =
		SEG_ATTR_UNUSABLE | SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_CODE | SEG_ATTR_EXPAND_DOWN | SEG_ATTR_WRITABLE;
	*gla = (u32)(s->base + gva);
	return (s->attr & mask) == (SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_WRITABLE) && gva + size - 1 <= s->limit;
}

/* The host address of an access that may go straight to memory, or NULL; *gla is its linear address. Non-canonical
 * addresses are never in the TLB. */
static ALWAYS_INLINE u8 *memory_fast(struct vcpu *vcpu, const struct op *op, gva_t gva, unsigned size, unsigned kind,
				     gla_t *gla)
{
	if (likely(op->flags & OP_LONG))
		*gla = gva + *vcpu_u64(vcpu, op->segment_base);
	else if (!segment_plain(vcpu, op->segment, gva, size, gla))
		return NULL;
	if (unlikely(CHECKS(vcpu)))
		return NULL;
	return tlb_lookup_explicit(vcpu->mmu, *gla, size, kind);
}

/* Guest operands lie where the guest put them. */
typedef u16 __attribute__((aligned(1), may_alias)) u16_anywhere;
typedef u32 __attribute__((aligned(1), may_alias)) u32_anywhere;
typedef u64 __attribute__((aligned(1), may_alias)) u64_anywhere;

static ALWAYS_INLINE u64 load_sized(const void *p, unsigned size)
{
	switch (size) {
	case 1:
		return *(const u8 *)p;
	case 2:
		return *(const u16_anywhere *)p;
	case 4:
		return *(const u32_anywhere *)p;
	default:
		return *(const u64_anywhere *)p;
	}
}

static ALWAYS_INLINE void store_sized(void *p, u64 value, unsigned size)
{
	switch (size) {
	case 1:
		*(volatile u8 *)p = (u8)value;
		break;
	case 2:
		*(volatile u16_anywhere *)p = (u16)value;
		break;
	case 4:
		*(volatile u32_anywhere *)p = (u32)value;
		break;
	default:
		*(volatile u64_anywhere *)p = value;
		break;
	}
}

/* Read or write the operation's memory operand, or another address in its segment. */
static ALWAYS_INLINE bool op_read_at(struct vcpu *vcpu, const struct op *op, gva_t gva, unsigned size, u64 *value)
{
	gla_t gla;
	u8 *hva = memory_fast(vcpu, op, gva, size, ACCESS_READ, &gla);
	if (likely(hva)) {
		*value = load_sized(hva, size);
		return true;
	}
	*value = 0;
	return memory_read_slow(vcpu, op->segment, gva, value, size);
}

static ALWAYS_INLINE bool op_write_at(struct vcpu *vcpu, const struct op *op, gva_t gva, unsigned size, u64 value)
{
	gla_t gla;
	u8 *hva = memory_fast(vcpu, op, gva, size, ACCESS_WRITE, &gla);
	if (likely(hva)) {
		store_sized(hva, value, size);
		mmu_stored_at(vcpu, hva);
		return true;
	}
	return memory_write_slow(vcpu, op->segment, gva, &value, size);
}

static ALWAYS_INLINE bool op_read(struct vcpu *vcpu, const struct op *op, unsigned size, u64 *value)
{
	return op_read_at(vcpu, op, op_address(vcpu, op), size, value);
}

static ALWAYS_INLINE bool op_write(struct vcpu *vcpu, const struct op *op, unsigned size, u64 value)
{
	return op_write_at(vcpu, op, op_address(vcpu, op), size, value);
}

/* General registers by number and operand size: a 32-bit write clears the upper half. */
static inline u64 gpr_get(const struct vcpu *vcpu, unsigned reg, unsigned size)
{
	return vcpu->gpr[reg] & size_mask(size);
}

static inline void gpr_set(struct vcpu *vcpu, unsigned reg, unsigned size, u64 value)
{
	u64 mask = size == 4 ? ~0ull : size_mask(size);
	vcpu->gpr[reg] = (vcpu->gpr[reg] & ~mask) | (value & size_mask(size));
}

/* Registers by byte offset, which also names AH to BH. */
static ALWAYS_INLINE void reg_set(struct vcpu *vcpu, unsigned offset, unsigned size, u64 value)
{
	if (size == 4)
		*vcpu_u64(vcpu, offset) = (u32)value;
	else
		store_sized((u8 *)vcpu + offset, value, size);
}

static ALWAYS_INLINE u64 reg_get(const struct vcpu *vcpu, unsigned offset, unsigned size)
{
	return load_sized((const u8 *)vcpu + offset, size);
}

/* The rm operand, register or memory. A register rm is named by `base`. */
static inline bool rm_read(struct vcpu *vcpu, const struct op *op, unsigned size, u64 *value)
{
	if (op->flags & OP_REGISTER) {
		*value = reg_get(vcpu, op->base, size);
		return true;
	}
	return op_read(vcpu, op, size, value);
}

static inline bool rm_write(struct vcpu *vcpu, const struct op *op, unsigned size, u64 value)
{
	if (op->flags & OP_REGISTER) {
		reg_set(vcpu, op->base, size, value);
		return true;
	}
	return op_write(vcpu, op, size, value);
}

/* Push and pop with every check; *value is zero-extended. */
bool memory_push(struct vcpu *vcpu, u64 value, unsigned size);
bool memory_pop(struct vcpu *vcpu, u64 *value, unsigned size);

/* Push and pop; the fast path is 64-bit mode. */
static ALWAYS_INLINE bool stack_push(struct vcpu *vcpu, const struct op *op, u64 value, unsigned size)
{
	if (likely(op->flags & OP_LONG) && likely(!CHECKS(vcpu))) {
		gla_t gla = vcpu->gpr[RSP] - size;
		u8 *hva = tlb_lookup_explicit(vcpu->mmu, gla, size, ACCESS_WRITE);
		if (likely(hva)) {
			store_sized(hva, value, size);
			mmu_stored_at(vcpu, hva);
			vcpu->gpr[RSP] = gla;
			return true;
		}
	}
	return memory_push(vcpu, value, size);
}

static ALWAYS_INLINE bool stack_pop(struct vcpu *vcpu, const struct op *op, u64 *value, unsigned size)
{
	if (likely(op->flags & OP_LONG) && likely(!CHECKS(vcpu))) {
		gla_t gla = vcpu->gpr[RSP];
		u8 *hva = tlb_lookup_explicit(vcpu->mmu, gla, size, ACCESS_READ);
		if (likely(hva)) {
			*value = load_sized(hva, size);
			vcpu->gpr[RSP] = gla + size;
			return true;
		}
	}
	return memory_pop(vcpu, value, size);
}

#endif
