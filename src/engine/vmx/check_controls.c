/* What must be true of controls and of the host's state (check.h). Intel SDM volume 3, "Checks on VMX Controls and Host-State Area". */
#include "arch/regs.h"
#include "engine/vmx/check.h"

/* ---- controls ---- */

static bool word_good(const struct vmx_check *c, enum vmx_word word, u64 value)
{
	return !(c->capabilities->must[word] & ~value) && !(value & ~(u64)c->capabilities->may[word]);
}

static bool pin_word(const struct vmx_check *c, u32 field, u64 value)
{
	return word_good(c, WORD_PIN, value);
}

static bool processor_word(const struct vmx_check *c, u32 field, u64 value)
{
	return word_good(c, WORD_PROCESSOR, value);
}

static bool secondary_word(const struct vmx_check *c, u32 field, u64 value)
{
	return !(check_read(c, VMCS_PROCESSOR_CONTROLS) & PROC_SECONDARY) || word_good(c, WORD_SECONDARY, value);
}

static bool exit_word(const struct vmx_check *c, u32 field, u64 value)
{
	return word_good(c, WORD_EXIT, value);
}

static bool entry_word(const struct vmx_check *c, u32 field, u64 value)
{
	return word_good(c, WORD_ENTRY, value);
}

static bool cr3_targets(const struct vmx_check *c, u32 field, u64 value)
{
	return value <= VMX_MISC_CR3_TARGETS(c->capabilities->misc);
}

static bool io_bitmap(const struct vmx_check *c, u32 field, u64 value)
{
	return !(check_read(c, VMCS_PROCESSOR_CONTROLS) & PROC_IO_BITMAPS) || check_page(c, field, value);
}

static bool msr_bitmaps(const struct vmx_check *c, u32 field, u64 value)
{
	return !(check_read(c, VMCS_PROCESSOR_CONTROLS) & PROC_MSR_BITMAPS) || check_page(c, field, value);
}

static bool uses_tpr(const struct vmx_check *c)
{
	return check_read(c, VMCS_PROCESSOR_CONTROLS) & PROC_TPR_SHADOW;
}

static bool virtual_apic(const struct vmx_check *c, u32 field, u64 value)
{
	return !uses_tpr(c) || check_page(c, field, value);
}

static bool tpr_threshold(const struct vmx_check *c, u32 field, u64 value)
{
	return !uses_tpr(c) || check_secondary(c, PROC2_INTERRUPT_DELIVERY) || !(value & ~0xfull);
}

static bool tpr_user(const struct vmx_check *c, u32 field, u64 value)
{
	return uses_tpr(c) || !check_secondary(c, PROC2_X2APIC | PROC2_APIC_REGISTERS | PROC2_INTERRUPT_DELIVERY);
}

static bool virtual_nmis(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & PIN_VIRTUAL_NMI) || (value & PIN_NMI);
}

static bool nmi_window(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & PROC_NMI_WINDOW) || (check_read(c, VMCS_PIN_CONTROLS) & PIN_VIRTUAL_NMI);
}

static bool apic_access(const struct vmx_check *c, u32 field, u64 value)
{
	return !check_secondary(c, PROC2_APIC_ACCESS) || check_page(c, field, value);
}

static bool apic_mode(const struct vmx_check *c, u32 field, u64 value)
{
	return !check_secondary(c, PROC2_X2APIC) || !check_secondary(c, PROC2_APIC_ACCESS);
}

static bool delivery_pin(const struct vmx_check *c, u32 field, u64 value)
{
	return !check_secondary(c, PROC2_INTERRUPT_DELIVERY) || (value & PIN_INTERRUPT);
}

static bool posted_pin(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & PIN_POSTED) ||
	       (check_secondary(c, PROC2_INTERRUPT_DELIVERY) && (check_read(c, VMCS_EXIT_CONTROLS) & EXIT_ACKNOWLEDGE));
}

