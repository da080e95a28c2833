/* Memory operands under a mask: elements that are masked off are not accessed and cannot fault.
 *
 * An operand inside one page of RAM that is mapped for the access runs natively, mask and all. Otherwise the elements
 * that the mask selects are moved one by one to or from a bounce buffer on which the instruction runs. Gathers and
 * scatters, whose elements lie anywhere, are done entirely here, on the XSAVE image, and stop at a faulting element
 * with those before it complete. Intel SDM volume 1, "Exception Conditions of EVEX Instructions" (fault suppression);
 * volume 2, VMASKMOV, MASKMOVDQU, VPGATHERDD. */
#include "engine/step/masked.h"

#include "engine/step/handlers.h"
#include "engine/step/image.h"
#include "engine/step/memory.h"

/* The compiler's own helper is not part of the core, and no POPCNT is assumed. */
static unsigned count_ones(u64 mask)
{
	unsigned n = 0;
	for (; mask; mask &= mask - 1)
		n++;
	return n;
}

/* Which elements of the memory operand are accessed, as a bit mask. */
static u64 active_elements(struct vcpu *vcpu, const struct masked *m)
{
	u64 mask = 0;
	switch (m->source) {
	case MASK_OPMASK:
		mask = image_mask_read(vcpu, m->mask_register) & mask_of(m->mask_bits);
		break;
	case MASK_VECTOR_SIGNS:
		for (unsigned i = 0; i < m->mask_bits; i++) {
			u64 element = image_vector_read(vcpu, m->mask_register, i * m->element, m->element);
			mask |= (element >> (m->element * 8 - 1) & 1) << i;
		}
		break;
	case MASK_MMX_SIGNS:
		for (unsigned i = 0; i < 8; i++)
			mask |= (image_mmx_read(vcpu, m->mask_register) >> (i * 8 + 7) & 1) << i;
		break;
	}
	if (m->packed)
		return mask_of(count_ones(mask));
	u64 active = 0;
	for (unsigned i = 0; i < m->mask_bits; i++)
		active |= (mask >> i & 1) << i % m->elements;
	return active;
}

static gva_t element_address(const struct op *op, gva_t gva, unsigned i, unsigned size)
{
	return (gva + i * size) << op->address_shift >> op->address_shift;
}

static bool probe_elements(struct vcpu *vcpu, const struct op *op, gva_t gva, unsigned size, u64 active)
{
	for (unsigned i = 0; active >> i; i++) {
		gla_t gla;
		if (!(active >> i & 1))
			continue;
		if (!memory_linear(vcpu, op->segment, element_address(op, gva, i, size), size, ACCESS_WRITE, &gla) ||
		    !mmu_probe_write(vcpu, gla, size, ACCESS_WRITE))
			return false;
		if (i == 63)
			break;
	}
	return true;
}

typedef bool (*element_move)(struct vcpu *vcpu, unsigned segment, gva_t gva, void *buf, unsigned size);

static bool write_element(struct vcpu *vcpu, unsigned segment, gva_t gva, void *buf, unsigned size)
{
	return memory_write_slow(vcpu, segment, gva, buf, size);
}

static bool move_elements(struct vcpu *vcpu, const struct op *op, gva_t gva, unsigned size, u64 active, u8 *buffer,
			  element_move move)
{
	for (; active; active &= active - 1) {
		unsigned i = (unsigned)__builtin_ctzll(active);
		if (!move(vcpu, op->segment, element_address(op, gva, i, size), buffer + i * size, size))
			return false;
	}
	return true;
}

static struct masked unpack(const struct op *op)
{
	struct masked m;
	__builtin_memcpy(&m, &op->imm, sizeof(m));
	return m;
}

static int masked_slow(struct vcpu *vcpu, const struct op *op, gva_t gva)
{
	struct step *step = step_of(vcpu);
	struct masked m = unpack(op);
	gla_t gla = gva + (op->flags & OP_LONG ? *vcpu_u64(vcpu, op->segment_base) : vcpu->seg[op->segment].base);
	u8 *buffer = step->bounce + (gla & 63);
	if (!vector_ready(vcpu, step, op->xstate))
		return OP_FAULT;
	vector_sync(vcpu);
	u64 active = active_elements(vcpu, &m);
	if ((op->flags & OP_WAITS) && image_x87_pending(vcpu))
		return vcpu_raise(vcpu, VEC_MF);
	/* With no element at all, the CPU that runs it tells. */
	if (active && (op->flags & OP_ALIGNED) && (gla & (op->mem_size - 1u)))
		return vcpu_raise_gp(vcpu, 0);
	if (op->kind == KIND_MASKMOV) { /* its whole operand must be writable, whatever the mask says */
		if (!probe_elements(vcpu, op, gva, op->mem_size, 1))
			return OP_FAULT;
	} else if (op->flags & OP_WRITES) {
		if (!probe_elements(vcpu, op, gva, m.element, active))
			return OP_FAULT;
	} else {
		__builtin_memset(buffer, 0, op->mem_size);
		if (!move_elements(vcpu, op, gva, m.element, active, buffer, memory_read_slow))
			return OP_FAULT;
	}
	if (!vector_ready(vcpu, step, op->xstate))
		return OP_FAULT;
	int result = snippet_call(vcpu, step, op, buffer);
	if (result != OP_DONE || !(op->flags & OP_WRITES))
		return result;
	return move_elements(vcpu, op, gva, m.element, active, buffer, write_element);
}

