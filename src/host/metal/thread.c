/* Threads (thread.h), and the host port's part of them: sleeping, waking, locks. */
#include "host/metal/thread.h"

#include "host/metal/apic.h"
#include "host/metal/map.h"
#include "host/metal/sched.h"
#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/string.h"

#define STACK_SIZE 65536
#define XSAVE_SIZE 4096
#define CODE64 0x08
#define DATA 0x10

static struct {
	struct spinlock lock; /* of queues, states and the list */
	struct thread *all;
} threads;

static void schedule(void)
{
	__asm__ volatile("int %0" ::"i"(VECTOR_SCHEDULE) : "memory");
}

void sched_kick(struct cpu *cpu)
{
	if (cpu == this_cpu())
		cpu->resched = true;
	else
		apic_send(cpu->apic_id, VECTOR_WAKE);
}

/* ---- vector registers ---- */

static void vectors_save(struct thread *t)
{
	u64 mask = cpu_xcr0();
	if (mask)
		__asm__ volatile("xsave64 (%0)" ::"r"(t->xsave), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
	else
		__asm__ volatile("fxsave64 (%0)" ::"r"(t->xsave) : "memory");
}

static void vectors_load(struct cpu *cpu, struct thread *t)
{
	u64 mask = cpu_xcr0();
	if (cpu->vector_owner == t && t->xsave_cpu == cpu->index)
		return;
	if (mask)
		__asm__ volatile("xrstor64 (%0)" ::"r"(t->xsave), "a"((u32)mask), "d"((u32)(mask >> 32)) : "memory");
	else
		__asm__ volatile("fxrstor64 (%0)" ::"r"(t->xsave) : "memory");
	cpu->vector_owner = t;
	t->xsave_cpu = cpu->index;
}

/* ---- switching ---- */

static void leave(struct thread *t, const struct frame *frame)
{
	t->frame = *frame;
	if (t->xsave)
		vectors_save(t);
}

static struct frame *enter(struct cpu *cpu, struct thread *t)
{
	if (t->xsave)
		vectors_load(cpu, t);
	wrmsr(MSR_GS_BASE, t->gs_base);
	return &t->frame;
}

static void set_timer(struct cpu *cpu, u64 now)
{
	u64 deadline = sched_deadline(threads.all, cpu, now);
	cpu->timer_due = apic_timer(deadline == HOST_NEVER ? 0 : deadline > now ? deadline - now : 1);
}

struct frame *thread_switch(struct frame *frame)
{
	u64 flags = spin_lock(&threads.lock), now = host_now();
	struct cpu *cpu = this_cpu();
	struct thread *old = cpu->current;
	cpu->resched = false;
	struct thread *next = sched_switch(cpu, now);
	if (next != old) {
		leave(old, frame);
		frame = enter(cpu, next);
	}
	set_timer(cpu, now);
	spin_unlock(&threads.lock, flags);
	return frame;
}

void thread_tick(void)
{
	u64 flags = spin_lock(&threads.lock);
	struct cpu *cpu = this_cpu();
	sched_wake_sleepers(threads.all, cpu, host_now());
	cpu->resched = true;
	spin_unlock(&threads.lock, flags);
}

u64 host_timer_due(void)
{
	return this_cpu()->timer_due;
}

void host_timer_now(void)
{
	thread_tick();
	schedule();
}

/* ---- life ---- */

static void end_thread(void)
{
	u64 flags = spin_lock(&threads.lock);
	this_thread()->state = THREAD_ENDED;
	spin_unlock(&threads.lock, flags);
	schedule();
	host_panic("an ended thread runs");
}

static void start_thread(void)
{
	struct thread *t = this_thread();
	t->run(t->opaque);
	end_thread();
}

static void free_thread(struct thread *t)
{
	if (!t)
		return;
	area_free(t->stack, STACK_SIZE);
	area_free(t->xsave, XSAVE_SIZE);
	host_free(t);
}

/* Threads that have ended and left their stack are freed when a new one is made. */
static void free_ended(void)
{
	struct thread *ended = NULL;
	u64 flags = spin_lock(&threads.lock);
	for (struct thread **link = &threads.all; *link;) {
		struct thread *t = *link;
		if (t->state != THREAD_ENDED || t->running) {
			link = &t->all;
			continue;
		}
		*link = t->all;
		t->all = ended;
		ended = t;
	}
	spin_unlock(&threads.lock, flags);
	while (ended) {
		struct thread *t = ended;
		ended = t->all;
		free_thread(t);
	}
}

static void init_vectors(struct thread *t)
{
	*(u16 *)t->xsave = 0x37f; /* FCW, and below MXCSR, as FNINIT and reset leave them */
	*(u32 *)(t->xsave + 24) = 0x1f80;
	t->xsave_cpu = ~0u;
}

static void add(struct thread *t, bool ready)
{
	u64 flags = spin_lock(&threads.lock);
	t->all = threads.all;
	threads.all = t;
	if (!t->cpu)
		t->cpu = sched_place(t->mask);
	if (ready)
		sched_ready(t, host_now());
	spin_unlock(&threads.lock, flags);
}

struct thread *thread_create(const struct thread_setup *setup)
{
	free_ended();
	struct thread *t = host_alloc(sizeof(*t));
	if (!t)
		return NULL;
	t->stack = area_alloc(STACK_SIZE);
	t->xsave = setup->vector ? area_alloc(XSAVE_SIZE) : NULL;
	if (!t->stack || (setup->vector && !t->xsave)) {
		free_thread(t);
		return NULL;
	}
	if (t->xsave)
		init_vectors(t);
	u64 top = (u64)(uintptr_t)t->stack + STACK_SIZE - 8; /* as behind a CALL */
	t->frame = (struct frame){ .rip = (u64)(uintptr_t)start_thread, .cs = CODE64, .ss = DATA, .rsp = top, .rflags = RFLAGS_FIXED1 | RFLAGS_IF };
	t->run = setup->run;
	t->opaque = setup->opaque;
	t->urgent = setup->urgent;
	t->mask = setup->mask;
	t->group = setup->group;
	t->weight = setup->weight ? setup->weight : THREAD_WEIGHT;
	host_snprintf(t->name, sizeof(t->name), "%s", setup->name);
	add(t, true);
	return t;
}

void thread_adopt_idle(struct cpu *cpu)
{
	struct thread *t = host_alloc(sizeof(*t));
	if (!t)
		host_panic("no memory for a thread");
	t->cpu = cpu;
	t->running = true;
	t->mask = BIT(cpu->index);
	t->weight = THREAD_WEIGHT;
	t->since = host_now();
	host_snprintf(t->name, sizeof(t->name), "idle %u", cpu->index);
	cpu->idle = cpu->current = t;
	add(t, false);
	__atomic_store_n(&cpu->online, 1, __ATOMIC_RELEASE);
}

/* HLT follows STI: nothing can come between. Who puts a thread into this CPU's queue kicks it. */
void thread_idle(void)
{
	for (;;) {
		schedule();
		__asm__ volatile("cli");
		if (this_cpu()->resched)
			__asm__ volatile("sti");
		else
			__asm__ volatile("sti; hlt");
	}
}

const struct thread *thread_first(void)
{
	return __atomic_load_n(&threads.all, __ATOMIC_ACQUIRE);
}

/* ---- the host port ---- */

void host_wait(u32 *word, u32 expected, u64 deadline)
{
	u64 flags = spin_lock(&threads.lock);
	struct thread *t = this_thread();
	bool sleeps = __atomic_load_n(word, __ATOMIC_SEQ_CST) == expected && deadline > host_now();
	if (sleeps) {
		t->word = word;
		t->deadline = deadline;
		t->state = THREAD_ASLEEP;
	}
	spin_unlock(&threads.lock, flags);
	if (sleeps)
		schedule();
}

void host_wake(u32 *word)
{
	u64 flags = spin_lock(&threads.lock);
	for (struct thread *t = threads.all; t; t = t->all) {
		if (t->state == THREAD_ASLEEP && t->word == word) {
			sched_ready(t, host_now());
			break;
		}
	}
	bool resched = this_cpu()->resched;
	spin_unlock(&threads.lock, flags);
	if (resched && (flags & RFLAGS_IF))
		schedule();
}

void thread_sleep_until(u64 deadline)
{
	u32 nothing = 0;
	while (host_now() < deadline)
		host_wait(&nothing, 0, deadline);
}

void host_yield(void)
{
	this_thread()->yields = true;
	schedule();
}

enum { HELD, HOLDER }; /* words of a struct host_lock */

/* A lock is held for short. Who finds it taken lets others run, its holder among them. */
void host_lock_init(struct host_lock *lock)
{
	*lock = (struct host_lock){ 0 };
}

/* A thread of the host's own, which works for all guests, must not wait until it is the turn of one guest's thread that holds a lock. While the
 * threads' lock is held, who is said to hold a lock has not released it, and lives. */
static void hurry_holder(struct host_lock *lock)
{
	if (this_thread()->group)
		return;
	u64 flags = spin_lock(&threads.lock);
	struct thread *holder = (struct thread *)(uintptr_t)__atomic_load_n(&lock->opaque[HOLDER], __ATOMIC_SEQ_CST);
	if (holder) {
		holder->wanted = true;
		if (holder->queued)
			sched_kick(holder->cpu);
	}
	spin_unlock(&threads.lock, flags);
}

void host_lock(struct host_lock *lock)
{
	while (__atomic_exchange_n(&lock->opaque[HELD], 1, __ATOMIC_ACQUIRE)) {
		for (unsigned i = 0; i < 100 && __atomic_load_n(&lock->opaque[HELD], __ATOMIC_RELAXED); i++)
			cpu_relax();
		if (__atomic_load_n(&lock->opaque[HELD], __ATOMIC_RELAXED)) {
			hurry_holder(lock);
			host_yield();
		}
	}
	__atomic_store_n(&lock->opaque[HOLDER], (u64)(uintptr_t)this_thread(), __ATOMIC_SEQ_CST);
}

void host_unlock(struct host_lock *lock)
{
	__atomic_store_n(&lock->opaque[HOLDER], 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&lock->opaque[HELD], 0, __ATOMIC_RELEASE);
	this_thread()->wanted = false;
}

static void nothing(void *opaque)
{
}

void host_barrier_all(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	cpu_call_all(nothing, NULL);
}

void host_set_gs_base(void *base)
{
	this_thread()->gs_base = (u64)(uintptr_t)base;
	wrmsr(MSR_GS_BASE, (u64)(uintptr_t)base);
}

void *host_gs_base(void)
{
	return (void *)(uintptr_t)this_thread()->gs_base;
}

void host_set_trap_handler(host_trap_handler handler)
{
	this_thread()->trap_handler = handler;
}

/* Waking takes no system call here, and a CPU that has nothing to do is another guest's. */
bool host_may_look_out(unsigned busy)
{
	return false;
}

u64 host_run_delay(void)
{
	return this_thread()->waited;
}
