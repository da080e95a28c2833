/* VMX operation of CPUs, VMCSs on them, and VPIDs, which name the guests' translations in a TLB. Intel SDM volume 3, "Discovering Support for VMX", "Enabling and
 * Entering VMX Operation", "Software Use of the VMCS and Related Structures", "Caching Translation Information". */
#include "engine/vmx/vmx.h"

#include "arch/asm.h"
#include "arch/regs.h"

#define VPIDS 0x10000

const struct vmx_kept_msr vmx_kept_msrs[VMX_KEPT_MSRS] = {
	{ 0xc0000081, offsetof(struct vcpu, msr.star), false },	 { 0xc0000082, offsetof(struct vcpu, msr.lstar), false },
	{ 0xc0000083, offsetof(struct vcpu, msr.cstar), false }, { 0xc0000084, offsetof(struct vcpu, msr.fmask), false },
	{ 0xc0000102, offsetof(struct vcpu, msr.kernel_gs_base), true },
};

/* ---- VMX operation ---- */

struct start {
	struct vmx_cpu *cpu;
	bool done;
};

static bool allowed(void)
{
	u64 control = rdmsr(MSR_FEATURE_CONTROL);
	if (!(control & FEATURE_CONTROL_LOCK))
		wrmsr(MSR_FEATURE_CONTROL, control |= FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX);
	return control & FEATURE_CONTROL_VMX;
}

/* On the CPU itself. */
static void start(void *opaque)
{
	struct start *s = opaque;
	u64 cr4;
	if (!allowed())
		return;
	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("mov %0, %%cr4" ::"r"(cr4 | CR4_VMXE) : "memory");
	s->cpu->next_vpid = 1;
	s->cpu->generation = 1;
	for (unsigned i = 0; i < VMX_KEPT_MSRS; i++)
		s->cpu->kept[i] = rdmsr(vmx_kept_msrs[i].index);
	s->done = vmxon(host_physical(s->cpu->region)) == VMX_GOOD;
	if (s->done)
		*host_cpu_slot() = s->cpu;
}

static void has_started(void *opaque)
{
	*(bool *)opaque = *host_cpu_slot() != NULL;
}

static bool init(unsigned number, u32 revision)
{
	bool done;
	host_cpu_call(number, has_started, &done);
	if (done)
		return true;
	struct start s = { .cpu = host_alloc(sizeof(*s.cpu)) };
	void *region = host_pages_create(1);
	if (s.cpu && region) {
		*(u32 *)region = revision;
		s.cpu->region = region;
		host_cpu_call(number, start, &s);
	}
	if (s.done)
		return true;
	host_free(s.cpu);
	host_pages_destroy(region, 1);
	return false;
}

bool vmx_cpus_init(const struct vmx_capabilities *capabilities)
{
	for (unsigned i = 0; i < host_cpus(); i++)
		if (!init(i, (u32)capabilities->basic & VMX_BASIC_REVISION))
			return false;
	return true;
}

/* ---- which VMCS is where ---- */

/* On the CPU where it is active. */
static void clear(void *opaque)
{
	struct vmx_vcpu *x = opaque;
	struct vmx_cpu *cpu = *host_cpu_slot();
	if (x->active != cpu)
		return;
	vmclear(host_physical(x->vmcs));
	if (cpu->current == x)
		cpu->current = NULL;
	x->active = NULL;
	x->launched = false;
}

bool vmx_load(struct vmx_vcpu *x)
{
	struct vmx_cpu *cpu = *host_cpu_slot();
	if (likely(cpu->current == x))
		return true;
	if (x->active && x->active != cpu)
		return false;
	if (!x->active) {
		vmclear(host_physical(x->vmcs));
		x->launched = x->host_written = false;
	}
	if (vmptrld(host_physical(x->vmcs)) != VMX_GOOD)
		host_panic("VMPTRLD fails: %llu", (unsigned long long)vmread(VMCS_INSTRUCTION_ERROR));
	x->active = cpu;
	x->active_number = host_cpu();
	cpu->current = x;
	return true;
}

u64 vmx_hold(struct vmx_vcpu *x)
{
	for (;;) {
		u64 held = host_hold();
		if (vmx_load(x))
			return held;
		host_release(held);
		vmx_unload(x);
	}
}

void vmx_unload(struct vmx_vcpu *x)
{
	if (x->active)
		host_cpu_call(x->active_number, clear, x);
}

/* ---- translations ---- */

/* A VPID that no guest has used since everything was flushed. */
static void take_vpid(struct vmx_vcpu *x, struct vmx_cpu *cpu)
{
	if (cpu->next_vpid >= VPIDS) {
		cpu->generation++;
		cpu->next_vpid = 1;
		invvpid(INVALIDATE_ALL, 0);
	}
	x->vpid = (u16)cpu->next_vpid++;
	x->vpid_cpu = cpu;
	x->vpid_generation = cpu->generation;
	vmwrite(VMCS_VPID, x->vpid);
}

static void flush_vpid(struct vmx_vcpu *x, struct vmx_cpu *cpu)
{
	if (x->vpid_cpu != cpu || x->vpid_generation != cpu->generation)
		take_vpid(x, cpu);
	else if (x->capabilities.ept_vpid & VPID_CAP_SINGLE)
		invvpid(INVALIDATE_SINGLE, x->vpid);
	else
		invvpid(INVALIDATE_ALL, 0);
}

static void flush_ept(struct vmx_vcpu *x)
{
	if (x->capabilities.ept_vpid & EPT_CAP_INVEPT_SINGLE)
		invept(INVALIDATE_SINGLE, x->root);
	else
		invept(INVALIDATE_ALL, 0);
}

/* Without VPIDs every entry and exit flushes linear translations, and combined ones of the current EPTP. */
void vmx_flush(struct vmx_vcpu *x, struct vmx_cpu *cpu, bool stale)
{
	bool vpid = vmx_has(x, WORD_SECONDARY, PROC2_VPID);
	if (stale && vmx_has(x, WORD_SECONDARY, PROC2_EPT))
		flush_ept(x);
	if (vpid && (stale || x->vpid_cpu != cpu || x->vpid_generation != cpu->generation))
		flush_vpid(x, cpu);
}
