/* Which CPU features guests can have when the processor executes them: its own, and what nadir does by exits or only tells. The software engines have
 * more, since they execute what belongs to system software themselves. And names of techniques (features.h). */
#include "engine/hw/features.h"
#include "engine/hw/hw.h"

#include "cpu/cpuid.h"
#include "cpu/host_cpuid.h"

static const u8 own[] = {
	FEATURE_APIC, FEATURE_MTRR, FEATURE_MCE, FEATURE_MCA, FEATURE_X2APIC, FEATURE_TSC_DEADLINE, FEATURE_TSC_ADJUST, FEATURE_HYPERVISOR,
	FEATURE_ARAT, FEATURE_ARCH_CAPABILITIES, FEATURE_TOPOEXT, FEATURE_INVARIANT_TSC, FEATURE_HT, FEATURE_CMP_LEGACY, FEATURE_ZERO_FCS_FDS,
	FEATURE_AMD_SSB_NO, FEATURE_BTC_NO, FEATURE_NULL_SEL_CLR_BASE, FEATURE_SRSO_NO, FEATURE_TSA_SQ_NO, FEATURE_TSA_L1_NO,
	FEATURE_KVM_NOPIODELAY, FEATURE_KVM_CLOCK, FEATURE_KVM_STEAL_TIME, FEATURE_KVM_PV_EOI, FEATURE_KVM_PV_UNHALT, FEATURE_KVM_PV_TLB_FLUSH,
	FEATURE_KVM_PV_IPI, FEATURE_KVM_PV_SCHED_YIELD, FEATURE_KVM_CLOCK_STABLE,
};

static const struct {
	u32 leaf, subleaf;
	u8 reg, bit;
} rows[FEATURE_COUNT] = {
#define X(id, text, leaf, subleaf, reg, bit) { leaf, subleaf, reg, bit },
	CPU_FEATURES(X)
#undef X
};

static bool is_own(unsigned feature)
{
	for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
		if (own[i] == feature)
			return true;
	return false;
}

/* What shadows of page tables do not have (engine/hw/guest.h). */
static const u8 not_shadowed[] = { FEATURE_LA57, FEATURE_PCID, FEATURE_INVPCID, FEATURE_PKU };

void hw_limit(struct cpuid_policy *available, bool nested)
{
	cpuid_available(available);
	for (unsigned i = 0; i < ARRAY_SIZE(not_shadowed) && !nested; i++)
		available->features[not_shadowed[i] / 64] &= ~BIT(not_shadowed[i] % 64);
	for (unsigned i = 0; i < FEATURE_COUNT; i++)
		if (!is_own(i) && !(host_cpuid_checked(rows[i].leaf, rows[i].subleaf).reg[rows[i].reg] >> rows[i].bit & 1))
			available->features[i / 64] &= ~BIT(i % 64);
}

/* ---- techniques ---- */

static bool find_technique(const char *name, size_t length, u64 *set)
{
	static const char *const names[HW_TECHNIQUE_COUNT] = {
#define X(id, text) text,
		HW_TECHNIQUES(X)
#undef X
	};
	for (unsigned i = 0; i < HW_TECHNIQUE_COUNT; i++) {
		size_t n = 0;
		while (n < length && names[i][n] == name[n])
			n++;
		if (n == length && !names[i][n]) {
			*set |= BIT(i);
			return true;
		}
	}
	return false;
}

bool hw_techniques_read(const char *list, u64 *set)
{
	*set = 0;
	for (;;) {
		size_t length = 0;
		while (list[length] && list[length] != ',')
			length++;
		if (!find_technique(list, length, set))
			return false;
		if (!list[length])
			return true;
		list += length + 1;
	}
}
