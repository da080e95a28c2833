/* What the parts of the torture guest (torture.c) share: a CPU's own record, locks, and calls to all CPUs. */
#ifndef GUEST_TORTURE_H
#define GUEST_TORTURE_H

#include "lib/smp.h"

#define V_TIMER 0x41
#define V_PERIODIC 0x42
#define V_PAIR 0x50 /* + sender */
#define V_SELF 0x61
#define V_CALL 0x71
#define V_USER_END 0x82
#define SEL_SYSCALL 0x200 /* and data behind it, as SYSCALL wants them */
#define WAIT_LIMIT (60ull << 30) /* TSC ticks: some 20 seconds */

/* What one CPU has and counts. */
struct worker {
	u64 seed;
	u64 actions;
	u64 xadds, cas, bts, tickets; /* what it added to the shared counters */
	u64 timers_armed, timers_fired, periods;
	u64 sent[CPUS_MAX], received[CPUS_MAX]; /* IPIs to and from each CPU; received is written by its own handlers */
	u64 selfs_sent, selfs_received, nmis_received, calls_received, calls_last;
	u64 users, user_sum;
	u64 checks, seen_patching, seen_faults; /* how often the interesting cases were met */
	u64 fixup, fault_error; /* of an access that may fault */
	u64 kernel_sp;
	u64 function_seen[16];
	u64 failures;
	const char *failed;
	u64 got, want;
} __attribute__((aligned(64)));

extern struct worker workers[CPUS_MAX];
extern volatile bool stop;

static inline struct worker *self(void)
{
	return &workers[this_cpu()->index];
}

/* The first failure of each CPU is reported; `expect` counts as a check. */
void fail(const char *what, u64 got, u64 want);
void expect(const char *what, u64 got, u64 want);
/* A random number below n. */
u64 pick(u64 n);

/* Wait with interrupts on; what does not come ends the test. */
#define WAIT(condition)                                                                                                \
	do {                                                                                                           \
		u64 end_ = rdtsc() + WAIT_LIMIT;                                                                       \
		while (!(condition) && !stop) {                                                                        \
			pause();                                                                                       \
			if (rdtsc() > end_) {                                                                          \
				fail("never came: " #condition, 0, 1);                                                 \
				stop = true;                                                                           \
			}                                                                                              \
		}                                                                                                      \
	} while (0)

struct ticket_lock {
	volatile u64 next, serving;
};
void ticket_take(struct ticket_lock *lock);
void ticket_give(struct ticket_lock *lock);

/* All CPUs do something, and say so, before this returns. */
enum call { CALL_NOTHING, CALL_INVLPG, CALL_CR3, CALL_SERIALIZE };
void call_all(enum call what, ulong address);

/* ---- mappings.c ---- */

void window_set_up(void);
void on_page_fault(struct state *s);
void act_access(void);
void act_map(void);

/* ---- code.c ---- */

void code_set_up(void);
void on_breakpoint(struct state *s);
void act_call_code(void);
void act_patch(void);
void act_own_code(void);
/* A counter in the page of the functions, and what it must be. */
u64 code_page_counter(void);
extern volatile u64 code_counter;

/* ---- interrupts.c ---- */

extern volatile u64 nmi_wanted[CPUS_MAX], nmis_sent[CPUS_MAX];
void on_timer(struct state *s);
void on_period(struct state *s);
void on_pair(struct state *s);
void on_self(struct state *s);
void on_nmi(struct state *s);
bool timer_waits(void);
void timer_arm(u64 ticks);
bool pair_arrived(unsigned from, unsigned to);
void act_timer(void);
void act_periodic(void);
void act_halt(void);
void act_ipi(void);
void act_self(void);
void act_nmi(void);

/* ---- state.c ---- */

void user_set_up(void);
void vectors_set_up(void);
void on_user_end(struct state *s);
/* Use the vector registers, as a context switch does. */
void vectors_disturb(void);
void act_user(void);
void act_string(void);
void act_vectors(void);

#endif
