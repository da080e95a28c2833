/* Making a CPUID policy: model, the user's additions and removals, the host's limits.
 *
 * A feature comes from one of three places: nadir provides it (paging, timers, registers that are virtual anyway), the
 * host's processor does (instructions that run natively), or nobody does. The model says what is wanted; the policy is
 * what remains. */
#include "cpu/cpuid.h"

#include "cpu/cpuid_models.h"
#include "cpu/host_cpuid.h"
#include "host/port.h"
#include "lib/string.h"

#define PHYSICAL_BITS_MAX 46
#define CRYSTAL_HZ 1000000000ull /* also the local APIC timer's clock */

struct feature_row {
	const char *name;
	u32 leaf;
	u8 subleaf, reg, bit;
};

static const struct feature_row rows[FEATURE_COUNT] = {
#define X(id, text, leaf, subleaf, reg, bit) [FEATURE_##id] = { text, leaf, subleaf, reg, bit },
	CPU_FEATURES(X)
#undef X
};

struct builder {
	struct cpuid_policy *policy;
	struct cpuid_policy available; /* only .features is used */
	char *error;
	size_t error_size;
};

static void set(struct cpuid_policy *policy, unsigned feature, bool on)
{
	u64 bit = BIT(feature % 64);
	if (on)
		policy->features[feature / 64] |= bit;
	else
		policy->features[feature / 64] &= ~bit;
}

static void set_all(struct cpuid_policy *policy, const u8 *list, unsigned count, bool on)
{
	for (unsigned i = 0; i < count; i++)
		set(policy, list[i], on);
}

static bool listed(const u8 *list, unsigned count, unsigned feature)
{
	for (unsigned i = 0; i < count; i++)
		if (list[i] == feature)
			return true;
	return false;
}

/* Take away whatever lacks something it needs. The dependencies have no cycles, so this ends. */
static void drop_dependents(struct cpuid_policy *policy)
{
	for (bool changed = true; changed;) {
		changed = false;
		for (unsigned i = 0; i < cpu_dependency_count; i++) {
			const struct cpu_dependency *d = &cpu_dependencies[i];
			if (!cpuid_has(policy, d->feature) || cpuid_has(policy, d->needs))
				continue;
			set(policy, d->feature, false);
			changed = true;
		}
	}
}

static void add_prerequisites(struct cpuid_policy *policy)
{
	for (bool changed = true; changed;) {
		changed = false;
		for (unsigned i = 0; i < cpu_dependency_count; i++) {
			const struct cpu_dependency *d = &cpu_dependencies[i];
			if (!cpuid_has(policy, d->feature) || cpuid_has(policy, d->needs))
				continue;
			set(policy, d->needs, true);
			changed = true;
		}
	}
}

static void drop_without_xcr0(struct cpuid_policy *policy, u64 xcr0)
{
	if ((xcr0 & (XCR0_X87 | XCR0_SSE)) != (XCR0_X87 | XCR0_SSE))
		set(policy, FEATURE_XSAVE, false);
	if (!(xcr0 & XCR0_AVX))
		set(policy, FEATURE_AVX, false);
	if ((xcr0 & XCR0_AVX512) != XCR0_AVX512)
		set(policy, FEATURE_AVX512F, false);
	drop_dependents(policy);
}

void cpuid_available(struct cpuid_policy *available)
{
	struct cpuid_regs regs = { 0 };
	memset(available, 0, sizeof(*available));
	for (unsigned i = 0; i < FEATURE_COUNT; i++) {
		if (i == 0 || rows[i].leaf != rows[i - 1].leaf || rows[i].subleaf != rows[i - 1].subleaf)
			regs = host_cpuid_checked(rows[i].leaf, rows[i].subleaf);
		set(available, i, regs.reg[rows[i].reg] >> rows[i].bit & 1);
	}
	set_all(available, cpu_features_own, cpu_features_own_count, true);
	set_all(available, cpu_features_never, cpu_features_never_count, false);
	drop_without_xcr0(available, host_xcr0());
}

