/* The CPUID instruction: one function a leaf, from the policy and what the vCPU has in CR4 and XCR0 now.
 * Intel SDM volume 2, CPUID; AMD APM volume 3, "Obtaining Processor Information Via the CPUID Instruction"; the
 * hypervisor leaves are KVM's, as the Linux documentation "KVM CPUID bits" and "Hypervisor timing information" tell
 * them. */
#include "cpu/cpuid.h"
#include "cpu/host_cpuid.h"
#include "host/port.h"
#include "lib/string.h"

#define MAX_BASIC 0x1fu
#define MAX_HYPERVISOR 0x40000010u
#define MAX_EXTENDED_INTEL 0x80000008u
#define MAX_EXTENDED_AMD 0x80000021u

#define APIC_BUS_KHZ 1000000u

/* AMD repeats these bits of leaf 1, EDX in leaf 0x80000001, EDX. */
#define AMD_EDX_ALIASES 0x0183f3ffu

struct answer {
	const struct vcpu *vcpu;
	const struct cpuid_policy *policy;
	u32 subleaf;
	u32 eax, ebx, ecx, edx;
};

/* Caches of the virtual processor: the same for all models, so that they survive migration. */
static const struct cache {
	u8 type; /* 1 data, 2 instruction, 3 unified */
	u8 level;
	u16 ways;
	u32 sets;    /* lines of 64 bytes */
	bool shared; /* by all cores */
} caches[] = {
	{ 1, 1, 8, 64, false },    /* 32 KiB */
	{ 2, 1, 8, 64, false },    /* 32 KiB */
	{ 3, 2, 16, 1024, false }, /* 1 MiB */
	{ 3, 3, 16, 16384, true }, /* 16 MiB */
};

static unsigned log2_ceil(unsigned n)
{
	return n > 1 ? 32u - (unsigned)__builtin_clz(n - 1) : 0;
}

static void vendor(struct answer *a, const char *text)
{
	memcpy(&a->ebx, text, 4);
	memcpy(&a->edx, text + 4, 4);
	memcpy(&a->ecx, text + 8, 4);
}

static void leaf_0(struct answer *a)
{
	a->eax = MAX_BASIC;
	vendor(a, a->policy->vendor);
}

static void leaf_1(struct answer *a)
{
	a->eax = a->policy->signature;
	a->ebx = a->vcpu->index << 24 | MIN(a->policy->cpus, 255u) << 16 | 8u << 8;
	if (a->vcpu->cr4 & CR4_OSXSAVE)
		a->ecx = BIT(27);
}

/* "Use leaf 4", and no TLB worth describing. */
static void leaf_2(struct answer *a)
{
	if (!a->policy->amd)
		a->eax = 0x00ff0001;
}

static void cache_leaf(struct answer *a)
{
	if (a->subleaf >= ARRAY_SIZE(caches))
		return;
	const struct cache *c = &caches[a->subleaf];
	unsigned ids = 1u << log2_ceil(a->policy->cpus);
	a->eax = c->type | (u32)c->level << 5 | 1u << 8 | (c->shared ? ids - 1 : 0) << 14;
	a->ebx = 63 | (c->ways - 1u) << 22;
	a->ecx = c->sets - 1;
}

static void leaf_4(struct answer *a)
{
	if (a->policy->amd)
		return;
	cache_leaf(a);
	if (a->eax)
		a->eax |= ((1u << log2_ceil(MIN(a->policy->cpus, 64u))) - 1) << 26;
}

static void leaf_7(struct answer *a)
{
	if (a->subleaf == 0)
		a->eax = 1; /* the highest subleaf */
}

/* One thread a core, all cores in one package; the x2APIC ID is the vCPU's number. */
static void leaf_topology(struct answer *a)
{
	a->ecx = a->subleaf & 0xff;
	a->edx = a->vcpu->index;
	if (a->subleaf == 0) {
		a->ebx = 1;
		a->ecx |= 1u << 8;
	} else if (a->subleaf == 1) {
		a->eax = log2_ceil(a->policy->cpus);
		a->ebx = a->policy->cpus;
		a->ecx |= 2u << 8;
	}
}

static u32 xsave_size(const struct cpuid_policy *policy, u64 mask, bool compact)
{
	u32 size = 576;
	for (unsigned i = 2; i < XSTATE_COMPONENTS; i++) {
		const struct xstate_layout *x = &policy->xstate[i];
		if (!(mask & BIT(i)))
			continue;
		if (!compact)
			size = MAX(size, x->offset + x->size);
		else
			size = (x->align64 ? (size + 63) & ~63u : size) + x->size;
	}
	return size;
}

