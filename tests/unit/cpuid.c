/* The CPUID policy: models, features added and taken away, limits of the host, the leaves that are computed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/host_cpuid.h"
#include "host/port.h"

#define TSC_HZ 2596122000ull

static struct vcpu vcpu;
static char error[200];

struct regs {
	u32 a, b, c, d;
};

static struct cpuid_policy *make(const char *spec, unsigned cpus)
{
	struct cpuid_policy *policy = cpuid_policy_create(spec, cpus, TSC_HZ, error, sizeof(error));
	if (!policy)
		fail_msg("%s: %s", spec, error);
	memset(&vcpu, 0, sizeof(vcpu));
	cpuid_apply(&vcpu, policy);
	return policy;
}

static struct regs ask(u32 leaf, u32 subleaf)
{
	struct regs r;
	cpuid_answer(&vcpu, leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
	return r;
}

static void assert_error(const char *spec, const char *text)
{
	assert_null(cpuid_policy_create(spec, 1, TSC_HZ, error, sizeof(error)));
	if (!strstr(error, text))
		fail_msg("%s: '%s' does not say '%s'", spec, error, text);
}

static void test_every_model_can_be_made(void **state)
{
	for (const char *const *name = cpuid_model_names(); *name; name++) {
		struct cpuid_policy *policy = make(*name, 2);
		assert_true(cpuid_has(policy, FEATURE_SSE2));
		assert_true(cpuid_has(policy, FEATURE_LM));
		assert_true(cpuid_has(policy, FEATURE_X2APIC));
		assert_false(cpuid_has(policy, FEATURE_VMX));
		assert_false(cpuid_has(policy, FEATURE_PKU));
		host_free(policy);
	}
}

/* Whatever runs natively must exist on the host. */
static void test_host_model_is_a_subset_of_the_host(void **state)
{
	struct cpuid_policy *policy = make("host", 1);
	const u32 own_1 = 1u << 17 | 1u << 21 | 1u << 24 | 1u << 31;
	assert_int_equal(ask(1, 0).c & ~own_1 & ~host_cpuid(1, 0).reg[CPUID_ECX], 0);
	const u32 own_7 = 1u << 0 | 1u << 1 | 1u << 7 | 1u << 10 | 1u << 13 | 1u << 20;
	assert_int_equal(ask(7, 0).b & ~own_7 & ~host_cpuid(7, 0).reg[CPUID_EBX], 0);
	assert_int_equal(ask(1, 0).a, host_cpuid(1, 0).reg[CPUID_EAX]);
	host_free(policy);
}

static void test_features_in_and_out(void **state)
{
	struct cpuid_policy *policy = make("host,-avx", 1);
	const enum cpu_feature gone[] = { FEATURE_AVX,  FEATURE_AVX2,    FEATURE_FMA,      FEATURE_F16C,
					  FEATURE_VAES, FEATURE_AVX512F, FEATURE_AVX512VL, FEATURE_AVX512VBMI2 };
	for (unsigned i = 0; i < ARRAY_SIZE(gone); i++)
		assert_false(cpuid_has(policy, gone[i]));
	assert_true(cpuid_has(policy, FEATURE_XSAVE));
	assert_int_equal(vcpu.xcr0_valid, XCR0_X87 | XCR0_SSE);
	host_free(policy);

	policy = make("HOST,-XSAVE", 1);
	assert_false(cpuid_has(policy, FEATURE_AVX));
	assert_false(cpuid_has(policy, FEATURE_XSAVES));
	assert_false(vcpu.cr4_valid & CR4_OSXSAVE);
	assert_int_equal(vcpu.xcr0_valid, 0);
	host_free(policy);

	policy = make("x86-64,+sse4_2,-SSE4.1,+tsc_adjust", 1);
	assert_false(cpuid_has(policy, FEATURE_SSE4_2));
	assert_true(cpuid_has(policy, FEATURE_SSSE3));
	assert_true(cpuid_has(policy, FEATURE_TSC_ADJUST));
	host_free(policy);
}

static void test_errors_are_sentences(void **state)
{
	assert_error("pentium", "no CPU model named 'pentium'");
	assert_error("host,+warp", "no CPU feature named 'warp'");
	assert_error("host,avx", "'avx' is not +FEATURE or -FEATURE");
	assert_error("host,", "'' is not +FEATURE");
	assert_error("host,+vmx", "feature vmx");
	if (!(host_cpuid(0x80000001, 0).reg[CPUID_EDX] & 1u << 31))
		assert_error("host,+3dnow", "does not have the CPU feature 3dnow");
}

