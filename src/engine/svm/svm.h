/* The AMD-V engine (C6): guest code runs by VMRUN, on the bare machine only (host/port.h, "the bare CPU"). What it shares with engine/vmx is in
 * engine/hw/hw.h, which says how state moves.
 *
 *	exits.c		the table of exit codes: which leave at all, and who answers
 *	state.c		groups of registers between struct vcpu and the VMCB
 *	enter.c		VMRUN and what is around it
 *	cpu.c		what a CPU needs before: SVME, host save area, ASIDs
 *	create.c	whether the CPU can do it; vCPUs and their permission maps
 */
#ifndef NADIR_ENGINE_SVM_SVM_H
#define NADIR_ENGINE_SVM_SVM_H

#include "engine/hw/hw.h"
#include "engine/svm/vmcb.h"

#define SVM_ROWS 0x98 /* of the table of exit codes */

/* What *host_cpu_slot() points to. Written by its own CPU with interrupts off. */
struct svm_cpu {
	struct hw_cpu hw;
	u64 host; /* physical address of what VMSAVE keeps of the host while a guest runs */
	void *save_area; /* of VMRUN */
	const void *last; /* vCPU that ran last */
	u32 asids, next_asid; /* ASIDs from 1 to asids - 1 are guests' */
	u64 generation; /* of ASIDs: when all have been used, everything is flushed and they begin anew */
};

struct svm_vcpu {
	struct hw_vcpu hw;
	struct vmcb *vmcb; /* and behind it, the permission maps */
	u64 vmcb_physical;
	struct hw_format npt;
	u32 features; /* CPUID 8000000AH EDX */
	bool tcg; /* QEMU's: see svm_by_virtual */
	const struct svm_cpu *cpu; /* whose ASID this is */
	u64 generation;
	bool virtual_tpr; /* CR8 is the VMCB's V_TPR while the guest runs, from and to the local APIC's at each entry and exit; constant after creation */
	bool requests; /* some vector is in IRR */
	u32 intercepts; /* what svm_update_intercepts was told last */
	u64 exits[SVM_ROWS];
};

#define SVM_MSR_PAGES 2
#define SVM_IO_PAGES 3
#define SVM_PAGES (1 + SVM_MSR_PAGES + SVM_IO_PAGES)

static inline struct svm_vcpu *svm_of(struct vcpu *vcpu)
{
	return container_of(hw_of(vcpu), struct svm_vcpu, hw);
}

/* QEMU's TCG delivers an interrupt that VMRUN injects, and may do so once more when another of its threads stops this one before the next exception or #VMEXIT, so
 * that the guest has it again, with interrupts disabled. There it is a virtual interrupt instead, which the guest takes at once, since it can; the window of the next one
 * is asked for at the IRET at the latest. */
static inline bool svm_by_virtual(const struct svm_vcpu *s)
{
	return s->tcg && (s->hw.event & HW_EVENT_VALID) && HW_EVENT_TYPE_OF(s->hw.event) == HW_EVENT_EXTERNAL;
}

/* ---- create.c ---- */

bool svm_available(const char **why);
int svm_vcpu_create(struct vcpu *vcpu);
void svm_vcpu_destroy(struct vcpu *vcpu);
extern const struct hw_ops svm_ops;

/* ---- cpu.c ---- */

/* Let every CPU be ready for VMRUN. False: there is no memory. */
bool svm_cpus_init(void);
/* Between host_hold and host_release: the ASID to enter with, and what TLB_CONTROL is for that. */
void svm_choose_asid(struct svm_vcpu *svm, struct svm_cpu *cpu, bool flush);

/* ---- state.c ---- */

void svm_fetch(struct vcpu *vcpu, u32 groups);
void svm_write(struct vcpu *vcpu, u32 groups);

/* ---- exits.c ---- */

/* What leaves always; reads of CR0 and CR4, where the guest is to see another value than the processor has; and for this entry. */
void svm_set_intercepts(struct vmcb *vmcb, u32 features, bool nested);
void svm_intercept_reads(struct vmcb *vmcb, bool cr0, bool cr4);
/* Without a virtual TPR. */
void svm_intercept_cr8(struct vmcb *vmcb);
void svm_update_intercepts(struct vcpu *vcpu);
enum hw_next svm_answer(struct vcpu *vcpu, struct exit *exit);
void svm_report(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque);

/* ---- enter.c ---- */

bool svm_enter(struct vcpu *vcpu, const char **what);

#endif
