/* Far JMP, CALL and RET with call gates, SYSCALL, SYSRET, SYSENTER and SYSEXIT (B4); and random tables and transfers, after which a
 * vCPU that faulted must be what it was. */
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

/* ---- far transfers ---- */

struct far_case {
	const char *name;
	u8 cpl;
	u16 selector;
	u64 offset;
	struct expect jump, call;
};

static void check_far(const struct far_case *c, void (*mode)(u8 cpl), unsigned size)
{
	for (unsigned call = 0; call < 2; call++) {
		struct snapshot before;
		mode(c->cpl);
		snapshot_take(&before);
		bool ok = (call ? transfer_far_call : transfer_far_jump)(&vcpu, c->selector, c->offset, size);
		assert_outcome(ok, call ? c->call : c->jump, &before, c->name);
	}
}

static void far_protected(void **state)
{
	static const struct far_case cases[] = {
		{ "direct", 3, CODE3 | 3, 0x7000, SUCCESS, SUCCESS },
		{ "null", 3, 3, 0, { VEC_GP, 0 }, { VEC_GP, 0 } },
		{ "beyond", 3, BEYOND | 3, 0, { VEC_GP, BEYOND }, { VEC_GP, BEYOND } },
		{ "data", 3, DATA3 | 3, 0, { VEC_GP, DATA3 }, { VEC_GP, DATA3 } },
		{ "more privileged", 3, CODE0 | 3, 0, { VEC_GP, CODE0 }, { VEC_GP, CODE0 } },
		{ "less privileged", 0, CODE3, 0, { VEC_GP, CODE3 }, { VEC_GP, CODE3 } },
		{ "RPL", 0, CODE0 | 3, 0, { VEC_GP, CODE0 }, { VEC_GP, CODE0 } },
		{ "conforming", 3, CONFORMING0, 0x7000, SUCCESS, SUCCESS },
		{ "absent", 0, CODE_NP, 0, { VEC_NP, CODE_NP }, { VEC_NP, CODE_NP } },
		{ "limit", 0, SMALL_CODE, 0x1000, { VEC_GP, 0 }, { VEC_GP, 0 } },
		{ "LDT", 0, LDT_SEL, 0, { VEC_GP, LDT_SEL }, { VEC_GP, LDT_SEL } },
		{ "gate", 0, CALL_GATE, 0, SUCCESS, SUCCESS },
		{ "gate inwards", 3, CALL_GATE | 3, 0, { VEC_GP, CODE0 }, SUCCESS },
		{ "gate DPL", 3, GATE_NP, 0, { VEC_NP, GATE_NP }, { VEC_NP, GATE_NP } },
		{ "gate to null", 0, GATE_NULL, 0, { VEC_GP, 0 }, { VEC_GP, 0 } },
		{ "gate to data", 0, GATE_BAD, 0, { VEC_GP, DATA0 }, { VEC_GP, DATA0 } },
		{ "TSS DPL", 3, TSS_FREE | 3, 0, { VEC_GP, TSS_FREE }, { VEC_GP, TSS_FREE } },
		{ "TSS busy", 0, TSS_NOW, 0, { VEC_GP, TSS_NOW }, { VEC_GP, TSS_NOW } },
		{ "TSS absent", 0, TSS_NP, 0, { VEC_NP, TSS_NP }, { VEC_NP, TSS_NP } },
		{ "TSS short", 0, TSS_SHORT, 0, { VEC_TS, TSS_SHORT }, { VEC_TS, TSS_SHORT } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		check_far(&cases[i], machine_protected, 4);
}

static void far_long(void **state)
{
	static const struct far_case cases[] = {
		{ "direct", 0, CODE64_0, 0x7000, SUCCESS, SUCCESS },
		{ "to 32-bit", 3, CODE3 | 3, 0x7000, SUCCESS, SUCCESS },
		{ "non-canonical", 0, CODE64_0, 0x800000000000, { VEC_GP, 0 }, { VEC_GP, 0 } },
		{ "32-bit limit", 0, CODE0, 0x100000000, { VEC_GP, 0 }, { VEC_GP, 0 } },
		{ "L and D", 0, CODE_LD, 0x7000, { VEC_GP, CODE_LD }, { VEC_GP, CODE_LD } },
		{ "gate", 0, CALL_GATE, 0, SUCCESS, SUCCESS },
		{ "gate inwards", 3, CALL_GATE | 3, 0, { VEC_GP, CODE64_0 }, SUCCESS },
		{ "16-bit gate", 0, CALL_GATE16, 0, { VEC_GP, CALL_GATE16 }, { VEC_GP, CALL_GATE16 } },
		{ "task gate", 0, TASK_GATE, 0, { VEC_GP, TASK_GATE }, { VEC_GP, TASK_GATE } },
		{ "TSS", 0, TSS_FREE, 0, { VEC_GP, TSS_FREE }, { VEC_GP, TSS_FREE } },
		{ "gate to null", 0, GATE_NULL, 0, { VEC_GP, 0 }, { VEC_GP, 0 } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		check_far(&cases[i], machine_long, 8);
	machine_long(0);
	set_gdt(CALL_GATE, make_gate(CODE0, 0x1234, 0xec, 0));
	assert_false(transfer_far_call(&vcpu, CALL_GATE, 0, 8));
	assert_int_equal(vcpu.fault.error, CODE0);
	machine_long(0);
	put(GDT + CALL_GATE + 8, 0x1f0000000000, 8);
	assert_false(transfer_far_call(&vcpu, CALL_GATE, 0, 8));
	assert_int_equal(vcpu.fault.error, CALL_GATE);
}

/* Two parameters are copied to the inner stack; RETF 8 drops them from both. */
static void call_gate_round_trip(void **state)
{
	static const struct {
		u16 gate;
		unsigned size;
	} gates[] = { { CALL_GATE, 4 }, { CALL_GATE16, 2 } };
	for (unsigned i = 0; i < ARRAY_SIZE(gates); i++) {
		const unsigned size = gates[i].size;
		machine_protected(3);
		assert_true(cpu_push(&vcpu, 0x1111, size));
		assert_true(cpu_push(&vcpu, 0x2222, size));
		assert_true(transfer_far_call(&vcpu, gates[i].gate | 3, 0xffff, 4));
		assert_int_equal(vcpu.next_rip, 0x1234);
		assert_int_equal(vcpu.cpl, 0);
		assert_int_equal(vcpu.seg[SEG_CS].selector, CODE0);
		assert_int_equal(vcpu.seg[SEG_SS].selector, DATA0);
		const u64 frame[] = { 0x7002, CODE3 | 3, 0x2222, 0x1111, STACK_OUT - 2 * size, DATA3 | 3 };
		assert_int_equal(vcpu.gpr[RSP], STACK_IN - 6 * size);
		for (unsigned j = 0; j < 6; j++)
			assert_int_equal(get(STACK_IN - 6 * size + j * size, size), frame[j]);
		assert_true(transfer_far_return(&vcpu, size, 2 * size));
		assert_int_equal(vcpu.next_rip, 0x7002);
		assert_int_equal(vcpu.cpl, 3);
		assert_int_equal(vcpu.gpr[RSP], STACK_OUT);
		assert_int_equal(vcpu.seg[SEG_SS].selector, DATA3 | 3);
	}
}

static void call_gate_long(void **state)
{
	machine_long(3);
	assert_true(transfer_far_call(&vcpu, CALL_GATE | 3, 0, 4));
	assert_int_equal(vcpu.next_rip, 0x1234);
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 32);
	const u64 frame[] = { 0x7002, CODE64_3 | 3, STACK_OUT, DATA3 | 3 };
	for (unsigned j = 0; j < 4; j++)
		assert_int_equal(get(STACK_IN - 32 + j * 8, 8), frame[j]);
	assert_true(vcpu.seg[SEG_SS].attr & SEG_ATTR_UNUSABLE);
	assert_true(transfer_far_return(&vcpu, 8, 0));
	assert_int_equal(vcpu.cpl, 3);
	assert_int_equal(vcpu.gpr[RSP], STACK_OUT);
	/* From compatibility mode the gate leads to 64-bit code at the same level, too. */
	machine_long(0);
	set_segment(SEG_CS, CODE0);
	assert_true(transfer_far_call(&vcpu, CALL_GATE, 0, 4));
	assert_int_equal(vcpu_code_bits(&vcpu), 64);
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 16);
}

static void inner_stack_faults(void **state)
{
	static const struct {
		const char *name;
		u16 ss;
		struct expect expect;
	} cases[] = {
		{ "null", 0, { VEC_TS, 0 } },
		{ "RPL", DATA0 | 1, { VEC_TS, DATA0 } },
		{ "beyond", BEYOND, { VEC_TS, BEYOND } },
		{ "absent", DATA_NP, { VEC_SS, DATA_NP } },
		{ "room", SMALL_STACK, { VEC_SS, SMALL_STACK } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot before;
		machine_protected(3);
		put(TSS + 8, cases[i].ss, 4);
		snapshot_take(&before);
		bool ok = transfer_far_call(&vcpu, CALL_GATE | 3, 0, 4);
		assert_outcome(ok, cases[i].expect, &before, cases[i].name);
	}
}

static void return_faults(void **state)
{
	static const struct {
		const char *name;
		u8 cpl;
		u32 eip;
		u16 cs, ss;
		struct expect expect;
	} cases[] = {
		{ "same", 0, 0x7000, CODE0, 0, SUCCESS },
		{ "out", 0, 0x7000, CODE3 | 3, DATA3 | 3, SUCCESS },
		{ "in", 3, 0x7000, CODE0, 0, { VEC_GP, CODE0 } },
		{ "null", 0, 0x7000, 0, 0, { VEC_GP, 0 } },
		{ "beyond", 0, 0x7000, BEYOND, 0, { VEC_GP, BEYOND } },
		{ "data", 0, 0x7000, DATA0, 0, { VEC_GP, DATA0 } },
		{ "DPL", 0, 0x7000, CODE0 | 3, 0, { VEC_GP, CODE0 } },
		{ "absent", 0, 0x7000, CODE_NP, 0, { VEC_NP, CODE_NP } },
		{ "limit", 0, 0x7000, SMALL_CODE, 0, { VEC_GP, 0 } },
		{ "SS null", 0, 0x7000, CODE3 | 3, 3, { VEC_GP, 0 } },
		{ "SS DPL", 0, 0x7000, CODE3 | 3, DATA0 | 3, { VEC_GP, DATA0 } },
		{ "SS RPL", 0, 0x7000, CODE3 | 3, DATA3, { VEC_GP, DATA3 } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot before;
		machine_protected(cases[i].cpl);
		put(vcpu.gpr[RSP], cases[i].eip, 4);
		put(vcpu.gpr[RSP] + 4, cases[i].cs, 4);
		put(vcpu.gpr[RSP] + 16, 0x9000, 4);
		put(vcpu.gpr[RSP] + 20, cases[i].ss, 4);
		snapshot_take(&before);
		assert_outcome(transfer_far_return(&vcpu, 4, 8), cases[i].expect, &before, cases[i].name);
	}
}

static void far_real(void **state)
{
	machine_real();
	assert_true(transfer_far_call(&vcpu, 0x1000, 0x0010, 2));
	assert_int_equal(vcpu.seg[SEG_CS].base, 0x10000);
	assert_int_equal(vcpu.next_rip, 0x10);
	assert_int_equal(get(STACK_IN - 4, 2), 0x7002);
	assert_true(transfer_far_return(&vcpu, 2, 4));
	assert_int_equal(vcpu.next_rip, 0x7002);
	assert_int_equal(vcpu.gpr[RSP], STACK_IN + 4);
	assert_false(transfer_far_jump(&vcpu, 0, 0x10000, 4));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
}

/* ---- system calls ---- */

static void syscall_long(void **state)
{
	machine_long(3);
	vcpu.msr.star = (u64)0x13 << 48 | (u64)CODE64_0 << 32;
	vcpu.msr.lstar = 0xffffffff81000000;
	vcpu.msr.cstar = 0xffffffff82000000;
	vcpu.msr.fmask = RFLAGS_IF | RFLAGS_TF | RFLAGS_AC;
	vcpu.rflags |= RFLAGS_IF | RFLAGS_CF | RFLAGS_RF | RFLAGS_AC;
	assert_true(transfer_syscall(&vcpu));
	assert_int_equal(vcpu.gpr[RCX], 0x7002);
	assert_int_equal(vcpu.gpr[R11], 0x40203);
	assert_int_equal(vcpu.rflags, 3);
	assert_int_equal(vcpu.next_rip, 0xffffffff81000000);
	assert_int_equal(vcpu.cpl, 0);
	assert_int_equal(vcpu.seg[SEG_CS].selector, CODE64_0);
	assert_int_equal(vcpu.seg[SEG_CS].attr, 0xa09b);
	assert_int_equal(vcpu.seg[SEG_SS].selector, CODE64_0 + 8);
	assert_int_equal(vcpu.seg[SEG_SS].attr, 0xc093);
	vcpu.gpr[R11] = ~0ull;
	assert_true(transfer_sysret(&vcpu, true));
	assert_int_equal(vcpu.next_rip, 0x7002);
	assert_int_equal(vcpu.rflags, 0x3c7fd7);
	assert_int_equal(vcpu.cpl, 3);
	assert_int_equal(vcpu.seg[SEG_CS].selector, 0x23);
	assert_int_equal(vcpu.seg[SEG_CS].attr, 0xa0fb);
	assert_int_equal(vcpu.seg[SEG_SS].selector, 0x1b);
	assert_int_equal(vcpu.seg[SEG_SS].attr, 0xc0f3);
	/* AMD: from compatibility mode, too. */
	set_segment(SEG_CS, CODE3 | 3);
	assert_true(transfer_syscall(&vcpu));
	assert_int_equal(vcpu.next_rip, 0xffffffff82000000);
	assert_true(transfer_sysret(&vcpu, false));
	assert_int_equal(vcpu.seg[SEG_CS].selector, 0x13);
	assert_int_equal(vcpu.seg[SEG_CS].attr, 0xc0fb);
}

static void syscall_faults(void **state)
{
	machine_long(3);
	vcpu.efer &= ~EFER_SCE;
	assert_false(transfer_syscall(&vcpu));
	assert_int_equal(vcpu.fault.vector, VEC_UD);
	assert_false(transfer_sysret(&vcpu, true));
	assert_int_equal(vcpu.fault.vector, VEC_UD);
	vcpu.efer |= EFER_SCE;
	assert_false(transfer_sysret(&vcpu, true));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
	machine_long(0);
	vcpu.gpr[RCX] = 0x800000000000; /* AMD: the fetch at the target faults, in user mode */
	assert_true(transfer_sysret(&vcpu, true));
	assert_int_equal(vcpu.next_rip, 0x800000000000);
	assert_int_equal(vcpu.cpl, 3);
	assert_false(transfer_sysenter(&vcpu)); /* not in AMD's long mode */
	assert_int_equal(vcpu.fault.vector, VEC_UD);
}

static void sysenter_protected(void **state)
{
	machine_protected(3);
	vcpu.rflags |= RFLAGS_IF;
	assert_false(transfer_sysenter(&vcpu));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
	vcpu.msr.sysenter_cs = CODE0 | 3;
	vcpu.msr.sysenter_esp = 0x8888;
	vcpu.msr.sysenter_eip = 0x6666;
	assert_true(transfer_sysenter(&vcpu));
	assert_int_equal(vcpu.cpl, 0);
	assert_int_equal(vcpu.gpr[RSP], 0x8888);
	assert_int_equal(vcpu.next_rip, 0x6666);
	assert_int_equal(vcpu.seg[SEG_CS].attr, 0xc09b);
	assert_int_equal(vcpu.rflags, RFLAGS_FIXED1);
	vcpu.gpr[RCX] = 0x9999;
	vcpu.gpr[RDX] = 0x7777;
	assert_true(transfer_sysexit(&vcpu, false));
	assert_int_equal(vcpu.cpl, 3);
	assert_int_equal(vcpu.gpr[RSP], 0x9999);
	assert_int_equal(vcpu.next_rip, 0x7777);
	assert_int_equal(vcpu.seg[SEG_CS].selector, CODE0 + 16 + 3);
	assert_int_equal(vcpu.seg[SEG_SS].selector, CODE0 + 24 + 3);
	assert_false(transfer_sysexit(&vcpu, false));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
}

/* Intel: no SYSCALL outside 64-bit mode, but SYSENTER in long mode. */
static void intel_differs(void **state)
{
	machine_destroy();
	assert_int_equal(machine_create("Haswell"), 0);
	machine_long(3);
	set_segment(SEG_CS, CODE3 | 3);
	assert_false(transfer_syscall(&vcpu));
	assert_int_equal(vcpu.fault.vector, VEC_UD);
	vcpu.msr.sysenter_cs = CODE64_0;
	vcpu.msr.sysenter_eip = 0xffffffff81000000;
	assert_true(transfer_sysenter(&vcpu));
	assert_int_equal(vcpu_code_bits(&vcpu), 64);
	vcpu.gpr[RDX] = 0x800000000000;
	assert_false(transfer_sysexit(&vcpu, true));
	vcpu.gpr[RDX] = 0x7000;
	assert_true(transfer_sysexit(&vcpu, true));
	assert_int_equal(vcpu.seg[SEG_CS].selector, CODE64_0 + 32 + 3);
	machine_destroy();
	assert_int_equal(machine_create("EPYC"), 0);
}

/* ---- random tables ---- */

static u64 random_state = 0x9e3779b97f4a7c15;

static u64 random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * 0x2545f4914f6cdd1d;
}

/* Descriptors of random type that are mostly near enough to valid ones to get past the first check. */
static u64 random_descriptor(void)
{
	u64 r = random_next();
	u32 attr = (r & 0x7f) | (r >> 8 & 15 ? 0x80 : 0) | (r >> 12 & 0xf000);
	u32 base = r >> 20 & 3 ? (r >> 24 & 0x7ff0) : random_next();
	u32 limit = r >> 22 & 3 ? 0xffff : random_next() & 0xfffff;
	if (!(attr & SEG_ATTR_S) && (attr & 4))
		return make_gate(random_next() & 0xff, base, attr & 0xff, r >> 40 & 0x1f);
	return make_descriptor(base, limit, attr);
}

static void random_machine(void)
{
	u64 r = random_next();
	u8 cpl = r >> 8 & 1 ? 3 : 0;
	switch (r & 3) {
	case 0:
		machine_long(cpl);
		break;
	case 1:
		machine_v86(r >> 9 & 3);
		break;
	default:
		machine_protected(cpl);
		break;
	}
	for (unsigned i = 0; i < 40; i++)
		put(GDT + (random_next() & 0x1f8), random_descriptor(), 8);
	for (unsigned i = 0; i < 16; i++) {
		put(LDT + (random_next() & 0x18), random_descriptor(), 8);
		put(IDT + i * 8, random_descriptor(), 8);
		put(TSS + (random_next() & 0x66), random_next() & 0x7ffb, 2);
		put(TSS_NEXT + (random_next() & 0x66), random_next() & 0x7ffb, 2);
		put((vcpu.gpr[RSP] + (i & 7) * (1 << (r >> 12 & 3))) & 0xffff, random_next() & (i & 1 ? 0x1ff : ~0ull), 8);
	}
	vcpu.rflags |= random_next() & (RFLAGS_IF | RFLAGS_AC | RFLAGS_TF | (r >> 20 & 7 ? 0 : RFLAGS_NT));
	vcpu.tr.limit = r >> 24 & 3 ? 0xff : r >> 32 & 0x7f;
	vcpu.msr.star = random_next();
	vcpu.msr.sysenter_cs = random_next();
	if (!(r >> 28 & 7))
		vcpu.gpr[RSP] = random_next();
	if (!(r >> 36 & 7) && vcpu_long_mode(&vcpu))
		set_segment(SEG_CS, cpl ? CODE3 | 3 : CODE0);
	mmu_update_view(&vcpu);
}

static bool random_transfer(unsigned kind)
{
	static const u8 loadable[] = { SEG_ES, SEG_SS, SEG_DS, SEG_FS, SEG_GS };
	u64 r = random_next();
	u16 selector = r & (r >> 16 & 15 ? 0x1ff : 0xffff);
	unsigned size = 2u << (r >> 20 & (vcpu_64bit(&vcpu) ? 3 : 1));
	size = MIN(size, 8u);
	u64 offset = r >> 24 & 3 ? r >> 32 & 0xffff : random_next();
	switch (kind) {
	case 0:
		return segment_load(&vcpu, loadable[r >> 26 & 3], selector);
	case 1:
		return segment_load_ldt(&vcpu, selector);
	case 2:
		return segment_load_tr(&vcpu, selector);
	case 3:
		return transfer_far_jump(&vcpu, selector, offset, size);
	case 4:
		return transfer_far_call(&vcpu, selector, offset, size);
	case 5:
		return transfer_far_return(&vcpu, size, r >> 40);
	case 6:
		return event_iret(&vcpu, size);
	case 7:
		return event_software_interrupt(&vcpu, r >> 40 & 15, r >> 44 & 1 ? EVENT_SOFTWARE : EVENT_PRIVILEGED_SOFTWARE);
	case 8:
		return transfer_syscall(&vcpu);
	case 9:
		return transfer_sysret(&vcpu, r >> 40 & 1);
	case 10:
		return transfer_sysenter(&vcpu);
	case 11:
		return transfer_sysexit(&vcpu, r >> 40 & 1);
	default:
		return event_deliver(&vcpu, r >> 40 & 15, EVENT_EXTERNAL);
	}
}

#define KINDS 13
#define ROUNDS 200000

static void assert_consistent(unsigned kind)
{
	bool good = vcpu.cpl <= 3 && (vcpu.rflags & RFLAGS_FIXED1) && (!vcpu_v86(&vcpu) || vcpu.cpl == 3);
	/* The view is the one of CPL and AC. */
	u8 view = vcpu.mmu->view;
	mmu_update_view(&vcpu);
	if (!good || view != vcpu.mmu->view)
		fail_msg("kind %u, state of the random numbers %llx: inconsistent vCPU", kind, (unsigned long long)random_state);
}

static void random_tables(void **state)
{
	unsigned done[KINDS] = { 0 }, faulted[KINDS] = { 0 };
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct snapshot before;
		unsigned kind = i % KINDS;
		random_machine();
		u16 task = vcpu.tr.selector;
		snapshot_take(&before);
		bool ok = random_transfer(kind);
		assert_consistent(kind);
		(ok ? done : faulted)[kind]++;
		bool switched = vcpu.tr.selector != task || (vcpu.cr0 & CR0_TS);
		/* Events end in some handler or in shutdown; a task switch is not undone. */
		if (ok || switched || kind == KINDS - 1)
			continue;
		if (!snapshot_same(&before))
			fail_msg("kind %u, round %u: the fault (vector %u) changed the vCPU", kind, i, vcpu.fault.vector);
	}
	/* The test is worth something only if both outcomes were seen. */
	for (unsigned kind = 0; kind < KINDS; kind++)
		if (!done[kind] || !faulted[kind])
			fail_msg("kind %u: %u done, %u faulted", kind, done[kind], faulted[kind]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(far_protected), cmocka_unit_test(far_long), cmocka_unit_test(call_gate_round_trip),
		cmocka_unit_test(call_gate_long), cmocka_unit_test(inner_stack_faults), cmocka_unit_test(return_faults),
		cmocka_unit_test(far_real), cmocka_unit_test(syscall_long), cmocka_unit_test(syscall_faults),
		cmocka_unit_test(sysenter_protected), cmocka_unit_test(intel_differs), cmocka_unit_test(random_tables),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
