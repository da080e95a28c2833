/* The run loop: what is pending first, then into the guest, then what made KVM leave it (kvm.h). */
#include "engine/kvm/kvm.h"

#include "cpu/control.h"
#include "engine/step/step.h"

#define MSR_APIC_BASE 0x1b
#define MSR_EFER 0xc0000080
#define MSR_X2APIC_FIRST 0x800
#define MSR_X2APIC_COUNT 0x100
#define APIC_TPR 0x80 /* in the register page */
#define EINTR 4 /* of host_kvm_run */
#define EAGAIN 11

enum next { NEXT_ENTER, NEXT_LEAVE };

static enum next fail(struct exit *exit, const char *what)
{
	exit->reason = EXIT_ERROR;
	exit->error.what = what;
	exit->error.own = false;
	return NEXT_LEAVE;
}

/* ---- instructions that step runs ---- */

/* KVM has written and executed guest memory without a word, so nothing that was derived from it holds. */
static bool take_over(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);
	bool ran = k->known != GROUP_ALL;
	if (!kvm_fetch(v, GROUP_ALL))
		return false;
	k->changed = GROUP_ALL;
	if (k->window)
		vcpu_set_pending(v, PENDING_INTERRUPT);
	k->window = false;
	k->tell_cr8 = true;
	if (ran)
		mmu_flush_all(v);
	return true;
}

/* One instruction, behind whatever is pending. */
static enum next interpret(struct vcpu *v, struct exit *exit)
{
	if (!take_over(v))
		return fail(exit, "KVM does not tell the guest's registers");
	if (!step_one(v, exit))
		return NEXT_LEAVE;
	return v->activity == ACTIVITY_ACTIVE ? NEXT_ENTER : NEXT_LEAVE;
}

/* What KVM cannot be left alone with: the debugger's affairs, a trace of instructions, and debug traps of what step executed. */
static bool needs_care(struct vcpu *v)
{
	return (v->trace & TRACE_EXEC) || v->debug.step || (vcpu_pending(v) & (PENDING_TRAP | PENDING_DEBUG)) ||
	       (unlikely(v->debug.points) && (v->debug.passing || !kvm_points_fit(v)));
}

/* ---- before entering ---- */

/* Only the dispatcher knows the local APIC. */
static u64 ask_msr(struct vcpu *v, u32 index)
{
	struct exit e = { .reason = EXIT_RDMSR, .msr.index = index };
	v->ops->exit(v, &e);
	return e.msr.value;
}

static void ask_cr8(struct vcpu *v, struct kvm_vcpu *k)
{
	struct exit e = { .reason = EXIT_CR_READ, .cr.number = 8 };
	v->ops->exit(v, &e);
	k->run->cr8 = k->cr8 = e.cr.value;
	k->tell_cr8 = false;
}

static bool tell_tsc(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (u64)(uintptr_t)&v->tsc_offset };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} tsc = { .head.nmsrs = 1, .entry = { .index = 0x10, .data = __builtin_ia32_rdtsc() + v->tsc_offset } };
	k->tsc_told = kvm_call(k, KVM_SET_DEVICE_ATTR, &attr) >= 0 || kvm_call(k, KVM_SET_MSRS, &tsc) == 1;
	k->tsc_offset = v->tsc_offset;
	return k->tsc_told;
}

static bool write_state(struct vcpu *v, struct kvm_vcpu *k, const char **what)
{
	if (unlikely(!k->tsc_told || k->tsc_offset != v->tsc_offset) && !tell_tsc(v, k)) {
		*what = "KVM does not take the time-stamp counter as it is";
		return false;
	}
	if (unlikely(k->tell_cr8))
		ask_cr8(v, k);
	if (likely(!k->changed))
		return true;
	if (k->changed & GROUP_SREGS)
		k->apic_base = ask_msr(v, MSR_APIC_BASE);
	return kvm_write(v, what);
}

