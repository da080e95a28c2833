/* The table of exit reasons: what the VMCS tells of each, and who answers. Intel SDM volume 3, "Exit Qualification", "VMX Basic Exit Reasons". */
#include "engine/vmx/exits.h"

#include "arch/exception.h"
#include "cpu/control.h"
#include "engine/vmx/names.h"

/* ---- exceptions; most are the guest's own affair and do not leave ---- */

/* DR6 does not have it yet. Always reflected: a guest whose handler faults again and again stays in reach of interrupts of the host. */
static enum hw_next debug_exception(struct vcpu *v, struct exit *exit)
{
	u64 hit = vmx_of(v)->qualification & (0xf | DR6_BD | DR6_BS);
	if (hw_of(v)->event)
		return hw_raise(v, VEC_DB, false, 0);
	hw_fetch(v, HW_DEBUG);
	v->dr6 = (v->dr6 & ~0xfull) | hit;
	v->dr7 &= ~DR7_GD;
	hw_of(v)->changed |= HW_DEBUG;
	return hw_raise(v, VEC_DB, false, 0);
}

/* The instruction has begun: interrupts that wait now come behind it, and its break point has been passed, also where the shadow or RF were lost on the
 * way out. */
static enum hw_next undefined(struct vcpu *v, struct exit *exit)
{
	v->shadow |= SHADOW_STI;
	v->rflags |= RFLAGS_RF;
	return hw_step(v, exit);
}

static enum hw_next exception(struct vcpu *v, struct exit *exit)
{
	const struct vmx_vcpu *x = vmx_of(v);
	if (EVENT_TYPE(x->event) == TYPE_NMI)
		return HW_ENTER;
	if (EVENT_TYPE(x->event) >= TYPE_SOFTWARE)
		return hw_step(v, exit); /* INT1 */
	switch ((u8)x->event) {
	case VEC_DB:
		return debug_exception(v, exit);
	case VEC_UD:
		return undefined(v, exit);
	case VEC_AC:
		return hw_raise(v, VEC_AC, true, 0);
	case VEC_MC:
		host_panic("the machine reports a hardware error (#MC) while a guest runs");
	case VEC_PF:
		return hw_memory_fault(v, exit, x->qualification, x->event_error, true);
	default:
		return hw_step(v, exit);
	}
}

/* ---- memory ---- */

/* Qualification: what was tried in bits 2:0, what would have been allowed in bits 5:3, whether there was a linear address and it was the access itself in bits 7 and
 * 8. */
static enum hw_next ept_violation(struct vcpu *v, struct exit *exit)
{
	u64 q = vmx_of(v)->qualification;
	u32 error = (u32)((q & 2 ? PF_WR : 0) | (q & 4 ? PF_ID : 0) | (q & 0x38 ? PF_P : 0));
	return hw_memory_fault(v, exit, vmx_of(v)->physical, error, (q & 0x180) == 0x180);
}

static enum hw_next misconfigured(struct vcpu *v, struct exit *exit)
{
	exit->reason = EXIT_ERROR;
	exit->error.what = "an EPT entry of nadir's is not one that the processor knows (EPT misconfiguration)";
	exit->error.own = true;
	return HW_LEAVE;
}

/* ---- instructions ---- */

/* Strings are step's. */
static enum hw_next io(struct vcpu *v, struct exit *exit)
{
	u64 q = vmx_of(v)->qualification;
	if (q & BIT(4))
		return hw_step(v, exit);
	return hw_io(v, exit, (u16)(q >> 16), (u8)((q & 7) + 1), !(q & BIT(3)));
}

/* Intel SDM volume 3, "Exit Qualification for Control-Register Accesses", "Exit Qualification for MOV DR". */
static enum hw_next control_register(struct vcpu *v, struct exit *exit)
{
	u64 q = vmx_of(v)->qualification;
	switch (q >> 4 & 3) {
	case 2:
		return hw_clts(v, exit);
	case 3:
		return hw_lmsw(v, exit, (u16)(q >> 16));
	default:
		return hw_mov_cr(v, exit, q & 0xf, q >> 8 & 0xf, !(q & BIT(4)));
	}
}

static enum hw_next debug_register(struct vcpu *v, struct exit *exit)
{
	u64 q = vmx_of(v)->qualification;
	return hw_mov_dr(v, exit, q & 7, q >> 8 & 0xf, !(q & BIT(4)));
}

