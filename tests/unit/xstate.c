/* The XSAVE family against the real one: random state and random areas go through the processor's instructions and
 * through cpu/xstate.c, and must end alike. Then the faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "arch/xsave.h"
#include "cpu/cpuid.h"
#include "cpu/xstate.h"
#include "host/port.h"
#include "mmu/mmu.h"
#include "mmu/ram.h"

#define RAM_SIZE 0x10000ull
#define AREA 0x1000ull
#define ROUNDS 2000

static struct vcpu vcpu;
static struct ram ram;
static u8 *memory;

/* What the hardware is given and gives. */
static alignas(64) struct xsave_area start_state, own_state, hardware, before;

enum operation {
	OP_XRSTOR,
	OP_XRSTOR64,
	OP_FXRSTOR,
	OP_FXRSTOR64,
	OP_XSAVE,
	OP_XSAVE64,
	OP_XSAVEOPT64,
	OP_XSAVEC64,
	OP_XSAVEC,
	OP_FXSAVE,
	OP_FXSAVE64
};

#define XRSTOR64(area, mask) "mov %k[" mask "], %%eax; xor %%edx, %%edx; xrstor64 %[" area "];"
#define XSAVE64(area, mask) "mov %k[" mask "], %%eax; xor %%edx, %%edx; xsave64 %[" area "];"

/* Load `from`, run one instruction on `area`, keep the resulting state in `to`; all in one asm, so that no compiled
 * code is between. */
#define RUN(instruction)                                                                                               \
	__asm__ volatile(XSAVE64("own", "full")                                                                        \
				 XRSTOR64("from", "full") "mov %k[mask], %%eax; xor %%edx, %%edx;" instruction         \
							  ";" XSAVE64("to", "full") XRSTOR64("own", "full")            \
			 : [own] "+m"(own_state), [to] "+m"(*to), [area] "+m"(*area)                                   \
			 : [from] "m"(*from), [full] "r"((u32)vcpu.xcr0), [mask] "r"(mask)                             \
			 : "eax", "edx", "memory")

static void run_hardware(enum operation op, const struct xsave_area *from, struct xsave_area *area,
			 struct xsave_area *to, u32 mask)
{
	switch (op) {
	case OP_XRSTOR:
		RUN("xrstor %[area]");
		break;
	case OP_XRSTOR64:
		RUN("xrstor64 %[area]");
		break;
	case OP_FXRSTOR:
		RUN("fxrstor %[area]");
		break;
	case OP_FXRSTOR64:
		RUN("fxrstor64 %[area]");
		break;
	case OP_XSAVE:
		RUN("xsave %[area]");
		break;
	case OP_XSAVE64:
		RUN("xsave64 %[area]");
		break;
	case OP_XSAVEOPT64:
		RUN("xsaveopt64 %[area]");
		break;
	case OP_XSAVEC64:
		RUN("xsavec64 %[area]");
		break;
	case OP_XSAVEC:
		RUN("xsavec %[area]");
		break;
	case OP_FXSAVE:
		RUN("fxsave %[area]");
		break;
	case OP_FXSAVE64:
		RUN("fxsave64 %[area]");
		break;
	}
}

static bool run_ours(enum operation op, u32 mask)
{
	switch (op) {
	case OP_XRSTOR:
		return xstate_restore(&vcpu, false, AREA, mask, false);
	case OP_XRSTOR64:
		return xstate_restore(&vcpu, false, AREA, mask, true);
	case OP_FXRSTOR:
		return xstate_fxrstor(&vcpu, AREA, false);
	case OP_FXRSTOR64:
		return xstate_fxrstor(&vcpu, AREA, true);
	case OP_XSAVE:
		return xstate_save(&vcpu, XSAVE_PLAIN, AREA, mask, false);
	case OP_XSAVE64:
		return xstate_save(&vcpu, XSAVE_PLAIN, AREA, mask, true);
	case OP_XSAVEOPT64:
		return xstate_save(&vcpu, XSAVE_OPT, AREA, mask, true);
	case OP_XSAVEC64:
		return xstate_save(&vcpu, XSAVE_COMPACT, AREA, mask, true);
	case OP_XSAVEC:
		return xstate_save(&vcpu, XSAVE_COMPACT, AREA, mask, false);
	case OP_FXSAVE:
		return xstate_fxsave(&vcpu, AREA, false);
	default:
		return xstate_fxsave(&vcpu, AREA, true);
	}
}

