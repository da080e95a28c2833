/* The life of a vCPU's thread: run the engine, answer what ended the run, sleep while halted, obey requests.
 *
 * A reset, or whoever holds the VM (vm/pause.c), parks every vCPU at its checkpoint. The last one to park stops the guest's time, or performs the
 * reset alone, or moves memory of devices, so that nobody runs while memory and devices change under it; then all go on. */
#include "vm/paravirt.h"

#include "cpu/control.h"
#include "cpu/msr.h"
#include "dev/map.h"
#include "host/port.h"
#include "mmu/mmu.h"
#include "vm/look_out.h"
#include "vm/report.h"

#define REQUESTS_TAKE(cpu, bits) (__atomic_fetch_and(&(cpu)->requests, ~(u32)(bits), __ATOMIC_SEQ_CST) & (bits))

void vm_kick(struct vm_cpu *cpu, u32 pending)
{
	vcpu_set_pending(&cpu->vcpu, pending);
	__atomic_fetch_add(&cpu->wake, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cpu->asleep, __ATOMIC_SEQ_CST)) /* it looks at `wake` after it has said so */
		host_wake(&cpu->wake);
}

void vm_kick_all(struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++)
		vm_kick(vm->cpu[i], PENDING_KICK);
}

void vm_end(struct vm *vm, enum vm_end how, int status, const char *reason)
{
	host_lock(&vm->lock);
	bool first = vm_ended(vm) == VM_RUNNING;
	if (first) {
		vm->exit_status = status;
		vm->crash_reason = reason;
		__atomic_store_n(&vm->end, how, __ATOMIC_SEQ_CST);
	}
	host_unlock(&vm->lock);
	if (!first)
		return;
	vm_kick_all(vm);
	vm_settled(vm);
	vm->config.ended(vm->config.opaque);
}

void vm_stop(struct vm *vm)
{
	vm_end(vm, VM_STOPPED, 0, NULL);
}

void vm_reset(struct vm *vm)
{
	if (vm->config.no_reboot) {
		vm_end(vm, VM_REBOOT, 0, NULL);
		return;
	}
	__atomic_store_n(&vm->reset_wanted, true, __ATOMIC_SEQ_CST);
	vm_kick_all(vm);
}

void vm_place_memory(struct vm *vm)
{
	__atomic_store_n(&vm->place_wanted, true, __ATOMIC_SEQ_CST);
	vm_kick_all(vm);
}

void vm_tell(struct vm *vm, enum vm_event event)
{
	if (vm->config.event)
		vm->config.event(vm->config.opaque, event);
}

/* ---- reset ---- */

void vm_reset_cpu(struct vm_cpu *cpu, bool init)
{
	struct vcpu *v = &cpu->vcpu;
	cpu_reset(v, init);
	if (!init)
		msr_set_firmware_mtrrs(v, MAP_PCI_MMIO);
	lapic_reset(&cpu->lapic, init);
	if (!init && !v->index)
		lapic_set_virtual_wire(&cpu->lapic);
	__atomic_store_n(&cpu->extint, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&cpu->unhalted, false, __ATOMIC_SEQ_CST);
	cpu->pv_eoi = false;
	/* Cleared before the descriptor is: what is posted from now on must be noticed. */
	vcpu_clear_pending(v, PENDING_INTERRUPT | PENDING_NMI | PENDING_TRAP);
	posted_drain(&cpu->posted, (u64[4]){ 0 }, (u64[4]){ 0 });
	v->activity = cpu->vcpu.index ? ACTIVITY_WAIT_SIPI : ACTIVITY_ACTIVE;
	v->engine->state_changed(v);
	vm_lapic_changed(cpu, vm_now(cpu->vm));
}

/* RAM as after power-on. Engines may hold code of it: they are told by the pages' generations. */
static void clear_memory(struct vm *vm)
{
	host_ram_discard(vm->memory, vm->config.memory);
	for (unsigned i = 0; i < vm->ram.slots; i++)
		ram_written(&vm->ram, vm->ram.slot[i].base, vm->ram.slot[i].size);
}

