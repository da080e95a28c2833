/* Descriptor tables, selectors and segment bases as instructions use them; their rules are in cpu/segment.h.
 * Intel SDM volume 2: LGDT, SGDT, LLDT, LTR, LAR, LSL, VERR, MOV to segment registers, SWAPGS, RDFSBASE. */
#include "cpu/segment.h"

#include "engine/step/handlers.h"
#include "engine/step/system.h"

/* Instructions on selectors do not exist in real and V86 mode. */
static bool require_protected(struct vcpu *vcpu)
{
	return !vcpu_real_or_v86(vcpu) || vcpu_raise_ud(vcpu);
}

static bool umip_allows(struct vcpu *vcpu)
{
	return !(vcpu->cr4 & CR4_UMIP) || vcpu->cpl == 0 || vcpu_raise_gp(vcpu, 0);
}

static int load_table(struct vcpu *vcpu, const struct op *op, struct table_register *table)
{
	u8 bytes[10] = { 0 };
	unsigned base_size = word_size(op);
	struct table_register loaded = { 0 };
	if (!require_cpl0(vcpu) || !memory_read_slow(vcpu, op->segment, op_address(vcpu, op), bytes, 2 + base_size))
		return OP_FAULT;
	__builtin_memcpy(&loaded.limit, bytes, 2);
	loaded.base = load_sized(bytes + 2, base_size);
	if (op->size == 2)
		loaded.base &= 0xffffff;
	if (base_size == 8 && !is_canonical(loaded.base, vcpu_linear_bits(vcpu)))
		return vcpu_raise_gp(vcpu, 0);
	*table = loaded;
	return OP_DONE;
}

static int store_table(struct vcpu *vcpu, const struct op *op, const struct table_register *table)
{
	u8 bytes[10];
	if (!umip_allows(vcpu))
		return OP_FAULT;
	__builtin_memcpy(bytes, &table->limit, 2);
	__builtin_memcpy(bytes + 2, &table->base, 8);
	return memory_write_slow(vcpu, op->segment, op_address(vcpu, op), bytes, 2 + word_size(op));
}

int op_lgdt(struct vcpu *vcpu, const struct op *op)
{
	return load_table(vcpu, op, &vcpu->gdtr);
}

int op_lidt(struct vcpu *vcpu, const struct op *op)
{
	return load_table(vcpu, op, &vcpu->idtr);
}

int op_sgdt(struct vcpu *vcpu, const struct op *op)
{
	return store_table(vcpu, op, &vcpu->gdtr);
}

int op_sidt(struct vcpu *vcpu, const struct op *op)
{
	return store_table(vcpu, op, &vcpu->idtr);
}

int op_lldt(struct vcpu *vcpu, const struct op *op)
{
	u64 selector;
	vector_sync(vcpu);
	return require_protected(vcpu) && require_cpl0(vcpu) && rm_read(vcpu, op, 2, &selector) &&
	       segment_load_ldt(vcpu, (u16)selector);
}

int op_ltr(struct vcpu *vcpu, const struct op *op)
{
	u64 selector;
	vector_sync(vcpu);
	return require_protected(vcpu) && require_cpl0(vcpu) && rm_read(vcpu, op, 2, &selector) &&
	       segment_load_tr(vcpu, (u16)selector);
}

static int store_selector(struct vcpu *vcpu, const struct op *op, u16 selector)
{
	return rm_write(vcpu, op, op->flags & OP_REGISTER ? op->size : 2, selector);
}

int op_sldt(struct vcpu *vcpu, const struct op *op)
{
	return require_protected(vcpu) && umip_allows(vcpu) && store_selector(vcpu, op, vcpu->ldtr.selector);
}

int op_str(struct vcpu *vcpu, const struct op *op)
{
	return require_protected(vcpu) && umip_allows(vcpu) && store_selector(vcpu, op, vcpu->tr.selector);
}

