/* Answers to what made the guest leave, where it is known what is behind the instruction: hw->next_rip, of the processor or by reading it (code.h). The rest
 * is stepped. What the answers mean is written in cpu/ and vm/, as for all engines. */
#include "engine/hw/hw.h"

#include "arch/msr.h"
#include "cpu/control.h"
#include "cpu/cpuid.h"

#define MSR_PAT 0x277

/* Events under way come first, and armed I/O break points are step's. */
static bool is_plain(const struct vcpu *v, const struct hw_vcpu *hw)
{
	return !hw->event && !control_debug_armed(v);
}

/* What it takes to find the guest's code, and to read it. */
static void fetch_code(struct vcpu *v, struct hw_vcpu *hw)
{
	hw_fetch(v, HW_CODE | (hw->memory->ops->nested && !hw->byte_count ? HW_CONTROL : 0));
}

static bool set_next(struct vcpu *v, struct hw_vcpu *hw, unsigned length)
{
	u64 next = v->rip + length;
	hw->next_rip = vcpu_64bit(v) ? next : (u32)next;
	return vcpu_code_bits(v) != 16 || hw->next_rip <= 0xffff; /* else it wraps, or the segment has more than 64 KiB */
}

bool hw_read_insn(struct vcpu *v, struct hw_insn *insn)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!is_plain(v, hw))
		return false;
	fetch_code(v, hw);
	return hw_decode(v, &hw->code, hw->bytes, hw->byte_count, insn) && set_next(v, hw, insn->length);
}

bool hw_simple(struct vcpu *v, u32 code)
{
	struct hw_vcpu *hw = hw_of(v);
	struct hw_insn insn;
	if (!is_plain(v, hw))
		return false;
	if (likely(hw->next_rip))
		return true;
	fetch_code(v, hw);
	unsigned length = hw_code_is(v, &hw->code, code);
	if (likely(length))
		return set_next(v, hw, length);
	return hw_read_insn(v, &insn) && insn.opcode == code; /* behind prefixes */
}

enum hw_next hw_done(struct vcpu *v)
{
	v->rip = v->next_rip = hw_of(v)->next_rip;
	v->shadow = 0;
	v->rflags &= ~RFLAGS_RF;
	if (unlikely(v->rflags & RFLAGS_TF))
		step_raise_single_step(v);
	return HW_ENTER;
}

enum hw_next hw_fault(struct vcpu *v)
{
	return hw_raise(v, v->fault.vector, v->fault.has_error, v->fault.error);
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
	if (!hw->next_rip || !is_plain(v, hw))
		return hw_step(v, exit);
	u64 mask = size_mask(size);
	struct exit e; /* not zeroed as a whole: that takes longer than the rest */
	e.reason = EXIT_IO;
	e.io.port = port;
	e.io.size = size;
	e.io.write = write;
	e.io.value = write ? (u32)(v->gpr[RAX] & mask) : 0;
	v->ops->exit(v, &e);
	if (!write)
		v->gpr[RAX] = size == 4 ? e.io.value : (v->gpr[RAX] & ~mask) | (e.io.value & mask);
	return hw_done(v);
}

enum hw_next hw_cpuid(struct vcpu *v, struct exit *exit)
{
	if (!hw_simple(v, HW_OPCODE_CPUID))
		return hw_step(v, exit);
	struct exit e;
	e.reason = EXIT_CPUID;
	e.cpuid.leaf = (u32)v->gpr[RAX];
	e.cpuid.subleaf = (u32)v->gpr[RCX];
	v->ops->exit(v, &e);
	v->gpr[RAX] = e.cpuid.eax;
	v->gpr[RBX] = e.cpuid.ebx;
	v->gpr[RCX] = e.cpuid.ecx;
	v->gpr[RDX] = e.cpuid.edx;
	return hw_done(v);
}

enum hw_next hw_rdmsr(struct vcpu *v, struct exit *exit)
{
	if (!hw_simple(v, HW_OPCODE_RDMSR))
		return hw_step(v, exit);
	struct exit e = { .reason = EXIT_RDMSR, .msr.index = (u32)v->gpr[RCX] };
	v->ops->exit(v, &e);
	if (e.msr.fault)
		return hw_raise(v, VEC_GP, true, 0);
	set_edx_eax(v, e.msr.value);
	return hw_done(v);
}

