/* What the engines share that run guests by the processor's own virtualization, engine/vmx and engine/svm: the life of an exit (run.c), answers to
 * what made the guest leave (answer.c, moves.c, device.c), registers that the processor does not switch by itself (registers.c), and which MSRs the guest may
 * use without leaving (msr.c).
 *
 * struct vcpu is the truth whenever the dispatcher, the step engine or anybody else looks. General registers, RIP, RFLAGS, CPL, the shadow and the event that
 * was under way are taken at every exit. The rest moves by groups (HW_*):
 *
 *	known	struct vcpu holds what the processor has, or something newer
 *	changed	struct vcpu holds something newer: it is written before the guest runs
 *
 * Control registers but CR2 and CR3, EFER, XCR0 and DR0 to DR3 change in struct vcpu only, since writing them leaves the guest; they are always true.
 *
 * What is behind an instruction that leaves often, and what it does where the processor does not say, is read from its bytes (code.h). What the processor cannot do
 * alone otherwise (a debugger's steps, strings to ports, locked accesses to memory-mapped registers) the step engine does, one instruction at a time:
 * hw_step(). It reads guest memory by its own TLB, which knows nothing of what the guest did meanwhile, so it is emptied each time. */
#ifndef NADIR_ENGINE_HW_HW_H
#define NADIR_ENGINE_HW_HW_H

#include "engine/engine.h"
#include "engine/hw/code.h"
#include "engine/hw/memory.h"
#include "engine/step/state.h"
#include "host/port.h"

#define HW_SEGMENTS BIT(0) /* segments but CS, descriptor tables */
#define HW_CONTROL BIT(1) /* control registers, EFER, PAT */
#define HW_MSRS BIT(2) /* those of hw_native_msrs that the processor switches */
#define HW_DEBUG BIT(3) /* DR6, DR7 */
#define HW_VECTORS BIT(4) /* x87, SSE, AVX...: in the real registers while they are not known (registers.c) */
#define HW_CODE BIT(5) /* CS, which is all that reading an instruction takes */
#define HW_ALL (BIT(6) - 1)
#define HW_GROUPS 6

/* An event to inject, or that was under way, in the form that both kinds of processors have it. Intel SDM volume 3, "VM-Entry Interruption-Information
 * Field"; AMD APM volume 2, "Event Injection". */
#define HW_EVENT_VALID BIT(31)
#define HW_EVENT_ERROR BIT(11)
#define HW_EVENT_TYPE(type) ((u32)(type) << 8)
#define HW_EVENT_TYPE_OF(event) ((event) >> 8 & 7)
enum hw_event_type { HW_EVENT_EXTERNAL = 0, HW_EVENT_NMI = 2, HW_EVENT_EXCEPTION = 3, HW_EVENT_SOFTWARE = 4 };

enum hw_next { HW_ENTER, HW_LEAVE };

struct hw_ops {
	/* Let struct vcpu know these groups, never HW_VECTORS; and write what it has. */
	void (*fetch)(struct vcpu *vcpu, u32 groups);
	void (*write)(struct vcpu *vcpu, u32 groups);
	/* Run the guest until it leaves, between host_hold and host_release: inject hw->event, ask for a window if hw->window, honour hw->memory and
	 * vcpu->nmi_blocked. Afterwards the registers that are taken at every exit are in struct vcpu, hw->event is what was under way, and hw->next_rip says
	 * what is behind the instruction, if the processor tells it. False: the processor refuses, *what says why. */
	bool (*enter)(struct vcpu *vcpu, const char **what);
	/* Answer what made the guest leave. */
	enum hw_next (*answer)(struct vcpu *vcpu, struct exit *exit);
};

/* The first member of an engine's own state, which step_of(vcpu)->translator points to. */
struct hw_vcpu {
	const struct hw_ops *ops;
	struct hw_memory *memory;
	struct host_run run;
	u32 known, changed; /* HW_* */
	u32 event, event_error; /* to be injected with the next entry; 0: none */
	u64 next_rip; /* 0: the processor does not tell, and nobody has found out */
	const u8 *bytes; /* of the instruction that left, if the processor tells them... */
	u8 byte_count; /* ...or 0 */
	struct hw_code code;
	u8 pauses; /* that are to leave, where the processor does not count them (hw_pause_uncounted) */
	bool window; /* an interrupt waits until the guest takes it */
	u32 inside; /* atomic, where the processor takes posted interrupts: the vCPU is in the guest on run.cpu, or about to be, and has nothing posted that was to be told before */
	bool delivers; /* the processor delivers the local APIC's interrupts by itself; constant after creation */
	bool nmi_waits; /* likewise */
	bool ran; /* guest memory may have changed since step looked last */
	bool dead; /* a triple fault, found while struct vcpu took over */
	u64 xcr0, xstate; /* of the host; and what of it guests' registers are */
	u64 entries, stepped, careful; /* counters */
	u64 fetched[HW_GROUPS], written[HW_GROUPS];
};

static inline struct hw_vcpu *hw_of(struct vcpu *vcpu)
{
	return step_of(vcpu)->translator;
}

/* ---- run.c ---- */

