/* The hardware task switch: by JMP, CALL, IRET, task gates and events, between 16- and 32-bit TSSs, with the faults of the old task and
 * those that belong to the new one. */
#include "cpu_machine.h"

#include "cpu/event.h"
#include "cpu/transfer.h"

static int setup(void **state)
{
	return machine_create("EPYC");
}

static int teardown(void **state)
{
	machine_destroy();
	return 0;
}

struct new_task {
	u16 es, cs, ss, ds, fs, gs, ldt;
	u32 eip, eflags;
};

static const struct new_task ring0 = { DATA0, CODE0, DATA0, DATA0, 0, 0, LDT_SEL, 0x7700, 2 };
static const struct new_task ring3 = { DATA3 | 3, CODE3 | 3, DATA3 | 3, DATA3 | 3, DATA3 | 3, 3, 0, 0x7700, 0x202 };

static void put_task32(const struct new_task *t)
{
	const u16 seg[] = { t->es, t->cs, t->ss, t->ds, t->fs, t->gs };
	put(TSS_NEXT + 0x20, t->eip, 4);
	put(TSS_NEXT + 0x24, t->eflags, 4);
	for (unsigned i = 0; i < 8; i++)
		put(TSS_NEXT + 0x28 + i * 4, i == RSP ? STACK_OUT : 0xa0000000 + i, 4);
	for (unsigned i = 0; i < 6; i++)
		put(TSS_NEXT + 0x48 + i * 4, seg[i], 4);
	put(TSS_NEXT + 0x60, t->ldt, 4);
	put(TSS_NEXT + 0x64, 0, 4);
}

static void put_task16(const struct new_task *t)
{
	const u16 seg[] = { t->es, t->cs, t->ss, t->ds };
	put(TSS_NEXT + 0x0e, t->eip, 2);
	put(TSS_NEXT + 0x10, t->eflags, 2);
	for (unsigned i = 0; i < 8; i++)
		put(TSS_NEXT + 0x12 + i * 2, i == RSP ? STACK_OUT : 0xa000 + i, 2);
	for (unsigned i = 0; i < 4; i++)
		put(TSS_NEXT + 0x22 + i * 2, seg[i], 2);
	put(TSS_NEXT + 0x2a, t->ldt, 2);
}

static unsigned busy(u16 selector)
{
	return get(GDT + selector + 5, 1) >> 1 & 1;
}

static void start(const struct new_task *t)
{
	machine_protected(0);
	put_task32(t);
	vcpu.gpr[RAX] = 0x12345678;
	vcpu.gpr[RDI] = 0x87654321;
	vcpu.dr7 |= 0x3ff;
}

static void assert_saved(u64 eip, u64 eflags)
{
	assert_int_equal(get(TSS + 0x20, 4), eip);
	assert_int_equal(get(TSS + 0x24, 4), eflags);
	assert_int_equal(get(TSS + 0x28, 4), 0x12345678);
	assert_int_equal(get(TSS + 0x44, 4), 0x87654321);
	assert_int_equal(get(TSS + 0x38, 4), STACK_IN);
	assert_int_equal(get(TSS + 0x4c, 4), CODE0);
	assert_int_equal(get(TSS + 0x50, 4), DATA0);
}

static void jump(void **state)
{
	start(&ring3);
	assert_true(transfer_far_jump(&vcpu, TSS_FREE, 0, 4));
	assert_saved(0x7002, 2);
	assert_int_equal(busy(TSS_NOW), 0);
	assert_int_equal(busy(TSS_FREE), 1);
	assert_int_equal(vcpu.tr.selector, TSS_FREE);
	assert_int_equal(vcpu.tr.base, TSS_NEXT);
	assert_int_equal(vcpu.tr.attr & SEG_ATTR_TYPE, SYS_TSS_BUSY);
	assert_int_equal(vcpu.next_rip, 0x7700);
	assert_int_equal(vcpu.rflags, 0x202);
	assert_int_equal(vcpu.cpl, 3);
	assert_int_equal(vcpu.gpr[RAX], 0xa0000000);
	assert_int_equal(vcpu.gpr[RSP], STACK_OUT);
	assert_int_equal(vcpu.seg[SEG_FS].attr, 0xc0f3);
	assert_true(vcpu.seg[SEG_GS].attr & SEG_ATTR_UNUSABLE);
	assert_true(vcpu.ldtr.attr & SEG_ATTR_UNUSABLE);
	assert_true(vcpu.cr0 & CR0_TS);
	assert_int_equal(vcpu.dr7, DR7_FIXED1 | 0x2aa);
	assert_int_equal(get(TSS_NEXT, 2), 0);
}

