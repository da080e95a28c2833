/* The scheduler (thread.h), and the host port's threads: sleeping, waking, locks. */
#include "host/metal/thread.h"

#include "host/metal/apic.h"
#include "host/metal/map.h"
#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/string.h"

#define STACK_SIZE 65536
#define SLICE_NS (10 * 1000 * 1000ull)
#define AHEAD_NS (2 * 1000 * 1000ull) /* what a woken thread is given */
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

/* ---- queues; the lock is held ---- */

static void enqueue(struct thread *t)
{
	t->queued = true;
	t->since = host_now();
	t->next = t->cpu->ready;
	t->cpu->ready = t;
}

static void dequeue(struct thread *t)
{
	struct thread **link = &t->cpu->ready;
	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	t->queued = false;
}

static bool before(const struct thread *a, const struct thread *b)
{
	if (a->yields != b->yields)
		return !a->yields;
	return a->urgent != b->urgent ? a->urgent : a->virtual_time < b->virtual_time;
}

static struct thread *best_of(const struct cpu *cpu)
{
	struct thread *best = NULL;
	for (struct thread *t = cpu->ready; t; t = t->next)
		if (!best || before(t, best))
			best = t;
	return best;
}

/* Virtual times of different CPUs have nothing in common but their distance from the least. The thread is in no queue. */
static void move(struct thread *t, struct cpu *to)
{
	t->virtual_time = t->virtual_time - MIN(t->virtual_time, t->cpu->least) + to->least;
	t->cpu = to;
}

/* Work for a CPU that has none: the first thread of another queue that may run here. */
static struct thread *steal(struct cpu *cpu)
{
	for (unsigned i = 0; i < cpu_count; i++) {
		for (struct thread *t = cpus[i]->ready; t; t = t->next) {
			if (t->pin >= 0)
				continue;
			dequeue(t);
			move(t, cpu);
			enqueue(t);
			return t;
		}
	}
	return NULL;
}

/* An idle CPU that a thread which cannot run on its own at once may go to. */
static struct cpu *find_idle(const struct thread *t)
{
	for (unsigned i = 0; t->pin < 0 && i < cpu_count; i++)
		if (cpus[i]->current == cpus[i]->idle && !cpus[i]->ready && __atomic_load_n(&cpus[i]->online, __ATOMIC_ACQUIRE))
			return cpus[i];
	return NULL;
}

static void interrupt_cpu(struct cpu *cpu)
{
	if (cpu == this_cpu())
		cpu->resched = true;
	else
		apic_send(cpu->apic_id, VECTOR_WAKE);
}

static void make_ready(struct thread *t)
{
	t->state = THREAD_READY;
	t->word = NULL;
	if (t->running || t->queued)
		return; /* it has not left its CPU yet, and will find itself ready */
	struct cpu *idle = t->cpu->current == t->cpu->idle ? NULL : find_idle(t);
	if (idle)
		move(t, idle);
	struct cpu *cpu = t->cpu;
	t->virtual_time = MAX(t->virtual_time, cpu->least - MIN(cpu->least, AHEAD_NS));
	enqueue(t);
	const struct thread *now = cpu->current;
	if (now == cpu->idle || t->urgent || t->virtual_time + AHEAD_NS / 2 < now->virtual_time)
		interrupt_cpu(cpu);
}

static void wake_sleepers(const struct cpu *cpu, u64 now)
{
	for (struct thread *t = threads.all; t; t = t->all)
		if (t->state == THREAD_ASLEEP && t->cpu == cpu && t->deadline <= now)
			make_ready(t);
}

static u64 next_deadline(const struct cpu *cpu)
{
	u64 deadline = HOST_NEVER;
	for (const struct thread *t = threads.all; t; t = t->all)
		if (t->state == THREAD_ASLEEP && t->cpu == cpu)
			deadline = MIN(deadline, t->deadline);
	return deadline;
}