static bool posted_vector(const struct vmx_check *c, u32 field, u64 value)
{
	return !(check_read(c, VMCS_PIN_CONTROLS) & PIN_POSTED) || value < 256;
}

static bool posted_descriptor(const struct vmx_check *c, u32 field, u64 value)
{
	return !(check_read(c, VMCS_PIN_CONTROLS) & PIN_POSTED) || (!(value & 63) && !(value & ~mask_of(c->physical_bits)));
}

static bool vpid(const struct vmx_check *c, u32 field, u64 value)
{
	return !check_secondary(c, PROC2_VPID) || value;
}

static bool eptp(const struct vmx_check *c, u32 field, u64 value)
{
	if (!check_secondary(c, PROC2_EPT))
		return true;
	bool type = (value & 7) == 0 || ((value & 7) == EPTP_WB && (c->capabilities->ept_vpid & EPT_CAP_WB));
	bool used = !(value & EPTP_AD) || (c->capabilities->ept_vpid & EPT_CAP_AD);
	return type && (value & 0x38) == EPTP_WALK_4 && used && !(value & 0xf80) && !(value & ~mask_of(c->physical_bits));
}

static bool ept_user(const struct vmx_check *c, u32 field, u64 value)
{
	return check_secondary(c, PROC2_EPT) || !check_secondary(c, PROC2_UNRESTRICTED | PROC2_PML | PROC2_MODE_EXECUTE);
}

static bool pml_address(const struct vmx_check *c, u32 field, u64 value)
{
	return !check_secondary(c, PROC2_PML) || check_page(c, field, value);
}

static bool timer_save(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & EXIT_SAVE_TIMER) || (check_read(c, VMCS_PIN_CONTROLS) & PIN_PREEMPTION_TIMER);
}

/* An area of MSRs, if its count is not 0: 16 bytes each. */
static bool msr_area(const struct vmx_check *c, enum vmcs_field count, u64 value)
{
	u64 size = check_read(c, count) * 16;
	return !size || (!(value & 15) && !((value + size - 1) & ~mask_of(c->physical_bits)));
}

static bool store_area(const struct vmx_check *c, u32 field, u64 value)
{
	return msr_area(c, VMCS_EXIT_MSR_STORES, value);
}

static bool load_area(const struct vmx_check *c, u32 field, u64 value)
{
	return msr_area(c, VMCS_EXIT_MSR_LOADS, value);
}

static bool entry_area(const struct vmx_check *c, u32 field, u64 value)
{
	return msr_area(c, VMCS_ENTRY_MSR_LOADS, value);
}

/* ---- the event to inject ---- */

static bool event_type(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & EVENT_VALID) || (EVENT_TYPE(value) != 1 && !(value & 0x7ffff000));
}

static bool event_vector(const struct vmx_check *c, u32 field, u64 value)
{
	u8 vector = (u8)value;
	if (!(value & EVENT_VALID))
		return true;
	return EVENT_TYPE(value) == TYPE_NMI ? vector == 2 : EVENT_TYPE(value) == TYPE_EXCEPTION ? vector < 32 : EVENT_TYPE(value) != TYPE_OTHER || !vector;
}

/* #DF, #TS, #NP, #SS, #GP, #PF, #AC; none in real mode. */
static bool event_error(const struct vmx_check *c, u32 field, u64 value)
{
	if (!(value & EVENT_VALID))
		return true;
	bool real = check_secondary(c, PROC2_UNRESTRICTED) && !(check_read(c, VMCS_GUEST_CR0) & CR0_PE);
	bool wanted = !real && EVENT_TYPE(value) == TYPE_EXCEPTION && (u8)value < 32 && (0x27d00u >> (u8)value & 1);
	return wanted == !!(value & EVENT_HAS_ERROR);
}

