/* Whether the CPU has what the engine needs, and vCPUs with their permission maps. AMD APM volume 2, "Enabling SVM", "I/O Intercepts", "MSR Intercepts". */
#include "engine/svm/svm.h"

#include "cpu/host_cpuid.h"
#include "engine/hw/features.h"
#include "engine/step/step.h"
#include "lib/string.h"

#define EMULATOR_CODE (1u << 20)
#define PAUSES 3000 /* that leave the guest, if they come within THRESHOLD ticks of each other */
#define PAUSE_THRESHOLD 128

static u32 svm_features(void)
{
	return host_cpuid_checked(0x8000000a, 0).reg[CPUID_EDX];
}

static u32 wanted_features(const struct vcpu *v)
{
	static const struct {
		u8 technique;
		u32 feature;
	} rows[] = {
		{ HW_NEXT_RIP, SVM_NEXT_RIP },
		{ HW_CLEAN_BITS, SVM_CLEAN_BITS },
		{ HW_FLUSH_BY_ASID, SVM_FLUSH_BY_ASID },
		{ HW_DECODE_ASSISTS, SVM_DECODE_ASSISTS },
		{ HW_PAUSE_FILTER, SVM_PAUSE_FILTER },
	};
	u32 features = svm_features();
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (v->without & BIT(rows[i].technique))
			features &= ~rows[i].feature;
	return features;
}

static bool is_tcg(void)
{
	bool below = host_cpuid(1, 0).reg[CPUID_ECX] & BIT(31); /* a hypervisor, which says who it is */
	struct cpuid_regs r = host_cpuid(0x40000000, 0);
	return below && r.reg[CPUID_EBX] == 0x54474354 && r.reg[CPUID_ECX] == 0x43544743 && r.reg[CPUID_EDX] == 0x47435447; /* TCGTCGTCGTCG */
}

extern const u8 svm_vm_cr_read[], svm_vm_cr_behind[];

static bool lacks_vm_cr(struct host_trap *trap)
{
	if (trap->pc != (u64)(uintptr_t)svm_vm_cr_read)
		return false;
	trap->pc = (u64)(uintptr_t)svm_vm_cr_behind;
	return true;
}

/* 0 on a CPU without it, such as Bochs'. */
static __attribute__((noinline)) u64 read_vm_cr(void)
{
	u32 low = 0, high = 0;
	host_set_trap_handler(lacks_vm_cr);
	__asm__ volatile(".globl svm_vm_cr_read, svm_vm_cr_behind\n"
			 "svm_vm_cr_read:\trdmsr\n"
			 "svm_vm_cr_behind:"
			 : "+a"(low), "+d"(high)
			 : "c"(MSR_VM_CR));
	host_set_trap_handler(NULL);
	return low | (u64)high << 32;
}

bool svm_available(const char **why)
{
	if (!host_bare_cpu(why))
		return false;
	if (!(host_cpuid_checked(0x80000001, 0).reg[CPUID_ECX] & CPUID_SVM)) {
		*why = "this processor lacks AMD-V (SVM)";
		return false;
	}
	if (read_vm_cr() & VM_CR_SVMDIS) {
		*why = "AMD-V is disabled by the firmware: enable SVM in its setup";
		return false;
	}
	return hw_registers_available(why);
}

static const struct hw_memory_ops *memory_ops(enum mmu_mode mode)
{
	return hw_memory_choose(mode, svm_features() & SVM_NESTED_PAGING);
}

static void limit(struct cpuid_policy *available, enum mmu_mode mode)
{
	const struct hw_memory_ops *ops = memory_ops(mode);
	hw_limit(available, ops && ops->nested);
}

/* ---- permission maps ---- */