int op_masked(struct vcpu *vcpu, const struct op *op)
{
	struct step *step = step_of(vcpu);
	gva_t gva = op_address(vcpu, op);
	unsigned kind = op->flags & OP_WRITES ? ACCESS_WRITE : ACCESS_READ;
	gla_t gla;
	if (!vector_ready(vcpu, step, op->xstate))
		return OP_FAULT;
	u8 *hva = memory_fast(vcpu, op, gva, op->mem_size, kind, &gla);
	if (!hva)
		return masked_slow(vcpu, op, gva);
	int result = snippet_call(vcpu, step, op, hva);
	if (kind == ACCESS_WRITE && result == OP_DONE)
		mmu_stored_at(vcpu, hva);
	return result;
}

/* ---- gather and scatter ---- */

static gva_t gather_address(struct vcpu *vcpu, const struct op *op, const struct gather *g, unsigned i)
{
	u64 index = image_vector_read(vcpu, g->index, i * g->index_size, g->index_size);
	if (g->index_size == 4)
		index = (u64)(s64)(s32)index;
	u64 address = *vcpu_u64(vcpu, op->base) + (index << op->scale) + (u64)op->disp;
	return address << op->address_shift >> op->address_shift;
}

static u64 gather_mask(const struct vcpu *vcpu, const struct gather *g)
{
	if (g->opmask)
		return image_mask_read(vcpu, g->mask) & mask_of(g->count);
	u64 mask = 0;
	for (unsigned i = 0; i < g->count; i++) {
		u64 element = image_vector_read(vcpu, g->mask, i * g->element, g->element);
		mask |= (element >> (g->element * 8 - 1) & 1) << i;
	}
	return mask;
}

/* Element i is complete. */
static void gather_mask_clear(struct vcpu *vcpu, const struct gather *g, unsigned i)
{
	if (g->opmask)
		image_mask_write(vcpu, g->mask, image_mask_read(vcpu, g->mask) & ~BIT(i));
	else
		image_vector_write(vcpu, g->mask, i * g->element, g->element, 0);
}

static bool gather_begin(struct vcpu *vcpu, const struct op *op, struct gather *g)
{
	__builtin_memcpy(g, &op->imm, sizeof(*g));
	if (!vector_ready(vcpu, step_of(vcpu), op->xstate))
		return false;
	vector_sync(vcpu);
	return true;
}

int op_gather(struct vcpu *vcpu, const struct op *op)
{
	struct gather g;
	if (!gather_begin(vcpu, op, &g))
		return OP_FAULT;
	u64 mask = gather_mask(vcpu, &g);
	for (unsigned i = 0; i < g.count; i++) {
		u64 value = 0;
		if (mask >> i & 1) {
			if (!memory_read_slow(vcpu, op->segment, gather_address(vcpu, op, &g, i), &value, g.element))
				return OP_FAULT;
			image_vector_write(vcpu, g.data, i * g.element, g.element, value);
		}
		gather_mask_clear(vcpu, &g, i);
	}
	image_vector_clear(vcpu, g.data, g.count * g.element);
	if (g.opmask)
		image_mask_write(vcpu, g.mask, 0);
	else
		image_vector_clear(vcpu, g.mask, 0);
	return OP_DONE;
}

int op_scatter(struct vcpu *vcpu, const struct op *op)
{
	struct gather g;
	if (!gather_begin(vcpu, op, &g))
		return OP_FAULT;
	for (u64 mask = gather_mask(vcpu, &g); mask; mask &= mask - 1) {
		unsigned i = (unsigned)__builtin_ctzll(mask);
		u64 value = image_vector_read(vcpu, g.data, i * g.element, g.element);
		if (!memory_write_slow(vcpu, op->segment, gather_address(vcpu, op, &g, i), &value, g.element))
			return OP_FAULT;
		gather_mask_clear(vcpu, &g, i);
	}
	image_mask_write(vcpu, g.mask, 0);
	return OP_DONE;
}

/* VZEROALL (imm: 0) and VZEROUPPER (16) outside 64-bit mode, where they leave the registers alone that it cannot name.
 */
int op_vzero(struct vcpu *vcpu, const struct op *op)
{
	if (!vector_ready(vcpu, step_of(vcpu), op->xstate))
		return OP_FAULT;
	vector_sync(vcpu);
	for (unsigned reg = 0; reg < 8; reg++)
		image_vector_clear(vcpu, reg, (unsigned)op->imm);
	return OP_DONE;
}

/* ---- 64-byte stores ---- */

/* MOVDIR64B: the destination is ES:[reg], 64-byte aligned; number names the register. */
int op_movdir64b(struct vcpu *vcpu, const struct op *op)
{
	u64 data[8];
	gva_t to = vcpu->gpr[op->number] << op->address_shift >> op->address_shift;
	gla_t gla;
	if (!cpuid_has(vcpu->cpuid, FEATURE_MOVDIR64B))
		return vcpu_raise_ud(vcpu);
	if (!memory_linear(vcpu, SEG_ES, to, sizeof(data), ACCESS_WRITE, &gla))
		return OP_FAULT;
	if (gla & 63)
		return vcpu_raise_gp(vcpu, 0);
	return memory_read_slow(vcpu, op->segment, op_address(vcpu, op), data, sizeof(data)) &&
	       memory_write_slow(vcpu, SEG_ES, to, data, sizeof(data));
}

/* CLZERO: the cache line that DS:[rAX] is in. AMD APM volume 3, CLZERO. */
int op_clzero(struct vcpu *vcpu, const struct op *op)
{
	static const u64 zero[8];
	gva_t line = vcpu->gpr[RAX] << op->address_shift >> op->address_shift & ~63ull;
	return memory_write_slow(vcpu, op->segment, line, zero, sizeof(zero));
}
