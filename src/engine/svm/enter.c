/* VMRUN and what is around it. AMD APM volume 2, "VMRUN Instruction", "#VMEXIT", "VMSAVE and VMLOAD Instructions", "Global Interrupt Flag", "Event Injection". */
#include "engine/hw/guest_registers.h"
#include "engine/svm/svm.h"

#include "arch/asm.h"
#include "arch/exception.h"
#include "cpu/control.h"
#include "irq/lapic.h"

#define EXIT_CODE_NMI 0x61

/* Interrupts of the host are enabled for VMRUN only, when the global interrupt flag is clear: one that is pending leaves the guest at once, and is taken after
 * host_release. VMRUN keeps RSP and RAX of the host; the others are the guest's until they are stored. */
static void run_guest(u64 *gpr, u64 vmcb, u64 host)
{
	__asm__ volatile("pushq %%rbp\n\t"
			 "pushq %[host]\n\t"
			 "pushq %[gpr]\n\t"
			 "clgi\n\t"
			 "sti\n\t"
			 "movq %[host], %%rax\n\t"
			 "vmsave %%rax\n\t"
			 "movq %[vmcb], %%rax\n\t"
			 "vmload %%rax\n\t"
			 HW_LOAD_GUEST
			 "vmrun %%rax\n\t"
			 "vmsave %%rax\n\t"
			 HW_STORE_GUEST
			 "popq %%rdi\n\t"
			 "popq %%rax\n\t"
			 "vmload %%rax\n\t"
			 "cli\n\t"
			 "stgi\n\t"
			 "popq %%rbp"
			 : [gpr] "+D"(gpr), [vmcb] "+S"(vmcb), [host] "+d"(host)
			 :
			 : "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "cc", "memory");
}

/* ---- before ---- */

static void set_interrupt_control(const struct vcpu *v, const struct svm_vcpu *s, struct vmcb *b)
{
	bool by_virtual = svm_by_virtual(s);
	u64 control = V_INTR_MASKING | (s->hw.window || by_virtual ? V_IRQ | V_PRIORITY | V_IGNORE_TPR : 0) | (by_virtual ? V_VECTOR((u8)s->hw.event) : 0) |
		      (s->virtual_tpr ? lapic_cr8(v->lapic) : 0);
	if (b->interrupt_control == control)
		return;
	b->interrupt_control = control;
	b->clean &= ~(u32)CLEAN_INTERRUPT;
}

static void set_tsc_offset(const struct vcpu *v, struct vmcb *b)
{
	if (b->tsc_offset == v->tsc_offset)
		return;
	b->tsc_offset = v->tsc_offset;
	b->clean &= ~(u32)CLEAN_INTERCEPTS;
}

static void set_root(struct hw_vcpu *hw, struct vmcb *b)
{
	const struct hw_memory_ops *ops = hw->memory->ops;
	u64 root = ops->root(hw->memory), *field = ops->nested ? &b->nested_cr3 : &b->cr3;
	if (*field == root)
		return;
	*field = root;
	b->clean &= ~(u32)(ops->nested ? CLEAN_NESTED : CLEAN_CONTROL);
}

static void load(struct vcpu *v, struct svm_vcpu *s, struct svm_cpu *cpu)
{
	struct vmcb *b = s->vmcb;
	if (cpu->last != s || s->cpu != cpu || !(s->features & SVM_CLEAN_BITS))
		b->clean = 0;
	cpu->last = s;
	svm_choose_asid(s, cpu, hw_memory_stale(s->hw.memory, host_cpu()));
	set_root(&s->hw, b);
	set_interrupt_control(v, s, b);
	set_tsc_offset(v, b);
	svm_update_intercepts(v);
	if (!(b->clean & CLEAN_CR2))
		__asm__ volatile("mov %0, %%cr2" ::"r"(b->cr2)); /* Bochs' VMRUN does not load it */
	b->interrupt_state = 0;
	b->event = svm_by_virtual(s) ? 0 : s->hw.event | (u64)s->hw.event_error << 32;
	b->rax = v->gpr[RAX];
	b->rsp = v->gpr[RSP];
	b->rip = v->rip;
	b->rflags = v->rflags;
	hw_registers_load(v, &cpu->hw);
}

/* ---- after ---- */

/* INT n, INT3 and INTO come again, since RIP is still in front of them. Bochs has INT n as an interrupt; those are only what was injected. */
static void take_event(struct svm_vcpu *s, u64 event)
{
	struct hw_vcpu *hw = &s->hw;
	u32 info = (u32)event;
	if (svm_by_virtual(s) && (s->vmcb->interrupt_control & V_IRQ))
		return; /* it has not been delivered, or not to the end */
	if (svm_by_virtual(s))
		hw->event = 0;
	u8 vector = (u8)info;
	bool exception = HW_EVENT_TYPE_OF(info) == HW_EVENT_EXCEPTION;
	bool again = exception ? vector == VEC_BP || vector == VEC_OF : info != hw->event;
	hw->event = (info & HW_EVENT_VALID) && !again ? info : 0;
	hw->event_error = (u32)(event >> 32);
}

/* The lower half of TPR stays if the guest left CR8 alone. */
static void take_tpr(struct lapic *lapic, u64 cr8)
{
	if (lapic_cr8(lapic) != cr8)
		lapic_set_cr8(lapic, cr8);
}

static void store(struct vcpu *v, struct svm_vcpu *s)
{
	struct vmcb *b = s->vmcb;
	if (s->virtual_tpr)
		take_tpr(v->lapic, b->interrupt_control & V_TPR);
	if (v->cr4 & CR4_OSXSAVE)
		v->xcr0 = xgetbv(0); /* not all CPUs leave at XSETBV (QEMU's TCG) */
	hw_registers_leave(v);
	v->gpr[RAX] = b->rax;
	v->gpr[RSP] = b->rsp;
	v->rip = v->next_rip = b->rip;
	v->rflags = b->rflags | RFLAGS_FIXED1;
	v->cpl = b->cpl;
	v->shadow = b->interrupt_state & INTERRUPT_SHADOW ? SHADOW_STI : 0;
	s->hw.next_rip = s->features & SVM_NEXT_RIP ? b->next_rip : 0;
	s->hw.byte_count = s->features & SVM_DECODE_ASSISTS ? b->fetched & 0xf : 0;
	take_event(s, b->exit_event);
	b->clean = CLEAN_ALL;
	if (b->exit_code == EXIT_CODE_NMI)
		host_nmi();
}

bool svm_enter(struct vcpu *v, const char **what)
{
	struct svm_vcpu *s = svm_of(v);
	struct svm_cpu *cpu = *host_cpu_slot();
	load(v, s, cpu);
	run_guest(v->gpr, s->vmcb_physical, cpu->host);
	store(v, s);
	*what = "the processor refuses to enter the guest's state (VMEXIT_INVALID)";
	return (u32)s->vmcb->exit_code != VMEXIT_INVALID;
}