static int setup(void **state)
{
	char error[200];
	memset(&vcpu, 0, sizeof(vcpu));
	memory = host_ram_create(RAM_SIZE);
	if (ram_add(&ram, 0, RAM_SIZE, memory, false))
		return -1;
	struct cpuid_policy *policy = cpuid_policy_create("host", 1, 2000000000, error, sizeof(error));
	assert_non_null(policy);
	cpuid_apply(&vcpu, policy);
	vcpu.ram = &ram;
	vcpu.cr0 = CR0_PE;
	vcpu.cr4 = CR4_OSXSAVE | CR4_OSFXSR;
	vcpu.efer = EFER_LMA;
	vcpu.seg[SEG_CS].attr = SEG_ATTR_L;
	vcpu.xcr0 = vcpu.xcr0_valid;
	if (mmu_create(&vcpu))
		return -1;
	mmu_update_view(&vcpu);
	xstate_reset(&vcpu);
	return 0;
}

static int teardown(void **state)
{
	mmu_destroy(&vcpu);
	ram_release(&ram);
	memset(&ram, 0, sizeof(ram));
	host_ram_destroy(memory, RAM_SIZE);
	host_free((void *)vcpu.cpuid);
	return 0;
}

static struct xsave_area *image(void)
{
	return (struct xsave_area *)vcpu.xsave;
}

static u32 random_mask(void)
{
	u8 byte;
	host_random(&byte, 1);
	return byte & 0x10 ? (u32)vcpu.xcr0 : byte & (u32)vcpu.xcr0;
}

/* An area that XRSTOR accepts, in standard or compacted format. */
static void random_area(struct xsave_area *area, bool compact)
{
	host_random(area, sizeof(*area));
	area->legacy.mxcsr &= image()->legacy.mxcsr_mask;
	area->legacy.fip &= mask_of(47);
	area->legacy.fdp &= mask_of(47);
	memset(&area->header, 0, sizeof(area->header));
	area->header.xstate_bv = random_mask();
	if (compact)
		area->header.xcomp_bv = random_mask() | area->header.xstate_bv | XCOMP_COMPACT;
}

/* A random state that the processor has loaded and saved, so that nothing in it is impossible. */
static void random_state(void)
{
	alignas(64) struct xsave_area area;
	random_area(&area, false);
	/* A task switch in the middle may bring the state back with another XINUSE: then once more. */
	for (unsigned attempt = 0; attempt < 20; attempt++) {
		memset(&start_state, 0, sizeof(start_state));
		run_hardware(OP_XRSTOR64, &area, &area, &start_state, (u32)vcpu.xcr0);
		if (!((start_state.header.xstate_bv ^ area.header.xstate_bv) & vcpu.xcr0))
			break;
	}
	memcpy(image(), &start_state, sizeof(start_state));
}

/* Give every component of the image its bytes, also where it is in its initial configuration. */
static void saved_image(struct xsave_area *to)
{
	memset(memory + 0x4000, 0, sizeof(*to));
	assert_true(xstate_save(&vcpu, XSAVE_PLAIN, 0x4000, vcpu.xcr0, true));
	memcpy(to, memory + 0x4000, sizeof(*to));
}

/* AMD's processors forget where the last x87 instruction was, unless an exception is pending. */
static void forget_x87_pointers(struct xsave_area *area)
{
	if (area->legacy.fsw & 0x80)
		return;
	area->legacy.fop = 0;
	area->legacy.fip = area->legacy.fdp = 0;
}

/* The first byte in which two areas differ, or -1. XSTATE_BV may be set for a component in its initial configuration: how much a
 * processor tracks is its own affair. */
static int first_difference(const struct xsave_area *ours, const struct xsave_area *theirs, bool header)
{
	const u8 *a = (const u8 *)ours, *b = (const u8 *)theirs;
	for (unsigned i = 0; i < sizeof(*ours); i++)
		if (a[i] != b[i] && (header || i < 512 || i >= 520))
			return (int)i;
	return -1;
}

