/* The table of MSRs: what each rule lets through, what CPUID gates, and the paravirtual clock behind KVM's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/pvclock.h"
#include "fake_host.h"
#include "mmu/mmu.h"
#include "mmu/ram.h"

#define TSC_HZ 2596122000ull
#define RAM_SIZE 0x10000ull

static struct vcpu vcpu;
static struct ram ram;

static int start(const char *spec)
{
	char error[200];
	memset(&vcpu, 0, sizeof(vcpu));
	struct cpuid_policy *policy = cpuid_policy_create(spec, 1, TSC_HZ, error, sizeof(error));
	assert_non_null(policy);
	cpuid_apply(&vcpu, policy);
	vcpu.ram = &ram;
	return mmu_create(&vcpu);
}

static void stop(void)
{
	mmu_destroy(&vcpu);
	host_free((void *)vcpu.cpuid);
}

static int setup(void **state)
{
	return start("EPYC");
}

static int teardown(void **state)
{
	stop();
	return 0;
}

static void assert_reads(u32 index, u64 expected)
{
	u64 value;
	assert_int_equal(msr_read(&vcpu, index, &value), MSR_OK);
	assert_int_equal(value, expected);
}

static void assert_takes(u32 index, u64 value)
{
	assert_int_equal(msr_write(&vcpu, index, value), MSR_OK);
	assert_reads(index, value);
}

static void assert_refuses(u32 index, u64 value)
{
	u64 before;
	assert_int_equal(msr_read(&vcpu, index, &before), MSR_OK);
	assert_int_equal(msr_write(&vcpu, index, value), MSR_FAULT);
	assert_reads(index, before);
}

static void test_stored_and_canonical(void **state)
{
	assert_takes(0xc0000081, 0x0023001000000000);
	assert_takes(0xc0000082, 0xffffffff81000000);
	assert_refuses(0xc0000082, 0x8000000000000000);
	assert_takes(0xc0000100, 0x7fff00000000);
	assert_int_equal(vcpu.seg[SEG_FS].base, 0x7fff00000000);
	assert_refuses(0xc0000101, 0x800000000000);
	assert_takes(0xc0000103, 5);
	assert_refuses(0xc0000103, 1ull << 32);
	assert_refuses(0xda0, 1);
	assert_takes(0x48, 1);
	assert_refuses(0x48, 4);
}

static void test_memory_types(void **state)
{
	assert_takes(0x277, 0x0007040600070406);
	assert_refuses(0x277, 0x0007040600070402);
	assert_refuses(0x277, 0x0807040600070406);
	assert_reads(0xfe, 0x508);
	assert_refuses(0xfe, 0x508);
	assert_takes(0x2ff, 0xc06);
	assert_refuses(0x2ff, 0xc02);
	assert_refuses(0x2ff, 0x1006);
	assert_takes(0x20e, 0xc0000006);
	assert_refuses(0x20e, 0xc0000007);
	assert_refuses(0x20e, 0xc0000106);
	assert_takes(0x20f, 0x3fffc0000800);
	assert_refuses(0x20f, 1ull << vcpu.physical_bits);
	assert_takes(0x250, 0x0606060606060606);
	assert_takes(0x259, 0x0101010101010101);
	assert_takes(0x26f, 0x0505050505050505);
	assert_refuses(0x26f, 0x0505050505050502);
	assert_int_equal(vcpu.msr.mtrr_fixed[0], 0x0606060606060606);
	assert_int_equal(vcpu.msr.mtrr_fixed[2], 0x0101010101010101);
	assert_int_equal(vcpu.msr.mtrr_fixed[10], 0x0505050505050505);
}

static void test_firmware_mtrrs(void **state)
{
	msr_set_firmware_mtrrs(&vcpu, 0xc0000000);
	assert_reads(0x2ff, 0xc06);
	assert_reads(0x200, 0xc0000000);
	assert_reads(0x201, (mask_of(vcpu.physical_bits) & ~0x3fffffffull) | 0x800);
}

static void test_tsc(void **state)
{
	u64 a, b;
	vcpu.tsc_offset = -__builtin_ia32_rdtsc();
	assert_int_equal(msr_read(&vcpu, MSR_TSC, &a), MSR_OK);
	assert_true(a < TSC_HZ);
	assert_int_equal(msr_write(&vcpu, MSR_TSC, 1ull << 50), MSR_OK);
	assert_int_equal(msr_read(&vcpu, MSR_TSC, &b), MSR_OK);
	assert_true(b >= 1ull << 50 && b - (1ull << 50) < TSC_HZ);
	assert_int_equal(vcpu.tsc_adjust >> 49, 1);
	assert_takes(MSR_TSC_ADJUST, 0);
	assert_int_equal(msr_read(&vcpu, MSR_TSC, &b), MSR_OK);
	assert_true(b - a < TSC_HZ);
}

static void test_efer(void **state)
{
	assert_takes(0xc0000080, EFER_SCE | EFER_NXE | EFER_LME);
	assert_refuses(0xc0000080, EFER_SVME);
}

static void test_gates(void **state)
{
	u64 value;
	assert_int_equal(msr_read(&vcpu, 0x10a, &value), MSR_OK);
	assert_true(value & 1);
	assert_int_equal(msr_read(&vcpu, 0xc0011029, &value), MSR_OK);
	assert_int_equal(msr_write(&vcpu, 0xc0011029, 0x200), MSR_OK);
	assert_int_equal(msr_read(&vcpu, 0x17, &value), MSR_UNKNOWN);
	/* The local APIC's are not here. */
	assert_int_equal(msr_read(&vcpu, 0x1b, &value), MSR_UNKNOWN);
	assert_int_equal(msr_write(&vcpu, 0x6e0, 0), MSR_UNKNOWN);
	assert_int_equal(msr_read(&vcpu, 0x802, &value), MSR_UNKNOWN);
	stop();
	start("Haswell");
	assert_int_equal(msr_read(&vcpu, 0x10a, &value), MSR_OK);
	assert_true(value & 2);
	stop();
	start("Haswell,-spec-ctrl");
	assert_int_equal(msr_read(&vcpu, 0x10a, &value), MSR_OK);
	assert_false(value & 2);
	stop();
	start("Haswell,-arch-capabilities,-spec-ctrl");
	assert_int_equal(msr_read(&vcpu, 0x10a, &value), MSR_UNKNOWN);
	assert_int_equal(msr_write(&vcpu, 0x48, 1), MSR_UNKNOWN);
	assert_int_equal(msr_read(&vcpu, 0xc0011029, &value), MSR_UNKNOWN);
	assert_reads(0x17, 0);
	assert_reads(0x8b, 1ull << 32);
}

