/* A whole VM on the fake host, with an engine whose runs are written by the test: the ground of the tests of vm/. */
#ifndef NADIR_TESTS_VM_MACHINE_H
#define NADIR_TESTS_VM_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/map.h"
#include "fake_host.h"
#include "vm/vm.h"

#include <stdlib.h>
#include <string.h>

#define MACHINE_CPUS 4

/* What a vCPU does when it is run: the next function of its script. After the last one the VM is stopped. */
typedef void (*script_step)(struct vm_cpu *cpu, struct exit *exit);

struct machine {
	struct vm *vm;
	const script_step *script[MACHINE_CPUS]; /* each ended by NULL; NULL: the vCPU only waits */
	unsigned runs[MACHINE_CPUS], state_changes[MACHINE_CPUS];
	unsigned ended; /* how often we were told */
	char report[8192];
	char sent[64]; /* by the serial port */
	unsigned sent_count;
	const char *typed; /* for the serial port */
	u64 slept;         /* calls of the idle hook */
	unsigned rests[MACHINE_CPUS], deep_rests; /* of the engine; those when all rest */
};

/* The one machine of a test program. */
static struct machine machine;

/* ---- the engine ---- */

static int scripted_create(struct vcpu *vcpu)
{
	vcpu->engine_state = &machine;
	return 0;
}

static void scripted_destroy(struct vcpu *vcpu)
{
	vcpu->engine_state = NULL;
}

/* Like a real engine, it honours a kick before anything else. */
static void scripted_run(struct vcpu *vcpu, struct exit *exit)
{
	struct vm_cpu *cpu = vm_cpu_of(vcpu);
	const script_step **script = &machine.script[vcpu->index];
	exit->reason = EXIT_INTERRUPTED;
	if (vcpu_pending(vcpu) & PENDING_KICK) {
		vcpu_clear_pending(vcpu, PENDING_KICK);
		return;
	}
	assert_int_equal(vcpu->activity, ACTIVITY_ACTIVE);
	machine.runs[vcpu->index]++;
	assert_true(machine.runs[vcpu->index] < 1000);
	if (!*script || !**script)
		vm_stop(cpu->vm);
	else
		(*(*script)++)(cpu, exit);
}

static void scripted_state_changed(struct vcpu *vcpu)
{
	machine.state_changes[vcpu->index]++;
}

static void scripted_rest(struct vcpu *vcpu, bool all)
{
	machine.rests[vcpu->index]++;
	machine.deep_rests += all;
}

static const struct engine_ops scripted_engine = {
	.name = "scripted",
	.vcpu_create = scripted_create,
	.vcpu_destroy = scripted_destroy,
	.run = scripted_run,
	.rest = scripted_rest,
	.state_changed = scripted_state_changed,
};

/* ---- the host's side ---- */

static void machine_told_end(void *opaque)
{
	machine.ended++;
}

static void machine_report(void *opaque, const char *line)
{
	size_t used = strlen(machine.report);
	host_snprintf(machine.report + used, sizeof(machine.report) - used, "%s\n", line);
}

static void machine_serial_put(void *opaque, u8 byte)
{
	assert_true(machine.sent_count < sizeof(machine.sent));
	machine.sent[machine.sent_count++] = (char)byte;
}

static bool machine_serial_get(void *opaque, u8 *byte)
{
	if (!machine.typed || !*machine.typed)
		return false;
	*byte = (u8)*machine.typed++;
	return true;
}

static void machine_debug_put(void *opaque, u8 byte)
{
}

/* hlt; jmp back: never executed, but loaded by every reset. */
static const u8 machine_image[] = { 0xf4, 0xeb, 0xfd };

static inline struct vm_config machine_config(unsigned cpus)
{
	return (struct vm_config){
		.memory = 4ull << 20,
		.cpus = cpus,
		.cpu_model = "host",
		.engine = &scripted_engine,
		.boot = { .kernel = machine_image, .kernel_size = sizeof(machine_image), .protocol = BOOT_FLAT },
		.backends = { .serial_put = machine_serial_put,
			      .serial_get = machine_serial_get,
			      .debug_put = machine_debug_put,
			      .debug_exit = true },
		.ended = machine_told_end,
		.report = machine_report,
	};
}

static inline struct vm *machine_create(const struct vm_config *config)
{
	char error[256] = "";
	bool user_error;
	machine = (struct machine){ 0 };
	machine.vm = vm_create(config, error, sizeof(error), &user_error);
	if (!machine.vm)
		print_error("%s\n", error);
	assert_non_null(machine.vm);
	return machine.vm;
}

static inline int machine_destroy(void **state)
{
	fake_host_set_idle(NULL, NULL);
	if (machine.vm)
		vm_destroy(machine.vm);
	machine.vm = NULL;
	return 0;
}

/* ---- what guests do ---- */

static inline void guest_out(unsigned cpu, u16 port, unsigned size, u32 value)
{
	struct exit e = { .reason = EXIT_IO, .io = { .port = port, .size = (u8)size, .write = true, .value = value } };
	vm_exit(&machine.vm->cpu[cpu]->vcpu, &e);
}

static inline u32 guest_in(unsigned cpu, u16 port, unsigned size)
{
	struct exit e = { .reason = EXIT_IO, .io = { .port = port, .size = (u8)size } };
	vm_exit(&machine.vm->cpu[cpu]->vcpu, &e);
	return e.io.value;
}

static inline void guest_store(unsigned cpu, gpa_t gpa, u32 value)
{
	struct exit e = { .reason = EXIT_MMIO, .mmio = { .gpa = gpa, .size = 4, .write = true, .value = value } };
	vm_exit(&machine.vm->cpu[cpu]->vcpu, &e);
}

static inline u32 guest_load(unsigned cpu, gpa_t gpa)
{
	struct exit e = { .reason = EXIT_MMIO, .mmio = { .gpa = gpa, .size = 4 } };
	vm_exit(&machine.vm->cpu[cpu]->vcpu, &e);
	return (u32)e.mmio.value;
}

static inline void ioapic_write_entry(unsigned pin, u64 entry)
{
	for (unsigned half = 0; half < 2; half++) {
		guest_store(0, MAP_IOAPIC, 0x10 + 2 * pin + half);
		guest_store(0, MAP_IOAPIC + 0x10, (u32)(entry >> (32 * half)));
	}
}

/* Local APIC registers by offset. */
#define APIC_ID 0x20
#define APIC_TPR 0x80
#define APIC_EOI 0xb0
#define APIC_LDR 0xd0
#define APIC_DFR 0xe0
#define APIC_SVR 0xf0
#define APIC_ICR_LOW 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_LINT0 0x350
#define APIC_TIMER_INITIAL 0x380

static inline void apic_write(unsigned cpu, unsigned offset, u32 value)
{
	guest_store(cpu, MAP_LAPIC + offset, value);
}

/* Software-enable the local APICs of the first `count` CPUs. */
static inline void apics_enable(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		apic_write(i, APIC_SVR, 0x1ff);
}

/* The CPU takes whatever interrupt is deliverable: its vector, or -1. */
static inline int acknowledge(unsigned cpu)
{
	return vm_interrupt_acknowledge(&machine.vm->cpu[cpu]->vcpu);
}

static inline u32 pending(unsigned cpu)
{
	return vcpu_pending(&machine.vm->cpu[cpu]->vcpu);
}

#endif
