/* Far JMP and CALL: direct, through call gates with an inner stack, to tasks.
 * Intel SDM volume 2, CALL, JMP; volume 3, "Accessing a Code Segment Through a Call Gate". */
#include "cpu/gate.h"
#include "cpu/segment.h"
#include "cpu/transfer.h"

/* A JMP pushes nothing and never changes CPL. */
struct far_transfer {
	u16 selector;
	u64 offset;
	unsigned size; /* operand size, bytes */
	bool call;
};

/* Push CS and the return address on `st`, once the target has been checked; the order of the faults is the manual's. */
static bool push_return(struct vcpu *vcpu, struct stack *st, const struct segment *cs, u64 target, unsigned size)
{
	const u64 frame[] = { vcpu->seg[SEG_CS].selector, vcpu->next_rip };
	return stack_has_room(vcpu, st, 2, size) && segment_check_target(vcpu, cs, target, 0) &&
	       stack_push(vcpu, st, frame, 2, size);
}

static bool far_8086(struct vcpu *vcpu, const struct far_transfer *f)
{
	struct stack st = stack_current(vcpu, 0);
	const struct segment *cs = &vcpu->seg[SEG_CS];
	bool ok = f->call ? push_return(vcpu, &st, cs, f->offset, f->size) :
			    segment_check_target(vcpu, cs, f->offset, 0);
	if (!ok)
		return false;
	if (f->call)
		stack_commit(vcpu, &st);
	segment_set_real(vcpu, SEG_CS, f->selector);
	vcpu->next_rip = f->offset;
	return true;
}

