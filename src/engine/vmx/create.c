/* Whether the processor has what the engine needs, and vCPUs: a VMCS each, whose constant fields are written here. Intel SDM volume 3, "Discovering Support
 * for VMX", "Initializing a VMCS", "MSR-Bitmap Address". */
#include "engine/vmx/vmx.h"

#include "arch/asm.h"
#include "arch/exception.h"
#include "arch/msr.h"
#include "cpu/host_cpuid.h"
#include "engine/hw/features.h"
#include "engine/step/step.h"
#include "lib/string.h"

#define EMULATOR_CODE (1u << 20)
#define PLE_GAP 128 /* ticks between PAUSEs of one loop */
#define PLE_WINDOW 4096 /* ticks that a loop may last */

static u64 read_msr(u32 msr)
{
	return rdmsr(msr);
}

/* The controls of techniques that the user does not want. */
static void leave_out(u64 techniques, u32 without[WORD_COUNT])
{
	static const struct {
		u8 technique, word;
		u32 mask;
	} rows[] = {
		{ HW_TPR_SHADOW, WORD_PROCESSOR, PROC_TPR_SHADOW },
		{ HW_APIC_ACCESS, WORD_SECONDARY, PROC2_APIC_ACCESS },
		{ HW_APIC_REGISTERS, WORD_SECONDARY, PROC2_APIC_REGISTERS },
		{ HW_X2APIC, WORD_SECONDARY, PROC2_X2APIC },
		{ HW_INTERRUPT_DELIVERY, WORD_SECONDARY, PROC2_INTERRUPT_DELIVERY },
		{ HW_POSTED, WORD_PIN, PIN_POSTED },
		{ HW_VPID, WORD_SECONDARY, PROC2_VPID },
		{ HW_UNRESTRICTED, WORD_SECONDARY, PROC2_UNRESTRICTED },
		{ HW_MSR_BITMAPS, WORD_PROCESSOR, PROC_MSR_BITMAPS },
		{ HW_PAUSE_LOOP, WORD_SECONDARY, PROC2_PAUSE_LOOP },
		{ HW_PREEMPTION_TIMER, WORD_PIN, PIN_PREEMPTION_TIMER },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (techniques & BIT(rows[i].technique))
			without[rows[i].word] |= rows[i].mask;
}

/* Without the techniques of a set (engine/hw/features.h). NULL: the user wants nested paging, and there is none. *missing: what is required and missing. */
static const struct hw_memory_ops *choose(const struct vmx_capabilities *c, enum mmu_mode mode, u64 techniques, struct vmx_controls *controls,
					  const struct vmx_control **missing)
{
	u32 without[WORD_COUNT] = { 0 };
	leave_out(techniques, without);
	*missing = vmx_controls_choose(c, without, controls);
	const struct hw_memory_ops *ops = hw_memory_choose(mode, controls->word[WORD_SECONDARY] & PROC2_EPT);
	if (*missing || !ops || ops->nested)
		return ops;
	without[WORD_SECONDARY] |= PROC2_EPT;
	*missing = vmx_controls_choose(c, without, controls);
	return ops;
}

static bool firmware_allows(void)
{
	u64 control = rdmsr(MSR_FEATURE_CONTROL);
	return !(control & FEATURE_CONTROL_LOCK) || (control & FEATURE_CONTROL_VMX);
}

bool vmx_available(const char **why)
{
	if (!host_bare_cpu(why))
		return false;
	if (!(host_cpuid_checked(1, 0).reg[CPUID_ECX] & BIT(5))) {
		*why = "this processor lacks VT-x (VMX)";
		return false;
	}
	if (!firmware_allows()) {
		*why = "VT-x is disabled by the firmware: enable it in its setup";
		return false;
	}
	struct vmx_capabilities capabilities;
	struct vmx_controls controls;
	vmx_capabilities_read(&capabilities, read_msr);
	const struct vmx_control *missing;
	choose(&capabilities, MMU_AUTO, 0, &controls, &missing);
	if (missing) {
		*why = missing->missing;
		return false;
	}
	return hw_registers_available(why);
}

static void limit(struct cpuid_policy *available, enum mmu_mode mode)
{
	struct vmx_capabilities capabilities;
	struct vmx_controls controls;
	const struct vmx_control *missing;
	vmx_capabilities_read(&capabilities, read_msr);
	const struct hw_memory_ops *ops = choose(&capabilities, mode, 0, &controls, &missing);
	hw_limit(available, ops && ops->nested);
}

/* ---- MSR bitmaps: reads of 0 to 1fffH, of c0000000H and on, then writes; a bit set: it leaves ---- */

static bool is_kept_constant(u32 index)
{
	for (unsigned i = 0; i < VMX_KEPT_MSRS; i++)
		if (vmx_kept_msrs[i].index == index)
			return !vmx_kept_msrs[i].changes;
	return false;
}

static void pass(u8 *bitmap, u32 index)
{
	vmx_bitmap_pass(bitmap, index, true);
}

static void set_bitmaps(struct vcpu *v, u8 *bitmaps)
{
	unsigned count;
	const struct hw_msr *msr = hw_native_msrs(&count);
	memset(bitmaps, 0xff, PAGE_SIZE);
	for (unsigned i = 0; i < count; i++) {
		if (!hw_msr_is_native(v, &msr[i]))
			continue;
		pass(bitmaps, msr[i].index);
		if (!is_kept_constant(msr[i].index))
			pass(bitmaps + 2048, msr[i].index);
	}
}

/* ---- the VMCS ---- */

static void write_controls(struct vmx_vcpu *x)
{
	const u32 *word = x->controls.word;
	x->processor = word[WORD_PROCESSOR];
	x->entry = word[WORD_ENTRY];
	vmwrite(VMCS_PIN_CONTROLS, word[WORD_PIN]);
	vmwrite(VMCS_PROCESSOR_CONTROLS, x->processor);
	vmwrite(VMCS_EXIT_CONTROLS, word[WORD_EXIT]);
	vmwrite(VMCS_ENTRY_CONTROLS, x->entry);
	if (word[WORD_PROCESSOR] & PROC_MSR_BITMAPS)
		vmwrite(VMCS_MSR_BITMAPS, host_physical(x->bitmaps));
	if (word[WORD_SECONDARY] & PROC2_PAUSE_LOOP) {
		vmwrite(VMCS_PLE_GAP, PLE_GAP);
		vmwrite(VMCS_PLE_WINDOW, PLE_WINDOW);
	}
}

/* Fields that stay 0 are written too: what VMCLEAR leaves in them is not said. */
static void write_constants(struct vmx_vcpu *x)
{
	static const u16 zero[] = {
		VMCS_PF_ERROR_MASK,	VMCS_PF_ERROR_MATCH,  VMCS_CR3_TARGETS,	   VMCS_EXIT_MSR_STORES,   VMCS_EXIT_MSR_LOADS,	 VMCS_ENTRY_MSR_LOADS,
		VMCS_ENTRY_LENGTH,	VMCS_GUEST_DEBUGCTL,  VMCS_GUEST_ACTIVITY, VMCS_GUEST_PENDING_DEBUG, VMCS_HOST_SYSENTER_CS, VMCS_HOST_SYSENTER_ESP,
		VMCS_HOST_SYSENTER_EIP, VMCS_TSC_OFFSET,
	};
	for (unsigned i = 0; i < ARRAY_SIZE(zero); i++)
		vmwrite(zero[i], 0);
	vmwrite(VMCS_GUEST_VMCS_LINK, ~0ull);
	vmwrite(VMCS_CR0_MASK, ~0ull);
	vmwrite(VMCS_CR4_MASK, ~0ull);
	u64 faults = x->hw.memory->ops->nested ? 0 : BIT(VEC_PF);
	vmwrite(VMCS_EXCEPTION_BITMAP, BIT(VEC_DB) | BIT(VEC_UD) | BIT(VEC_AC) | BIT(VEC_MC) | faults);
	if (!vmx_has(x, WORD_ENTRY, ENTRY_LOAD_EFER)) {
		x->areas[AREA_GUEST].index = x->areas[AREA_HOST].index = MSR_EFER;
		vmwrite(VMCS_ENTRY_MSR_LOAD, host_physical(&x->areas[AREA_GUEST]));
		vmwrite(VMCS_EXIT_MSR_LOAD, host_physical(&x->areas[AREA_HOST]));
		vmwrite(VMCS_ENTRY_MSR_LOADS, 1);
		vmwrite(VMCS_EXIT_MSR_LOADS, 1);
	}
}

/* ---- vCPUs ---- */

static void log_line(void *opaque, const char *text)
{
	host_log(LOG_DEBUG, "VT-x: %s", text);
}

static const struct hw_format *choose_format(struct vmx_vcpu *x, bool nested)
{
	u64 has = x->capabilities.ept_vpid;
	if (!nested)
		return &hw_format_shadow;
	x->ept = hw_format_ept;
	x->ept.largest = !(has & EPT_CAP_2M) ? 12 : !(has & EPT_CAP_1G) ? 21 : 30;
	return &x->ept;
}

int vmx_vcpu_create(struct vcpu *v)
{
	if (step_create(v, EMULATOR_CODE) < 0)
		return -1;
	struct vmx_vcpu *x = host_alloc(sizeof(*x));
	if (!x) {
		step_destroy(v);
		return -1;
	}
	step_of(v)->translator = &x->hw;
	vmx_capabilities_read(&x->capabilities, read_msr);
	const struct vmx_control *missing;
	const struct hw_memory_ops *memory = choose(&x->capabilities, v->mmu_mode, v->without, &x->controls, &missing);
	if (!memory)
		host_log(LOG_ERROR, "option --mmu: this processor has no EPT; shadow and vtlb work everywhere");
	x->vmcs = host_pages_create(1);
	x->bitmaps = host_pages_create(1);
	x->areas = host_pages_create(1);
	x->hw.memory = memory && !missing ? memory->create(v, choose_format(x, memory->nested)) : NULL;
	if (!x->vmcs || !x->bitmaps || !x->areas || !x->hw.memory || !vmx_apic_create(v, x) || !vmx_cpus_init(&x->capabilities)) {
		vmx_vcpu_destroy(v);
		return -1;
	}
	*(u32 *)x->vmcs = (u32)x->capabilities.basic & VMX_BASIC_REVISION;
	set_bitmaps(v, x->bitmaps);
	u64 held = vmx_hold(x);
	write_controls(x);
	write_constants(x);
	vmx_apic_init(v, x);
	host_release(held);
	static const struct hw_ops ops = { .fetch = vmx_fetch, .write = vmx_write, .enter = vmx_enter, .answer = vmx_answer };
	hw_init(v, &ops, x->hw.memory);
	x->hw.delivers = vmx_has(x, WORD_SECONDARY, PROC2_INTERRUPT_DELIVERY);
	if (!v->index)
		vmx_describe(&x->capabilities, &x->controls, log_line, NULL);
	return 0;
}

void vmx_vcpu_destroy(struct vcpu *v)
{
	struct vmx_vcpu *x = vmx_of(v);
	vmx_unload(x);
	vmx_apic_destroy(v, x);
	if (x->hw.memory)
		x->hw.memory->ops->destroy(x->hw.memory);
	host_pages_destroy(x->vmcs, 1);
	host_pages_destroy(x->bitmaps, 1);
	host_pages_destroy(x->areas, 1);
	host_free(x);
	step_destroy(v);
}

const struct engine_ops engine_vmx = {
	.name = "vmx",
	.description = "Intel VT-x, on the bare machine",
	.available = vmx_available,
	.limit = limit,
	.vcpu_create = vmx_vcpu_create,
	.vcpu_destroy = vmx_vcpu_destroy,
	.run = hw_run,
	.sync = hw_sync,
	.rest = step_rest,
	.notify = hw_notify,
	.state_changed = hw_state_changed,
	.report = vmx_report,
};