/* Two bits an MSR, read and write, in three ranges of 2000H: set, the access leaves. */
static void set_msr_map(struct vcpu *v, u8 *map)
{
	static const u32 base[3] = { 0, 0xc0000000, 0xc0010000 };
	unsigned count;
	const struct hw_msr *msr = hw_native_msrs(&count);
	memset(map, 0xff, SVM_MSR_PAGES * PAGE_SIZE);
	for (unsigned i = 0; i < count; i++) {
		unsigned range = 0;
		if (!hw_msr_is_native(v, &msr[i]))
			continue;
		while (range < 2 && msr[i].index - base[range] >= 0x2000)
			range++;
		unsigned bit = 2 * (range * 0x2000 + msr[i].index - base[range]);
		map[bit / 8] &= (u8)~(3u << bit % 8);
	}
}

static void init_vmcb(struct vcpu *v, struct svm_vcpu *s)
{
	struct vmcb *b = s->vmcb;
	u8 *msr_map = (u8 *)b + PAGE_SIZE, *io_map = msr_map + SVM_MSR_PAGES * PAGE_SIZE;
	set_msr_map(v, msr_map);
	memset(io_map, 0xff, SVM_IO_PAGES * PAGE_SIZE);
	svm_set_intercepts(b, s->features, s->hw.memory->ops->nested);
	s->virtual_tpr = !(v->without & BIT(HW_VIRTUAL_TPR));
	if (!s->virtual_tpr)
		svm_intercept_cr8(b);
	b->msrpm = host_physical(msr_map);
	b->iopm = host_physical(io_map);
	b->nested = s->hw.memory->ops->nested ? NP_ENABLE : 0;
	b->pause_count = PAUSES;
	b->pause_threshold = PAUSE_THRESHOLD;
}

/* ---- vCPUs ---- */

/* AMD APM volume 3, "CPUID Fn8000_0001_EDX": Page1GB. */
static const struct hw_format *choose_format(struct svm_vcpu *s, bool nested)
{
	if (!nested)
		return &hw_format_shadow;
	s->npt = hw_format_npt;
	s->npt.largest = host_cpuid(0x80000001, 0).reg[CPUID_EDX] & BIT(26) ? 30 : 21;
	return &s->npt;
}

int svm_vcpu_create(struct vcpu *v)
{
	if (step_create(v, EMULATOR_CODE) < 0)
		return -1;
	struct svm_vcpu *s = host_alloc(sizeof(*s));
	if (!s) {
		step_destroy(v);
		return -1;
	}
	step_of(v)->translator = &s->hw;
	s->features = wanted_features(v);
	s->tcg = is_tcg();
	s->vmcb = host_pages_create(SVM_PAGES);
	const struct hw_memory_ops *ops = memory_ops(v->mmu_mode);
	if (!ops)
		host_log(LOG_ERROR, "option --mmu: this processor has no nested paging; shadow and vtlb work everywhere");
	s->hw.memory = ops ? ops->create(v, choose_format(s, ops->nested)) : NULL;
	if (s->vmcb && s->hw.memory && svm_cpus_init()) {
		s->vmcb_physical = host_physical(s->vmcb);
		s->hw.bytes = s->vmcb->bytes;
		init_vmcb(v, s);
		hw_init(v, &svm_ops, s->hw.memory);
		return 0;
	}
	svm_vcpu_destroy(v);
	return -1;
}

void svm_vcpu_destroy(struct vcpu *v)
{
	struct svm_vcpu *s = svm_of(v);
	if (s->hw.memory)
		s->hw.memory->ops->destroy(s->hw.memory);
	host_pages_destroy(s->vmcb, SVM_PAGES);
	host_free(s);
	step_destroy(v);
}

const struct hw_ops svm_ops = { .fetch = svm_fetch, .write = svm_write, .enter = svm_enter, .answer = svm_answer };

const struct engine_ops engine_svm = {
	.name = "svm",
	.description = "AMD-V, on the bare machine",
	.available = svm_available,
	.limit = limit,
	.vcpu_create = svm_vcpu_create,
	.vcpu_destroy = svm_vcpu_destroy,
	.run = hw_run,
	.sync = hw_sync,
	.rest = step_rest,
	.state_changed = hw_state_changed,
	.report = svm_report,
};
