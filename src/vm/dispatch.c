/* The one dispatcher of exits that need an answer, whichever engine they come from: what the guest did is carried out on the board,
 * the local APIC, or by the CPU's rules. Everything is counted. */
#include "vm/vm.h"

#include "cpu/msr.h"
#include "cpu/pvclock.h"
#include "host/port.h"
#include "mmu/mmu.h"
#include "vm/paravirt.h"

#define CPUID_1_EDX_APIC (1u << 9)

static u64 read_tsc(void)
{
	return __builtin_ia32_rdtsc();
}

/* ---- the board ---- */

/* Areas of memory show something else, and may be read-only now. Who did it sees it from here on, others soon. */
static void memory_changed(struct vm_cpu *cpu)
{
	struct vm *vm = cpu->vm;
	mmu_flush_all(&cpu->vcpu);
	vcpu_set_pending(&cpu->vcpu, PENDING_CODE);
	for (unsigned i = 0; i < vm->config.cpus; i++) {
		if (vm->cpu[i] == cpu)
			continue;
		__atomic_fetch_or(&vm->cpu[i]->requests, REQUEST_FLUSH, __ATOMIC_SEQ_CST);
		vm_kick(vm->cpu[i], PENDING_KICK | PENDING_CODE);
	}
}

/* Carry out what a register access asked of the machine; the lock is not held. */
static void obey_board(struct vm_cpu *cpu, enum board_event event, u32 status)
{
	struct vm *vm = cpu->vm;
	switch (event) {
	case BOARD_NOTHING:
		break;
	case BOARD_RESET:
		vm_reset(vm);
		break;
	case BOARD_POWER_OFF:
		vm_end(vm, VM_POWEROFF, 0, NULL);
		break;
	case BOARD_DEBUG_EXIT:
		vm_end(vm, VM_DEBUG_EXIT, (int)(status & 0xff), NULL);
		break;
	case BOARD_MEMORY:
		memory_changed(cpu);
		break;
	case BOARD_MOVED:
		vm_place_memory(vm);
		break;
	}
}

/* One access to a bus of the board. */
static u64 board_access(struct vm_cpu *cpu, struct bus *bus, u64 address, unsigned size, bool write, u64 value)
{
	struct vm *vm = cpu->vm;
	host_lock(&vm->lock);
	u64 now = vm_now(vm);
	if (write)
		bus_write(bus, address, size, value, now);
	else
		value = bus_read(bus, address, size, now);
	vm_board_changed(vm, now);
	enum board_event event = board_take_event(&vm->board);
	u32 status = vm->board.exit_status;
	host_unlock(&vm->lock);
	obey_board(cpu, event, status);
	return value;
}

static void exit_io(struct vm_cpu *cpu, struct exit *e)
{
	struct vm *vm = cpu->vm;
	e->io.value = (u32)board_access(cpu, &vm->board.io, e->io.port, e->io.size, e->io.write, e->io.value);
	if (vm->config.trace & TRACE_IO)
		host_log(LOG_DEBUG, "%llx: port %04x %s %0*x", (unsigned long long)cpu->vcpu.rip, e->io.port, e->io.write ? "<-" : "->",
			 e->io.size * 2, e->io.value);
}

static void lapic_mmio(struct vm_cpu *cpu, struct exit *e)
{
	u64 now = vm_now(cpu->vm), offset = e->mmio.gpa & (LAPIC_MMIO_SIZE - 1);
	pv_eoi_take(cpu);
	if (e->mmio.write)
		lapic_mmio_write(&cpu->lapic, offset, e->mmio.size, e->mmio.value, now);
	else
		e->mmio.value = lapic_mmio_read(&cpu->lapic, offset, e->mmio.size, now);
	vm_lapic_changed(cpu, now);
}

static void exit_mmio(struct vm_cpu *cpu, struct exit *e)
{
	struct vm *vm = cpu->vm;
	if (lapic_decodes(&cpu->lapic, e->mmio.gpa))
		lapic_mmio(cpu, e);
	else if (!e->mmio.write || !vm_doorbell(cpu, e->mmio.gpa))
		e->mmio.value = board_access(cpu, &vm->board.memory, e->mmio.gpa, e->mmio.size, e->mmio.write, e->mmio.value);
	if (vm->config.trace & TRACE_MMIO)
		host_log(LOG_DEBUG, "%llx: memory %llx %s %0*llx", (unsigned long long)cpu->vcpu.rip, (unsigned long long)e->mmio.gpa,
			 e->mmio.write ? "<-" : "->", e->mmio.size * 2, (unsigned long long)e->mmio.value);
}

/* ---- MSRs ---- */

static void trace_msr(struct vm_cpu *cpu, const struct exit *e, const char *direction)
{
	if (likely(!(cpu->vm->config.trace & TRACE_MSR)))
		return;
	const char *name = msr_name(e->msr.index);
	host_log(LOG_DEBUG, "%llx: MSR %x (%s) %s %llx%s", (unsigned long long)cpu->vcpu.rip, e->msr.index, name ? name : "unknown",
			 direction, (unsigned long long)e->msr.value, e->msr.fault ? " #GP" : "");
}

static bool lapic_rdmsr(struct vm_cpu *cpu, u32 index, u64 *value)
{
	u64 now = vm_now(cpu->vm);
	pv_eoi_take(cpu);
	bool ok = lapic_msr_read(&cpu->lapic, index, now, value);
	vm_lapic_changed(cpu, now);
	return ok;
}

static void exit_rdmsr(struct vm_cpu *cpu, struct exit *e)
{
	if (lapic_owns_msr(e->msr.index))
		e->msr.fault = !lapic_rdmsr(cpu, e->msr.index, &e->msr.value);
	else
		e->msr.fault = msr_read(&cpu->vcpu, e->msr.index, &e->msr.value) != MSR_OK;
	trace_msr(cpu, e, "->");
}

