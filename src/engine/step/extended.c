/* The XSAVE family, FXSAVE, FXRSTOR, LDMXCSR and STMXCSR: they work on the image of the state; cpu/xstate.h has the
 * rules. */
#include "cpu/xstate.h"

#include "engine/step/handlers.h"
#include "engine/step/system.h"
#include "engine/step/x87.h"

static bool state_address(struct vcpu *vcpu, const struct op *op, unsigned kind, gla_t *gla)
{
	vector_sync(vcpu);
	return segment_linear(vcpu, (enum segment_register)op->segment, op_address(vcpu, op), 1, kind, gla);
}

/* number: enum xsave_kind. */
int op_xsave(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	return state_address(vcpu, op, ACCESS_WRITE, &gla) &&
	       xstate_save(vcpu, (enum xsave_kind)op->number, gla, get_edx_eax(vcpu), op->flags & OP_REX_W);
}

int op_xrstor(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	if (!state_address(vcpu, op, ACCESS_READ, &gla) ||
	    !xstate_restore(vcpu, op->number == XSAVE_SUPERVISOR, gla, get_edx_eax(vcpu), op->flags & OP_REX_W))
		return OP_FAULT;
	x87_reload(vcpu, step_of(vcpu));
	return OP_DONE;
}

int op_fxsave(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	return state_address(vcpu, op, ACCESS_WRITE, &gla) && xstate_fxsave(vcpu, gla, op->flags & OP_REX_W);
}

int op_fxrstor(struct vcpu *vcpu, const struct op *op)
{
	gla_t gla;
	if (!state_address(vcpu, op, ACCESS_READ, &gla) || !xstate_fxrstor(vcpu, gla, op->flags & OP_REX_W))
		return OP_FAULT;
	x87_reload(vcpu, step_of(vcpu));
	return OP_DONE;
}

static bool mxcsr_allowed(struct vcpu *vcpu, const struct op *op)
{
	vector_sync(vcpu);
	return xstate_check(vcpu, op->xstate == XSTATE_AVX ? XSTATE_AVX : XSTATE_SSE);
}

int op_ldmxcsr(struct vcpu *vcpu, const struct op *op)
{
	u64 value;
	return mxcsr_allowed(vcpu, op) && op_read(vcpu, op, 4, &value) && xstate_ldmxcsr(vcpu, (u32)value);
}

int op_stmxcsr(struct vcpu *vcpu, const struct op *op)
{
	u32 value;
	return mxcsr_allowed(vcpu, op) && xstate_stmxcsr(vcpu, &value) && op_write(vcpu, op, 4, value);
}
