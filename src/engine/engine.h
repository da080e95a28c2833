/* The engine contract: enter, exit, reason. An engine executes a vCPU's instructions; what the instructions do to the
 * machine is the VM's affair (vcpu/exit.h). */
#ifndef NADIR_ENGINE_ENGINE_H
#define NADIR_ENGINE_ENGINE_H

#include "vcpu/vcpu.h"

struct engine_ops {
	const char *name;
	const char *description; /* one line, for `nadir probe` */
	bool one_cpu; /* a machine has one vCPU at most */
	/* Whether this host can run it; if not, *why is a sentence. */
	bool (*available)(const char **why);
	/* Optional: whether "auto" may take it, because it runs guests better than those behind it in the table; if not, *why is a sentence. May take
	 * milliseconds. Without it, "auto" takes what is available. */
	bool (*preferred)(const char **why);
	/* Optional: the CPU features that guests can have (available->features), with this --mmu; all that the host has, if there is no such function. */
	void (*limit)(struct cpuid_policy *available, enum mmu_mode mmu);
	int (*vcpu_create)(struct vcpu *vcpu); /* 0 or negative */
	void (*vcpu_destroy)(struct vcpu *vcpu);
	/* Run on the calling thread until an exit that the VM must handle (see vcpu/exit.h). Honours vcpu->pending before each
	 * instruction: delivers NMIs and interrupts where RFLAGS.IF and the shadow allow. */
	void (*run)(struct vcpu *vcpu, struct exit *exit);
	/* Optional, where state lives elsewhere while the guest runs: make all of struct vcpu true, on the vCPU's own thread between two runs. What holds
	 * without is said in struct vcpu's users: after a run that ended with HLT or INTERRUPTED the general registers, RFLAGS and what keeps interrupts
	 * and NMIs off; after any other, everything. */
	void (*sync)(struct vcpu *vcpu);
	/* Optional: the vCPU did next to nothing for a while, and all others too if `all`. Give back memory that can be had anew, on the vCPU's own thread
	 * between two runs. */
	void (*rest)(struct vcpu *vcpu, bool all);
	/* Optional, where a processor takes interrupts that are posted (vcpu->posted) while it runs the guest: something was posted and the vCPU is to be told. False: it is not in the
	 * guest, and must be kicked. Any thread. */
	bool (*notify)(struct vcpu *vcpu);
	/* The vCPU's state was changed from outside (reset, restore, debugger): drop what was derived from it. */
	void (*state_changed)(struct vcpu *vcpu);
	/* Optional, where hardware stores to guest memory: tell by ram_log_add what it logged since the last time; no vCPU runs, any thread. Called for each
	 * vCPU of the VM. What is asked of such an engine besides: that stores to clean pages of slots with log_dirty are seen. ram->layout tells of changes. */
	void (*gather_dirty)(struct vcpu *vcpu);
	/* Optional: the engine's own counters of a vCPU, line by line: "  VALUE  NAME". While the vCPU runs they may be a moment old. */
	void (*report)(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque);
};

extern const struct engine_ops engine_kvm, engine_svm, engine_vmx, engine_step, engine_bt, engine_lockstep;

/* All there are, in the order of preference. */
#define ENGINE_COUNT 6
extern const struct engine_ops *const engines[ENGINE_COUNT];

/* Whether "auto" may take it. */
bool engine_preferred(const struct engine_ops *engine, const char **why);
/* The engine of a name; "auto" is the first of the table that is preferred. NULL: there is none. */
const struct engine_ops *engine_find(const char *name);

#endif
