/* The table of exit codes: which leave the guest, and who answers. The number of an exit code is that of its intercept bit, up to NPF.
 * AMD APM volume 2, "Instruction Intercepts", "SVM Intercept Codes". */
#include "engine/svm/svm.h"

#include "arch/exception.h"
#include "vcpu/exit.h"

enum { EXIT_CODE_VINTR = 0x64, EXIT_CODE_IRET = 0x74, EXIT_CODE_PAUSE = 0x77, EXIT_CODE_READ_CR0 = 0x00, EXIT_CODE_READ_CR4 = 0x04 };

/* ---- answers that only AMD-V needs ---- */

static struct vmcb *vmcb_of(struct vcpu *v)
{
	return svm_of(v)->vmcb;
}

/* Strings are step's. EXITINFO2 is behind the instruction, whether or not the processor tells it for others. */
static enum hw_next io(struct vcpu *v, struct exit *exit)
{
	u64 info = vmcb_of(v)->exit_info1;
	if (info & IOIO_STRING)
		return hw_step(v, exit);
	hw_of(v)->next_rip = vmcb_of(v)->exit_info2;
	return hw_io(v, exit, (u16)(info >> IOIO_PORT_SHIFT), info >> IOIO_SIZE_SHIFT & 7, !(info & IOIO_IN));
}

static enum hw_next msr(struct vcpu *v, struct exit *exit)
{
	return vmcb_of(v)->exit_info1 & 1 ? hw_wrmsr(v, exit) : hw_rdmsr(v, exit);
}

static enum hw_next nested_fault(struct vcpu *v, struct exit *exit)
{
	return hw_memory_fault(v, exit, vmcb_of(v)->exit_info2, (u32)vmcb_of(v)->exit_info1);
}

/* Without nested paging: the guest's fault, or the shadow's. */
static enum hw_next page_fault(struct vcpu *v, struct exit *exit)
{
	return hw_memory_fault(v, exit, vmcb_of(v)->exit_info2, (u32)vmcb_of(v)->exit_info1);
}

/* Reflected: a guest whose handler faults again and again stays in reach of interrupts of the host. */
static enum hw_next alignment_check(struct vcpu *v, struct exit *exit)
{
	return hw_raise(v, VEC_AC, true, 0);
}

static enum hw_next debug_exception(struct vcpu *v, struct exit *exit)
{
	return hw_raise(v, VEC_DB, false, 0);
}

static enum hw_next machine_check(struct vcpu *v, struct exit *exit)
{
	host_panic("the machine reports a hardware error (#MC) while a guest runs");
}

/* SMIs and INITs of the host come again when the guest has been left. */
static enum hw_next host_event(struct vcpu *v, struct exit *exit)
{
	return HW_ENTER;
}

static enum hw_next not_known(struct vcpu *v, struct exit *exit)
{
	return hw_fail(exit, "the processor left the guest for a reason that nadir does not know");
}

/* ---- the table ---- */

enum when { NEVER, ALWAYS, FILTER /* if the processor counts PAUSEs first */, AT_TIMES /* svm_update_intercepts */, SHADOWED /* without nested paging */ };

