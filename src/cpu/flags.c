/* RFLAGS: what POPF, PUSHF, CLI and STI may see and change, with the virtual interrupt flags of V86 and protected mode.
 * Intel SDM volume 2, POPF ("Effect of POPF/POPFD on the EFLAGS Register"), PUSHF, CLI, STI; volume 3, "Virtual-8086
 * Mode", "Protected-Mode Virtual Interrupts". */
#include "cpu/control.h"
#include "mmu/mmu.h"

#define FLAGS_ALWAYS (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)

static void change_flags(struct vcpu *vcpu, u64 value, u64 mask)
{
	u64 old = vcpu->rflags;
	vcpu->rflags = (old & ~mask) | (value & mask) | RFLAGS_FIXED1;
	if ((old ^ vcpu->rflags) & RFLAGS_AC)
		mmu_update_view(vcpu);
}

static bool v86_below_iopl3(const struct vcpu *vcpu)
{
	return vcpu_v86(vcpu) && vcpu_iopl(vcpu) < 3;
}

/* V86 mode with IOPL below 3 and VME: the 16-bit form works on VIF instead of IF. */
static bool popf_vme(struct vcpu *vcpu, u64 value, unsigned size)
{
	if (!(vcpu->cr4 & CR4_VME) || size != 2)
		return vcpu_raise_gp(vcpu, 0);
	if ((value & RFLAGS_TF) || ((value & RFLAGS_IF) && (vcpu->rflags & RFLAGS_VIP)))
		return vcpu_raise_gp(vcpu, 0);
	u64 vif = (value & RFLAGS_IF) ? RFLAGS_VIF : 0;
	change_flags(vcpu, (value & FLAGS_ALWAYS) | vif, FLAGS_ALWAYS | RFLAGS_VIF | RFLAGS_RF);
	return true;
}

bool control_popf(struct vcpu *vcpu, u64 value, unsigned size)
{
	if (v86_below_iopl3(vcpu))
		return popf_vme(vcpu, value, size);
	u64 mask = FLAGS_ALWAYS;
	if (size > 2)
		mask |= RFLAGS_AC | RFLAGS_ID;
	if (vcpu->cpl == 0)
		mask |= RFLAGS_IOPL;
	if (vcpu->cpl <= vcpu_iopl(vcpu))
		mask |= RFLAGS_IF;
	change_flags(vcpu, value & ~RFLAGS_RF, mask | RFLAGS_RF);
	return true;
}

bool control_pushf(struct vcpu *vcpu, unsigned size, u64 *value)
{
	u64 image = vcpu->rflags & ~(RFLAGS_VM | RFLAGS_RF);
	if (v86_below_iopl3(vcpu)) {
		if (!(vcpu->cr4 & CR4_VME) || size != 2)
			return vcpu_raise_gp(vcpu, 0);
		image = (image & ~RFLAGS_IF) | RFLAGS_IOPL;
		if (vcpu->rflags & RFLAGS_VIF)
			image |= RFLAGS_IF;
	}
	*value = image & size_mask(size);
	return true;
}

/* Which flag CLI and STI work on; 0: neither, #GP(0). */
static u64 interrupt_flag(const struct vcpu *vcpu)
{
	if (vcpu->cpl <= vcpu_iopl(vcpu))
		return RFLAGS_IF;
	if (vcpu_v86(vcpu))
		return (vcpu->cr4 & CR4_VME) ? RFLAGS_VIF : 0;
	return vcpu->cpl == 3 && (vcpu->cr4 & CR4_PVI) ? RFLAGS_VIF : 0;
}

bool control_cli(struct vcpu *vcpu)
{
	u64 flag = interrupt_flag(vcpu);
	if (!flag)
		return vcpu_raise_gp(vcpu, 0);
	change_flags(vcpu, 0, flag);
	return true;
}

bool control_sti(struct vcpu *vcpu)
{
	u64 flag = interrupt_flag(vcpu);
	if (!flag || (flag == RFLAGS_VIF && (vcpu->rflags & RFLAGS_VIP)))
		return vcpu_raise_gp(vcpu, 0);
	if (flag == RFLAGS_IF && !(vcpu->rflags & RFLAGS_IF))
		vcpu->shadow |= SHADOW_STI;
	change_flags(vcpu, flag, flag);
	return true;
}
