/* What to say when the processor refuses an entry (vmx.h): its error, and what the checker finds. */
#include "engine/vmx/check.h"
#include "engine/vmx/names.h"
#include "engine/vmx/vmx.h"

#include "cpu/host_cpuid.h"

static u64 read_field(void *opaque, u32 field)
{
	return vmread(field);
}

static void say(void *opaque, const char *text)
{
	const struct vcpu *v = opaque;
	host_log(LOG_WARN, "vCPU %u: %s", v->index, text);
}

static unsigned check(struct vcpu *v, enum vmx_stage stage)
{
	struct cpuid_regs sizes = host_cpuid_checked(0x80000008, 0);
	const struct vmx_check c = { .capabilities = &vmx_of(v)->capabilities,
				     .physical_bits = sizes.reg[CPUID_EAX] & 0xff,
				     .linear_bits = sizes.reg[CPUID_EAX] >> 8 & 0xff,
				     .read = read_field };
	return vmx_check(&c, stage, say, v);
}

const char *vmx_refused_entry(struct vcpu *v, enum vmx_result result)
{
	if (result == VMX_FAIL_INVALID)
		return "VMLAUNCH or VMRESUME fails: there is no current VMCS";
	const char *what = vmx_error_name((u32)vmread(VMCS_INSTRUCTION_ERROR));
	check(v, STAGE_CONTROLS);
	check(v, STAGE_HOST);
	return what;
}

void vmx_refused_state(struct vcpu *v)
{
	struct vmx_vcpu *x = vmx_of(v);
	if (x->told)
		return;
	x->told = true;
	host_log(LOG_WARN, "vCPU %u: %s", v->index, vmx_exit_name(x->reason));
	if (!check(v, STAGE_GUEST))
		host_log(LOG_WARN, "vCPU %u: the checker finds nothing wrong with it; exit qualification %llu", v->index,
			 (unsigned long long)vmread(VMCS_EXIT_QUALIFICATION));
}