static void assert_alike(const struct xsave_area *ours, const struct xsave_area *theirs, bool header, const char *what)
{
	int i = first_difference(ours, theirs, header);
	if (i >= 0)
		fail_msg("%s: byte %d is %#x, the processor's %#x", what, i, ((const u8 *)ours)[i], ((const u8 *)theirs)[i]);
}

static void compare_restore(enum operation op, bool compact, const char *what)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		u32 mask = random_mask();
		struct xsave_area ours;
		random_state();
		random_area((void *)(memory + AREA), compact);
		memset(&hardware, 0, sizeof(hardware));
		run_hardware(op, &start_state, (void *)(memory + AREA), &hardware, mask);
		assert_true(run_ours(op, mask));
		saved_image(&ours);
		forget_x87_pointers(&ours);
		forget_x87_pointers(&hardware);
		assert_alike(&ours, &hardware, false, what);
	}
}

static void compare_save(enum operation op, bool header, const char *what)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		u32 mask = random_mask();
		random_state();
		random_area(&before, false);
		struct xsave_area ours, theirs;
		memcpy(memory + AREA, &before, sizeof(before));
		assert_true(run_ours(op, mask));
		memcpy(&ours, memory + AREA, sizeof(ours));
		/* Where the kernel or a hypervisor below switches tasks in the middle, the state comes back with another XINUSE: a
		 * true difference is there every time. */
		for (unsigned attempt = 0; attempt < 20; attempt++) {
			memcpy(memory + AREA, &before, sizeof(before));
			run_hardware(op, &start_state, (void *)(memory + AREA), &hardware, mask);
			memcpy(&theirs, memory + AREA, sizeof(theirs));
			if (first_difference(&ours, &theirs, header) < 0)
				break;
		}
		assert_alike(&ours, &theirs, header, what);
	}
}

static void test_restore_like_the_processor(void **state)
{
	compare_restore(OP_XRSTOR64, false, "xrstor64");
	compare_restore(OP_XRSTOR, false, "xrstor");
	if (cpuid_has(vcpu.cpuid, FEATURE_XSAVEC))
		compare_restore(OP_XRSTOR64, true, "xrstor64, compacted");
	compare_restore(OP_FXRSTOR64, false, "fxrstor64");
	compare_restore(OP_FXRSTOR, false, "fxrstor");
}

static void test_save_like_the_processor(void **state)
{
	compare_save(OP_XSAVE64, true, "xsave64");
	compare_save(OP_FXSAVE64, true, "fxsave64");
	compare_save(OP_XSAVEOPT64, true, "xsaveopt64");
	compare_save(OP_XSAVEC64, true, "xsavec64");
}

static void assert_fault(bool done, u8 vector)
{
	assert_false(done);
	assert_int_equal(vcpu.fault.vector, vector);
}

static struct xsave_area *guest_area(void)
{
	struct xsave_area *area = (void *)(memory + AREA);
	memset(area, 0, sizeof(*area));
	area->legacy.mxcsr = MXCSR_INIT;
	return area;
}

static bool restore(void)
{
	return xstate_restore(&vcpu, false, AREA, ~0ull, true);
}

static void test_header_checks(void **state)
{
	struct xsave_area *area = guest_area();
	assert_true(restore());
	area->header.xstate_bv = BIT(8);
	assert_fault(restore(), VEC_GP);
	area = guest_area();
	area->header.reserved[0] = 1;
	assert_fault(restore(), VEC_GP);
	area = guest_area();
	area->header.reserved[1] = 1; /* not looked at in the standard format */
	assert_true(restore());
	area->header.xcomp_bv = XCOMP_COMPACT;
	assert_fault(restore(), VEC_GP);
	area = guest_area();
	area->header.xcomp_bv = 1; /* neither format */
	assert_fault(restore(), VEC_GP);
	area->header.xcomp_bv = XCOMP_COMPACT | XCR0_X87;
	assert_true(restore());
	area->header.xstate_bv = XCR0_SSE; /* not in XCOMP_BV */
	assert_fault(restore(), VEC_GP);
	area->header.xcomp_bv = XCOMP_COMPACT | BIT(62);
	area->header.xstate_bv = 0;
	assert_fault(restore(), VEC_GP);
}

