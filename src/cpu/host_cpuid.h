/* The host's own CPUID and XCR0, read directly. Under a hypervisor one CPUID costs microseconds: read at creation,
 * never while a guest runs. Intel SDM volume 2, CPUID, XGETBV. */
#ifndef NADIR_CPU_HOST_CPUID_H
#define NADIR_CPU_HOST_CPUID_H

#include "arch/cpuid.h"

struct cpuid_regs {
	u32 reg[4]; /* by enum cpuid_register */
};

static inline struct cpuid_regs host_cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid_regs r;
	__asm__ volatile("cpuid"
			 : "=a"(r.reg[CPUID_EAX]), "=b"(r.reg[CPUID_EBX]), "=c"(r.reg[CPUID_ECX]),
			   "=d"(r.reg[CPUID_EDX])
			 : "a"(leaf), "c"(subleaf));
	return r;
}

/* The same, but all zero for a leaf the host does not have. */
static inline struct cpuid_regs host_cpuid_checked(u32 leaf, u32 subleaf)
{
	bool present = host_cpuid(leaf & 0x80000000u, 0).reg[CPUID_EAX] >= leaf;
	return present ? host_cpuid(leaf, subleaf) : (struct cpuid_regs){ 0 };
}

/* The host's XCR0; 0 where it does not use XSAVE. */
static inline u64 host_xcr0(void)
{
	u32 low, high;
	if (!(host_cpuid(1, 0).reg[CPUID_ECX] & BIT(27)))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return low | (u64)high << 32;
}

#endif