static void set_zf(struct vcpu *vcpu, bool zf)
{
	vcpu->rflags = zf ? vcpu->rflags | RFLAGS_ZF : vcpu->rflags & ~RFLAGS_ZF;
}

typedef bool (*selector_query)(struct vcpu *vcpu, u16 selector, u32 *value, bool *ok);

static int query(struct vcpu *vcpu, const struct op *op, selector_query ask)
{
	u64 selector;
	u32 value;
	bool ok;
	vector_sync(vcpu);
	if (!require_protected(vcpu) || !rm_read(vcpu, op, 2, &selector) || !ask(vcpu, (u16)selector, &value, &ok))
		return OP_FAULT;
	set_zf(vcpu, ok);
	if (ok)
		reg_set(vcpu, op->reg, op->size, value);
	return OP_DONE;
}

int op_lar(struct vcpu *vcpu, const struct op *op)
{
	return query(vcpu, op, segment_lar);
}

int op_lsl(struct vcpu *vcpu, const struct op *op)
{
	return query(vcpu, op, segment_lsl);
}

static int verify(struct vcpu *vcpu, const struct op *op, bool write)
{
	u64 selector;
	bool ok;
	vector_sync(vcpu);
	if (!require_protected(vcpu) || !rm_read(vcpu, op, 2, &selector) ||
	    !segment_verify(vcpu, (u16)selector, write, &ok))
		return OP_FAULT;
	set_zf(vcpu, ok);
	return OP_DONE;
}

int op_verr(struct vcpu *vcpu, const struct op *op)
{
	return verify(vcpu, op, false);
}

int op_verw(struct vcpu *vcpu, const struct op *op)
{
	return verify(vcpu, op, true);
}

/* ---- segment registers and bases ---- */

int op_mov_from_segment(struct vcpu *vcpu, const struct op *op)
{
	return store_selector(vcpu, op, vcpu->seg[op->number].selector);
}

int op_mov_to_segment(struct vcpu *vcpu, const struct op *op)
{
	u64 selector;
	vector_sync(vcpu);
	if (op->number == SEG_CS || op->number >= SEG_COUNT)
		return vcpu_raise_ud(vcpu);
	if (!rm_read(vcpu, op, 2, &selector) || !segment_load(vcpu, (enum segment_register)op->number, (u16)selector))
		return OP_FAULT;
	if (op->number == SEG_SS)
		vcpu->shadow |= SHADOW_MOV_SS;
	return OP_DONE;
}

int op_swapgs(struct vcpu *vcpu, const struct op *op)
{
	if (!(op->flags & OP_LONG))
		return vcpu_raise_ud(vcpu);
	if (!require_cpl0(vcpu))
		return OP_FAULT;
	u64 base = vcpu->seg[SEG_GS].base;
	vcpu->seg[SEG_GS].base = vcpu->msr.kernel_gs_base;
	vcpu->msr.kernel_gs_base = base;
	return OP_DONE;
}

static bool fsgsbase_allowed(struct vcpu *vcpu, const struct op *op)
{
	return ((op->flags & OP_LONG) && (vcpu->cr4 & CR4_FSGSBASE)) || vcpu_raise_ud(vcpu);
}

int op_rdsegbase(struct vcpu *vcpu, const struct op *op)
{
	if (!fsgsbase_allowed(vcpu, op))
		return OP_FAULT;
	reg_set(vcpu, op->base, op->size, vcpu->seg[op->number].base);
	return OP_DONE;
}

int op_wrsegbase(struct vcpu *vcpu, const struct op *op)
{
	if (!fsgsbase_allowed(vcpu, op))
		return OP_FAULT;
	u64 base = reg_get(vcpu, op->base, op->size);
	if (!is_canonical(base, vcpu_linear_bits(vcpu)))
		return vcpu_raise_gp(vcpu, 0);
	vcpu->seg[op->number].base = base;
	return OP_DONE;
}
