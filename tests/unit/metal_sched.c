/* The bare machine's scheduler, on CPUs and a clock that are simulated: shares by weight, caps, masks, several CPUs, and how long woken threads wait beside
 * those that never stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/metal/sched.h"

#include <string.h>

#define MS 1000000ull
#define STEP (MS / 20)
#define THREADS_MAX 16

struct cpu *cpus[CPUS_MAX];
unsigned cpu_count;

/* A thread that runs for so long, then sleeps for so long; sleeps 0: never. */
struct worker {
	struct thread thread;
	u64 runs, sleeps, done;
};

static struct cpu cpu_of[8];
static struct thread idle_of[8];
static struct worker worker[THREADS_MAX];
static unsigned workers;
static struct thread *all;
static u64 now, deadline[8]; /* of the CPUs' timers */

void sched_kick(struct cpu *cpu)
{
	cpu->resched = true;
}

static void begin(unsigned count)
{
	memset(cpu_of, 0, sizeof(cpu_of));
	memset(idle_of, 0, sizeof(idle_of));
	memset(worker, 0, sizeof(worker));
	memset(deadline, 0, sizeof(deadline));
	workers = 0;
	all = NULL;
	now = 1000 * MS;
	cpu_count = count;
	for (unsigned i = 0; i < count; i++) {
		idle_of[i] = (struct thread){ .running = true, .weight = THREAD_WEIGHT, .cpu = &cpu_of[i], .since = now, .mask = BIT(i) };
		cpu_of[i] = (struct cpu){ .index = i, .idle = &idle_of[i], .current = &idle_of[i], .online = 1 };
		cpus[i] = &cpu_of[i];
	}
}

static struct worker *add(u32 weight, u64 runs, u64 sleeps)
{
	struct worker *w = &worker[workers++];
	w->runs = runs;
	w->sleeps = sleeps;
	w->thread.weight = weight * THREAD_WEIGHT / 100;
	w->thread.all = all;
	all = &w->thread;
	w->thread.cpu = sched_place(0);
	sched_ready(&w->thread, now);
	return w;
}

static struct worker *add_loop(u32 weight)
{
	return add(weight, 1, 0);
}

/* Let the thread that runs do a step's work. */
static void work(struct cpu *cpu)
{
	struct worker *w = (struct worker *)cpu->current;
	if (cpu->current == cpu->idle || !w->sleeps || (w->done += STEP) < w->runs)
		return;
	w->done = 0;
	w->thread.state = THREAD_ASLEEP;
	w->thread.deadline = now + w->sleeps;
	cpu->resched = true;
}

static void check(const struct cpu *cpu)
{
	assert_true(cpu->current->running && cpu->current->cpu == cpu);
	assert_true(!cpu->current->mask || (cpu->current->mask & BIT(cpu->index)));
	for (const struct thread *t = cpu->ready; t; t = t->next)
		assert_true(t->queued && !t->running && t->cpu == cpu && t->state == THREAD_READY);
}

static void run(u64 nanoseconds)
{
	for (u64 end = now + nanoseconds; now < end; now += STEP) {
		for (unsigned i = 0; i < cpu_count; i++)
			work(&cpu_of[i]);
		for (unsigned i = 0; i < cpu_count; i++) {
			struct cpu *cpu = &cpu_of[i];
			if (deadline[i] <= now) {
				sched_wake_sleepers(all, cpu, now);
				cpu->resched = true;
			}
			if (cpu->resched) {
				cpu->resched = false;
				sched_switch(cpu, now);
				deadline[i] = sched_deadline(all, cpu, now);
			}
			check(cpu);
		}
	}
}

/* What it ran, in thousandths of a CPU, since the last time. */
static u64 share(struct worker *w, u64 nanoseconds)
{
	u64 ran = w->thread.ran;
	if (w->thread.running)
		ran += now - w->thread.since;
	w->thread.ran = 0;
	w->thread.since = MAX(w->thread.since, w->thread.running ? now : 0);
	return ran * 1000 / nanoseconds;
}

