/* The code segment a gate leads to, and the stack of an inner privilege level.
 * Intel SDM volume 3, "Stack Switching", "Stack Switching in IA-32e Mode"; volume 2, CALL and INT n. */
#include "cpu/gate.h"
#include "cpu/segment.h"

bool gate_fetch_code(struct vcpu *vcpu, u16 selector, u32 ext, struct segment *cs)
{
	struct descriptor d;
	if (selector_is_null(selector))
		return vcpu_raise_gp(vcpu, ext);
	if (!descriptor_read(vcpu, selector, VEC_GP, ext, &d))
		return false;
	bool size_good = !vcpu_long_mode(vcpu) || (d.attr & (SEG_ATTR_L | SEG_ATTR_DB)) == SEG_ATTR_L;
	if (!attr_is_code(d.attr) || attr_dpl(d.attr) > vcpu->cpl || !size_good)
		return raise_selector(vcpu, VEC_GP, selector, ext);
	if (!(d.attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_NP, selector, ext);
	return descriptor_load(vcpu, &d, selector, cs);
}

bool gate_tss_rsp(struct vcpu *vcpu, unsigned offset, u32 ext, u64 *rsp)
{
	if (offset + 7 > vcpu->tr.limit)
		return raise_selector(vcpu, VEC_TS, vcpu->tr.selector, ext);
	return system_read(vcpu, vcpu->tr.base + offset, rsp, 8);
}

/* SS:ESP of a 32-bit TSS or SS:SP of a 16-bit one. */
static bool tss_stack(struct vcpu *vcpu, unsigned dpl, u32 ext, u16 *ss, u32 *esp)
{
	bool wide = vcpu->tr.attr & (SYS_TSS ^ SYS_TSS16);
	unsigned offset = wide ? 4 + dpl * 8 : 2 + dpl * 4;
	u8 pair[6] = { 0 };
	unsigned size = wide ? 6 : 4;
	if (offset + size - 1 > vcpu->tr.limit)
		return raise_selector(vcpu, VEC_TS, vcpu->tr.selector, ext);
	if (!system_read(vcpu, vcpu->tr.base + offset, pair, size))
		return false;
	*esp = pair[0] | pair[1] << 8;
	if (wide)
		*esp |= (u32)pair[2] << 16 | (u32)pair[3] << 24;
	*ss = pair[size - 2] | pair[size - 1] << 8;
	return true;
}

bool gate_inner_stack(struct vcpu *vcpu, unsigned dpl, u32 ext, struct stack *st)
{
	struct segment ss;
	u16 selector;
	u32 esp;
	if (likely(vcpu_long_mode(vcpu))) {
		*st = (struct stack){ .ss = segment_null(dpl, dpl), .width = 8, .cpl = dpl, .error = ext };
		return gate_tss_rsp(vcpu, 4 + dpl * 8, ext, &st->sp);
	}
	if (!tss_stack(vcpu, dpl, ext, &selector, &esp) ||
	    !segment_fetch_stack(vcpu, selector, dpl, VEC_TS, ext, &ss))
		return false;
	*st = stack_of(ss, esp, dpl, (selector & ~SELECTOR_RPL) | ext);
	return true;
}

void gate_commit_code(struct vcpu *vcpu, struct segment *cs, u8 cpl)
{
	cs->selector = (cs->selector & ~SELECTOR_RPL) | cpl;
	vcpu->seg[SEG_CS] = *cs;
	cpu_set_cpl(vcpu, cpl);
}
