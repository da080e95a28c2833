/* The state of one virtual CPU: data only, shared by every engine. What the state means is written in cpu/ and mmu/.
 *
 * Ownership: a vCPU belongs to the thread that runs it. Other threads touch only `pending` and `stop` (atomically) and go through
 * vcpu_kick(). Everything hot is at the start, since translated code reaches it by short displacements from GS.
 *
 * Conventions while an instruction executes (software engines):
 *  - rip is the address of the instruction, next_rip that of the following one. A function that transfers control sets
 *    next_rip to the target; the engine commits rip = next_rip when the instruction is complete. A fault leaves rip alone.
 *  - A function that can fault returns bool: true is success; false means that vcpu->fault says what to deliver, and that
 *    no architectural state has changed but what the manual says changes.
 */
#ifndef NADIR_VCPU_VCPU_H
#define NADIR_VCPU_VCPU_H

#include "arch/exception.h"
#include "arch/regs.h"
#include "arch/segment.h"
#include "arch/types.h"
#include "lib/state.h"
#include "host/kvm.h"
#include "host/port.h"
#include "vcpu/debug.h"
#include "vcpu/exit.h"
#include "vcpu/trace.h"

struct vcpu;
struct mmu;
struct tlb_table;
struct ram;
struct lapic;
struct posted;
struct cpuid_policy;

/* A register of a leaf of CPUID. */
struct cpuid_word {
	u32 leaf;
	u8 subleaf, reg; /* enum cpuid_register */
	u32 bits;
};
#define CPUID_WORDS 20
struct engine_ops;

/* A segment register with its hidden part. limit is in bytes, already scaled by G. attr as in arch/segment.h; a null or
 * unusable segment has SEG_ATTR_UNUSABLE. */
struct segment {
	u16 selector;
	u32 attr;
	u32 limit;
	u64 base;
};

/* Where the guest's last x87 instruction that records it, and its operand, lie: the real CPU knows where the host's copies do. Kept by the
 * software engines. */
struct x87_pointers {
	u64 ip, dp;
	u16 op, cs, ds;
};

struct table_register {
	u64 base;
	u16 limit;
};

/* An exception or interrupt to deliver. */
struct guest_fault {
	u8 vector;
	bool has_error;
	u32 error;
	u64 payload; /* #PF: CR2. #DB: the DR6 bits to set. */
};

/* Bits of vcpu->pending: why the engine must look up before the next instruction. */
#define PENDING_INTERRUPT BIT(0) /* an interrupt may be deliverable: ask ops->interrupt_acknowledge when IF allows */
#define PENDING_NMI BIT(1)
#define PENDING_KICK BIT(2) /* return EXIT_INTERRUPTED from run */
#define PENDING_CODE BIT(3) /* cached code may be stale: the engine looks it up again */
#define PENDING_DEBUG BIT(5) /* leave with EXIT_DEBUG (vcpu/debug.h) */
#define PENDING_TRAP BIT(4) /* a debug trap (vcpu->trap) waits for this instruction boundary */

/* Why external interrupts, NMIs or debug traps are held off at the next instruction boundary.
 * Intel SDM volume 3, "Masking Exceptions and Interrupts When Switching Stacks". */
#define SHADOW_STI BIT(0)
#define SHADOW_MOV_SS BIT(1)

/* What a vCPU is running or waiting for. Intel SDM volume 3, "Guest Non-Register State", activity state. */
enum activity { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_SIPI };

/* Which user code runs in spaces (host/port.h), where the host has them. */
enum direct_mode { DIRECT_AUTO, DIRECT_OFF, DIRECT_ALWAYS };

/* How guest memory reaches the processor's virtualization (engine/hw/memory.h). */
enum mmu_mode { MMU_AUTO, MMU_NESTED, MMU_SHADOW, MMU_VTLB };

/* What the VM provides around a vCPU. Set once at creation. All are called on the vCPU's own thread. */
struct vcpu_ops {
	/* Answer an exit in the middle of an instruction. */
	void (*exit)(struct vcpu *vcpu, struct exit *exit);
	/* Take the highest-priority deliverable external interrupt, moving it into service. Returns its vector, or -1 if none
	 * is deliverable now (PENDING_INTERRUPT is then cleared). */
	int (*interrupt_acknowledge)(struct vcpu *vcpu);
	/* Where the processor delivers the local APIC's interrupts by itself (lapic->direct): bring that up to date, with PENDING_INTERRUPT cleared. True: the 8259 pair
	 * asks for an interrupt, which interrupt_acknowledge gives. */
	bool (*interrupt_refresh)(struct vcpu *vcpu);
};

