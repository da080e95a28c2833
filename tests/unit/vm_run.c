/* The life of a vCPU's thread: runs and their ends, sleep and what ends it, INIT and SIPI, reset, pause, crashes, the
 * watchdog, and the making and unmaking of a VM. */
#include "vm_machine.h"

#define SECOND 1000000000ull
#define RUBBISH 0x1234

static int setup(void **state)
{
	struct vm_config config = machine_config(1);
	config.hang_timeout = 3;
	machine_create(&config);
	apics_enable(1);
	return 0;
}

static int setup_two(void **state)
{
	struct vm_config config = machine_config(2);
	machine_create(&config);
	apics_enable(2);
	return 0;
}

static struct vm_cpu *cpu_of(unsigned index)
{
	return machine.vm->cpu[index];
}

static void run(unsigned index, const script_step *script)
{
	machine.script[index] = script;
	vm_run_vcpu(machine.vm, index);
}

/* ---- steps ---- */

static void halt(struct vm_cpu *cpu, struct exit *exit)
{
	exit->reason = EXIT_HLT;
	cpu->vcpu.activity = ACTIVITY_HLT;
}

static void halt_listening(struct vm_cpu *cpu, struct exit *exit)
{
	cpu->vcpu.rflags |= RFLAGS_IF;
	halt(cpu, exit);
}

static void halt_deaf(struct vm_cpu *cpu, struct exit *exit)
{
	cpu->vcpu.rflags &= ~RFLAGS_IF;
	halt(cpu, exit);
}

static void triple_fault(struct vm_cpu *cpu, struct exit *exit)
{
	exit->reason = EXIT_SHUTDOWN;
}

static void engine_error(struct vm_cpu *cpu, struct exit *exit)
{
	exit->reason = EXIT_ERROR;
	exit->error.what = "it is broken";
}

static void power_off(struct vm_cpu *cpu, struct exit *exit)
{
	guest_out(cpu->vcpu.index, PORT_PM + 4, 2, 1 << 13 | PM_SLP_TYP_S5 << 10);
}

static void reset(struct vm_cpu *cpu, struct exit *exit)
{
	guest_out(cpu->vcpu.index, PORT_RESET, 1, RESET_VALUE);
}

static void pause(struct vm_cpu *cpu, struct exit *exit)
{
	vm_pause(cpu->vm, true);
}

static void start_timer(struct vm_cpu *cpu, struct exit *exit)
{
	apic_write(cpu->vcpu.index, APIC_LVT_TIMER, 0x70);
	apic_write(cpu->vcpu.index, APIC_TIMER_INITIAL, 1000000);
}

static void expect_timer(struct vm_cpu *cpu, struct exit *exit)
{
	assert_true(vcpu_pending(&cpu->vcpu) & PENDING_INTERRUPT);
	assert_int_equal(acknowledge(cpu->vcpu.index), 0x70);
	machine.slept = cpu->stats.halted_ns;
}

/* ---- runs ---- */

static void test_end(void **state)
{
	run(0, (const script_step[]){ NULL });
	assert_int_equal(vm_ended(machine.vm), VM_STOPPED);
	assert_int_equal(machine.ended, 1);
	assert_int_equal(machine.runs[0], 1);
	/* It stays ended. */
	vm_run_vcpu(machine.vm, 0);
	assert_int_equal(machine.runs[0], 1);
}

static void test_first_end_counts(void **state)
{
	vm_end(machine.vm, VM_CRASHED, 0, "first");
	vm_stop(machine.vm);
	assert_int_equal(vm_ended(machine.vm), VM_CRASHED);
	assert_string_equal(machine.vm->crash_reason, "first");
	assert_int_equal(machine.ended, 1);
}

