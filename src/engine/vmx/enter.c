/* An entry of the guest and what is around it. Intel SDM volume 3, "VM Entries", "VM Exits", "Event Injection", "Information for VM Exits Due to
 * Vectored Events", "Information for VM Exits During Event Delivery". */
#include "engine/hw/guest_registers.h"
#include "engine/vmx/exits.h"
#include "engine/vmx/vmx.h"

#include "arch/asm.h"
#include "arch/exception.h"
#include "arch/msr.h"
#include "arch/regs.h"
#include "arch/segment.h"

/* VMRESUME or VMLAUNCH. Flags are clear where a guest was left; if none was entered, carry or zero says how it failed, and registers are as they
 * were. RSP of the guest is in the VMCS. */
static enum vmx_result run_guest(u64 *gpr, bool launched)
{
	bool carry, zero;
	__asm__ volatile("pushq %%rbp\n\t"
			 "pushq %%rdi\n\t"
			 "movl %[host_rsp], %%eax\n\t"
			 "vmwrite %%rsp, %%rax\n\t"
			 "leaq 2f(%%rip), %%rcx\n\t"
			 "movl %[host_rip], %%eax\n\t"
			 "vmwrite %%rcx, %%rax\n\t"
			 "testb %%sil, %%sil\n\t"
			 "movq 0*8(%%rdi), %%rax\n\t"
			 HW_LOAD_GUEST
			 "jne 1f\n\t"
			 "vmlaunch\n\t"
			 "jmp 2f\n"
			 "1:\tvmresume\n"
			 "2:\t" HW_STORE_GUEST
			 "movq %%rax, 0*8(%%rdi)\n\t"
			 "popq %%rdi\n\t"
			 "popq %%rbp\n\t"
			 "setc %%al\n\t"
			 "setz %%cl"
			 : [gpr] "+D"(gpr), "+S"(launched), "=&a"(carry), "=&c"(zero)
			 : [host_rsp] "i"(VMCS_HOST_RSP), [host_rip] "i"(VMCS_HOST_RIP)
			 : "rbx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
	return vmx_result_of(carry, zero);
}

/* ---- the host's state ---- */

struct __attribute__((packed)) pseudo_descriptor {
	u16 limit;
	u64 base;
};

/* Of a system descriptor. Intel SDM volume 3, "TSS Descriptor in 64-bit mode". */
static u64 system_base(const struct pseudo_descriptor *gdtr, u16 selector)
{
	const u64 *d = (const u64 *)(uintptr_t)(gdtr->base + (selector & ~7u));
	return (d[0] >> 16 & 0xffffff) | (d[0] >> 56) << 24 | d[1] << 32;
}

#define READ_CR(n, field)                                             \
	do {                                                          \
		u64 value;                                            \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(value)); \
		vmwrite(field, value);                                \
	} while (0)