static void leaf_d(struct answer *a)
{
	const struct cpuid_policy *p = a->policy;
	if (!cpuid_has(p, FEATURE_XSAVE))
		return;
	if (a->subleaf == 0) {
		a->eax = (u32)p->xcr0;
		a->edx = (u32)(p->xcr0 >> 32);
		a->ebx = xsave_size(p, a->vcpu->xcr0, false);
		a->ecx = xsave_size(p, p->xcr0, false);
	} else if (a->subleaf == 1) {
		bool compact = cpuid_has(p, FEATURE_XSAVEC);
		a->ebx = compact ? xsave_size(p, a->vcpu->xcr0 | a->vcpu->msr.xss, true) : 0;
	} else if (a->subleaf < XSTATE_COMPONENTS && p->xcr0 & BIT(a->subleaf)) {
		a->eax = p->xstate[a->subleaf].size;
		a->ebx = p->xstate[a->subleaf].offset;
		a->ecx = p->xstate[a->subleaf].align64 ? 2 : 0;
	}
}

static void leaf_15(struct answer *a)
{
	a->eax = a->policy->tsc_denominator;
	a->ebx = a->policy->tsc_numerator;
	a->ecx = APIC_BUS_KHZ * 1000;
}

static void leaf_16(struct answer *a)
{
	a->eax = (u32)(a->policy->tsc_hz / 1000000) & 0xffff;
	a->ebx = a->eax;
	a->ecx = 100;
}

static void leaf_hypervisor(struct answer *a)
{
	a->eax = MAX_HYPERVISOR;
	memcpy(&a->ebx, "KVMK", 4);
	memcpy(&a->ecx, "VMKV", 4);
	memcpy(&a->edx, "M\0\0\0", 4);
}

static void leaf_timing(struct answer *a)
{
	a->eax = (u32)(a->policy->tsc_hz / 1000);
	a->ebx = APIC_BUS_KHZ;
}

static void leaf_extended(struct answer *a)
{
	a->eax = a->policy->amd ? MAX_EXTENDED_AMD : MAX_EXTENDED_INTEL;
	if (a->policy->amd)
		vendor(a, a->policy->vendor);
}

static void leaf_extended_features(struct answer *a)
{
	if (a->policy->amd)
		a->eax = a->policy->signature;
}

static void brand(struct answer *a, unsigned part)
{
	const char *text = a->policy->brand + 16 * (size_t)part;
	memcpy(&a->eax, text, 4);
	memcpy(&a->ebx, text + 4, 4);
	memcpy(&a->ecx, text + 8, 4);
	memcpy(&a->edx, text + 12, 4);
}

static void leaf_brand_0(struct answer *a)
{
	brand(a, 0);
}

static void leaf_brand_1(struct answer *a)
{
	brand(a, 1);
}

static void leaf_brand_2(struct answer *a)
{
	brand(a, 2);
}

/* AMD: level 1 caches and TLBs; KiB, ways, lines per tag, line size. */
static void leaf_80000005(struct answer *a)
{
	if (!a->policy->amd)
		return;
	a->eax = a->ebx = 0xff40ff40; /* 64 entries, fully associative, for each page size */
	a->ecx = a->edx = 32u << 24 | 8u << 16 | 1u << 8 | 64;
}

/* Level 2 cache (and AMD: TLBs, level 3). The associativity of 16 ways is encoded as 8. */
static void leaf_80000006(struct answer *a)
{
	a->ecx = 1024u << 16 | 8u << 12 | 64;
	if (!a->policy->amd)
		return;
	a->eax = a->ebx = 0x64006400; /* 1024 entries, 8 ways */
	a->ecx |= 1u << 8;
	a->edx = 32u << 18 | 8u << 12 | 1u << 8 | 64; /* 32 * 512 KiB */
}

static void leaf_80000008(struct answer *a)
{
	a->eax = a->policy->physical_bits | (u32)a->policy->linear_bits << 8;
	if (a->policy->amd)
		a->ecx = MIN(a->policy->cpus - 1, 255u) | log2_ceil(a->policy->cpus) << 12;
}

static void leaf_8000001d(struct answer *a)
{
	if (a->policy->amd)
		cache_leaf(a);
}

static void leaf_8000001e(struct answer *a)
{
	if (!a->policy->amd)
		return;
	a->eax = a->vcpu->index;
	a->ebx = a->vcpu->index & 0xff; /* one thread a core */
}