/* To a code segment at the same level; conforming ones may be more privileged, and CPL stays. */
static bool far_direct(struct vcpu *vcpu, const struct far_transfer *f, struct descriptor *d)
{
	unsigned dpl = attr_dpl(d->attr), rpl = f->selector & SELECTOR_RPL;
	bool allowed = attr_is_conforming(d->attr) ? dpl <= vcpu->cpl : dpl == vcpu->cpl && rpl <= vcpu->cpl;
	bool mixed = vcpu_long_mode(vcpu) && (d->attr & SEG_ATTR_L) && (d->attr & SEG_ATTR_DB);
	struct stack st = stack_current(vcpu, 0);
	struct segment cs;
	if (!allowed || mixed)
		return raise_selector(vcpu, VEC_GP, f->selector, 0);
	if (!(d->attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_NP, f->selector, 0);
	if (!descriptor_load(vcpu, d, f->selector, &cs))
		return false;
	bool ok = f->call ? push_return(vcpu, &st, &cs, f->offset, f->size) :
			    segment_check_target(vcpu, &cs, f->offset, 0);
	if (!ok)
		return false;
	if (f->call)
		stack_commit(vcpu, &st);
	gate_commit_code(vcpu, &cs, vcpu->cpl);
	vcpu->next_rip = f->offset;
	return true;
}

/* Old SS:SP, the parameters, then CS:IP on the inner stack. */
static bool push_inner(struct vcpu *vcpu, struct stack *st, const struct segment *cs, const struct gate *gate,
		       unsigned size)
{
	struct stack old = stack_current(vcpu, 0);
	unsigned params = size == 8 ? 0 : gate->count, n = 0;
	u64 frame[STACK_FRAME_MAX], param[31];
	if (!stack_has_room(vcpu, st, 4 + params, size) || !segment_check_target(vcpu, cs, gate->offset, 0))
		return false;
	frame[n++] = vcpu->seg[SEG_SS].selector;
	frame[n++] = vcpu->gpr[RSP];
	if (params && !stack_pop(vcpu, &old, param, params, size))
		return false;
	while (params)
		frame[n++] = param[--params];
	frame[n++] = vcpu->seg[SEG_CS].selector;
	frame[n++] = vcpu->next_rip;
	return stack_push(vcpu, st, frame, n, size);
}

static bool call_inner(struct vcpu *vcpu, const struct gate *gate, struct segment *cs, unsigned size)
{
	unsigned dpl = attr_dpl(cs->attr);
	struct stack st;
	if (!gate_inner_stack(vcpu, dpl, 0, &st) || !push_inner(vcpu, &st, cs, gate, size))
		return false;
	vcpu->seg[SEG_SS] = st.ss;
	stack_commit(vcpu, &st);
	gate_commit_code(vcpu, cs, dpl);
	vcpu->next_rip = gate->offset;
	return true;
}

static bool through_same(struct vcpu *vcpu, const struct gate *gate, struct segment *cs, bool call, unsigned size)
{
	struct stack st = stack_current(vcpu, 0);
	if (vcpu_long_mode(vcpu))
		st.width = 8;
	bool ok = call ? push_return(vcpu, &st, cs, gate->offset, size) :
			 segment_check_target(vcpu, cs, gate->offset, 0);
	if (!ok)
		return false;
	if (call)
		stack_commit(vcpu, &st);
	gate_commit_code(vcpu, cs, vcpu->cpl);
	vcpu->next_rip = gate->offset;
	return true;
}

/* DPL and presence of a gate or TSS, for CPL and the selector's RPL. */
static bool check_gate(struct vcpu *vcpu, const struct descriptor *d)
{
	unsigned dpl = attr_dpl(d->attr);
	if (dpl < vcpu->cpl || dpl < (d->selector & SELECTOR_RPL))
		return raise_selector(vcpu, VEC_GP, d->selector, 0);
	if (!(d->attr & SEG_ATTR_P))
		return raise_selector(vcpu, VEC_NP, d->selector, 0);
	return true;
}

static bool far_call_gate(struct vcpu *vcpu, const struct far_transfer *f, struct descriptor *d)
{
	struct gate gate;
	struct segment cs;
	if (!check_gate(vcpu, d) || (vcpu_long_mode(vcpu) && !descriptor_read_high(vcpu, d, VEC_GP, 0)))
		return false;
	gate_parse(d->raw, d->high & 0xffffffff, &gate);
	if (!gate_fetch_code(vcpu, gate.selector, 0, &cs))
		return false;
	unsigned size = gate.type == SYS_CALL_GATE16 ? 2 : vcpu_long_mode(vcpu) ? 8 : 4;
	bool inner = !attr_is_conforming(cs.attr) && attr_dpl(cs.attr) < vcpu->cpl;
	if (inner && !f->call)
		return raise_selector(vcpu, VEC_GP, gate.selector, 0);
	return inner ? call_inner(vcpu, &gate, &cs, size) : through_same(vcpu, &gate, &cs, f->call, size);
}

static bool far_task(struct vcpu *vcpu, const struct far_transfer *f, const struct descriptor *d)
{
	u16 selector = f->selector;
	if (attr_system_type(d->attr) == SYS_TASK_GATE) {
		if (!check_gate(vcpu, d))
			return false;
		selector = d->raw >> 16;
	} else if (attr_dpl(d->attr) < vcpu->cpl || attr_dpl(d->attr) < (selector & SELECTOR_RPL)) {
		return raise_selector(vcpu, VEC_GP, selector, 0);
	}
	return task_switch(vcpu, selector, f->call ? TASK_CALL : TASK_JUMP, false, 0);
}

/* Which system descriptors a far transfer may name: IA-32e mode has 64-bit call gates only. */
static bool far_system(struct vcpu *vcpu, const struct far_transfer *f, struct descriptor *d)
{
	switch (attr_system_type(d->attr)) {
	case SYS_CALL_GATE16:
		if (vcpu_long_mode(vcpu))
			break;
		return far_call_gate(vcpu, f, d);
	case SYS_CALL_GATE:
		return far_call_gate(vcpu, f, d);
	case SYS_TASK_GATE:
	case SYS_TSS16:
	case SYS_TSS16_BUSY:
	case SYS_TSS:
	case SYS_TSS_BUSY:
		if (vcpu_long_mode(vcpu))
			break;
		return far_task(vcpu, f, d);
	}
	return raise_selector(vcpu, VEC_GP, f->selector, 0);
}

static bool far_transfer(struct vcpu *vcpu, const struct far_transfer *f)
{
	struct descriptor d;
	if (vcpu_real_or_v86(vcpu))
		return far_8086(vcpu, f);
	if (selector_is_null(f->selector))
		return vcpu_raise_gp(vcpu, 0);
	if (!descriptor_read(vcpu, f->selector, VEC_GP, 0, &d))
		return false;
	return attr_is_code(d.attr) ? far_direct(vcpu, f, &d) : far_system(vcpu, f, &d);
}

bool transfer_far_jump(struct vcpu *vcpu, u16 selector, u64 offset, unsigned size)
{
	const struct far_transfer f = { selector, offset & size_mask(size), size, false };
	return far_transfer(vcpu, &f);
}

bool transfer_far_call(struct vcpu *vcpu, u16 selector, u64 offset, unsigned size)
{
	const struct far_transfer f = { selector, offset & size_mask(size), size, true };
	return far_transfer(vcpu, &f);
}
