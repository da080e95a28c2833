/* Extended control registers. Intel SDM volume 1, "Enabling the XSAVE Feature Set and XSAVE-Enabled Features"; volume
 * 2, XGETBV, XSETBV. */
#include "cpu/control.h"
#include "cpu/cpuid.h"

/* Where an XSAVE image has XSTATE_BV. Intel SDM volume 1, "XSAVE Header". */
#define XSTATE_BV_OFFSET 512

static bool xcr0_combination_valid(u64 xcr0)
{
	if (!(xcr0 & XCR0_X87))
		return false;
	if ((xcr0 & XCR0_AVX) && !(xcr0 & XCR0_SSE))
		return false;
	u64 avx512 = xcr0 & XCR0_AVX512;
	return !avx512 || (avx512 == XCR0_AVX512 && (xcr0 & XCR0_AVX));
}

bool control_xsetbv(struct vcpu *vcpu, u32 index, u64 value)
{
	if (!(vcpu->cr4 & CR4_OSXSAVE))
		return vcpu_raise_ud(vcpu);
	if (vcpu->cpl || index || (value & ~vcpu->xcr0_valid) || !xcr0_combination_valid(value))
		return vcpu_raise_gp(vcpu, 0);
	vcpu->xcr0 = value;
	return true;
}

bool control_xgetbv(struct vcpu *vcpu, u32 index, u64 *value)
{
	if (!(vcpu->cr4 & CR4_OSXSAVE))
		return vcpu_raise_ud(vcpu);
	if (index == 0) {
		*value = vcpu->xcr0;
		return true;
	}
	if (index != 1 || !cpuid_has(vcpu->cpuid, FEATURE_XGETBV1))
		return vcpu_raise_gp(vcpu, 0);
	__builtin_memcpy(value, vcpu->xsave + XSTATE_BV_OFFSET, sizeof(*value));
	*value &= vcpu->xcr0;
	return true;
}