/* An interrupt that cannot be taken now waits for KVM_EXIT_IRQ_WINDOW_OPEN, and is not pending meanwhile: who sets PENDING_INTERRUPT makes
 * KVM leave the guest. */
static void offer_interrupt(struct vcpu *v, struct kvm_vcpu *k)
{
	if (k->ready) {
		int vector = v->ops->interrupt_acknowledge(v);
		struct kvm_interrupt interrupt = { .irq = (u32)vector };
		k->window = false;
		if (vector < 0)
			return;
		kvm_call(k, KVM_INTERRUPT, &interrupt);
		k->known &= ~GROUP_EVENTS;
		k->ready = false;
		if (!(vcpu_pending(v) & PENDING_INTERRUPT))
			return;
	}
	vcpu_clear_pending(v, PENDING_INTERRUPT);
	k->window = true;
}

static enum next look_at_pending(struct vcpu *v, struct kvm_vcpu *k, struct exit *exit)
{
	u32 pending = vcpu_pending(v);
	if (pending & PENDING_KICK) {
		vcpu_clear_pending(v, PENDING_KICK);
		exit->reason = EXIT_INTERRUPTED;
		return NEXT_LEAVE;
	}
	if (pending & PENDING_CODE)
		vcpu_clear_pending(v, PENDING_CODE);
	if (pending & PENDING_NMI) {
		vcpu_clear_pending(v, PENDING_NMI);
		kvm_call(k, KVM_NMI, NULL);
		k->known &= ~GROUP_EVENTS;
	}
	if (pending & PENDING_INTERRUPT || k->window)
		offer_interrupt(v, k);
	return NEXT_ENTER;
}

/* Everything that must be done between two instructions. */
static enum next prepare(struct vcpu *v, struct kvm_vcpu *k, struct exit *exit)
{
	const char *what;
	while (unlikely(needs_care(v))) {
		k->careful++;
		if (interpret(v, exit) == NEXT_LEAVE)
			return NEXT_LEAVE;
	}
	if (k->dead) {
		k->dead = false;
		exit->reason = EXIT_SHUTDOWN;
		return NEXT_LEAVE;
	}
	if (unlikely(!kvm_tell_points(v)) && v->debug.points)
		return prepare(v, k, exit); /* with care, then */
	if (!kvm_map_memory(v))
		return fail(exit, "KVM does not take the guest's memory as it is");
	if (!write_state(v, k, &what))
		return fail(exit, what);
	return look_at_pending(v, k, exit);
}

/* ---- answers ---- */

static void answer_io(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_run *run = k->run;
	u8 *data = (u8 *)run + run->io.data_offset;
	bool write = run->io.direction == KVM_EXIT_IO_OUT;
	for (u32 i = 0; i < run->io.count; i++, data += run->io.size) {
		struct exit e = { .reason = EXIT_IO, .io = { .port = run->io.port, .size = run->io.size, .write = write } };
		if (write)
			__builtin_memcpy(&e.io.value, data, run->io.size);
		v->ops->exit(v, &e);
		if (!write)
			__builtin_memcpy(data, &e.io.value, run->io.size);
	}
	k->completing = true;
}

static void answer_mmio(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_run *run = k->run;
	bool write = run->mmio.is_write;
	unsigned size = MIN(run->mmio.len, 8u);
	struct exit e = { .reason = EXIT_MMIO, .mmio = { .gpa = run->mmio.phys_addr, .size = (u8)size, .write = write } };
	if (write)
		__builtin_memcpy(&e.mmio.value, run->mmio.data, size);
	v->ops->exit(v, &e);
	if (!write)
		__builtin_memcpy(run->mmio.data, &e.mmio.value, size);
	k->tell_cr8 |= write && (e.mmio.gpa & ~PAGE_MASK) == APIC_TPR;
	k->completing = true;
}

