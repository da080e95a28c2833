/* Call-outs: instructions that C does, called by translated code (state.h). The operation is that of engine/step, prepared once; what makes
 * the loop look up first (run.c) ends the stay in translated code. */
#include "engine/bt/direct.h"
#include "engine/bt/work.h"

#include "engine/bt/lockstep.h"
#include "engine/step/step.h"

/* ---- at run time ---- */

/* Whether translated code must not simply go on. */
static bool must_leave(struct vcpu *vcpu)
{
	struct bt *bt = bt_of(vcpu);
	return vcpu_pending(vcpu) || (vcpu->deferred & ~pending_not_yet(vcpu)) || step_needs_care(vcpu) ||
	       bt->logged != __atomic_load_n(&vcpu->ram->code_logged, __ATOMIC_RELAXED);
}

/* On at vcpu->rip. The fetch from an address that is not canonical or beyond CS faults: that is the loop's. */
static enum callout_next dispatch(struct vcpu *vcpu)
{
	modes_look(vcpu);
	if (must_leave(vcpu) || vcpu->activity != ACTIVITY_ACTIVE || modes_beyond(vcpu) || unlikely(direct_wanted(vcpu)))
		return CALLOUT_LEAVE;
	return CALLOUT_DISPATCH;
}

static enum callout_next stop(struct vcpu *vcpu)
{
	bt_of(vcpu)->stop = true;
	return CALLOUT_LEAVE;
}

/* The instruction ended in another way than by being done. */
static enum callout_next settle(struct vcpu *vcpu, int result)
{
	switch (result) {
	case OP_FAULT:
		return step_deliver_fault(vcpu, bt_of(vcpu)->exit) ? dispatch(vcpu) : stop(vcpu);
	case OP_AGAIN:
		return CALLOUT_LEAVE;
	case OP_LEAVE:
		vcpu->rip = vcpu->next_rip;
		return stop(vcpu);
	default:
		return stop(vcpu);
	}
}

unsigned callout_run(struct vcpu *vcpu, const struct callout *c)
{
	struct bt *bt = bt_of(vcpu);
	const struct op *op = &c->op;
	u16 salt = vcpu->jump_salt, number = vcpu->code_number;
	enum callout_next next;
	int result;
	bool go;
	bt->called[op->kind]++;
	vcpu->rip = modes_rip(vcpu, c->offset);
	vcpu->next_rip = modes_rip(vcpu, c->offset + op->length);
	flags_from_image(vcpu);
	if (bt->lockstep && !lockstep_check(vcpu, bt->exit, &go))
		return go ? CALLOUT_LEAVE : stop(vcpu);
	do {
		result = op->run(vcpu, op);
	} while (result == OP_AGAIN && !vcpu_pending(vcpu)); /* REP goes piece by piece */
	if (likely(result == OP_DONE || result == OP_JUMP)) {
		vcpu->rip = vcpu->next_rip;
		if (number)
			modes_look(vcpu); /* what it did may have been to a segment or to CR0 */
		if (c->transfers)
			next = dispatch(vcpu);
		else if (must_leave(vcpu))
			next = CALLOUT_LEAVE;
		else
			next = salt == vcpu->jump_salt && number == vcpu->code_number ? CALLOUT_RETURN : dispatch(vcpu);
	} else {
		next = settle(vcpu, result);
	}
	flags_to_image(vcpu);
	if (bt->lockstep && next != CALLOUT_LEAVE)
		lockstep_begin(vcpu);
	return next;
}

/* ---- writing ---- */

static bool is_c_move(enum insn_kind kind)
{
	switch (kind) {
	case KIND_PUSH:
	case KIND_POP:
	case KIND_ENTER:
	case KIND_LEAVE:
	case KIND_XLAT:
	case KIND_CLD:
	case KIND_STD:
	case KIND_CLFLUSH:
		return true;
	default:
		return false;
	}
}

/* Whether step has a C handler for it; others run by a snippet, which cannot be kept. */
static bool is_c(const struct insn *insn)
{
	switch (insn_class_of((enum insn_kind)insn->kind)) {
	case INSN_CLASS_SENSITIVE:
	case INSN_CLASS_LEGACY:
	case INSN_CLASS_REFUSED:
		return true;
	case INSN_CLASS_CONTROL:
		return true;
	default:
		return is_c_move((enum insn_kind)insn->kind);
	}
}

bool callout_prepare(struct translation_work *w)
{
	struct step *step = step_of(w->vcpu);
	struct callout *c = &w->callout[w->callouts].callout;
	if (!is_c(work_insn(w)))
		return false;
	step->insn = *work_insn(w);
	if (!op_prepare(w->vcpu, &c->op) || c->op.snippet)
		return false;
	c->offset = w->at[w->current];
	c->transfers = ends_block(work_insn(w));
	w->callouts++;
	return true;
}

void emit_callout_to(struct translation_work *w, unsigned callout, const u8 *stub)
{
	struct emitter *e = &w->e;
	EMIT(e, 0x4c, 0x8d, 0x1d); /* lea r11, [rip + callout] */
	emit32(e, 0);
	w->callout[callout].field = e->at - 4;
	emit_jump(e, 0xe8, bt_rw(w->cache, stub));
}

bool emit_callout(struct translation_work *w)
{
	if (!callout_prepare(w))
		return false;
	emit_callout_to(w, w->callouts - 1, work_saved(w) ? w->cache->callout_saved : w->cache->callout_host);
	w->place = FLAGS_SAVED;
	w->image = true;
	w->ready = 0;
	w->bt->count[COUNT_CALLOUT_SITES]++;
	return true;
}

void emit_callout_data(struct translation_work *w)
{
	struct emitter *e = &w->e;
	for (unsigned i = 0; i < w->callouts; i++) {
		while ((uintptr_t)e->at & (alignof(struct callout) - 1))
			emit8(e, 0xcc);
		emit_fix32(w->callout[i].field, e->at);
		emit_bytes(e, (const u8 *)&w->callout[i].callout, sizeof(struct callout));
	}
}