#define assert_near(value, wanted, tolerance) assert_in_range(value, (wanted) - (tolerance), (wanted) + (tolerance))

static void test_weights(void **state)
{
	begin(1);
	struct worker *a = add_loop(100), *b = add_loop(200), *c = add_loop(50);
	run(3500 * MS);
	assert_near(share(a, 3500 * MS), 286, 10);
	assert_near(share(b, 3500 * MS), 571, 10);
	assert_near(share(c, 3500 * MS), 143, 10);
}

/* Three on two CPUs get two thirds of one each, and five on four four fifths. */
static void test_balance(void **state)
{
	for (unsigned n = 2; n <= 4; n++) {
		begin(n);
		for (unsigned i = 0; i <= n; i++)
			add_loop(100);
		run(6000 * MS);
		for (unsigned i = 0; i <= n; i++)
			assert_near(share(&worker[i], 6000 * MS), 1000 * n / (n + 1), 50);
	}
}

/* Who may have more than a CPU has one; the others share what is left. */
static void test_weight_beyond_a_cpu(void **state)
{
	begin(2);
	struct worker *heavy = add_loop(1000), *a = add_loop(100), *b = add_loop(100);
	run(4000 * MS);
	assert_near(share(heavy, 4000 * MS), 1000, 30);
	assert_near(share(a, 4000 * MS), 500, 30);
	assert_near(share(b, 4000 * MS), 500, 30);
}

/* No CPU is idle while a thread waits. */
static void test_no_waste(void **state)
{
	begin(4);
	for (unsigned i = 0; i < 6; i++)
		add(100, (3 + i) * MS, 5 * MS);
	for (unsigned i = 0; i < 6; i++)
		add_loop(100);
	run(2000 * MS);
	u64 sum = 0;
	for (unsigned i = 0; i < 12; i++)
		sum += share(&worker[i], 2000 * MS);
	assert_in_range(sum, 3950, 4010);
}

static void test_cap(void **state)
{
	static const u32 caps[] = { 1, 10, 50, 99 };
	for (unsigned i = 0; i < ARRAY_SIZE(caps); i++) {
		struct sched_group group = { .cap = caps[i] };
		begin(2);
		struct worker *a = add_loop(100), *b = add_loop(100), *c = add_loop(100);
		a->thread.group = b->thread.group = &group;
		run(5000 * MS);
		assert_near(share(a, 5000 * MS) + share(b, 5000 * MS), caps[i] * 10, 10 + caps[i] / 5);
		assert_in_range(share(c, 5000 * MS), 660, 1001); /* two thirds are its own in any case */
		assert_true(group.held_back > 0);
	}
}

/* More than a CPU, and a cap that nobody reaches. */
static void test_large_cap(void **state)
{
	struct sched_group group = { .cap = 150 }, wide = { .cap = 400 };
	begin(4);
	for (unsigned i = 0; i < 2; i++)
		add_loop(100)->thread.group = &group;
	for (unsigned i = 0; i < 2; i++)
		add_loop(100)->thread.group = &wide;
	run(3000 * MS);
	assert_near(share(&worker[0], 3000 * MS) + share(&worker[1], 3000 * MS), 1500, 30);
	assert_near(share(&worker[2], 3000 * MS) + share(&worker[3], 3000 * MS), 2000, 30);
	assert_int_equal(wide.held_back, 0);
}

/* Who holds a lock that is wanted is not held back. */
static void test_cap_with_lock(void **state)
{
	struct sched_group group = { .cap = 10 };
	begin(1);
	struct worker *a = add_loop(100);
	a->thread.group = &group;
	a->thread.wanted = true;
	run(500 * MS);
	assert_in_range(share(a, 500 * MS), 980, 1001);
	a->thread.wanted = false;
	run(2000 * MS);
	assert_in_range(share(a, 2000 * MS), 0, 50); /* the debt is paid first */
}

