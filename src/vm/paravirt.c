/* PV EOI and steal time (vm/paravirt.h). */
#include "vm/paravirt.h"

#include "mmu/mmu.h"

#define SHARED_ENABLE BIT(0) /* of the MSRs */
#define STEAL_PERIOD 1000000ull /* nanoseconds */

/* ---- memory shared with the guest ---- */

/* Where an MSR says that a structure is; NULL if it says so of no RAM, or is off. Slots stay, so that the pointer does. */
static void *shared(struct vm_cpu *cpu, u64 msr, u64 size)
{
	gpa_t gpa = msr & ~SHARED_ENABLE;
	struct ram_slot *slot = msr & SHARED_ENABLE ? ram_find(&cpu->vm->ram, gpa) : NULL;
	return slot && !ram_readonly(slot, gpa) ? ram_pointer(&cpu->vm->ram, gpa, size) : NULL;
}

static void changed(struct vm_cpu *cpu, u64 msr, u64 size)
{
	ram_written(&cpu->vm->ram, msr & ~SHARED_ENABLE, size);
}

/* ---- PV EOI ---- */

#define PV_EOI_BIT 1u

void pv_eoi_take(struct vm_cpu *cpu)
{
	if (!cpu->pv_eoi)
		return;
	cpu->pv_eoi = false;
	u64 msr = cpu->vcpu.msr.kvm_pv_eoi;
	u32 *word = shared(cpu, msr, sizeof(*word));
	if (!word)
		return;
	bool ended = !(__atomic_fetch_and(word, ~PV_EOI_BIT, __ATOMIC_SEQ_CST) & PV_EOI_BIT);
	if (ended)
		lapic_end_interrupt(&cpu->lapic);
	else
		changed(cpu, msr, sizeof(*word));
}

void pv_eoi_give(struct vm_cpu *cpu)
{
	u64 msr = cpu->vcpu.msr.kvm_pv_eoi;
	if (!(msr & SHARED_ENABLE) || cpu->pv_eoi || cpu->lapic.direct || !lapic_end_may_wait(&cpu->lapic))
		return;
	u32 *word = shared(cpu, msr, sizeof(*word));
	if (!word)
		return;
	__atomic_fetch_or(word, PV_EOI_BIT, __ATOMIC_SEQ_CST);
	changed(cpu, msr, sizeof(*word));
	cpu->pv_eoi = true;
}

/* ---- steal time ---- */

struct steal_time {
	u64 steal; /* nanoseconds */
	u32 version; /* odd while it is being written */
	u32 flags;
	u8 preempted; /* STEAL_* */
	u8 reserved[47];
};
_Static_assert(sizeof(struct steal_time) == 64, "KVM ABI");

#define STEAL_PREEMPTED 1u
#define STEAL_FLUSH_TLB 2u

static struct steal_time *steal_time(struct vm_cpu *cpu)
{
	return shared(cpu, cpu->vcpu.msr.kvm_steal_time, sizeof(struct steal_time));
}

static void add_steal(struct vm_cpu *cpu, struct steal_time *t, u64 nanoseconds)
{
	u32 version = (__atomic_load_n(&t->version, __ATOMIC_RELAXED) | 1) + 2;
	__atomic_store_n(&t->version, version, __ATOMIC_SEQ_CST);
	__atomic_store_n(&t->steal, __atomic_load_n(&t->steal, __ATOMIC_RELAXED) + nanoseconds, __ATOMIC_SEQ_CST);
	__atomic_store_n(&t->version, version + 1, __ATOMIC_SEQ_CST);
	changed(cpu, cpu->vcpu.msr.kvm_steal_time, sizeof(*t));
}

void steal_time_update(struct vm_cpu *cpu, u64 now)
{
	if (!(cpu->vcpu.msr.kvm_steal_time & SHARED_ENABLE) || now - cpu->steal_asked < STEAL_PERIOD)
		return;
	cpu->steal_asked = now;
	u64 waited = host_run_delay(), fresh = waited - cpu->steal_waited;
	cpu->steal_waited = waited;
	struct steal_time *t = steal_time(cpu);
	if (t && fresh)
		add_steal(cpu, t, fresh);
}

void steal_time_enable(struct vm_cpu *cpu)
{
	struct steal_time *t = steal_time(cpu);
	cpu->steal_waited = host_run_delay();
	if (!t)
		return;
	__atomic_store_n(&t->preempted, 0, __ATOMIC_SEQ_CST);
	add_steal(cpu, t, 0);
}

void steal_time_sleep(struct vm_cpu *cpu)
{
	struct steal_time *t = steal_time(cpu);
	if (!t)
		return;
	__atomic_store_n(&t->preempted, STEAL_PREEMPTED, __ATOMIC_SEQ_CST);
	changed(cpu, cpu->vcpu.msr.kvm_steal_time, sizeof(*t));
}

void steal_time_wake(struct vm_cpu *cpu)
{
	struct steal_time *t = steal_time(cpu);
	if (!t)
		return;
	if (__atomic_exchange_n(&t->preempted, 0, __ATOMIC_SEQ_CST) & STEAL_FLUSH_TLB)
		mmu_flush_all(&cpu->vcpu);
	changed(cpu, cpu->vcpu.msr.kvm_steal_time, sizeof(*t));
}
