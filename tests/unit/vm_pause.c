/* Holding a VM still: who holds it, what its clocks see, what waits meanwhile. */
#include "vm_machine.h"

#define SECOND 1000000000ull
#define AWAY (100 * SECOND)

static void (*while_parked)(void);

static int setup(void **state)
{
	struct vm_config config = machine_config(1);
	while_parked = NULL;
	machine_create(&config);
	apics_enable(1);
	return 0;
}

/* The only vCPU sleeps, parked: the world goes on for AWAY, then the test's own function is called. */
static void away(void *opaque)
{
	assert_true(machine.vm->time.stopped);
	assert_true(vm_settle(machine.vm));
	fake_host_set_idle(NULL, NULL);
	u64 now = vm_now(machine.vm);
	fake_host_advance(AWAY);
	assert_int_equal(vm_now(machine.vm), now);
	while_parked();
}

static void run(const script_step *script)
{
	fake_host_set_idle(away, NULL);
	machine.script[0] = script;
	vm_run_vcpu(machine.vm, 0);
}

static void hold(struct vm_cpu *cpu, struct exit *exit)
{
	machine.slept = vm_now(cpu->vm);
	vm_hold(cpu->vm);
}

static void release(void)
{
	vm_release(machine.vm);
}

/* ---- clocks ---- */

static void start_timer(struct vm_cpu *cpu, struct exit *exit)
{
	apic_write(0, APIC_LVT_TIMER, 0x70);
	apic_write(0, APIC_TIMER_INITIAL, SECOND / 2); /* the divider is 2 */
	fake_host_advance(SECOND / 4);
}

static void halt(struct vm_cpu *cpu, struct exit *exit)
{
	exit->reason = EXIT_HLT;
	cpu->vcpu.activity = ACTIVITY_HLT;
	cpu->vcpu.rflags |= RFLAGS_IF;
}

/* Three quarters of its second are left, whatever passed outside. */
static void expect_timer(struct vm_cpu *cpu, struct exit *exit)
{
	assert_int_equal(acknowledge(0), 0x70);
	assert_int_equal(vm_now(cpu->vm), machine.slept + 3 * SECOND / 4);
	assert_int_equal(host_now(), vm_now(cpu->vm) + AWAY);
}

static void test_timer(void **state)
{
	while_parked = release;
	run((const script_step[]){ start_timer, hold, halt, expect_timer, NULL });
	assert_int_equal(machine.runs[0], 5);
}

static u64 guest_tsc(void)
{
	return __builtin_ia32_rdtsc() + machine.vm->cpu[0]->vcpu.tsc_offset;
}

static u64 tsc_before;

static void note_tsc(struct vm_cpu *cpu, struct exit *exit)
{
	tsc_before = guest_tsc();
	hold(cpu, exit);
}

/* The counter cannot be moved by the test: it is read while parked, when it has gone on in truth. */
static u64 host_tsc_away;

static void spend_ticks(void)
{
	u64 start = __builtin_ia32_rdtsc();
	while (__builtin_ia32_rdtsc() - start < 200000000)
		;
	host_tsc_away = __builtin_ia32_rdtsc() - start;
	vm_release(machine.vm);
}

static void expect_tsc(struct vm_cpu *cpu, struct exit *exit)
{
	u64 now = guest_tsc();
	assert_true(now > tsc_before);
	assert_int_equal(cpu->vcpu.tsc_offset, machine.vm->tsc_offset);
	/* What guests compute from a counter value did not jump, either. */
	assert_int_equal(machine.vm->clock.host_tsc + cpu->vcpu.tsc_offset, machine.slept);
}

static void note_clock(struct vm_cpu *cpu, struct exit *exit)
{
	machine.slept = machine.vm->clock.host_tsc + cpu->vcpu.tsc_offset;
}

static void test_tsc(void **state)
{
	u64 offset = machine.vm->tsc_offset;
	while_parked = spend_ticks;
	run((const script_step[]){ note_tsc, note_clock, expect_tsc, NULL });
	assert_true(offset - machine.vm->tsc_offset >= host_tsc_away);
}