static void test_mask(void **state)
{
	begin(4);
	for (unsigned i = 0; i < 3; i++) {
		struct worker *w = &worker[workers++];
		*w = (struct worker){ .runs = 1, .thread = { .weight = THREAD_WEIGHT, .all = all, .mask = i < 2 ? BIT(2) : BIT(1) | BIT(3) } };
		all = &w->thread;
		w->thread.cpu = sched_place(w->thread.mask);
		sched_ready(&w->thread, now);
	}
	run(2000 * MS);
	assert_near(share(&worker[0], 2000 * MS), 500, 10);
	assert_near(share(&worker[1], 2000 * MS), 500, 10);
	assert_near(share(&worker[2], 2000 * MS), 1000, 10);
}

/* One that wakes often and runs for short, beside endless loops and a storm of wakes: it runs at once, or soon. */
static void test_latency(void **state)
{
	begin(1);
	struct worker *quick = add(100, MS / 10, 9 * MS), *storm = add(100, STEP, STEP), *loop = add_loop(100);
	add_loop(100);
	run(5000 * MS);
	assert_true(quick->thread.latency.count > 400);
	assert_in_range(histogram_permille(&quick->thread.latency, 500), 0, MS);
	assert_in_range(histogram_permille(&quick->thread.latency, 990), 0, 2 * SCHED_SLICE_NS);
	assert_in_range(quick->thread.latency.most, 0, 3 * SCHED_SLICE_NS);
	assert_in_range(share(storm, 5000 * MS), 0, 380);
	assert_in_range(share(loop, 5000 * MS), 280, 500);
}

/* One that slept for long has no claim to what it did not use. */
static void test_long_sleep(void **state)
{
	begin(1);
	struct worker *loop = add_loop(100), *sleeper = add(100, 1000 * MS, 3000 * MS);
	run(2000 * MS); /* it has had 1000 ms by now, and sleeps for 3000 */
	run(2900 * MS);
	share(loop, 1);
	share(sleeper, 1);
	run(1000 * MS);
	assert_in_range(share(loop, 1000 * MS), 450, 600);
}

static void test_urgent(void **state)
{
	begin(1);
	add_loop(10000);
	struct worker *urgent = add(100, STEP, 3 * MS);
	urgent->thread.urgent = true;
	run(1000 * MS);
	assert_in_range(urgent->thread.latency.most, 0, STEP);
	assert_true(urgent->thread.latency.count > 250);
}

static void test_histogram(void **state)
{
	struct histogram h = { 0 }, sum = { 0 };
	assert_int_equal(histogram_permille(&h, 500), 0);
	for (u64 i = 1; i <= 1000; i++)
		histogram_add(&h, i * 1000);
	histogram_merge(&sum, &h);
	histogram_merge(&sum, &(struct histogram){ 0 });
	assert_int_equal(sum.count, 1000);
	assert_int_equal(sum.least, 1000);
	assert_int_equal(sum.most, 1000000);
	assert_near(histogram_permille(&sum, 500), 500000, 62500);
	assert_near(histogram_permille(&sum, 990), 990000, 125000);
	assert_int_equal(histogram_permille(&sum, 0), 1000);
	assert_in_range(histogram_permille(&sum, 1000), 900000, 1000000);
	unsigned last = 0;
	for (u64 v = 0; v < 5000; v++) {
		unsigned bucket = histogram_bucket(v);
		assert_true(bucket == last || bucket == last + 1);
		last = bucket;
	}
	histogram_add(&h, ~0ull);
	assert_int_equal(h.bucket[HISTOGRAM_BUCKETS - 1], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_weights),	   cmocka_unit_test(test_balance), cmocka_unit_test(test_weight_beyond_a_cpu),
		cmocka_unit_test(test_no_waste),   cmocka_unit_test(test_cap),	   cmocka_unit_test(test_large_cap),
		cmocka_unit_test(test_cap_with_lock), cmocka_unit_test(test_mask), cmocka_unit_test(test_latency),
		cmocka_unit_test(test_long_sleep), cmocka_unit_test(test_urgent),  cmocka_unit_test(test_histogram),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