static void intersect(struct cpuid_policy *policy, const struct cpuid_policy *available)
{
	for (unsigned i = 0; i < ARRAY_SIZE(policy->features); i++)
		policy->features[i] &= available->features[i];
	drop_dependents(policy);
}

/* ---- names ---- */

static char fold(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c - 'A' + 'a');
	return c == '_' || c == '.' ? '-' : c;
}

static bool same_name(const char *name, const char *text, size_t length)
{
	if (string_length(name) != length)
		return false;
	for (size_t i = 0; i < length; i++)
		if (fold(name[i]) != fold(text[i]))
			return false;
	return true;
}

static int find_feature(const char *text, size_t length)
{
	for (unsigned i = 0; i < FEATURE_COUNT; i++)
		if (same_name(rows[i].name, text, length))
			return (int)i;
	return -1;
}

static const struct cpu_model *find_model(const char *text, size_t length)
{
	for (unsigned i = 0; i < cpu_model_count; i++)
		if (same_name(cpu_models[i].name, text, length))
			return &cpu_models[i];
	return NULL;
}

/* Length of the word that starts at text and ends at `separator` or the end. */
static size_t word_length(const char *text, char separator)
{
	size_t n = 0;
	while (text[n] && text[n] != separator)
		n++;
	return n;
}

const char *const *cpuid_model_names(void)
{
	return cpu_model_names;
}

const char *cpuid_feature_name(enum cpu_feature feature)
{
	return (unsigned)feature < FEATURE_COUNT ? rows[feature].name : NULL;
}

/* ---- the model ---- */

static void add_listed_features(struct cpuid_policy *policy, const char *names)
{
	while (*names) {
		size_t length = word_length(names, ' ');
		int feature = find_feature(names, length);
		if (feature < 0)
			host_panic("CPU model table: no feature %.*s", (int)length, names);
		set(policy, (unsigned)feature, true);
		names += length + (names[length] == ' ');
	}
}

static void add_model_features(struct cpuid_policy *policy, const struct cpu_model *model,
			       const struct cpuid_policy *available)
{
	if (!model->features)
		memcpy(policy->features, available->features, sizeof(policy->features));
	for (const struct cpu_model *m = model; m && m->features;
	     m = m->base ? find_model(m->base, string_length(m->base)) : NULL)
		add_listed_features(policy, m->features);
	set_all(policy, cpu_features_always, cpu_features_always_count, true);
}

static void read_host_vendor(char vendor[12])
{
	struct cpuid_regs r = host_cpuid(0, 0);
	memcpy(vendor, &r.reg[CPUID_EBX], 4);
	memcpy(vendor + 4, &r.reg[CPUID_EDX], 4);
	memcpy(vendor + 8, &r.reg[CPUID_ECX], 4);
}

/* Leaf 1, EAX. Intel SDM volume 2, CPUID, "Version Information". */
static u32 signature(unsigned family, unsigned model, unsigned stepping)
{
	unsigned extended = family > 15 ? family - 15 : 0;
	return extended << 20 | (model >> 4) << 16 | MIN(family, 15u) << 8 | (model & 15) << 4 | stepping;
}

static void set_identity(struct cpuid_policy *policy, const struct cpu_model *model)
{
	if (model->vendor)
		memcpy(policy->vendor, model->vendor, sizeof(policy->vendor));
	else
		read_host_vendor(policy->vendor);
	policy->amd = !memcmp(policy->vendor, "AuthenticAMD", 12) || !memcmp(policy->vendor, "HygonGenuine", 12);
	if (model->family)
		policy->signature = signature(model->family, model->model, model->stepping);
	else if (!model->features)
		policy->signature = host_cpuid(1, 0).reg[CPUID_EAX] & 0x0fff0fff;
	else /* A processor level: as the first EPYC of Zen 2, or as Skylake. */
		policy->signature = policy->amd ? signature(23, 49, 0) : signature(6, 94, 3);
	host_snprintf(policy->brand, sizeof(policy->brand), "nadir virtual CPU (%s)", model->name);
}

/* ---- the user's features ---- */

static bool fail(struct builder *b, const char *format, const char *text, size_t length)
{
	host_snprintf(b->error, b->error_size, format, (int)length, text);
	return false;
}

