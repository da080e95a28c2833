/* Model-specific registers: one table, a few rules.
 * Intel SDM volume 4, "Model-Specific Registers"; AMD APM volume 2, "MSR Cross-Reference"; KVM's own in the Linux
 * documentation "KVM-specific MSRs". What CPUID promises must be here, or an unmodified kernel complains of an
 * "unchecked MSR access". */
#include "cpu/msr.h"

#include "cpu/control.h"
#include "cpu/cpuid.h"
#include "lib/string.h"

enum msr_rule {
	RULE_STORED,    /* a field of struct vcpu; bits outside `mask` are reserved */
	RULE_CANONICAL, /* a field that takes canonical addresses only */
	RULE_CONSTANT,  /* reads `mask`; a write faults */
	RULE_DROPPED,   /* reads `mask`; a write is ignored */
	RULE_HANDLED,   /* read and write functions; one that is missing faults */
};

/* Gates that are not features. */
#define GATE_NONE (-1)
#define GATE_AMD (-2)
#define GATE_INTEL (-3)

struct msr_row {
	u32 first, count;
	const char *name;
	enum msr_rule rule;
	s16 gate;   /* a feature or GATE_*: without it, the MSR does not exist */
	u16 offset; /* of the first register's field */
	u64 mask;
	bool (*read)(struct vcpu *vcpu, u32 number, u64 *value);
	bool (*write)(struct vcpu *vcpu, u32 number, u64 value);
};

/* ---- time ---- */

static u64 guest_tsc(const struct vcpu *vcpu)
{
	return __builtin_ia32_rdtsc() + vcpu->tsc_offset;
}

static bool read_tsc(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = guest_tsc(vcpu);
	return true;
}

static void move_tsc(struct vcpu *vcpu, u64 by)
{
	vcpu->tsc_offset += by;
	vcpu->tsc_adjust += by;
}

/* A write moves IA32_TSC_ADJUST by as much. Intel SDM volume 3, "IA32_TSC_ADJUST Register Support". */
static bool write_tsc(struct vcpu *vcpu, u32 number, u64 value)
{
	move_tsc(vcpu, value - guest_tsc(vcpu));
	return true;
}

static bool read_tsc_adjust(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = vcpu->tsc_adjust;
	return true;
}

static bool write_tsc_adjust(struct vcpu *vcpu, u32 number, u64 value)
{
	move_tsc(vcpu, value - vcpu->tsc_adjust);
	return true;
}

/* ---- memory types ---- */

#define TYPES_MTRR (BIT(0) | BIT(1) | BIT(4) | BIT(5) | BIT(6))
#define TYPES_PAT (TYPES_MTRR | BIT(7))

#define MTRR_CAP_VCNT 8
#define MTRR_CAP_FIX BIT(8)
#define MTRR_CAP_WC BIT(10)
#define MTRR_DEF_TYPE_FE BIT(10)
#define MTRR_DEF_TYPE_E BIT(11)
#define MTRR_MASK_V BIT(11)
#define MEMORY_TYPE_WB 6

static bool legal_type(u64 type, u64 types)
{
	return type < 8 && (types >> type & 1);
}

static bool legal_types(u64 value, u64 types)
{
	for (unsigned i = 0; i < 8; i++)
		if (!legal_type(value >> (i * 8) & 0xff, types))
			return false;
	return true;
}

static bool read_pat(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = vcpu->msr.pat;
	return true;
}

static bool write_pat(struct vcpu *vcpu, u32 number, u64 value)
{
	if (!legal_types(value, TYPES_PAT))
		return false;
	vcpu->msr.pat = value;
	return true;
}

static bool read_mtrr_def_type(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = vcpu->msr.mtrr_def_type;
	return true;
}

static bool write_mtrr_def_type(struct vcpu *vcpu, u32 number, u64 value)
{
	if ((value & ~(0xffull | MTRR_DEF_TYPE_FE | MTRR_DEF_TYPE_E)) || !legal_type(value & 0xff, TYPES_MTRR))
		return false;
	vcpu->msr.mtrr_def_type = value;
	return true;
}

/* IA32_MTRR_PHYSBASEn and PHYSMASKn take turns. Intel SDM volume 3, "Variable Range MTRRs". */
static bool read_mtrr_variable(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = (number & 1 ? vcpu->msr.mtrr_physmask : vcpu->msr.mtrr_physbase)[number / 2];
	return true;
}

