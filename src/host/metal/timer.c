/* The host port's timers: a list, and a thread that fires what is due. */
#include "host/metal/timer.h"

#include "host/metal/thread.h"
#include "host/port.h"

struct host_timer {
	struct host_timer *next;
	void (*fire)(void *opaque);
	void *opaque;
	u64 deadline; /* the lock's */
};

static struct {
	struct host_lock lock;
	struct host_timer *all;
	struct host_timer *firing; /* whose callback runs */
	u32 changed; /* counts deadlines that became the earliest; atomic */
	u64 next; /* what the thread sleeps until */
} timers = { .next = HOST_NEVER };

struct host_timer *host_timer_create(void (*fire)(void *opaque), void *opaque)
{
	struct host_timer *t = host_alloc(sizeof(*t));
	if (!t)
		return NULL;
	*t = (struct host_timer){ .fire = fire, .opaque = opaque, .deadline = HOST_NEVER };
	host_lock(&timers.lock);
	t->next = timers.all;
	timers.all = t;
	host_unlock(&timers.lock);
	return t;
}

void host_timer_arm(struct host_timer *timer, u64 deadline)
{
	host_lock(&timers.lock);
	timer->deadline = deadline;
	bool first = deadline < timers.next;
	if (first) {
		timers.next = deadline;
		__atomic_fetch_add(&timers.changed, 1, __ATOMIC_SEQ_CST);
	}
	host_unlock(&timers.lock);
	if (first)
		host_wake(&timers.changed);
}

void host_timer_destroy(struct host_timer *timer)
{
	if (!timer)
		return;
	host_lock(&timers.lock);
	timer->deadline = HOST_NEVER;
	while (timers.firing == timer) {
		host_unlock(&timers.lock);
		host_yield();
		host_lock(&timers.lock);
	}
	struct host_timer **link = &timers.all;
	while (*link != timer)
		link = &(*link)->next;
	*link = timer->next;
	host_unlock(&timers.lock);
	host_free(timer);
}

/* The one that is due first, and when that is. */
static struct host_timer *find_first(u64 *deadline)
{
	struct host_timer *first = NULL;
	*deadline = HOST_NEVER;
	for (struct host_timer *t = timers.all; t; t = t->next) {
		if (t->deadline < *deadline) {
			first = t;
			*deadline = t->deadline;
		}
	}
	return first;
}

static void run(void *opaque)
{
	for (;;) {
		u64 deadline;
		host_lock(&timers.lock);
		u32 changed = __atomic_load_n(&timers.changed, __ATOMIC_SEQ_CST);
		struct host_timer *t = find_first(&deadline);
		bool due = t && deadline <= host_now();
		timers.next = deadline;
		if (due) {
			t->deadline = HOST_NEVER;
			timers.firing = t;
			timers.next = 0; /* nobody need wake us: we look again */
		}
		host_unlock(&timers.lock);
		if (due) {
			t->fire(t->opaque);
			host_lock(&timers.lock);
			timers.firing = NULL;
			host_unlock(&timers.lock);
		} else {
			host_wait(&timers.changed, changed, deadline);
		}
	}
}

void timer_start(void)
{
	const struct thread_setup setup = { .name = "timers", .run = run, .urgent = true };
	if (!thread_create(&setup))
		host_panic("no memory for the thread of timers");
}
