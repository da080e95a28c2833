/* A KVM for unit tests: the port of host/kvm.h over one machine with one vCPU in memory. Requests are looked up in a table, counted, and carried
 * out on this struct; what the guest does when it is run is the test's. Without one the host has no KVM. */
#ifndef NADIR_TESTS_FAKE_KVM_H
#define NADIR_TESTS_FAKE_KVM_H

#include <linux/kvm.h>

#include "host/kvm.h"

#define FAKE_KVM_MSRS 32
#define FAKE_KVM_SLOTS 64
#define FAKE_KVM_REQUESTS 256 /* by their number */
#define FAKE_KVM_COUNT(kvm, request) ((kvm)->count[(request) & 0xff])

struct fake_kvm {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xsave xsave;
	u64 xcr0;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_guest_debug guest_debug;
	struct {
		u32 index;
		u64 value;
	} msr[FAKE_KVM_MSRS];
	struct kvm_userspace_memory_region slot[FAKE_KVM_SLOTS];
	u64 dirty[FAKE_KVM_SLOTS]; /* the first word of each slot's log */
	u64 tsc_offset;
	unsigned cpuid_entries;
	unsigned count[FAKE_KVM_REQUESTS];
	u64 refuse; /* the request that fails with EINVAL; 0: none */
	u64 lacking; /* the capability that there is not; 0: none */
	unsigned nmis;
	int interrupt; /* the vector injected last; -1: none */
	unsigned files; /* open */
	_Alignas(4096) union {
		struct kvm_run run;
		u8 page[8192];
	} shared;
	/* The guest runs: fill shared.run and return 0, or return a negative errno. Not called when it is to leave at once. */
	int (*guest)(struct fake_kvm *kvm);
	void *opaque;
};

/* Zeroed but for the given guest; NULL takes the KVM away. */
void fake_kvm_set(struct fake_kvm *kvm);
u64 *fake_kvm_msr(struct fake_kvm *kvm, u32 index);

#endif