static bool write_mtrr_variable(struct vcpu *vcpu, u32 number, u64 value)
{
	u64 address = mask_of(vcpu->physical_bits) & PAGE_MASK;
	bool is_mask = number & 1;
	if (value & ~(address | (is_mask ? MTRR_MASK_V : 0xff)))
		return false;
	if (!is_mask && !legal_type(value & 0xff, TYPES_MTRR))
		return false;
	(is_mask ? vcpu->msr.mtrr_physmask : vcpu->msr.mtrr_physbase)[number / 2] = value;
	return true;
}

static bool read_fixed(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = vcpu->msr.mtrr_fixed[number];
	return true;
}

static bool write_fixed(struct vcpu *vcpu, u32 number, u64 value)
{
	if (!legal_types(value, TYPES_MTRR))
		return false;
	vcpu->msr.mtrr_fixed[number] = value;
	return true;
}

/* The eleven registers lie in three groups: 64K at 0, 16K at 1 and 2, 4K at 3 to 10. */
static bool read_fixed_16k(struct vcpu *vcpu, u32 number, u64 *value)
{
	return read_fixed(vcpu, 1 + number, value);
}

static bool write_fixed_16k(struct vcpu *vcpu, u32 number, u64 value)
{
	return write_fixed(vcpu, 1 + number, value);
}

static bool read_fixed_4k(struct vcpu *vcpu, u32 number, u64 *value)
{
	return read_fixed(vcpu, 3 + number, value);
}

static bool write_fixed_4k(struct vcpu *vcpu, u32 number, u64 value)
{
	return write_fixed(vcpu, 3 + number, value);
}

/* ---- processor control ---- */

static bool read_efer(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = vcpu->efer;
	return true;
}

static bool write_efer(struct vcpu *vcpu, u32 number, u64 value)
{
	return control_write_efer(vcpu, value);
}

#define MISC_ENABLE_BTS_UNAVAILABLE BIT(11)
#define MISC_ENABLE_PEBS_UNAVAILABLE BIT(12)
#define MISC_ENABLE_READ_ONLY (MISC_ENABLE_BTS_UNAVAILABLE | MISC_ENABLE_PEBS_UNAVAILABLE)

static bool read_misc_enable(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = vcpu->msr.misc_enable | MISC_ENABLE_READ_ONLY;
	return true;
}

/* Nothing in it changes what nadir does, so every defined bit may be set: bits 0 to 34, with gaps nobody probes. */
static bool write_misc_enable(struct vcpu *vcpu, u32 number, u64 value)
{
	if (value & ~mask_of(35))
		return false;
	vcpu->msr.misc_enable = value & ~MISC_ENABLE_READ_ONLY;
	return true;
}

/* The microcode's revision: on Intel's processors in the upper half. */
static bool read_bios_sign_id(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = vcpu->cpuid->amd ? 0x01000065 : BIT(32);
	return true;
}

static bool drop_write(struct vcpu *vcpu, u32 number, u64 value)
{
	return true;
}

/* IBPB, with nothing to flush: a write-only command. */
static bool write_pred_cmd(struct vcpu *vcpu, u32 number, u64 value)
{
	return !(value & ~1ull);
}

/* IA32_ARCH_CAPABILITIES: affected by nothing (cpu_features_always says why). Intel SDM volume 4,
 * "IA32_ARCH_CAPABILITIES". */
#define ARCH_CAP_RDCL_NO BIT(0)
#define ARCH_CAP_IBRS_ALL BIT(1)
#define ARCH_CAP_SKIP_L1DFL_VMENTRY BIT(3)
#define ARCH_CAP_SSB_NO BIT(4)
#define ARCH_CAP_MDS_NO BIT(5)
#define ARCH_CAP_PSCHANGE_MC_NO BIT(6)
#define ARCH_CAP_TAA_NO BIT(8)
#define ARCH_CAP_SBDR_SSDP_NO BIT(13)
#define ARCH_CAP_FBSDP_NO BIT(14)
#define ARCH_CAP_PSDP_NO BIT(15)
#define ARCH_CAP_BHI_NO BIT(20)
#define ARCH_CAP_PBRSB_NO BIT(24)
#define ARCH_CAP_GDS_NO BIT(26)
#define ARCH_CAP_RFDS_NO BIT(27)
#define ARCH_CAP_ITS_NO BIT(62)
#define ARCH_CAPABILITIES                                                                                              \
	(ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_SKIP_L1DFL_VMENTRY | ARCH_CAP_SSB_NO | ARCH_CAP_MDS_NO |      \
	 ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_SSDP_NO | ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO |    \
	 ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO | ARCH_CAP_GDS_NO | ARCH_CAP_RFDS_NO | ARCH_CAP_ITS_NO)