/* MSRs whose value is plain state of the vCPU (the rules are in cpu/msr.c). */
struct msr_state {
	u64 star, lstar, cstar, fmask;
	u64 kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 tsc_aux;
	u64 pat;
	u64 mtrr_def_type;
	u64 mtrr_physbase[8], mtrr_physmask[8];
	u64 mtrr_fixed[11];
	u64 misc_enable;
	u64 debugctl;
	u64 spec_ctrl;
	u64 xss;
	u64 mcg_status;
	u64 kvm_wall_clock, kvm_system_time, kvm_steal_time, kvm_pv_eoi;
};

/* Standard-format XSAVE image of everything up to AVX-512; Intel SDM volume 1, "Managing State Using the XSAVE Feature Set". */
#define XSAVE_AREA_SIZE 4096

struct vcpu {
	/* --- hot, reached from generated code --- */
	u64 gpr[GPR_COUNT];
	u64 rip;
	u64 rflags; /* always with RFLAGS_FIXED1 */
	u64 next_rip;
	/* Pending work and the salt of the jump cache are read as one word by translated code: what is pending makes it miss. */
	u32 pending; /* PENDING_*, atomic */
	u16 code_number; /* 0 in 64-bit code; else of the mode and place of CS, kept by the translator */
	u16 jump_salt; /* names the execute translations in force (mmu/mmu.h) */
	u8 cpl;
	u8 shadow; /* SHADOW_*: set by the previous instruction, holds at the coming boundary */
	bool nmi_blocked;
	u8 activity; /* enum activity */
	u64 host_rsp; /* scratch of the engine */
	u64 scratch[8]; /* scratch of the engine */
	struct tlb_table *tlb; /* of explicit accesses now; kept by the mmu */
	u64 code_base; /* RIP of the first byte of the page that translated code runs in */
	u64 *jump_cache; /* of the translator */
	u64 return_base, return_limit; /* of the translator: its stack of return addresses, on the host's stack, is between these */
	struct vcpu *self; /* where translated code finds its address */
	u32 deferred; /* pending bits that the translator put aside, since they cannot be acted upon now */
	u64 segment_end[SEG_COUNT][2]; /* of the translator, for 16- and 32-bit code: bytes that may be read, and written; 0: step decides */
	u64 flags_operand[2]; /* of the translator: what status flags can be made of (engine/bt/flags.c) */
	u32 flags_image; /* status flags as LAHF and SETO leave them in EAX, while translated code keeps them in memory */
	struct x87_pointers x87;
	u8 vector_ready; /* classes of extended state (BIT of enum xstate_class) that may be used now: live and checked */

	struct segment seg[SEG_COUNT];
	struct segment ldtr, tr;
	struct table_register gdtr, idtr;

	u64 cr0, cr2, cr3, cr4, efer, xcr0;
	u64 dr[4], dr6, dr7;
	u64 pdpte[4]; /* PAE paging: loaded by MOV to CR3; Intel SDM volume 3, "PDPTE Registers" */
	u64 tsc_offset; /* guest TSC = host TSC + tsc_offset */
	u64 tsc_adjust;
	struct msr_state msr;

	struct guest_fault fault; /* valid where a function returned false */
	struct guest_fault trap; /* valid with PENDING_TRAP: a #DB trap to deliver */
	struct {
		bool delivering; /* an event is being delivered; a fault now may become #DF */
		u8 vector;
	} delivery;

	struct debug_points debug; /* the debugger's, and what is derived from dr, dr7 and these; kept by debug_update */

	/* --- derived from the CPUID policy at creation, constant afterwards --- */
	u64 cr0_valid, cr4_valid, efer_valid, xcr0_valid;
	u8 linear_bits; /* 48 or 57: what the CPU model has; the mode in use depends on CR4.LA57 too */
	u8 physical_bits;
	bool pages_1g; /* CPUID says PDPE1GB */
	const struct cpuid_policy *cpuid;
	struct cpuid_word cpuid_word[CPUID_WORDS]; /* its features, as the leaves have them; filled by cpuid_apply, ended by bits of 0 */

	/* --- what it hangs on, constant after creation --- */
	const struct vcpu_ops *ops;
	const struct engine_ops *engine;
	void *engine_state; /* owned by the engine */
	struct mmu *mmu; /* software TLB */
	struct ram *ram; /* the VM's memory slots */
	struct lapic *lapic; /* for engines whose hardware has a part in it, and its posted interrupts */
	struct posted *posted;
	void *vm; /* of the layer above: the core never looks inside */
	u32 index; /* number of this vCPU in its VM, also its initial APIC ID */

