/* Holding a VM still: a pause, a snapshot, a debugger. The vCPUs park (vm/run.c); when the last has, the guest's time stops, and goes on from
 * there when the last holder releases the VM. Guest time is what devices and local APICs are told as `now`, and the time-stamp counter;
 * so a guest that was held notices by its battery-backed clock alone, which goes on. */
#include "vm/vm.h"

#include "host/port.h"

u64 vm_now(const struct vm *vm)
{
	return vm->time.stopped ? vm->time.stopped_now : host_now() - vm->time.lost;
}

u64 vm_host_deadline(const struct vm *vm, u64 deadline)
{
	return deadline == HOST_NEVER ? HOST_NEVER : deadline + vm->time.lost;
}

u64 vm_time(struct vm *vm)
{
	host_lock(&vm->lock);
	u64 time = vm_now(vm) - vm->clock.origin;
	host_unlock(&vm->lock);
	return time;
}

/* ---- time; the lock is held and every vCPU parked ---- */

void vm_time_stop(struct vm *vm)
{
	struct vm_time *t = &vm->time;
	if (t->stopped)
		return;
	t->stopped_now = vm_now(vm);
	t->stopped_tsc = __builtin_ia32_rdtsc();
	t->stopped_wallclock = host_wallclock();
	t->stopped = true;
	vm_settled(vm);
}

/* The time-stamp counter goes on from where it stopped, and so does the clock that is told in terms of it. */
static void move_tsc(struct vm *vm, u64 ticks)
{
	vm->tsc_offset -= ticks;
	vm->clock.host_tsc += ticks;
	for (unsigned i = 0; i < vm->config.cpus; i++)
		vm->cpu[i]->vcpu.tsc_offset -= ticks;
}

static void vm_time_start(struct vm *vm)
{
	struct vm_time *t = &vm->time;
	u64 away = host_wallclock() - t->stopped_wallclock;
	move_tsc(vm, __builtin_ia32_rdtsc() - t->stopped_tsc);
	t->lost = host_now() - t->stopped_now;
	t->stopped = false;
	vm->clock.wallclock += away;
	u64 now = vm_now(vm);
	rtc_skip(&vm->board.rtc, (s64)away, now);
	/* Every deadline moved. */
	vm->board_armed = HOST_NEVER;
	board_serial_input(&vm->board, now);
	for (unsigned i = 0; i < vm->board.backends.consoles; i++)
		board_console_input(&vm->board, i);
	board_net_input(&vm->board);
	vm_board_changed(vm, now);
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		vm->cpu[i]->timer_armed = HOST_NEVER;
		vm_lapic_changed(vm->cpu[i], now);
	}
}

/* ---- holders ---- */

void vm_hold_locked(struct vm *vm)
{
	vm->holds++;
	__atomic_store_n(&vm->pause_wanted, true, __ATOMIC_SEQ_CST);
}

void vm_release_locked(struct vm *vm)
{
	if (--vm->holds)
		return;
	if (vm->time.stopped)
		vm_time_start(vm);
	__atomic_store_n(&vm->pause_wanted, false, __ATOMIC_SEQ_CST);
}

void vm_hold(struct vm *vm)
{
	host_lock(&vm->lock);
	vm_hold_locked(vm);
	host_unlock(&vm->lock);
	vm_kick_all(vm);
}

void vm_release(struct vm *vm)
{
	host_lock(&vm->lock);
	vm_release_locked(vm);
	host_unlock(&vm->lock);
	vm_kick_all(vm);
}

void vm_pause(struct vm *vm, bool pause)
{
	host_lock(&vm->lock);
	if (pause != vm->paused)
		vm_tell(vm, pause ? VM_EVENT_PAUSED : VM_EVENT_RESUMED);
	if (pause && !vm->paused)
		vm_hold_locked(vm);
	else if (!pause && vm->paused)
		vm_release_locked(vm);
	vm->paused = pause;
	host_unlock(&vm->lock);
	vm_kick_all(vm);
}

/* ---- waiting ---- */

void vm_settled(struct vm *vm)
{
	__atomic_fetch_add(&vm->settles, 1, __ATOMIC_SEQ_CST);
	host_wake(&vm->settles);
}

static bool still(struct vm *vm)
{
	host_lock(&vm->lock);
	bool yes = vm->time.stopped && !board_busy(&vm->board);
	host_unlock(&vm->lock);
	return yes;
}

bool vm_settle(struct vm *vm)
{
	for (;;) {
		u32 settles = __atomic_load_n(&vm->settles, __ATOMIC_SEQ_CST);
		bool done = still(vm);
		if (done || vm_ended(vm) != VM_RUNNING) {
			host_wake(&vm->settles); /* one waiter is woken at a time: the next one's turn */
			return done;
		}
		host_wait(&vm->settles, settles, HOST_NEVER);
	}
}