/* Reset the whole machine and load the guest again. Every vCPU is parked; the lock is held. */
static void reset_machine(struct vm *vm)
{
	char error[256];
	board_reset(&vm->board, vm_now(vm)); /* from here on no device writes memory */
	clear_memory(vm);
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		struct vm_cpu *cpu = vm->cpu[i];
		__atomic_store_n(&cpu->requests, 0, __ATOMIC_SEQ_CST);
		vm_reset_cpu(cpu, false);
	}
	if (!boot_load(&vm->ram, &vm->config.boot, &vm->entry, error, sizeof(error)))
		host_panic("the guest that was loaded once cannot be loaded again: %s", error);
	boot_set_cpu(&vm->cpu[0]->vcpu, &vm->entry);
	vm_board_changed(vm, vm_now(vm));
	vm_tell(vm, VM_EVENT_RESET);
}

/* Memory of a device moves. Every vCPU is parked; the lock is held. */
static void place_memory(struct vm *vm)
{
	board_place_memory(&vm->board);
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		struct vcpu *v = &vm->cpu[i]->vcpu;
		u8 shadow = v->shadow;
		mmu_flush_all(v);
		v->engine->state_changed(v);
		v->shadow = shadow; /* nothing was executed */
	}
}

/* ---- parking ---- */

static bool must_park(const struct vm_cpu *cpu)
{
	const struct vm *vm = cpu->vm;
	return __atomic_load_n(&vm->reset_wanted, __ATOMIC_SEQ_CST) || __atomic_load_n(&vm->pause_wanted, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&vm->place_wanted, __ATOMIC_SEQ_CST) || __atomic_load_n(&cpu->held, __ATOMIC_SEQ_CST);
}

/* Nobody moves any more. Called with the lock held. */
static void stand_still(struct vm *vm)
{
	vm_time_stop(vm);
	if (vm->config.debug_stopped && debugger_stopped(vm))
		vm->config.debug_stopped(vm->config.opaque);
}

/* What is done when nobody runs; every vCPU is parked, and the lock is held. True: the others are to go on, if nothing else keeps them. */
static bool work_alone(struct vm *vm)
{
	bool place = __atomic_load_n(&vm->place_wanted, __ATOMIC_SEQ_CST);
	bool reset = __atomic_load_n(&vm->reset_wanted, __ATOMIC_SEQ_CST);
	if (place)
		place_memory(vm);
	__atomic_store_n(&vm->place_wanted, false, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&vm->pause_wanted, __ATOMIC_SEQ_CST))
		stand_still(vm);
	if (reset)
		reset_machine(vm);
	if (reset)
		__atomic_store_n(&vm->reset_wanted, false, __ATOMIC_SEQ_CST);
	return place || reset;
}

static void park(struct vm_cpu *cpu)
{
	struct vm *vm = cpu->vm;
	host_lock(&vm->lock);
	__atomic_store_n(&cpu->asleep, true, __ATOMIC_SEQ_CST);
	vm->parked++;
	while (must_park(cpu) && vm_ended(vm) == VM_RUNNING) {
		if (vm->parked == vm->config.cpus && work_alone(vm)) {
			host_unlock(&vm->lock);
			vm_kick_all(vm);
			host_lock(&vm->lock);
			continue;
		}
		u32 wake = __atomic_load_n(&cpu->wake, __ATOMIC_SEQ_CST);
		if (!must_park(cpu) || vm_ended(vm) != VM_RUNNING)
			break;
		host_unlock(&vm->lock);
		host_wait(&cpu->wake, wake, HOST_NEVER);
		host_lock(&vm->lock);
	}
	vm->parked--;
	__atomic_store_n(&cpu->asleep, false, __ATOMIC_SEQ_CST);
	host_unlock(&vm->lock);
}

/* ---- crashes ---- */

/* Report the guest's state and do what the user wants done with a crashed guest. */
static void crash(struct vm_cpu *cpu, const char *reason)
{
	struct vm *vm = cpu->vm;
	char text[160];
	host_snprintf(text, sizeof(text), "the guest crashed: %s", reason);
	host_lock(&vm->lock);
	if (vm_ended(vm) == VM_RUNNING) {
		vm->config.report(vm->config.opaque, text);
		report_vcpu(&cpu->vcpu, vm->config.report, vm->config.opaque);
	}
	host_unlock(&vm->lock);
	switch (vm->config.on_crash) {
	case CRASH_REPORT:
		vm_end(vm, VM_CRASHED, 0, reason);
		break;
	case CRASH_RESET:
		vm_reset(vm);
		break;
	case CRASH_DEBUG:
		cpu->vcpu.activity = ACTIVITY_SHUTDOWN;
		vm_pause(vm, true);
		break;
	}
}

