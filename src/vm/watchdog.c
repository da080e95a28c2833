/* The watchdog: a guest all of whose running vCPUs have interrupts disabled and do nothing the VMM sees, for so many seconds, will
 * never come back. It looks once a second, on the host's event thread. What it reads of a running vCPU may be a moment old. */
#include "vm/watchdog.h"

#include "vm/vm.h"

#define PERIOD 1000000000ull

/* Whether the vCPU is deaf and silent since the last look. */
static bool is_stuck(struct vm_cpu *cpu)
{
	u64 progress = __atomic_load_n(&cpu->progress, __ATOMIC_RELAXED);
	bool moved = progress != cpu->progress_seen;
	cpu->progress_seen = progress;
	return !moved && !(__atomic_load_n(&cpu->vcpu.rflags, __ATOMIC_RELAXED) & RFLAGS_IF);
}

static void look(void *opaque)
{
	struct vm *vm = opaque;
	struct vm_cpu *stuck = NULL;
	bool alive = __atomic_load_n(&vm->pause_wanted, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		struct vm_cpu *cpu = vm->cpu[i];
		if (__atomic_load_n(&cpu->vcpu.activity, __ATOMIC_RELAXED) == ACTIVITY_WAIT_SIPI)
			continue;
		if (is_stuck(cpu))
			stuck = stuck ? stuck : cpu;
		else
			alive = true;
	}
	vm->stuck_seconds = alive || !stuck ? 0 : vm->stuck_seconds + 1;
	if (vm->stuck_seconds >= vm->config.hang_timeout) {
		vm->stuck_seconds = 0;
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
