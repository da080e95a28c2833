/* One CPU of the machine: what it needs to take exceptions and interrupts, and who runs on it. FS points at it, always. */
#ifndef NADIR_HOST_METAL_CPU_H
#define NADIR_HOST_METAL_CPU_H

#include "host/metal/asm.h"

#define CPUS_MAX 64

/* Vectors. Those of devices are below. */
enum { VECTOR_DEVICE = 0x30, VECTOR_TIMER = 0xec, VECTOR_WAKE, VECTOR_CALL, VECTOR_SCHEDULE, VECTOR_POSTED, VECTOR_SPURIOUS = 0xff };

struct thread;

/* Intel SDM volume 3, "64-Bit Task State Segment". */
struct tss {
	u32 reserved0;
	u64 rsp[3];
	u64 reserved1;
	u64 ist[7];
	u64 reserved2;
	u16 reserved3, io_map;
} __attribute__((packed));
_Static_assert(sizeof(struct tss) == 104, "TSS");

/* Stacks of the interrupt stack table: one for what may come while another is in use. */
enum { IST_INTERRUPT = 1, IST_EXCEPTION, IST_NMI, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_COUNT = IST_MACHINE_CHECK };

struct cpu {
	struct cpu *self;
	struct thread *current;
	u32 index, apic_id;
	struct thread *idle;
	struct thread *vector_owner; /* whose vector registers these are, unless it has run elsewhere since */
	struct thread *ready; /* queue; the scheduler's lock */
	u64 least; /* virtual time of the queue, which only grows */
	u64 balanced; /* when it last looked for work elsewhere */
	bool resched; /* choose anew at the end of the interrupt */
	u64 timer_due; /* host_timer_due */
	u32 online; /* atomic */
	void *engine; /* host_cpu_slot */
	/* Functions that other CPUs want to be called here: cpu_call. */
	void (*call)(void *opaque);
	void *call_opaque;
	u32 called; /* atomic: 1 asked for, 0 done */
	struct tss tss;
	u64 gdt[8];
};

/* Constant once the CPUs are started. */
extern struct cpu *cpus[CPUS_MAX];
extern unsigned cpu_count;

static inline struct cpu *this_cpu(void)
{
	struct cpu *cpu;
	__asm__ volatile("movq %%fs:0, %0" : "=r"(cpu));
	return cpu;
}

static inline struct thread *this_thread(void)
{
	struct thread *thread;
	__asm__ volatile("movq %%fs:8, %0" : "=r"(thread));
	return thread;
}

/* Make a struct cpu; set up the calling CPU by it: descriptors, control registers, XCR0. */
struct cpu *cpu_create(unsigned index, u32 apic_id);
void cpu_init(struct cpu *cpu);
/* What cpu_init wrote to XCR0; 0: the CPU has no XSAVE. */
u64 cpu_xcr0(void);

/* Call a function on one CPU, or on all that are online, this one included, and wait for it. Interrupts must be on. */
void cpu_call(unsigned index, void (*function)(void *opaque), void *opaque);
void cpu_call_all(void (*function)(void *opaque), void *opaque);
/* The handler's part. */
void cpu_called(void);
/* All CPUs forget translations of [virtual, virtual + size). */
void cpu_flush_all(u64 virtual, u64 size);

#endif