/* Enhanced IBRS is of use only to who can turn it on. */
static bool read_arch_capabilities(struct vcpu *vcpu, u32 number, u64 *value)
{
	*value = ARCH_CAPABILITIES & ~(cpuid_has(vcpu->cpuid, FEATURE_SPEC_CTRL) ? 0 : ARCH_CAP_IBRS_ALL);
	return true;
}

#define SPEC_CTRL_VALID 3ull      /* IBRS; STIBP is ignored where it is not enumerated */
#define DEBUGCTL_VALID 3ull       /* LBR, BTF */
#define HWCR_TSC_FREQ_SEL BIT(24) /* the TSC counts at the nominal frequency */
#define DE_CFG_LFENCE_SERIALIZE BIT(1)
#define VM_CR_SVM_OFF (BIT(3) | BIT(4)) /* SVM disabled, and locked so */

/* ---- the table ---- */

#define FIELD(f) .offset = offsetof(struct vcpu, f)
#define FEATURE(f) .gate = FEATURE_##f
#define ALL64 .mask = ~0ull
#define HANDLED(what) .rule = RULE_HANDLED, .read = read_##what, .write = write_##what

/* clang-format off */
static const struct msr_row rows[] = {
	{ MSR_TSC, 1, "IA32_TIME_STAMP_COUNTER", HANDLED(tsc), FEATURE(TSC) },
	{ 0x17, 1, "IA32_PLATFORM_ID", RULE_CONSTANT, GATE_INTEL },
	{ 0x2a, 1, "EBL_CR_POWERON", RULE_DROPPED, GATE_INTEL },
	{ 0x3a, 1, "IA32_FEATURE_CONTROL", RULE_CONSTANT, GATE_INTEL, .mask = 1 /* locked, nothing enabled */ },
	{ MSR_TSC_ADJUST, 1, "IA32_TSC_ADJUST", HANDLED(tsc_adjust), FEATURE(TSC_ADJUST) },
	{ 0x48, 1, "IA32_SPEC_CTRL", RULE_STORED, FEATURE(SPEC_CTRL), FIELD(msr.spec_ctrl), .mask = SPEC_CTRL_VALID },
	{ 0x49, 1, "IA32_PRED_CMD", RULE_HANDLED, FEATURE(SPEC_CTRL), .write = write_pred_cmd },
	{ 0x79, 1, "IA32_BIOS_UPDT_TRIG", RULE_HANDLED, GATE_INTEL, .write = drop_write },
	{ 0x8b, 1, "IA32_BIOS_SIGN_ID", RULE_HANDLED, GATE_NONE, .read = read_bios_sign_id, .write = drop_write },
	{ 0xfe, 1, "IA32_MTRRCAP", RULE_CONSTANT, FEATURE(MTRR), .mask = MTRR_CAP_VCNT | MTRR_CAP_FIX | MTRR_CAP_WC },
	{ 0x10a, 1, "IA32_ARCH_CAPABILITIES", RULE_HANDLED, FEATURE(ARCH_CAPABILITIES), .read = read_arch_capabilities },
	{ 0x174, 1, "IA32_SYSENTER_CS", RULE_STORED, FEATURE(SEP), FIELD(msr.sysenter_cs), ALL64 },
	{ 0x175, 1, "IA32_SYSENTER_ESP", RULE_CANONICAL, FEATURE(SEP), FIELD(msr.sysenter_esp) },
	{ 0x176, 1, "IA32_SYSENTER_EIP", RULE_CANONICAL, FEATURE(SEP), FIELD(msr.sysenter_eip) },
	{ 0x179, 1, "IA32_MCG_CAP", RULE_CONSTANT, FEATURE(MCA) }, /* no banks */
	{ 0x17a, 1, "IA32_MCG_STATUS", RULE_STORED, FEATURE(MCA), FIELD(msr.mcg_status), .mask = 7 },
	{ 0x1a0, 1, "IA32_MISC_ENABLE", HANDLED(misc_enable), .gate = GATE_INTEL },
	{ 0x1d9, 1, "IA32_DEBUGCTL", RULE_STORED, GATE_NONE, FIELD(msr.debugctl), .mask = DEBUGCTL_VALID },
	{ 0x1db, 4, "LAST_BRANCH", RULE_CONSTANT, GATE_NONE },
	{ 0x200, 16, "IA32_MTRR_PHYSBASE/MASK", HANDLED(mtrr_variable), FEATURE(MTRR) },
	{ 0x250, 1, "IA32_MTRR_FIX64K", HANDLED(fixed), FEATURE(MTRR) },
	{ 0x258, 2, "IA32_MTRR_FIX16K", HANDLED(fixed_16k), FEATURE(MTRR) },
	{ 0x268, 8, "IA32_MTRR_FIX4K", HANDLED(fixed_4k), FEATURE(MTRR) },
	{ 0x277, 1, "IA32_PAT", HANDLED(pat), FEATURE(PAT) },
	{ 0x2ff, 1, "IA32_MTRR_DEF_TYPE", HANDLED(mtrr_def_type), FEATURE(MTRR) },
	{ 0xda0, 1, "IA32_XSS", RULE_STORED, FEATURE(XSAVES), FIELD(msr.xss), .mask = 0 },
	{ MSR_KVM_WALL_CLOCK, 1, "KVM_WALL_CLOCK_NEW", RULE_STORED, FEATURE(KVM_CLOCK), FIELD(msr.kvm_wall_clock), ALL64 },
	{ MSR_KVM_SYSTEM_TIME, 1, "KVM_SYSTEM_TIME_NEW", RULE_STORED, FEATURE(KVM_CLOCK), FIELD(msr.kvm_system_time), ALL64 },
	{ MSR_KVM_STEAL_TIME, 1, "KVM_STEAL_TIME", RULE_STORED, FEATURE(KVM_STEAL_TIME), FIELD(msr.kvm_steal_time), .mask = ~0x3eull },
	{ MSR_KVM_PV_EOI, 1, "KVM_PV_EOI_EN", RULE_STORED, FEATURE(KVM_PV_EOI), FIELD(msr.kvm_pv_eoi), .mask = ~2ull },
	{ 0xc0000080, 1, "EFER", HANDLED(efer), FEATURE(LM) },
	{ 0xc0000081, 1, "STAR", RULE_STORED, FEATURE(SYSCALL), FIELD(msr.star), ALL64 },
	{ 0xc0000082, 1, "LSTAR", RULE_CANONICAL, FEATURE(SYSCALL), FIELD(msr.lstar) },
	{ 0xc0000083, 1, "CSTAR", RULE_CANONICAL, FEATURE(SYSCALL), FIELD(msr.cstar) },
	{ 0xc0000084, 1, "FMASK", RULE_STORED, FEATURE(SYSCALL), FIELD(msr.fmask), ALL64 },
	{ 0xc0000100, 1, "FS_BASE", RULE_CANONICAL, FEATURE(LM), FIELD(seg[SEG_FS].base) },
	{ 0xc0000101, 1, "GS_BASE", RULE_CANONICAL, FEATURE(LM), FIELD(seg[SEG_GS].base) },
	{ 0xc0000102, 1, "KERNEL_GS_BASE", RULE_CANONICAL, FEATURE(LM), FIELD(msr.kernel_gs_base) },
	{ 0xc0000103, 1, "TSC_AUX", RULE_STORED, FEATURE(RDTSCP), FIELD(msr.tsc_aux), .mask = 0xffffffff },
	{ 0xc0010010, 1, "SYSCFG", RULE_DROPPED, GATE_AMD },
	{ 0xc0010015, 1, "HWCR", RULE_DROPPED, GATE_AMD, .mask = HWCR_TSC_FREQ_SEL },
	{ 0xc0010016, 4, "IORR", RULE_DROPPED, GATE_AMD },
	{ 0xc001001a, 1, "TOP_MEM", RULE_DROPPED, GATE_AMD },
	{ 0xc001001d, 1, "TOP_MEM2", RULE_DROPPED, GATE_AMD },
	{ 0xc001001f, 1, "NB_CFG", RULE_DROPPED, GATE_AMD },
	{ 0xc0010020, 1, "PATCH_LOADER", RULE_HANDLED, GATE_AMD, .write = drop_write },
	{ 0xc0010055, 1, "INT_PENDING_MSG", RULE_DROPPED, GATE_AMD },
	{ 0xc0010061, 3, "PSTATE_CONTROL", RULE_DROPPED, GATE_AMD },
	{ 0xc0010114, 1, "VM_CR", RULE_DROPPED, GATE_AMD, .mask = VM_CR_SVM_OFF },
	{ 0xc0010140, 2, "OSVW", RULE_DROPPED, GATE_AMD },
	{ 0xc0011029, 1, "DE_CFG", RULE_DROPPED, GATE_AMD, .mask = DE_CFG_LFENCE_SERIALIZE },
	{ 0xc001102a, 1, "BU_CFG2", RULE_DROPPED, GATE_AMD },
};
/* clang-format on */

