/* Exceptions and interrupts: what is delivered with which return address, flags and error code, and what becomes of a fault
 * during delivery. Intel SDM volume 3, "Interrupt and Exception Handling", "Double Fault Exception (#DF)", "Debug Exceptions". */
#include "cpu/event.h"
#include "cpu/delivery.h"
#include "cpu/descriptor.h"
#include "host/port.h"

#define DEBUGCTL_LBR BIT(0)
#define DEBUGCTL_BTF BIT(1)

enum fault_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT };

/* Volume 3, table "Interrupt and Exception Classes". Interrupts are benign whatever their vector. */
static enum fault_class class_of(u8 vector)
{
	const u32 contributory = BIT(VEC_DE) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(21);
	const u32 page_fault = BIT(VEC_PF) | BIT(20);
	if (vector >= 32)
		return CLASS_BENIGN;
	if (BIT(vector) & page_fault)
		return CLASS_PAGE_FAULT;
	return (BIT(vector) & contributory) ? CLASS_CONTRIBUTORY : CLASS_BENIGN;
}

/* RF is pushed set by faults, so that an instruction breakpoint does not strike again on return; by that breakpoint itself it
 * is not. Volume 3, "Instruction-Breakpoint Exception Condition". */
static bool pushes_rf(const struct guest_fault *fault)
{
	if (fault->vector == VEC_DB)
		return fault->payload & DR6_BD;
	return fault->vector != VEC_DF && fault->vector != VEC_MC;
}

/* A fault at rip. */
static struct event event_of_fault(const struct vcpu *vcpu, const struct guest_fault *fault)
{
	return (struct event){
		.vector = fault->vector,
		.kind = EVENT_EXCEPTION,
		.has_error = fault->has_error,
		.error = fault->error,
		.ext = ERR_EXT,
		.payload = fault->payload,
		.return_rip = vcpu->rip,
		.rflags = vcpu->rflags | (pushes_rf(fault) ? RFLAGS_RF : 0),
	};
}

/* CR2 and the debug registers tell of the exception, whatever becomes of its delivery. */
static void record(struct vcpu *vcpu, const struct event *e)
{
	if (e->kind == EVENT_NMI)
		vcpu->nmi_blocked = true;
	if (e->kind != EVENT_EXCEPTION)
		return;
	if (e->vector == VEC_PF)
		vcpu->cr2 = e->payload;
	if (e->vector == VEC_DB) {
		vcpu->dr6 = (vcpu->dr6 & ~0xfull) | e->payload;
		vcpu->dr7 &= ~DR7_GD;
		vcpu->msr.debugctl &= ~(DEBUGCTL_LBR | DEBUGCTL_BTF);
	}
}

static void trace(const struct vcpu *vcpu, const struct event *e)
{
	static const char *const names[] = {
		[EVENT_EXTERNAL] = "interrupt", [EVENT_NMI] = "NMI", [EVENT_EXCEPTION] = "exception", [EVENT_SOFTWARE] = "INT",
		[EVENT_SOFTWARE_EXCEPTION] = "INT3 or INTO", [EVENT_PRIVILEGED_SOFTWARE] = "INT1",
	};
	bool tells = e->kind == EVENT_EXCEPTION && (e->vector == VEC_PF || e->vector == VEC_DB);
	char error[24] = "", payload[40] = "";
	if (e->has_error)
		host_snprintf(error, sizeof(error), " error %x", e->error);
	if (tells)
		host_snprintf(payload, sizeof(payload), e->vector == VEC_PF ? " CR2 %llx" : " DR6 %llx", (unsigned long long)e->payload);
	host_log(LOG_DEBUG, "%llx: %s %02x%s%s at CPL %u", (unsigned long long)vcpu->rip, names[e->kind], e->vector, error, payload, vcpu->cpl);
}

/* The fault in vcpu->fault came up while *e was being delivered: *e becomes what to deliver instead. False: triple fault.
 * Volume 3, table "Conditions for Generating a Double Fault". */
static bool combine(struct vcpu *vcpu, struct event *e)
{
	struct guest_fault fault = vcpu->fault;
	if (e->kind == EVENT_EXCEPTION) {
		enum fault_class first = class_of(e->vector), second = class_of(fault.vector);
		if (e->vector == VEC_DF)
			return false;
		if (fault.vector == VEC_PF)
			vcpu->cr2 = fault.payload;
		if ((first == CLASS_CONTRIBUTORY && second == CLASS_CONTRIBUTORY) ||
		    (first == CLASS_PAGE_FAULT && second != CLASS_BENIGN))
			fault = (struct guest_fault){ .vector = VEC_DF, .has_error = true };
	}
	*e = event_of_fault(vcpu, &fault);
	return true;
}

/* Each round makes the class worse, so this ends. */
static bool deliver(struct vcpu *vcpu, struct event *e)
{
	u64 target;
	vcpu->delivery.delivering = true;
	for (;;) {
		vcpu->delivery.vector = e->vector;
		if (unlikely(vcpu->trace & TRACE_INT))
			trace(vcpu, e);
		record(vcpu, e);
		if (likely(delivery(vcpu, e, &target)))
			break;
		if (!combine(vcpu, e)) {
			vcpu->delivery.delivering = false;
			vcpu->activity = ACTIVITY_SHUTDOWN;
			return false;
		}
	}
	vcpu->delivery.delivering = false;
	vcpu->rip = target;
	vcpu->shadow = 0;
	vcpu->activity = ACTIVITY_ACTIVE;
	return true;
}

bool event_deliver_fault(struct vcpu *vcpu)
{
	struct event e = event_of_fault(vcpu, &vcpu->fault);
	return deliver(vcpu, &e);
}

bool event_deliver(struct vcpu *vcpu, u8 vector, enum event_kind kind)
{
	struct event e = {
		.vector = vector,
		.kind = kind,
		.ext = ERR_EXT,
		.return_rip = vcpu->rip,
		.rflags = vcpu->rflags,
	};
	return deliver(vcpu, &e);
}

bool event_deliver_trap(struct vcpu *vcpu)
{
	struct event e = event_of_fault(vcpu, &vcpu->trap);
	e.rflags = vcpu->rflags;
	vcpu_clear_pending(vcpu, PENDING_TRAP);
	return deliver(vcpu, &e);
}

bool event_software_interrupt(struct vcpu *vcpu, u8 vector, enum event_kind kind)
{
	const struct event e = {
		.vector = vector,
		.kind = kind,
		.ext = kind == EVENT_PRIVILEGED_SOFTWARE ? ERR_EXT : 0,
		.return_rip = vcpu->next_rip,
		.rflags = vcpu->rflags,
	};
	u64 target;
	if (unlikely(vcpu->trace & TRACE_INT))
		trace(vcpu, &e);
	if (!delivery(vcpu, &e, &target))
		return false;
	vcpu->next_rip = target;
	return true;
}
