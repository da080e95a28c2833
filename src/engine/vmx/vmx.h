/* The VT-x engine (C5): guest code runs by VMLAUNCH and VMRESUME, on the bare machine only (host/port.h, "the bare CPU"). What it shares with engine/svm is
 * in engine/hw/hw.h, which says how state moves.
 *
 *	controls.c	what the processor has, and which controls are set
 *	cpu.c		what a CPU needs before: VMXON; which VMCS is current there; VPIDs
 *	create.c	whether the processor can do it; vCPUs, their VMCSs and MSR bitmaps
 *	state.c		groups of registers between struct vcpu and the VMCS
 *	enter.c		an entry and what is around it
 *	apic.c		what of the local APIC the processor virtualizes
 *	exits.c		the table of exit reasons: who answers
 *	refused.c	what to say when the processor refuses an entry
 *	check*.c	what is wrong with a VMCS, field by field
 *	names.c		names of fields, exit reasons and errors
 *
 * A VMCS may be read and written only where it is current, and is active on one CPU at most. So whoever wants to is between vmx_hold and host_release. */
#ifndef NADIR_ENGINE_VMX_VMX_H
#define NADIR_ENGINE_VMX_VMX_H

#include "engine/hw/hw.h"
#include "engine/vmx/controls.h"
#include "engine/vmx/ops.h"

/* MSRs that no VMCS has, and of which the host uses none: the guest's stay where they are until another guest's are loaded. */
#define VMX_KEPT_MSRS 5
struct vmx_kept_msr {
	u32 index;
	u16 offset; /* in struct vcpu */
	bool changes; /* the guest changes it without leaving */
};
extern const struct vmx_kept_msr vmx_kept_msrs[VMX_KEPT_MSRS];

/* What *host_cpu_slot() points to. Written by its own CPU with interrupts off. */
struct vmx_cpu {
	struct hw_cpu hw;
	void *region; /* of VMXON */
	struct vmx_vcpu *current; /* whose VMCS is current; NULL: none's */
	u32 next_vpid; /* VPIDs from 1 to ffffH are guests' */
	u64 generation; /* of VPIDs: when all have been used, everything is flushed and they begin anew */
	u64 kept[VMX_KEPT_MSRS]; /* what vmx_kept_msrs hold */
};

/* An area of MSRs to be loaded. Intel SDM volume 3, "VM-Entry Controls for MSRs". Where the processor has no controls for EFER, two of one entry do that. */
struct vmx_msr_entry {
	u32 index, reserved;
	u64 value;
};
enum { AREA_GUEST, AREA_HOST };

struct vmx_vcpu {
	struct hw_vcpu hw;
	struct vmx_capabilities capabilities;
	struct vmx_controls controls;
	struct hw_format ept; /* with pages as large as the processor has them there */
	void *vmcs, *bitmaps; /* a page each */
	struct vmx_msr_entry *areas; /* likewise: AREA_* */
	struct vmx_cpu *active; /* where the VMCS is; NULL: nowhere. Written with interrupts off, there. */
	u32 active_number;
	bool launched, host_written;
	bool moved; /* the last entry did not happen: the VMCS is active elsewhere */
	bool tr_made_up; /* the guest has no TR yet, which the processor does not bear */
	bool told; /* what it refused has been logged */
	u32 processor, entry; /* controls as the VMCS has them */
	u16 vpid;
	const struct vmx_cpu *vpid_cpu; /* whose VPID this is */
	u64 vpid_generation;
	u64 tsc_offset, root; /* as the VMCS has them: EPTP or guest CR3 */
	/* The local APIC's page, as the processor has it (apic.c). */
	void *apic_page;
	u64 apic_base, apic_access; /* IA32_APIC_BASE that the controls are for; the page that stands for accesses, 0: none */
	u64 eoi_exits[4];
	u8 tpr_threshold;
	bool requests; /* some vector is in IRR */
	/* Of the last exit, as far as its reason has them (exits.c). */
	u32 reason, event, event_error;
	u8 length; /* 0: it tells none */
	u64 qualification, physical;
	u64 exits[VMX_EXIT_COUNT];
};

static inline struct vmx_vcpu *vmx_of(struct vcpu *vcpu)
{
	return container_of(hw_of(vcpu), struct vmx_vcpu, hw);
}

static inline bool vmx_has(const struct vmx_vcpu *x, enum vmx_word word, u32 mask)
{
	return x->controls.word[word] & mask;
}

/* ---- cpu.c ---- */

/* Let every CPU be in VMX operation. False: there is no memory, or the firmware forbids it. */
bool vmx_cpus_init(const struct vmx_capabilities *capabilities);
/* As host_hold, and the VMCS is current. Not between host_hold and host_release. */
u64 vmx_hold(struct vmx_vcpu *x);
/* Between host_hold and host_release: make the VMCS current here. False: it is active on another CPU. */
bool vmx_load(struct vmx_vcpu *x);
/* It is active nowhere any more. */
void vmx_unload(struct vmx_vcpu *x);
/* Let the CPU have no translations of the guest's that hold no more. With the VMCS current. */
void vmx_flush(struct vmx_vcpu *x, struct vmx_cpu *cpu, bool stale);

/* ---- create.c ---- */

bool vmx_available(const char **why);
int vmx_vcpu_create(struct vcpu *vcpu);
void vmx_vcpu_destroy(struct vcpu *vcpu);

/* ---- state.c ---- */

void vmx_fetch(struct vcpu *vcpu, u32 groups);
void vmx_write(struct vcpu *vcpu, u32 groups);

/* ---- apic.c ---- */

/* When the controls are chosen; and undone. False: there is no memory. */
bool vmx_apic_create(struct vcpu *vcpu, struct vmx_vcpu *x);
void vmx_apic_destroy(struct vcpu *vcpu, struct vmx_vcpu *x);
/* With the VMCS current: once; and before each entry. */
void vmx_apic_init(struct vcpu *vcpu, struct vmx_vcpu *x);
void vmx_apic_load(struct vcpu *vcpu, struct vmx_vcpu *x);
enum hw_next vmx_apic_accessed(struct vcpu *vcpu, struct exit *exit);
enum hw_next vmx_apic_tpr_fell(struct vcpu *vcpu, struct exit *exit);
enum hw_next vmx_apic_written(struct vcpu *vcpu, struct exit *exit);
enum hw_next vmx_apic_ended(struct vcpu *vcpu, struct exit *exit);

/* An MSR in a bitmap of reads or of writes: it does not leave, or does. */
static inline void vmx_bitmap_pass(u8 *bitmap, u32 index, bool pass)
{
	u8 *byte = &bitmap[(index >> 31) * 1024 + (index & 0x1fff) / 8], bit = (u8)BIT(index % 8);
	*byte = pass ? *byte & (u8)~bit : *byte | bit;
}

/* ---- enter.c ---- */

bool vmx_enter(struct vcpu *vcpu, const char **what);

/* ---- exits.c ---- */

enum hw_next vmx_answer(struct vcpu *vcpu, struct exit *exit);
void vmx_report(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque);

/* ---- refused.c: with the VMCS current ---- */

/* VMLAUNCH or VMRESUME failed: log what is wrong; the error's name. */
const char *vmx_refused_entry(struct vcpu *vcpu, enum vmx_result result);
/* The guest's state was refused: log what is wrong with it, once a vCPU. */
void vmx_refused_state(struct vcpu *vcpu);

#endif
