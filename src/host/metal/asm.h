/* Privileged instructions, each as a function. Intel SDM volume 2, the instruction of that name. */
#ifndef NADIR_HOST_METAL_ASM_H
#define NADIR_HOST_METAL_ASM_H

#include "arch/asm.h"
#include "arch/msr.h"
#include "arch/regs.h"
#include "arch/types.h"

static inline void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory");
}

static inline u8 inb(u16 port)
{
	u8 value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline void outw(u16 port, u16 value)
{
	__asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port) : "memory");
}

static inline u16 inw(u16 port)
{
	u16 value;
	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

#define CONTROL_REGISTER(n)                                                                                            \
	static inline u64 read_cr##n(void)                                                                             \
	{                                                                                                              \
		u64 value;                                                                                             \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(value)::"memory");                                        \
		return value;                                                                                          \
	}                                                                                                              \
	static inline void write_cr##n(u64 value)                                                                      \
	{                                                                                                              \
		__asm__ volatile("mov %0, %%cr" #n ::"r"(value) : "memory");                                           \
	}
CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)
#undef CONTROL_REGISTER

static inline void invlpg(u64 address)
{
	__asm__ volatile("invlpg (%0)" ::"r"(address) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
	return low | (u64)high << 32;
}

static inline void cpu_relax(void)
{
	__asm__ volatile("pause" ::: "memory");
}

/* Interrupts off, and what RFLAGS was before; back to that. */
static inline u64 irq_save(void)
{
	u64 flags;
	__asm__ volatile("pushfq; popq %0; cli" : "=r"(flags)::"memory");
	return flags;
}

static inline void irq_restore(u64 flags)
{
	if (flags & RFLAGS_IF)
		__asm__ volatile("sti" ::: "memory");
}

#endif
