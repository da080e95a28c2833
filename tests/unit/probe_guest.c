/* The trial guest of `nadir probe` on the reference engine: on a processor that does everything right, every step
 * passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "cpu/control.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "engine/engine.h"
#include "host/linux/probe_guest.h"
#include "host/port.h"
#include "mmu/mmu.h"
#include "mmu/ram.h"

static struct vcpu vcpu;
static struct ram ram;
static u32 passed;

static void answer_io(struct exit *e)
{
	assert_true(e->io.write);
	if (e->io.port != TRIAL_PORT_PASSED)
		fail_msg("step %u: port %#x, RIP %#llx", e->io.value, e->io.port, (unsigned long long)vcpu.rip);
	assert_int_equal(e->io.value, passed + 1);
	passed = e->io.value;
}

static void answer_mmio(struct exit *e)
{
	assert_int_equal(e->mmio.gpa, TRIAL_MMIO_GPA + (TRIAL_MMIO & 0xfff));
	assert_int_equal(e->mmio.size, 4);
	if (e->mmio.write)
		assert_int_equal(e->mmio.value, 0x12345678);
	else
		e->mmio.value = 0x87654321;
}

static void answer(struct vcpu *v, struct exit *e)
{
	switch (e->reason) {
	case EXIT_IO:
		answer_io(e);
		break;
	case EXIT_MMIO:
		answer_mmio(e);
		break;
	case EXIT_CPUID:
		cpuid_answer(v, e->cpuid.leaf, e->cpuid.subleaf, &e->cpuid.eax, &e->cpuid.ebx, &e->cpuid.ecx,
			     &e->cpuid.edx);
		break;
	case EXIT_RDMSR:
		e->msr.fault = msr_read(v, e->msr.index, &e->msr.value) != MSR_OK;
		break;
	case EXIT_WRMSR:
		e->msr.fault = msr_write(v, e->msr.index, e->msr.value) != MSR_OK;
		break;
	default: /* counted only */
		break;
	}
}

static int no_interrupt(struct vcpu *v)
{
	return -1;
}

static const struct vcpu_ops ops = { .exit = answer, .interrupt_acknowledge = no_interrupt };

static void enter_long_mode(void)
{
	const struct segment data = { .selector = 0x18, .attr = 0xc093, .limit = ~0u };
	for (unsigned i = 0; i < SEG_COUNT; i++)
		vcpu.seg[i] = data;
	vcpu.seg[SEG_CS] = (struct segment){ .selector = 0x10, .attr = 0xa09b, .limit = ~0u };
	vcpu.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
	vcpu.cr3 = TRIAL_PML4;
	vcpu.cr4 = CR4_PAE;
	vcpu.efer = EFER_LME | EFER_LMA;
	vcpu.rip = TRIAL_CODE;
	vcpu.gpr[RSP] = TRIAL_STACK_TOP;
	mmu_load_cr3(&vcpu, false);
	mmu_update_view(&vcpu);
	vcpu.engine->state_changed(&vcpu);
}

static void test_every_step_passes(void **state)
{
	char error[200];
	struct exit exit;
	u8 *memory = host_ram_create(TRIAL_MEMORY);
	struct cpuid_policy *policy = cpuid_policy_create("host", 1, 2000000000, error, sizeof(error));
	assert_non_null(policy);
	assert_int_equal(ram_add(&ram, 0, TRIAL_MEMORY, memory, false), 0);
	probe_guest_build(memory);
	vcpu.ram = &ram;
	vcpu.ops = &ops;
	vcpu.engine = &engine_step;
	cpuid_apply(&vcpu, policy);
	assert_int_equal(mmu_create(&vcpu), 0);
	assert_int_equal(engine_step.vcpu_create(&vcpu), 0);
	cpu_reset(&vcpu, false);
	enter_long_mode();

	engine_step.run(&vcpu, &exit);
	assert_int_equal(exit.reason, EXIT_HLT);
	assert_int_equal(passed, TRIAL_STEPS - 1);

	engine_step.vcpu_destroy(&vcpu);
	mmu_destroy(&vcpu);
	ram_release(&ram);
	host_free(policy);
	host_ram_destroy(memory, TRIAL_MEMORY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_step_passes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