/* After step_create, with `hw` zeroed in step_of(vcpu)->translator: what the hardware executes is struct vcpu from now on. */
void hw_init(struct vcpu *vcpu, const struct hw_ops *ops, struct hw_memory *memory);
/* These are engine_ops'. */
void hw_run(struct vcpu *vcpu, struct exit *exit);
void hw_sync(struct vcpu *vcpu);
void hw_state_changed(struct vcpu *vcpu);
bool hw_notify(struct vcpu *vcpu);
void hw_report(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque);

/* Let struct vcpu know these groups. */
void hw_fetch(struct vcpu *vcpu, u32 groups);
/* struct vcpu is all there is: everything is known, and is written anew. An event under way is delivered. */
void hw_take_over(struct vcpu *vcpu);
/* One instruction by step, behind whatever is pending. */
enum hw_next hw_step(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_fail(struct exit *exit, const char *what);
/* Inject an exception of the guest's own. Not with one under way: the two are combined then, by step. */
enum hw_next hw_raise(struct vcpu *vcpu, u8 vector, bool has_error, u32 error);

/* ---- features.c ---- */

/* For engine_ops' limit: with nested paging or without. */
void hw_limit(struct cpuid_policy *available, bool nested);

/* ---- answer.c: each stands for one instruction or event; what cannot be answered simply is stepped ---- */

enum hw_next hw_nothing(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_io(struct vcpu *vcpu, struct exit *exit, u16 port, u8 size, bool write);
enum hw_next hw_cpuid(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_rdmsr(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_wrmsr(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_hlt(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_hypercall(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_pause(struct vcpu *vcpu, struct exit *exit);
/* Where the processor does not count PAUSEs before it leaves: after each interrupt of the host so many leave, and at the last one others may run; as long as
 * there are others, it begins anew. So a vCPU that waits for one that does not run gives its CPU away, and one that waits for little else loses little. */
#define HW_PAUSES 32
enum hw_next hw_pause_uncounted(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_interrupt_of_host(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_shutdown(struct vcpu *vcpu, struct exit *exit);
/* `address` and `error` as hw->memory wants them; `final`: it was the access itself that faulted, not a walk of the guest's tables. */
enum hw_next hw_memory_fault(struct vcpu *vcpu, struct exit *exit, u64 address, u32 error, bool final);

/* For answers: whether the instruction, which is this (HW_OPCODE_* or HW_CODE_*), can be answered from outside. hw->next_rip is behind it then. */
bool hw_simple(struct vcpu *vcpu, u32 code);
/* The same, and what it does; whatever its opcode. */
bool hw_read_insn(struct vcpu *vcpu, struct hw_insn *insn);
/* The instruction is done. */
enum hw_next hw_done(struct vcpu *vcpu);
/* What vcpu->fault says is the guest's. */
enum hw_next hw_fault(struct vcpu *vcpu);

/* ---- moves.c: moves to and from control and debug registers, and what else those do ---- */

enum hw_next hw_mov_cr(struct vcpu *vcpu, struct exit *exit, unsigned number, unsigned gpr, bool write);
enum hw_next hw_mov_dr(struct vcpu *vcpu, struct exit *exit, unsigned number, unsigned gpr, bool write);
enum hw_next hw_clts(struct vcpu *vcpu, struct exit *exit);
enum hw_next hw_lmsw(struct vcpu *vcpu, struct exit *exit, u16 value);
enum hw_next hw_invlpg(struct vcpu *vcpu, struct exit *exit, gla_t gla);
/* One of those above, where the processor does not say which. */
enum hw_next hw_move(struct vcpu *vcpu, struct exit *exit);

/* ---- device.c ---- */

/* An access to what is not RAM, which the guest's tables allow. */
enum hw_next hw_device(struct vcpu *vcpu, struct exit *exit, gpa_t gpa, u32 error);
/* A store to RAM, which they allow, but which the processor is kept from. */
enum hw_next hw_store_watched(struct vcpu *vcpu, struct exit *exit, gpa_t gpa);

/* ---- registers.c: what the processor does not switch by itself; between host_hold and host_release ---- */

/* What of the CPU's registers engines load and leave so; part of what *host_cpu_slot() points to. */
struct hw_cpu {
	u64 tsc_aux;
};
/* False: the CPU lacks XSAVE, without which guests' registers are not kept. */
bool hw_registers_available(const char **why);
void hw_registers_init(struct hw_vcpu *hw);
void hw_registers_load(struct vcpu *vcpu, struct hw_cpu *cpu);
void hw_registers_leave(struct vcpu *vcpu);
/* The guest's vector registers, at any time on the vCPU's thread: to struct vcpu. */
void hw_registers_take(struct vcpu *vcpu);

/* ---- msr.c ---- */

struct hw_msr {
	u32 index;
	u16 offset; /* in struct vcpu; 0: its segments have it */
	u16 feature; /* without it the guest does not have the MSR */
};
const struct hw_msr *hw_native_msrs(unsigned *count);
/* Whether the guest has it. */
bool hw_msr_is_native(const struct vcpu *vcpu, const struct hw_msr *msr);

#endif
