/* Delivery in IA-32e mode: 16-byte gates, the interrupt-stack table, a frame that always holds SS:RSP.
 * Intel SDM volume 3, "Exception and Interrupt Handling in 64-bit Mode"; volume 2, INT n. */
#include "cpu/delivery.h"
#include "cpu/gate.h"

/* Read and check the gate; *ist is its interrupt-stack table index. */
static bool read_gate(struct vcpu *vcpu, const struct event *e, struct gate *gate, unsigned *ist)
{
	const u32 error = e->vector << 3 | ERR_IDT | e->ext;
	unsigned offset = e->vector * 16;
	u64 raw[2];
	if (offset + 15 > vcpu->idtr.limit)
		return vcpu_raise_gp(vcpu, error);
	if (!system_read(vcpu, vcpu->idtr.base + offset, raw, 16))
		return false;
	u32 attr = descriptor_attr(raw[0]);
	unsigned type = attr_system_type(attr);
	if (type != SYS_INT_GATE && type != SYS_TRAP_GATE)
		return vcpu_raise_gp(vcpu, error);
	if (event_is_software(e) && attr_dpl(attr) < vcpu->cpl)
		return vcpu_raise_gp(vcpu, error);
	if (!(attr & SEG_ATTR_P))
		return vcpu_raise_error(vcpu, VEC_NP, error);
	gate_parse(raw[0], raw[1], gate);
	*ist = raw[0] >> 32 & 7;
	return true;
}

/* The stack of the handler, aligned to 16 bytes. An IST entry without a change of CPL leaves SS alone. */
static bool handler_stack(struct vcpu *vcpu, unsigned cpl, unsigned ist, u32 ext, struct stack *st)
{
	bool inner = cpl != vcpu->cpl;
	if (inner && !ist) {
		if (!gate_inner_stack(vcpu, cpl, ext, st))
			return false;
	} else {
		struct segment ss = inner ? segment_null(cpl, cpl) : vcpu->seg[SEG_SS];
		*st = (struct stack){ .ss = ss, .sp = vcpu->gpr[RSP], .width = 8, .cpl = cpl, .error = ext };
		if (ist && !gate_tss_rsp(vcpu, 28 + ist * 8, ext, &st->sp))
			return false;
	}
	st->sp &= ~15ull;
	return true;
}

bool delivery_long(struct vcpu *vcpu, const struct event *e, u64 *target)
{
	struct gate gate;
	struct segment cs;
	struct stack st;
	unsigned ist;
	if (!read_gate(vcpu, e, &gate, &ist) || !gate_fetch_code(vcpu, gate.selector, e->ext, &cs))
		return false;
	unsigned cpl = attr_is_conforming(cs.attr) ? vcpu->cpl : attr_dpl(cs.attr);
	const u64 frame[] = {
		vcpu->seg[SEG_SS].selector, vcpu->gpr[RSP], e->rflags, vcpu->seg[SEG_CS].selector, e->return_rip,
		e->error,
	};
	const unsigned count = e->has_error ? 6 : 5;
	if (!handler_stack(vcpu, cpl, ist, e->ext, &st) || !stack_has_room(vcpu, &st, count, 8) ||
	    !segment_check_target(vcpu, &cs, gate.offset, e->ext) || !stack_push(vcpu, &st, frame, count, 8))
		return false;
	vcpu->seg[SEG_SS] = st.ss;
	stack_commit(vcpu, &st);
	gate_commit_code(vcpu, &cs, cpl);
	u64 clear = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM;
	cpu_set_rflags(vcpu, vcpu->rflags & ~(gate.type == SYS_INT_GATE ? clear | RFLAGS_IF : clear));
	*target = gate.offset;
	return true;
}
