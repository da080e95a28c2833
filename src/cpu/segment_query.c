/* LAR, LSL, VERR and VERW: what a program may learn about a selector without loading it (B1).
 * Intel SDM volume 2, LAR, LSL, VERR/VERW. */
#include "cpu/descriptor.h"
#include "cpu/segment.h"

#define TYPE(name) (1u << (name))

/* Types of system descriptors each instruction knows, outside and in IA-32e mode. Volume 2, tables "Segment and Gate Types"
 * of LAR and "Segment and Gate Descriptor Types" of LSL. */
static const u16 lar_types[2] = {
	TYPE(SYS_TSS16) | TYPE(SYS_LDT) | TYPE(SYS_TSS16_BUSY) | TYPE(SYS_CALL_GATE16) | TYPE(SYS_TASK_GATE) |
		TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY) | TYPE(SYS_CALL_GATE),
	TYPE(SYS_LDT) | TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY) | TYPE(SYS_CALL_GATE),
};
static const u16 lsl_types[2] = {
	TYPE(SYS_TSS16) | TYPE(SYS_LDT) | TYPE(SYS_TSS16_BUSY) | TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY),
	TYPE(SYS_LDT) | TYPE(SYS_TSS) | TYPE(SYS_TSS_BUSY),
};

/* Read the descriptor if the selector points at one. */
static bool look_up(struct vcpu *vcpu, u16 selector, struct descriptor *d, bool *ok)
{
	*ok = false;
	if (selector_is_null(selector) || !descriptor_locate(vcpu, selector, 8, &d->gla))
		return true;
	if (!system_read(vcpu, d->gla, &d->raw, 8))
		return false;
	d->attr = descriptor_attr(d->raw);
	*ok = true;
	return true;
}

/* Whether CPL and RPL may see the descriptor: conforming code is open to all. */
static bool visible(const struct vcpu *vcpu, u16 selector, u32 attr)
{
	unsigned dpl = attr_dpl(attr);
	return attr_is_conforming(attr) || (vcpu->cpl <= dpl && (selector & SELECTOR_RPL) <= dpl);
}

static bool query(struct vcpu *vcpu, u16 selector, const u16 types[2], struct descriptor *d, bool *ok)
{
	if (!look_up(vcpu, selector, d, ok))
		return false;
	if (!*ok)
		return true;
	bool known = (d->attr & SEG_ATTR_S) || (types[vcpu_long_mode(vcpu)] & TYPE(d->attr & SEG_ATTR_TYPE));
	*ok = known && visible(vcpu, selector, d->attr);
	return true;
}

bool segment_lar(struct vcpu *vcpu, u16 selector, u32 *value, bool *ok)
{
	struct descriptor d;
	if (!query(vcpu, selector, lar_types, &d, ok))
		return false;
	if (*ok)
		*value = d.raw >> 32 & 0x00ffff00;
	return true;
}

bool segment_lsl(struct vcpu *vcpu, u16 selector, u32 *value, bool *ok)
{
	struct descriptor d;
	struct segment s;
	if (!query(vcpu, selector, lsl_types, &d, ok))
		return false;
	if (*ok) {
		segment_parse(d.raw, selector, &s);
		*value = s.limit;
	}
	return true;
}

bool segment_verify(struct vcpu *vcpu, u16 selector, bool write, bool *ok)
{
	struct descriptor d;
	if (!look_up(vcpu, selector, &d, ok))
		return false;
	if (!*ok)
		return true;
	bool type = write ? attr_is_writable_data(d.attr) : attr_is_readable(d.attr);
	*ok = type && visible(vcpu, selector, d.attr);
	return true;
}
