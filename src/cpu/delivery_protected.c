/* Delivery in protected mode and from virtual-8086 mode: interrupt and trap gates of 16 and 32 bits, task gates.
 * Intel SDM volume 2, INT n, "PROTECTED-MODE", "INTER-PRIVILEGE-LEVEL-INTERRUPT", "INTERRUPT-FROM-VIRTUAL-8086-MODE";
 * volume 3, "Exception- or Interrupt-Handler Procedures", "Interrupt Tasks". */
#include "cpu/delivery.h"
#include "cpu/gate.h"
#include "cpu/task.h"

#define TYPE(name) (1u << (name))
#define GATES_16 (TYPE(SYS_INT_GATE16) | TYPE(SYS_TRAP_GATE16))
#define GATES_32 (TYPE(SYS_INT_GATE) | TYPE(SYS_TRAP_GATE))
#define GATES_INTERRUPT (TYPE(SYS_INT_GATE16) | TYPE(SYS_INT_GATE))

static bool read_gate(struct vcpu *vcpu, const struct event *e, struct gate *gate)
{
	const u32 error = e->vector << 3 | ERR_IDT | e->ext;
	unsigned offset = e->vector * 8;
	u64 raw;
	if (offset + 7 > vcpu->idtr.limit)
		return vcpu_raise_gp(vcpu, error);
	if (!system_read(vcpu, vcpu->idtr.base + offset, &raw, 8))
		return false;
	u32 attr = descriptor_attr(raw);
	if (!(TYPE(attr_system_type(attr)) & (GATES_16 | GATES_32 | TYPE(SYS_TASK_GATE))))
		return vcpu_raise_gp(vcpu, error);
	if (event_is_software(e) && attr_dpl(attr) < vcpu->cpl)
		return vcpu_raise_gp(vcpu, error);
	if (!(attr & SEG_ATTR_P))
		return vcpu_raise_error(vcpu, VEC_NP, error);
	gate_parse(raw, 0, gate);
	return true;
}

/* From virtual-8086 mode the handler must be at level 0, and the data segment registers are saved, too. */
static unsigned build_frame(const struct vcpu *vcpu, const struct event *e, bool inner, u64 *frame)
{
	const struct segment *seg = vcpu->seg;
	unsigned n = 0;
	if (vcpu_v86(vcpu)) {
		frame[n++] = seg[SEG_GS].selector;
		frame[n++] = seg[SEG_FS].selector;
		frame[n++] = seg[SEG_DS].selector;
		frame[n++] = seg[SEG_ES].selector;
	}
	if (inner) {
		frame[n++] = seg[SEG_SS].selector;
		frame[n++] = vcpu->gpr[RSP];
	}
	frame[n++] = e->rflags;
	frame[n++] = seg[SEG_CS].selector;
	frame[n++] = e->return_rip;
	if (e->has_error)
		frame[n++] = e->error;
	return n;
}

static void leave_v86(struct vcpu *vcpu)
{
	vcpu->seg[SEG_GS] = vcpu->seg[SEG_FS] = vcpu->seg[SEG_DS] = vcpu->seg[SEG_ES] = segment_null(0, 0);
}

static bool enter_handler(struct vcpu *vcpu, const struct event *e, const struct gate *gate, struct segment *cs,
			  unsigned cpl, u64 *target)
{
	const bool inner = cpl < vcpu->cpl;
	const unsigned size = TYPE(gate->type) & GATES_16 ? 2 : 4;
	struct stack st = stack_current(vcpu, e->ext);
	u64 frame[10];
	unsigned count = build_frame(vcpu, e, inner, frame);
	if (inner && !gate_inner_stack(vcpu, cpl, e->ext, &st))
		return false;
	if (!stack_has_room(vcpu, &st, count, size) || !segment_check_target(vcpu, cs, gate->offset, e->ext) ||
	    !stack_push(vcpu, &st, frame, count, size))
		return false;
	if (vcpu_v86(vcpu))
		leave_v86(vcpu);
	vcpu->seg[SEG_SS] = st.ss;
	stack_commit(vcpu, &st);
	gate_commit_code(vcpu, cs, cpl);
	u64 clear = RFLAGS_TF | RFLAGS_VM | RFLAGS_RF | RFLAGS_NT;
	cpu_set_rflags(vcpu, vcpu->rflags & ~(TYPE(gate->type) & GATES_INTERRUPT ? clear | RFLAGS_IF : clear));
	*target = gate->offset;
	return true;
}

/* The error code goes on the new task's stack, in the width of its TSS. */
static bool enter_task(struct vcpu *vcpu, const struct event *e, u16 selector, u64 *target)
{
	const struct task_request request = {
		.selector = selector,
		.reason = TASK_EVENT,
		.ext = e->ext,
		.return_rip = e->return_rip,
		.rflags = e->rflags,
		.has_error = e->has_error,
		.error = e->error,
	};
	if (!task_enter(vcpu, &request))
		return false;
	*target = vcpu->next_rip;
	return true;
}

bool delivery_protected(struct vcpu *vcpu, const struct event *e, u64 *target)
{
	struct gate gate;
	struct segment cs;
	if (!read_gate(vcpu, e, &gate))
		return false;
	if (gate.type == SYS_TASK_GATE)
		return enter_task(vcpu, e, gate.selector, target);
	if (!gate_fetch_code(vcpu, gate.selector, e->ext, &cs))
		return false;
	unsigned cpl = attr_is_conforming(cs.attr) ? vcpu->cpl : attr_dpl(cs.attr);
	if (vcpu_v86(vcpu) && cpl != 0)
		return raise_selector(vcpu, VEC_GP, gate.selector, e->ext);
	return enter_handler(vcpu, e, &gate, &cs, cpl, target);
}