static const struct {
	u32 leaf;
	void (*fill)(struct answer *a);
} leaves[] = { /* in order */
	{ 0, leaf_0 },
	{ 1, leaf_1 },
	{ 2, leaf_2 },
	{ 4, leaf_4 },
	{ 7, leaf_7 },
	{ 0xb, leaf_topology },
	{ 0xd, leaf_d },
	{ 0x15, leaf_15 },
	{ 0x16, leaf_16 },
	{ 0x1f, leaf_topology },
	{ 0x40000000, leaf_hypervisor },
	{ 0x40000010, leaf_timing },
	{ 0x80000000, leaf_extended },
	{ 0x80000001, leaf_extended_features },
	{ 0x80000002, leaf_brand_0 },
	{ 0x80000003, leaf_brand_1 },
	{ 0x80000004, leaf_brand_2 },
	{ 0x80000005, leaf_80000005 },
	{ 0x80000006, leaf_80000006 },
	{ 0x80000008, leaf_80000008 },
	{ 0x8000001d, leaf_8000001d },
	{ 0x8000001e, leaf_8000001e },
};

static const struct {
	u32 leaf;
	u8 subleaf, reg, bit;
} bits[FEATURE_COUNT] = {
#define X(id, text, leaf, subleaf, reg, bit) { leaf, subleaf, reg, bit },
	CPU_FEATURES(X)
#undef X
};

/* Rows of the same register follow each other. */
void cpuid_collect_words(struct vcpu *vcpu)
{
	struct cpuid_word *w = vcpu->cpuid_word, *end = w + CPUID_WORDS - 1;
	*w = (struct cpuid_word){ 0 };
	for (unsigned i = 0; i < FEATURE_COUNT; i++) {
		if (!cpuid_has(vcpu->cpuid, i))
			continue;
		if (w->bits && (w->leaf != bits[i].leaf || w->subleaf != bits[i].subleaf || w->reg != bits[i].reg))
			*++w = (struct cpuid_word){ 0 };
		if (w == end)
			host_panic("CPUID has more words of features than there is room for");
		*w = (struct cpuid_word){ bits[i].leaf, bits[i].subleaf, bits[i].reg, w->bits | (u32)BIT(bits[i].bit) };
	}
	*(w->bits ? w + 1 : w) = (struct cpuid_word){ 0 };
}

/* Leaves 1, 6 and those of AMD ignore the subleaf. */
static bool has_subleaves(u32 leaf)
{
	return leaf == 7 || leaf == 0xd;
}

static void add_features(struct answer *a, u32 leaf)
{
	u32 *const reg[] = { &a->eax, &a->ebx, &a->ecx, &a->edx };
	for (const struct cpuid_word *w = a->vcpu->cpuid_word; w->bits; w++)
		if (w->leaf == leaf && (w->subleaf == a->subleaf || !has_subleaves(leaf)))
			*reg[w->reg] |= w->bits;
}

static bool in_range(const struct cpuid_policy *policy, u32 leaf)
{
	u32 max_extended = policy->amd ? MAX_EXTENDED_AMD : MAX_EXTENDED_INTEL;
	return leaf <= MAX_BASIC || (leaf >= 0x40000000 && leaf <= MAX_HYPERVISOR) ||
	       (leaf >= 0x80000000 && leaf <= max_extended);
}

void cpuid_answer(struct vcpu *vcpu, u32 leaf, u32 subleaf, u32 *eax, u32 *ebx, u32 *ecx, u32 *edx)
{
	struct answer a = { .vcpu = vcpu, .policy = vcpu->cpuid, .subleaf = subleaf };
	/* Beyond the last leaf, Intel's processors answer the last basic one, AMD's zeros. */
	if (!in_range(a.policy, leaf) && !a.policy->amd)
		leaf = MAX_BASIC;
	for (unsigned i = 0; i < ARRAY_SIZE(leaves) && leaves[i].leaf <= leaf; i++)
		if (leaves[i].leaf == leaf)
			leaves[i].fill(&a);
	if (in_range(a.policy, leaf))
		add_features(&a, leaf);
	if (leaf == 0x80000001 && a.policy->amd) {
		struct answer first = { .vcpu = vcpu, .policy = vcpu->cpuid };
		add_features(&first, 1);
		a.edx |= first.edx & AMD_EDX_ALIASES;
	}
	*eax = a.eax;
	*ebx = a.ebx;
	*ecx = a.ecx;
	*edx = a.edx;
}
