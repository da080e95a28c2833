/* The table of exit codes: which leave the guest, and who answers. The number of an exit code is that of its intercept bit, below NPF.
 * AMD APM volume 2, "Instruction Intercepts", "SVM Intercept Codes". */
#include "engine/svm/svm.h"

#include "arch/exception.h"
#include "irq/lapic.h"
#include "vcpu/exit.h"

enum { EXIT_CODE_VINTR = 0x64, EXIT_CODE_IRET = 0x74, EXIT_CODE_PAUSE = 0x77, EXIT_CODE_READ_CR0 = 0x00, EXIT_CODE_READ_CR4 = 0x04, EXIT_CODE_READ_CR8 = 0x08, EXIT_CODE_WRITE_CR8 = 0x18 };

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
	u64 info = vmcb_of(v)->exit_info1;
	return hw_memory_fault(v, exit, vmcb_of(v)->exit_info2, (u32)info, info & NPF_FINAL);
}

/* Without nested paging: the guest's fault, or the shadow's. */
static enum hw_next page_fault(struct vcpu *v, struct exit *exit)
{
	return hw_memory_fault(v, exit, vmcb_of(v)->exit_info2, (u32)vmcb_of(v)->exit_info1, true);
}

/* AMD APM volume 2, "Decode Assists". CLTS, LMSW and SMSW are not told apart. */
static enum hw_next control_register(struct vcpu *v, struct exit *exit)
{
	u64 info = vmcb_of(v)->exit_info1, code = vmcb_of(v)->exit_code;
	if (!(svm_of(v)->features & SVM_DECODE_ASSISTS) || !(info & CR_IS_MOV))
		return hw_move(v, exit);
	return hw_mov_cr(v, exit, code & 0xf, info & 0xf, code & 0x10);
}

static enum hw_next debug_register(struct vcpu *v, struct exit *exit)
{
	u64 info = vmcb_of(v)->exit_info1, code = vmcb_of(v)->exit_code;
	if (!(svm_of(v)->features & SVM_DECODE_ASSISTS))
		return hw_move(v, exit);
	return hw_mov_dr(v, exit, code & 0xf, info & 0xf, code & 0x10);
}