/* The guest can do nothing more. A debugger sees that first; if somebody lets it run again, by a reset or a new RIP, it has not crashed. */
static void crash_for_good(struct vm_cpu *cpu, const char *reason)
{
	if (debugger_crashed(cpu)) {
		cpu->vcpu.activity = ACTIVITY_SHUTDOWN;
		park(cpu);
		if (cpu->vcpu.activity != ACTIVITY_SHUTDOWN || vm_ended(cpu->vm) != VM_RUNNING)
			return;
	}
	crash(cpu, reason);
}

/* ---- INIT and SIPI; Intel SDM volume 3, "Multiple-Processor (MP) Initialization" ---- */

static void startup(struct vm_cpu *cpu, u8 vector)
{
	struct vcpu *v = &cpu->vcpu;
	if (v->activity != ACTIVITY_WAIT_SIPI)
		return;
	v->seg[SEG_CS].selector = (u16)(vector << 8);
	v->seg[SEG_CS].base = (u64)vector << 12;
	v->rip = 0;
	v->activity = ACTIVITY_ACTIVE;
	v->engine->state_changed(v);
}

static void obey_requests(struct vm_cpu *cpu)
{
	if (!__atomic_load_n(&cpu->requests, __ATOMIC_SEQ_CST))
		return;
	/* Both at once: an INIT takes back an older SIPI (interrupts.c), so a SIPI that stands beside an INIT came after it. One
	 * after the other, an INIT that comes in between would be obeyed after the SIPI that follows it. */
	u32 wanted = REQUESTS_TAKE(cpu, REQUEST_INIT | REQUEST_SIPI);
	if (wanted & REQUEST_INIT)
		vm_reset_cpu(cpu, true);
	if (wanted & REQUEST_SIPI)
		startup(cpu, __atomic_load_n(&cpu->sipi_vector, __ATOMIC_SEQ_CST));
	if (REQUESTS_TAKE(cpu, REQUEST_FLUSH))
		mmu_flush_all(&cpu->vcpu);
	if (REQUESTS_TAKE(cpu, REQUEST_CRASH))
		crash(cpu, cpu->vcpu.activity == ACTIVITY_HLT ? "it halted with interrupts disabled"
							      : "it spins with interrupts disabled");
}

/* Others are going to look at the vCPU, or this thread at all of it. */
static void sync(struct vm_cpu *cpu)
{
	if (cpu->vcpu.engine->sync)
		cpu->vcpu.engine->sync(&cpu->vcpu);
}

/* Obey whatever others want of this vCPU; false when the VM has ended. */
static bool checkpoint(struct vm_cpu *cpu)
{
	struct vm *vm = cpu->vm;
	vcpu_clear_pending(&cpu->vcpu, PENDING_KICK);
	vm_interrupt_ready(cpu); /* for what came at LINT0 */
	if (must_park(cpu) || __atomic_load_n(&cpu->requests, __ATOMIC_SEQ_CST))
		sync(cpu);
	if (must_park(cpu))
		park(cpu);
	obey_requests(cpu);
	return vm_ended(vm) == VM_RUNNING;
}

/* ---- sleeping ---- */

/* Whether something ends a HLT or the wait for a SIPI. */
static bool has_work(struct vm_cpu *cpu)
{
	struct vcpu *v = &cpu->vcpu;
	if (v->activity == ACTIVITY_HLT) {
		bool interrupt = vm_interrupt_ready(cpu); /* first: it may find an NMI at LINT0 */
		bool nmi = (vcpu_pending(v) & PENDING_NMI) && !v->nmi_blocked;
		bool kicked = __atomic_exchange_n(&cpu->unhalted, false, __ATOMIC_SEQ_CST);
		if (nmi || kicked || ((v->rflags & RFLAGS_IF) && interrupt)) {
			v->activity = ACTIVITY_ACTIVE;
			return true;
		}
	}
	return __atomic_load_n(&cpu->requests, __ATOMIC_SEQ_CST) || must_park(cpu) ||
	       vm_ended(cpu->vm) != VM_RUNNING;
}

/* Until when to sleep if nobody wakes the vCPU: the timer of a local APIC wakes only those that listen. */
static u64 sleep_deadline(const struct vm_cpu *cpu)
{
	bool listens = cpu->vcpu.activity == ACTIVITY_HLT && (cpu->vcpu.rflags & RFLAGS_IF);
	return listens ? vm_host_deadline(cpu->vm, lapic_deadline(&cpu->lapic)) : HOST_NEVER;
}

#define REST_PERIOD 5000000000ull
#define REST_PART 20 /* it is idle if it runs less than one in so many moments */