static enum hw_next invlpg(struct vcpu *v, struct exit *exit)
{
	return hw_invlpg(v, exit, vmx_of(v)->qualification);
}

/* The VMCS has some of them: only without MSR bitmaps, or for MSRs that the guest does not have, do these leave. */
static bool in_vmcs(u32 index)
{
	unsigned count;
	const struct hw_msr *msr = hw_native_msrs(&count);
	for (unsigned i = 0; i < count; i++)
		if (msr[i].index == index)
			return true;
	return false;
}

static enum hw_next rdmsr_exit(struct vcpu *v, struct exit *exit)
{
	return in_vmcs((u32)v->gpr[RCX]) ? hw_step(v, exit) : hw_rdmsr(v, exit);
}

static enum hw_next wrmsr_exit(struct vcpu *v, struct exit *exit)
{
	return in_vmcs((u32)v->gpr[RCX]) ? hw_step(v, exit) : hw_wrmsr(v, exit);
}

/* ---- time ---- */

static enum hw_next time_is_up(struct vcpu *v, struct exit *exit)
{
	host_timer_now();
	return HW_ENTER;
}

/* ---- entries that failed ---- */

/* Guests get into states that no entry takes, where the processor has no unrestricted guests above all: step gets them out of it. */
static enum hw_next refused_state(struct vcpu *v, struct exit *exit)
{
	return hw_step(v, exit);
}

static enum hw_next failed(struct vcpu *v, struct exit *exit)
{
	return hw_fail(exit, vmx_exit_name(vmx_of(v)->reason));
}

/* ---- the table ---- */

#define LENGTH BIT(0) /* it stands for an instruction, whose length is told */
#define QUALIFICATION BIT(1)
#define PHYSICAL BIT(2)
#define EVENT BIT(3)

static const struct {
	u8 has;
	enum hw_next (*answer)(struct vcpu *v, struct exit *exit);
} exits[VMX_EXIT_COUNT] = {
	[VMX_EXCEPTION] = { QUALIFICATION | EVENT, exception },
	[VMX_INTERRUPT] = { 0, hw_nothing },
	[VMX_TRIPLE_FAULT] = { 0, hw_shutdown },
	[VMX_INIT] = { 0, hw_nothing },
	[VMX_IO_SMI] = { 0, hw_nothing },
	[VMX_OTHER_SMI] = { 0, hw_nothing },
	[VMX_INTERRUPT_WINDOW] = { 0, hw_nothing },
	[VMX_NMI_WINDOW] = { 0, hw_nothing },
	[VMX_TASK_SWITCH] = { 0, hw_step },
	[VMX_CPUID] = { LENGTH, hw_cpuid },
	[VMX_GETSEC] = { 0, hw_step },
	[VMX_HLT] = { LENGTH, hw_hlt },
	[VMX_INVD] = { 0, hw_step },
	[VMX_INVLPG] = { LENGTH | QUALIFICATION, invlpg },
	[VMX_RDPMC] = { 0, hw_step },
	[VMX_RDTSC] = { 0, hw_step },
	[VMX_RSM] = { 0, hw_step },
	[VMX_VMCALL] = { LENGTH, hw_hypercall },
	[VMX_VMCLEAR] = { 0, hw_step },
	[VMX_VMLAUNCH] = { 0, hw_step },
	[VMX_VMPTRLD] = { 0, hw_step },
	[VMX_VMPTRST] = { 0, hw_step },
	[VMX_VMREAD] = { 0, hw_step },
	[VMX_VMRESUME] = { 0, hw_step },
	[VMX_VMWRITE] = { 0, hw_step },
	[VMX_VMXOFF] = { 0, hw_step },
	[VMX_VMXON] = { 0, hw_step },
	[VMX_CR_ACCESS] = { LENGTH | QUALIFICATION, control_register },
	[VMX_MOV_DR] = { LENGTH | QUALIFICATION, debug_register },
	[VMX_IO] = { LENGTH | QUALIFICATION, io },
	[VMX_RDMSR] = { LENGTH, rdmsr_exit },
	[VMX_WRMSR] = { LENGTH, wrmsr_exit },
	[VMX_GUEST_STATE] = { 0, refused_state },
	[VMX_MSR_LOADING] = { 0, failed },
	[VMX_MWAIT] = { 0, hw_step },
	[VMX_MONITOR] = { 0, hw_step },
	[VMX_PAUSE] = { 0, hw_pause },
	[VMX_MACHINE_CHECK] = { 0, failed },
	[VMX_TPR_THRESHOLD] = { 0, vmx_apic_tpr_fell },
	[VMX_APIC_ACCESS] = { QUALIFICATION, vmx_apic_accessed },
	[VMX_EOI] = { QUALIFICATION, vmx_apic_ended },
	[VMX_APIC_WRITE] = { QUALIFICATION, vmx_apic_written },
	[VMX_GDTR_IDTR] = { 0, hw_step },
	[VMX_LDTR_TR] = { 0, hw_step },
	[VMX_EPT_VIOLATION] = { QUALIFICATION | PHYSICAL, ept_violation },
	[VMX_EPT_MISCONFIGURATION] = { 0, misconfigured },
	[VMX_INVEPT] = { 0, hw_step },
	[VMX_RDTSCP] = { 0, hw_step },
	[VMX_PREEMPTION_TIMER] = { 0, time_is_up },
	[VMX_INVVPID] = { 0, hw_step },
	[VMX_WBINVD] = { 0, hw_step },
	[VMX_XSETBV] = { 0, hw_step },
	[VMX_RDRAND] = { 0, hw_step },
	[VMX_INVPCID] = { 0, hw_step },
	[VMX_VMFUNC] = { 0, hw_step },
	[VMX_ENCLS] = { 0, hw_step },
	[VMX_RDSEED] = { 0, hw_step },
	[VMX_XSAVES] = { 0, hw_step },
	[VMX_XRSTORS] = { 0, hw_step },
	[VMX_UMWAIT] = { 0, hw_step },
	[VMX_TPAUSE] = { 0, hw_step },
};