static const struct msr_row *find(u32 index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		if (index - rows[i].first < rows[i].count)
			return &rows[i];
	return NULL;
}

static bool exists(const struct vcpu *vcpu, const struct msr_row *row)
{
	switch (row->gate) {
	case GATE_NONE:
		return true;
	case GATE_AMD:
		return vcpu->cpuid->amd;
	case GATE_INTEL:
		return !vcpu->cpuid->amd;
	default:
		return cpuid_has(vcpu->cpuid, (enum cpu_feature)row->gate);
	}
}

static u64 *field(struct vcpu *vcpu, const struct msr_row *row)
{
	return (u64 *)((u8 *)vcpu + row->offset);
}

enum msr_result msr_read(struct vcpu *vcpu, u32 index, u64 *value)
{
	const struct msr_row *row = find(index);
	*value = 0;
	if (!row || !exists(vcpu, row))
		return MSR_UNKNOWN;
	switch (row->rule) {
	case RULE_STORED:
	case RULE_CANONICAL:
		*value = *field(vcpu, row);
		return MSR_OK;
	case RULE_CONSTANT:
	case RULE_DROPPED:
		*value = row->mask;
		return MSR_OK;
	default:
		return row->read && row->read(vcpu, index - row->first, value) ? MSR_OK : MSR_FAULT;
	}
}

