/* The run loop of engines that use the hardware: what is pending first, then into the guest, then what made it leave (hw.h). */
#include "engine/hw/hw.h"

#include "cpu/control.h"
#include "cpu/event.h"
#include "engine/step/step.h"
#include "irq/lapic.h"

enum hw_next hw_fail(struct exit *exit, const char *what)
{
	exit->reason = EXIT_ERROR;
	exit->error.what = what;
	exit->error.own = false;
	return HW_LEAVE;
}

/* ---- state ---- */

void hw_fetch(struct vcpu *v, u32 groups)
{
	struct hw_vcpu *hw = hw_of(v);
	groups &= ~hw->known;
	if (!groups)
		return;
	if (groups & ~HW_VECTORS)
		hw->ops->fetch(v, groups & ~HW_VECTORS);
	if (groups & HW_VECTORS)
		hw_registers_take(v);
	hw->known |= groups;
	for (u32 left = groups; left; left &= left - 1)
		hw->fetched[__builtin_ctz(left)]++;
}

static void write_state(struct vcpu *v, struct hw_vcpu *hw)
{
	u32 groups = hw->changed;
	if (likely(!groups))
		return;
	if (groups & ~HW_VECTORS)
		hw->ops->write(v, groups & ~HW_VECTORS);
	for (u32 left = groups; left; left &= left - 1)
		hw->written[__builtin_ctz(left)]++;
	hw->changed = 0;
}

/* An event whose delivery the processor began, or was about to: interrupts have been acknowledged and exceptions have happened, so it is
 * delivered now. What goes wrong meanwhile goes wrong once more, and combines as the manual says. */
static void settle_event(struct vcpu *v, struct hw_vcpu *hw)
{
	u32 event = hw->event;
	u8 vector = (u8)event;
	hw->event = 0;
	if (HW_EVENT_TYPE_OF(event) != HW_EVENT_EXCEPTION) {
		bool nmi = HW_EVENT_TYPE_OF(event) == HW_EVENT_NMI;
		hw->dead = !event_deliver(v, nmi ? VEC_NMI : vector, nmi ? EVENT_NMI : EVENT_EXTERNAL);
		return;
	}
	u64 payload = vector == VEC_PF ? v->cr2 : vector == VEC_DB ? v->dr6 & ~DR6_FIXED1 : 0;
	v->fault = (struct guest_fault){ .vector = vector, .has_error = event & HW_EVENT_ERROR, .error = hw->event_error, .payload = payload };
	hw->dead = !event_deliver_fault(v);
}

/* The guest has written and executed memory without a word, so nothing that was derived from it holds, nor from CPL or EFLAGS.AC. */
void hw_take_over(struct vcpu *v)
{
	struct hw_vcpu *hw = hw_of(v);
	hw_fetch(v, HW_ALL);
	hw->changed = HW_ALL;
	if (hw->window || hw->delivers)
		vcpu_set_pending(v, PENDING_INTERRUPT);
	if (hw->nmi_waits)
		vcpu_set_pending(v, PENDING_NMI);
	hw->window = hw->nmi_waits = false;
	if (hw->ran)
		hw_memory_forget(hw->memory);
	hw->ran = false;
	if (hw->event)
		settle_event(v, hw);
}

/* ---- instructions that step runs ---- */

/* A string instruction that repeats, to memory-mapped registers say, would leave again after each element: so many are done at once. */
#define STEP_ROUNDS 256

enum hw_next hw_step(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	hw_take_over(v);
	if (unlikely(hw->dead))
		return HW_ENTER; /* which finds out */
	u64 rip = v->rip;
	unsigned rounds = 0;
	do {
		hw->stepped++;
		if (!step_one(v, exit))
			return HW_LEAVE;
	} while (v->rip == rip && ++rounds < STEP_ROUNDS && v->activity == ACTIVITY_ACTIVE && !vcpu_pending(v) && !v->debug.step);
	return v->activity == ACTIVITY_ACTIVE ? HW_ENTER : HW_LEAVE;
}

/* What the processor cannot be left alone with: the debugger's affairs, a trace of instructions, debug traps of what step executed, and shadows, which end with
 * the next instruction. */