static void test_supervisor_forms(void **state)
{
	struct xsave_area *area = guest_area();
	assert_fault(xstate_restore(&vcpu, true, AREA, ~0ull, true), VEC_GP);
	area->header.xcomp_bv = XCOMP_COMPACT;
	assert_true(xstate_restore(&vcpu, true, AREA, ~0ull, true));
	assert_true(xstate_save(&vcpu, XSAVE_SUPERVISOR, AREA, XCR0_X87, true));
	assert_int_equal(area->header.xcomp_bv, XCOMP_COMPACT | XCR0_X87);
	vcpu.cpl = 3;
	assert_fault(xstate_save(&vcpu, XSAVE_SUPERVISOR, AREA, ~0ull, true), VEC_GP);
	assert_fault(xstate_restore(&vcpu, true, AREA, ~0ull, true), VEC_GP);
}

static void test_mxcsr(void **state)
{
	struct xsave_area *area = guest_area();
	u32 value;
	area->legacy.mxcsr = 0x80000000;
	assert_fault(restore(), VEC_GP);
	assert_fault(xstate_fxrstor(&vcpu, AREA, true), VEC_GP);
	assert_fault(xstate_ldmxcsr(&vcpu, 0x80000000), VEC_GP);
	assert_true(xstate_ldmxcsr(&vcpu, 0x1f00));
	assert_true(xstate_stmxcsr(&vcpu, &value));
	assert_int_equal(value, 0x1f00);
	/* In the compacted format MXCSR comes and goes with the SSE component. */
	area->header.xcomp_bv = XCOMP_COMPACT | XCR0_SSE;
	assert_true(restore());
	assert_int_equal(image()->legacy.mxcsr, MXCSR_INIT);
	assert_true(xstate_ldmxcsr(&vcpu, 0x1f00));
	assert_true(xstate_save(&vcpu, XSAVE_COMPACT, AREA, XCR0_SSE, true));
	assert_int_equal(area->header.xstate_bv, XCR0_SSE);
	assert_int_equal(area->legacy.mxcsr, 0x1f00);
}

static void test_nothing_changes_on_a_fault(void **state)
{
	random_state();
	struct xsave_area ours = *image();
	random_area((void *)(memory + AREA), false);
	((struct xsave_area *)(memory + AREA))->legacy.mxcsr = ~0u;
	assert_fault(xstate_restore(&vcpu, false, AREA, XCR0_X87 | XCR0_SSE, true), VEC_GP);
	assert_memory_equal(image(), &ours, sizeof(ours));
}

static void test_alignment_and_availability(void **state)
{
	guest_area();
	assert_fault(xstate_save(&vcpu, XSAVE_PLAIN, AREA + 32, ~0ull, true), VEC_GP);
	assert_fault(xstate_restore(&vcpu, false, AREA + 8, ~0ull, true), VEC_GP);
	assert_fault(xstate_fxsave(&vcpu, AREA + 8, true), VEC_GP);
	assert_fault(xstate_fxsave(&vcpu, 0x7fffffffff00, true), VEC_GP); /* runs into the hole */
	vcpu.cr0 |= CR0_TS;
	assert_fault(restore(), VEC_NM);
	assert_fault(xstate_fxsave(&vcpu, AREA + 8, true), VEC_NM);
	vcpu.cr4 &= ~CR4_OSXSAVE;
	assert_fault(restore(), VEC_UD);
	vcpu.cr0 = CR0_PE | CR0_EM;
	assert_fault(xstate_fxsave(&vcpu, AREA, true), VEC_UD);
}

