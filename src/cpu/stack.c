/* The stack: single pushes and pops, and whole frames of transfers.
 * Intel SDM volume 1, "Procedure Stack"; volume 2, PUSH, POP.
 *
 * A frame is moved with one access where it is contiguous. When that faults, the values are moved again one by one in the order
 * hardware does it, so that the fault has the right address and error code. */
#include "cpu/stack.h"
#include "cpu/descriptor.h"
#include "cpu/segment.h"
#include "lib/string.h"

bool cpu_push(struct vcpu *vcpu, u64 value, unsigned size)
{
	u64 sp = (vcpu->gpr[RSP] - size) & size_mask(vcpu_stack_size(vcpu));
	if (!segment_write(vcpu, SEG_SS, sp, &value, size))
		return false;
	cpu_set_sp(vcpu, sp);
	return true;
}

bool cpu_pop(struct vcpu *vcpu, u64 *value, unsigned size)
{
	u64 sp = vcpu->gpr[RSP] & size_mask(vcpu_stack_size(vcpu));
	u64 read = 0;
	if (!segment_read(vcpu, SEG_SS, sp, &read, size))
		return false;
	*value = read;
	cpu_set_sp(vcpu, sp + size);
	return true;
}

static void set_sp(struct vcpu *vcpu, u64 sp, unsigned width)
{
	u64 mask = size_mask(width);
	u64 kept = width == 2 ? vcpu->gpr[RSP] & ~mask : 0;
	vcpu->gpr[RSP] = kept | (sp & mask);
}

void cpu_set_sp(struct vcpu *vcpu, u64 sp)
{
	set_sp(vcpu, sp, vcpu_stack_size(vcpu));
}

void stack_commit(struct vcpu *vcpu, const struct stack *st)
{
	set_sp(vcpu, st->sp, st->width);
}

struct stack stack_current(const struct vcpu *vcpu, u32 ext)
{
	unsigned width = vcpu_stack_size(vcpu);
	return (struct stack){
		.ss = vcpu->seg[SEG_SS],
		.sp = vcpu->gpr[RSP] & size_mask(width),
		.width = width,
		.cpl = vcpu->cpl,
		.error = ext,
	};
}

struct stack stack_of(struct segment ss, u64 sp, u8 cpl, u32 error)
{
	unsigned width = (ss.attr & SEG_ATTR_DB) ? 4 : 2;
	return (struct stack){ .ss = ss, .sp = sp & size_mask(width), .width = width, .cpl = cpl, .error = error };
}

/* Linear address of [offset, +size) on the stack. The SS base is not used in 64-bit mode. */
static bool stack_linear(struct vcpu *vcpu, const struct stack *st, u64 offset, unsigned size, gla_t *gla)
{
	bool good;
	if (likely(st->width == 8)) {
		unsigned bits = vcpu_linear_bits(vcpu);
		*gla = offset;
		good = is_canonical(offset, bits) && is_canonical(offset + size - 1, bits);
	} else {
		*gla = (u32)(st->ss.base + offset);
		good = !(st->ss.attr & SEG_ATTR_UNUSABLE) && segment_within_limit(&st->ss, offset, size);
	}
	return likely(good) || vcpu_raise_error(vcpu, VEC_SS, st->error);
}

/* A frame that begins at the top of the address range and goes on at its bottom is not contiguous. */
static bool contiguous(const struct stack *st, u64 lowest, unsigned bytes)
{
	u64 mask = size_mask(st->width);
	return ((lowest + bytes - 1) & mask) >= lowest;
}

bool stack_has_room(struct vcpu *vcpu, const struct stack *st, unsigned count, unsigned size)
{
	u64 mask = size_mask(st->width), sp = st->sp;
	gla_t gla;
	if (likely(contiguous(st, (sp - count * size) & mask, count * size)))
		return stack_linear(vcpu, st, (sp - count * size) & mask, count * size, &gla);
	for (unsigned i = 0; i < count; i++) {
		sp = (sp - size) & mask;
		if (!stack_linear(vcpu, st, sp, size, &gla))
			return false;
	}
	return true;
}

/* The frame as it lies in memory. 8-byte values, those of 64-bit mode, are only reversed. */
static void pack(u64 *image, const u64 *value, unsigned count, unsigned size)
{
	if (likely(size == 8)) {
		for (unsigned i = 0; i < count; i++)
			image[count - 1 - i] = value[i];
		return;
	}
	for (unsigned i = 0; i < count; i++)
		memcpy((u8 *)image + (count - 1 - i) * size, &value[i], size);
}

static void unpack(const u64 *image, u64 *value, unsigned count, unsigned size)
{
	for (unsigned i = 0; i < count; i++) {
		value[i] = likely(size == 8) ? image[i] : 0;
		if (unlikely(size != 8))
			memcpy(&value[i], (const u8 *)image + i * size, size);
	}
}

static bool write_frame(struct vcpu *vcpu, const struct stack *st, const u64 *value, unsigned count, unsigned size)
{
	u64 image[STACK_FRAME_MAX];
	u64 mask = size_mask(st->width), sp = st->sp, lowest = (sp - count * size) & mask;
	gla_t gla;
	pack(image, value, count, size);
	if (likely(contiguous(st, lowest, count * size)) && stack_linear(vcpu, st, lowest, count * size, &gla) &&
	    mmu_write(vcpu, gla, image, count * size, ACCESS_WRITE))
		return true;
	for (unsigned i = 0; i < count; i++) {
		sp = (sp - size) & mask;
		if (!stack_linear(vcpu, st, sp, size, &gla) || !mmu_write(vcpu, gla, &value[i], size, ACCESS_WRITE))
			return false;
	}
	return true;
}

static bool read_frame(struct vcpu *vcpu, const struct stack *st, u64 *value, unsigned count, unsigned size)
{
	u64 image[STACK_FRAME_MAX];
	u64 mask = size_mask(st->width), sp = st->sp;
	gla_t gla;
	if (likely(contiguous(st, sp, count * size)) && stack_linear(vcpu, st, sp, count * size, &gla) &&
	    mmu_read(vcpu, gla, image, count * size, ACCESS_READ)) {
		unpack(image, value, count, size);
		return true;
	}
	for (unsigned i = 0; i < count; i++) {
		value[i] = 0;
		if (!stack_linear(vcpu, st, sp, size, &gla) || !mmu_read(vcpu, gla, &value[i], size, ACCESS_READ))
			return false;
		sp = (sp + size) & mask;
	}
	return true;
}

bool stack_push(struct vcpu *vcpu, struct stack *st, const u64 *value, unsigned count, unsigned size)
{
	u8 cpl = vcpu->cpl;
	cpu_set_cpl(vcpu, st->cpl);
	bool ok = write_frame(vcpu, st, value, count, size);
	cpu_set_cpl(vcpu, cpl);
	if (ok)
		st->sp = (st->sp - count * size) & size_mask(st->width);
	return ok;
}

bool stack_pop(struct vcpu *vcpu, struct stack *st, u64 *value, unsigned count, unsigned size)
{
	if (!read_frame(vcpu, st, value, count, size))
		return false;
	stack_drop(st, count * size);
	return true;
}
