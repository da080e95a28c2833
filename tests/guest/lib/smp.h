/* Several CPUs in a 64-bit guest: application processors started by INIT and SIPI, each with its own stack, task state
 * and number, and work given to all of them at once. Intel SDM volume 3, "Multiple-Processor (MP) Initialization". */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "lib/apic.h"

#define CPUS_MAX 8

/* The area of one CPU, at its GS base. */
struct cpu {
	struct cpu *self;
	unsigned index;
	u32 apic_id;
	struct tss *tss;
	u8 *stack_top;
};

/* Start the application processors, as many as "cpus=N" on the command line says with the first one (default 1). All
 * have their local APIC enabled, and SSE. False: some did not come; the check has failed then. */
bool smp_start(void);
extern unsigned smp_cpus;

/* Run `work` on every CPU, this one included, and come back when all have finished. */
void smp_run(void (*work)(unsigned index));
/* Set the other CPUs to `work` that does not end. */
void smp_start_work(void (*work)(unsigned index));

/* Start an application processor anew by INIT and SIPI, whatever it was doing; what it did counts as finished. False: it did not come. */
bool smp_restart(unsigned index);
/* INIT alone, and SIPI alone: smp_came() tells how often CPUs have come through the start so far. */
void smp_stop(unsigned index);
void smp_startup(unsigned index);
u64 smp_came(void);

/* All CPUs that work meet here. */
struct barrier {
	volatile unsigned waiting, round;
};
void barrier_wait(struct barrier *b, unsigned cpus);

static inline struct cpu *this_cpu(void)
{
	struct cpu *cpu;
	asm volatile("mov %%gs:0, %0" : "=r"(cpu));
	return cpu;
}

/* An IPI to one CPU, or to a destination shorthand. Interrupts are off between the two halves of the command. */
void smp_send(u32 apic_id, u32 command);
u32 smp_apic_id(unsigned index);

/* ---- atomic operations ---- */

static inline u64 atomic_add(volatile u64 *p, u64 n)
{
	asm volatile("lock xaddq %0, %1" : "+r"(n), "+m"(*p) : : "memory", "cc");
	return n;
}

static inline u64 atomic_exchange(volatile u64 *p, u64 n)
{
	asm volatile("xchgq %0, %1" : "+r"(n), "+m"(*p) : : "memory");
	return n;
}

static inline bool atomic_compare_exchange(volatile u64 *p, u64 *expected, u64 n)
{
	bool done;
	asm volatile("lock cmpxchgq %3, %2" : "=@ccz"(done), "+a"(*expected), "+m"(*p) : "r"(n) : "memory");
	return done;
}

static inline void mfence(void)
{
	asm volatile("mfence" : : : "memory");
}

#endif