static bool needs_care(const struct vcpu *v)
{
	return v->shadow || (v->trace & TRACE_EXEC) || v->debug.step || (vcpu_pending(v) & (PENDING_TRAP | PENDING_DEBUG)) || v->debug.points;
}

/* ---- before entering ---- */

enum hw_next hw_raise(struct vcpu *v, u8 vector, bool has_error, u32 error)
{
	struct hw_vcpu *hw = hw_of(v);
	if (hw->event) {
		hw_take_over(v); /* which meets it again */
		return HW_ENTER;
	}
	if (vector != VEC_DB) /* Intel SDM volume 3, "Instruction-Breakpoint Exception Condition" */
		v->rflags |= RFLAGS_RF;
	hw->event = (u32)HW_EVENT_VALID | HW_EVENT_TYPE(HW_EVENT_EXCEPTION) | (has_error ? (u32)HW_EVENT_ERROR : 0) | vector;
	hw->event_error = error;
	return HW_ENTER;
}

/* The local APIC's interrupts are the processor's to deliver; those of the 8259 pair are injected. */
static bool pic_waits(struct vcpu *v, struct hw_vcpu *hw)
{
	hw->window = v->ops->interrupt_refresh(v);
	return hw->window;
}

/* An interrupt that cannot be taken now waits for its window, and is not pending meanwhile: who sets PENDING_INTERRUPT makes the guest leave. */
static void offer_interrupt(struct vcpu *v, struct hw_vcpu *hw)
{
	if (hw->delivers && !pic_waits(v, hw))
		return;
	hw->window = true;
	if (hw->event || !(v->rflags & RFLAGS_IF)) {
		vcpu_clear_pending(v, PENDING_INTERRUPT);
		return;
	}
	int vector = v->ops->interrupt_acknowledge(v);
	if (vector >= 0)
		hw->event = (u32)HW_EVENT_VALID | HW_EVENT_TYPE(HW_EVENT_EXTERNAL) | (u32)vector;
	hw->window = hw->delivers ? pic_waits(v, hw) : vcpu_pending(v) & PENDING_INTERRUPT;
	if (hw->window)
		vcpu_clear_pending(v, PENDING_INTERRUPT);
}

static void offer_nmi(struct vcpu *v, struct hw_vcpu *hw)
{
	vcpu_clear_pending(v, PENDING_NMI);
	hw->nmi_waits = hw->event || v->nmi_blocked;
	if (hw->nmi_waits)
		return;
	hw->event = (u32)HW_EVENT_VALID | HW_EVENT_TYPE(HW_EVENT_NMI) | VEC_NMI;
	v->nmi_blocked = true;
}

static enum hw_next look_at_pending(struct vcpu *v, struct hw_vcpu *hw, struct exit *exit)
{
	u32 pending = vcpu_pending(v);
	if (pending & PENDING_KICK) {
		vcpu_clear_pending(v, PENDING_KICK);
		exit->reason = EXIT_INTERRUPTED;
		return HW_LEAVE;
	}
	if (pending & PENDING_CODE)
		vcpu_clear_pending(v, PENDING_CODE);
	if ((pending & PENDING_NMI) || (hw->nmi_waits && !v->nmi_blocked))
		offer_nmi(v, hw);
	if ((pending & PENDING_INTERRUPT) || hw->window)
		offer_interrupt(v, hw);
	return HW_ENTER;
}

/* Everything that must be done between two instructions. */
static enum hw_next prepare(struct vcpu *v, struct hw_vcpu *hw, struct exit *exit)
{
	while (unlikely(needs_care(v)) && !hw->dead) {
		hw->careful++;
		if (hw_step(v, exit) == HW_LEAVE)
			return HW_LEAVE;
	}
	if (unlikely(hw->dead)) {
		hw->dead = false;
		exit->reason = EXIT_SHUTDOWN;
		return HW_LEAVE;
	}
	if ((vcpu_pending(v) || hw->window || hw->nmi_waits) && look_at_pending(v, hw, exit) == HW_LEAVE)
		return HW_LEAVE;
	hw->memory->ops->prepare(hw->memory);
	write_state(v, hw);
	return HW_ENTER;
}

/* ---- the loop ---- */

/* Whether interrupts that were posted before wait to be taken by software. What is posted from now on makes an interrupt that the processor takes in the guest; if it comes too late,
 * it finds the host, and is seen here next time. Intel SDM volume 3, "Posted-Interrupt Processing". */