static void set_timer(struct cpu *cpu, u64 now)
{
	u64 deadline = next_deadline(cpu);
	if (cpu->current != cpu->idle)
		deadline = MIN(deadline, now + SLICE_NS);
	apic_timer(deadline == HOST_NEVER ? 0 : deadline > now ? deadline - now : 1);
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

static void account(struct cpu *cpu, struct thread *t, u64 now)
{
	u64 ran = now - t->since;
	t->ran += ran;
	t->virtual_time += ran * THREAD_WEIGHT / t->weight;
	t->since = now;
}

static struct frame *enter(struct cpu *cpu, struct thread *t, u64 now)
{
	cpu->current = t;
	t->running = true;
	t->yields = false;
	if (t != cpu->idle)
		t->waited += now - MIN(now, t->since);
	t->since = now;
	if (t->xsave)
		vectors_load(cpu, t);
	wrmsr(MSR_GS_BASE, t->gs_base);
	return &t->frame;
}

struct frame *thread_switch(struct frame *frame)
{
	u64 flags = spin_lock(&threads.lock), now = host_now();
	struct cpu *cpu = this_cpu();
	struct thread *old = cpu->current;
	cpu->resched = false;
	account(cpu, old, now);
	if (old != cpu->idle && old->state == THREAD_READY)
		enqueue(old);
	struct thread *next = best_of(cpu);
	if (!next)
		next = steal(cpu);
	if (next)
		dequeue(next);
	else
		next = cpu->idle;
	if (next != cpu->idle && !next->urgent)
		cpu->least = MAX(cpu->least, next->virtual_time);
	struct frame *result = frame;
	if (next != old) {
		old->frame = *frame;
		old->running = false;
		if (old->xsave)
			vectors_save(old);
		result = enter(cpu, next, now);
	}
	old->yields = false;
	set_timer(cpu, now);
	spin_unlock(&threads.lock, flags);
	return result;
}

void thread_tick(void)
{
	u64 flags = spin_lock(&threads.lock);
	struct cpu *cpu = this_cpu();
	wake_sleepers(cpu, host_now());
	cpu->resched = true;
	spin_unlock(&threads.lock, flags);
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
	if (ready)
		make_ready(t);
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
	t->pin = setup->pin;
	t->weight = setup->weight ? setup->weight : THREAD_WEIGHT;
	t->cpu = setup->pin >= 0 ? cpus[setup->pin] : this_cpu();
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
	t->pin = (s32)cpu->index;
	t->weight = THREAD_WEIGHT;
	t->since = host_now();
	host_snprintf(t->name, sizeof(t->name), "idle %u", cpu->index);
	cpu->idle = cpu->current = t;
	add(t, false);
	__atomic_store_n(&cpu->online, 1, __ATOMIC_RELEASE);
}

/* HLT follows STI: nothing can come between. */
void thread_idle(void)
{
	for (;;) {
		schedule();
		__asm__ volatile("cli");
		if (this_cpu()->ready || this_cpu()->resched)
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
			make_ready(t);
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

/* A lock is held for short. Who finds it taken lets others run, its holder among them. */
void host_lock_init(struct host_lock *lock)
{
	lock->opaque[0] = 0;
}

void host_lock(struct host_lock *lock)
{
	while (__atomic_exchange_n(&lock->opaque[0], 1, __ATOMIC_ACQUIRE)) {
		for (unsigned i = 0; i < 100 && __atomic_load_n(&lock->opaque[0], __ATOMIC_RELAXED); i++)
			cpu_relax();
		if (__atomic_load_n(&lock->opaque[0], __ATOMIC_RELAXED))
			host_yield();
	}
}

void host_unlock(struct host_lock *lock)
{
	__atomic_store_n(&lock->opaque[0], 0, __ATOMIC_RELEASE);
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

u64 host_run_delay(void)
{
	return this_thread()->waited;
}
