/* Saving and loading CPUs (state.c; lib/state.h). */
#ifndef NADIR_CPU_STATE_H
#define NADIR_CPU_STATE_H

#include "cpu/cpuid.h"

/* The policy. Loading replaces one that was made for this host, and fails if the host lacks anything of what is loaded. Before vCPUs are made. */
void cpuid_state(struct state *s, struct cpuid_policy *policy);
/* A vCPU that does not run, at an instruction boundary, but for pending events. */
void cpu_state(struct state *s, struct vcpu *vcpu);

extern const struct state_table cpuid_policy_state;

#endif
