/* Threads. A thread has a stack, a frame of registers while it does not run, a weight, CPUs that it may use, and perhaps a group that has a cap: who
 * runs where is sched.h's.
 *
 * All is decided in trap_dispatch, on the interrupt stack, with interrupts off: the frame of the thread that ran is copied to it, and that of the
 * next is left by trap_return. */
#ifndef NADIR_HOST_METAL_THREAD_H
#define NADIR_HOST_METAL_THREAD_H

#include "host/metal/cpu.h"
#include "host/metal/trap_frame.h"
#include "host/port.h"
#include "lib/histogram.h"

#define THREAD_WEIGHT 1024
#define THREAD_NAME_MAX 24

enum thread_state { THREAD_READY, THREAD_ASLEEP, THREAD_ENDED };

struct thread {
	struct frame frame; /* while it does not run */
	u64 gs_base;
	u8 *xsave; /* its vector registers while it does not run; NULL: it uses none */
	u64 xsave_cpu; /* index of the CPU that may still hold them */
	u8 state;
	bool running; /* on `cpu` */
	bool queued;
	bool urgent;
	bool yields; /* wants others to run first, once */
	u64 mask; /* of the CPUs that it may run on, a bit each; 0: any */
	bool held; /* its group's cap held it back when its CPU last looked */
	bool wanted; /* it holds a lock that a thread without a group waits for */
	u32 weight;
	struct sched_group *group; /* NULL: one of the host's own */
	struct cpu *cpu; /* where it runs, or ran */
	struct thread *next; /* in the CPU's queue */
	struct thread *all; /* in the list of all */
	u64 virtual_time, ran; /* nanoseconds */
	u64 waited; /* nanoseconds that it was ready and did not run */
	u64 since; /* when it began to run, or to be ready */
	u64 woken; /* when its sleep ended; 0 once it has run since */
	struct histogram latency; /* nanoseconds from then until it ran */
	host_trap_handler trap_handler;
	u32 *word; /* what it waits for; NULL: nothing */
	u64 deadline;
	u8 *stack;
	void (*run)(void *opaque);
	void *opaque;
	char name[THREAD_NAME_MAX];
};

/* Threads that share a limit: the vCPUs of a guest. The scheduler's, but for the first. */
struct sched_group {
	u32 cap; /* percent of a CPU that they may use together; 0: no limit */
	s64 credit; /* nanoseconds that they may run before they must wait */
	u64 refilled; /* when that was brought up to date */
	u64 until; /* they wait until then */
	u64 held_back; /* how often they had to */
};

/* What a thread is made with. */
struct thread_setup {
	const char *name;
	void (*run)(void *opaque);
	void *opaque;
	bool vector; /* it runs guests: vector registers are kept */
	bool urgent;
	u64 mask;
	u32 weight;
	struct sched_group *group;
};

/* The calling code becomes the idle thread of its CPU: from then on it may be interrupted. */
void thread_adopt_idle(struct cpu *cpu);
/* What an idle thread does. */
_Noreturn void thread_idle(void);
/* NULL: no memory. It begins to run at once. It is freed some time after its function has returned. */
struct thread *thread_create(const struct thread_setup *setup);
/* Sleep until then, by host_now. */
void thread_sleep_until(u64 deadline);
/* All threads, in no order; what is in them may change any time. */
const struct thread *thread_first(void);

/* ---- for trap.c ---- */

/* Whether time is up for who runs; wake sleepers. The timer's interrupt. */
void thread_tick(void);
/* The frame to go on from, now that `frame` was interrupted: its own, or another thread's. */
struct frame *thread_switch(struct frame *frame);

#endif