#define REST_DEEP 3 /* after so many periods without work */

static u32 idle_periods(const struct vm_cpu *cpu)
{
	return cpu->vcpu.activity == ACTIVITY_WAIT_SIPI ? REST_DEEP : __atomic_load_n(&cpu->rest.idle, __ATOMIC_SEQ_CST);
}

static bool all_rest(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++)
		if (idle_periods(vm->cpu[i]) < REST_DEEP)
			return false;
	return true;
}

/* A vCPU that did next to nothing for a while gives back memory, which fills anew with what little is used; once, until it has worked: that of its
 * TLB soon, the engine's later, and what all vCPUs share with the last one to rest. It slept since `start`. */
static void rest(struct vm_cpu *cpu, u64 start, u64 now)
{
	struct vcpu *v = &cpu->vcpu;
	u64 period = now - cpu->rest.since, asleep = cpu->stats.halted_ns + now - start - cpu->rest.asleep;
	if (period < REST_PERIOD)
		return;
	bool idle = period - MIN(asleep, period) < period / REST_PART;
	u32 periods = idle ? MIN(cpu->rest.idle + 1, REST_DEEP + 1u) : 0;
	__atomic_store_n(&cpu->rest.idle, periods, __ATOMIC_SEQ_CST);
	if (periods == 1)
		mmu_discard(v);
	if (periods == REST_DEEP && v->engine->rest)
		v->engine->rest(v, all_rest(cpu->vm));
	cpu->rest.since = now;
	cpu->rest.asleep = cpu->stats.halted_ns + now - start;
}

/* Until when to sleep so that it can rest. */
static u64 rest_deadline(const struct vm_cpu *cpu)
{
	return cpu->rest.idle < REST_DEEP ? cpu->rest.since + REST_PERIOD : HOST_NEVER;
}

static void sleep_until_work(struct vm_cpu *cpu)
{
	u64 start = host_now();
	if (vm_look_out(cpu, start, sleep_deadline(cpu), has_work)) {
		cpu->stats.halted_ns += host_now() - start;
		return;
	}
	__atomic_store_n(&cpu->asleep, true, __ATOMIC_SEQ_CST);
	steal_time_sleep(cpu);
	for (;;) {
		u32 wake = __atomic_load_n(&cpu->wake, __ATOMIC_SEQ_CST);
		if (has_work(cpu))
			break;
		rest(cpu, start, host_now());
		host_wait(&cpu->wake, wake, MIN(sleep_deadline(cpu), rest_deadline(cpu)));
	}
	steal_time_wake(cpu);
	__atomic_store_n(&cpu->asleep, false, __ATOMIC_SEQ_CST);
	u64 now = host_now();
	cpu->stats.halted_ns += now - start;
	vm_look_out_learn(cpu, start, now);
}

/* ---- the loop ---- */

/* Answer an exit that ended a run. */
static void finish_run(struct vm_cpu *cpu, const struct exit *exit)
{
	switch (exit->reason) {
	case EXIT_HLT:
		stats_count(&cpu->stats, EXIT_HLT, cpu->vcpu.rip, 0, 0);
		vm_progress(cpu);
		break;
	case EXIT_PAUSE:
		stats_count(&cpu->stats, EXIT_PAUSE, cpu->vcpu.rip, 0, 0);
		host_yield();
		break;
	case EXIT_DEBUG:
		debugger_met(cpu, exit);
		break;
	case EXIT_SHUTDOWN:
		crash_for_good(cpu, "triple fault");
		break;
	case EXIT_ERROR:
		host_log(LOG_ERROR, "vCPU %u: %s", cpu->vcpu.index, exit->error.what);
		if (exit->error.own)
			vm_end(cpu->vm, VM_FAILED, 0, exit->error.what);
		else
			crash_for_good(cpu, exit->error.what);
		break;
	default:
		break;
	}
}

void vm_run_vcpu(struct vm *vm, unsigned index)
{
	struct vm_cpu *cpu = vm->cpu[index];
	struct vcpu *v = &cpu->vcpu;
	host_set_gs_base(v);
	while (checkpoint(cpu)) {
		if (v->activity == ACTIVITY_ACTIVE) {
			struct exit exit = { .reason = EXIT_NONE };
			v->engine->run(v, &exit);
			finish_run(cpu, &exit);
		} else if (!debugger_met_asleep(cpu)) {
			sleep_until_work(cpu);
		}
	}
}
