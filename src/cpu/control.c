/* Control registers: which values MOV to CR, LMSW and CLTS accept, and what else changes with them.
 * Intel SDM volume 3, "Control Registers", "Initializing IA-32e Mode", "PDPTE Registers", "Operations that Invalidate
 * TLBs and Paging-Structure Caches"; volume 2, "MOV - Move to/from Control Registers", LMSW, SMSW, CLTS. */
#include "cpu/control.h"

#include "mmu/mmu.h"

/* Mode as a set of CR0, CR4 and EFER has it. */
static bool is_pae_paging(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

static bool tr_is_tss16(const struct vcpu *vcpu)
{
	u32 type = vcpu->tr.attr & SEG_ATTR_TYPE;
	return type == SYS_TSS16 || type == SYS_TSS16_BUSY;
}

/* ---- CR0 ---- */

static bool cr0_combination_valid(u64 cr0)
{
	return !((cr0 & CR0_PG) && !(cr0 & CR0_PE)) && !((cr0 & CR0_NW) && !(cr0 & CR0_CD));
}

/* Setting PG with EFER.LME activates IA-32e mode. */
static bool may_activate_long_mode(const struct vcpu *vcpu)
{
	return (vcpu->cr4 & CR4_PAE) && !(vcpu->seg[SEG_CS].attr & SEG_ATTR_L) && !tr_is_tss16(vcpu);
}

static bool cr0_transition_valid(const struct vcpu *vcpu, u64 cr0)
{
	bool paging = vcpu->cr0 & CR0_PG;
	if (paging && !(cr0 & CR0_PG))
		return !vcpu_64bit(vcpu) && !(vcpu->cr4 & CR4_PCIDE);
	if (!paging && (cr0 & CR0_PG) && (vcpu->efer & EFER_LME))
		return may_activate_long_mode(vcpu);
	return true;
}

static u64 efer_with_paging(u64 efer, u64 cr0)
{
	bool active = (efer & EFER_LME) && (cr0 & CR0_PG);
	return active ? efer | EFER_LMA : efer & ~EFER_LMA;
}

static bool write_cr0(struct vcpu *vcpu, u64 value)
{
	/* Reserved bits of the low half are ignored, not refused. */
	u64 cr0 = (value & vcpu->cr0_valid) | CR0_ET;
	if (value >> 32 || !cr0_combination_valid(cr0) || !cr0_transition_valid(vcpu, cr0))
		return vcpu_raise_gp(vcpu, 0);
	u64 changed = cr0 ^ vcpu->cr0;
	u64 efer = efer_with_paging(vcpu->efer, cr0);
	if (is_pae_paging(cr0, vcpu->cr4, efer) && (changed & (CR0_PG | CR0_CD | CR0_NW)) &&
	    !mmu_load_pdptes(vcpu, vcpu->cr3))
		return false;
	vcpu->cr0 = cr0;
	vcpu->efer = efer;
	if (changed & (CR0_PG | CR0_PE | CR0_WP))
		mmu_flush_all(vcpu);
	return true;
}

/* ---- CR3 ---- */

static bool write_cr3(struct vcpu *vcpu, u64 value)
{
	bool noflush = (vcpu->cr4 & CR4_PCIDE) && (value & CR3_NOFLUSH);
	if (noflush)
		value &= ~CR3_NOFLUSH;
	if (value & ~mask_of(vcpu->physical_bits))
		return vcpu_raise_gp(vcpu, 0);
	if (is_pae_paging(vcpu->cr0, vcpu->cr4, vcpu->efer) && !mmu_load_pdptes(vcpu, value))
		return false;
	vcpu->cr3 = value;
	mmu_load_cr3(vcpu, noflush);
	return true;
}

/* ---- CR4 ---- */

static bool cr4_transition_valid(const struct vcpu *vcpu, u64 cr4)
{
	u64 changed = cr4 ^ vcpu->cr4;
	if (vcpu_long_mode(vcpu) && (!(cr4 & CR4_PAE) || (changed & CR4_LA57)))
		return false;
	if (changed & cr4 & CR4_PCIDE)
		return vcpu_long_mode(vcpu) && !(vcpu->cr3 & CR3_PCID_MASK);
	return true;
}

#define CR4_RELOADS_PDPTES (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)
#define CR4_FLUSHES (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP | CR4_PCIDE | CR4_LA57)

static bool write_cr4(struct vcpu *vcpu, u64 cr4)
{
	u64 changed = cr4 ^ vcpu->cr4;
	if ((cr4 & ~vcpu->cr4_valid) || !cr4_transition_valid(vcpu, cr4))
		return vcpu_raise_gp(vcpu, 0);
	if (is_pae_paging(vcpu->cr0, cr4, vcpu->efer) && (changed & CR4_RELOADS_PDPTES) &&
	    !mmu_load_pdptes(vcpu, vcpu->cr3))
		return false;
	vcpu->cr4 = cr4;
	mmu_update_view(vcpu);
	if (changed & CR4_FLUSHES)
		mmu_flush_all(vcpu);
	if (changed & CR4_PCIDE)
		mmu_load_cr3(vcpu, false);
	return true;
}

/* ---- CR8: the task priority is the local APIC's ---- */

static void read_cr8(struct vcpu *vcpu, u64 *value)
{
	struct exit exit = { .reason = EXIT_CR_READ, .cr = { .number = 8 } };
	vcpu->ops->exit(vcpu, &exit);
	*value = exit.cr.value & 0xf;
}

static bool write_cr8(struct vcpu *vcpu, u64 value)
{
	struct exit exit = { .reason = EXIT_CR_WRITE, .cr = { .number = 8, .value = value } };
	if (value & ~0xfull)
		return vcpu_raise_gp(vcpu, 0);
	vcpu->ops->exit(vcpu, &exit);
	return true;
}

/* ---- the instructions ---- */

#define CR_EXISTS (BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(8))

/* CR1, CR5 to CR7 and CR9 to CR15 do not exist: #UD, before the check of CPL. */
static bool may_access_cr(struct vcpu *vcpu, unsigned number)
{
	if (number > 15 || !(CR_EXISTS & BIT(number)))
		return vcpu_raise_ud(vcpu);
	if (vcpu->cpl)
		return vcpu_raise_gp(vcpu, 0);
	return true;
}

bool control_read_cr(struct vcpu *vcpu, unsigned number, u64 *value)
{
	if (!may_access_cr(vcpu, number))
		return false;
	switch (number) {
	case 0:
		*value = vcpu->cr0;
		break;
	case 2:
		*value = vcpu->cr2;
		break;
	case 3:
		*value = vcpu->cr3;
		break;
	case 4:
		*value = vcpu->cr4;
		break;
	case 8:
		read_cr8(vcpu, value);
		break;
	}
	return true;
}

bool control_write_cr(struct vcpu *vcpu, unsigned number, u64 value)
{
	if (!may_access_cr(vcpu, number))
		return false;
	switch (number) {
	case 0:
		return write_cr0(vcpu, value);
	case 3:
		return write_cr3(vcpu, value);
	case 4:
		return write_cr4(vcpu, value);
	case 8:
		return write_cr8(vcpu, value);
	}
	vcpu->cr2 = value;
	return true;
}

/* LMSW loads PE, MP, EM and TS; it cannot clear PE. */
bool control_lmsw(struct vcpu *vcpu, u16 value)
{
	if (vcpu->cpl)
		return vcpu_raise_gp(vcpu, 0);
	u64 loaded = CR0_MP | CR0_EM | CR0_TS;
	return write_cr0(vcpu, (vcpu->cr0 & ~loaded) | (value & (loaded | CR0_PE)));
}

bool control_clts(struct vcpu *vcpu)
{
	if (vcpu->cpl)
		return vcpu_raise_gp(vcpu, 0);
	vcpu->cr0 &= ~CR0_TS;
	return true;
}

bool control_smsw(struct vcpu *vcpu, u64 *value)
{
	if (vcpu->cpl && (vcpu->cr4 & CR4_UMIP))
		return vcpu_raise_gp(vcpu, 0);
	*value = vcpu->cr0;
	return true;
}
