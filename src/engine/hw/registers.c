/* Registers that neither VT-x nor AMD-V switches: vector registers and XCR0, DR0 to DR3, TSC_AUX, SPEC_CTRL.
 *
 * Vector registers: the host uses none, and keeps those of a thread across everything. So the guest's stay in the real registers from one entry to the
 * next, and are stored to vcpu->xsave only when somebody is going to look (HW_VECTORS is not known until then). */
#include "engine/hw/hw.h"

#include "arch/asm.h"
#include "cpu/cpuid.h"
#include "cpu/host_cpuid.h"
#include "cpu/xstate.h"
#include "engine/step/x87.h"

#define MSR_TSC_AUX 0xc0000103
#define MSR_SPEC_CTRL 0x48

bool hw_registers_available(const char **why)
{
	*why = "this processor lacks XSAVE";
	return host_xcr0() != 0;
}

void hw_registers_init(struct hw_vcpu *hw)
{
	hw->xcr0 = host_xcr0();
	hw->xstate = xstate_host_mask();
}

void hw_registers_take(struct vcpu *v)
{
	struct hw_vcpu *hw = hw_of(v);
	__asm__ volatile("xsave64 (%0)" ::"r"(v->xsave), "a"((u32)hw->xstate), "d"((u32)(hw->xstate >> 32)) : "memory");
	x87_reload(v, step_of(v));
}

static void load_vectors(struct vcpu *v, struct hw_vcpu *hw)
{
	if (!(hw->known & HW_VECTORS))
		return;
	__asm__ volatile("xrstor64 (%0)" ::"r"(v->xsave), "a"((u32)hw->xstate), "d"((u32)(hw->xstate >> 32)) : "memory");
}

static void load_breakpoints(const struct vcpu *v)
{
	__asm__ volatile("mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3" ::"r"(v->dr[0]), "r"(v->dr[1]), "r"(v->dr[2]), "r"(v->dr[3]));
}

static bool has_tsc_aux(const struct vcpu *v)
{
	return cpuid_has(v->cpuid, FEATURE_RDTSCP) || cpuid_has(v->cpuid, FEATURE_RDPID);
}

void hw_registers_load(struct vcpu *v, struct hw_cpu *cpu)
{
	struct hw_vcpu *hw = hw_of(v);
	load_vectors(v, hw);
	if (v->dr7 & 0xff)
		load_breakpoints(v);
	if (cpu->tsc_aux != v->msr.tsc_aux && has_tsc_aux(v))
		wrmsr(MSR_TSC_AUX, cpu->tsc_aux = v->msr.tsc_aux);
	if (v->xcr0 != hw->xcr0)
		xsetbv(0, v->xcr0);
	if (v->msr.spec_ctrl)
		wrmsr(MSR_SPEC_CTRL, v->msr.spec_ctrl);
}

void hw_registers_leave(struct vcpu *v)
{
	struct hw_vcpu *hw = hw_of(v);
	if (v->msr.spec_ctrl)
		wrmsr(MSR_SPEC_CTRL, 0);
	if (v->xcr0 != hw->xcr0)
		xsetbv(0, hw->xcr0);
}