static void test_derived_fields(void **state)
{
	struct cpuid_policy *policy = make("host,-smap,-nx", 1);
	assert_false(vcpu.cr4_valid & CR4_SMAP);
	assert_true(vcpu.cr4_valid & CR4_SMEP);
	assert_false(vcpu.cr4_valid & (CR4_PKE | CR4_VMXE));
	assert_int_equal(vcpu.efer_valid & (EFER_NXE | EFER_LME), EFER_LME);
	assert_true(vcpu.physical_bits >= 36 && vcpu.physical_bits <= 46);
	assert_int_equal(ask(0x80000008, 0).a & 0xff, vcpu.physical_bits);
	host_free(policy);
}

static void test_leaves_that_depend_on_the_vcpu(void **state)
{
	struct cpuid_policy *policy = make("host", 3);
	vcpu.index = 2;
	assert_int_equal(ask(1, 0).b >> 24, 2);
	assert_int_equal(ask(1, 0).b >> 16 & 0xff, 3);
	assert_int_equal(ask(0xb, 0).d, 2);
	assert_int_equal(ask(0xb, 1).a, 2);
	assert_int_equal(ask(0xb, 1).b, 3);
	assert_int_equal(ask(0xb, 2).b, 0);
	assert_false(ask(1, 0).c & 1u << 27);
	vcpu.cr4 = CR4_OSXSAVE;
	assert_true(ask(1, 0).c & 1u << 27);
	vcpu.xcr0 = XCR0_X87;
	assert_int_equal(ask(0xd, 0).b, 576);
	host_free(policy);
}

/* With every component on, the sizes are the host's. */
static void test_xsave_sizes(void **state)
{
	struct cpuid_policy *policy = make("host", 1);
	vcpu.xcr0 = vcpu.xcr0_valid;
	u32 largest = 576;
	for (u32 i = 2; i < 8; i++) {
		if (!(vcpu.xcr0 & BIT(i)))
			continue;
		struct cpuid_regs host = host_cpuid(0xd, i);
		assert_int_equal(ask(0xd, i).a, host.reg[CPUID_EAX]);
		assert_int_equal(ask(0xd, i).b, host.reg[CPUID_EBX]);
		largest = MAX(largest, host.reg[CPUID_EAX] + host.reg[CPUID_EBX]);
	}
	assert_int_equal(ask(0xd, 0).b, largest);
	assert_int_equal(ask(0xd, 0).c, largest);
	assert_true(ask(0xd, 1).b >= 576 && ask(0xd, 1).b <= largest);
	host_free(policy);
}

static void test_hypervisor_and_clock_leaves(void **state)
{
	struct cpuid_policy *policy = make("x86-64-v2", 1);
	struct regs r = ask(0x40000000, 0);
	assert_int_equal(r.a, 0x40000010);
	assert_memory_equal(&r.b, "KVMKVMKVM\0\0\0", 12);
	assert_int_equal(ask(0x40000010, 0).a, TSC_HZ / 1000);
	r = ask(0x15, 0);
	u64 told = (u64)r.c * r.b / r.a;
	u64 off = told > TSC_HZ ? told - TSC_HZ : TSC_HZ - told;
	assert_true(off < TSC_HZ / 1000000);
	assert_true((u64)(r.c / 1000) * r.b < BIT(32));
	assert_true(ask(0x80000007, 0).d & 1u << 8);
	char brand[49] = { 0 };
	for (u32 i = 0; i < 3; i++) {
		r = ask(0x80000002 + i, 0);
		memcpy(brand + 16 * i, &r, 16);
	}
	assert_string_equal(brand, "nadir virtual CPU (x86-64-v2)");
	host_free(policy);
}

static void test_vendors_differ(void **state)
{
	struct cpuid_policy *policy = make("EPYC", 2);
	assert_int_equal(ask(0x80000000, 0).a, 0x80000021);
	assert_int_equal(ask(4, 0).a, 0);
	assert_true(ask(0x8000001d, 3).a);
	assert_int_equal(ask(0x80000001, 0).d & 1, 1);
	assert_int_equal(ask(0x12345, 0).b, 0);
	host_free(policy);
	policy = make("Skylake-Server", 2);
	assert_int_equal(ask(0, 0).b, 0x756e6547);
	assert_int_equal(ask(1, 0).a, 0x50654);
	assert_int_equal(ask(0x80000000, 0).a, 0x80000008);
	assert_true(ask(4, 3).a);
	assert_int_equal(ask(4, 4).a, 0);
	assert_false(cpuid_has(policy, FEATURE_TOPOEXT));
	host_free(policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_model_can_be_made),
		cmocka_unit_test(test_host_model_is_a_subset_of_the_host),
		cmocka_unit_test(test_features_in_and_out),
		cmocka_unit_test(test_errors_are_sentences),
		cmocka_unit_test(test_derived_fields),
		cmocka_unit_test(test_leaves_that_depend_on_the_vcpu),
		cmocka_unit_test(test_xsave_sizes),
		cmocka_unit_test(test_hypervisor_and_clock_leaves),
		cmocka_unit_test(test_vendors_differ),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
