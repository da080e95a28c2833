/* Whether the host's KVM can be used, and making machines and vCPUs in it. */
#include "engine/kvm/kvm.h"

#include "cpu/host_cpuid.h"
#include "engine/step/step.h"
#include "lib/string.h"

#define EMULATOR_CODE (1u << 20)
/* Four pages for KVM's own use on processors that cannot run real mode; where QEMU has them, since nothing else is there. */
#define IDENTITY_MAP 0xfeffc000ull
#define TASK_STATE 0xfeffd000ull

#define NEEDED(name) { KVM_CAP_##name, "its KVM lacks KVM_CAP_" #name ", which Linux has had for long: update the host's kernel" }

static const struct {
	u64 capability;
	const char *why;
} needed[] = {
	NEEDED(USER_MEMORY), NEEDED(READONLY_MEM), NEEDED(EXT_CPUID), NEEDED(VCPU_EVENTS), NEEDED(DEBUGREGS), NEEDED(XSAVE), NEEDED(XCRS),
	NEEDED(SYNC_REGS), NEEDED(IMMEDIATE_EXIT), NEEDED(X86_USER_SPACE_MSR), NEEDED(X86_MSR_FILTER), NEEDED(SET_TSS_ADDR),
};

bool kvm_available(const char **why)
{
	int file = host_kvm_open();
	if (file < 0) {
		*why = host_kvm_obstacle();
		return false;
	}
	if (host_kvm_call(file, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		*why = "its KVM speaks another version of the interface";
		return false;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
		if (host_kvm_call(file, KVM_CHECK_EXTENSION, needed[i].capability) > 0)
			continue;
		*why = needed[i].why;
		return false;
	}
	return true;
}

static bool hardware_visible(void)
{
	return (host_cpuid_checked(1, 0).reg[CPUID_ECX] >> 5 & 1) || (host_cpuid_checked(0x80000001, 0).reg[CPUID_ECX] >> 2 & 1);
}

/* What has no hardware below it interprets the guest, or its kernel at least, and binary translation is faster: no trial is needed then. */
bool kvm_preferred(const char **why)
{
	if (!kvm_available(why))
		return false;
	*why = hardware_visible() ? host_kvm_trial() : "this machine shows neither VT-x nor AMD-V, so its KVM interprets guests in software";
	return !*why;
}

/* ---- CPUID ---- */

#define ENTRIES_MAX 256

struct cpuid_list {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entry[ENTRIES_MAX];
};

/* What nadir does by itself, by exits or by telling, whatever KVM supports. */
static const u8 own_features[] = {
	FEATURE_APIC, FEATURE_MTRR, FEATURE_MCE, FEATURE_MCA, FEATURE_PAT, FEATURE_X2APIC, FEATURE_TSC_DEADLINE, FEATURE_TSC_ADJUST, FEATURE_HYPERVISOR,
	FEATURE_ARAT, FEATURE_ARCH_CAPABILITIES, FEATURE_TOPOEXT, FEATURE_INVARIANT_TSC, FEATURE_HT, FEATURE_CMP_LEGACY, FEATURE_ZERO_FCS_FDS,
	FEATURE_AMD_SSB_NO, FEATURE_BTC_NO, FEATURE_NULL_SEL_CLR_BASE, FEATURE_SRSO_NO, FEATURE_TSA_SQ_NO, FEATURE_TSA_L1_NO, FEATURE_CX16,
	/* Of KVM's interface what lives in memory and MSRs. KVM would take hypercalls itself, and knows neither local APICs nor who sleeps. */
	FEATURE_KVM_NOPIODELAY, FEATURE_KVM_CLOCK, FEATURE_KVM_CLOCK_STABLE, FEATURE_KVM_STEAL_TIME, FEATURE_KVM_PV_EOI,
};

static const struct {
	u32 leaf, subleaf;
	u8 reg, bit;
} feature_bits[FEATURE_COUNT] = {
#define X(id, text, leaf, subleaf, reg, bit) { leaf, subleaf, reg, bit },
	CPU_FEATURES(X)
#undef X
};

static u32 supported(const struct cpuid_list *list, u32 leaf, u32 subleaf, unsigned reg)
{
	for (unsigned i = 0; i < list->head.nent; i++) {
		const struct kvm_cpuid_entry2 *e = &list->entry[i];
		if (e->function == leaf && (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
			return (const u32[]){ e->eax, e->ebx, e->ecx, e->edx }[reg];
	}
	return 0;
}

void kvm_limit(struct cpuid_policy *available, enum mmu_mode mmu)
{
	struct cpuid_list *list = host_alloc(sizeof(*list));
	memset(available->features, 0, sizeof(available->features));
	if (!list)
		return;
	list->head.nent = ENTRIES_MAX;
	if (host_kvm_call(host_kvm_open(), KVM_GET_SUPPORTED_CPUID, (u64)(uintptr_t)list) < 0)
		list->head.nent = 0;
	for (unsigned i = 0; i < FEATURE_COUNT; i++)
		if (feature_bits[i].leaf != 0x40000001 && supported(list, feature_bits[i].leaf, feature_bits[i].subleaf, feature_bits[i].reg) >> feature_bits[i].bit & 1)
			available->features[i / 64] |= BIT(i % 64);
	for (unsigned i = 0; i < ARRAY_SIZE(own_features); i++)
		available->features[own_features[i] / 64] |= BIT(own_features[i] % 64);
	host_free(list);
}

static void add_leaf(struct vcpu *v, struct cpuid_list *list, u32 leaf, u32 subleaf, bool indexed)
{
	if (list->head.nent == ENTRIES_MAX)
		return;
	struct kvm_cpuid_entry2 *e = &list->entry[list->head.nent++];
	*e = (struct kvm_cpuid_entry2){ .function = leaf, .index = subleaf, .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0 };
	cpuid_answer(v, leaf, subleaf, &e->eax, &e->ebx, &e->ecx, &e->edx);
}

/* Leaves with subleaves, and how many there are at most. */
static unsigned subleaves(u32 leaf)
{
	static const struct {
		u32 leaf;
		unsigned count;
	} list[] = { { 4, 5 }, { 7, 2 }, { 0xb, 3 }, { 0xd, XSTATE_COMPONENTS }, { 0x1f, 3 }, { 0x8000001d, 5 } };
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		if (list[i].leaf == leaf)
			return list[i].count;
	return 0;
}

static void add_range(struct vcpu *v, struct cpuid_list *list, u32 first, u32 most)
{
	u32 last, unused;
	cpuid_answer(v, first, 0, &last, &unused, &unused, &unused);
	for (u32 leaf = first; leaf <= MIN(last, first + most); leaf++) {
		unsigned count = subleaves(leaf);
		for (unsigned i = 0; i < MAX(count, 1u); i++)
			add_leaf(v, list, leaf, i, count > 0);
	}
}

/* KVM keeps what changes (OSXSAVE, the sizes of leaf DH, APIC) true. */
static bool give_cpuid(struct vcpu *v, struct kvm_vcpu *k)
{
	struct cpuid_list *list = host_alloc(sizeof(*list));
	if (!list)
		return false;
	add_range(v, list, 0, 0x20);
	add_range(v, list, 0x40000000, 0x10);
	add_range(v, list, 0x80000000, 0x21);
	bool good = kvm_call(k, KVM_SET_CPUID2, list) >= 0;
	host_free(list);
	return good;
}

/* ---- MSRs ---- */

/* All leave but those that KVM keeps; x2APIC's do anyway, as KVM has no local APIC. */
static bool filter_msrs(int file)
{
	/* 0 to 1fffH, and the same from c0000000H on: a bit that is set is allowed. */
	static const u32 base[2] = { 0, 0xc0000000 };
	u8 bitmap[2][0x2000 / 8] = { { 0 } };
	struct kvm_msr_filter filter = { .flags = KVM_MSR_FILTER_DEFAULT_DENY };
	const u32 *msr;
	unsigned count = kvm_native_msrs(&msr);
	for (unsigned i = 0; i < count; i++)
		bitmap[msr[i] >> 31][(msr[i] & 0x1fff) / 8] |= (u8)BIT(msr[i] % 8);
	for (unsigned i = 0; i < 2; i++)
		filter.ranges[i] = (struct kvm_msr_filter_range){ .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, .nmsrs = 0x2000,
								  .base = base[i], .bitmap = bitmap[i] };
	return host_kvm_call(file, KVM_X86_SET_MSR_FILTER, (u64)(uintptr_t)&filter) >= 0;
}

static bool enable(int file, u32 capability, u64 argument)
{
	struct kvm_enable_cap cap = { .cap = capability, .args = { argument } };
	return host_kvm_call(file, KVM_ENABLE_CAP, (u64)(uintptr_t)&cap) >= 0;
}

/* ---- machines ---- */

static bool set_up(struct kvm_machine *m)
{
	u64 identity = IDENTITY_MAP;
	/* Without it KVM raises #UD for what it cannot emulate at CPL 3. */
	enable(m->file, KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
	host_kvm_call(m->file, KVM_SET_IDENTITY_MAP_ADDR, (u64)(uintptr_t)&identity);
	/* One that does not run what kernels do is not trusted with what only debuggers do. */
	m->points = !host_kvm_trial();
	m->has_sregs2 = host_kvm_call(m->file, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
	return host_kvm_call(m->file, KVM_SET_TSS_ADDR, TASK_STATE) >= 0 &&
	       enable(m->file, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER) &&
	       filter_msrs(m->file);
}

static struct kvm_machine *machine_create(void)
{
	struct kvm_machine *m = host_alloc(sizeof(*m));
	if (!m)
		return NULL;
	host_lock_init(&m->lock);
	m->file = host_kvm_call(host_kvm_open(), KVM_CREATE_VM, 0);
	if (m->file >= 0 && set_up(m))
		return m;
	if (m->file >= 0)
		host_kvm_close(m->file);
	host_free(m);
	return NULL;
}

static void machine_release(struct ram *ram)
{
	struct kvm_machine *m = ram->engine;
	if (m->vcpus)
		return;
	host_kvm_close(m->file);
	host_free(m);
	ram->engine = NULL;
}

/* ---- vCPUs ---- */

static bool create_in_kvm(struct vcpu *v, struct kvm_vcpu *k)
{
	int size = host_kvm_call(host_kvm_open(), KVM_GET_VCPU_MMAP_SIZE, 0);
	int file = host_kvm_call(k->machine->file, KVM_CREATE_VCPU, v->index);
	if (file < 0)
		return false;
	if (size < (int)sizeof(struct kvm_run) || host_kvm_map(&k->host, file, (u64)size, offsetof(struct kvm_run, immediate_exit)) < 0) {
		host_kvm_close(file);
		return false;
	}
	k->run = k->host.run;
	k->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	return give_cpuid(v, k);
}

int kvm_vcpu_create(struct vcpu *v)
{
	if (step_create(v, EMULATOR_CODE) < 0)
		return -1;
	struct kvm_vcpu *k = step_of(v)->translator = host_alloc(sizeof(*k));
	step_of(v)->shared = true;
	if (!v->ram->engine)
		v->ram->engine = machine_create();
	struct kvm_machine *m = v->ram->engine;
	if (k && m) {
		k->machine = m;
		k->known = k->changed = GROUP_ALL;
		k->tell_cr8 = true;
		m->vcpus++;
		if (create_in_kvm(v, k))
			return 0;
	}
	kvm_vcpu_destroy(v);
	return -1;
}

void kvm_vcpu_destroy(struct vcpu *v)
{
	struct kvm_vcpu *k = kvm_of(v);
	if (k && k->machine) {
		if (k->run)
			host_kvm_unmap(&k->host);
		k->machine->vcpus--;
		machine_release(v->ram);
	}
	host_free(k);
	step_destroy(v);
}