static void test_classes(void **state)
{
	const u64 both = CR4_OSFXSR | CR4_OSXSAVE;
	const struct {
		u64 cr0, cr4, xcr0;
		enum xstate_class class;
		int vector; /* or -1 */
	} cases[] = {
		{ 0, both, 7, XSTATE_X87, -1 },
		{ CR0_EM, both, 7, XSTATE_X87, VEC_NM },
		{ CR0_TS, both, 7, XSTATE_X87, VEC_NM },
		{ CR0_TS, both, 7, XSTATE_FWAIT, -1 },
		{ CR0_TS | CR0_MP, both, 7, XSTATE_FWAIT, VEC_NM },
		{ CR0_EM, both, 7, XSTATE_FWAIT, -1 },
		{ CR0_EM | CR0_TS, both, 7, XSTATE_MMX, VEC_UD },
		{ CR0_TS, both, 7, XSTATE_MMX, VEC_NM },
		{ 0, CR4_OSXSAVE, 7, XSTATE_SSE, VEC_UD },
		{ CR0_EM, both, 7, XSTATE_SSE, VEC_UD },
		{ 0, both, 1, XSTATE_SSE, -1 },
		{ CR0_TS, both, 7, XSTATE_SSE, VEC_NM },
		{ 0, CR4_OSFXSR, 7, XSTATE_AVX, VEC_UD },
		{ 0, both, 3, XSTATE_AVX, VEC_UD },
		{ CR0_EM, both, 7, XSTATE_AVX, -1 },
		{ CR0_TS, both, 7, XSTATE_AVX, VEC_NM },
		{ 0, both, 7, XSTATE_AVX512, VEC_UD },
		{ 0, both, 0xe7, XSTATE_AVX512, -1 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		vcpu.cr0 = cases[i].cr0;
		vcpu.cr4 = cases[i].cr4;
		vcpu.xcr0 = cases[i].xcr0;
		bool ok = xstate_check(&vcpu, cases[i].class);
		int vector = ok ? -1 : vcpu.fault.vector;
		if (vector != cases[i].vector)
			fail_msg("case %u: vector %d, expected %d", i, vector, cases[i].vector);
	}
}

/* Outside 64-bit mode the upper eight registers are neither written nor read, and not initialized either. */
static void test_upper_registers_outside_64bit_mode(void **state)
{
	struct xsave_area *area = guest_area();
	memset(image()->legacy.xmm, 0x11, 256);
	image()->header.xstate_bv = XCR0_X87 | XCR0_SSE;
	vcpu.seg[SEG_CS].attr = SEG_ATTR_DB;
	assert_true(xstate_fxsave(&vcpu, AREA, false));
	assert_int_equal(area->legacy.xmm[7][15], 0x11);
	assert_int_equal(area->legacy.xmm[8][0], 0);
	memset(area->legacy.xmm, 0x22, 256);
	assert_true(xstate_fxrstor(&vcpu, AREA, false));
	assert_int_equal(image()->legacy.xmm[7][15], 0x22);
	assert_int_equal(image()->legacy.xmm[8][0], 0x11);
	assert_true(xstate_restore(&vcpu, false, AREA, XCR0_SSE, false)); /* XSTATE_BV is 0: initialize */
	assert_int_equal(image()->legacy.xmm[7][15], 0);
	assert_int_equal(image()->legacy.xmm[8][0], 0x11);
	assert_true(image()->header.xstate_bv & XCR0_SSE);
}

static void test_fast_fxsave(void **state)
{
	struct xsave_area *area = guest_area();
	memset(image()->legacy.xmm, 0x11, 256);
	image()->header.xstate_bv = XCR0_X87 | XCR0_SSE;
	vcpu.efer |= EFER_FFXSR;
	assert_true(xstate_fxsave(&vcpu, AREA, true));
	assert_int_equal(area->legacy.xmm[0][0], 0);
	assert_int_equal(area->legacy.mxcsr, MXCSR_INIT);
	vcpu.cpl = 3;
	assert_true(xstate_fxsave(&vcpu, AREA, true));
	assert_int_equal(area->legacy.xmm[0][0], 0x11);
}

static void test_reset_values(void **state)
{
	xstate_reset(&vcpu);
	assert_true(xstate_fxsave(&vcpu, AREA, true));
	struct fxsave_area *area = (void *)(memory + AREA);
	assert_int_equal(area->fcw, 0x40);
	assert_int_equal(area->ftw, 0xff);
	assert_int_equal(area->mxcsr, 0x1f80);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_restore_like_the_processor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_save_like_the_processor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_header_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_supervisor_forms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mxcsr, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nothing_changes_on_a_fault, setup, teardown),
		cmocka_unit_test_setup_teardown(test_alignment_and_availability, setup, teardown),
		cmocka_unit_test_setup_teardown(test_classes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_upper_registers_outside_64bit_mode, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fast_fxsave, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reset_values, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
