/* Who runs next, and where. No clock, no lock, no interrupt: thread.c has these, holds its lock in all calls, and says what time it is.
 *
 * Each CPU has a queue of threads that are ready. Among them the one with the least virtual time is next: what it has run, divided by its weight. One that
 * was asleep begins where the queue is, a little ahead, so that it runs soon; how soon is counted. Urgent threads, and those that hold a lock which one
 * of the host's own wants, come first.
 *
 * A CPU without work takes some from another's queue; one with less than another does so now and then, even if that only turns the difference
 * round, so that three threads on two CPUs get as much each: a virtual time is the same on every CPU, within bounds.
 *
 * A group of threads with a cap has credit, which grows with time by as many percent of it; when it has run that, it waits until it has half of what
 * it may save. */
#ifndef NADIR_HOST_METAL_SCHED_H
#define NADIR_HOST_METAL_SCHED_H

#include "host/metal/thread.h"

#define SCHED_SLICE_NS (10 * 1000 * 1000ull)

/* A thread becomes ready, at first or after its sleep. */
void sched_ready(struct thread *t, u64 now);
/* Those of `all` that have slept on this CPU as long as they wanted become ready. */
void sched_wake_sleepers(struct thread *all, const struct cpu *cpu, u64 now);
/* Who is to run on the CPU from now on: who did, another, or the CPU's idle thread. Both are accounted. */
struct thread *sched_switch(struct cpu *cpu, u64 now);
/* When the CPU is to look again, if nothing happens before; HOST_NEVER. */
u64 sched_deadline(const struct thread *all, const struct cpu *cpu, u64 now);
/* The CPU where a new thread of this mask should begin. */
struct cpu *sched_place(u64 mask);

/* thread.c's: let the CPU choose anew, soon. */
void sched_kick(struct cpu *cpu);

#endif
