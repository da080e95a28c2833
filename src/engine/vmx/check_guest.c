/* What must be true of the guest's state but its segments (check.h). Intel SDM volume 3, "Checking and Loading Guest State". */
#include "arch/regs.h"
#include "arch/segment.h"
#include "engine/vmx/check.h"

static bool entry_has(const struct vmx_check *c, u32 control)
{
	return check_read(c, VMCS_ENTRY_CONTROLS) & control;
}

static bool is_long(const struct vmx_check *c)
{
	return entry_has(c, ENTRY_LONG_MODE);
}

/* ---- control registers, debug registers, MSRs ---- */

static bool cr0(const struct vmx_check *c, u32 field, u64 value)
{
	u64 must = c->capabilities->cr0_fixed[0];
	if (check_secondary(c, PROC2_UNRESTRICTED))
		must &= ~(CR0_PE | CR0_PG);
	return !(must & ~value & ~(CR0_NW | CR0_CD)) && !(value & ~(c->capabilities->cr0_fixed[1] | CR0_NW | CR0_CD));
}

static bool cr0_paging(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & CR0_PG) || (value & CR0_PE);
}

static bool cr0_long(const struct vmx_check *c, u32 field, u64 value)
{
	return !is_long(c) || (value & CR0_PG);
}

static bool cr4_long(const struct vmx_check *c, u32 field, u64 value)
{
	return is_long(c) ? (value & CR4_PAE) != 0 : !(value & CR4_PCIDE);
}

static bool debugctl(const struct vmx_check *c, u32 field, u64 value)
{
	return !entry_has(c, ENTRY_LOAD_DEBUG) || !(value & ~0xffffull);
}

static bool dr7(const struct vmx_check *c, u32 field, u64 value)
{
	return !entry_has(c, ENTRY_LOAD_DEBUG) || !(value >> 32);
}

static bool pat(const struct vmx_check *c, u32 field, u64 value)
{
	return !entry_has(c, ENTRY_LOAD_PAT) || check_pat_value(value);
}

static bool efer_bits(const struct vmx_check *c, u32 field, u64 value)
{
	return !entry_has(c, ENTRY_LOAD_EFER) || !(value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE));
}

static bool efer_long(const struct vmx_check *c, u32 field, u64 value)
{
	return !entry_has(c, ENTRY_LOAD_EFER) || !!(value & EFER_LMA) == is_long(c);
}

static bool efer_paging(const struct vmx_check *c, u32 field, u64 value)
{
	return !entry_has(c, ENTRY_LOAD_EFER) || !(check_read(c, VMCS_GUEST_CR0) & CR0_PG) || !!(value & EFER_LMA) == !!(value & EFER_LME);
}

/* ---- descriptor tables, RIP, RFLAGS ---- */

static bool table_limit(const struct vmx_check *c, u32 field, u64 value)
{
	return value <= 0xffff;
}

static bool rip(const struct vmx_check *c, u32 field, u64 value)
{
	bool wide = is_long(c) && (check_read(c, VMCS_GUEST_CS_RIGHTS) & SEG_ATTR_L);
	return wide ? is_canonical(value, c->linear_bits) : !(value >> 32);
}

static bool rflags(const struct vmx_check *c, u32 field, u64 value)
{
	return (value & RFLAGS_FIXED1) && !(value & 0xffffffffffc08028ull);
}

static bool rflags_v86(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & RFLAGS_VM) || (!is_long(c) && (check_read(c, VMCS_GUEST_CR0) & CR0_PE));
}

static bool injects(const struct vmx_check *c, enum event_type type)
{
	u64 event = check_read(c, VMCS_ENTRY_EVENT);
	return (event & EVENT_VALID) && EVENT_TYPE(event) == type;
}

static bool rflags_if(const struct vmx_check *c, u32 field, u64 value)
{
	return !injects(c, TYPE_EXTERNAL) || (value & RFLAGS_IF);
}

/* ---- what is no register ---- */

static bool activity(const struct vmx_check *c, u32 field, u64 value)
{
	return value == GUEST_ACTIVE || (value <= GUEST_WAIT_SIPI && (c->capabilities->misc >> (value + 5) & 1));
}

static bool activity_halted(const struct vmx_check *c, u32 field, u64 value)
{
	return value != GUEST_HLT || !(check_read(c, VMCS_GUEST_SS_RIGHTS) & SEG_ATTR_DPL);
}

static bool activity_shadow(const struct vmx_check *c, u32 field, u64 value)
{
	return value == GUEST_ACTIVE || !(check_read(c, VMCS_GUEST_INTERRUPTIBILITY) & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS));
}

static bool shadow_bits(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & ~0x1full);
}

static bool shadow_one(const struct vmx_check *c, u32 field, u64 value)
{
	return (value & 3) != 3;
}

static bool shadow_sti(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & INTERRUPTIBILITY_STI) || (check_read(c, VMCS_GUEST_RFLAGS) & RFLAGS_IF);
}

static bool shadow_interrupt(const struct vmx_check *c, u32 field, u64 value)
{
	return !injects(c, TYPE_EXTERNAL) || !(value & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS));
}

static bool shadow_nmi(const struct vmx_check *c, u32 field, u64 value)
{
	return !injects(c, TYPE_NMI) || !(value & (INTERRUPTIBILITY_MOV_SS | INTERRUPTIBILITY_NMI));
}

static bool pending_bits(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & ~(0xfull | PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS | PENDING_DEBUG_RTM));
}

