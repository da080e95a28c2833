/* Choosing threads (sched.h). */
#include "host/metal/sched.h"

#define AHEAD_NS (2 * 1000 * 1000ull) /* what a woken thread is given */
#define APART_NS (100 * 1000 * 1000ull) /* what virtual times of two CPUs may differ, as seen by a thread that moves */
#define BALANCE_NS (20 * 1000 * 1000ull)
#define CAP_PERIOD_NS (50 * 1000 * 1000ull) /* a cap's share of this is the credit that can be saved */
#define OVERDRAFT_NS (100 * 1000ull) /* what a thread without credit that holds a wanted lock gets at once */

/* ---- caps ---- */

static s64 credit_most(const struct sched_group *group)
{
	return (s64)(CAP_PERIOD_NS * group->cap / 100);
}

static void refill(struct sched_group *group, u64 now)
{
	u64 passed = now - MIN(now, group->refilled);
	s64 more = passed > 2 * CAP_PERIOD_NS ? 2 * credit_most(group) : (s64)(passed * group->cap / 100);
	group->credit = MIN(group->credit + more, credit_most(group));
	group->refilled = now;
}

static void charge(struct sched_group *group, u64 ran, u64 now)
{
	refill(group, now);
	group->credit -= (s64)ran;
	if (group->credit <= 0 && group->until <= now) {
		group->until = now + (u64)(credit_most(group) / 2 - group->credit) * 100 / group->cap;
		group->held_back++;
	}
}

static bool is_capped(const struct thread *t)
{
	return t->group && t->group->cap;
}

/* Whether it may run now. Who holds a lock that is wanted may, so that the host need not wait for its credit. */
static bool may_run(const struct thread *t, u64 now)
{
	return !is_capped(t) || t->group->until <= now || t->wanted;
}

/* ---- queues ---- */

static void enqueue(struct thread *t, u64 now)
{
	t->queued = true;
	t->since = now;
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
	bool a_first = a->urgent || a->wanted, b_first = b->urgent || b->wanted;
	return a_first != b_first ? a_first : a->virtual_time < b->virtual_time;
}

static struct thread *best_of(const struct cpu *cpu, u64 now)
{
	struct thread *best = NULL;
	for (struct thread *t = cpu->ready; t; t = t->next)
		if (may_run(t, now) && (!best || before(t, best)))
			best = t;
	return best;
}

/* ---- several CPUs ---- */

static bool is_online(const struct cpu *cpu)
{
	return __atomic_load_n(&cpu->online, __ATOMIC_ACQUIRE);
}

static bool may_use(const struct thread *t, const struct cpu *cpu)
{
	return is_online(cpu) && (!t->mask || (t->mask & BIT(cpu->index)));
}

/* The weights of those that want this CPU. Urgent threads want it for moments. */
static u64 load_of(const struct cpu *cpu, u64 now)
{
	u64 load = cpu->current == cpu->idle || cpu->current->urgent ? 0 : cpu->current->weight;
	for (const struct thread *t = cpu->ready; t; t = t->next)
		if (!t->urgent && may_run(t, now))
			load += t->weight;
	return load;
}

/* The thread is in no queue. Its virtual time stays what it is, so that who got less than others elsewhere catches up here, as long as the two queues
 * have something to do with each other. */
static void move(struct thread *t, struct cpu *to, bool idle)
{
	if (idle)
		to->least = MAX(to->least, t->virtual_time);
	t->virtual_time = MIN(MAX(t->virtual_time, to->least - MIN(to->least, APART_NS)), to->least + APART_NS);
	t->cpu = to;
}

/* The thread that waits elsewhere whose coming makes loads most alike, and not less alike than they are; of several the one that got least. */
static struct thread *find_work(const struct cpu *cpu, u64 mine, u64 now)
{
	struct thread *best = NULL;
	u64 best_gain = 0;
	for (unsigned i = 0; i < cpu_count; i++) {
		u64 theirs = cpus[i] == cpu ? 0 : load_of(cpus[i], now);
		for (struct thread *t = cpus[i]->ready; t && theirs > mine; t = t->next) {
			if (theirs < mine + t->weight || t->urgent || !may_use(t, cpu) || !may_run(t, now))
				continue;
			u64 gain = MIN(t->weight, theirs - mine - t->weight);
			if (best && (gain < best_gain || (gain == best_gain && t->virtual_time >= best->virtual_time)))
				continue;
			best = t;
			best_gain = gain;
		}
	}
	return best;
}

static void balance(struct cpu *cpu, u64 now)
{
	u64 mine = load_of(cpu, now);
	if (mine && now - cpu->balanced < BALANCE_NS)
		return;
	cpu->balanced = now;
	struct thread *t = find_work(cpu, mine, now);
	if (!t)
		return;
	u64 since = t->since;
	dequeue(t);
	move(t, cpu, !mine);
	enqueue(t, since);
}

/* An idle CPU that the thread may go to. */
static struct cpu *find_idle(const struct thread *t, u64 now)
{
	for (unsigned i = 0; i < cpu_count; i++)
		if (may_use(t, cpus[i]) && cpus[i]->current == cpus[i]->idle && !best_of(cpus[i], now))
			return cpus[i];
	return NULL;
}

