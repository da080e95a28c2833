/* Stopping and resuming a machine for a debugger; see debugger.h. */
#include "vm/debugger.h"

#include "cpu/control.h"
#include "mmu/mmu.h"
#include "vm/vm.h"

/* ---- stopping ---- */

static void hold_all(struct vm *vm, struct debugger_stop stop)
{
	vm->debugger.holding = true;
	vm->debugger.stop = stop;
	vm_hold_locked(vm);
	vm_kick_all(vm);
}

void debugger_hold(struct vm *vm)
{
	if (!vm->debugger.holding)
		hold_all(vm, (struct debugger_stop){ .reason = DEBUGGER_ASKED, .cpu = vm->debugger.stop.cpu });
}

void debugger_attach(struct vm *vm)
{
	__atomic_store_n(&vm->debugger.attached, true, __ATOMIC_SEQ_CST);
	debugger_hold(vm);
}

bool debugger_stopped(const struct vm *vm)
{
	return vm->debugger.holding && vm->time.stopped && !__atomic_load_n(&vm->reset_wanted, __ATOMIC_SEQ_CST);
}

/* What a debugger has not asked for any more is not told either. */
static bool meet(struct vm_cpu *cpu, struct debugger_stop stop)
{
	struct vm *vm = cpu->vm;
	host_lock(&vm->lock);
	bool told = !vm->debugger.holding && vm->debugger.attached;
	stop.cpu = cpu->vcpu.index;
	if (told)
		hold_all(vm, stop);
	host_unlock(&vm->lock);
	return told;
}

void debugger_met(struct vm_cpu *cpu, const struct exit *exit)
{
	struct debug_point hit = cpu->vcpu.debug.hit;
	struct debugger_stop stop = {
		.reason = exit->debug.step ? DEBUGGER_STEP : DEBUGGER_POINT,
		.kind = (enum debug_kind)exit->debug.kind,
		.gla = exit->debug.gla,
	};
	if (!meet(cpu, stop))
		debug_put_back(&cpu->vcpu, &hit);
}

bool debugger_met_asleep(struct vm_cpu *cpu)
{
	struct vcpu *v = &cpu->vcpu;
	if (!(vcpu_pending(v) & PENDING_DEBUG))
		return false;
	vcpu_clear_pending(v, PENDING_DEBUG);
	debugger_met(cpu, &(struct exit){ .reason = EXIT_DEBUG,
					  .debug = { .step = !v->debug.hit.size, .kind = (u8)v->debug.hit.kind, .gla = v->debug.hit.gla } });
	return true;
}

bool debugger_crashed(struct vm_cpu *cpu)
{
	return meet(cpu, (struct debugger_stop){ .reason = DEBUGGER_CRASH });
}

/* ---- going on ---- */

static gla_t linear_rip(const struct vcpu *v)
{
	return vcpu_64bit(v) ? v->rip : (u32)(v->seg[SEG_CS].base + v->rip);
}

void debugger_told(struct vm *vm)
{
	struct vcpu *v = &vm->cpu[vm->debugger.stop.cpu]->vcpu;
	if (vm->debugger.stop.reason != DEBUGGER_POINT)
		debug_pass(v, linear_rip(v));
}

void debugger_resume(struct vm *vm, const enum debugger_action *action, bool quiet)
{
	vm->debugger.holding = false;
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		struct vm_cpu *cpu = vm->cpu[i];
		__atomic_store_n(&cpu->held, action[i] == ACTION_HOLD, __ATOMIC_SEQ_CST);
		if (action[i] != ACTION_HOLD)
			debug_prepare(&cpu->vcpu, action[i] == ACTION_STEP, quiet);
	}
	vm_release_locked(vm);
	vm_kick_all(vm);
}

void debugger_clear(struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpus; i++)
		debug_clear(&vm->cpu[i]->vcpu);
}

void debugger_detach(struct vm *vm)
{
	enum debugger_action action[VM_CPUS_MAX] = { ACTION_HOLD };
	for (unsigned i = 0; i < vm->config.cpus; i++)
		action[i] = ACTION_RUN;
	debugger_clear(vm);
	__atomic_store_n(&vm->debugger.attached, false, __ATOMIC_SEQ_CST);
	debugger_resume(vm, action, false);
}

/* ---- points ---- */

bool debugger_insert(struct vm *vm, const struct debug_point *point)
{
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		if (debug_insert(&vm->cpu[i]->vcpu, point))
			continue;
		while (i--)
			debug_remove(&vm->cpu[i]->vcpu, point);
		return false;
	}
	return true;
}

void debugger_remove(struct vm *vm, const struct debug_point *point)
{
	for (unsigned i = 0; i < vm->config.cpus; i++)
		debug_remove(&vm->cpu[i]->vcpu, point);
}

/* ---- memory ---- */

/* The physical address, and how many bytes follow it in the page. */
static bool find(struct vm_cpu *cpu, u64 address, bool physical, gpa_t *gpa, u64 *size)
{
	struct vcpu *v = &cpu->vcpu;
	if (!physical && !vcpu_long_mode(v))
		address = (u32)address;
	*gpa = address;
	*size = MIN(*size, PAGE_SIZE - (address & ~PAGE_MASK));
	if (physical)
		return true;
	return is_canonical(address, vcpu_long_mode(v) ? vcpu_linear_bits(v) : 64) && mmu_debug_translate(v, address, gpa);
}

u64 debugger_read(struct vm_cpu *cpu, u64 address, bool physical, void *buf, u64 size)
{
	u64 done = 0;
	while (done < size) {
		gpa_t gpa;
		u64 n = size - done;
		if (!find(cpu, address + done, physical, &gpa, &n) || !ram_read(&cpu->vm->ram, gpa, (u8 *)buf + done, n))
			break;
		done += n;
	}
	return done;
}

static bool is_memory(struct vm_cpu *cpu, u64 address, bool physical, u64 size)
{
	for (u64 done = 0, n; done < size; done += n) {
		gpa_t gpa;
		n = size - done;
		if (!find(cpu, address + done, physical, &gpa, &n) || !ram_pointer(&cpu->vm->ram, gpa, n))
			return false;
	}
	return true;
}

bool debugger_write(struct vm_cpu *cpu, u64 address, bool physical, const void *buf, u64 size)
{
	struct vm *vm = cpu->vm;
	if (!is_memory(cpu, address, physical, size))
		return false;
	for (u64 done = 0, n; done < size; done += n) {
		gpa_t gpa;
		n = size - done;
		/* What was mapped a moment ago may be so no more, if its own page tables are written. */
		if (!find(cpu, address + done, physical, &gpa, &n) || !ram_write(&vm->ram, gpa, (const u8 *)buf + done, n))
			return false;
	}
	for (unsigned i = 0; i < vm->config.cpus; i++)
		vcpu_set_pending(&vm->cpu[i]->vcpu, PENDING_CODE);
	return true;
}
