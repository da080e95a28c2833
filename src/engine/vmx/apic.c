/* What of the local APIC the processor virtualizes (F2, B8). The registers are in a virtual-APIC page, which is where irq/lapic.c has them, too: there is one state. What the
 * VMCS has beside it is derived: the controls and bitmaps from IA32_APIC_BASE, the TPR threshold, RVI, SVI and EOI-exit bitmaps from IRR, ISR and TMR when software changed these.
 *
 *	TPR shadow			MOV from and to CR8, and TPR in the page
 *	APIC-access virtualization	accesses to the page are known as such (in EPT another page stands for it); without the following, all but TPR leave as an instruction
 *	APIC-register virtualization	most reads do not leave; writes are stored, and leave behind the instruction
 *	x2APIC-mode virtualization	the same for MSRs
 *	virtual-interrupt delivery	interrupts in IRR are delivered, and ended; level-triggered ones leave at their end
 *	posted interrupts		what others post goes to IRR while the guest runs, by an interrupt that does not leave
 *
 * Intel SDM volume 3, "APIC Virtualization and Virtual Interrupts", "Virtualizing MSR-Based APIC Accesses". */
#include "engine/vmx/vmx.h"

#include "arch/exception.h"
#include "arch/msr.h"
#include "irq/lapic.h"

#define APIC_PAGE_GPA 0xfee00000ull

/* ---- which accesses leave ---- */

/* MSRs of x2APIC mode, as offsets from 800H, that the page has: not the timer's current count, and not the ICR, whose halves lie apart there. The PPR is kept where the processor
 * delivers interrupts only. */
static const struct {
	u8 first, last;
	bool delivery;
} readable[] = {
	{ 0x02, 0x03, false }, { 0x0a, 0x0a, true }, { 0x0d, 0x0d, false }, { 0x0f, 0x27, false }, { 0x28, 0x28, false }, { 0x32, 0x38, false }, { 0x3e, 0x3e, false },
};

static void set_bitmaps(struct vmx_vcpu *x, bool x2apic)
{
	u8 *reads = x->bitmaps, *writes = reads + 2048;
	bool registers = x2apic && vmx_has(x, WORD_SECONDARY, PROC2_APIC_REGISTERS);
	bool delivery = x2apic && vmx_has(x, WORD_SECONDARY, PROC2_INTERRUPT_DELIVERY);
	for (unsigned i = 0; i < ARRAY_SIZE(readable); i++)
		for (u32 n = readable[i].first; n <= readable[i].last; n++)
			vmx_bitmap_pass(reads, MSR_X2APIC + n, registers && (delivery || !readable[i].delivery));
	vmx_bitmap_pass(reads, MSR_X2APIC + 0x08, x2apic);
	vmx_bitmap_pass(writes, MSR_X2APIC + 0x08, x2apic);
	vmx_bitmap_pass(writes, MSR_X2APIC + 0x0b, delivery);
	vmx_bitmap_pass(writes, MSR_X2APIC + 0x3f, delivery);
}

static bool may_have(const struct vmx_vcpu *x, u32 mask)
{
	return x->controls.changing[WORD_SECONDARY] & mask;
}

/* The guest's mode, and with it which of two controls is on. In x2APIC mode no access may pass that the processor does not virtualize: it would reach the host's own
 * local APIC. */
static void set_mode(struct vmx_vcpu *x, const struct lapic *lapic)
{
	const u64 on = APIC_BASE_EN | APIC_BASE_EXTD;
	bool x2apic = (lapic->base & on) == on && may_have(x, PROC2_X2APIC);
	bool page = may_have(x, PROC2_APIC_ACCESS) && lapic_decodes(lapic, APIC_PAGE_GPA);
	u32 now = (x2apic ? (u32)PROC2_X2APIC : 0) | (page ? (u32)PROC2_APIC_ACCESS : 0);
	if (vmx_has(x, WORD_PROCESSOR, PROC_SECONDARY))
		vmwrite(VMCS_SECONDARY_CONTROLS, x->controls.word[WORD_SECONDARY] | now);
	if (vmx_has(x, WORD_PROCESSOR, PROC_MSR_BITMAPS))
		set_bitmaps(x, x2apic);
	x->apic_base = lapic->base;
}

/* ---- interrupts ---- */

static void set_vectors(struct vmx_vcpu *x, const struct lapic *lapic)
{
	int requested = lapic_highest_of(lapic, LAPIC_IRR), served = lapic_highest_of(lapic, LAPIC_ISR);
	u64 level[4];
	vmwrite(VMCS_GUEST_INTERRUPT_STATUS, (u64)(MAX(served, 0) << 8 | MAX(requested, 0)));
	lapic_vectors(lapic, LAPIC_TMR, level);
	for (unsigned i = 0; i < 4; i++)
		if (x->eoi_exits[i] != level[i])
			vmwrite(VMCS_EOI_EXIT0 + 2 * i, x->eoi_exits[i] = level[i]);
}

