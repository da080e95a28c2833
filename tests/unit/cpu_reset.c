/* Registers after RESET and after INIT, and a mode switch up to long mode and back through the rules alone. */
#include "small_vm.h"

#include "cpu/control.h"
#include "cpu/cpuid.h"

static int setup(void **state)
{
	char error[256];
	struct small_vm *vm = small_vm_create();
	struct cpuid_policy *policy = cpuid_policy_create("host", 1, host_tsc_hz(), error, sizeof(error));
	assert_non_null(policy);
	cpuid_apply(&vm->vcpu, policy);
	*state = vm;
	return 0;
}

static int teardown(void **state)
{
	struct small_vm *vm = *state;
	struct cpuid_policy *policy = (struct cpuid_policy *)vm->vcpu.cpuid;
	small_vm_destroy(vm);
	host_free(policy);
	return 0;
}

/* Make everything that a reset sets differ from what it sets. */
static void scramble(struct vcpu *v)
{
	memset(v->gpr, 0xee, sizeof(v->gpr));
	memset(v->seg, 0xee, sizeof(v->seg));
	memset(&v->ldtr, 0xee, sizeof(v->ldtr));
	memset(&v->tr, 0xee, sizeof(v->tr));
	memset(&v->gdtr, 0xee, sizeof(v->gdtr));
	memset(&v->idtr, 0xee, sizeof(v->idtr));
	memset(v->dr, 0xee, sizeof(v->dr));
	memset(v->pdpte, 0xee, sizeof(v->pdpte));
	memset(&v->msr, 0xee, sizeof(v->msr));
	v->rip = v->next_rip = v->cr2 = v->cr3 = v->dr6 = v->dr7 = 0x1234567;
	v->rflags = ~0ull;
	v->cr0 = CR0_PE | CR0_PG | CR0_WP | CR0_CD;
	v->cr4 = CR4_PAE | CR4_PCIDE | CR4_SMAP;
	v->efer = EFER_LME | EFER_LMA;
	v->xcr0 = XCR0_X87 | XCR0_SSE;
	v->tsc_adjust = 0x100;
	v->tsc_offset = 0x1500;
	v->cpl = 3;
	v->shadow = SHADOW_STI;
	v->nmi_blocked = true;
	v->activity = ACTIVITY_SHUTDOWN;
	v->pending = PENDING_NMI | PENDING_TRAP | PENDING_KICK;
}

static void check_segments(const struct vcpu *v)
{
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		bool code = i == SEG_CS;
		assert_int_equal(v->seg[i].selector, code ? 0xf000 : 0);
		assert_int_equal(v->seg[i].base, code ? 0xffff0000 : 0);
		assert_int_equal(v->seg[i].limit, 0xffff);
		assert_int_equal(v->seg[i].attr, code ? 0x9b : 0x93);
	}
	assert_int_equal(v->ldtr.attr, 0x82);
	assert_int_equal(v->tr.attr, 0x8b);
	assert_int_equal(v->ldtr.limit, 0xffff);
	assert_int_equal(v->tr.limit, 0xffff);
	assert_int_equal(v->tr.base | v->ldtr.base | v->gdtr.base | v->idtr.base, 0);
	assert_int_equal(v->gdtr.limit, 0xffff);
	assert_int_equal(v->idtr.limit, 0xffff);
}

static void check_common(struct vcpu *v)
{
	u32 eax, ebx, ecx, edx;
	cpuid_answer(v, 1, 0, &eax, &ebx, &ecx, &edx);
	check_segments(v);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		assert_int_equal(v->gpr[i], i == RDX ? eax : 0);
	assert_int_equal(v->rip, 0xfff0);
	assert_int_equal(v->rflags, 2);
	assert_int_equal(v->cr2 | v->cr3 | v->cr4 | v->efer, 0);
	assert_int_equal(v->dr[0] | v->dr[1] | v->dr[2] | v->dr[3], 0);
	assert_int_equal(v->dr6, 0xffff0ff0);
	assert_int_equal(v->dr7, 0x400);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->shadow, 0);
	assert_false(v->nmi_blocked);
	assert_int_equal(v->activity, ACTIVITY_ACTIVE);
	assert_int_equal(v->pending, PENDING_KICK);
	assert_int_equal(v->mmu->view, VIEW_SUPERVISOR);
}

static void reset(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	scramble(v);
	cpu_reset(v, false);
	check_common(v);
	assert_int_equal(v->cr0, 0x60000010);
	assert_int_equal(v->xcr0, 1);
	assert_int_equal(v->tsc_adjust, 0);
	assert_int_equal(v->tsc_offset, 0x1400);
	assert_int_equal(v->msr.pat, 0x0007040600070406);
	assert_int_equal(v->msr.lstar | v->msr.kernel_gs_base | v->msr.sysenter_eip, 0);
}

static void init(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	scramble(v);
	v->xsave[0] = 0x5a;
	cpu_reset(v, true);
	check_common(v);
	assert_int_equal(v->cr0, CR0_CD | CR0_ET);
	assert_int_equal(v->xcr0, 3);
	assert_int_equal(v->tsc_adjust, 0x100);
	assert_int_equal(v->msr.pat, 0xeeeeeeeeeeeeeeee);
	assert_int_equal(v->xsave[0], 0x5a);
}

/* Translations made before a reset are gone. */
static void reset_flushes(void **state)
{
	struct small_vm *vm = *state;
	struct translation t;
	cpu_reset(&vm->vcpu, false);
	paging_enable(vm, PAGING_4LEVEL, 0, 0);
	map_page(vm, PAGING_4LEVEL, 0x5000, 0x9000 | PTE_P | PTE_W);
	assert_true(mmu_translate(&vm->vcpu, 0x5000, ACCESS_READ, &t));
	assert_int_equal(t.gpa, 0x9000);
	cpu_reset(&vm->vcpu, true);
	assert_true(mmu_translate(&vm->vcpu, 0x5000, ACCESS_READ, &t));
	assert_int_equal(t.gpa, 0x5000);
}

/* The way Linux's boot code and its way out go. */
static void to_long_mode_and_back(void **state)
{
	struct small_vm *vm = *state;
	struct vcpu *v = &vm->vcpu;
	cpu_reset(v, false);
	assert_true(control_write_cr(v, 0, CR0_PE));
	assert_true(control_write_cr(v, 4, CR4_PAE | CR4_PGE));
	assert_true(control_write_cr(v, 3, TABLE_BASE));
	assert_true(control_write_efer(v, EFER_LME | EFER_SCE | EFER_NXE));
	map_page(vm, PAGING_4LEVEL, 0x5000, 0x9000 | PTE_P | PTE_W);
	assert_true(control_write_cr(v, 0, CR0_PE | CR0_PG | CR0_WP));
	assert_true(vcpu_long_mode(v));
	gpa_t gpa;
	assert_true(mmu_debug_translate(v, 0x5123, &gpa));
	assert_int_equal(gpa, 0x9123);
	assert_true(control_write_cr(v, 0, CR0_PE));
	assert_false(vcpu_long_mode(v));
	assert_true(control_write_efer(v, 0));
	assert_true(control_write_cr(v, 4, 0));
	assert_true(control_write_cr(v, 0, 0));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reset),
		TEST(init),
		TEST(reset_flushes),
		TEST(to_long_mode_and_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
