/* The way of an interrupt: from the I/O APIC or another vCPU to the posted-interrupt descriptors of the vCPUs it
 * addresses, from there on the vCPU's own thread into its local APIC, and to the engine when it asks (F1, F4, F5). */
#include "vm/paravirt.h"

/* ---- sending: any thread ---- */

static void request(struct vm_cpu *cpu, u32 bits)
{
	__atomic_fetch_or(&cpu->requests, bits, __ATOMIC_SEQ_CST);
	vm_kick(cpu, PENDING_KICK);
}

/* Where the processor takes posted interrupts it makes no exit, but for what it does not know. */
static void post(struct vm_cpu *cpu, u8 vector, bool level)
{
	struct vcpu *v = &cpu->vcpu;
	bool takes = cpu->lapic.posted && v->engine->notify;
	if (takes && posted_post_aside(&cpu->posted, vector, level))
		vm_kick(cpu, PENDING_INTERRUPT);
	else if (posted_post(&cpu->posted, vector, level) && !(takes && v->engine->notify(v)))
		vm_kick(cpu, PENDING_INTERRUPT);
}

void vm_interrupt_cpu(struct vm_cpu *cpu, const struct interrupt *i)
{
	switch (i->delivery) {
	case DELIVERY_FIXED:
	case DELIVERY_LOWEST_PRIORITY:
		if (lapic_enabled(&cpu->lapic))
			post(cpu, i->vector, i->level);
		break;
	case DELIVERY_NMI:
		vm_kick(cpu, PENDING_NMI);
		break;
	case DELIVERY_INIT:
		/* A SIPI that came before is forgotten; one that comes after is obeyed after. */
		__atomic_fetch_and(&cpu->requests, ~(u32)REQUEST_SIPI, __ATOMIC_SEQ_CST);
		request(cpu, REQUEST_INIT);
		break;
	case DELIVERY_SIPI:
		__atomic_store_n(&cpu->sipi_vector, i->vector, __ATOMIC_SEQ_CST);
		request(cpu, REQUEST_SIPI);
		break;
	case DELIVERY_EXTINT:
		__atomic_store_n(&cpu->extint, true, __ATOMIC_SEQ_CST);
		vm_kick(cpu, PENDING_INTERRUPT);
		break;
	default:
		break;
	}
}

void vm_interrupt(struct vm *vm, const struct interrupt *interrupt, struct vm_cpu *sender)
{
	for (unsigned n = 0; n < vm->config.cpus; n++) {
		struct vm_cpu *cpu = vm->cpu[n];
		bool addressed = interrupt->shorthand == SHORTHAND_OTHERS
					 ? cpu != sender
					 : lapic_matches(&cpu->lapic, interrupt->destination, interrupt->logical);
		if (!addressed)
			continue;
		vm_interrupt_cpu(cpu, interrupt);
		/* All destinations have the same priority for a lowest-priority interrupt: the first takes it. */
		if (interrupt->delivery == DELIVERY_LOWEST_PRIORITY && lapic_enabled(&cpu->lapic))
			break;
	}
	if (vm->config.trace & TRACE_IRQ)
		host_log(LOG_DEBUG, "interrupt vector %02x delivery %u to %s %x", interrupt->vector,
			 interrupt->delivery, interrupt->logical ? "logical" : "physical", interrupt->destination);
}

/* ---- taking: the vCPU's own thread ---- */

/* Whether the 8259 pair asks for this vCPU: by INTR at LINT0, or by a message of the I/O APIC. */
static bool pic_asks(struct vm_cpu *cpu)
{
	return __atomic_load_n(&cpu->extint, __ATOMIC_SEQ_CST) ||
	       (__atomic_load_n(&cpu->pic_intr, __ATOMIC_SEQ_CST) && lapic_passes_extint(&cpu->lapic));
}

static bool interrupt_waits(struct vm_cpu *cpu)
{
	return lapic_highest(&cpu->lapic) >= 0 || pic_asks(cpu);
}

