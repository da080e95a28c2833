/* What KVM's interface shares with a guest that knows of it (C4), beside the clock (cpu/pvclock.h): words in guest memory that spare exits.
 * Linux documentation, "KVM-specific MSRs" and "Linux KVM Hypercall".
 *
 * The guest chooses where they are, may change them at any time, and may take them away by the next write to their MSR. An address outside
 * RAM, or in a ROM, is as if there were none. All functions: on the vCPU's own thread, or while it is parked. */
#ifndef NADIR_VM_PARAVIRT_H
#define NADIR_VM_PARAVIRT_H

#include "vm/vm.h"

/* PV EOI: a bit that the host sets while an interrupt is in service whose end nobody needs to hear of at once; a guest that finds it set
 * clears it instead of writing to the EOI register. `take` learns what the guest did and takes the offer back: before anything else looks
 * at the local APIC. `give` makes it anew, where that is possible: when the local APIC is left. */
void pv_eoi_take(struct vm_cpu *cpu);
void pv_eoi_give(struct vm_cpu *cpu);

/* Steal time: how long the vCPU wanted to run but had no CPU of the host, brought up to date at most once a millisecond. */
void steal_time_update(struct vm_cpu *cpu, u64 now);
/* A write to its MSR was carried out. */
void steal_time_enable(struct vm_cpu *cpu);
/* The vCPU stops executing, or goes on. In between others are told that it does not run, and may ask for a flush of its TLB, which is done
 * before it goes on. */
void steal_time_sleep(struct vm_cpu *cpu);
void steal_time_wake(struct vm_cpu *cpu);

/* Carry out a hypercall (vm/hypercall.c). */
void hypercall(struct vm_cpu *cpu, struct exit *exit);

#endif
