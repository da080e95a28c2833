/* Something to debug: functions with names, counters, code at CPL 3, several CPUs. By itself it counts and ends; tests/gdb sets its points here. That it
 * is being debugged it must not see. */
#include "lib/guest.h"
#ifdef __x86_64__
#include "lib/smp.h"
#endif

void bump(ulong by);
ulong add(ulong a, ulong b);
void step_of(unsigned index);

volatile ulong counter, total, steps_of[8];

__attribute__((noinline)) void bump(ulong by)
{
	counter += by;
}

__attribute__((noinline)) ulong add(ulong a, ulong b)
{
	return a + b + total;
}

CODE(user_code, "mov $5, %eax\n user_loop: add $2, %eax\n cmp $25, %eax\n jne user_loop");
LABEL(user_loop);

static void count(void)
{
	for (ulong i = 1; i <= 100; i++)
		bump(i);
	CHECK_EQ(counter, 5050);
	total = add(counter, 1);
	CHECK_EQ(total, 5051);
}

static void user(void)
{
	struct state s = run_code(user_code, 3);
	CHECK_END(s, user_code);
	CHECK_EQ(s.ax, 25);
	CHECK_EQ(user_code[0], 0xb8);
	CHECK(!(s.flags & FLAG_TF));
}

#ifdef __x86_64__
__attribute__((noinline)) void step_of(unsigned index)
{
	steps_of[index]++;
}

static void work(unsigned index)
{
	for (unsigned i = 0; i < 100; i++)
		step_of(index);
}

static void several(void)
{
	if (!smp_start())
		return;
	smp_run(work);
	for (unsigned i = 0; i < smp_cpus; i++)
		CHECK_EQ(steps_of[i], 100);
}
#else
static void several(void)
{
}
#endif

void guest_main(void)
{
	count();
	user();
	several();
	finish();
}
