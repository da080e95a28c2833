/* When a halted vCPU looks out for work before it sleeps: after short waits, while CPUs are left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_host.h"
#include "host/port.h"
#include "vm/look_out.h"

#include <string.h>

#define US 1000u
#define MS 1000000u

static struct vm vm;
static struct vm_cpu cpu;
static unsigned asked;
static bool work;

static bool has_work(struct vm_cpu *c)
{
	asked++;
	return work;
}

static int setup(void **state)
{
	vm.config.cpus = 1;
	memset(&cpu, 0, sizeof(cpu));
	cpu.vm = &vm;
	asked = 0;
	work = true;
	fake_host_set_cpus(2);
	fake_host_set_run_delay(0);
	fake_host_advance(1000 * MS);
	return 0;
}

static bool look(void)
{
	return vm_look_out(&cpu, host_now(), HOST_NEVER, has_work);
}

static void waited(u64 nanoseconds)
{
	vm_look_out_learn(&cpu, host_now() - nanoseconds, host_now());
}

static void test_not_at_first(void **state)
{
	assert_false(look());
	assert_int_equal(asked, 0);
}

static void test_after_short_waits(void **state)
{
	waited(50 * US);
	assert_true(look());
	assert_int_equal(asked, 1);
	waited(3 * MS);
	assert_false(look());
}

/* Longer each time, but not long. */
static void test_grows(void **state)
{
	for (unsigned i = 0; i < 20; i++)
		waited(50 * US);
	work = false;
	fake_host_advance(MS);
	assert_false(vm_look_out(&cpu, host_now() - 100 * US, HOST_NEVER, has_work));
	assert_int_equal(asked, 1);
}

/* Nobody looks beyond the deadline of the vCPU's own timer. */
static void test_deadline(void **state)
{
	waited(50 * US);
	work = false;
	assert_false(vm_look_out(&cpu, host_now(), host_now(), has_work));
}

static void test_no_cpu_left(void **state)
{
	fake_host_set_cpus(1);
	waited(50 * US);
	assert_false(look());
}

/* A thread that waits for its CPU takes it from nobody else, for a while. */
static void test_crowded(void **state)
{
	waited(50 * US);
	assert_true(look());
	fake_host_advance(20 * MS);
	fake_host_set_run_delay(5 * MS);
	assert_false(look());
	fake_host_advance(20 * MS);
	assert_false(look());
	fake_host_advance(200 * MS);
	assert_true(look());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_not_at_first, setup), cmocka_unit_test_setup(test_after_short_waits, setup),
		cmocka_unit_test_setup(test_grows, setup),	  cmocka_unit_test_setup(test_deadline, setup),
		cmocka_unit_test_setup(test_no_cpu_left, setup),  cmocka_unit_test_setup(test_crowded, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
