/* Answers to what made the guest leave, where the processor says enough to give them without decoding the instruction: hw->next_rip is behind it. The rest
 * is stepped. What the answers mean is written in cpu/ and vm/, as for all engines. */
#include "engine/hw/hw.h"

#include "arch/msr.h"
#include "cpu/control.h"
#include "cpu/cpuid.h"

#define MSR_PAT 0x277

/* Whether the instruction can be answered from outside; armed I/O break points are step's. */
static bool simple(const struct vcpu *v, const struct hw_vcpu *hw)
{
	return hw->next_rip && !hw->event && !control_debug_armed(v);
}

/* The instruction is done. */
static enum hw_next done(struct vcpu *v, struct hw_vcpu *hw)
{
	v->rip = v->next_rip = hw->next_rip;
	v->shadow = 0;
	v->rflags &= ~RFLAGS_RF;
	if (unlikely(v->rflags & RFLAGS_TF))
		step_raise_single_step(v);
	return HW_ENTER;
}

static void set_edx_eax(struct vcpu *v, u64 value)
{
	v->gpr[RAX] = (u32)value;
	v->gpr[RDX] = value >> 32;
}

enum hw_next hw_nothing(struct vcpu *v, struct exit *exit)
{
	return HW_ENTER;
}

enum hw_next hw_io(struct vcpu *v, struct exit *exit, u16 port, u8 size, bool write)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!simple(v, hw))
		return hw_step(v, exit);
	u64 mask = size_mask(size);
	struct exit e = { .reason = EXIT_IO, .io = { .port = port, .size = size, .write = write, .value = write ? (u32)(v->gpr[RAX] & mask) : 0 } };
	v->ops->exit(v, &e);
	if (!write)
		v->gpr[RAX] = size == 4 ? e.io.value : (v->gpr[RAX] & ~mask) | (e.io.value & mask);
	return done(v, hw);
}

enum hw_next hw_cpuid(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!simple(v, hw))
		return hw_step(v, exit);
	struct exit e = { .reason = EXIT_CPUID, .cpuid = { .leaf = (u32)v->gpr[RAX], .subleaf = (u32)v->gpr[RCX] } };
	v->ops->exit(v, &e);
	v->gpr[RAX] = e.cpuid.eax;
	v->gpr[RBX] = e.cpuid.ebx;
	v->gpr[RCX] = e.cpuid.ecx;
	v->gpr[RDX] = e.cpuid.edx;
	return done(v, hw);
}

enum hw_next hw_rdmsr(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!simple(v, hw))
		return hw_step(v, exit);
	struct exit e = { .reason = EXIT_RDMSR, .msr.index = (u32)v->gpr[RCX] };
	v->ops->exit(v, &e);
	if (e.msr.fault)
		return hw_raise(v, VEC_GP, true, 0);
	set_edx_eax(v, e.msr.value);
	return done(v, hw);
}

/* EFER has a hand in everything: step's. */
enum hw_next hw_wrmsr(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	u32 index = (u32)v->gpr[RCX];
	if (!simple(v, hw) || index == MSR_EFER)
		return hw_step(v, exit);
	struct exit e = { .reason = EXIT_WRMSR, .msr = { .index = index, .value = (u32)v->gpr[RAX] | v->gpr[RDX] << 32 } };
	if (index == MSR_PAT)
		hw_fetch(v, HW_CONTROL);
	v->ops->exit(v, &e);
	if (e.msr.fault)
		return hw_raise(v, VEC_GP, true, 0);
	if (index == MSR_PAT)
		hw->changed |= HW_CONTROL;
	return done(v, hw);
}

enum hw_next hw_hlt(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!simple(v, hw))
		return hw_step(v, exit);
	v->activity = ACTIVITY_HLT;
	exit->reason = EXIT_HLT;
	done(v, hw);
	return HW_LEAVE;
}

enum hw_next hw_hypercall(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!simple(v, hw) || !cpuid_has(v->cpuid, FEATURE_HYPERVISOR))
		return hw_step(v, exit);
	hw_fetch(v, HW_SEGMENTS);
	u64 mask = size_mask(vcpu_64bit(v) ? 8 : 4);
	struct exit e = { .reason = EXIT_HYPERCALL,
			  .hypercall = { .number = v->gpr[RAX] & mask,
					 .args = { v->gpr[RBX] & mask, v->gpr[RCX] & mask, v->gpr[RDX] & mask, v->gpr[RSI] & mask } } };
	v->ops->exit(v, &e);
	v->gpr[RAX] = e.hypercall.result & mask;
	return done(v, hw);
}

/* It spins: others may have what it waits for. */
enum hw_next hw_pause(struct vcpu *v, struct exit *exit)
{
	host_yield();
	return HW_ENTER;
}

enum hw_next hw_shutdown(struct vcpu *v, struct exit *exit)
{
	hw_of(v)->event = 0;
	exit->reason = EXIT_SHUTDOWN;
	return HW_LEAVE;
}

/* What is tried again keeps its event: that is injected anew. */
enum hw_next hw_memory_fault(struct vcpu *v, struct exit *exit, u64 address, u32 error)
{
	struct hw_memory *m = hw_of(v)->memory;
	switch (m->ops->fault(m, address, error)) {
	case HW_FAULT_RETRY:
		return HW_ENTER;
	case HW_FAULT_GUEST:
		hw_fetch(v, HW_CONTROL);
		v->cr2 = v->fault.payload;
		hw_of(v)->changed |= HW_CONTROL;
		return hw_raise(v, VEC_PF, true, v->fault.error);
	default:
		return hw_step(v, exit);
	}
}