static void answer_rdmsr(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_run *run = k->run;
	struct exit e = { .reason = EXIT_RDMSR, .msr.index = run->msr.index };
	if (e.msr.index == MSR_EFER)
		kvm_fetch(v, GROUP_SREGS);
	v->ops->exit(v, &e);
	run->msr.data = e.msr.value;
	run->msr.error = e.msr.fault;
	k->completing = true;
}

static void answer_wrmsr(struct vcpu *v, struct kvm_vcpu *k)
{
	struct kvm_run *run = k->run;
	struct exit e = { .reason = EXIT_WRMSR, .msr = { .index = run->msr.index, .value = run->msr.data } };
	bool control = e.msr.index == MSR_EFER || e.msr.index == MSR_APIC_BASE;
	if (control)
		kvm_fetch(v, GROUP_SREGS);
	v->ops->exit(v, &e);
	run->msr.error = e.msr.fault;
	k->tell_cr8 |= e.msr.index - MSR_X2APIC_FIRST < MSR_X2APIC_COUNT;
	if (control)
		k->changed |= GROUP_SREGS;
	k->completing = true;
}

/* The guest's MOV to CR8 went to KVM; the local APIC is here. */
static void note_cr8(struct vcpu *v, struct kvm_vcpu *k)
{
	if (k->run->cr8 == k->cr8)
		return;
	struct exit e = { .reason = EXIT_CR_WRITE, .cr = { .number = 8, .value = k->run->cr8 } };
	k->cr8 = k->run->cr8;
	v->ops->exit(v, &e);
}

static enum next halted(struct vcpu *v, struct exit *exit)
{
	if (!kvm_fetch(v, GROUP_EVENTS))
		return fail(exit, "KVM does not tell the guest's state");
	v->activity = ACTIVITY_HLT;
	exit->reason = EXIT_HLT;
	return NEXT_LEAVE;
}

static enum next shut_down(struct vcpu *v, struct exit *exit)
{
	kvm_fetch(v, GROUP_ALL & ~GROUP_EVENTS);
	exit->reason = EXIT_SHUTDOWN;
	return NEXT_LEAVE;
}

/* What KVM does not know the step engine does. Linux that does not tell of all failures has raised #UD as well: that is taken back, as
 * events are written anew. */
static enum next not_known(struct vcpu *v, struct kvm_vcpu *k, struct exit *exit)
{
	if (k->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION)
		return fail(exit, "KVM failed inside (KVM_EXIT_INTERNAL_ERROR)");
	k->known |= GROUP_EVENTS;
	v->shadow = 0;
	k->emulated++;
	return interpret(v, exit);
}

static enum next debugged(struct vcpu *v, struct exit *exit)
{
	if (!kvm_fetch(v, GROUP_ALL))
		return fail(exit, "KVM does not tell the guest's registers");
	return kvm_point_met(v, exit) ? NEXT_LEAVE : NEXT_ENTER;
}

static enum next left(struct vcpu *v, struct kvm_vcpu *k, struct exit *exit)
{
	switch (k->run->exit_reason) {
	case KVM_EXIT_IO:
		answer_io(v, k);
		return NEXT_ENTER;
	case KVM_EXIT_MMIO:
		answer_mmio(v, k);
		return NEXT_ENTER;
	case KVM_EXIT_X86_RDMSR:
		answer_rdmsr(v, k);
		return NEXT_ENTER;
	case KVM_EXIT_X86_WRMSR:
		answer_wrmsr(v, k);
		return NEXT_ENTER;
	case KVM_EXIT_HLT:
		return halted(v, exit);
	case KVM_EXIT_DEBUG:
		return debugged(v, exit);
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
		return NEXT_ENTER;
	case KVM_EXIT_SHUTDOWN:
		return shut_down(v, exit);
	case KVM_EXIT_INTERNAL_ERROR:
		return not_known(v, k, exit);
	case KVM_EXIT_FAIL_ENTRY:
		return fail(exit, "the processor refuses to enter the guest's state (KVM_EXIT_FAIL_ENTRY)");
	default:
		return fail(exit, "KVM left the guest for a reason that nadir does not know");
	}
}