static const struct code {
	u16 first, count;
	u8 when;
	const char *name;
	enum hw_next (*answer)(struct vcpu *v, struct exit *exit);
} codes[] = {
	{ 0x00, 1, AT_TIMES, "CR0 read", hw_step },
	{ 0x03, 1, SHADOWED, "CR3 read", hw_step },
	{ 0x04, 1, AT_TIMES, "CR4 read", hw_step },
	{ 0x08, 1, ALWAYS, "CR8 read", hw_step },
	{ 0x10, 1, ALWAYS, "CR0 write", hw_step },
	{ 0x13, 1, SHADOWED, "CR3 write", hw_step },
	{ 0x14, 1, ALWAYS, "CR4 write", hw_step },
	{ 0x18, 1, ALWAYS, "CR8 write", hw_step },
	{ 0x20, 16, ALWAYS, "debug register read", hw_step },
	{ 0x30, 16, ALWAYS, "debug register write", hw_step },
	{ 0x40 + VEC_DB, 1, ALWAYS, "#DB", debug_exception },
	{ 0x40 + VEC_UD, 1, ALWAYS, "#UD", hw_step }, /* VMCALL, which is the other vendor's, among them */
	{ 0x40 + VEC_PF, 1, SHADOWED, "#PF", page_fault },
	{ 0x40 + VEC_AC, 1, ALWAYS, "#AC", alignment_check },
	{ 0x40 + VEC_MC, 1, ALWAYS, "#MC", machine_check },
	{ 0x60, 1, ALWAYS, "interrupt of the host", hw_nothing },
	{ 0x61, 1, ALWAYS, "NMI of the host", hw_nothing },
	{ 0x62, 1, ALWAYS, "SMI", host_event },
	{ 0x63, 1, ALWAYS, "INIT", host_event },
	{ 0x64, 1, AT_TIMES, "interrupt window", hw_nothing },
	{ 0x6f, 1, ALWAYS, "RDPMC", hw_step },
	{ 0x72, 1, ALWAYS, "CPUID", hw_cpuid },
	{ 0x73, 1, ALWAYS, "RSM", hw_step },
	{ 0x74, 1, AT_TIMES, "IRET", hw_step }, /* which unblocks NMIs */
	{ 0x76, 1, ALWAYS, "INVD", hw_step },
	{ 0x77, 1, FILTER, "PAUSE", hw_pause },
	{ 0x78, 1, ALWAYS, "HLT", hw_hlt },
	{ 0x79, 1, SHADOWED, "INVLPG", hw_step },
	{ 0x7a, 1, ALWAYS, "INVLPGA", hw_step },
	{ 0x7b, 1, ALWAYS, "port I/O", io },
	{ 0x7c, 1, ALWAYS, "MSR", msr },
	{ 0x7d, 1, ALWAYS, "task switch", hw_step },
	{ 0x7e, 1, ALWAYS, "FERR freeze", hw_step },
	{ 0x7f, 1, ALWAYS, "shutdown", hw_shutdown },
	{ 0x80, 1, ALWAYS, "VMRUN", hw_step },
	{ 0x81, 1, ALWAYS, "VMMCALL", hw_hypercall },
	{ 0x82, 1, ALWAYS, "VMLOAD", hw_step },
	{ 0x83, 1, ALWAYS, "VMSAVE", hw_step },
	{ 0x84, 1, ALWAYS, "STGI", hw_step },
	{ 0x85, 1, ALWAYS, "CLGI", hw_step },
	{ 0x86, 1, ALWAYS, "SKINIT", hw_step },
	{ 0x89, 1, ALWAYS, "WBINVD", hw_step },
	{ 0x8a, 1, ALWAYS, "MONITOR", hw_step },
	{ 0x8b, 2, ALWAYS, "MWAIT", hw_step },
	{ 0x8d, 1, ALWAYS, "XSETBV", hw_step },
	{ 0x8e, 1, ALWAYS, "RDPRU", hw_step },
	{ 0x400, 1, NEVER, "nested page fault", nested_fault },
};

static void set(struct vmcb *b, unsigned code, bool on)
{
	u32 bit = (u32)BIT(code % 32), *word = &b->intercept[code / 32];
	if (!(*word & bit) == !on)
		return;
	*word ^= bit;
	b->clean &= ~(u32)CLEAN_INTERCEPTS;
}

void svm_set_intercepts(struct vmcb *b, u32 features, bool nested)
{
	bool filter = features & SVM_PAUSE_FILTER;
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++)
		for (unsigned n = 0; n < codes[i].count; n++)
			if (codes[i].when == ALWAYS || (codes[i].when == FILTER && filter) || (codes[i].when == SHADOWED && !nested))
				set(b, codes[i].first + n, true);
}

void svm_update_intercepts(struct vcpu *v)
{
	struct vmcb *b = vmcb_of(v);
	set(b, EXIT_CODE_READ_CR0, svm_cr0_differs(v));
	set(b, EXIT_CODE_READ_CR4, svm_cr4_differs(v));
	set(b, EXIT_CODE_VINTR, hw_of(v)->window);
	set(b, EXIT_CODE_IRET, v->nmi_blocked);
}

static const struct code *find(u64 code)
{
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++)
		if (code - codes[i].first < codes[i].count)
			return &codes[i];
	return NULL;
}

enum hw_next svm_answer(struct vcpu *v, struct exit *exit)
{
	u64 number = vmcb_of(v)->exit_code;
	const struct code *code = find(number);
	if (!code)
		return not_known(v, exit);
	svm_of(v)->exits[number]++;
	return code->answer(v, exit);
}

void svm_report(struct vcpu *v, void (*line)(void *opaque, const char *text), void *opaque)
{
	char text[120];
	hw_report(v, line, opaque);
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		u64 sum = 0;
		for (unsigned n = 0; n < codes[i].count; n++)
			sum += svm_of(v)->exits[codes[i].first + n];
		if (!sum)
			continue;
		host_snprintf(text, sizeof(text), "%12llu  times left by %s", (unsigned long long)sum, codes[i].name);
		line(opaque, text);
	}
}