static void test_write_only(void **state)
{
	u64 value = 1;
	assert_int_equal(msr_write(&vcpu, 0x49, 1), MSR_OK);
	assert_int_equal(msr_write(&vcpu, 0x49, 2), MSR_FAULT);
	assert_int_equal(msr_read(&vcpu, 0x49, &value), MSR_FAULT);
	assert_int_equal(value, 0);
}

static void test_names(void **state)
{
	assert_string_equal(msr_name(0xc0000080), "EFER");
	assert_string_equal(msr_name(0x209), "IA32_MTRR_PHYSBASE/MASK");
	assert_null(msr_name(0x12345678));
}

struct system_time {
	u32 version, pad;
	u64 tsc, ns;
	u32 mul;
	s8 shift;
	u8 flags, pad2[2];
};

static void test_pvclock_pages(void **state)
{
	u8 *hva = host_ram_create(RAM_SIZE);
	assert_int_equal(ram_add(&ram, 0, RAM_SIZE, hva, false), 0);
	struct pvclock clock;
	pvclock_init(&clock, TSC_HZ);
	vcpu.tsc_offset = 1000;
	vcpu.msr.kvm_system_time = 0x2000 | 1;
	struct system_time *t = (void *)(hva + 0x2000);
	t->version = 7;
	pvclock_update(&clock, &vcpu, MSR_KVM_SYSTEM_TIME);
	assert_int_equal(t->version, 10);
	assert_int_equal(t->tsc, clock.host_tsc + 1000);
	assert_int_equal(t->flags, 1);
	vcpu.tsc_offset = 2000;
	pvclock_update(&clock, &vcpu, MSR_TSC);
	assert_int_equal(t->tsc, clock.host_tsc + 2000);

	vcpu.msr.kvm_wall_clock = 0x3000;
	pvclock_update(&clock, &vcpu, MSR_KVM_WALL_CLOCK);
	assert_int_equal(*(u32 *)(hva + 0x3004), 1700000000);

	/* Outside RAM, or across its end: nothing happens. */
	vcpu.msr.kvm_system_time = (RAM_SIZE - 16) | 1;
	pvclock_update(&clock, &vcpu, MSR_KVM_SYSTEM_TIME);
	vcpu.msr.kvm_wall_clock = ~0ull - 3;
	pvclock_update(&clock, &vcpu, MSR_KVM_WALL_CLOCK);
	ram_release(&ram);
	memset(&ram, 0, sizeof(ram));
	host_ram_destroy(hva, RAM_SIZE);
}

static void test_pvclock_scale(void **state)
{
	const u64 rates[] = { 500000000, 999999999, 1000000000, 2000000000, 2596122000, 4100000000, 8000000000 };
	for (unsigned i = 0; i < ARRAY_SIZE(rates); i++) {
		struct pvclock clock;
		pvclock_init(&clock, rates[i]);
		/* A thousand seconds of ticks are a thousand seconds, within a microsecond. */
		u64 ns = pvclock_ns(&clock, clock.host_tsc + 1000 * rates[i]);
		assert_true(ns + 1000 > 1000ull * 1000000000 && ns <= 1000ull * 1000000000);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stored_and_canonical, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory_types, setup, teardown),
		cmocka_unit_test_setup_teardown(test_firmware_mtrrs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tsc, setup, teardown),
		cmocka_unit_test_setup_teardown(test_efer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gates, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pvclock_pages, setup, teardown),
		cmocka_unit_test(test_pvclock_scale),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