static void call_and_return(void **state)
{
	start(&ring0);
	assert_true(transfer_far_call(&vcpu, TASK_GATE, 0, 4));
	assert_saved(0x7002, 2);
	assert_int_equal(busy(TSS_NOW), 1);
	assert_int_equal(busy(TSS_FREE), 1);
	assert_int_equal(get(TSS_NEXT, 2), TSS_NOW);
	assert_int_equal(vcpu.rflags, RFLAGS_FIXED1 | RFLAGS_NT);
	assert_int_equal(vcpu.ldtr.selector, LDT_SEL);
	vcpu.rip = 0x7700;
	vcpu.next_rip = 0x7701;
	assert_true(event_iret(&vcpu, 4));
	assert_int_equal(vcpu.next_rip, 0x7002);
	assert_int_equal(vcpu.tr.selector, TSS_NOW);
	assert_int_equal(busy(TSS_NOW), 1);
	assert_int_equal(busy(TSS_FREE), 0);
	assert_int_equal(get(TSS_NEXT + 0x20, 4), 0x7701);
	assert_int_equal(get(TSS_NEXT + 0x24, 4), 2);
	assert_int_equal(vcpu.gpr[RAX], 0x12345678);
	assert_int_equal(vcpu.rflags, RFLAGS_FIXED1);
}

static void sixteen_bits(void **state)
{
	start(&ring0);
	put_task16(&ring0);
	assert_true(transfer_far_jump(&vcpu, TSS16_FREE, 0, 4));
	assert_saved(0x7002, 2);
	assert_int_equal(vcpu.next_rip, 0x7700);
	assert_int_equal(vcpu.gpr[RDI] & 0xffff, 0xa007);
	assert_int_equal(vcpu.ldtr.selector, LDT_SEL);
	assert_true(vcpu.seg[SEG_FS].attr & SEG_ATTR_UNUSABLE);
	vcpu.gpr[RAX] = 0xbeef;
	vcpu.next_rip = 0x7711;
	put(TSS + 0x24, 2, 4);
	assert_true(transfer_far_jump(&vcpu, TSS_NOW, 0, 4));
	assert_int_equal(get(TSS_NEXT + 0x0e, 2), 0x7711);
	assert_int_equal(get(TSS_NEXT + 0x12, 2), 0xbeef);
	assert_int_equal(get(TSS_NEXT + 0x24, 2), CODE0);
	assert_int_equal(get(TSS_NEXT + 0x2a, 2), LDT_SEL);
	assert_int_equal(vcpu.next_rip, 0x7002);
}

static void event_with_error_code(void **state)
{
	start(&ring0);
	set_idt(VEC_DF, TSS_FREE, 0, 0x85);
	vcpu.fault = (struct guest_fault){ .vector = VEC_DF, .has_error = true, .error = 0 };
	put(STACK_OUT - 4, 0xffffffff, 4);
	assert_true(event_deliver_fault(&vcpu));
	assert_saved(0x7000, 2);
	assert_int_equal(vcpu.rip, 0x7700);
	assert_int_equal(vcpu.gpr[RSP], STACK_OUT - 4);
	assert_int_equal(get(STACK_OUT - 4, 4), 0);
	assert_int_equal(vcpu.rflags, RFLAGS_FIXED1 | RFLAGS_NT);
	/* A fault saves RF in the old task, and its flags stay in the vCPU if the switch fails. */
	start(&ring0);
	set_idt(VEC_GP, TSS_FREE, 0, 0x85);
	vcpu.fault = (struct guest_fault){ .vector = VEC_GP, .has_error = true, .error = 0x50 };
	assert_true(event_deliver_fault(&vcpu));
	assert_saved(0x7000, 2 | RFLAGS_RF);
	assert_int_equal(get(STACK_OUT - 4, 4), 0x50);
}

static void v86_task(void **state)
{
	const struct new_task v86 = { 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0, 0x100, 0x23202 };
	start(&v86);
	assert_true(transfer_far_jump(&vcpu, TSS_FREE, 0, 4));
	assert_true(vcpu_v86(&vcpu));
	assert_int_equal(vcpu.cpl, 3);
	assert_int_equal(vcpu.seg[SEG_CS].base, 0x20000);
	assert_int_equal(vcpu.seg[SEG_GS].limit, 0xffff);
	assert_int_equal(vcpu.next_rip, 0x100);
}

static void trap_flag(void **state)
{
	start(&ring0);
	put(TSS_NEXT + 0x64, 1, 2);
	assert_true(transfer_far_jump(&vcpu, TSS_FREE, 0, 4));
	assert_int_equal(vcpu.pending, PENDING_TRAP);
	assert_int_equal(vcpu.trap.vector, VEC_DB);
	assert_int_equal(vcpu.trap.payload, DR6_BT);
}