/* Without delivery by the processor: the guest leaves when its TPR lets the interrupt through that it held back. */
static void set_threshold(struct vmx_vcpu *x, const struct lapic *lapic)
{
	u8 threshold = x->requests ? lapic_tpr_threshold(lapic) : 0;
	if (x->tpr_threshold != threshold)
		vmwrite(VMCS_TPR_THRESHOLD, x->tpr_threshold = threshold);
}

void vmx_apic_load(struct vcpu *v, struct vmx_vcpu *x)
{
	struct lapic *lapic = v->lapic;
	if (unlikely(x->apic_base != lapic->base))
		set_mode(x, lapic);
	if (!x->apic_page)
		return;
	if (lapic->vectors_changed) {
		lapic->vectors_changed = false;
		x->requests = lapic_highest_of(lapic, LAPIC_IRR) >= 0;
		if (x->hw.delivers)
			set_vectors(x, lapic);
	}
	if (!x->hw.delivers)
		set_threshold(x, lapic);
}

/* ---- life ---- */

bool vmx_apic_create(struct vcpu *v, struct vmx_vcpu *x)
{
	if (!vmx_has(x, WORD_PROCESSOR, PROC_TPR_SHADOW))
		return true;
	x->apic_page = host_pages_create(1);
	if (!x->apic_page)
		return false;
	if (may_have(x, PROC2_APIC_ACCESS) && !(x->apic_access = hw_nested_apic(x->hw.memory)))
		return false;
	lapic_use_page(v->lapic, x->apic_page);
	v->lapic->direct = vmx_has(x, WORD_SECONDARY, PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY);
	v->lapic->posted = vmx_has(x, WORD_PIN, PIN_POSTED);
	return true;
}

void vmx_apic_destroy(struct vcpu *v, struct vmx_vcpu *x)
{
	lapic_use_page(v->lapic, NULL);
	v->lapic->direct = v->lapic->posted = false;
	host_pages_destroy(x->apic_page, 1);
}

void vmx_apic_init(struct vcpu *v, struct vmx_vcpu *x)
{
	set_mode(x, v->lapic);
	if (!x->apic_page)
		return;
	vmwrite(VMCS_VIRTUAL_APIC, host_physical(x->apic_page));
	vmwrite(VMCS_TPR_THRESHOLD, 0);
	if (x->apic_access)
		vmwrite(VMCS_APIC_ACCESS, x->apic_access);
	if (!vmx_has(x, WORD_SECONDARY, PROC2_INTERRUPT_DELIVERY))
		return;
	if (vmx_has(x, WORD_PIN, PIN_POSTED)) {
		vmwrite(VMCS_POSTED_VECTOR, host_notification());
		vmwrite(VMCS_POSTED_DESCRIPTOR, host_physical(&v->posted->descriptor));
	}
	vmwrite(VMCS_GUEST_INTERRUPT_STATUS, 0);
	for (unsigned i = 0; i < 4; i++)
		vmwrite(VMCS_EOI_EXIT0 + 2 * i, 0);
}

/* ---- exits; all but the first come behind the instruction ---- */

/* Reads and writes of instructions; fetches and what the delivery of an event accesses are step's. "Exit Qualification for APIC-Access VM Exits". */
enum hw_next vmx_apic_accessed(struct vcpu *v, struct exit *exit)
{
	u64 q = vmx_of(v)->qualification, type = q >> 12 & 0xf;
	return type <= 1 ? hw_device(v, exit, APIC_PAGE_GPA | (q & 0xfff), type ? PF_WR : 0) : hw_step(v, exit);
}

enum hw_next vmx_apic_tpr_fell(struct vcpu *v, struct exit *exit)
{
	vcpu_set_pending(v, PENDING_INTERRUPT);
	return HW_ENTER;
}

enum hw_next vmx_apic_written(struct vcpu *v, struct exit *exit)
{
	struct exit e = { .reason = EXIT_APIC_WRITE, .apic.offset = vmx_of(v)->qualification & 0xfff };
	v->ops->exit(v, &e);
	return HW_ENTER;
}

enum hw_next vmx_apic_ended(struct vcpu *v, struct exit *exit)
{
	struct exit e = { .reason = EXIT_EOI, .apic.vector = (u8)vmx_of(v)->qualification };
	v->ops->exit(v, &e);
	return HW_ENTER;
}
