/* MSRs that the guest reads and writes without leaving: those that the processor switches with the guest. Everything else leaves, so that the rules
 * of cpu/msr.c hold. */
#include "engine/hw/hw.h"

#include "arch/msr.h"
#include "cpu/cpuid.h"

static const struct hw_msr msrs[] = {
	{ 0xc0000081, offsetof(struct vcpu, msr.star), FEATURE_SYSCALL },
	{ 0xc0000082, offsetof(struct vcpu, msr.lstar), FEATURE_SYSCALL },
	{ 0xc0000083, offsetof(struct vcpu, msr.cstar), FEATURE_SYSCALL },
	{ 0xc0000084, offsetof(struct vcpu, msr.fmask), FEATURE_SYSCALL },
	{ MSR_FS_BASE, 0, FEATURE_LM },
	{ MSR_GS_BASE, 0, FEATURE_LM },
	{ 0xc0000102, offsetof(struct vcpu, msr.kernel_gs_base), FEATURE_LM },
	{ 0x174, offsetof(struct vcpu, msr.sysenter_cs), FEATURE_SEP },
	{ 0x175, offsetof(struct vcpu, msr.sysenter_esp), FEATURE_SEP },
	{ 0x176, offsetof(struct vcpu, msr.sysenter_eip), FEATURE_SEP },
};

const struct hw_msr *hw_native_msrs(unsigned *count)
{
	*count = ARRAY_SIZE(msrs);
	return msrs;
}

bool hw_msr_is_native(const struct vcpu *v, const struct hw_msr *msr)
{
	return cpuid_has(v->cpuid, (enum cpu_feature)msr->feature);
}
