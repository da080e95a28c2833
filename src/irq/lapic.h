/* The local APIC of one vCPU: xAPIC registers in memory and x2APIC registers as MSRs, over one register file; interrupt
 * acceptance and priority; the timer; sending IPIs.
 * Intel SDM volume 3, "Advanced Programmable Interrupt Controller (APIC)" and "Extended xAPIC (x2APIC)".
 *
 * Threads: a local APIC is touched only by its own vCPU's thread. Others use irq/posted.h for fixed interrupts, a
 * request to the vCPU for everything else (NMI, INIT, SIPI, LINT changes), and may call the functions marked "any
 * thread".
 *
 * `now` is host_now(). After any call here, lapic_highest says whether an interrupt can be delivered, and
 * lapic_deadline when the timer next fires. */
#ifndef NADIR_IRQ_LAPIC_H
#define NADIR_IRQ_LAPIC_H

#include "arch/msr.h"
#include "irq/interrupt.h"
#include "irq/posted.h"
#include "lib/state.h"

#define LAPIC_MMIO_SIZE 0x1000

#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_EXTD BIT(10)
#define APIC_BASE_EN BIT(11)

/* What the local APIC asks of the VM. Called on the vCPU's thread, never under a lock of this module. */
struct lapic_ops {
	/* Send an IPI: SHORTHAND_NONE to interrupt->destination (which may include the sender), SHORTHAND_OTHERS to all
	 * but the sender. The other shorthands are dealt with inside. */
	void (*send)(void *opaque, const struct interrupt *interrupt);
	/* Broadcast the end of a level-triggered interrupt to the I/O APICs. */
	void (*eoi)(void *opaque, u8 vector);
};

#define LAPIC_REGISTER_COUNT 64
#define LAPIC_WORDS (4 * LAPIC_REGISTER_COUNT) /* of the page that are used */

struct lapic {
	/* The registers as they lie in memory, which is also how a virtual-APIC page has them: all that the guest reads is there, but for APR, PPR and the timer's
	 * current count. `own`, or a processor's (lapic_use_page). */
	u32 *page;
	u32 own[LAPIC_WORDS];
	bool direct; /* the processor reads registers for the guest, or delivers and ends interrupts, and nobody else is asked: set by who gave the page */
	bool posted; /* it takes posted interrupts, too: constant after creation, any thread reads it */
	bool vectors_changed; /* software changed IRR, ISR or TMR: for whoever derives something of them, who clears it */
	u64 base;   /* IA32_APIC_BASE */
	u32 errors; /* what the next write to ESR makes readable */
	bool lint_line[2];
	bool lint_remote_irr; /* of LINT0, when level-triggered */

	struct {
		u64 deadline;     /* when the count reaches zero, or HOST_NEVER */
		u64 not_before;   /* limits the rate of periodic interrupts */
		u64 tsc_deadline; /* IA32_TSC_DEADLINE, 0 when disarmed */
		u8 mode, shift;   /* as the registers said when they were last set; a processor may have stored other values since (lapic_written) */
	} timer;

	/* guest TSC = tsc.anchor + (now - tsc.anchor_now) * hz / 10^9; see lapic_set_tsc */
	struct {
		u64 anchor, anchor_now, hz;
	} tsc;

	u64 match; /* atomic: what lapic_matches needs, packed */

	/* constant after creation */
	u32 id; /* initial APIC ID, and the x2APIC ID */
	u8 physical_bits;
	bool has_x2apic, has_tsc_deadline; /* as CPUID says */
	const struct lapic_ops *ops;
	void *opaque;
};

/* Set everything up, in the state after power-on. x2APIC and the TSC deadline are on, 52 physical bits: the VM changes
 * these fields by the CPUID policy before the vCPU runs. `bsp` sets the flag in IA32_APIC_BASE. */
void lapic_init(struct lapic *lapic, u32 id, bool bsp, const struct lapic_ops *ops, void *opaque);

/* Power-on reset; or with `init` what INIT does: IA32_APIC_BASE, and with it the mode and the ID, stay.
 * "Local APIC State After Power-Up or Reset", "... After It Receives an INIT-Deassert IPI". */
void lapic_reset(struct lapic *lapic, bool init);

/* The virtual wire mode in which PC firmware leaves the bootstrap processor: LINT0 takes the 8259s, LINT1 NMIs. */
void lapic_set_virtual_wire(struct lapic *lapic);

/* Tell the guest's TSC at an instant, and its frequency: at creation, when the guest moves its TSC, and before each
 * write of IA32_TSC_DEADLINE, so that the two clocks cannot drift apart. An armed deadline is kept in terms of the TSC.
 */
void lapic_set_tsc(struct lapic *lapic, u64 guest_tsc, u64 now, u64 hz);

/* ---- registers ---- */

/* Whether a physical address is in the register page now (xAPIC mode only). */
bool lapic_decodes(const struct lapic *lapic, gpa_t gpa);
/* Accesses within the register page; offset + size is within it. Only aligned accesses of 4 bytes or more write. */
u64 lapic_mmio_read(struct lapic *lapic, u64 offset, unsigned size, u64 now);
void lapic_mmio_write(struct lapic *lapic, u64 offset, unsigned size, u64 value, u64 now);

