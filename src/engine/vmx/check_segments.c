/* What must be true of the guest's segments (check.h). Intel SDM volume 3, "Checks on Guest Segment Registers". */
#include "arch/regs.h"
#include "arch/segment.h"
#include "engine/vmx/check.h"

static u32 rights_of(const struct vmx_check *c, unsigned n)
{
	return (u32)c->read(c->opaque, VMCS_SEGMENT(VMCS_GUEST_ES_RIGHTS, n));
}

static bool usable(const struct vmx_check *c, unsigned n)
{
	return !(rights_of(c, n) & SEG_ATTR_UNUSABLE);
}

static bool v86(const struct vmx_check *c)
{
	return check_read(c, VMCS_GUEST_RFLAGS) & RFLAGS_VM;
}

static bool is_long(const struct vmx_check *c)
{
	return check_read(c, VMCS_ENTRY_CONTROLS) & ENTRY_LONG_MODE;
}

static unsigned dpl(u32 rights)
{
	return (rights & SEG_ATTR_DPL) >> SEG_ATTR_DPL_SHIFT;
}

/* ---- selectors ---- */

static bool tr_selector(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & SELECTOR_TI);
}

static bool ldtr_selector(const struct vmx_check *c, u32 field, u64 value)
{
	return !usable(c, VMCS_SEG_LDTR) || !(value & SELECTOR_TI);
}

static bool ss_selector(const struct vmx_check *c, u32 field, u64 value)
{
	return v86(c) || check_secondary(c, PROC2_UNRESTRICTED) || !((value ^ check_read(c, VMCS_GUEST_CS)) & SELECTOR_RPL);
}

/* ---- bases and limits ---- */

static bool base_v86(const struct vmx_check *c, u32 field, u64 value)
{
	unsigned n = (field - VMCS_GUEST_ES_BASE) / 2;
	return !v86(c) || value == c->read(c->opaque, VMCS_SEGMENT(VMCS_GUEST_ES, n)) << 4;
}

static bool base_canonical(const struct vmx_check *c, u32 field, u64 value)
{
	unsigned n = (field - VMCS_GUEST_ES_BASE) / 2;
	return (n == VMCS_SEG_LDTR && !usable(c, n)) || is_canonical(value, c->linear_bits);
}

static bool base_narrow(const struct vmx_check *c, u32 field, u64 value)
{
	unsigned n = (field - VMCS_GUEST_ES_BASE) / 2;
	return !(value >> 32) || (n != SEG_CS && !usable(c, n));
}

static bool limit_v86(const struct vmx_check *c, u32 field, u64 value)
{
	return !v86(c) || value == 0xffff;
}

/* ---- access rights ---- */

static bool rights_v86(const struct vmx_check *c, u32 field, u64 value)
{
	return !v86(c) || value == 0xf3;
}

/* A segment that the rules for descriptors are about. */
static bool exempt(const struct vmx_check *c, u32 field, u64 value)
{
	unsigned n = (field - VMCS_GUEST_ES_RIGHTS) / 2;
	return (n < SEG_COUNT && v86(c)) || (n != SEG_CS && n != VMCS_SEG_TR && (value & SEG_ATTR_UNUSABLE));
}

static bool cs_type(const struct vmx_check *c, u32 field, u64 value)
{
	u64 type = value & SEG_ATTR_TYPE;
	return exempt(c, field, value) || (type & 9) == 9 || (type == 3 && check_secondary(c, PROC2_UNRESTRICTED));
}

static bool ss_type(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || (value & 0xb) == 3;
}

static bool data_type(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || ((value & SEG_ATTR_ACCESSED) && (!(value & SEG_ATTR_CODE) || (value & SEG_ATTR_READABLE)));
}

static bool code_or_data(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || (value & SEG_ATTR_S);
}

static bool present(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || (value & SEG_ATTR_P);
}

static bool reserved(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || !(value & 0xfffe0f00);
}

static bool cs_level(const struct vmx_check *c, u32 field, u64 value)
{
	unsigned type = value & SEG_ATTR_TYPE, ss = dpl(rights_of(c, SEG_SS)), level = dpl((u32)value);
	if (exempt(c, field, value))
		return true;
	return type == 3 ? !level : type & SEG_ATTR_CONFORMING ? level <= ss : level == ss;
}

/* SS.DPL is CPL, and counts in an unusable SS as well. */
static bool ss_level(const struct vmx_check *c, u32 field, u64 value)
{
	return v86(c) || check_secondary(c, PROC2_UNRESTRICTED) || dpl((u32)value) == (check_read(c, VMCS_GUEST_SS) & SELECTOR_RPL);
}

static bool ss_level_real(const struct vmx_check *c, u32 field, u64 value)
{
	bool real = (rights_of(c, SEG_CS) & SEG_ATTR_TYPE) == 3 || !(check_read(c, VMCS_GUEST_CR0) & CR0_PE);
	return v86(c) || !real || !dpl((u32)value);
}

