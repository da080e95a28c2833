/* The KVM engine (C7): guest code runs by the host's KVM; everything that a guest can tell from a machine of another engine is nadir's.
 *
 *  - KVM executes instructions and walks page tables, and answers CPUID from a table made by nadir's policy. Devices and interrupt
 *    controllers, the local APIC too, are nadir's: KVM has none. MSRs but those that the hardware keeps (a table in groups.c) leave as exits.
 *  - What KVM cannot execute (KVM_EXIT_INTERNAL_ERROR), the step engine does for one instruction. It also runs what needs care: a
 *    debugger's steps and the points that debug registers cannot hold, and debug traps that wait.
 *  - Exits in the middle of an instruction are answered through vcpu->ops->exit, as those of the software engines; KVM completes the
 *    instruction when it is entered again. While it is incomplete (`completing`), registers must not be touched.
 *
 * The state of a vCPU moves by groups (GROUP_*). Each is at any time in KVM, in struct vcpu, or in both:
 *
 *	known	struct vcpu holds what KVM has, or something newer
 *	changed	struct vcpu holds something newer: it goes to KVM before the guest runs
 *
 * General registers are known after each exit, since KVM leaves them in the shared page. The rest is fetched when somebody asks:
 * engine->sync before others than the engine and the dispatcher look at struct vcpu, and interpret() before the step engine does. */
#ifndef NADIR_ENGINE_KVM_KVM_H
#define NADIR_ENGINE_KVM_KVM_H

#include <linux/kvm.h>

#include "engine/engine.h"
#include "engine/step/state.h"
#include "host/kvm.h"

/* In the order in which they are written. */
#define GROUP_XCRS BIT(0) /* XCR0 */
#define GROUP_XSAVE BIT(1) /* x87, SSE, AVX... */
#define GROUP_SREGS BIT(2) /* segments, descriptor tables, control registers, EFER, PDPTEs */
#define GROUP_MSRS BIT(3) /* those that KVM keeps */
#define GROUP_DEBUG BIT(4) /* DR0 to DR7 */
#define GROUP_REGS BIT(5) /* general registers, RIP, RFLAGS */
#define GROUP_EVENTS BIT(6) /* shadows, NMI blocking, events under way */
#define GROUP_ALL (BIT(7) - 1)
#define GROUP_COUNT 7

#define KVM_SLOTS_MAX 64

struct kvm_slot {
	gpa_t gpa;
	u64 size; /* 0: free */
	u8 *hva;
	bool readonly, logged;
};

/* What the vCPUs of a VM share; made with the first, gone with the last. */
struct kvm_machine {
	int file;
	unsigned vcpus;
	bool has_sregs2;
	bool points; /* it keeps to a debugger's points */
	struct host_lock lock; /* of what follows */
	struct kvm_slot slot[KVM_SLOTS_MAX];
	u32 layout; /* ram->layout that the slots show */
	bool mapped;
};

struct kvm_vcpu {
	struct kvm_machine *machine;
	struct host_kvm_vcpu host;
	struct kvm_run *run;
	u32 known, changed; /* GROUP_* */
	bool completing;
	bool ready; /* an interrupt could be injected now */
	bool window; /* one waits until it can be */
	bool tell_cr8; /* the local APIC's task priority may have changed */
	u64 cr8, apic_base;
	u64 tsc_offset; /* as KVM has been told */
	bool tsc_told, dead;
	bool debugging, no_points; /* KVM holds a debugger's points; it did not take them */
	u64 emulated; /* instructions run by step, since KVM could not */
	u64 careful; /* and since they needed care */
	u64 fetched[GROUP_COUNT], written[GROUP_COUNT];
};

static inline struct kvm_vcpu *kvm_of(struct vcpu *vcpu)
{
	return step_of(vcpu)->translator;
}

static inline int kvm_call(struct kvm_vcpu *k, u64 request, const void *argument)
{
	return host_kvm_call(k->host.file, request, (u64)(uintptr_t)argument);
}

/* ---- groups.c: state ---- */

/* Let struct vcpu know these groups. False: KVM refused. */
bool kvm_fetch(struct vcpu *vcpu, u32 groups);
/* What struct vcpu has that is newer goes to KVM. False: KVM refused, *what says which group. */
bool kvm_write(struct vcpu *vcpu, const char **what);
/* The registers that KVM left in the shared page. */
void kvm_take_regs(struct vcpu *vcpu);
/* MSRs that the guest may access without an exit: count of rows, and each. */
unsigned kvm_native_msrs(const u32 **list);

/* ---- debug.c: a debugger's points in debug registers ---- */

/* Whether KVM could keep to all of them. */
bool kvm_points_fit(struct vcpu *vcpu);
bool kvm_tell_points(struct vcpu *vcpu);
/* After KVM_EXIT_DEBUG, with all of struct vcpu known: true, and *exit says which was met; or none. */
bool kvm_point_met(struct vcpu *vcpu, struct exit *exit);

/* ---- memory.c ---- */

/* Let KVM's slots be what vcpu->ram shows now. False: KVM refused. */
bool kvm_map_memory(struct vcpu *vcpu);
/* engine_ops.gather_dirty */
void kvm_gather_dirty(struct vcpu *vcpu);

/* ---- create.c ---- */

bool kvm_available(const char **why);
bool kvm_preferred(const char **why);
void kvm_limit(struct cpuid_policy *available, enum mmu_mode mmu);
int kvm_vcpu_create(struct vcpu *vcpu);
void kvm_vcpu_destroy(struct vcpu *vcpu);

#endif