#define READ_SELECTOR(name, field)                                      \
	do {                                                            \
		u64 value = 0;                                          \
		__asm__ volatile("mov %%" #name ", %w0" : "+r"(value)); \
		vmwrite(field, value);                                  \
	} while (0)

static void write_host_tables(void)
{
	struct pseudo_descriptor gdtr, idtr;
	u16 tr;
	__asm__ volatile("sgdt %0" : "=m"(gdtr));
	__asm__ volatile("sidt %0" : "=m"(idtr));
	__asm__ volatile("str %0" : "=r"(tr));
	vmwrite(VMCS_HOST_GDTR_BASE, gdtr.base);
	vmwrite(VMCS_HOST_IDTR_BASE, idtr.base);
	vmwrite(VMCS_HOST_TR, tr);
	vmwrite(VMCS_HOST_TR_BASE, system_base(&gdtr, tr));
}

/* What differs from CPU to CPU, and GS base, which is the vCPU's own: once after the VMCS has come to a CPU. */
static void write_host(struct vmx_vcpu *x)
{
	READ_CR(0, VMCS_HOST_CR0);
	READ_CR(3, VMCS_HOST_CR3);
	READ_CR(4, VMCS_HOST_CR4);
	READ_SELECTOR(es, VMCS_HOST_ES);
	READ_SELECTOR(cs, VMCS_HOST_CS);
	READ_SELECTOR(ss, VMCS_HOST_SS);
	READ_SELECTOR(ds, VMCS_HOST_DS);
	READ_SELECTOR(fs, VMCS_HOST_FS);
	READ_SELECTOR(gs, VMCS_HOST_GS);
	write_host_tables();
	vmwrite(VMCS_HOST_FS_BASE, rdmsr(MSR_FS_BASE));
	vmwrite(VMCS_HOST_GS_BASE, rdmsr(MSR_GS_BASE));
	if (vmx_has(x, WORD_EXIT, EXIT_LOAD_EFER))
		vmwrite(VMCS_HOST_EFER, rdmsr(MSR_EFER));
	x->areas[AREA_HOST].value = rdmsr(MSR_EFER);
	x->host_written = true;
}

/* ---- registers that neither VMCS nor hw/registers.c has ---- */

static void load_kept(struct vcpu *v, struct vmx_cpu *cpu)
{
	for (unsigned i = 0; i < VMX_KEPT_MSRS; i++) {
		u64 value = *(const u64 *)((const u8 *)v + vmx_kept_msrs[i].offset);
		if (cpu->kept[i] != value)
			wrmsr(vmx_kept_msrs[i].index, cpu->kept[i] = value);
	}
	__asm__ volatile("mov %0, %%cr2" ::"r"(v->cr2));
}

static void store_kept(struct vcpu *v, struct vmx_cpu *cpu)
{
	__asm__ volatile("mov %%cr2, %0" : "=r"(v->cr2));
	for (unsigned i = 0; i < VMX_KEPT_MSRS; i++)
		if (vmx_kept_msrs[i].changes)
			*(u64 *)((u8 *)v + vmx_kept_msrs[i].offset) = cpu->kept[i] = rdmsr(vmx_kept_msrs[i].index);
}

/* ---- before ---- */

static void set_memory(struct vmx_vcpu *x, struct vmx_cpu *cpu)
{
	const struct hw_memory_ops *ops = x->hw.memory->ops;
	bool stale = hw_memory_stale(x->hw.memory, host_cpu());
	u64 root = ops->root(x->hw.memory) | (ops->nested ? EPTP_WB | EPTP_WALK_4 : 0);
	if (x->root != root) {
		vmwrite(ops->nested ? VMCS_EPTP : VMCS_GUEST_CR3, x->root = root);
		stale = true;
	}
	vmx_flush(x, cpu, stale);
}

static void set_windows(struct vmx_vcpu *x)
{
	u32 wanted = x->controls.word[WORD_PROCESSOR] | (x->hw.window ? (u32)PROC_INTERRUPT_WINDOW : 0) |
		     (x->hw.nmi_waits ? (u32)PROC_NMI_WINDOW : 0);
	if (x->processor != wanted)
		vmwrite(VMCS_PROCESSOR_CONTROLS, x->processor = wanted);
}

/* The guest leaves when the host's timer would interrupt it, or a little earlier. */
static void set_timer(struct vmx_vcpu *x)
{
	if (!vmx_has(x, WORD_PIN, PIN_PREEMPTION_TIMER))
		return;
	u64 now = __builtin_ia32_rdtsc(), due = host_timer_due();
	vmwrite(VMCS_GUEST_PREEMPTION_TIMER, due > now ? MIN((due - now) >> VMX_MISC_TIMER_RATE(x->capabilities.misc), 0xffffffffull) : 0);
}

/* An NMI that is injected blocks others itself. In real mode there are no error codes. */
static void set_event(struct vcpu *v, struct vmx_vcpu *x)
{
	u32 event = x->hw.event;
	bool nmi = (event & EVENT_VALID) && EVENT_TYPE(event) == TYPE_NMI;
	if (!(v->cr0 & CR0_PE))
		event &= ~(u32)EVENT_HAS_ERROR;
	vmwrite(VMCS_GUEST_INTERRUPTIBILITY, v->nmi_blocked && !nmi ? INTERRUPTIBILITY_NMI : 0);
	vmwrite(VMCS_ENTRY_EVENT, event);
	if (event & EVENT_HAS_ERROR)
		vmwrite(VMCS_ENTRY_EVENT_ERROR, x->hw.event_error & 0x7fff);
}

static void load(struct vcpu *v, struct vmx_vcpu *x, struct vmx_cpu *cpu)
{
	if (!x->host_written)
		write_host(x);
	set_memory(x, cpu);
	set_windows(x);
	set_event(v, x);
	vmx_apic_load(v, x);
	if (x->tsc_offset != v->tsc_offset)
		vmwrite(VMCS_TSC_OFFSET, x->tsc_offset = v->tsc_offset);
	vmwrite(VMCS_GUEST_RIP, v->rip);
	vmwrite(VMCS_GUEST_RSP, v->gpr[RSP]);
	vmwrite(VMCS_GUEST_RFLAGS, v->rflags);
	hw_registers_load(v, &cpu->hw);
	load_kept(v, cpu);
	set_timer(x);
}

/* ---- after ---- */

/* INT n, INT3, INTO and INT1 come again, since RIP is still in front of them. */
static void take_event(struct vmx_vcpu *x)
{
	u32 info = (u32)vmread(VMCS_EXIT_VECTORING);
	bool again = EVENT_TYPE(info) >= TYPE_SOFTWARE;
	x->hw.event = (info & EVENT_VALID) && !again ? info & ~(u32)EVENT_NMI_UNBLOCKED : 0;
	if (x->hw.event & EVENT_HAS_ERROR)
		x->hw.event_error = (u32)vmread(VMCS_EXIT_VECTORING_ERROR);
}

/* A debug trap that waited behind MOV SS is step's affair. There is none elsewhere, though some processors say so of the trap that would have followed the
 * instruction that left. */
static void take_pending_debug(struct vcpu *v)
{
	u64 pending = vmread(VMCS_GUEST_PENDING_DEBUG);
	if (likely(!pending))
		return;
	vmwrite(VMCS_GUEST_PENDING_DEBUG, 0);
	if (!(v->shadow & SHADOW_MOV_SS))
		return;
	v->trap = (struct guest_fault){ .vector = VEC_DB, .payload = pending & (0xf | PENDING_DEBUG_BS) };
	if (v->trap.payload)
		vcpu_set_pending(v, PENDING_TRAP);
}

static void take_interruptibility(struct vcpu *v, struct vmx_vcpu *x)
{
	u64 state = vmread(VMCS_GUEST_INTERRUPTIBILITY);
	v->shadow = (u8)((state & INTERRUPTIBILITY_STI ? SHADOW_STI : 0) | (state & INTERRUPTIBILITY_MOV_SS ? SHADOW_MOV_SS : 0));
	v->nmi_blocked = state & INTERRUPTIBILITY_NMI;
	/* IRET that faulted had unblocked NMIs, and will be executed again. */
	if (!x->hw.event && vmx_exit_unblocked_nmis(x))
		v->nmi_blocked = true;
}

static u64 behind(u64 rip, u64 length)
{
	u64 next = rip + length;
	bool crosses = (rip ^ next) >> 32;
	bool narrow = crosses && !(vmread(VMCS_GUEST_CS_RIGHTS) & SEG_ATTR_L);
	return narrow ? (u32)next : next;
}

static void store(struct vcpu *v, struct vmx_vcpu *x)
{
	v->gpr[RSP] = vmread(VMCS_GUEST_RSP);
	v->rip = v->next_rip = vmread(VMCS_GUEST_RIP);
	v->rflags = vmread(VMCS_GUEST_RFLAGS) | RFLAGS_FIXED1;
	v->cpl = (vmread(VMCS_GUEST_SS_RIGHTS) & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT;
	take_event(x);
	vmx_exit_take(x);
	take_interruptibility(v, x);
	take_pending_debug(v);
	x->hw.next_rip = x->length ? behind(v->rip, x->length) : 0;
}

/* Without unrestricted guests PE and PG are on whatever the guest has, and its real mode would be protected mode. PG of a guest without paging does no harm where
 * the tables are nadir's. */
static bool can_run(const struct vcpu *v, const struct vmx_vcpu *x)
{
	u64 needed = CR0_PE | (x->hw.memory->ops->nested ? CR0_PG : 0);
	return vmx_has(x, WORD_SECONDARY, PROC2_UNRESTRICTED) || (v->cr0 & needed) == needed;
}

/* The processor has acknowledged the host's interrupt that left the guest, where it takes posted ones. */
static void give_interrupt(const struct vmx_vcpu *x)
{
	if (x->reason == VMX_INTERRUPT && vmx_has(x, WORD_EXIT, EXIT_ACKNOWLEDGE))
		host_interrupt((u8)vmread(VMCS_EXIT_EVENT));
}

bool vmx_enter(struct vcpu *v, const char **what)
{
	struct vmx_vcpu *x = vmx_of(v);
	struct vmx_cpu *cpu = *host_cpu_slot();
	x->moved = !vmx_load(x);
	if (unlikely(x->moved || !can_run(v, x))) {
		x->reason = EXIT_REASON_FAILED_ENTRY | VMX_GUEST_STATE;
		hw_registers_load(v, &cpu->hw); /* where they are looked for after an entry */
		hw_registers_leave(v);
		return true;
	}
	load(v, x, cpu);
	enum vmx_result result = run_guest(v->gpr, x->launched);
	store_kept(v, cpu);
	hw_registers_leave(v);
	if (unlikely(result != VMX_GOOD)) {
		*what = vmx_refused_entry(v, result);
		return false;
	}
	x->launched = true;
	x->reason = (u32)vmread(VMCS_EXIT_REASON);
	if (unlikely(x->reason & EXIT_REASON_FAILED_ENTRY))
		vmx_refused_state(v);
	else
		store(v, x);
	give_interrupt(x);
	return true;
}
