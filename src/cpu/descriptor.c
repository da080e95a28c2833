/* Descriptors: table look-up, accessed and busy bits, and the checks each use of a selector demands.
 * Intel SDM volume 3, "Protected-Mode Memory Management", "Protection", "System Descriptor Types"; volume 2, MOV, IRET, LLDT. */
#include "cpu/descriptor.h"
#include "cpu/segment.h"

/* A table's base may be canonical and base plus index not. Outside IA-32e mode linear addresses have 32 bits. */
static bool system_address(struct vcpu *vcpu, gla_t *gla, unsigned size)
{
	if (!vcpu_long_mode(vcpu)) {
		*gla = (u32)*gla;
		return true;
	}
	unsigned bits = vcpu_linear_bits(vcpu);
	if (likely(is_canonical(*gla, bits) && is_canonical(*gla + size - 1, bits)))
		return true;
	return vcpu_raise_gp(vcpu, 0);
}

bool system_read(struct vcpu *vcpu, gla_t gla, void *buf, unsigned size)
{
	return system_address(vcpu, &gla, size) && mmu_read(vcpu, gla, buf, size, ACCESS_READ | ACCESS_IMPLICIT);
}

bool system_write(struct vcpu *vcpu, gla_t gla, const void *buf, unsigned size)
{
	return system_address(vcpu, &gla, size) && mmu_write(vcpu, gla, buf, size, ACCESS_WRITE | ACCESS_IMPLICIT);
}

bool system_probe_write(struct vcpu *vcpu, gla_t gla, unsigned size)
{
	return system_address(vcpu, &gla, size) && mmu_probe_write(vcpu, gla, size, ACCESS_WRITE | ACCESS_IMPLICIT);
}

bool descriptor_locate(const struct vcpu *vcpu, u16 selector, unsigned size, gla_t *gla)
{
	u64 base = vcpu->gdtr.base;
	u32 limit = vcpu->gdtr.limit;
	if (selector & SELECTOR_TI) {
		if (vcpu->ldtr.attr & SEG_ATTR_UNUSABLE)
			return false;
		base = vcpu->ldtr.base;
		limit = vcpu->ldtr.limit;
	}
	u32 index = selector & SELECTOR_INDEX;
	*gla = base + index;
	return index + size - 1 <= limit;
}

bool descriptor_read(struct vcpu *vcpu, u16 selector, u8 vector, u32 ext, struct descriptor *d)
{
	if (!descriptor_locate(vcpu, selector, 8, &d->gla))
		return raise_selector(vcpu, vector, selector, ext);
	if (!system_read(vcpu, d->gla, &d->raw, 8))
		return false;
	d->high = 0;
	d->attr = descriptor_attr(d->raw);
	d->selector = selector;
	return true;
}

bool descriptor_read_high(struct vcpu *vcpu, struct descriptor *d, u8 vector, u32 ext)
{
	gla_t gla;
	if (!descriptor_locate(vcpu, d->selector, 16, &gla))
		return raise_selector(vcpu, vector, d->selector, ext);
	if (!system_read(vcpu, gla + 8, &d->high, 8))
		return false;
	if (d->high >> 32 & 0x1f00)
		return raise_selector(vcpu, vector, d->selector, ext);
	return true;
}

bool descriptor_change_type(struct vcpu *vcpu, gla_t gla, u8 set, u8 clear)
{
	struct translation t;
	gla += 5;
	if (!system_address(vcpu, &gla, 1) || !mmu_translate(vcpu, gla, ACCESS_WRITE | ACCESS_IMPLICIT, &t))
		return false;
	if (likely(t.hva)) {
		if (set)
			__atomic_fetch_or(t.hva, set, __ATOMIC_SEQ_CST);
		if (clear)
			__atomic_fetch_and(t.hva, (u8)~clear, __ATOMIC_SEQ_CST);
		mmu_stored(vcpu, t.flags, t.generation);
		return true;
	}
	u8 byte;
	if (!system_read(vcpu, gla, &byte, 1))
		return false;
	byte = (byte | set) & ~clear;
	return system_write(vcpu, gla, &byte, 1);
}

void segment_parse(u64 descriptor, u16 selector, struct segment *seg)
{
	u32 limit = (descriptor & 0xffff) | (descriptor >> 32 & 0xf0000);
	seg->selector = selector;
	seg->attr = descriptor_attr(descriptor);
	seg->base = (descriptor >> 16 & 0xffffff) | (descriptor >> 32 & 0xff000000);
	seg->limit = (seg->attr & SEG_ATTR_G) ? limit << 12 | 0xfff : limit;
}

bool descriptor_load(struct vcpu *vcpu, struct descriptor *d, u16 selector, struct segment *seg)
{
	const u64 accessed = (u64)SEG_ATTR_ACCESSED << 40;
	if (unlikely(!(d->raw & accessed))) {
		if (!descriptor_change_type(vcpu, d->gla, SEG_ATTR_ACCESSED, 0))
			return false;
		d->raw |= accessed;
	}
	segment_parse(d->raw, selector, seg);
	return true;
}

void descriptor_parse_system(const struct descriptor *d, struct segment *seg)
{
	segment_parse(d->raw, d->selector, seg);
	seg->base |= d->high << 32;
}