	u8 direct; /* enum direct_mode; constant after creation */
	u8 mmu_mode; /* enum mmu_mode; constant after creation */
	u64 without; /* techniques of the processor that are not used (engine/hw/features.h); constant after creation */
	u32 trace; /* TRACE_*; constant after creation */
	u32 *stop; /* atomic; see vcpu_watch */
	struct host_kvm_vcpu *kvm; /* atomic: where the host's KVM runs the guest now, to be stopped when something is pending; or NULL */

	alignas(64) u8 xsave[XSAVE_AREA_SIZE];
};

/* ---- what mode the vCPU is in ---- */

static inline bool vcpu_protected(const struct vcpu *v)
{
	return v->cr0 & CR0_PE;
}

static inline bool vcpu_v86(const struct vcpu *v)
{
	return v->rflags & RFLAGS_VM;
}

/* Real-address mode or virtual-8086 mode: segment bases are selector * 16 when loaded. */
static inline bool vcpu_real_or_v86(const struct vcpu *v)
{
	return !vcpu_protected(v) || vcpu_v86(v);
}

static inline bool vcpu_long_mode(const struct vcpu *v)
{
	return v->efer & EFER_LMA;
}

/* 64-bit mode proper: long mode with CS.L. */
static inline bool vcpu_64bit(const struct vcpu *v)
{
	return vcpu_long_mode(v) && (v->seg[SEG_CS].attr & SEG_ATTR_L);
}

/* Code size in bits: 16, 32 or 64. */
static inline unsigned vcpu_code_bits(const struct vcpu *v)
{
	if (vcpu_64bit(v))
		return 64;
	return (v->seg[SEG_CS].attr & SEG_ATTR_DB) ? 32 : 16;
}

/* Width of the stack pointer in bytes: 2, 4 or 8. */
static inline unsigned vcpu_stack_size(const struct vcpu *v)
{
	if (vcpu_64bit(v))
		return 8;
	return (v->seg[SEG_SS].attr & SEG_ATTR_DB) ? 4 : 2;
}

static inline unsigned vcpu_iopl(const struct vcpu *v)
{
	return (v->rflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;
}

/* Linear-address bits in use now. */
static inline unsigned vcpu_linear_bits(const struct vcpu *v)
{
	return (v->cr4 & CR4_LA57) ? 57 : 48;
}

/* ---- raising faults: each returns false, so that a function can `return vcpu_raise_gp(v, 0);` ---- */

static inline bool vcpu_raise(struct vcpu *v, u8 vector)
{
	v->fault = (struct guest_fault){ .vector = vector };
	return false;
}

static inline bool vcpu_raise_error(struct vcpu *v, u8 vector, u32 error)
{
	v->fault = (struct guest_fault){ .vector = vector, .has_error = true, .error = error };
	return false;
}

static inline bool vcpu_raise_gp(struct vcpu *v, u32 error)
{
	return vcpu_raise_error(v, VEC_GP, error);
}

static inline bool vcpu_raise_ud(struct vcpu *v)
{
	return vcpu_raise(v, VEC_UD);
}

/* ---- pending bits ---- */

static inline void vcpu_set_pending(struct vcpu *v, u32 bits)
{
	__atomic_fetch_or(&v->pending, bits, __ATOMIC_SEQ_CST);
	u32 *stop = __atomic_load_n(&v->stop, __ATOMIC_SEQ_CST);
	if (stop)
		host_space_stop(stop);
	struct host_kvm_vcpu *kvm = __atomic_load_n(&v->kvm, __ATOMIC_SEQ_CST);
	if (kvm)
		host_kvm_stop(kvm);
}

/* The vCPU's own thread, before it runs code that looks at *stop instead of `pending`: whatever is pending, or becomes so, sets it. NULL ends
 * this; a late writer may set *stop even then, so it must stay valid. */
static inline void vcpu_watch(struct vcpu *v, u32 *stop)
{
	if (stop)
		__atomic_store_n(stop, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&v->stop, stop, __ATOMIC_SEQ_CST);
	if (stop && __atomic_load_n(&v->pending, __ATOMIC_SEQ_CST))
		__atomic_store_n(stop, 1, __ATOMIC_RELAXED);
}

static inline void vcpu_clear_pending(struct vcpu *v, u32 bits)
{
	__atomic_fetch_and(&v->pending, ~bits, __ATOMIC_SEQ_CST);
}

static inline u32 vcpu_pending(const struct vcpu *v)
{
	return __atomic_load_n(&v->pending, __ATOMIC_RELAXED);
}

extern const struct state_table vcpu_state; /* state.c */

#endif