static bool data_level(const struct vmx_check *c, u32 field, u64 value)
{
	unsigned n = (field - VMCS_GUEST_ES_RIGHTS) / 2, type = value & SEG_ATTR_TYPE;
	u64 selector = c->read(c->opaque, VMCS_SEGMENT(VMCS_GUEST_ES, n));
	return exempt(c, field, value) || check_secondary(c, PROC2_UNRESTRICTED) || type > 11 || dpl((u32)value) >= (selector & SELECTOR_RPL);
}

static bool cs_width(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || !is_long(c) || !(value & SEG_ATTR_L) || !(value & SEG_ATTR_DB);
}

static bool granularity(const struct vmx_check *c, u32 field, u64 value)
{
	u64 limit = c->read(c->opaque, VMCS_SEGMENT(VMCS_GUEST_ES_LIMIT, (field - VMCS_GUEST_ES_RIGHTS) / 2));
	if (exempt(c, field, value))
		return true;
	return value & SEG_ATTR_G ? (limit & 0xfff) == 0xfff : !(limit >> 20);
}

static bool tr_type(const struct vmx_check *c, u32 field, u64 value)
{
	unsigned type = value & SEG_ATTR_TYPE;
	return type == SYS_TSS_BUSY || (type == SYS_TSS16_BUSY && !is_long(c));
}

static bool tr_usable(const struct vmx_check *c, u32 field, u64 value)
{
	return !(value & SEG_ATTR_UNUSABLE);
}

static bool ldtr_type(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || (value & SEG_ATTR_TYPE) == SYS_LDT;
}

static bool system_segment(const struct vmx_check *c, u32 field, u64 value)
{
	return exempt(c, field, value) || !(value & SEG_ATTR_S);
}

/* One row for each of several segments. */
#define DATA(field, good, rule) \
	{ VMCS_GUEST_ES_##field, good, rule }, { VMCS_GUEST_DS_##field, good, rule }, { VMCS_GUEST_FS_##field, good, rule }, { VMCS_GUEST_GS_##field, good, rule }
#define SIX(field, good, rule) DATA(field, good, rule), { VMCS_GUEST_CS_##field, good, rule }, { VMCS_GUEST_SS_##field, good, rule }
#define ALL(field, good, rule) SIX(field, good, rule), { VMCS_GUEST_LDTR_##field, good, rule }, { VMCS_GUEST_TR_##field, good, rule }

const struct vmx_rule vmx_rules_segments[] = {
	{ VMCS_GUEST_TR, tr_selector, "have TI 0" },
	{ VMCS_GUEST_LDTR, ldtr_selector, "have TI 0" },
	{ VMCS_GUEST_SS, ss_selector, "have the RPL of CS" },
	SIX(BASE, base_v86, "be 16 times the selector in virtual-8086 mode"),
	{ VMCS_GUEST_FS_BASE, base_canonical, "be canonical" },
	{ VMCS_GUEST_GS_BASE, base_canonical, "be canonical" },
	{ VMCS_GUEST_LDTR_BASE, base_canonical, "be canonical" },
	{ VMCS_GUEST_TR_BASE, base_canonical, "be canonical" },
	{ VMCS_GUEST_ES_BASE, base_narrow, "have bits 63:32 clear" },
	{ VMCS_GUEST_CS_BASE, base_narrow, "have bits 63:32 clear" },
	{ VMCS_GUEST_SS_BASE, base_narrow, "have bits 63:32 clear" },
	{ VMCS_GUEST_DS_BASE, base_narrow, "have bits 63:32 clear" },
	SIX(LIMIT, limit_v86, "be FFFFH in virtual-8086 mode"),
	SIX(RIGHTS, rights_v86, "be F3H in virtual-8086 mode"),
	{ VMCS_GUEST_CS_RIGHTS, cs_type, "be accessed code" },
	{ VMCS_GUEST_SS_RIGHTS, ss_type, "be accessed and writable data" },
	DATA(RIGHTS, data_type, "be accessed data or readable code"),
	SIX(RIGHTS, code_or_data, "have S"),
	ALL(RIGHTS, present, "have P"),
	ALL(RIGHTS, reserved, "have no reserved bits"),
	ALL(RIGHTS, granularity, "have G as the limit demands"),
	{ VMCS_GUEST_CS_RIGHTS, cs_level, "have a DPL that fits SS.DPL" },
	{ VMCS_GUEST_SS_RIGHTS, ss_level, "have the DPL of the selector's RPL" },
	{ VMCS_GUEST_SS_RIGHTS, ss_level_real, "have DPL 0 in real mode" },
	DATA(RIGHTS, data_level, "have a DPL no less than the selector's RPL"),
	{ VMCS_GUEST_CS_RIGHTS, cs_width, "not have both L and D in IA-32e mode" },
	{ VMCS_GUEST_TR_RIGHTS, tr_usable, "be usable" },
	{ VMCS_GUEST_TR_RIGHTS, tr_type, "be a busy TSS, of 32 or 64 bits in IA-32e mode" },
	{ VMCS_GUEST_TR_RIGHTS, system_segment, "have S 0" },
	{ VMCS_GUEST_LDTR_RIGHTS, ldtr_type, "be an LDT" },
	{ VMCS_GUEST_LDTR_RIGHTS, system_segment, "have S 0" },
};
const unsigned vmx_rules_segments_count = ARRAY_SIZE(vmx_rules_segments);
