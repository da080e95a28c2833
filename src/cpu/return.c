/* Far RET, and the checks it shares with IRET. Intel SDM volume 2, RET, IRET. */
#include "cpu/return.h"
#include "cpu/segment.h"
#include "cpu/transfer.h"

bool return_fetch_code(struct vcpu *vcpu, u16 selector, struct segment *cs)
{
	if (!selector_is_null(selector) && (selector & SELECTOR_RPL) < vcpu->cpl)
		return raise_selector(vcpu, VEC_GP, selector, 0);
	return segment_fetch_code(vcpu, selector, VEC_GP, 0, cs);
}

bool return_fetch_stack(struct vcpu *vcpu, u16 selector, const struct segment *cs, struct segment *ss)
{
	unsigned cpl = cs->selector & SELECTOR_RPL;
	if (selector_is_null(selector) && segment_is_64bit(vcpu, cs) && cpl != 3) {
		*ss = segment_null(selector, cpl);
		return true;
	}
	return segment_fetch_stack(vcpu, selector, cpl, VEC_GP, 0, ss);
}

void return_commit(struct vcpu *vcpu, const struct segment *cs, const struct segment *ss, u64 sp)
{
	u8 cpl = cs->selector & SELECTOR_RPL;
	bool outward = cpl > vcpu->cpl;
	vcpu->seg[SEG_CS] = *cs;
	vcpu->seg[SEG_SS] = *ss;
	cpu_set_sp(vcpu, sp);
	if (!outward)
		return;
	cpu_set_cpl(vcpu, cpl);
	segment_drop_privileged(vcpu);
}

static bool return_real(struct vcpu *vcpu, unsigned size, u16 release)
{
	struct stack st = stack_current(vcpu, 0);
	u64 frame[2]; /* IP, CS */
	if (!stack_pop(vcpu, &st, frame, 2, size) || !segment_check_target(vcpu, &vcpu->seg[SEG_CS], frame[0], 0))
		return false;
	stack_drop(&st, release);
	stack_commit(vcpu, &st);
	segment_set_real(vcpu, SEG_CS, frame[1]);
	vcpu->next_rip = frame[0];
	return true;
}

/* The inner stack holds the parameters, then the outer SS:RSP; the outer stack holds the parameters again. */
static bool return_outward(struct vcpu *vcpu, struct stack *st, const struct segment *cs, u64 rip, unsigned size,
			   u16 release)
{
	struct segment ss;
	u64 outer[2]; /* RSP, SS */
	stack_drop(st, release);
	if (!stack_pop(vcpu, st, outer, 2, size) || !return_fetch_stack(vcpu, outer[1], cs, &ss) ||
	    !segment_check_target(vcpu, cs, rip, 0))
		return false;
	return_commit(vcpu, cs, &ss, outer[0] + release);
	vcpu->next_rip = rip;
	return true;
}

bool transfer_far_return(struct vcpu *vcpu, unsigned size, u16 release)
{
	struct stack st = stack_current(vcpu, 0);
	struct segment cs;
	u64 frame[2]; /* RIP, CS */
	if (vcpu_real_or_v86(vcpu))
		return return_real(vcpu, size, release);
	if (!stack_pop(vcpu, &st, frame, 2, size) || !return_fetch_code(vcpu, frame[1], &cs))
		return false;
	if ((cs.selector & SELECTOR_RPL) > vcpu->cpl)
		return return_outward(vcpu, &st, &cs, frame[0], size, release);
	if (!segment_check_target(vcpu, &cs, frame[0], 0))
		return false;
	stack_drop(&st, release);
	stack_commit(vcpu, &st);
	vcpu->seg[SEG_CS] = cs;
	vcpu->next_rip = frame[0];
	return true;
}
