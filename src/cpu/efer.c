/* IA32_EFER. Intel SDM volume 3, "Extended Feature Enable Register", "Initializing IA-32e Mode". */
#include "cpu/control.h"
#include "mmu/mmu.h"

bool control_write_efer(struct vcpu *vcpu, u64 value)
{
	/* LMA is a status bit: what is written there is ignored. */
	u64 efer = (value & ~EFER_LMA) | (vcpu->efer & EFER_LMA);
	u64 changed = efer ^ vcpu->efer;
	if (efer & ~(vcpu->efer_valid | EFER_LMA))
		return vcpu_raise_gp(vcpu, 0);
	if ((changed & EFER_LME) && (vcpu->cr0 & CR0_PG))
		return vcpu_raise_gp(vcpu, 0);
	vcpu->efer = efer;
	if (changed & EFER_NXE)
		mmu_flush_all(vcpu);
	return true;
}