static bool event_error_code(const struct vmx_check *c, u32 field, u64 value)
{
	u64 event = check_read(c, VMCS_ENTRY_EVENT);
	return !(event & EVENT_VALID) || !(event & EVENT_HAS_ERROR) || !(value & ~0x7fffull);
}

static bool event_length(const struct vmx_check *c, u32 field, u64 value)
{
	u64 event = check_read(c, VMCS_ENTRY_EVENT);
	bool software = EVENT_TYPE(event) >= TYPE_SOFTWARE && EVENT_TYPE(event) <= TYPE_SOFTWARE_EXCEPTION;
	return !(event & EVENT_VALID) || !software || (value >= 1 && value <= 15);
}

const struct vmx_rule vmx_rules_controls[] = {
	{ VMCS_PIN_CONTROLS, pin_word, "have only bits that the processor allows" },
	{ VMCS_PROCESSOR_CONTROLS, processor_word, "have only bits that the processor allows" },
	{ VMCS_SECONDARY_CONTROLS, secondary_word, "have only bits that the processor allows" },
	{ VMCS_CR3_TARGETS, cr3_targets, "be no more than the processor's number of CR3-target values" },
	{ VMCS_IO_BITMAP_A, io_bitmap, "be the address of a page" },
	{ VMCS_IO_BITMAP_B, io_bitmap, "be the address of a page" },
	{ VMCS_MSR_BITMAPS, msr_bitmaps, "be the address of a page" },
	{ VMCS_VIRTUAL_APIC, virtual_apic, "be the address of a page" },
	{ VMCS_TPR_THRESHOLD, tpr_threshold, "be less than 16" },
	{ VMCS_SECONDARY_CONTROLS, tpr_user, "virtualize the APIC only with a TPR shadow" },
	{ VMCS_PIN_CONTROLS, virtual_nmis, "have virtual NMIs only with NMI exiting" },
	{ VMCS_PROCESSOR_CONTROLS, nmi_window, "have NMI-window exiting only with virtual NMIs" },
	{ VMCS_APIC_ACCESS, apic_access, "be the address of a page" },
	{ VMCS_SECONDARY_CONTROLS, apic_mode, "not virtualize APIC accesses and x2APIC mode both" },
	{ VMCS_PIN_CONTROLS, delivery_pin, "have external-interrupt exiting for virtual-interrupt delivery" },
	{ VMCS_PIN_CONTROLS, posted_pin, "have posted interrupts only with virtual-interrupt delivery and acknowledge on exit" },
	{ VMCS_POSTED_VECTOR, posted_vector, "be a vector" },
	{ VMCS_POSTED_DESCRIPTOR, posted_descriptor, "be an address aligned to 64 bytes" },
	{ VMCS_VPID, vpid, "not be 0" },
	{ VMCS_EPTP, eptp, "have a memory type, a walk of 4 levels and bits that the processor allows" },
	{ VMCS_SECONDARY_CONTROLS, ept_user, "have unrestricted guest, PML and mode-based execute control only with EPT" },
	{ VMCS_PML_ADDRESS, pml_address, "be the address of a page" },
	{ VMCS_EXIT_CONTROLS, exit_word, "have only bits that the processor allows" },
	{ VMCS_EXIT_CONTROLS, timer_save, "save the preemption timer only if it is active" },
	{ VMCS_EXIT_MSR_STORE, store_area, "be the address of an area of MSRs" },
	{ VMCS_EXIT_MSR_LOAD, load_area, "be the address of an area of MSRs" },
	{ VMCS_ENTRY_CONTROLS, entry_word, "have only bits that the processor allows" },
	{ VMCS_ENTRY_EVENT, event_type, "have a type that there is, and no reserved bits" },
	{ VMCS_ENTRY_EVENT, event_vector, "have a vector that its type may have" },
	{ VMCS_ENTRY_EVENT, event_error, "have an error code if the exception has, and only then" },
	{ VMCS_ENTRY_EVENT_ERROR, event_error_code, "be less than 8000H" },
	{ VMCS_ENTRY_LENGTH, event_length, "be the length of an instruction" },
	{ VMCS_ENTRY_MSR_LOAD, entry_area, "be the address of an area of MSRs" },
};
const unsigned vmx_rules_controls_count = ARRAY_SIZE(vmx_rules_controls);

