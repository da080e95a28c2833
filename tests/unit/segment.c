/* Segmentation: linear addresses with their limits and types, segment loads with every fault, LDTR and TR, LAR/LSL/VERR/VERW,
 * hidden descriptor state (B7), push and pop. */
#include "cpu_machine.h"

static int setup(void **state)
{
	return machine_create("EPYC");
}

static int teardown(void **state)
{
	machine_destroy();
	return 0;
}

struct linear_case {
	const char *name;
	u16 selector; /* of DS, or of SS where seg says so */
	enum segment_register seg;
	u64 offset;
	unsigned size, kind;
	struct expect expect;
	u64 gla;
};

static void linear_protected(void **state)
{
	static const struct linear_case cases[] = {
		{ "flat", DATA3, SEG_DS, 0x1000, 4, ACCESS_WRITE, SUCCESS, 0x1000 },
		{ "flat top", DATA3, SEG_DS, 0xfffffffc, 4, ACCESS_WRITE, SUCCESS, 0xfffffffc },
		{ "wrap", DATA3, SEG_DS, 0xfffffffd, 4, ACCESS_WRITE, { VEC_GP, 0 } },
		{ "base wraps", FRESH, SEG_DS, 0x50000000, 4, ACCESS_READ, SUCCESS, 0x62345678 },
		{ "limit", FRESH, SEG_DS, 0x54321ffc, 4, ACCESS_READ, SUCCESS, 0x66667674 },
		{ "beyond", FRESH, SEG_DS, 0x54321ffd, 4, ACCESS_READ, { VEC_GP, 0 } },
		{ "null", 0, SEG_DS, 0, 1, ACCESS_READ, { VEC_GP, 0 } },
		{ "read-only write", READ_ONLY, SEG_DS, 0, 1, ACCESS_WRITE, { VEC_GP, 0 } },
		{ "read-only read", READ_ONLY, SEG_DS, 0, 1, ACCESS_READ, SUCCESS, 0 },
		{ "code write", CODE3, SEG_DS, 0, 1, ACCESS_WRITE, { VEC_GP, 0 } },
		{ "execute-only read", EXEC_ONLY, SEG_DS, 0, 1, ACCESS_READ, { VEC_GP, 0 } },
		{ "expand-down inside", EXPAND_DOWN, SEG_DS, 0x1000, 4, ACCESS_READ, SUCCESS, 0x1000 },
		{ "expand-down below", EXPAND_DOWN, SEG_DS, 0xfff, 1, ACCESS_READ, { VEC_GP, 0 } },
		{ "stack", SMALL_STACK, SEG_SS, 7, 2, ACCESS_WRITE, { VEC_SS, 0 } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct linear_case *c = &cases[i];
		struct snapshot before;
		gla_t gla = 0;
		machine_protected(3);
		set_segment(c->seg, c->selector ? c->selector | 3 : 0);
		snapshot_take(&before);
		bool ok = segment_linear(&vcpu, c->seg, c->offset, c->size, c->kind, &gla);
		assert_outcome(ok, c->expect, &before, c->name);
		if (ok && gla != c->gla)
			fail_msg("%s: %llx", c->name, (unsigned long long)gla);
	}
}

static void linear_long(void **state)
{
	gla_t gla;
	machine_long(0);
	vcpu.seg[SEG_GS].base = 0xffff888000000000;
	vcpu.seg[SEG_DS].base = 0x1000;
	assert_true(segment_linear(&vcpu, SEG_GS, 0x10, 8, ACCESS_WRITE, &gla));
	assert_int_equal(gla, 0xffff888000000010);
	assert_true(segment_linear(&vcpu, SEG_DS, 0x10, 8, ACCESS_WRITE, &gla));
	assert_int_equal(gla, 0x10);
	assert_false(segment_linear(&vcpu, SEG_DS, 0x7ffffffffff9, 8, ACCESS_READ, &gla));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
	assert_false(segment_linear(&vcpu, SEG_SS, 0x800000000000, 8, ACCESS_READ, &gla));
	assert_int_equal(vcpu.fault.vector, VEC_SS);
}

/* Unreal mode: a real-mode load keeps the big limit. */
static void linear_real(void **state)
{
	gla_t gla;
	machine_real();
	assert_true(segment_load(&vcpu, SEG_DS, 0x1234));
	assert_true(segment_linear(&vcpu, SEG_DS, 0xffff, 1, ACCESS_WRITE, &gla));
	assert_int_equal(gla, 0x2233f);
	assert_false(segment_linear(&vcpu, SEG_DS, 0xffff, 2, ACCESS_WRITE, &gla));
	vcpu.seg[SEG_DS].limit = 0xffffffff;
	assert_true(segment_load(&vcpu, SEG_DS, 0x10));
	assert_true(segment_linear(&vcpu, SEG_DS, 0x100000, 4, ACCESS_WRITE, &gla));
	assert_int_equal(gla, 0x100100);
	machine_v86(3);
	vcpu.seg[SEG_DS].limit = 0xffffffff;
	assert_true(segment_load(&vcpu, SEG_DS, 0x10));
	assert_int_equal(vcpu.seg[SEG_DS].limit, 0xffff);
}

struct load_case {
	const char *name;
	u8 cpl;
	enum segment_register seg;
	u16 selector;
	struct expect expect;
};

static void load_faults(void **state)
{
	static const struct load_case cases[] = {
		{ "null DS", 3, SEG_DS, 3, SUCCESS },
		{ "null SS", 3, SEG_SS, 3, { VEC_GP, 0 } },
		{ "null SS level 0", 0, SEG_SS, 0, { VEC_GP, 0 } },
		{ "DS", 3, SEG_DS, DATA3 | 3, SUCCESS },
		{ "DS too privileged", 3, SEG_DS, DATA0 | 3, { VEC_GP, DATA0 } },
		{ "DS by RPL", 0, SEG_DS, DATA0 | 3, { VEC_GP, DATA0 } },
		{ "DS beyond", 3, SEG_DS, BEYOND | 3, { VEC_GP, BEYOND } },
		{ "DS not present", 0, SEG_DS, DATA_NP, { VEC_NP, DATA_NP } },
		{ "DS readable code", 3, SEG_DS, CODE3 | 3, SUCCESS },
		{ "DS conforming code", 3, SEG_DS, CONFORMING0 | 3, SUCCESS },
		{ "DS execute-only", 3, SEG_DS, EXEC_ONLY | 3, { VEC_GP, EXEC_ONLY } },
		{ "DS system", 0, SEG_DS, LDT_SEL, { VEC_GP, LDT_SEL } },
		{ "DS from LDT", 3, SEG_DS, LDT_DATA, SUCCESS },
		{ "DS beyond LDT", 3, SEG_DS, 0x2f, { VEC_GP, 0x2c } },
		{ "SS", 3, SEG_SS, DATA3 | 3, SUCCESS },
		{ "SS RPL", 3, SEG_SS, DATA3 | 2, { VEC_GP, DATA3 } },
		{ "SS DPL", 3, SEG_SS, DATA0 | 3, { VEC_GP, DATA0 } },
		{ "SS read-only", 3, SEG_SS, READ_ONLY | 3, { VEC_GP, READ_ONLY } },
		{ "SS code", 3, SEG_SS, CODE3 | 3, { VEC_GP, CODE3 } },
		{ "SS not present", 0, SEG_SS, DATA_NP, { VEC_SS, DATA_NP } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct load_case *c = &cases[i];
		struct snapshot before;
		machine_protected(c->cpl);
		snapshot_take(&before);
		assert_outcome(segment_load(&vcpu, c->seg, c->selector), c->expect, &before, c->name);
		if (c->expect.vector < 0)
			assert_int_equal(vcpu.seg[c->seg].selector, c->selector);
	}
}

/* B7: the hidden part is a copy; and loading sets the accessed bit, which needs no write if it is set. */
static void hidden_state(void **state)
{
	machine_protected(3);
	assert_true(segment_load(&vcpu, SEG_ES, FRESH | 3));
	assert_int_equal(vcpu.seg[SEG_ES].base, 0x12345678);
	assert_int_equal(vcpu.seg[SEG_ES].limit, 0x54321fff);
	assert_int_equal(vcpu.seg[SEG_ES].attr, 0xc0f3);
	assert_int_equal(get(GDT + FRESH + 5, 1), 0xf3);
	set_gdt(FRESH, 0);
	assert_int_equal(vcpu.seg[SEG_ES].base, 0x12345678);
	assert_false(segment_load(&vcpu, SEG_ES, FRESH | 3));
}

static void null_stack_long(void **state)
{
	machine_long(0);
	assert_true(segment_load(&vcpu, SEG_SS, 0));
	assert_true(vcpu.seg[SEG_SS].attr & SEG_ATTR_UNUSABLE);
	assert_false(segment_load(&vcpu, SEG_SS, 3));
	machine_long(3);
	assert_false(segment_load(&vcpu, SEG_SS, 3));
	assert_int_equal(vcpu.fault.error, 0);
}

static void ldt_and_tr(void **state)
{
	static const struct {
		const char *name;
		bool tr;
		u16 selector;
		struct expect expect;
	} cases[] = {
		{ "LDT", false, LDT_SEL, SUCCESS },
		{ "LDT null", false, 2, SUCCESS },
		{ "LDT in LDT", false, 4, { VEC_GP, 4 } },
		{ "LDT beyond", false, BEYOND, { VEC_GP, BEYOND } },
		{ "LDT type", false, TSS_FREE, { VEC_GP, TSS_FREE } },
		{ "LDT not present", false, LDT_NP, { VEC_NP, LDT_NP } },
		{ "TR", true, TSS_FREE, SUCCESS },
		{ "TR 16", true, TSS16_FREE, SUCCESS },
		{ "TR null", true, 3, { VEC_GP, 0 } },
		{ "TR in LDT", true, 0xc, { VEC_GP, 0xc } },
		{ "TR busy", true, TSS_NOW, { VEC_GP, TSS_NOW } },
		{ "TR type", true, LDT_SEL, { VEC_GP, LDT_SEL } },
		{ "TR not present", true, TSS_NP, { VEC_NP, TSS_NP } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot before;
		u16 s = cases[i].selector;
		machine_protected(0);
		snapshot_take(&before);
		bool ok = cases[i].tr ? segment_load_tr(&vcpu, s) : segment_load_ldt(&vcpu, s);
		assert_outcome(ok, cases[i].expect, &before, cases[i].name);
		if (ok && cases[i].tr)
			assert_int_equal(get(GDT + s + 5, 1) & 2, 2);
	}
}

static void ldt_and_tr_long(void **state)
{
	machine_long(0);
	put(GDT + TSS_FREE + 8, 0xffff8880, 8);
	assert_true(segment_load_tr(&vcpu, TSS_FREE));
	assert_int_equal(vcpu.tr.base, 0xffff888000000000 | TSS_NEXT);
	assert_int_equal(vcpu.tr.attr & SEG_ATTR_TYPE, SYS_TSS_BUSY);
	assert_false(segment_load_tr(&vcpu, TSS16_FREE));
	assert_int_equal(vcpu.fault.error, TSS16_FREE);
	put(GDT + LDT_SEL + 8, 0x1f0000000000, 8);
	assert_false(segment_load_ldt(&vcpu, LDT_SEL));
	put(GDT + LDT_SEL + 8, 0x8000, 8);
	assert_false(segment_load_ldt(&vcpu, LDT_SEL));
	assert_int_equal(vcpu.fault.error, LDT_SEL);
	put(GDT + LDT_SEL + 8, 0x7fff, 8);
	assert_true(segment_load_ldt(&vcpu, LDT_SEL));
}

static void queries(void **state)
{
	static const struct {
		u16 selector;
		u32 lar, lsl; /* 0: ZF clear */
		bool readable, writable;
	} cases[] = {
		{ CODE3, 0x00cffb00, 0xffffffff, true, false }, { DATA3, 0x00cff300, 0xffffffff, true, true },
		{ DATA0, 0, 0, false, false }, { READ_ONLY, 0x00cff000, 0xffffffff, true, false },
		{ EXEC_ONLY, 0x00cff800, 0xffffffff, false, false }, { CONFORMING0, 0x00cf9f00, 0xffffffff, true, false },
		{ CALL_GATE, 0x0000ec00, 0, false, false }, { TASK_GATE, 0x0000e500, 0, false, false },
		{ TSS_NOW, 0, 0, false, false }, { BEYOND, 0, 0, false, false }, { 0, 0, 0, false, false },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		u32 value = 0;
		bool ok;
		machine_protected(3);
		assert_true(segment_lar(&vcpu, cases[i].selector, &value, &ok));
		assert_int_equal(ok ? value : 0, cases[i].lar);
		assert_true(segment_lsl(&vcpu, cases[i].selector, &value, &ok));
		assert_int_equal(ok ? value : 0, cases[i].lsl);
		assert_true(segment_verify(&vcpu, cases[i].selector, false, &ok));
		assert_int_equal(ok, cases[i].readable);
		assert_true(segment_verify(&vcpu, cases[i].selector, true, &ok));
		assert_int_equal(ok, cases[i].writable);
	}
}

static void queries_long(void **state)
{
	u32 value;
	bool ok;
	machine_long(0);
	assert_true(segment_lsl(&vcpu, TSS_NOW, &value, &ok));
	assert_true(ok);
	assert_int_equal(value, 0x67);
	assert_true(segment_lar(&vcpu, TASK_GATE, &value, &ok));
	assert_false(ok);
	assert_true(segment_lar(&vcpu, TSS16_FREE, &value, &ok));
	assert_false(ok);
}

static void push_and_pop(void **state)
{
	u64 value = 0;
	machine_long(3);
	assert_true(cpu_push(&vcpu, 0x1122334455667788, 8));
	assert_true(cpu_push(&vcpu, 0xaabb, 2));
	assert_int_equal(vcpu.gpr[RSP], STACK_OUT - 10);
	assert_true(cpu_pop(&vcpu, &value, 2));
	assert_int_equal(value, 0xaabb);
	assert_true(cpu_pop(&vcpu, &value, 8));
	assert_int_equal(value, 0x1122334455667788);
	vcpu.gpr[RSP] = UNMAPPED + 0x1000;
	assert_false(cpu_push(&vcpu, 1, 8));
	assert_int_equal(vcpu.fault.vector, VEC_PF);
	assert_int_equal(vcpu.fault.payload, UNMAPPED + 0xff8);
	assert_int_equal(vcpu.gpr[RSP], UNMAPPED + 0x1000);
	machine_real();
	vcpu.gpr[RSP] = 0xdead0000;
	assert_true(cpu_push(&vcpu, 0x1234, 2));
	assert_int_equal(vcpu.gpr[RSP], 0xdeadfffe);
	assert_int_equal(get(0xfffe, 2), 0x1234);
	vcpu.gpr[RSP] = 1;
	assert_false(cpu_push(&vcpu, 0, 2));
	assert_int_equal(vcpu.fault.vector, VEC_SS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(linear_protected), cmocka_unit_test(linear_long), cmocka_unit_test(linear_real),
		cmocka_unit_test(load_faults), cmocka_unit_test(hidden_state), cmocka_unit_test(null_stack_long),
		cmocka_unit_test(ldt_and_tr), cmocka_unit_test(ldt_and_tr_long), cmocka_unit_test(queries),
		cmocka_unit_test(queries_long), cmocka_unit_test(push_and_pop),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
