/* CPUID as a policy (H5): a named model, features added and taken away by the user, always cut down to what the host has and
 * nadir can virtualize. Constant once made; shared by all vCPUs of a VM (the per-vCPU leaves are filled in at the answer). */
#ifndef NADIR_CPU_CPUID_H
#define NADIR_CPU_CPUID_H

#include "arch/cpuid.h"
#include "vcpu/vcpu.h"

struct cpuid_policy;

/* Make a policy from a specification like QEMU's -cpu: MODEL[,+feature|,-feature]... `cpus` is the number of vCPUs, tsc_hz the TSC
 * frequency told. NULL on error, with one sentence in error[]. Freed with host_free. */
struct cpuid_policy *cpuid_policy_create(const char *spec, unsigned cpus, u64 tsc_hz, char *error, size_t error_size);
/* Names of the models, ended by NULL. */
const char *const *cpuid_model_names(void);

bool cpuid_has(const struct cpuid_policy *policy, enum cpu_feature feature);
/* What the CPUID instruction gives on this vCPU now (OSXSAVE, APIC ID, XSAVE sizes by XCR0...). */
void cpuid_answer(struct vcpu *vcpu, u32 leaf, u32 subleaf, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx);
/* Fill the vCPU's derived fields (cr4_valid, efer_valid, physical_bits...) from the policy, and vcpu->cpuid. */
void cpuid_apply(struct vcpu *vcpu, const struct cpuid_policy *policy);

#endif