static bool was_posted(struct vcpu *v, struct hw_vcpu *hw)
{
	if (!v->lapic || !v->lapic->posted)
		return false;
	__atomic_store_n(&hw->inside, 1, __ATOMIC_SEQ_CST);
	if (likely(!posted_outstanding(v->posted)))
		return false;
	vcpu_set_pending(v, PENDING_INTERRUPT);
	return true;
}

bool hw_notify(struct vcpu *v)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!__atomic_load_n(&hw->inside, __ATOMIC_SEQ_CST))
		return false;
	host_notify(__atomic_load_n(&hw->run.cpu, __ATOMIC_SEQ_CST));
	return true;
}

/* Who sets something pending reads run.cpu after that: either it is seen here, or the guest is interrupted. */
static enum hw_next enter(struct vcpu *v, struct hw_vcpu *hw, struct exit *exit)
{
	const char *what = NULL;
	u64 held = host_hold();
	__atomic_store_n(&hw->run.cpu, host_cpu(), __ATOMIC_SEQ_CST);
	if (was_posted(v, hw) || __atomic_load_n(&v->pending, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&hw->inside, 0, __ATOMIC_SEQ_CST);
		host_release(held);
		return HW_ENTER;
	}
	hw->entries++;
	bool good = hw->ops->enter(v, &what);
	__atomic_store_n(&hw->inside, 0, __ATOMIC_SEQ_CST);
	hw->known = 0;
	hw->ran = true;
	host_release(held);
	if (unlikely(!good)) {
		hw_fetch(v, HW_ALL);
		return hw_fail(exit, what);
	}
	return hw->ops->answer(v, exit);
}

void hw_run(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	exit->reason = EXIT_NONE;
	vcpu_watch(v, &hw->run.stop);
	while (prepare(v, hw, exit) == HW_ENTER && enter(v, hw, exit) == HW_ENTER)
		;
	vcpu_watch(v, NULL);
	if (hw->window)
		vcpu_set_pending(v, PENDING_INTERRUPT);
	if (hw->nmi_waits)
		vcpu_set_pending(v, PENDING_NMI);
	hw->window = hw->nmi_waits = false;
	if (exit->reason != EXIT_HLT && exit->reason != EXIT_INTERRUPTED)
		hw_take_over(v);
}

/* ---- the rest of struct engine_ops ---- */

void hw_init(struct vcpu *v, const struct hw_ops *ops, struct hw_memory *memory)
{
	struct hw_vcpu *hw = hw_of(v);
	step_of(v)->shared = true;
	hw->ops = ops;
	hw->memory = memory;
	hw->known = hw->changed = HW_ALL;
	hw_registers_init(hw);
}

void hw_sync(struct vcpu *v)
{
	hw_take_over(v);
}

void hw_state_changed(struct vcpu *v)
{
	struct hw_vcpu *hw = hw_of(v);
	hw->known = hw->changed = HW_ALL;
	hw->event = 0;
	hw->window = hw->nmi_waits = hw->dead = false;
	engine_step.state_changed(v);
}

void hw_report(struct vcpu *v, void (*line)(void *opaque, const char *text), void *opaque)
{
	static const char *const names[HW_GROUPS] = { "segments", "control registers", "MSRs", "debug registers", "vector registers", "code segment" };
	const struct hw_vcpu *hw = hw_of(v);
	const struct {
		u64 value;
		const char *name;
	} counters[] = {
		{ hw->entries, "entries of the guest" },
		{ hw->stepped, "instructions run by step" },
		{ hw->careful, "of these, since they needed care" },
		{ hw->memory->fills, "faults of guest memory filled" },
		{ hw->memory->emulated, "and emulated" },
	};
	char text[120];
	for (unsigned i = 0; i < ARRAY_SIZE(counters); i++) {
		host_snprintf(text, sizeof(text), "%12llu  %s", (unsigned long long)counters[i].value, counters[i].name);
		line(opaque, text);
	}
	for (unsigned i = 0; i < HW_GROUPS; i++) {
		host_snprintf(text, sizeof(text), "%12llu  times fetched, %llu written: %s", (unsigned long long)hw->fetched[i],
			      (unsigned long long)hw->written[i], names[i]);
		line(opaque, text);
	}
}