void gate_parse(u64 raw, u64 high, struct gate *gate)
{
	gate->type = raw >> 40 & SEG_ATTR_TYPE;
	gate->count = raw >> 32 & 0x1f;
	gate->selector = raw >> 16;
	gate->offset = (raw & 0xffff) | (raw >> 32 & 0xffff0000) | high << 32;
	if (gate->type == SYS_CALL_GATE16 || gate->type == SYS_INT_GATE16 || gate->type == SYS_TRAP_GATE16)
		gate->offset &= 0xffff;
}

struct segment segment_null(u16 selector, unsigned dpl)
{
	return (struct segment){ .selector = selector, .attr = SEG_ATTR_UNUSABLE | dpl << SEG_ATTR_DPL_SHIFT };
}

bool segment_fetch_stack(struct vcpu *vcpu, u16 selector, unsigned cpl, u8 vector, u32 ext, struct segment *seg)
{
	struct descriptor d;
	if (selector_is_null(selector))
		return vcpu_raise_error(vcpu, vector, ext);
	if (!descriptor_read(vcpu, selector, vector, ext, &d))
		return false;
	if ((selector & SELECTOR_RPL) != cpl || !attr_is_writable_data(d.attr) || attr_dpl(d.attr) != cpl)
		return raise_selector(vcpu, vector, selector, ext);
	if (!(d.attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_SS, selector, ext);
	return descriptor_load(vcpu, &d, selector, seg);
}

bool segment_fetch_data(struct vcpu *vcpu, u16 selector, unsigned cpl, u8 vector, u32 ext, struct segment *seg)
{
	struct descriptor d;
	if (selector_is_null(selector)) {
		*seg = segment_null(selector, 0);
		return true;
	}
	if (!descriptor_read(vcpu, selector, vector, ext, &d))
		return false;
	unsigned dpl = attr_dpl(d.attr);
	bool privileged = !attr_is_conforming(d.attr) && ((selector & SELECTOR_RPL) > dpl || cpl > dpl);
	if (!attr_is_readable(d.attr) || privileged)
		return raise_selector(vcpu, vector, selector, ext);
	if (!(d.attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_NP, selector, ext);
	return descriptor_load(vcpu, &d, selector, seg);
}

bool segment_fetch_code(struct vcpu *vcpu, u16 selector, u8 vector, u32 ext, struct segment *seg)
{
	struct descriptor d;
	if (selector_is_null(selector))
		return vcpu_raise_error(vcpu, vector, ext);
	if (!descriptor_read(vcpu, selector, vector, ext, &d))
		return false;
	unsigned dpl = attr_dpl(d.attr), rpl = selector & SELECTOR_RPL;
	bool privilege = attr_is_conforming(d.attr) ? dpl <= rpl : dpl == rpl;
	bool mixed = vcpu_long_mode(vcpu) && (d.attr & SEG_ATTR_L) && (d.attr & SEG_ATTR_DB);
	if (!attr_is_code(d.attr) || !privilege || mixed)
		return raise_selector(vcpu, vector, selector, ext);
	if (!(d.attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_NP, selector, ext);
	return descriptor_load(vcpu, &d, selector, seg);
}

bool segment_fetch_ldt(struct vcpu *vcpu, u16 selector, u8 vector, u8 absent, u32 ext, struct segment *seg)
{
	struct descriptor d;
	if (selector_is_null(selector)) {
		*seg = segment_null(selector, 0);
		return true;
	}
	if (selector & SELECTOR_TI)
		return raise_selector(vcpu, vector, selector, ext);
	if (!descriptor_read(vcpu, selector, vector, ext, &d))
		return false;
	if (attr_system_type(d.attr) != SYS_LDT)
		return raise_selector(vcpu, vector, selector, ext);
	if (vcpu_64bit(vcpu) && !descriptor_read_high(vcpu, &d, vector, ext))
		return false;
	if (!(d.attr & SEG_ATTR_P))
		return raise_selector(vcpu, absent, selector, ext);
	descriptor_parse_system(&d, seg);
	if (!is_canonical(seg->base, vcpu_linear_bits(vcpu)))
		return raise_selector(vcpu, vector, selector, ext);
	return true;
}

bool segment_check_target(struct vcpu *vcpu, const struct segment *cs, u64 rip, u32 ext)
{
	bool good = segment_is_64bit(vcpu, cs) ? is_canonical(rip, vcpu_linear_bits(vcpu)) : rip <= cs->limit;
	return likely(good) || vcpu_raise_gp(vcpu, ext);
}

void segment_drop_privileged(struct vcpu *vcpu)
{
	static const u8 data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
		struct segment *seg = &vcpu->seg[data[i]];
		/* A null selector stays as it is: FS and GS may have a base in 64-bit mode. */
		if (seg->attr & SEG_ATTR_UNUSABLE)
			continue;
		if (attr_dpl(seg->attr) < vcpu->cpl && !attr_is_conforming(seg->attr))
			*seg = segment_null(0, 0);
	}
}

bool segment_within_limit(const struct segment *seg, u64 offset, unsigned size)
{
	u64 last = offset + size - 1;
	bool expand_down = (seg->attr & (SEG_ATTR_S | SEG_ATTR_CODE | SEG_ATTR_EXPAND_DOWN)) ==
			   (SEG_ATTR_S | SEG_ATTR_EXPAND_DOWN);
	if (likely(!expand_down))
		return last <= seg->limit;
	return offset > seg->limit && last <= ((seg->attr & SEG_ATTR_DB) ? 0xffffffff : 0xffff);
}