struct cpu *sched_place(u64 mask)
{
	const struct thread wish = { .mask = mask };
	struct cpu *best = NULL;
	for (unsigned i = 0; i < cpu_count; i++)
		if (may_use(&wish, cpus[i]) && (!best || load_of(cpus[i], 0) < load_of(best, 0)))
			best = cpus[i];
	return best ? best : cpus[0];
}

/* ---- waking ---- */

/* While a CPU is idle its virtual time goes with that of the busy ones, so that who begins there has no claim to what others got meanwhile. */
static void catch_up(struct cpu *cpu)
{
	u64 least = HOST_NEVER;
	for (unsigned i = 0; i < cpu_count; i++)
		if (is_online(cpus[i]) && cpus[i]->current != cpus[i]->idle)
			least = MIN(least, cpus[i]->least);
	if (least != HOST_NEVER)
		cpu->least = MAX(cpu->least, least);
}

static void let_in(struct thread *t, const struct cpu *cpu)
{
	t->virtual_time = MAX(t->virtual_time, cpu->least - MIN(cpu->least, AHEAD_NS));
}

/* What its virtual time will have become if it stops now. */
static u64 virtual_now(const struct thread *t, u64 now)
{
	return t->virtual_time + (now - MIN(now, t->since)) * THREAD_WEIGHT / t->weight;
}

void sched_ready(struct thread *t, u64 now)
{
	bool slept = t->state == THREAD_ASLEEP;
	t->state = THREAD_READY;
	t->word = NULL;
	if (t->running || t->queued)
		return; /* it has not left its CPU yet, and will find itself ready */
	if (slept)
		t->woken = now;
	bool busy = t->cpu->current != t->cpu->idle;
	struct cpu *idle = busy ? find_idle(t, now) : NULL;
	if (idle)
		move(t, idle, true);
	struct cpu *cpu = t->cpu;
	if (cpu->current == cpu->idle && !cpu->ready)
		catch_up(cpu);
	let_in(t, cpu);
	enqueue(t, now);
	const struct thread *runs = cpu->current;
	if (runs == cpu->idle || t->urgent || t->virtual_time + AHEAD_NS / 2 < virtual_now(runs, now))
		sched_kick(cpu);
}

void sched_wake_sleepers(struct thread *all, const struct cpu *cpu, u64 now)
{
	for (struct thread *t = all; t; t = t->all)
		if (t->state == THREAD_ASLEEP && t->cpu == cpu && t->deadline <= now)
			sched_ready(t, now);
}

/* ---- switching ---- */

static void account(struct thread *t, u64 now)
{
	u64 ran = now - MIN(now, t->since);
	t->ran += ran;
	t->virtual_time += ran * THREAD_WEIGHT / t->weight;
	t->since = now;
	if (is_capped(t))
		charge(t->group, ran, now);
}

static void begin(struct cpu *cpu, struct thread *t, u64 now)
{
	if (t != cpu->idle) {
		dequeue(t);
		t->waited += now - MIN(now, t->since);
		if (t->woken)
			histogram_add(&t->latency, now - MIN(now, t->woken));
		if (!t->urgent)
			cpu->least = MAX(cpu->least, t->virtual_time);
	}
	t->woken = 0;
	t->since = now;
	cpu->current = t;
	t->running = true;
}

/* Who was held back by a cap begins like who was asleep: it has no claim to what it could not use. */
static void note_held(struct cpu *cpu, bool idle, u64 now)
{
	if (idle && cpu->ready)
		catch_up(cpu);
	for (struct thread *t = cpu->ready; t; t = t->next) {
		bool held = !may_run(t, now);
		if (t->held && !held)
			let_in(t, cpu);
		t->held = held;
	}
}

/* There is more to do here than one CPU can. */
static void share(const struct cpu *cpu, u64 now)
{
	const struct thread *t = best_of(cpu, now);
	struct cpu *idle = t ? find_idle(t, now) : NULL;
	if (idle)
		sched_kick(idle);
}

struct thread *sched_switch(struct cpu *cpu, u64 now)
{
	struct thread *old = cpu->current;
	account(old, now);
	old->running = false;
	cpu->current = cpu->idle;
	if (old != cpu->idle && old->state == THREAD_READY)
		enqueue(old, now);
	balance(cpu, now);
	note_held(cpu, old == cpu->idle, now);
	struct thread *next = best_of(cpu, now);
	begin(cpu, next ? next : cpu->idle, now);
	old->yields = false;
	share(cpu, now);
	return cpu->current;
}

/* ---- the timer ---- */

static u64 slice_of(const struct thread *t)
{
	if (!is_capped(t))
		return SCHED_SLICE_NS;
	return t->group->credit > (s64)OVERDRAFT_NS ? MIN((u64)t->group->credit, SCHED_SLICE_NS) : OVERDRAFT_NS;
}

u64 sched_deadline(const struct thread *all, const struct cpu *cpu, u64 now)
{
	u64 deadline = cpu->current == cpu->idle ? HOST_NEVER : now + slice_of(cpu->current);
	for (const struct thread *t = all; t; t = t->all)
		if (t->state == THREAD_ASLEEP && t->cpu == cpu)
			deadline = MIN(deadline, t->deadline);
	for (const struct thread *t = cpu->ready; t; t = t->next)
		if (!may_run(t, now))
			deadline = MIN(deadline, t->group->until);
	return deadline;
}
