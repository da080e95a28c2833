/* Segmentation: linear addresses, and loading segment registers with their hidden parts.
 * Intel SDM volume 3, "Protected-Mode Memory Management", "Protection"; volume 2, MOV, LDS, LLDT, LTR. */
#include "cpu/segment.h"
#include "cpu/descriptor.h"

static bool raise_address(struct vcpu *vcpu, enum segment_register seg)
{
	return vcpu_raise_error(vcpu, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
}

/* Real mode does not look at types: CS is writable there. */
static bool type_allows(const struct vcpu *vcpu, const struct segment *seg, unsigned kind)
{
	if (seg->attr & SEG_ATTR_UNUSABLE)
		return false;
	if (vcpu_real_or_v86(vcpu))
		return true;
	switch (kind & ACCESS_KIND) {
	case ACCESS_READ:
		return attr_is_readable(seg->attr);
	case ACCESS_WRITE:
		return attr_is_writable_data(seg->attr);
	default:
		return true;
	}
}

bool segment_linear(struct vcpu *vcpu, enum segment_register seg, gva_t offset, unsigned size, unsigned kind, gla_t *gla)
{
	const struct segment *s = &vcpu->seg[seg];
	if (likely(vcpu_64bit(vcpu))) {
		unsigned bits = vcpu_linear_bits(vcpu);
		gla_t first = seg >= SEG_FS ? s->base + offset : offset;
		*gla = first;
		if (likely(is_canonical(first, bits) && is_canonical(first + size - 1, bits)))
			return true;
		return raise_address(vcpu, seg);
	}
	if (!type_allows(vcpu, s, kind) || !segment_within_limit(s, offset, size))
		return raise_address(vcpu, seg);
	*gla = (u32)(s->base + offset);
	return true;
}

bool segment_read(struct vcpu *vcpu, enum segment_register seg, gva_t offset, void *buf, unsigned size)
{
	gla_t gla;
	return segment_linear(vcpu, seg, offset, size, ACCESS_READ, &gla) && mmu_read(vcpu, gla, buf, size, ACCESS_READ);
}

bool segment_write(struct vcpu *vcpu, enum segment_register seg, gva_t offset, const void *buf, unsigned size)
{
	gla_t gla;
	return segment_linear(vcpu, seg, offset, size, ACCESS_WRITE, &gla) &&
	       mmu_write(vcpu, gla, buf, size, ACCESS_WRITE);
}

void segment_set_real(struct vcpu *vcpu, enum segment_register seg, u16 selector)
{
	struct segment *s = &vcpu->seg[seg];
	if (vcpu_protected(vcpu) || (s->attr & SEG_ATTR_UNUSABLE)) {
		u32 dpl = vcpu_protected(vcpu) ? 3 : 0;
		s->limit = 0xffff;
		s->attr = SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_WRITABLE | SEG_ATTR_ACCESSED | dpl << SEG_ATTR_DPL_SHIFT;
	}
	s->selector = selector;
	s->base = (u32)selector << 4;
}

/* A null SS exists in 64-bit mode only, below CPL 3, and its RPL must be CPL. Volume 2, MOV. */
static bool fetch_stack_or_null(struct vcpu *vcpu, u16 selector, struct segment *s)
{
	bool null_allowed = vcpu_64bit(vcpu) && vcpu->cpl != 3 && (selector & SELECTOR_RPL) == vcpu->cpl;
	if (selector_is_null(selector) && null_allowed) {
		*s = segment_null(selector, vcpu->cpl);
		return true;
	}
	return segment_fetch_stack(vcpu, selector, vcpu->cpl, VEC_GP, 0, s);
}

bool segment_load(struct vcpu *vcpu, enum segment_register seg, u16 selector)
{
	struct segment s;
	if (vcpu_real_or_v86(vcpu)) {
		segment_set_real(vcpu, seg, selector);
		return true;
	}
	bool ok = seg == SEG_SS ? fetch_stack_or_null(vcpu, selector, &s) :
				  segment_fetch_data(vcpu, selector, vcpu->cpl, VEC_GP, 0, &s);
	if (!ok)
		return false;
	vcpu->seg[seg] = s;
	return true;
}

bool segment_load_ldt(struct vcpu *vcpu, u16 selector)
{
	struct segment ldt;
	if (!segment_fetch_ldt(vcpu, selector, VEC_GP, VEC_NP, 0, &ldt))
		return false;
	vcpu->ldtr = ldt;
	return true;
}

bool segment_load_tr(struct vcpu *vcpu, u16 selector)
{
	struct descriptor d;
	struct segment tss;
	if (selector_is_null(selector))
		return vcpu_raise_gp(vcpu, 0);
	if (selector & SELECTOR_TI)
		return raise_selector(vcpu, VEC_GP, selector, 0);
	if (!descriptor_read(vcpu, selector, VEC_GP, 0, &d))
		return false;
	unsigned type = attr_system_type(d.attr);
	if (type != SYS_TSS && (type != SYS_TSS16 || vcpu_long_mode(vcpu)))
		return raise_selector(vcpu, VEC_GP, selector, 0);
	if (vcpu_64bit(vcpu) && !descriptor_read_high(vcpu, &d, VEC_GP, 0))
		return false;
	if (!(d.attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_NP, selector, 0);
	descriptor_parse_system(&d, &tss);
	if (!is_canonical(tss.base, vcpu_linear_bits(vcpu)))
		return raise_selector(vcpu, VEC_GP, selector, 0);
	if (!descriptor_change_type(vcpu, d.gla, SYS_TSS_BUSY ^ SYS_TSS, 0))
		return false;
	tss.attr |= SYS_TSS_BUSY ^ SYS_TSS;
	vcpu->tr = tss;
	return true;
}

void cpu_set_cpl(struct vcpu *vcpu, u8 cpl)
{
	vcpu->cpl = cpl;
	mmu_update_view(vcpu);
}