/* ---- the loop ---- */

/* 0, or a negative errno: -EINTR means that it was stopped, with no exit. */
static int enter(struct vcpu *v, struct kvm_vcpu *k)
{
	__atomic_store_n(&v->kvm, &k->host, __ATOMIC_SEQ_CST);
	k->run->request_interrupt_window = k->window;
	if (vcpu_pending(v))
		__atomic_store_n(k->host.immediate_exit, 1, __ATOMIC_RELAXED);
	int error = host_kvm_run(&k->host);
	__atomic_store_n(&v->kvm, NULL, __ATOMIC_SEQ_CST);
	__atomic_store_n(k->host.immediate_exit, 0, __ATOMIC_RELAXED);
	k->known = k->completing = 0;
	kvm_take_regs(v);
	k->ready = k->run->ready_for_interrupt_injection;
	note_cr8(v, k);
	return error;
}




static enum next once(struct vcpu *v, struct kvm_vcpu *k, struct exit *exit)
{
	const char *what;
	if (!k->completing) {
		if (prepare(v, k, exit) == NEXT_LEAVE)
			return NEXT_LEAVE;
	} else if (unlikely(!write_state(v, k, &what))) {
		return fail(exit, what);
	}
	int error = enter(v, k);
	if (error == -EINTR || error == -EAGAIN)
		return NEXT_ENTER;
	return error ? fail(exit, "KVM_RUN failed") : left(v, k, exit);
}

static void run(struct vcpu *v, struct exit *exit)
{
	struct kvm_vcpu *k = kvm_of(v);
	exit->reason = EXIT_NONE;
	while (once(v, k, exit) == NEXT_ENTER)
		;
	if (k->window)
		vcpu_set_pending(v, PENDING_INTERRUPT);
	k->window = false;
	if (exit->reason == EXIT_ERROR)
		kvm_fetch(v, GROUP_ALL & ~GROUP_EVENTS);
}

static void sync(struct vcpu *v)
{
	if (!kvm_fetch(v, GROUP_ALL))
		host_log(LOG_WARN, "vCPU %u: KVM does not tell all of its registers", v->index);
}

static void state_changed(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);
	k->known = k->changed = GROUP_ALL;
	k->tell_cr8 = true;
	engine_step.state_changed(v);
}

static void report(struct vcpu *v, void (*line)(void *opaque, const char *text), void *opaque)
{
	static const char *const names[GROUP_COUNT] = { "XCR0", "extended state", "segments and control registers", "MSRs", "debug registers",
							"general registers", "events" };
	struct kvm_vcpu *k = kvm_of(v);
	char text[120];
	host_snprintf(text, sizeof(text), "%12llu  instructions that KVM did not know", (unsigned long long)k->emulated);
	line(opaque, text);
	host_snprintf(text, sizeof(text), "%12llu  instructions run with care", (unsigned long long)k->careful);
	line(opaque, text);
	for (unsigned i = 0; i < GROUP_COUNT; i++) {
		host_snprintf(text, sizeof(text), "%12llu  times fetched, %llu written: %s", (unsigned long long)k->fetched[i],
			      (unsigned long long)k->written[i], names[i]);
		line(opaque, text);
	}
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.description = "the host's KVM, with the devices and interrupt controllers of nadir",
	.available = kvm_available,
	.preferred = kvm_preferred,
	.limit = kvm_limit,
	.vcpu_create = kvm_vcpu_create,
	.vcpu_destroy = kvm_vcpu_destroy,
	.run = run,
	.sync = sync,
	.rest = step_rest,
	.state_changed = state_changed,
	.gather_dirty = kvm_gather_dirty,
	.report = report,
};