static enum hw_next invlpg(struct vcpu *v, struct exit *exit)
{
	bool told = svm_of(v)->features & SVM_DECODE_ASSISTS && svm_of(v)->features & SVM_NEXT_RIP;
	return told ? hw_invlpg(v, exit, vmcb_of(v)->exit_info1) : hw_move(v, exit);
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

static enum hw_next pause(struct vcpu *v, struct exit *exit)
{
	return svm_of(v)->features & SVM_PAUSE_FILTER ? hw_pause(v, exit) : hw_pause_uncounted(v, exit);
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

enum when { NEVER, ALWAYS, FILTER /* if the processor counts PAUSEs first; else AT_TIMES */, AT_TIMES /* svm_update_intercepts */, SHADOWED /* without nested paging */ };

/* By exit code; those from NPF on follow what is below. */
#define EXIT_CODE_NPF 0x400
#define ROW_NPF 0x90

static const struct code {
	u8 when;
	const char *name;
	enum hw_next (*answer)(struct vcpu *v, struct exit *exit);
} codes[] = {
	[0x00] = { AT_TIMES, "CR0 read", control_register },
	[0x03] = { SHADOWED, "CR3 read", control_register },
	[0x04] = { AT_TIMES, "CR4 read", control_register },
	[0x08] = { AT_TIMES, "CR8 read", control_register },
	[0x10] = { ALWAYS, "CR0 write", control_register },
	[0x13] = { SHADOWED, "CR3 write", control_register },
	[0x14] = { ALWAYS, "CR4 write", control_register },
	[0x18] = { AT_TIMES, "CR8 write", control_register },
	[0x20 ... 0x2f] = { ALWAYS, "debug register read", debug_register },
	[0x30 ... 0x3f] = { ALWAYS, "debug register write", debug_register },
	[0x40 + VEC_DB] = { ALWAYS, "#DB", debug_exception },
	[0x40 + VEC_UD] = { ALWAYS, "#UD", hw_step }, /* VMCALL, which is the other vendor's, among them */
	[0x40 + VEC_PF] = { SHADOWED, "#PF", page_fault },
	[0x40 + VEC_AC] = { ALWAYS, "#AC", alignment_check },
	[0x40 + VEC_MC] = { ALWAYS, "#MC", machine_check },
	[0x60] = { ALWAYS, "interrupt of the host", hw_interrupt_of_host },
	[0x61] = { ALWAYS, "NMI of the host", hw_nothing },
	[0x62] = { ALWAYS, "SMI", host_event },
	[0x63] = { ALWAYS, "INIT", host_event },
	[0x64] = { AT_TIMES, "interrupt window", hw_nothing },
	[0x6f] = { ALWAYS, "RDPMC", hw_step },
	[0x72] = { ALWAYS, "CPUID", hw_cpuid },
	[0x73] = { ALWAYS, "RSM", hw_step },
	[0x74] = { AT_TIMES, "IRET", hw_step }, /* which unblocks NMIs */
	[0x76] = { ALWAYS, "INVD", hw_step },
	[0x77] = { FILTER, "PAUSE", pause },
	[0x78] = { ALWAYS, "HLT", hw_hlt },
	[0x79] = { SHADOWED, "INVLPG", invlpg },
	[0x7a] = { ALWAYS, "INVLPGA", hw_step },
	[0x7b] = { ALWAYS, "port I/O", io },
	[0x7c] = { ALWAYS, "MSR", msr },
	[0x7d] = { ALWAYS, "task switch", hw_step },
	[0x7e] = { ALWAYS, "FERR freeze", hw_step },
	[0x7f] = { ALWAYS, "shutdown", hw_shutdown },
	[0x80] = { ALWAYS, "VMRUN", hw_step },
	[0x81] = { ALWAYS, "VMMCALL", hw_hypercall },
	[0x82] = { ALWAYS, "VMLOAD", hw_step },
	[0x83] = { ALWAYS, "VMSAVE", hw_step },
	[0x84] = { ALWAYS, "STGI", hw_step },
	[0x85] = { ALWAYS, "CLGI", hw_step },
	[0x86] = { ALWAYS, "SKINIT", hw_step },
	[0x89] = { ALWAYS, "WBINVD", hw_step },
	[0x8a] = { ALWAYS, "MONITOR", hw_step },
	[0x8b ... 0x8c] = { ALWAYS, "MWAIT", hw_step },
	[0x8d] = { ALWAYS, "XSETBV", hw_step },
	[0x8e] = { ALWAYS, "RDPRU", hw_step },
	[ROW_NPF] = { NEVER, "nested page fault", nested_fault },
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
	for (unsigned i = 0; i < ROW_NPF; i++)
		if (codes[i].when == ALWAYS || (codes[i].when == FILTER && filter) || (codes[i].when == SHADOWED && !nested))
			set(b, i, true);
}

void svm_intercept_reads(struct vmcb *b, bool cr0, bool cr4)
{
	set(b, EXIT_CODE_READ_CR0, cr0);
	set(b, EXIT_CODE_READ_CR4, cr4);
}

void svm_intercept_cr8(struct vmcb *b)
{
	set(b, EXIT_CODE_READ_CR8, true);
	set(b, EXIT_CODE_WRITE_CR8, true);
}

/* Whether an interrupt waits for the guest to lower its TPR, which must leave then. */
static bool tpr_holds_back(struct svm_vcpu *s, struct lapic *lapic)
{
	if (lapic->vectors_changed)
		s->requests = lapic_highest_of(lapic, LAPIC_IRR) >= 0;
	lapic->vectors_changed = false;
	return s->requests && lapic_tpr_threshold(lapic);
}

void svm_update_intercepts(struct vcpu *v)
{
	struct svm_vcpu *s = svm_of(v);
	bool lowers = s->virtual_tpr && tpr_holds_back(s, v->lapic);
	bool pauses = s->hw.pauses && !(s->features & SVM_PAUSE_FILTER);
	bool later = svm_by_virtual(s) && s->hw.window, window = s->hw.window && !later, iret = v->nmi_blocked || later;
	u32 wanted = (u32)window | (u32)iret << 1 | (u32)pauses << 2 | (u32)lowers << 3;
	if (likely(wanted == s->intercepts))
		return;
	s->intercepts = wanted;
	set(s->vmcb, EXIT_CODE_VINTR, window);
	set(s->vmcb, EXIT_CODE_IRET, iret);
	if (s->virtual_tpr)
		set(s->vmcb, EXIT_CODE_WRITE_CR8, lowers);
	if (!(s->features & SVM_PAUSE_FILTER))
		set(s->vmcb, EXIT_CODE_PAUSE, pauses);
}

static_assert(ARRAY_SIZE(codes) <= SVM_ROWS, "each row is counted");

/* The row of an exit code; NULL: there is none. */
static const struct code *find(u64 code)
{
	u64 row = code < EXIT_CODE_NPF ? code : code - EXIT_CODE_NPF + ROW_NPF;
	return row < ARRAY_SIZE(codes) && codes[row].answer && (code < ROW_NPF || code >= EXIT_CODE_NPF) ? &codes[row] : NULL;
}

enum hw_next svm_answer(struct vcpu *v, struct exit *exit)
{
	const struct code *code = find(vmcb_of(v)->exit_code);
	if (!code)
		return not_known(v, exit);
	svm_of(v)->exits[code - codes]++;
	return code->answer(v, exit);
}

void svm_report(struct vcpu *v, void (*line)(void *opaque, const char *text), void *opaque)
{
	char text[120];
	hw_report(v, line, opaque);
	u64 sum = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		sum += svm_of(v)->exits[i];
		if (!sum || (i + 1 < ARRAY_SIZE(codes) && codes[i + 1].name == codes[i].name))
			continue;
		host_snprintf(text, sizeof(text), "%12llu  times left by %s", (unsigned long long)sum, codes[i].name);
		line(opaque, text);
		sum = 0;
	}
}
