/* Which CPU features guests can have when the processor executes them: its own, and what nadir does by exits or only tells. The software engines have
 * more, since they execute what belongs to system software themselves. And names of techniques (features.h). */
#include "engine/hw/features.h"
#include "engine/hw/hw.h"

#include "cpu/cpuid.h"
#include "cpu/host_cpuid.h"

static const u8 own[] = {
	FEATURE_APIC, FEATURE_MTRR, FEATURE_MCE, FEATURE_MCA, FEATURE_X2APIC, FEATURE_TSC_DEADLINE, FEATURE_TSC_ADJUST, FEATURE_HYPERVISOR,
	FEATURE_ARAT, FEATURE_TOPOEXT, FEATURE_INVARIANT_TSC, FEATURE_HT, FEATURE_CMP_LEGACY, FEATURE_ZERO_FCS_FDS, FEATURE_NULL_SEL_CLR_BASE,
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

/* IA32_ARCH_CAPABILITIES says in nadir that the processor is affected by nothing (cpu/msr.c), which is true of software engines only. Here the branches that run
 * are the guest's own, so that kernels must defend themselves as this processor needs it: they know by its model, and by its own "not affected" bits. */
static const u8 untrue[] = { FEATURE_ARCH_CAPABILITIES };

/* What shadows of page tables do not have (engine/hw/guest.h). */
static const u8 not_shadowed[] = { FEATURE_LA57, FEATURE_PCID, FEATURE_INVPCID, FEATURE_PKU };

static void take_away(struct cpuid_policy *available, const u8 *features, size_t count)
{
	for (size_t i = 0; i < count; i++)
		available->features[features[i] / 64] &= ~BIT(features[i] % 64);
}

void hw_limit(struct cpuid_policy *available, bool nested)
{
	cpuid_available(available);
	take_away(available, untrue, ARRAY_SIZE(untrue));
	if (!nested)
		take_away(available, not_shadowed, ARRAY_SIZE(not_shadowed));
	for (unsigned i = 0; i < FEATURE_COUNT; i++)
		if (!is_own(i) && !(host_cpuid_checked(rows[i].leaf, rows[i].subleaf).reg[rows[i].reg] >> rows[i].bit & 1))
			take_away(available, (u8[]){ (u8)i }, 1);
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