static bool add_feature(struct builder *b, unsigned feature)
{
	const char *name = rows[feature].name;
	if (listed(cpu_features_never, cpu_features_never_count, feature))
		return fail(b, "nadir does not give guests the CPU feature %.*s: leave it out", name,
			    string_length(name));
	set(b->policy, feature, true);
	add_prerequisites(b->policy);
	for (unsigned i = 0; i < FEATURE_COUNT; i++)
		if (cpuid_has(b->policy, i) && !cpuid_has(&b->available, i))
			return fail(b, "this machine does not have the CPU feature %.*s: leave it out", rows[i].name,
				    string_length(rows[i].name));
	return true;
}

static bool apply_word(struct builder *b, const char *word, size_t length)
{
	if (length < 2 || (word[0] != '+' && word[0] != '-'))
		return fail(b, "CPU option '%.*s' is not +FEATURE or -FEATURE", word, length);
	int feature = find_feature(word + 1, length - 1);
	if (feature < 0)
		return fail(b, "there is no CPU feature named '%.*s'", word + 1, length - 1);
	if (word[0] == '+')
		return add_feature(b, (unsigned)feature);
	set(b->policy, (unsigned)feature, false);
	drop_dependents(b->policy);
	return true;
}

/* ---- everything else ---- */

/* The nearest fraction with a numerator below 4295: kernels multiply it by the crystal's kHz in 32 bits.
 * Intel SDM volume 2, CPUID leaf 15H. */
static void set_tsc_ratio(struct cpuid_policy *policy)
{
	u64 best = ~0ull;
	for (u64 d = 1; d <= 4294; d++) {
		u64 n = (policy->tsc_hz * d + CRYSTAL_HZ / 2) / CRYSTAL_HZ;
		if (!n || n > 4294)
			continue;
		u64 told = CRYSTAL_HZ * n / d;
		u64 error = told > policy->tsc_hz ? told - policy->tsc_hz : policy->tsc_hz - told;
		if (error >= best)
			continue;
		best = error;
		policy->tsc_numerator = (u32)n;
		policy->tsc_denominator = (u32)d;
	}
}

static void set_xstate(struct cpuid_policy *policy)
{
	if (cpuid_has(policy, FEATURE_XSAVE))
		policy->xcr0 = XCR0_X87 | XCR0_SSE;
	if (cpuid_has(policy, FEATURE_AVX))
		policy->xcr0 |= XCR0_AVX;
	if (cpuid_has(policy, FEATURE_AVX512F))
		policy->xcr0 |= XCR0_AVX512;
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		if (!(policy->xcr0 & BIT(i)))
			continue;
		struct cpuid_regs r = host_cpuid(0xd, i);
		policy->xstate[i] = (struct xstate_layout){
			.offset = r.reg[CPUID_EBX],
			.size = r.reg[CPUID_EAX],
			.align64 = r.reg[CPUID_ECX] & 2,
		};
		if (policy->xstate[i].offset + policy->xstate[i].size > XSAVE_AREA_SIZE)
			host_panic("state component %u does not fit in the vCPU's XSAVE image", i);
	}
}

static void set_address_bits(struct cpuid_policy *policy)
{
	u8 physical = host_cpuid_checked(0x80000008, 0).reg[CPUID_EAX] & 0xff;
	policy->physical_bits = MIN(physical ? physical : 36, PHYSICAL_BITS_MAX);
	policy->linear_bits = cpuid_has(policy, FEATURE_LA57) ? 57 : 48;
}

static void set_topology(struct cpuid_policy *policy)
{
	set(policy, FEATURE_HT, policy->cpus > 1);
	set(policy, FEATURE_CMP_LEGACY, policy->cpus > 1 && policy->amd);
}