static void test_power_off(void **state)
{
	run(0, (const script_step[]){ power_off, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_POWEROFF);
	assert_int_equal(machine.runs[0], 1);
}

/* ---- sleep ---- */

static void test_halt_until_timer(void **state)
{
	u64 start = host_now();
	run(0, (const script_step[]){ start_timer, halt_listening, expect_timer, NULL });
	assert_int_equal(machine.runs[0], 4);
	assert_true(host_now() > start);
	assert_int_equal(machine.slept, host_now() - start);
	assert_int_equal(cpu_of(0)->stats.reason[EXIT_HLT].count, 1);
}

static void interrupt_then_nmi(void *opaque)
{
	machine.slept++;
	if (machine.slept == 1)
		vm_interrupt(machine.vm, &(struct interrupt){ .vector = 0x40 }, NULL);
	else if (machine.slept == 2)
		vm_interrupt(machine.vm, &(struct interrupt){ .delivery = DELIVERY_NMI }, NULL);
	else
		vm_stop(machine.vm);
}

static void expect_nmi(struct vm_cpu *cpu, struct exit *exit)
{
	assert_int_equal(machine.slept, 2);
	assert_true(vcpu_pending(&cpu->vcpu) & PENDING_NMI);
	vcpu_clear_pending(&cpu->vcpu, PENDING_NMI);
	cpu->vcpu.nmi_blocked = true;
}

/* With interrupts disabled only an NMI ends a HLT, and no NMI does while NMIs are blocked. */
static void test_halt_deaf(void **state)
{
	fake_host_set_idle(interrupt_then_nmi, NULL);
	run(0, (const script_step[]){ halt_deaf, expect_nmi, NULL });
	assert_int_equal(machine.runs[0], 3);
}

static void again_nmi(void *opaque)
{
	if (++machine.slept == 3)
		vm_stop(machine.vm);
	else
		vm_interrupt(machine.vm, &(struct interrupt){ .delivery = DELIVERY_NMI }, NULL);
}

static void test_halt_nmi_blocked(void **state)
{
	cpu_of(0)->vcpu.nmi_blocked = true;
	fake_host_set_idle(again_nmi, NULL);
	run(0, (const script_step[]){ halt_deaf, NULL });
	assert_int_equal(machine.runs[0], 1);
	assert_int_equal(machine.slept, 3);
}

static void late(void *opaque)
{
	/* The timer's time passes while it sleeps: that is no reason to look at the clock again and again. */
	bool rested = machine.rests[0];
	assert_true(rested ? fake_host_idle_until() == HOST_NEVER : fake_host_idle_until() > host_now());
	if (++machine.slept == 6)
		vm_stop(machine.vm);
	fake_host_advance(10 * SECOND);
}

static void test_halt_deaf_with_expired_timer(void **state)
{
	machine.vm->config.hang_timeout = 1000;
	fake_host_set_idle(late, NULL);
	run(0, (const script_step[]){ start_timer, halt_deaf, NULL });
	assert_int_equal(machine.slept, 6);
}

/* An interrupt of too low a priority does not end a HLT either. */
static void low_then_high(void *opaque)
{
	if (++machine.slept == 1)
		vm_interrupt(machine.vm, &(struct interrupt){ .vector = 0x31 }, NULL);
	else
		vm_interrupt(machine.vm, &(struct interrupt){ .vector = 0x91 }, NULL);
}

static void expect_high(struct vm_cpu *cpu, struct exit *exit)
{
	assert_int_equal(machine.slept, 2);
	assert_int_equal(acknowledge(0), 0x91);
}

static void test_halt_priority(void **state)
{
	apic_write(0, APIC_TPR, 0x80);
	fake_host_set_idle(low_then_high, NULL);
	run(0, (const script_step[]){ halt_listening, expect_high, NULL });
	assert_int_equal(machine.runs[0], 3);
}

/* The interrupt was there before the HLT: no sleep. */
static void test_no_sleep(void **state)
{
	vm_interrupt(machine.vm, &(struct interrupt){ .vector = 0x40 }, NULL);
	run(0, (const script_step[]){ halt_listening, NULL });
	assert_int_equal(machine.runs[0], 2);
	assert_true(pending(0) & PENDING_INTERRUPT);
}

/* The 8259s' INTR is up, but the engine has been told and has let it pass while LINT0 was masked. */
static void test_halt_pic(void **state)
{
	static const u8 words[] = { 0x11, 0x20, 4, 1 };
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		guest_out(0, i ? PORT_PIC_MASTER + 1 : PORT_PIC_MASTER, 1, words[i]);
	guest_out(0, PORT_PIC_MASTER + 1, 1, 0xef);
	pic_set_line(&machine.vm->board.pic, 4, true);
	vcpu_clear_pending(&cpu_of(0)->vcpu, PENDING_INTERRUPT);
	run(0, (const script_step[]){ halt_listening, NULL });
	assert_int_equal(machine.runs[0], 2);
	assert_int_equal(acknowledge(0), 0x24);
}

/* ---- INIT and SIPI ---- */

static void expect_started(struct vm_cpu *cpu, struct exit *exit)
{
	assert_int_equal(cpu->vcpu.seg[SEG_CS].selector, 0x9a00);
	assert_int_equal(cpu->vcpu.seg[SEG_CS].base, 0x9a000);
	assert_int_equal(cpu->vcpu.rip, 0);
	assert_int_equal(vcpu_code_bits(&cpu->vcpu), 16);
	cpu->vcpu.rip = 0x77;
}

static void ipi_to_1(u32 low)
{
	apic_write(0, APIC_ICR_HIGH, 1 << 24);
	apic_write(0, APIC_ICR_LOW, low | 1 << 14);
}

#define INIT (DELIVERY_INIT << 8)
#define SIPI(vector) (DELIVERY_SIPI << 8 | (vector))

static void sipi_again(struct vm_cpu *cpu, struct exit *exit)
{
	ipi_to_1(SIPI(0x55));
}

static void expect_undisturbed(struct vm_cpu *cpu, struct exit *exit)
{
	assert_int_equal(cpu->vcpu.rip, 0x77);
}

static void test_startup(void **state)
{
	assert_int_equal(cpu_of(0)->vcpu.activity, ACTIVITY_ACTIVE);
	assert_int_equal(cpu_of(1)->vcpu.activity, ACTIVITY_WAIT_SIPI);
	ipi_to_1(INIT);
	ipi_to_1(SIPI(0x9a));
	run(1, (const script_step[]){ expect_started, sipi_again, expect_undisturbed, NULL });
	assert_int_equal(machine.runs[1], 4);
}

static void start_it(void *opaque)
{
	/* Neither a fixed interrupt nor an NMI starts a processor. */
	static const u32 words[] = { 0x40, DELIVERY_NMI << 8, SIPI(0x9a) };
	assert_true(machine.slept < ARRAY_SIZE(words));
	assert_int_equal(machine.runs[1], 0);
	ipi_to_1(words[machine.slept++]);
}

static void test_wait_for_sipi(void **state)
{
	fake_host_set_idle(start_it, NULL);
	run(1, (const script_step[]){ expect_started, NULL });
	assert_int_equal(machine.slept, 3);
}

static void init_self(struct vm_cpu *cpu, struct exit *exit)
{
	cpu->vcpu.gpr[RBX] = RUBBISH;
	cpu->vcpu.rflags |= RFLAGS_IF;
	ipi_to_1(INIT);
}

static void sipi_after_init(void *opaque)
{
	assert_int_equal(cpu_of(1)->vcpu.activity, ACTIVITY_WAIT_SIPI);
	assert_int_equal(cpu_of(1)->vcpu.gpr[RBX], 0);
	ipi_to_1(SIPI(0x9a));
}

static void test_init_while_running(void **state)
{
	ipi_to_1(SIPI(1));
	fake_host_set_idle(sipi_after_init, NULL);
	run(1, (const script_step[]){ init_self, expect_started, NULL });
	assert_int_equal(machine.runs[1], 3);
}

/* ---- reset and pause ---- */

static void spoil(struct vm_cpu *cpu, struct exit *exit)
{
	static const u8 rubbish[4096] = { 0xcc };
	assert_true(ram_write(&machine.vm->ram, 0x7000, rubbish, sizeof(rubbish)));
	assert_true(ram_write(&machine.vm->ram, 0x300000, "x", 1));
	cpu->vcpu.gpr[RBX] = RUBBISH;
	cpu->vcpu.rflags |= RFLAGS_IF;
	uart_receive(&machine.vm->board.uart, 'a', host_now());
	vm_interrupt(machine.vm, &(struct interrupt){ .vector = 0x40 }, NULL);
	vcpu_set_pending(&cpu->vcpu, PENDING_NMI);
}

static void expect_fresh(struct vm_cpu *cpu, struct exit *exit)
{
	u8 bytes[sizeof(machine_image)], one;
	assert_false(machine.vm->reset_wanted);
	assert_true(ram_read(&machine.vm->ram, 0x7c00, bytes, sizeof(bytes)));
	assert_memory_equal(bytes, machine_image, sizeof(bytes));
	assert_true(ram_read(&machine.vm->ram, 0x300000, &one, 1));
	assert_int_equal(one, 0);
	assert_int_equal(cpu->vcpu.rip, 0x7c00);
	assert_int_equal(cpu->vcpu.gpr[RBX], 0);
	assert_int_equal(cpu->vcpu.rflags, RFLAGS_FIXED1);
	assert_int_equal(vcpu_pending(&cpu->vcpu), 0);
	assert_int_equal(acknowledge(0), -1);
	assert_int_equal(guest_in(0, PORT_UART0 + 5, 1) & 1, 0);
}

static void test_reset(void **state)
{
	run(0, (const script_step[]){ spoil, reset, expect_fresh, NULL });
	assert_int_equal(machine.runs[0], 4);
}

/* Code of pages that the reset emptied is stale. */
static void test_reset_code(void **state)
{
	struct ram_slot *slot = ram_find(&machine.vm->ram, 0x300000);
	u64 page = (0x300000 - slot->base) >> PAGE_SHIFT;
	slot->flags[page] |= PAGE_CODE;
	u32 before = slot->generation[page];
	run(0, (const script_step[]){ reset, expect_fresh, NULL });
	assert_true(slot->generation[page] != before);
}

static void expect_started_after_reset(struct vm_cpu *cpu, struct exit *exit)
{
	assert_false(machine.vm->reset_wanted);
	expect_started(cpu, exit);
}

static void other_parks_too(void *opaque)
{
	assert_int_equal(machine.slept++, 0);
	assert_int_equal(machine.vm->parked, 1);
	fake_host_set_idle(sipi_after_init, NULL);
	vm_run_vcpu(machine.vm,
		    1); /* parks, is the last, resets, waits for a SIPI, is started, and stops the machine */
}

static void test_reset_waits_for_all(void **state)
{
	static const script_step second[] = { expect_started_after_reset, NULL };
	machine.script[1] = second;
	cpu_of(0)->vcpu.gpr[RBX] = cpu_of(1)->vcpu.gpr[RBX] = RUBBISH;
	cpu_of(1)->vcpu.activity = ACTIVITY_ACTIVE;
	fake_host_set_idle(other_parks_too, NULL);
	vm_reset(machine.vm);
	run(0, (const script_step[]){ NULL });
	assert_int_equal(machine.runs[0], 0);
	assert_int_equal(machine.runs[1], 2);
	assert_int_equal(machine.vm->parked, 0);
	assert_int_equal(cpu_of(0)->vcpu.gpr[RBX], 0);
}

static void go_on(void *opaque)
{
	if (++machine.slept == 3)
		vm_pause(machine.vm, false);
	else
		fake_host_advance(10 * SECOND); /* the watchdog looks on */
}

static void test_pause(void **state)
{
	cpu_of(0)->vcpu.gpr[RBX] = RUBBISH;
	fake_host_set_idle(go_on, NULL);
	run(0, (const script_step[]){ pause, NULL });
	assert_int_equal(machine.slept, 3);
	assert_int_equal(machine.runs[0], 2);
	assert_int_equal(cpu_of(0)->vcpu.gpr[RBX], RUBBISH);
	assert_int_equal(vm_ended(machine.vm), VM_STOPPED);
}

static void reset_then_go_on(void *opaque)
{
	if (++machine.slept == 1) {
		vm_reset(machine.vm);
		return;
	}
	assert_false(machine.vm->reset_wanted);
	assert_int_equal(machine.runs[0], 2);
	vm_pause(machine.vm, false);
}

/* A reset during a pause happens at once; the machine stays paused. */
static void test_reset_while_paused(void **state)
{
	fake_host_set_idle(reset_then_go_on, NULL);
	run(0, (const script_step[]){ spoil, pause, expect_fresh, NULL });
	assert_int_equal(machine.slept, 2);
}

static void stop(void *opaque)
{
	machine.slept++;
	vm_stop(machine.vm);
}

static void test_end_while_paused(void **state)
{
	fake_host_set_idle(stop, NULL);
	run(0, (const script_step[]){ pause, NULL });
	assert_int_equal(machine.runs[0], 1);
	assert_int_equal(machine.vm->parked, 0);
}

/* Asked for everything at once, a machine ends. */
static void test_everything_at_once(void **state)
{
	vm_pause(machine.vm, true);
	vm_reset(machine.vm);
	vm_stop(machine.vm);
	vm_run_vcpu(machine.vm, 0);
	assert_int_equal(machine.runs[0], 0);
}

static void test_reset_while_halted(void **state)
{
	fake_host_set_idle(reset_then_go_on, NULL);
	machine.vm->pause_wanted = false;
	run(0, (const script_step[]){ halt_listening, expect_fresh, NULL });
	assert_int_equal(machine.runs[0], 3);
}

/* ---- crashes ---- */

static void test_triple_fault(void **state)
{
	run(0, (const script_step[]){ triple_fault, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_CRASHED);
	assert_string_equal(machine.vm->crash_reason, "triple fault");
	assert_int_equal(machine.runs[0], 1);
	static const char *const words[] = { "the guest crashed: triple fault\nvCPU 0\n", "RIP=0000000000007c00",
					     "real mode", "code at RIP: f4 eb fd 00" };
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		assert_non_null(strstr(machine.report, words[i]));
}

static void test_engine_error(void **state)
{
	run(0, (const script_step[]){ engine_error, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_CRASHED);
	assert_non_null(strstr(machine.report, "the guest crashed: it is broken\n"));
}

static void test_crash_reset(void **state)
{
	machine.vm->config.on_crash = CRASH_RESET;
	run(0, (const script_step[]){ spoil, triple_fault, expect_fresh, power_off, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_POWEROFF);
	assert_non_null(strstr(machine.report, "triple fault"));
}

static void stop_after_a_while(void *opaque)
{
	assert_int_equal(vm_ended(machine.vm), VM_RUNNING);
	fake_host_advance(100 * SECOND);
	if (++machine.slept == 5)
		vm_stop(machine.vm);
}

static void test_crash_debug(void **state)
{
	machine.vm->config.on_crash = CRASH_DEBUG;
	fake_host_set_idle(stop_after_a_while, NULL);
	run(0, (const script_step[]){ triple_fault, NULL });
	assert_int_equal(machine.slept, 5);
	assert_int_equal(machine.runs[0], 1);
	assert_int_equal(vm_ended(machine.vm), VM_STOPPED);
}

/* ---- the watchdog: three seconds ---- */

static void pass_seconds(unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++)
		fake_host_advance(SECOND);
}

static void spin_deaf(struct vm_cpu *cpu, struct exit *exit)
{
	cpu->vcpu.rflags &= ~RFLAGS_IF;
	pass_seconds(5);
	exit->reason = EXIT_INTERRUPTED;
}

static void spin_listening(struct vm_cpu *cpu, struct exit *exit)
{
	cpu->vcpu.rflags |= RFLAGS_IF;
	pass_seconds(20);
	exit->reason = EXIT_INTERRUPTED;
}

static void spin_busily(struct vm_cpu *cpu, struct exit *exit)
{
	cpu->vcpu.rflags &= ~RFLAGS_IF;
	for (unsigned i = 0; i < 20; i++) {
		pass_seconds(1);
		guest_in(0, 0x80, 1);
	}
	exit->reason = EXIT_INTERRUPTED;
}

/* As a kernel that decompresses itself: registers change, nothing else is seen. */
static void compute_deaf(struct vm_cpu *cpu, struct exit *exit, unsigned seconds)
{
	cpu->vcpu.rflags &= ~RFLAGS_IF;
	for (unsigned i = 0; i < seconds; i++) {
		cpu->vcpu.gpr[RCX]++;
		pass_seconds(1);
	}
	exit->reason = EXIT_INTERRUPTED;
}

static void compute_deaf_25(struct vm_cpu *cpu, struct exit *exit)
{
	compute_deaf(cpu, exit, 25);
}

static void compute_deaf_35(struct vm_cpu *cpu, struct exit *exit)
{
	compute_deaf(cpu, exit, 35);
}

static void test_long_computation(void **state)
{
	run(0, (const script_step[]){ compute_deaf_25, power_off, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_POWEROFF);
}

static void test_endless_computation(void **state)
{
	run(0, (const script_step[]){ compute_deaf_35, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_CRASHED);
}

static void test_hang(void **state)
{
	run(0, (const script_step[]){ spin_deaf, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_CRASHED);
	assert_non_null(strstr(machine.report, "spins with interrupts disabled"));
}

static void test_no_hang(void **state)
{
	run(0, (const script_step[]){ spin_listening, spin_busily, power_off, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_POWEROFF);
}

static void a_second(void *opaque)
{
	assert_true(++machine.slept < 10);
	pass_seconds(1);
}

static void test_hang_halted(void **state)
{
	fake_host_set_idle(a_second, NULL);
	run(0, (const script_step[]){ halt_deaf, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_CRASHED);
	assert_non_null(strstr(machine.report, "it halted with interrupts disabled"));
}

static void many_seconds(void *opaque)
{
	pass_seconds(20);
	if (++machine.slept == 3)
		vm_stop(machine.vm);
}

static void test_no_hang_halted(void **state)
{
	fake_host_set_idle(many_seconds, NULL);
	run(0, (const script_step[]){ halt_listening, NULL });
	assert_int_equal(vm_ended(machine.vm), VM_STOPPED);
}

/* ---- rest ---- */

static void few_moments(void *opaque)
{
	pass_seconds(1);
	if (++machine.slept == 30)
		vm_stop(machine.vm);
}

/* Once for each time that it was idle; by itself it wakes to notice. */
static void test_rest(void **state)
{
	fake_host_set_idle(few_moments, NULL);
	run(0, (const script_step[]){ halt_listening, NULL });
	assert_int_equal(machine.rests[0], 1);
	assert_int_equal(machine.deep_rests, 1);
}

static void some_moments(void *opaque)
{
	pass_seconds(1);
	if (++machine.slept == 2)
		vm_stop(machine.vm);
}

static void test_no_rest_yet(void **state)
{
	fake_host_set_idle(some_moments, NULL);
	run(0, (const script_step[]){ halt_listening, NULL });
	assert_int_equal(machine.rests[0], 0);
}

/* What is shared is left to the last: CPU 1 works, until it halts, too. */
static void test_rest_of_all(void **state)
{
	struct vm_config config = machine_config(2);
	machine_destroy(NULL);
	machine_create(&config);
	cpu_of(1)->vcpu.activity = ACTIVITY_ACTIVE;
	fake_host_set_idle(few_moments, NULL);
	run(0, (const script_step[]){ halt_listening, NULL });
	assert_int_equal(machine.rests[0], 1);
	assert_int_equal(machine.deep_rests, 0);
}

/* One CPU that listens is enough, as when Linux takes others off line. */
static void test_one_is_alive(void **state)
{
	struct vm_config config = machine_config(2);
	machine_destroy(NULL);
	config.hang_timeout = 3;
	machine_create(&config);
	cpu_of(1)->vcpu.activity = ACTIVITY_HLT;
	cpu_of(1)->vcpu.rflags &= ~RFLAGS_IF;
	cpu_of(0)->vcpu.rflags |= RFLAGS_IF;
	pass_seconds(20);
	assert_int_equal(cpu_of(0)->requests | cpu_of(1)->requests, 0);
	cpu_of(0)->vcpu.rflags &= ~RFLAGS_IF;
	pass_seconds(20);
	assert_int_equal(cpu_of(0)->requests | cpu_of(1)->requests, REQUEST_CRASH);
}

/* CPUs that were never started are not asked, and if no other is left there is nothing to watch. */
static void test_not_started(void **state)
{
	cpu_of(0)->vcpu.activity = ACTIVITY_WAIT_SIPI;
	pass_seconds(20);
	assert_int_equal(cpu_of(0)->requests, 0);
}

/* ---- statistics ---- */

static void test_stats(void **state)
{
	struct stats *sum = host_alloc(sizeof(*sum));
	guest_in(0, 0x80, 1);
	guest_in(1, 0x80, 1);
	guest_in(1, 0x80, 1);
	u64 before = cpu_of(0)->stats.reason[EXIT_MMIO].count + cpu_of(1)->stats.reason[EXIT_MMIO].count;
	guest_load(1, MAP_LAPIC + 0x20);
	vm_stats(machine.vm, sum);
	assert_int_equal(sum->reason[EXIT_IO].count, 3);
	assert_int_equal(sum->reason[EXIT_MMIO].count, before + 1);
	host_free(sum);
}

/* ---- making ---- */

static int failing_create(struct vcpu *vcpu)
{
	return vcpu->index == 2 ? -1 : scripted_create(vcpu);
}

static bool refused(const struct vm_config *config, const char *words, bool by_user)
{
	char error[256] = "";
	bool user_error = !by_user;
	machine = (struct machine){ 0 };
	struct vm *vm = vm_create(config, error, sizeof(error), &user_error);
	return !vm && user_error == by_user && strstr(error, words);
}

static void test_create_fails(void **state)
{
	struct engine_ops broken = scripted_engine;
	broken.vcpu_create = failing_create;
	struct vm_config config = machine_config(4);
	config.engine = &broken;
	assert_true(refused(&config, "the host lacks", false));
	config = machine_config(1);
	config.cpu_model = "nonesuch";
	assert_true(refused(&config, "nonesuch", true));
	config = machine_config(1);
	config.boot.protocol = BOOT_AUTO;
	assert_true(refused(&config, "not a bootable image", true));
	config = machine_config(1);
	config.memory = 1ull << 47;
	assert_true(refused(&config, "memory", true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, machine_destroy)
#define TEST_TWO(name) cmocka_unit_test_setup_teardown(name, setup_two, machine_destroy)
		TEST(test_end),
		TEST(test_first_end_counts),
		TEST(test_power_off),
		TEST(test_halt_until_timer),
		TEST(test_halt_deaf),
		TEST(test_halt_nmi_blocked),
		TEST(test_halt_deaf_with_expired_timer),
		TEST(test_halt_priority),
		TEST(test_no_sleep),
		TEST(test_halt_pic),
		TEST_TWO(test_startup),
		TEST_TWO(test_wait_for_sipi),
		TEST_TWO(test_init_while_running),
		TEST(test_reset),
		TEST(test_reset_code),
		TEST_TWO(test_reset_waits_for_all),
		TEST(test_pause),
		TEST(test_reset_while_paused),
		TEST(test_end_while_paused),
		TEST(test_everything_at_once),
		TEST(test_reset_while_halted),
		TEST(test_triple_fault),
		TEST(test_engine_error),
		TEST(test_crash_reset),
		TEST(test_crash_debug),
		TEST(test_hang),
		TEST(test_long_computation),
		TEST(test_endless_computation),
		TEST(test_no_hang),
		TEST(test_hang_halted),
		TEST(test_no_hang_halted),
		TEST(test_rest),
		TEST(test_no_rest_yet),
		TEST(test_rest_of_all),
		TEST(test_one_is_alive),
		TEST(test_not_started),
		TEST_TWO(test_stats),
		cmocka_unit_test(test_create_fails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
