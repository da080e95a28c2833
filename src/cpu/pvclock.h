/* KVM's paravirtual clock (C4): structures in guest memory that turn a TSC value into nanoseconds, so that a guest
 * needs no exit to tell the time. Linux documentation, "KVM-specific MSRs" and "Timekeeping Virtualization for
 * X86-Based Architectures". */
#ifndef NADIR_CPU_PVCLOCK_H
#define NADIR_CPU_PVCLOCK_H

#include "vcpu/vcpu.h"

/* The VM's clock: one pair of (host TSC, nanoseconds since the VM started), taken once, so that all vCPUs tell the same
 * time. */
struct pvclock {
	u64 host_tsc;
	u64 origin;    /* host_now() at that moment */
	u64 wallclock; /* host_wallclock() at that moment */
	u32 mul;       /* nanoseconds = (ticks << shift) * mul >> 32 */
	s8 shift;
};

void pvclock_init(struct pvclock *clock, u64 tsc_hz);
/* Nanoseconds since pvclock_init, as guests compute them from a host TSC value. */
u64 pvclock_ns(const struct pvclock *clock, u64 host_tsc);

/* The dispatcher calls this after every successful write to an MSR: where the MSR concerns the clock, the vCPU's
 * structures in guest memory are written anew. Addresses outside RAM are ignored, as KVM does. */
void pvclock_update(const struct pvclock *clock, struct vcpu *vcpu, u32 msr);

#endif
