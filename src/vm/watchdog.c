/* The watchdog: a guest all of whose running vCPUs have interrupts disabled and do nothing the VMM sees, for so many seconds, will
 * never come back. It looks once a second, on the host's event thread. What it reads of a running vCPU may be a moment old.
 *
 * A kernel that decompresses itself looks much the same, but its registers change: it gets PATIENCE times as long. */
#include "vm/watchdog.h"

#include "vm/vm.h"

#define PERIOD 1000000000ull
#define PATIENCE 10

enum look { LOOK_ALIVE, LOOK_BUSY, LOOK_STUCK };

static u64 register_sum(const struct vcpu *vcpu)
{
	u64 sum = 0;
	for (unsigned i = 0; i < GPR_COUNT; i++)
		sum = (sum << 7 | sum >> 57) + __atomic_load_n(&vcpu->gpr[i], __ATOMIC_RELAXED);
	return sum;
}

/* What the vCPU did since the last look: deaf and silent, it is busy while its registers change, else stuck. */
static enum look look_at(struct vm_cpu *cpu)
{
	u64 progress = __atomic_load_n(&cpu->progress, __ATOMIC_RELAXED), registers = register_sum(&cpu->vcpu);
	bool moved = progress != cpu->watch.progress, changed = registers != cpu->watch.registers;
	cpu->watch.progress = progress;
	cpu->watch.registers = registers;
	if (moved || (__atomic_load_n(&cpu->vcpu.rflags, __ATOMIC_RELAXED) & RFLAGS_IF))
		return LOOK_ALIVE;
	vm_kick(cpu, PENDING_KICK); /* its engine brings the registers up to date for the next look */
	return changed ? LOOK_BUSY : LOOK_STUCK;
}

static void look(void *opaque)
{
	struct vm *vm = opaque;
	struct vm_cpu *stuck = NULL;
	bool alive = __atomic_load_n(&vm->pause_wanted, __ATOMIC_SEQ_CST) || __atomic_load_n(&vm->debugger.attached, __ATOMIC_SEQ_CST);
	bool busy = false;
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		struct vm_cpu *cpu = vm->cpu[i];
		if (__atomic_load_n(&cpu->vcpu.activity, __ATOMIC_RELAXED) == ACTIVITY_WAIT_SIPI)
			continue;
		enum look seen = look_at(cpu);
		alive |= seen == LOOK_ALIVE;
		busy |= seen == LOOK_BUSY;
		stuck = stuck ? stuck : cpu;
	}
	vm->suspicion = alive || !stuck ? 0 : vm->suspicion + (busy ? 1 : PATIENCE);
	if (vm->suspicion >= vm->config.hang_timeout * PATIENCE) {
		vm->suspicion = 0;
		__atomic_fetch_or(&stuck->requests, REQUEST_CRASH, __ATOMIC_SEQ_CST);
		vm_kick(stuck, PENDING_KICK);
	}
	host_timer_arm(vm->watchdog, host_now() + PERIOD);
}

int watchdog_start(struct vm *vm)
{
	if (!vm->config.hang_timeout)
		return 0;
	vm->watchdog = host_timer_create(look, vm);
	if (!vm->watchdog)
		return -1;
	host_timer_arm(vm->watchdog, host_now() + PERIOD);
	return 0;
}

void watchdog_stop(struct vm *vm)
{
	host_timer_destroy(vm->watchdog);
	vm->watchdog = NULL;
}
