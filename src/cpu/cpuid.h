/* CPUID as a policy (H5): a named model, features added and taken away by the user, always cut down to what the host
 * has and nadir can virtualize. Constant once made; shared by all vCPUs of a VM (the per-vCPU leaves are filled in at
 * the answer). */
#ifndef NADIR_CPU_CPUID_H
#define NADIR_CPU_CPUID_H

#include "arch/cpuid.h"
#include "vcpu/vcpu.h"

/* State components 0 to 7: x87, SSE, AVX, the two of MPX (never given), and the three of AVX-512. */
#define XSTATE_COMPONENTS 8

/* Where a state component lies in the standard format of XSAVE. Components 0 and 1 lie in the legacy region. */
struct xstate_layout {
	u32 offset, size;
	bool align64; /* starts at a multiple of 64 in the compacted format */
};

/* Constant after creation. Other modules read it through the functions below. */
struct cpuid_policy {
	u64 features[(FEATURE_COUNT + 63) / 64];
	char vendor[12];
	bool amd;      /* AMD's leaves, MSRs and limits */
	u32 signature; /* leaf 1, EAX */
	char brand[48];
	unsigned cpus;
	u64 tsc_hz;
	u32 tsc_numerator,
		tsc_denominator; /* TSC frequency = 1 GHz * numerator / denominator, as near as 12 bits give */
	u8 physical_bits, linear_bits;
	u64 xcr0; /* what XCR0 may hold */
	struct xstate_layout xstate[XSTATE_COMPONENTS];
};

/* Make a policy from a specification like QEMU's -cpu: MODEL[,+feature|,-feature]... `cpus` is the number of vCPUs,
 * tsc_hz the TSC frequency told. Model names ignore case, and feature names take `_`, `-` and `.` as the same. Adding a
 * feature adds what it needs, taking one away takes away what needs it; the last word wins. NULL on error, with one
 * sentence in error[]. Freed with host_free. */
struct cpuid_policy *cpuid_policy_create(const char *spec, unsigned cpus, u64 tsc_hz, char *error, size_t error_size);
/* Names of the models, ended by NULL. */
const char *const *cpuid_model_names(void);
/* The name of a feature, as the user writes it. */
const char *cpuid_feature_name(enum cpu_feature feature);

static inline bool cpuid_has(const struct cpuid_policy *policy, enum cpu_feature feature)
{
	return policy->features[feature / 64] >> (feature % 64) & 1;
}

/* The features that a guest may have on this host; nothing else of `policy` is set. */
void cpuid_available(struct cpuid_policy *policy);

/* Take away the features that are not in `available`, whose other fields do not matter, and what needs them; but for those that are nadir's own
 * doing. Before any vCPU is made. */
void cpuid_policy_limit(struct cpuid_policy *policy, const struct cpuid_policy *available);

/* The name of a feature of the policy that is not in `available`, or NULL. */
const char *cpuid_beyond(const struct cpuid_policy *policy, const struct cpuid_policy *available);

/* What the CPUID instruction gives on this vCPU now (OSXSAVE, APIC ID, XSAVE sizes by XCR0...). */
void cpuid_answer(struct vcpu *vcpu, u32 leaf, u32 subleaf, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx);
/* Of vcpu->cpuid; for cpuid_apply. */
void cpuid_collect_words(struct vcpu *vcpu);
/* Fill the vCPU's derived fields (cr4_valid, efer_valid, physical_bits...) from the policy, and vcpu->cpuid. */
void cpuid_apply(struct vcpu *vcpu, const struct cpuid_policy *policy);

#endif