enum msr_result msr_write(struct vcpu *vcpu, u32 index, u64 value)
{
	const struct msr_row *row = find(index);
	if (!row || !exists(vcpu, row))
		return MSR_UNKNOWN;
	switch (row->rule) {
	case RULE_STORED:
		if (value & ~row->mask)
			return MSR_FAULT;
		*field(vcpu, row) = value;
		return MSR_OK;
	case RULE_CANONICAL:
		if (!is_canonical(value, vcpu->linear_bits))
			return MSR_FAULT;
		*field(vcpu, row) = value;
		return MSR_OK;
	case RULE_CONSTANT:
		return MSR_FAULT;
	case RULE_DROPPED:
		return MSR_OK;
	default:
		return row->write && row->write(vcpu, index - row->first, value) ? MSR_OK : MSR_FAULT;
	}
}

const char *msr_name(u32 index)
{
	const struct msr_row *row = find(index);
	return row ? row->name : NULL;
}

/* Intel SDM volume 3, "Memory Type Range Registers (MTRRs)". */
void msr_set_firmware_mtrrs(struct vcpu *vcpu, gpa_t device_base)
{
	struct msr_state *m = &vcpu->msr;
	m->mtrr_def_type = MTRR_DEF_TYPE_E | MTRR_DEF_TYPE_FE | MEMORY_TYPE_WB;
	memset(m->mtrr_fixed, MEMORY_TYPE_WB, sizeof(m->mtrr_fixed));
	m->mtrr_fixed[2] = 0;              /* 0xa0000: video memory, uncacheable */
	m->mtrr_physbase[0] = device_base; /* type 0: uncacheable */
	m->mtrr_physmask[0] = (~(BIT(32) - device_base - 1) & mask_of(vcpu->physical_bits)) | MTRR_MASK_V;
}