/* A single-step trap is pending exactly where TF would have caused one. IA32_DEBUGCTL.BTF is bit 1. */
static bool pending_step(const struct vmx_check *c, u32 field, u64 value)
{
	bool held = (check_read(c, VMCS_GUEST_INTERRUPTIBILITY) & (INTERRUPTIBILITY_STI | INTERRUPTIBILITY_MOV_SS)) ||
		    check_read(c, VMCS_GUEST_ACTIVITY) == GUEST_HLT;
	bool traps = (check_read(c, VMCS_GUEST_RFLAGS) & RFLAGS_TF) && !(check_read(c, VMCS_GUEST_DEBUGCTL) & BIT(1));
	return !held || traps == !!(value & PENDING_DEBUG_BS);
}

static bool link_pointer(const struct vmx_check *c, u32 field, u64 value)
{
	return value == ~0ull || check_page(c, field, value);
}

/* Only with EPT; otherwise the processor reads them itself. Intel SDM volume 3, "PAE Paging". */
static bool pdpte(const struct vmx_check *c, u32 field, u64 value)
{
	bool pae = (check_read(c, VMCS_GUEST_CR0) & CR0_PG) && (check_read(c, VMCS_GUEST_CR4) & CR4_PAE) && !is_long(c);
	return !pae || !check_secondary(c, PROC2_EPT) || !(value & 1) || !(value & (0x1e6 | ~mask_of(c->physical_bits)));
}

const struct vmx_rule vmx_rules_guest[] = {
	{ VMCS_GUEST_CR0, cr0, "have the bits that VMX operation fixes" },
	{ VMCS_GUEST_CR0, cr0_paging, "have PE where it has PG" },
	{ VMCS_GUEST_CR4, check_cr4, "have the bits that VMX operation fixes" },
	{ VMCS_GUEST_DEBUGCTL, debugctl, "have no reserved bits" },
	{ VMCS_GUEST_CR0, cr0_long, "have PG in IA-32e mode" },
	{ VMCS_GUEST_CR4, cr4_long, "have PAE in IA-32e mode, and PCIDE only there" },
	{ VMCS_GUEST_CR3, check_cr3, "be a physical address" },
	{ VMCS_GUEST_DR7, dr7, "have bits 63:32 clear" },
	{ VMCS_GUEST_SYSENTER_ESP, check_canonical, "be canonical" },
	{ VMCS_GUEST_SYSENTER_EIP, check_canonical, "be canonical" },
	{ VMCS_GUEST_PAT, pat, "have memory types that there are" },
	{ VMCS_GUEST_EFER, efer_bits, "have no reserved bits" },
	{ VMCS_GUEST_EFER, efer_long, "have LMA as the control IA-32e mode guest says" },
	{ VMCS_GUEST_EFER, efer_paging, "have LMA and LME alike while paging is on" },
	{ VMCS_GUEST_GDTR_BASE, check_canonical, "be canonical" },
	{ VMCS_GUEST_IDTR_BASE, check_canonical, "be canonical" },
	{ VMCS_GUEST_GDTR_LIMIT, table_limit, "be less than 10000H" },
	{ VMCS_GUEST_IDTR_LIMIT, table_limit, "be less than 10000H" },
	{ VMCS_GUEST_RIP, rip, "be an address of the code segment's mode" },
	{ VMCS_GUEST_RFLAGS, rflags, "have bit 1, and no reserved bits" },
	{ VMCS_GUEST_RFLAGS, rflags_v86, "have VM in protected mode only" },
	{ VMCS_GUEST_RFLAGS, rflags_if, "have IF when an external interrupt is injected" },
	{ VMCS_GUEST_ACTIVITY, activity, "be a state that the processor has" },
	{ VMCS_GUEST_ACTIVITY, activity_halted, "not be HLT at another privilege level than 0" },
	{ VMCS_GUEST_ACTIVITY, activity_shadow, "be active behind STI and MOV SS" },
	{ VMCS_GUEST_INTERRUPTIBILITY, shadow_bits, "have no reserved bits" },
	{ VMCS_GUEST_INTERRUPTIBILITY, shadow_one, "not have blocking by STI and by MOV SS both" },
	{ VMCS_GUEST_INTERRUPTIBILITY, shadow_sti, "have blocking by STI only with RFLAGS.IF" },
	{ VMCS_GUEST_INTERRUPTIBILITY, shadow_interrupt, "have no blocking when an external interrupt is injected" },
	{ VMCS_GUEST_INTERRUPTIBILITY, shadow_nmi, "have no blocking by MOV SS or NMI when an NMI is injected" },
	{ VMCS_GUEST_PENDING_DEBUG, pending_bits, "have no reserved bits" },
	{ VMCS_GUEST_PENDING_DEBUG, pending_step, "have BS exactly where TF causes a trap that is held back" },
	{ VMCS_GUEST_VMCS_LINK, link_pointer, "be all ones or the address of a page" },
	{ VMCS_GUEST_PDPTE0, pdpte, "have no reserved bits" },
	{ VMCS_GUEST_PDPTE1, pdpte, "have no reserved bits" },
	{ VMCS_GUEST_PDPTE2, pdpte, "have no reserved bits" },
	{ VMCS_GUEST_PDPTE3, pdpte, "have no reserved bits" },
};
const unsigned vmx_rules_guest_count = ARRAY_SIZE(vmx_rules_guest);
