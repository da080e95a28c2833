/* Whether /dev/kvm can do what an unmodified 64-bit kernel asks of a processor, found out by trying. */
#ifndef NADIR_HOST_LINUX_PROBE_KVM_H
#define NADIR_HOST_LINUX_PROBE_KVM_H

#include "arch/types.h"

struct kvm_report {
	bool present; /* /dev/kvm exists */
	bool opens;
	int api_version;              /* -1: not told */
	unsigned steps_passed, steps; /* of the trial guest */
	unsigned step; /* the one it is at, or ended with: 1 to steps */
	u32 failed; /* bit n: step n + 1 did not work */
	u64 kinstructions_per_s;      /* of its loop; 0: it did not get there */
	bool usable;                  /* an unmodified kernel can be expected to run */
	char verdict[400]; /* one sentence: what works, or the first thing that does not and how to mend it */
};

/* Opens /dev/kvm and lets a small guest do what kernels do, in a child process that is killed where it does not end. */
void probe_kvm(struct kvm_report *report);
/* What step `number` (1 to report->steps) of the trial does. */
const char *probe_kvm_step(unsigned number);

#endif
