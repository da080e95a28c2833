/* The protocol between vCPU threads, timers and whoever resets, pauses or ends the VM, on the real host with real
 * threads: a token goes round the vCPUs by interrupts while they halt, and must not get lost, however often the machine
 * is reset or paused meanwhile. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/map.h"
#include "host/linux/event.h"
#include "host/linux/trap.h"
#include "vm/vm.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CPUS 4
#define ROUNDS_QUIET 2000
#define DISTURBANCES 60
#define TIME_LIMIT 100 /* seconds; then a wake-up was lost */

#define VECTOR_READY 0x41 /* and so on: a vector of its own for each vCPU, since equal ones merge */
#define VECTOR_TOKEN 0x51
#define VECTOR_TIMER 0x61

#define APIC_EOI 0xb0
#define APIC_SVR 0xf0
#define APIC_ICR_LOW 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_TIMER_INITIAL 0x380
#define ICR_OTHERS (3u << 18 | 1u << 14)

#define RIP_STARTED 0x4711

static struct vm *vm;
static u64 passes;     /* of the token, atomic */
static unsigned ready; /* vCPU 0 alone: how many others have started */

/* ---- the guest, as an engine would see it run ---- */

static void apic_write(struct vcpu *vcpu, unsigned offset, u32 value)
{
	struct exit e = { .reason = EXIT_MMIO,
			  .mmio = { .gpa = MAP_LAPIC + offset, .size = 4, .write = true, .value = value } };
	vm_exit(vcpu, &e);
}

static void send(struct vcpu *vcpu, unsigned to, u32 low)
{
	apic_write(vcpu, APIC_ICR_HIGH, to << 24);
	apic_write(vcpu, APIC_ICR_LOW, low);
}

static void pass_token(struct vcpu *vcpu)
{
	__atomic_fetch_add(&passes, 1, __ATOMIC_SEQ_CST);
	send(vcpu, (vcpu->index + 1) % CPUS, VECTOR_TOKEN);
}

/* Now and then the token waits for a timer, of the host or of the sleeping thread. */
static void take_token(struct vcpu *vcpu)
{
	if (__atomic_load_n(&passes, __ATOMIC_SEQ_CST) % 64)
		pass_token(vcpu);
	else
		apic_write(vcpu, APIC_TIMER_INITIAL, 10000);
}

static void interrupt(struct vcpu *vcpu, int vector)
{
	apic_write(vcpu, APIC_EOI, 0);
	if (vector == VECTOR_TOKEN)
		take_token(vcpu);
	else if (vector == VECTOR_TIMER)
		pass_token(vcpu);
	else if (++ready == CPUS - 1)
		send(vcpu, 1, VECTOR_TOKEN);
}

static void start(struct vcpu *vcpu)
{
	vcpu->rip = RIP_STARTED;
	vcpu->rflags |= RFLAGS_IF;
	apic_write(vcpu, APIC_SVR, 0x1ff);
	apic_write(vcpu, APIC_LVT_TIMER, VECTOR_TIMER);
	if (vcpu->index) {
		send(vcpu, 0, VECTOR_READY + vcpu->index);
		return;
	}
	ready = 0;
	send(vcpu, 0, ICR_OTHERS | DELIVERY_INIT << 8);
	send(vcpu, 0, ICR_OTHERS | DELIVERY_SIPI << 8 | 0x9a);
}

static void guest_run(struct vcpu *vcpu, struct exit *exit)
{
	for (;;) {
		u32 pending = vcpu_pending(vcpu);
		exit->reason = EXIT_INTERRUPTED;
		if (pending & PENDING_KICK) {
			vcpu_clear_pending(vcpu, PENDING_KICK);
			return;
		}
		if (vcpu->rip != RIP_STARTED) {
			start(vcpu);
		} else if (pending & PENDING_INTERRUPT) {
			int vector = vcpu->ops->interrupt_acknowledge(vcpu);
			if (vector >= 0)
				interrupt(vcpu, vector);
		} else if (__atomic_load_n(&passes, __ATOMIC_SEQ_CST) % 7) { /* sometimes it spins instead */
			vcpu->activity = ACTIVITY_HLT;
			exit->reason = EXIT_HLT;
			return;
		}
	}
}

static int guest_create(struct vcpu *vcpu)
{
	return 0;
}

static void guest_nothing(struct vcpu *vcpu)
{
}

static const struct engine_ops guest_engine = {
	.name = "token",
	.vcpu_create = guest_create,
	.vcpu_destroy = guest_nothing,
	.run = guest_run,
	.state_changed = guest_nothing,
};

/* ---- the host ---- */

static void ended(void *opaque)
{
	event_stop();
}

static void put(void *opaque, u8 byte)
{
}

static bool get(void *opaque, u8 *byte)
{
	return false;
}

static void nothing(void *opaque)
{
}