/* EFER has a hand in everything: step's. */
enum hw_next hw_wrmsr(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	u32 index = (u32)v->gpr[RCX];
	if (index == MSR_EFER || !hw_simple(v, HW_OPCODE_WRMSR))
		return hw_step(v, exit);
	struct exit e = { .reason = EXIT_WRMSR, .msr = { .index = index, .value = (u32)v->gpr[RAX] | v->gpr[RDX] << 32 } };
	if (index == MSR_PAT)
		hw_fetch(v, HW_CONTROL);
	v->ops->exit(v, &e);
	if (e.msr.fault)
		return hw_raise(v, VEC_GP, true, 0);
	if (index == MSR_PAT)
		hw->changed |= HW_CONTROL;
	return hw_done(v);
}

enum hw_next hw_hlt(struct vcpu *v, struct exit *exit)
{
	if (!hw_simple(v, HW_OPCODE_HLT))
		return hw_step(v, exit);
	v->activity = ACTIVITY_HLT;
	exit->reason = EXIT_HLT;
	hw_done(v);
	return HW_LEAVE;
}

enum hw_next hw_hypercall(struct vcpu *v, struct exit *exit)
{
	if (!cpuid_has(v->cpuid, FEATURE_HYPERVISOR) || !hw_simple(v, HW_CODE_VMMCALL))
		return hw_step(v, exit);
	hw_fetch(v, HW_CODE);
	u64 mask = size_mask(vcpu_64bit(v) ? 8 : 4);
	struct exit e;
	e.reason = EXIT_HYPERCALL;
	e.hypercall.number = v->gpr[RAX] & mask;
	e.hypercall.args[0] = v->gpr[RBX] & mask;
	e.hypercall.args[1] = v->gpr[RCX] & mask;
	e.hypercall.args[2] = v->gpr[RDX] & mask;
	e.hypercall.args[3] = v->gpr[RSI] & mask;
	v->ops->exit(v, &e);
	v->gpr[RAX] = e.hypercall.result & mask;
	return hw_done(v);
}

/* It spins: others may have what it waits for. */
enum hw_next hw_pause(struct vcpu *v, struct exit *exit)
{
	host_yield();
	return HW_ENTER;
}

enum hw_next hw_pause_uncounted(struct vcpu *v, struct exit *exit)
{
	struct hw_vcpu *hw = hw_of(v);
	if (!hw_simple(v, HW_CODE_PAUSE))
		return hw_step(v, exit);
	if (!--hw->pauses) {
		u64 waited = host_run_delay();
		host_yield();
		if (host_run_delay() != waited)
			hw->pauses = HW_PAUSES;
	}
	return hw_done(v);
}

enum hw_next hw_interrupt_of_host(struct vcpu *v, struct exit *exit)
{
	hw_of(v)->pauses = HW_PAUSES;
	return HW_ENTER;
}

enum hw_next hw_shutdown(struct vcpu *v, struct exit *exit)
{
	hw_of(v)->event = 0;
	exit->reason = EXIT_SHUTDOWN;
	return HW_LEAVE;
}

/* What is tried again keeps its event: that is injected anew. */
enum hw_next hw_memory_fault(struct vcpu *v, struct exit *exit, u64 address, u32 error, bool final)
{
	struct hw_memory *m = hw_of(v)->memory;
	switch (m->ops->fault(m, address, error)) {
	case HW_FAULT_RETRY:
		return HW_ENTER;
	case HW_FAULT_GUEST:
		hw_fetch(v, HW_CONTROL);
		v->cr2 = v->fault.payload;
		hw_of(v)->changed |= HW_CONTROL;
		return hw_fault(v);
	case HW_FAULT_DEVICE:
		return final ? hw_device(v, exit, m->device, error) : hw_step(v, exit);
	case HW_FAULT_STORE:
		return hw_store_watched(v, exit, m->device);
	default:
		return hw_step(v, exit);
	}
}
