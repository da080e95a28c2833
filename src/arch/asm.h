/* Privileged instructions that more than one layer uses, each as a function. Intel SDM volume 2, the instruction of that name. */
#ifndef NADIR_ARCH_ASM_H
#define NADIR_ARCH_ASM_H

#include "arch/types.h"

static inline u64 rdmsr(u32 msr)
{
	u32 low, high;
	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return low | (u64)high << 32;
}

static inline void wrmsr(u32 msr, u64 value)
{
	__asm__ volatile("wrmsr" ::"c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline void xsetbv(u32 number, u64 value)
{
	__asm__ volatile("xsetbv" ::"c"(number), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 xgetbv(u32 number)
{
	u32 low, high;
	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(number));
	return low | (u64)high << 32;
}

#endif