/* The host timer is only ever brought forward: a guest that sets its deadline anew with each tick, later every time,
 * costs no system call each. When it fires early, it is set again. */
static void arm_timer(struct vm_cpu *cpu, u64 now)
{
	u64 deadline = lapic_deadline(&cpu->lapic);
	if (now >= cpu->timer_armed)
		cpu->timer_armed = HOST_NEVER;
	if (deadline >= cpu->timer_armed)
		return;
	cpu->timer_armed = deadline;
	host_timer_arm(cpu->timer, vm_host_deadline(cpu->vm, deadline));
}

static void set_lint0(struct vm_cpu *cpu, bool level)
{
	if (level == cpu->lint0)
		return;
	cpu->lint0 = level;
	if (lapic_set_lint(&cpu->lapic, 0, level) & LAPIC_NMI)
		vcpu_set_pending(&cpu->vcpu, PENDING_NMI);
}

/* LINT0 follows INTR; that it fell and rose again since the last look is an edge, too. */
static void update_lint0(struct vm_cpu *cpu)
{
	u32 rises = __atomic_load_n(&cpu->pic_rises, __ATOMIC_SEQ_CST);
	if (rises != cpu->lint0_rises)
		set_lint0(cpu, false);
	cpu->lint0_rises = rises;
	set_lint0(cpu, __atomic_load_n(&cpu->pic_intr, __ATOMIC_SEQ_CST));
}

/* Bring the local APIC up to date with the time and with what others have sent. */
static void update_lapic(struct vm_cpu *cpu)
{
	u64 now = vm_now(cpu->vm);
	pv_eoi_take(cpu);
	steal_time_update(cpu, now);
	lapic_advance(&cpu->lapic, now);
	lapic_accept_posted(&cpu->lapic, &cpu->posted);
	update_lint0(cpu);
	arm_timer(cpu, now);
}

/* The engine must ask for whatever became deliverable. */
static bool tell_engine(struct vm_cpu *cpu)
{
	bool waits = interrupt_waits(cpu);
	if (waits)
		vcpu_set_pending(&cpu->vcpu, PENDING_INTERRUPT);
	pv_eoi_give(cpu);
	return waits;
}

void vm_lapic_changed(struct vm_cpu *cpu, u64 now)
{
	arm_timer(cpu, now);
	tell_engine(cpu);
}

bool vm_interrupt_ready(struct vm_cpu *cpu)
{
	update_lapic(cpu);
	return tell_engine(cpu);
}

static int pic_vector(struct vm_cpu *cpu)
{
	struct vm *vm = cpu->vm;
	__atomic_store_n(&cpu->extint, false, __ATOMIC_SEQ_CST);
	host_lock(&vm->lock);
	int vector = pic_intr(&vm->board.pic) ? pic_acknowledge(&vm->board.pic) : -1;
	host_unlock(&vm->lock);
	return vector;
}

bool vm_interrupt_refresh(struct vcpu *vcpu)
{
	struct vm_cpu *cpu = vm_cpu_of(vcpu);
	vcpu_clear_pending(vcpu, PENDING_INTERRUPT);
	update_lapic(cpu);
	return pic_asks(cpu);
}

int vm_interrupt_acknowledge(struct vcpu *vcpu)
{
	struct vm_cpu *cpu = vm_cpu_of(vcpu);
	/* Cleared before looking, so that an interrupt that comes meanwhile sets it again. */
	vcpu_clear_pending(vcpu, PENDING_INTERRUPT);
	update_lapic(cpu);
	int vector = pic_asks(cpu) ? pic_vector(cpu) : -1;
	if (vector < 0)
		vector = lapic_acknowledge(&cpu->lapic);
	if (vector < 0)
		return -1;
	tell_engine(cpu);
	cpu->stats.interrupts++;
	vm_progress(cpu);
	return vector;
}
