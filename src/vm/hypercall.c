/* KVM's hypercalls. Linux documentation, "Linux KVM Hypercall"; a vCPU is named by its APIC ID as the board numbers it. */
#include "host/port.h"
#include "vm/paravirt.h"

/* What they return, negated. */
#define KVM_EPERM 1ull
#define KVM_EINVAL 22ull
#define KVM_ENOSYS 1000ull

#define ICR_DELIVERY(icr) ((icr) >> 8 & 7)
#define ICR_LOGICAL BIT(11)
#define ICR_SHORTHAND (3ull << 18)
#define FIRST_LEGAL_VECTOR 16

static struct vm_cpu *cpu_of(struct vm *vm, u64 apic_id)
{
	return apic_id < vm->config.cpus ? vm->cpu[apic_id] : NULL;
}

/* KVM_HC_KICK_CPU: flags, APIC ID. A vCPU that halts, or does so next, goes on, interrupts enabled or not. */
static u64 kick_cpu(struct vm_cpu *cpu, const u64 *args)
{
	struct vm_cpu *target = cpu_of(cpu->vm, args[1]);
	if (!target)
		return 0;
	__atomic_store_n(&target->unhalted, true, __ATOMIC_SEQ_CST);
	vm_kick(target, 0);
	return 0;
}

/* KVM_HC_SEND_IPI: two words of a bitmap, the APIC ID of its first bit, the interrupt command. Returns how many were addressed. */
static u64 send_ipi(struct vm_cpu *cpu, const u64 *args)
{
	unsigned width = vcpu_64bit(&cpu->vcpu) ? 64 : 32;
	const struct interrupt ipi = { .vector = (u8)args[3], .delivery = ICR_DELIVERY(args[3]) };
	bool fixed = ipi.delivery == DELIVERY_FIXED && ipi.vector >= FIRST_LEGAL_VECTOR;
	if ((!fixed && ipi.delivery != DELIVERY_NMI) || (args[3] & (ICR_LOGICAL | ICR_SHORTHAND)))
		return -KVM_EINVAL;
	u64 sent = 0;
	for (unsigned word = 0; word < 2; word++)
		for (u64 bits = args[word]; bits; bits &= bits - 1) {
			struct vm_cpu *target = cpu_of(cpu->vm, (u32)args[2] + word * (u64)width + (u64)__builtin_ctzll(bits));
			if (target)
				vm_interrupt_cpu(target, &ipi);
			sent += !!target;
		}
	return sent;
}

/* KVM_HC_SCHED_YIELD: the APIC ID of a vCPU that had better run. Who that is, the host's scheduler knows itself. */
static u64 yield(struct vm_cpu *cpu, const u64 *args)
{
	host_yield();
	return 0;
}

static const struct {
	u8 number;
	u8 feature;
	u64 (*call)(struct vm_cpu *cpu, const u64 *args);
} calls[] = {
	{ 5, FEATURE_KVM_PV_UNHALT, kick_cpu },
	{ 10, FEATURE_KVM_PV_IPI, send_ipi },
	{ 11, FEATURE_KVM_PV_SCHED_YIELD, yield },
};

static u64 carry_out(struct vm_cpu *cpu, u64 number, const u64 *args)
{
	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].number == number && cpuid_has(cpu->vm->policy, (enum cpu_feature)calls[i].feature))
			return cpu->vcpu.cpl ? -KVM_EPERM : calls[i].call(cpu, args);
	return cpu->vcpu.cpl ? -KVM_EPERM : -KVM_ENOSYS;
}

void hypercall(struct vm_cpu *cpu, struct exit *e)
{
	e->hypercall.result = carry_out(cpu, e->hypercall.number, e->hypercall.args);
}