/* ---- the host ---- */

static bool host_cr0(const struct vmx_check *c, u32 field, u64 value)
{
	const u64 *fixed = c->capabilities->cr0_fixed;
	return !(fixed[0] & ~value) && !(value & ~(fixed[1] | CR0_NW | CR0_CD));
}

static bool host_long(const struct vmx_check *c)
{
	return check_read(c, VMCS_EXIT_CONTROLS) & EXIT_HOST_64;
}

static bool host_pae(const struct vmx_check *c, u32 field, u64 value)
{
	return !host_long(c) || (value & CR4_PAE);
}

static bool host_pat(const struct vmx_check *c, u32 field, u64 value)
{
	return !(check_read(c, VMCS_EXIT_CONTROLS) & EXIT_LOAD_PAT) || check_pat_value(value);
}

static bool host_efer(const struct vmx_check *c, u32 field, u64 value)
{
	u64 mode = host_long(c) ? EFER_LMA | EFER_LME : 0;
	return !(check_read(c, VMCS_EXIT_CONTROLS) & EXIT_LOAD_EFER) ||
	       (!(value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)) && (value & (EFER_LMA | EFER_LME)) == mode);
}

static bool host_selector(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & 7);
}

static bool host_selector_there(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & 7) && value;
}

static bool host_mode(const struct vmx_check *c, u32 field, u64 value)
{
	return host_long(c); /* nadir is a 64-bit program */
}

const struct vmx_rule vmx_rules_host[] = {
	{ VMCS_HOST_CR0, host_cr0, "have the bits that VMX operation fixes" },
	{ VMCS_HOST_CR4, check_cr4, "have the bits that VMX operation fixes" },
	{ VMCS_HOST_CR3, check_cr3, "be a physical address" },
	{ VMCS_HOST_SYSENTER_ESP, check_canonical, "be canonical" },
	{ VMCS_HOST_SYSENTER_EIP, check_canonical, "be canonical" },
	{ VMCS_HOST_PAT, host_pat, "have memory types that there are" },
	{ VMCS_HOST_EFER, host_efer, "have LMA and LME as the host address-space size says, and no reserved bits" },
	{ VMCS_HOST_ES, host_selector, "have RPL and TI 0" },
	{ VMCS_HOST_CS, host_selector_there, "have RPL and TI 0, and not be null" },
	{ VMCS_HOST_SS, host_selector, "have RPL and TI 0" },
	{ VMCS_HOST_DS, host_selector, "have RPL and TI 0" },
	{ VMCS_HOST_FS, host_selector, "have RPL and TI 0" },
	{ VMCS_HOST_GS, host_selector, "have RPL and TI 0" },
	{ VMCS_HOST_TR, host_selector_there, "have RPL and TI 0, and not be null" },
	{ VMCS_HOST_FS_BASE, check_canonical, "be canonical" },
	{ VMCS_HOST_GS_BASE, check_canonical, "be canonical" },
	{ VMCS_HOST_TR_BASE, check_canonical, "be canonical" },
	{ VMCS_HOST_GDTR_BASE, check_canonical, "be canonical" },
	{ VMCS_HOST_IDTR_BASE, check_canonical, "be canonical" },
	{ VMCS_EXIT_CONTROLS, host_mode, "have host address-space size in a 64-bit host" },
	{ VMCS_HOST_CR4, host_pae, "have PAE in a 64-bit host" },
	{ VMCS_HOST_RIP, check_canonical, "be canonical" },
};
const unsigned vmx_rules_host_count = ARRAY_SIZE(vmx_rules_host);