static bool lapic_wrmsr(struct vm_cpu *cpu, u32 index, u64 value)
{
	u64 now = vm_now(cpu->vm);
	pv_eoi_take(cpu);
	if (index == MSR_TSC_DEADLINE)
		lapic_set_tsc(&cpu->lapic, read_tsc() + cpu->vcpu.tsc_offset, now, host_tsc_hz());
	bool ok = lapic_msr_write(&cpu->lapic, index, now, value);
	vm_lapic_changed(cpu, now);
	return ok;
}

/* What follows from a write to an MSR that is not the local APIC's. */
static void msr_written(struct vm_cpu *cpu, u32 index, u64 tsc_offset)
{
	if (tsc_offset != cpu->vcpu.tsc_offset)
		lapic_set_tsc(&cpu->lapic, read_tsc() + cpu->vcpu.tsc_offset, vm_now(cpu->vm), host_tsc_hz());
	pvclock_update(&cpu->vm->clock, &cpu->vcpu, index);
	if (index == MSR_KVM_STEAL_TIME)
		steal_time_enable(cpu);
}

static bool other_wrmsr(struct vm_cpu *cpu, u32 index, u64 value)
{
	u64 tsc_offset = cpu->vcpu.tsc_offset;
	if (index == MSR_KVM_PV_EOI)
		pv_eoi_take(cpu); /* from where it was */
	if (msr_write(&cpu->vcpu, index, value) != MSR_OK)
		return false;
	msr_written(cpu, index, tsc_offset);
	return true;
}

static void exit_wrmsr(struct vm_cpu *cpu, struct exit *e)
{
	bool lapic = lapic_owns_msr(e->msr.index);
	e->msr.fault = !(lapic ? lapic_wrmsr : other_wrmsr)(cpu, e->msr.index, e->msr.value);
	trace_msr(cpu, e, "<-");
}

/* ---- the rest ---- */

static void exit_cpuid(struct vm_cpu *cpu, struct exit *e)
{
	cpuid_answer(&cpu->vcpu, e->cpuid.leaf, e->cpuid.subleaf, &e->cpuid.eax, &e->cpuid.ebx, &e->cpuid.ecx, &e->cpuid.edx);
	/* A local APIC that is off is not there. Intel SDM volume 3, "Enabling or Disabling the Local APIC". */
	if (e->cpuid.leaf == 1 && !(cpu->lapic.base & APIC_BASE_EN))
		e->cpuid.edx &= ~CPUID_1_EDX_APIC;
}

static void exit_cr_read(struct vm_cpu *cpu, struct exit *e)
{
	if (e->cr.number == 8)
		e->cr.value = lapic_cr8(&cpu->lapic);
}

static void exit_cr_write(struct vm_cpu *cpu, struct exit *e)
{
	if (e->cr.number != 8)
		return;
	lapic_set_cr8(&cpu->lapic, e->cr.value);
	vm_lapic_changed(cpu, vm_now(cpu->vm));
}

static void exit_apic_write(struct vm_cpu *cpu, struct exit *e)
{
	u64 now = vm_now(cpu->vm);
	lapic_written(&cpu->lapic, e->apic.offset, now);
	vm_lapic_changed(cpu, now);
}

static void exit_eoi(struct vm_cpu *cpu, struct exit *e)
{
	lapic_ended(&cpu->lapic, e->apic.vector);
	vm_lapic_changed(cpu, vm_now(cpu->vm));
}

static void (*const handlers[EXIT_REASON_COUNT])(struct vm_cpu *cpu, struct exit *exit) = {
	[EXIT_IO] = exit_io,
	[EXIT_MMIO] = exit_mmio,
	[EXIT_RDMSR] = exit_rdmsr,
	[EXIT_WRMSR] = exit_wrmsr,
	[EXIT_CPUID] = exit_cpuid,
	[EXIT_CR_READ] = exit_cr_read,
	[EXIT_CR_WRITE] = exit_cr_write,
	[EXIT_HYPERCALL] = hypercall,
	[EXIT_APIC_WRITE] = exit_apic_write,
	[EXIT_EOI] = exit_eoi,
};

/* What distinguishes exits of one site: the port, page, MSR or leaf. */
static u32 exit_detail(const struct exit *e)
{
	switch (e->reason) {
	case EXIT_IO:
		return e->io.port;
	case EXIT_MMIO:
		return (u32)(e->mmio.gpa >> PAGE_SHIFT);
	case EXIT_RDMSR:
	case EXIT_WRMSR:
		return e->msr.index;
	case EXIT_CPUID:
		return e->cpuid.leaf;
	case EXIT_CR_READ:
	case EXIT_CR_WRITE:
		return e->cr.number;
	case EXIT_APIC_WRITE:
		return e->apic.offset;
	case EXIT_EOI:
		return e->apic.vector;
	default:
		return 0;
	}
}

void vm_exit(struct vcpu *vcpu, struct exit *exit)
{
	struct vm_cpu *cpu = vm_cpu_of(vcpu);
	u64 start = read_tsc();
	if (cpu->vm->config.trace & TRACE_EXITS)
		host_log(LOG_DEBUG, "%llx: %s %x", (unsigned long long)vcpu->rip, exit_reason_name(exit->reason), exit_detail(exit));
	if (handlers[exit->reason])
		handlers[exit->reason](cpu, exit);
	vm_progress(cpu);
	stats_count(&cpu->stats, exit->reason, vcpu->rip, cpu->stats.by_site ? exit_detail(exit) : 0, read_tsc() - start);
}