static unsigned rtc_second(void)
{
	guest_out(0, PORT_RTC, 1, 0);
	unsigned bcd = guest_in(0, PORT_RTC + 1, 1);
	return (bcd >> 4) * 10 + (bcd & 15);
}

static void expect_rtc(struct vm_cpu *cpu, struct exit *exit)
{
	assert_int_equal(rtc_second(), (machine.slept + AWAY / SECOND) % 60);
}

static void note_rtc(struct vm_cpu *cpu, struct exit *exit)
{
	vm_hold(cpu->vm);
	machine.slept = rtc_second();
}

/* The battery-backed clock goes on. */
static void test_rtc(void **state)
{
	while_parked = release;
	run((const script_step[]){ note_rtc, expect_rtc, NULL });
}

/* ---- holders ---- */

static void hold_three_times(struct vm_cpu *cpu, struct exit *exit)
{
	vm_hold(cpu->vm);
	vm_pause(cpu->vm, true);
	vm_pause(cpu->vm, true);
	vm_hold(cpu->vm);
}

static void release_one_by_one(void)
{
	struct vm *vm = machine.vm;
	vm_release(vm);
	vm_pause(vm, false);
	vm_pause(vm, false);
	assert_true(vm->time.stopped);
	assert_true(vm->pause_wanted);
	vm_release(vm);
	assert_false(vm->time.stopped);
	assert_false(vm->pause_wanted);
}

static void test_holders(void **state)
{
	while_parked = release_one_by_one;
	run((const script_step[]){ hold_three_times, NULL });
	assert_int_equal(machine.runs[0], 2);
	assert_int_equal(machine.vm->holds, 0);
}

static void hold_and_release(struct vm_cpu *cpu, struct exit *exit)
{
	vm_hold(cpu->vm);
	vm_release(cpu->vm);
}

/* Released before anybody parked: nothing happened. */
static void test_short(void **state)
{
	run((const script_step[]){ hold_and_release, NULL });
	assert_int_equal(machine.vm->time.lost, 0);
}

static void hold_again(void)
{
	vm_release(machine.vm);
	vm_hold(machine.vm);
	assert_false(machine.vm->time.stopped);
	while_parked = release;
	fake_host_set_idle(away, NULL);
}

/* Held again before the vCPU noticed that it might go on: it stays parked, and time stops again. */
static void test_again(void **state)
{
	while_parked = hold_again;
	run((const script_step[]){ hold, NULL });
	assert_int_equal(machine.vm->time.lost, 2 * AWAY);
}

static void stop(void)
{
	vm_stop(machine.vm);
	assert_true(vm_settle(machine.vm));
}

static void test_end(void **state)
{
	while_parked = stop;
	run((const script_step[]){ hold, NULL });
	assert_int_equal(machine.runs[0], 1);
}

/* Nobody parks any more. */
static void test_settle_ended(void **state)
{
	vm_hold(machine.vm);
	vm_stop(machine.vm);
	assert_false(vm_settle(machine.vm));
}

/* ---- what waits ---- */

static void enable_uart(struct vm_cpu *cpu, struct exit *exit)
{
	guest_out(0, PORT_UART0 + 1, 1, 1);
}

static void type_while_parked(void)
{
	machine.typed = "ab";
	vm_serial_input(machine.vm);
	assert_string_equal(machine.typed, "ab");
	vm_release(machine.vm);
}

static void expect_input(struct vm_cpu *cpu, struct exit *exit)
{
	assert_int_equal(guest_in(0, PORT_UART0 + 5, 1) & 1, 1);
	assert_int_equal(guest_in(0, PORT_UART0, 1), 'a');
}

static void test_input(void **state)
{
	while_parked = type_while_parked;
	run((const script_step[]){ enable_uart, hold, expect_input, NULL });
	assert_int_equal(machine.runs[0], 4);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_timer), TEST(test_tsc),  TEST(test_rtc), TEST(test_holders),	    TEST(test_short),
		TEST(test_again), TEST(test_end), TEST(test_input), TEST(test_settle_ended),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