/* A processor has stored what the guest wrote at this offset of the page, and left the rest to do (an APIC-write VM exit). */
void lapic_written(struct lapic *lapic, u64 offset, u64 now);

/* Whether an MSR is one of this module's: IA32_APIC_BASE, IA32_TSC_DEADLINE, 800H-8FFH. */
bool lapic_owns_msr(u32 index);
/* Access such an MSR. False: #GP(0), and nothing has changed. */
bool lapic_msr_read(struct lapic *lapic, u32 index, u64 now, u64 *value);
bool lapic_msr_write(struct lapic *lapic, u32 index, u64 now, u64 value);

/* CR8 is bits 7:4 of the TPR; the CPU has checked that the value is below 16. */
u64 lapic_cr8(const struct lapic *lapic);
void lapic_set_cr8(struct lapic *lapic, u64 value);

/* ---- interrupts in ---- */

/* What an interrupt, or a change of a local input, means for the vCPU. */
#define LAPIC_ACCEPTED BIT(0) /* a bit of IRR was set */
#define LAPIC_NMI BIT(1)      /* deliver an NMI */
#define LAPIC_INIT BIT(2)     /* reset the vCPU, then wait for SIPI */
#define LAPIC_SIPI BIT(3)     /* start at interrupt->vector << 12, if waiting for SIPI */
#define LAPIC_EXTINT BIT(4)   /* take a vector from the 8259 pair */

/* Take an interrupt that was routed here. The result is a set of LAPIC_*, 0 when it was ignored. */
unsigned lapic_accept(struct lapic *lapic, const struct interrupt *interrupt);
/* Take all that was posted. */
void lapic_accept_posted(struct lapic *lapic, struct posted *posted);

/* Change LINT0 or LINT1. Result as above. */
unsigned lapic_set_lint(struct lapic *lapic, unsigned pin, bool level);
/* Whether the 8259 pair's INTR reaches the CPU: through LINT0 as ExtINT, or because the local APIC is off. */
bool lapic_passes_extint(const struct lapic *lapic);
/* Whether LINT0 is an NMI. Any thread. */
bool lapic_lint0_nmi(const struct lapic *lapic);

/* Local sources whose LVT entries the VM may trigger. Result as above. */
enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
unsigned lapic_trigger(struct lapic *lapic, enum lapic_lvt entry);

/* ---- interrupts out ---- */

/* The vector that is deliverable now (requested, and of higher priority than the processor's), or -1. */
int lapic_highest(const struct lapic *lapic);
/* Move that vector from IRR to ISR and return it, or -1. (The spurious vector is for an INTA that finds nothing, which
 * cannot happen here.) */
int lapic_acknowledge(struct lapic *lapic);

/* What a write to the EOI register does. */
void lapic_end_interrupt(struct lapic *lapic);
/* The rest of it: a processor has moved this vector out of ISR. */
void lapic_ended(struct lapic *lapic, u8 vector);
/* Whether nobody would see it if that came late: nothing else is requested, and no I/O APIC waits for it. */
bool lapic_end_may_wait(const struct lapic *lapic);

/* ---- the page ---- */

/* From now on the registers are in this page, which a processor reads and writes while it runs the guest on this vCPU's thread, in accordance with the manual
 * ("APIC Virtualization and Virtual Interrupts"); it lives as long as the local APIC. NULL: in its own memory again. */
void lapic_use_page(struct lapic *lapic, void *page);
/* 256 bits each, as four words. */
enum lapic_set { LAPIC_ISR, LAPIC_TMR, LAPIC_IRR };
void lapic_vectors(const struct lapic *lapic, enum lapic_set which, u64 out[4]);
/* The highest of a set, or -1. */
int lapic_highest_of(const struct lapic *lapic, enum lapic_set which);
/* The class of priority that TPR must fall below to let an interrupt through; 0: TPR holds none back. */
u8 lapic_tpr_threshold(const struct lapic *lapic);

/* ---- time ---- */

/* When the timer next sets a bit in IRR, or HOST_NEVER. */
u64 lapic_deadline(const struct lapic *lapic);
/* Let time pass. A periodic timer that is late, or faster than one interrupt in LAPIC_MIN_PERIOD, sends one interrupt
 * for several periods, in phase with the period. */
void lapic_advance(struct lapic *lapic, u64 now);
#define LAPIC_MIN_PERIOD 50000ull /* nanoseconds */

/* ---- routing: any thread ---- */

/* Whether a destination names this local APIC. "Logical Destination Mode", "Physical Destination Mode". */
bool lapic_matches(const struct lapic *lapic, u32 destination, bool logical);
/* Whether it is enabled, in hardware and by software, so that fixed interrupts are accepted. */
bool lapic_enabled(const struct lapic *lapic);

extern const struct state_table lapic_state;

#endif