/* Paging is on: the new task's CR3 is used, and its tables decide. */
static void page_directory(void **state)
{
	start(&ring0);
	put(PAGE_TABLES, PTE_P | PTE_W | PTE_U | PTE_PS, 8);
	put(PAGE_TABLES + 0x1000, PTE_P | PTE_W | PTE_U | PTE_PS, 8);
	vcpu.cr0 |= CR0_PG;
	vcpu.cr4 |= CR4_PSE;
	vcpu.cr3 = PAGE_TABLES;
	mmu_load_cr3(&vcpu, false);
	put(TSS_NEXT + 0x1c, PAGE_TABLES + 0x1000, 4);
	assert_true(transfer_far_jump(&vcpu, TSS_FREE, 0, 4));
	assert_int_equal(vcpu.cr3, PAGE_TABLES + 0x1000);
	/* A TSS that is not mapped faults in the old task. */
	struct snapshot before;
	set_gdt(TSS_NOW, make_descriptor(0x400000, 0x67, 0x89));
	snapshot_take(&before);
	assert_outcome(transfer_far_jump(&vcpu, TSS_NOW, 0, 4), (struct expect){ VEC_PF, 0 }, &before, "unmapped TSS");
	assert_int_equal(busy(TSS_NOW), 0);
}

struct fault_case {
	const char *name;
	struct new_task task;
	struct expect expect;
};

/* Faults past the point of no return: the new task has its registers, and the return address is its EIP. */
static void new_task_faults(void **state)
{
	static const struct fault_case cases[] = {
		{ "LDT in LDT", { DATA0, CODE0, DATA0, DATA0, 0, 0, 0x0c, 0x7700, 2 }, { VEC_TS, 0x0c } },
		{ "LDT type", { DATA0, CODE0, DATA0, DATA0, 0, 0, CODE0, 0x7700, 2 }, { VEC_TS, CODE0 } },
		{ "LDT absent", { DATA0, CODE0, DATA0, DATA0, 0, 0, LDT_NP, 0x7700, 2 }, { VEC_TS, LDT_NP } },
		{ "CS null", { DATA0, 0, DATA0, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_TS, 0 } },
		{ "CS data", { DATA0, DATA0, DATA0, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_TS, DATA0 } },
		{ "CS DPL", { DATA0, CODE0 | 3, DATA0, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_TS, CODE0 } },
		{ "CS absent", { DATA0, CODE_NP, DATA0, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_NP, CODE_NP } },
		{ "SS null", { DATA0, CODE0, 0, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_TS, 0 } },
		{ "SS RPL", { DATA0, CODE0, DATA0 | 3, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_TS, DATA0 } },
		{ "SS absent", { DATA0, CODE0, DATA_NP, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_SS, DATA_NP } },
		{ "DS beyond", { DATA0, CODE0, DATA0, BEYOND, 0, 0, 0, 0x7700, 2 }, { VEC_TS, BEYOND } },
		{ "DS privileged", { 0, CODE3 | 3, DATA3 | 3, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_TS, DATA0 } },
		{ "GS absent", { DATA0, CODE0, DATA0, DATA0, 0, DATA_NP, 0, 0x7700, 2 }, { VEC_NP, DATA_NP } },
		{ "EIP", { DATA0, SMALL_CODE, DATA0, DATA0, 0, 0, 0, 0x7700, 2 }, { VEC_GP, 0 } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		start(&cases[i].task);
		bool ok = transfer_far_call(&vcpu, TSS_FREE, 0, 4);
		assert_outcome(ok, cases[i].expect, NULL, cases[i].name);
		assert_int_equal(vcpu.tr.selector, TSS_FREE);
		assert_int_equal(vcpu.rip, 0x7700);
		assert_int_equal(vcpu.gpr[RAX], 0xa0000000);
		assert_saved(0x7002, 2);
	}
}

static void return_faults(void **state)
{
	static const struct {
		const char *name;
		u16 link;
		struct expect expect;
	} cases[] = {
		{ "null", 0, { VEC_TS, 0 } },
		{ "LDT", 0x0c, { VEC_TS, 0x0c } },
		{ "beyond", BEYOND, { VEC_TS, BEYOND } },
		{ "not busy", TSS_FREE, { VEC_TS, TSS_FREE } },
		{ "code", CODE0, { VEC_TS, CODE0 } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot before;
		start(&ring0);
		put(TSS, cases[i].link, 2);
		vcpu.rflags |= RFLAGS_NT;
		snapshot_take(&before);
		assert_outcome(event_iret(&vcpu, 4), cases[i].expect, &before, cases[i].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jump), cmocka_unit_test(call_and_return), cmocka_unit_test(sixteen_bits),
		cmocka_unit_test(event_with_error_code), cmocka_unit_test(v86_task), cmocka_unit_test(trap_flag),
		cmocka_unit_test(page_directory), cmocka_unit_test(new_task_faults), cmocka_unit_test(return_faults),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