static void report(void *opaque, const char *line)
{
	print_message("%s\n", line);
}

static void *cpu_thread(void *index)
{
	trap_thread_init();
	vm_run_vcpu(vm, (unsigned)(uintptr_t)index);
	return NULL;
}

static void *event_thread(void *opaque)
{
	event_run(nothing, NULL);
	return NULL;
}

static void create(void)
{
	static const u8 image[] = { 0xf4, 0xeb, 0xfd };
	char error[256] = "";
	bool user_error;
	struct vm_config config = {
		.memory = 4ull << 20,
		.cpus = CPUS,
		.cpu_model = "host",
		.engine = &guest_engine,
		.boot = { .kernel = image, .kernel_size = sizeof(image), .protocol = BOOT_FLAT },
		.backends = { .serial_put = put, .serial_get = get, .debug_put = put },
		.hang_timeout = 5,
		.ended = ended,
		.report = report,
	};
	assert_int_equal(event_init(), 0);
	vm = vm_create(&config, error, sizeof(error), &user_error);
	if (!vm)
		print_error("%s\n", error);
	assert_non_null(vm);
}

static void sleep_microseconds(unsigned n)
{
	nanosleep(&(struct timespec){ .tv_nsec = n * 1000l }, NULL);
}

static void wait_for_passes(u64 count)
{
	u64 goal = __atomic_load_n(&passes, __ATOMIC_SEQ_CST) + count;
	while (__atomic_load_n(&passes, __ATOMIC_SEQ_CST) < goal)
		sleep_microseconds(200);
}

/* A debugger comes, lets them go on one after the other, and goes. */
static void wait_until_stopped(void)
{
	bool stopped;
	do {
		sleep_microseconds(50);
		host_lock(&vm->lock);
		stopped = debugger_stopped(vm);
		host_unlock(&vm->lock);
	} while (!stopped);
}

static void debug(void)
{
	host_lock(&vm->lock);
	debugger_attach(vm);
	host_unlock(&vm->lock);
	for (unsigned i = 0; i < CPUS; i++) {
		enum debugger_action action[VM_CPUS_MAX] = { ACTION_HOLD };
		action[i] = ACTION_RUN;
		wait_until_stopped();
		host_lock(&vm->lock);
		debugger_resume(vm, action, true);
		host_unlock(&vm->lock);
		sleep_microseconds((unsigned)rand() % 100);
		host_lock(&vm->lock);
		debugger_hold(vm);
		host_unlock(&vm->lock);
		if (i == 2)
			vm_reset(vm);
	}
	wait_until_stopped();
	host_lock(&vm->lock);
	debugger_detach(vm);
	host_unlock(&vm->lock);
}

/* Resets, pauses and both, at moments that differ each time; the token must come back after each. */
static void disturb(unsigned i)
{
	u64 before;
	sleep_microseconds((unsigned)rand() % 300);
	switch (i % 4) {
	case 0:
		vm_reset(vm);
		break;
	case 1:
		vm_pause(vm, true);
		sleep_microseconds(500);
		vm_reset(vm);
		break;
	case 2:
		vm_reset(vm);
		vm_reset(vm);
		vm_pause(vm, true);
		break;
	default:
		vm_pause(vm, true);
		break;
	}
	if (i % 4) {
		sleep_microseconds(5000); /* all are parked by now, or will be */
		while (__atomic_load_n(&vm->reset_wanted, __ATOMIC_SEQ_CST))
			sleep_microseconds(200);
		before = __atomic_load_n(&passes, __ATOMIC_SEQ_CST);
		sleep_microseconds(1000);
		/* A vCPU that was late to park may have passed it on, to one that is parked. */
		assert_true(__atomic_load_n(&passes, __ATOMIC_SEQ_CST) - before <= CPUS);
		vm_pause(vm, false);
	} else {
		debug();
	}
	wait_for_passes(50);
}

static void test_token(void **state)
{
	pthread_t cpu[CPUS], events;
	alarm(TIME_LIMIT);
	srand(1);
	create();
	assert_int_equal(pthread_create(&events, NULL, event_thread, NULL), 0);
	for (uintptr_t i = 0; i < CPUS; i++)
		assert_int_equal(pthread_create(&cpu[i], NULL, cpu_thread, (void *)i), 0);
	wait_for_passes(ROUNDS_QUIET);
	for (unsigned i = 0; i < DISTURBANCES; i++)
		disturb(i);
	assert_int_equal(vm_ended(vm), VM_RUNNING);
	/* The end comes in the middle of a reset and a pause. */
	vm_pause(vm, true);
	vm_reset(vm);
	vm_stop(vm);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(pthread_join(cpu[i], NULL), 0);
	assert_int_equal(pthread_join(events, NULL), 0);
	assert_int_equal(vm->parked, 0);
	vm_destroy(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_token) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