static bool build(struct builder *b, const char *spec)
{
	size_t length = word_length(spec, ',');
	const struct cpu_model *model = find_model(spec, length);
	if (!model)
		return fail(b, "there is no CPU model named '%.*s': nadir run --help names them", spec, length);
	cpuid_available(&b->available);
	set_identity(b->policy, model);
	add_model_features(b->policy, model, &b->available);
	if (!b->policy->amd)
		set_all(b->policy, cpu_features_amd, cpu_features_amd_count, false);
	set_topology(b->policy);
	intersect(b->policy, &b->available);
	for (const char *word = spec + length; *word; word += length) {
		length = word_length(++word, ',');
		if (!apply_word(b, word, length))
			return false;
	}
	set_tsc_ratio(b->policy);
	set_xstate(b->policy);
	set_address_bits(b->policy);
	return true;
}

struct cpuid_policy *cpuid_policy_create(const char *spec, unsigned cpus, u64 tsc_hz, char *error, size_t error_size)
{
	struct cpuid_policy *policy = host_alloc(sizeof(*policy));
	struct builder b = { .policy = policy, .error = error, .error_size = error_size };
	if (!policy) {
		host_snprintf(error, error_size, "not enough memory for the CPU model");
		return NULL;
	}
	policy->cpus = MAX(cpus, 1u);
	policy->tsc_hz = tsc_hz;
	if (build(&b, spec))
		return policy;
	host_free(policy);
	return NULL;
}

const char *cpuid_beyond(const struct cpuid_policy *policy, const struct cpuid_policy *available)
{
	for (unsigned i = 0; i < FEATURE_COUNT; i++)
		if (cpuid_has(policy, i) && !cpuid_has(available, i))
			return rows[i].name;
	return NULL;
}

void cpuid_policy_limit(struct cpuid_policy *policy, const struct cpuid_policy *available)
{
	intersect(policy, available);
	policy->xcr0 = 0;
	set_xstate(policy);
	policy->linear_bits = cpuid_has(policy, FEATURE_LA57) ? 57 : 48;
}

/* ---- what the vCPU's registers may hold ---- */

static const struct {
	u8 feature;
	u64 bits;
} cr4_gates[] = {
	{ FEATURE_VME, CR4_VME | CR4_PVI },
	{ FEATURE_TSC, CR4_TSD },
	{ FEATURE_DE, CR4_DE },
	{ FEATURE_PSE, CR4_PSE },
	{ FEATURE_PAE, CR4_PAE },
	{ FEATURE_MCE, CR4_MCE },
	{ FEATURE_PGE, CR4_PGE },
	{ FEATURE_FXSR, CR4_OSFXSR },
	{ FEATURE_SSE, CR4_OSXMMEXCPT },
	{ FEATURE_UMIP, CR4_UMIP },
	{ FEATURE_LA57, CR4_LA57 },
	{ FEATURE_FSGSBASE, CR4_FSGSBASE },
	{ FEATURE_PCID, CR4_PCIDE },
	{ FEATURE_XSAVE, CR4_OSXSAVE },
	{ FEATURE_SMEP, CR4_SMEP },
	{ FEATURE_SMAP, CR4_SMAP },
}, efer_gates[] = {
	{ FEATURE_SYSCALL, EFER_SCE },
	{ FEATURE_LM, EFER_LME | EFER_LMA },
	{ FEATURE_NX, EFER_NXE },
	{ FEATURE_FFXSR, EFER_FFXSR },
};

void cpuid_apply(struct vcpu *vcpu, const struct cpuid_policy *policy)
{
	vcpu->cpuid = policy;
	vcpu->cr0_valid =
		CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
	vcpu->cr4_valid = CR4_PCE;
	for (unsigned i = 0; i < ARRAY_SIZE(cr4_gates); i++)
		if (cpuid_has(policy, cr4_gates[i].feature))
			vcpu->cr4_valid |= cr4_gates[i].bits;
	vcpu->efer_valid = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(efer_gates); i++)
		if (cpuid_has(policy, efer_gates[i].feature))
			vcpu->efer_valid |= efer_gates[i].bits;
	vcpu->xcr0_valid = policy->xcr0;
	vcpu->linear_bits = policy->linear_bits;
	vcpu->physical_bits = policy->physical_bits;
	vcpu->pages_1g = cpuid_has(policy, FEATURE_PDPE1GB);
	cpuid_collect_words(vcpu);
}
