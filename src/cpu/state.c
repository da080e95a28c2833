/* What a snapshot says of a CPU, checked: the policy against what this host has, the registers against the policy. */
#include "cpu/state.h"

#include "cpu/control.h"
#include "cpu/cpuid_models.h"
#include "cpu/host_cpuid.h"
#include "cpu/xstate.h"
#include "host/port.h"
#include "lib/string.h"
#include "mmu/mmu.h"

#define TSC_TOLERANCE 250 /* parts per million, which guests take for the drift of a good clock */

/* ---- the policy ---- */

static const struct state_table layout_state = STATE_TABLE(struct xstate_layout, NULL,
	STATE(struct xstate_layout, offset), STATE(struct xstate_layout, size), STATE(struct xstate_layout, align64));

/* The features go by name: their numbers are those of this program alone. */
const struct state_table cpuid_policy_state = STATE_TABLE(struct cpuid_policy, NULL,
	STATE_NONE(struct cpuid_policy, features), STATE(struct cpuid_policy, vendor), STATE(struct cpuid_policy, amd),
	STATE(struct cpuid_policy, signature), STATE(struct cpuid_policy, brand), STATE_SAME(struct cpuid_policy, cpus),
	STATE(struct cpuid_policy, tsc_hz), STATE(struct cpuid_policy, tsc_numerator), STATE(struct cpuid_policy, tsc_denominator),
	STATE(struct cpuid_policy, physical_bits), STATE(struct cpuid_policy, linear_bits), STATE(struct cpuid_policy, xcr0),
	STATE_IN(struct cpuid_policy, xstate, layout_state));

/* Their names, each behind a space, or how long that is. */
static u32 write_names(const struct cpuid_policy *policy, char *names)
{
	u32 size = 0;
	for (unsigned i = 0; i < FEATURE_COUNT; i++) {
		const char *name = cpuid_has(policy, (enum cpu_feature)i) ? cpuid_feature_name((enum cpu_feature)i) : "";
		u32 length = (u32)string_length(name);
		if (!length)
			continue;
		if (names) {
			names[size] = ' ';
			memcpy(names + size + 1, name, length);
		}
		size += length + 1;
	}
	return size;
}

static void save_features(struct state *s, const struct cpuid_policy *policy)
{
	u32 size = write_names(policy, NULL);
	char *names = host_alloc(size);
	if (!names) {
		state_fail(s, STATE_ENDS, NULL);
		return;
	}
	write_names(policy, names);
	state_bytes(s, "CPU features", 0, names, size);
	host_free(names);
}

/* The length of the word that follows the space at the front, with the space. */
static u32 word_size(const u8 *names, u32 size)
{
	u32 n = 1;
	while (n < size && names[n] != ' ')
		n++;
	return n;
}

static int feature_of(const u8 *name, u32 size)
{
	for (unsigned i = 0; i < FEATURE_COUNT; i++) {
		const char *known = cpuid_feature_name((enum cpu_feature)i);
		if (string_length(known) == size && !memcmp(known, name, size))
			return (int)i;
	}
	return -1;
}

static void load_features(struct state *s, struct cpuid_policy *policy)
{
	struct cpuid_policy available;
	const u8 *names;
	u32 size;
	if (!state_take(s, "CPU features", 0, &names, &size))
		return;
	cpuid_available(&available);
	memset(policy->features, 0, sizeof(policy->features));
	while (size) {
		u32 n = word_size(names, size);
		int feature = feature_of(names + 1, n - 1);
		state_check(s, feature >= 0, NULL);
		if (feature < 0)
			return;
		if (!cpuid_has(&available, (enum cpu_feature)feature))
			state_fail(s, STATE_LACKING, cpuid_feature_name((enum cpu_feature)feature));
		policy->features[feature / 64] |= BIT(feature % 64);
		names += n;
		size -= n;
	}
}

static bool same_layout(const struct cpuid_policy *policy)
{
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		const struct xstate_layout *x = &policy->xstate[i];
		u32 offset, size;
		xstate_component(i, &offset, &size);
		if ((policy->xcr0 & BIT(i)) && (x->offset != offset || x->size != size))
			return false;
	}
	return true;
}

static bool same_frequency(u64 a, u64 b)
{
	u64 difference = a > b ? a - b : b - a;
	return difference <= b / 1000000 * TSC_TOLERANCE;
}

void cpuid_state(struct state *s, struct cpuid_policy *policy)
{
	u8 physical_bits = policy->physical_bits;
	if (s->loading)
		load_features(s, policy);
	else
		save_features(s, policy);
	state_section(s, "CPU model", 0, &cpuid_policy_state, policy);
	if (!s->loading || !state_good(s))
		return;
	if (policy->physical_bits > physical_bits)
		state_fail(s, STATE_LACKING, "as many physical address bits");
	if ((policy->xcr0 & ~xstate_host_mask()) || !same_layout(policy))
		state_fail(s, STATE_LACKING, "the same layout of extended state");
	if (!same_frequency(policy->tsc_hz, host_tsc_hz()))
		state_fail(s, STATE_LACKING, "a time-stamp counter of the same frequency");
	state_check(s, policy->physical_bits >= 32 && (policy->linear_bits == 48 || policy->linear_bits == 57), "address bits");
}

/* ---- a vCPU ---- */

/* Intel SDM volume 3, "Checks on Guest Control Registers, Debug Registers, and MSRs", as far as it matters for who runs the guest by software. */
static bool possible(const struct vcpu *v)
{
	bool paging = v->cr0 & CR0_PG;
	bool long_mode = (v->efer & EFER_LME) && paging;
	return !(v->cr0 & ~v->cr0_valid) && !(v->cr4 & ~v->cr4_valid) && !(v->efer & ~v->efer_valid) && !(v->xcr0 & ~(v->xcr0_valid | XCR0_X87)) &&
	       (!paging || (v->cr0 & CR0_PE)) && long_mode == !!(v->efer & EFER_LMA) && (!long_mode || (v->cr4 & CR4_PAE)) &&
	       (v->rflags & RFLAGS_FIXED1);
}

void cpu_state(struct state *s, struct vcpu *vcpu)
{
	struct vcpu *v = vcpu;
	state_section(s, "vCPU", v->index, &vcpu_state, v);
	if (!s->loading || !state_good(s))
		return;
	state_check(s, possible(v), "registers");
	state_check(s, xstate_possible(v), "extended state");
	v->next_rip = v->rip;
	mmu_update_view(v);
	mmu_flush_all(v);
	mmu_load_cr3(v, false);
	debug_update(v);
}