void vmx_exit_take(struct vmx_vcpu *x)
{
	u32 reason = EXIT_REASON_BASIC(x->reason);
	u8 has = reason < VMX_EXIT_COUNT ? exits[reason].has : 0;
	x->length = has & LENGTH ? (u8)vmread(VMCS_EXIT_LENGTH) : 0;
	if (has & QUALIFICATION)
		x->qualification = vmread(VMCS_EXIT_QUALIFICATION);
	if (has & PHYSICAL)
		x->physical = vmread(VMCS_EXIT_GUEST_PHYSICAL);
	if (!(has & EVENT))
		return;
	x->event = (u32)vmread(VMCS_EXIT_EVENT);
	if (x->event & EVENT_HAS_ERROR)
		x->event_error = (u32)vmread(VMCS_EXIT_EVENT_ERROR);
	if (EVENT_TYPE(x->event) == TYPE_NMI)
		host_nmi();
}

bool vmx_exit_unblocked_nmis(const struct vmx_vcpu *x)
{
	u32 reason = EXIT_REASON_BASIC(x->reason);
	return (reason == VMX_EXCEPTION && (x->event & EVENT_NMI_UNBLOCKED) && (u8)x->event != VEC_DF) ||
	       (reason == VMX_EPT_VIOLATION && (x->qualification & EVENT_NMI_UNBLOCKED));
}

enum hw_next vmx_answer(struct vcpu *v, struct exit *exit)
{
	struct vmx_vcpu *x = vmx_of(v);
	u32 reason = EXIT_REASON_BASIC(x->reason);
	if (unlikely(x->moved)) {
		vmx_unload(x);
		return HW_ENTER;
	}
	if (reason >= VMX_EXIT_COUNT || !exits[reason].answer)
		return failed(v, exit);
	x->exits[reason]++;
	return exits[reason].answer(v, exit);
}

void vmx_report(struct vcpu *v, void (*line)(void *opaque, const char *text), void *opaque)
{
	const struct vmx_vcpu *x = vmx_of(v);
	char text[120];
	hw_report(v, line, opaque);
	for (unsigned i = 0; i < VMX_EXIT_COUNT; i++) {
		if (!x->exits[i])
			continue;
		host_snprintf(text, sizeof(text), "%12llu  times left by %s", (unsigned long long)x->exits[i], vmx_exit_name(i));
		line(opaque, text);
	}
}
