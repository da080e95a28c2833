/* Delivery of exceptions and interrupts in every mode, and IRET in all its forms, each fault with its error code. */
#include "cpu_machine.h"

#include "cpu/event.h"

#define HANDLER 0x6000u

static int setup(void **state)
{
	return machine_create("EPYC");
}

static int teardown(void **state)
{
	machine_destroy();
	return 0;
}

static void assert_frame(gpa_t sp, const u64 *frame, unsigned count, unsigned size)
{
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(get(sp + i * size, size), frame[i] & size_mask(size));
}

/* ---- 64-bit ---- */

static void long_from_user(void **state)
{
	machine_long(3);
	set_idt64(14, CODE64_0, 0xffffffff81000000, 0x8e, 0);
	vcpu.rflags |= RFLAGS_IF | RFLAGS_TF | RFLAGS_AC;
	vcpu.gpr[RSP] = 0x9ff3;
	vcpu.fault = (struct guest_fault){ .vector = 14, .has_error = true, .error = 6, .payload = 0xdeadbeef };
	assert_true(event_deliver_fault(&vcpu));
	const u64 frame[] = { 6, 0x7000, CODE64_3 | 3, 0x50302, 0x9ff3, DATA3 | 3 };
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 48);
	assert_frame(STACK_IN - 48, frame, 6, 8);
	assert_int_equal(vcpu.rip, 0xffffffff81000000);
	assert_int_equal(vcpu.cpl, 0);
	assert_int_equal(vcpu.seg[SEG_CS].selector, CODE64_0);
	assert_int_equal(vcpu.seg[SEG_SS].selector, 0);
	assert_true(vcpu.seg[SEG_SS].attr & SEG_ATTR_UNUSABLE);
	assert_int_equal(vcpu.rflags, RFLAGS_FIXED1 | RFLAGS_AC);
	assert_int_equal(vcpu.cr2, 0xdeadbeef);
	assert_true(event_iret(&vcpu, 8) == false); /* the error code is still there */
	vcpu.gpr[RSP] += 8;
	assert_true(event_iret(&vcpu, 8));
	assert_int_equal(vcpu.next_rip, 0x7000);
	assert_int_equal(vcpu.cpl, 3);
	assert_int_equal(vcpu.gpr[RSP], 0x9ff3);
	assert_int_equal(vcpu.rflags, 0x50302);
	assert_int_equal(vcpu.seg[SEG_SS].selector, DATA3 | 3);
}

static void long_same_level(void **state)
{
	machine_long(0);
	set_idt64(32, CODE64_0, HANDLER, 0x8e, 0);
	set_idt64(2, CODE64_0, HANDLER, 0x8e, 1);
	vcpu.rflags |= RFLAGS_IF;
	vcpu.gpr[RSP] = STACK_IN - 3;
	vcpu.shadow = SHADOW_STI;
	vcpu.activity = ACTIVITY_HLT;
	assert_true(event_deliver(&vcpu, 32, EVENT_EXTERNAL));
	const u64 frame[] = { 0x7000, CODE64_0, 0x202, STACK_IN - 3, DATA0 };
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 16 - 40);
	assert_frame(STACK_IN - 16 - 40, frame, 5, 8);
	assert_int_equal(vcpu.seg[SEG_SS].selector, DATA0);
	assert_int_equal(vcpu.shadow, 0);
	assert_int_equal(vcpu.activity, ACTIVITY_ACTIVE);
	assert_false(vcpu.nmi_blocked);
	assert_true(event_deliver(&vcpu, 2, EVENT_NMI));
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 0x2000 - 40);
	assert_true(vcpu.nmi_blocked);
	assert_true(event_iret(&vcpu, 8));
	assert_false(vcpu.nmi_blocked);
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 16 - 40);
	/* A faulting IRET unblocks NMIs, too. */
	vcpu.nmi_blocked = true;
	put(vcpu.gpr[RSP] + 8, BEYOND, 8);
	assert_false(event_iret(&vcpu, 8));
	assert_int_equal(vcpu.fault.error, BEYOND);
	assert_false(vcpu.nmi_blocked);
}

struct gate_case {
	const char *name;
	u16 selector;
	u64 offset;
	u32 attr, ist;
	enum event_kind kind;
	struct expect expect;
};

static void long_faults(void **state)
{
	static const struct gate_case cases[] = {
		{ "good", CODE64_0, HANDLER, 0xee, 0, EVENT_SOFTWARE, SUCCESS },
		{ "conforming", CONFORMING64, HANDLER, 0xee, 0, EVENT_SOFTWARE, SUCCESS },
		{ "gate DPL", CODE64_0, HANDLER, 0x8e, 0, EVENT_SOFTWARE, { VEC_GP, 0x40 * 8 + 2 } },
		{ "gate DPL INT3", CODE64_0, HANDLER, 0x8e, 0, EVENT_SOFTWARE_EXCEPTION, { VEC_GP, 0x40 * 8 + 2 } },
		{ "gate DPL INT1", CODE64_0, HANDLER, 0x8e, 0, EVENT_PRIVILEGED_SOFTWARE, SUCCESS },
		{ "gate absent", CODE64_0, HANDLER, 0x6e, 0, EVENT_SOFTWARE, { VEC_NP, 0x40 * 8 + 2 } },
		{ "gate absent INT1", CODE64_0, HANDLER, 0x6e, 0, EVENT_PRIVILEGED_SOFTWARE, { VEC_NP, 0x40 * 8 + 3 } },
		{ "16-bit gate", CODE64_0, HANDLER, 0xe6, 0, EVENT_SOFTWARE, { VEC_GP, 0x40 * 8 + 2 } },
		{ "task gate", TSS_FREE, HANDLER, 0xe5, 0, EVENT_SOFTWARE, { VEC_GP, 0x40 * 8 + 2 } },
		{ "null CS", 0, HANDLER, 0xee, 0, EVENT_SOFTWARE, { VEC_GP, 0 } },
		{ "32-bit CS", CODE0, HANDLER, 0xee, 0, EVENT_SOFTWARE, { VEC_GP, CODE0 } },
		{ "L and D", CODE_LD, HANDLER, 0xee, 0, EVENT_SOFTWARE, { VEC_GP, CODE_LD } },
		{ "data CS", DATA0, HANDLER, 0xee, 0, EVENT_SOFTWARE, { VEC_GP, DATA0 } },
		{ "CS beyond", BEYOND, HANDLER, 0xee, 0, EVENT_SOFTWARE, { VEC_GP, BEYOND } },
		{ "RIP", CODE64_0, 0x800000000000, 0xee, 0, EVENT_SOFTWARE, { VEC_GP, 0 } },
		{ "RIP EXT", CODE64_0, 0x800000000000, 0xee, 0, EVENT_PRIVILEGED_SOFTWARE, { VEC_GP, 1 } },
		{ "IST beyond the TSS", CODE64_0, HANDLER, 0xee, 7, EVENT_SOFTWARE, { VEC_TS, TSS_NOW } },
		{ "IST non-canonical", CODE64_0, HANDLER, 0xee, 2, EVENT_SOFTWARE, { VEC_SS, 0 } },
		{ "IST unmapped", CODE64_0, HANDLER, 0xee, 3, EVENT_SOFTWARE, { VEC_PF, PF_WR } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct gate_case *c = &cases[i];
		struct snapshot before;
		machine_long(3);
		vcpu.tr.limit = 28 + 7 * 8 + 6;
		put(TSS + 28 + 16, 0x900000000000, 8);
		put(TSS + 28 + 24, UNMAPPED + 0x100, 8);
		set_idt64(0x40, c->selector, c->offset, c->attr, c->ist);
		snapshot_take(&before);
		assert_outcome(event_software_interrupt(&vcpu, 0x40, c->kind), c->expect, &before, c->name);
		if (c->expect.vector < 0)
			assert_int_equal(vcpu.next_rip, HANDLER);
		if (c->expect.vector == VEC_PF)
			assert_int_equal(vcpu.fault.payload, UNMAPPED + 0xf8);
	}
	vcpu.idtr.limit = 0x40 * 16 + 14;
	assert_false(event_software_interrupt(&vcpu, 0x40, EVENT_SOFTWARE));
	assert_int_equal(vcpu.fault.error, 0x40 * 8 + 2);
}

/* Compatibility mode to a 64-bit handler on a stack above 4 GBytes, and back. */
static void long_from_compatibility(void **state)
{
	machine_long(3);
	put(PAGE_TABLES + 511 * 8, (PAGE_TABLES + 0x1000) | PTE_P | PTE_W, 8);
	put(TSS + 4, 0xffffff8000000000 | STACK_IN, 8);
	set_segment(SEG_CS, CODE3 | 3);
	set_segment(SEG_DS, DATA3 | 3);
	set_idt64(0x80, CODE64_0, HANDLER, 0xee, 0);
	assert_true(event_software_interrupt(&vcpu, 0x80, EVENT_SOFTWARE));
	assert_int_equal(vcpu.gpr[RSP], (0xffffff8000000000 | STACK_IN) - 40);
	const u64 frame[] = { 0x7002, CODE3 | 3, 2, STACK_OUT, DATA3 | 3 };
	assert_frame(STACK_IN - 40, frame, 5, 8);
	assert_true(event_iret(&vcpu, 8));
	assert_int_equal(vcpu_code_bits(&vcpu), 32);
	assert_int_equal(vcpu.next_rip, 0x7002);
	assert_int_equal(vcpu.seg[SEG_DS].selector, DATA3 | 3);
}

static void iret_long_faults(void **state)
{
	static const struct {
		const char *name;
		u64 rip;
		u16 cs, ss;
		struct expect expect;
	} cases[] = {
		{ "out", 0x7000, CODE64_3 | 3, DATA3 | 3, SUCCESS },
		{ "same, null SS", 0x7000, CODE64_0, 0, SUCCESS },
		{ "out to 32", 0x7000, CODE3 | 3, DATA3 | 3, SUCCESS },
		{ "out, null SS", 0x7000, CODE64_3 | 3, 3, { VEC_GP, 0 } },
		{ "32-bit, null SS", 0x7000, CODE0, 0, { VEC_GP, 0 } },
		{ "null CS", 0x7000, 0, DATA3 | 3, { VEC_GP, 0 } },
		{ "RIP", 0x800000000000, CODE64_3 | 3, DATA3 | 3, { VEC_GP, 0 } },
		{ "EIP beyond 32 bits", 0x100000000, CODE3 | 3, DATA3 | 3, { VEC_GP, 0 } },
		{ "CS DPL", 0x7000, CODE64_0 | 3, DATA3 | 3, { VEC_GP, CODE64_0 } },
		{ "CS L and D", 0x7000, CODE_LD, 0, { VEC_GP, CODE_LD } },
		{ "CS absent", 0x7000, CODE_NP, DATA0, { VEC_NP, CODE_NP } },
		{ "SS RPL", 0x7000, CODE64_3 | 3, DATA3, { VEC_GP, DATA3 } },
		{ "SS read-only", 0x7000, CODE64_3 | 3, READ_ONLY | 3, { VEC_GP, READ_ONLY } },
		{ "SS absent", 0x7000, CODE64_0, DATA_NP, { VEC_SS, DATA_NP } },
		{ "SS beyond", 0x7000, CODE64_0, BEYOND, { VEC_GP, BEYOND } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot before;
		machine_long(0);
		vcpu.gpr[RSP] -= 40;
		const u64 frame[] = { cases[i].rip, cases[i].cs, 0x202, STACK_OUT, cases[i].ss };
		for (unsigned j = 0; j < 5; j++)
			put(STACK_IN - 40 + j * 8, frame[j], 8);
		snapshot_take(&before);
		assert_outcome(event_iret(&vcpu, 8), cases[i].expect, &before, cases[i].name);
		if (cases[i].expect.vector < 0)
			assert_int_equal(vcpu.gpr[RSP], STACK_OUT);
	}
	machine_long(0);
	vcpu.rflags |= RFLAGS_NT;
	assert_false(event_iret(&vcpu, 8));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
}

/* ---- protected mode ---- */

static void protected_inner(void **state)
{
	static const struct {
		u32 attr;
		unsigned size;
	} gates[] = { { 0xee, 4 }, { 0xef, 4 }, { 0xe6, 2 }, { 0xe7, 2 } };
	for (unsigned i = 0; i < ARRAY_SIZE(gates); i++) {
		const unsigned size = gates[i].size;
		machine_protected(3);
		set_idt(0x21, CODE0, HANDLER, gates[i].attr);
		vcpu.rflags |= RFLAGS_IF | RFLAGS_NT;
		assert_true(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE));
		const u64 frame[] = { 0x7002, CODE3 | 3, 0x4202, STACK_OUT, DATA3 | 3 };
		assert_int_equal(vcpu.gpr[RSP], STACK_IN - 5 * size);
		assert_frame(STACK_IN - 5 * size, frame, 5, size);
		assert_int_equal(vcpu.rflags, RFLAGS_FIXED1 | (gates[i].attr & 1 ? RFLAGS_IF : 0));
		assert_int_equal(vcpu.cpl, 0);
		assert_int_equal(vcpu.seg[SEG_SS].selector, DATA0);
		set_segment(SEG_DS, DATA0);
		assert_true(event_iret(&vcpu, size));
		assert_int_equal(vcpu.rflags, 0x4202);
		assert_int_equal(vcpu.gpr[RSP], STACK_OUT);
		assert_int_equal(vcpu.cpl, 3);
		/* DS was too privileged for level 3. */
		assert_int_equal(vcpu.seg[SEG_DS].selector, 0);
		assert_true(vcpu.seg[SEG_DS].attr & SEG_ATTR_UNUSABLE);
		assert_int_equal(vcpu.seg[SEG_ES].selector, DATA3 | 3);
	}
}

struct protected_case {
	const char *name;
	u16 cs, ss; /* of the gate; of the TSS for level 0 */
	u32 offset, attr;
	struct expect expect;
};

static void protected_faults(void **state)
{
	static const struct protected_case cases[] = {
		{ "good", CODE0, DATA0, HANDLER, 0xee, SUCCESS },
		{ "conforming", CONFORMING0, DATA0, HANDLER, 0xee, SUCCESS },
		{ "same level", CODE3, DATA0, HANDLER, 0xee, SUCCESS },
		{ "gate type", CODE0, DATA0, HANDLER, 0xec, { VEC_GP, 0x10a } },
		{ "gate DPL", CODE0, DATA0, HANDLER, 0x8e, { VEC_GP, 0x10a } },
		{ "gate absent", CODE0, DATA0, HANDLER, 0x6e, { VEC_NP, 0x10a } },
		{ "CS null", 0, DATA0, HANDLER, 0xee, { VEC_GP, 0 } },
		{ "CS beyond", BEYOND, DATA0, HANDLER, 0xee, { VEC_GP, BEYOND } },
		{ "CS data", DATA3, DATA0, HANDLER, 0xee, { VEC_GP, DATA3 } },
		{ "CS absent", CODE_NP, DATA0, HANDLER, 0xee, { VEC_NP, CODE_NP } },
		{ "EIP", SMALL_CODE, DATA0, HANDLER, 0xee, { VEC_GP, 0 } },
		{ "SS null", CODE0, 0, HANDLER, 0xee, { VEC_TS, 0 } },
		{ "SS beyond", CODE0, BEYOND, HANDLER, 0xee, { VEC_TS, BEYOND } },
		{ "SS RPL", CODE0, DATA0 | 3, HANDLER, 0xee, { VEC_TS, DATA0 } },
		{ "SS DPL", CODE0, DATA3, HANDLER, 0xee, { VEC_TS, DATA3 } },
		{ "SS code", CODE0, CODE0, HANDLER, 0xee, { VEC_TS, CODE0 } },
		{ "SS absent", CODE0, DATA_NP, HANDLER, 0xee, { VEC_SS, DATA_NP } },
		{ "SS room", CODE0, SMALL_STACK, HANDLER, 0xee, { VEC_SS, SMALL_STACK } },
		{ "TSS too short", CODE1, 0, HANDLER, 0xee, { VEC_TS, TSS_NOW } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct protected_case *c = &cases[i];
		struct snapshot before;
		machine_protected(3);
		vcpu.tr.limit = 16;
		put(TSS + 8, c->ss, 4);
		set_idt(0x21, c->cs, c->offset, c->attr);
		snapshot_take(&before);
		assert_outcome(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE), c->expect, &before, c->name);
		/* An external interrupt sets EXT: the nested fault is delivered instead, and has no handler. */
		if (c->expect.vector < 0)
			continue;
		bool dpl_only = c->attr == 0x8e;
		assert_int_equal(event_deliver(&vcpu, 0x21, EVENT_EXTERNAL), dpl_only);
		assert_int_equal(vcpu.activity, dpl_only ? ACTIVITY_ACTIVE : ACTIVITY_SHUTDOWN);
	}
}

/* EXT in the error code of a fault during delivery, seen on the stack of its handler. */
static void external_bit(void **state)
{
	machine_protected(0);
	set_idt(0x21, BEYOND, HANDLER, 0x8e);
	set_idt(VEC_GP, CODE0, HANDLER, 0x8e);
	assert_true(event_deliver(&vcpu, 0x21, EVENT_EXTERNAL));
	assert_int_equal(vcpu.rip, HANDLER);
	assert_int_equal(get(STACK_IN - 16, 4), BEYOND | 1);
	assert_int_equal(get(STACK_IN - 12, 4), 0x7000);
}

static void tss16_stack(void **state)
{
	machine_protected(3);
	vcpu.tr = (struct segment){ .selector = TSS16_FREE, .attr = 0x83, .limit = 0x2b, .base = TSS };
	put(TSS + 2, 0x7800, 2);
	put(TSS + 4, DATA0, 2);
	set_idt(0x21, CODE0, HANDLER, 0xee);
	assert_true(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE));
	assert_int_equal(vcpu.gpr[RSP], 0x7800 - 20);
	vcpu.cpl = 3;
	vcpu.tr.limit = 4;
	assert_false(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE));
	assert_int_equal(vcpu.fault.vector, VEC_TS);
	assert_int_equal(vcpu.fault.error, TSS16_FREE);
}

static void iret_flags(void **state)
{
	static const struct {
		u8 cpl, iopl;
		unsigned size;
		u64 expect;
	} cases[] = {
		{ 0, 0, 4, 0x3d7fd7 }, { 0, 0, 2, 0x7fd7 }, { 3, 0, 4, 0x254dd7 }, { 3, 3, 4, 0x257fd7 },
		{ 3, 0, 2, 0x4dd7 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const unsigned size = cases[i].size;
		machine_protected(cases[i].cpl);
		vcpu.rflags |= (u64)cases[i].iopl << RFLAGS_IOPL_SHIFT;
		vcpu.gpr[RSP] -= 3 * size;
		put(vcpu.gpr[RSP], 0x7abc, size);
		put(vcpu.gpr[RSP] + size, vcpu.seg[SEG_CS].selector, size);
		put(vcpu.gpr[RSP] + 2 * size, 0xfffdffff, size); /* all but VM */
		assert_true(event_iret(&vcpu, size));
		assert_int_equal(vcpu.rflags, cases[i].expect);
		assert_int_equal(vcpu.gpr[RSP], cases[i].cpl ? STACK_OUT : STACK_IN);
	}
}

static void iret_same_level_faults(void **state)
{
	static const struct {
		const char *name;
		u32 eip;
		u16 cs;
		struct expect expect;
	} cases[] = {
		{ "good", 0x7000, CODE0, SUCCESS },
		{ "null", 0x7000, 0, { VEC_GP, 0 } },
		{ "data", 0x7000, DATA0, { VEC_GP, DATA0 } },
		{ "DPL", 0x7000, CODE3, { VEC_GP, CODE3 } },
		{ "absent", 0x7000, CODE_NP, { VEC_NP, CODE_NP } },
		{ "limit", 0x7000, SMALL_CODE, { VEC_GP, 0 } },
		{ "outer stack", 0x7000, CODE3 | 3, { VEC_GP, 0 } }, /* SS is 0 beyond the top of the frame */
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot before;
		machine_protected(0);
		vcpu.gpr[RSP] = STACK_IN - 20;
		put(STACK_IN - 20, cases[i].eip, 4);
		put(STACK_IN - 16, cases[i].cs, 4);
		put(STACK_IN - 12, 2, 4);
		snapshot_take(&before);
		assert_outcome(event_iret(&vcpu, 4), cases[i].expect, &before, cases[i].name);
	}
	machine_protected(3);
	put(STACK_OUT, 0x7000, 4);
	put(STACK_OUT + 4, CODE0, 4);
	assert_false(event_iret(&vcpu, 4));
	assert_int_equal(vcpu.fault.error, CODE0);
}

/* ---- virtual-8086 mode ---- */

static void v86_round_trip(void **state)
{
	machine_v86(3);
	segment_set_real(&vcpu, SEG_DS, 0x1111);
	segment_set_real(&vcpu, SEG_ES, 0x2222);
	segment_set_real(&vcpu, SEG_FS, 0x3333);
	segment_set_real(&vcpu, SEG_GS, 0x4444);
	set_idt(0x21, CODE0, HANDLER, 0xee);
	assert_true(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE));
	const u64 frame[] = { 0x7002, 0, 0x23002, STACK_OUT, 0, 0x2222, 0x1111, 0x3333, 0x4444 };
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 36);
	assert_frame(STACK_IN - 36, frame, 9, 4);
	assert_false(vcpu_v86(&vcpu));
	assert_int_equal(vcpu.cpl, 0);
	assert_int_equal(vcpu.seg[SEG_DS].selector, 0);
	assert_true(vcpu.seg[SEG_GS].attr & SEG_ATTR_UNUSABLE);
	assert_true(event_iret(&vcpu, 4));
	assert_true(vcpu_v86(&vcpu));
	assert_int_equal(vcpu.cpl, 3);
	assert_int_equal(vcpu.seg[SEG_GS].base, 0x44440);
	assert_int_equal(vcpu.seg[SEG_GS].attr, 0xf3);
	assert_int_equal(vcpu.gpr[RSP], STACK_OUT);
	assert_int_equal(vcpu.next_rip, 0x7002);
}

static void v86_faults(void **state)
{
	static const struct {
		const char *name;
		unsigned iopl;
		u16 cs;
		enum event_kind kind;
		struct expect expect;
	} cases[] = {
		{ "INT n below IOPL 3", 0, CODE0, EVENT_SOFTWARE, { VEC_GP, 0 } },
		{ "INT3 below IOPL 3", 0, CODE0, EVENT_SOFTWARE_EXCEPTION, SUCCESS },
		{ "INT1 below IOPL 3", 0, CODE0, EVENT_PRIVILEGED_SOFTWARE, SUCCESS },
		{ "conforming", 3, CONFORMING0, EVENT_SOFTWARE, { VEC_GP, CONFORMING0 } },
		{ "level 1", 3, CODE1, EVENT_SOFTWARE, { VEC_GP, CODE1 } },
		{ "level 3", 3, CODE3, EVENT_SOFTWARE, { VEC_GP, CODE3 } },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot before;
		machine_v86(cases[i].iopl);
		set_idt(0x21, cases[i].cs, HANDLER, 0xee);
		snapshot_take(&before);
		bool ok = event_software_interrupt(&vcpu, 0x21, cases[i].kind);
		assert_outcome(ok, cases[i].expect, &before, cases[i].name);
	}
	machine_v86(0);
	assert_false(event_iret(&vcpu, 2));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
}

/* The redirection bitmap lies below the I/O map: here at offset 0x68 of the TSS. */
static void v86_redirection(void **state)
{
	for (unsigned iopl = 0; iopl < 4; iopl += 3) {
		machine_v86(iopl);
		vcpu.cr4 |= CR4_VME;
		vcpu.tr.limit = 0x68 + 32 + 32;
		put(TSS + 0x66, 0x68 + 32, 2);
		put(0x21 * 4, 0x0300 << 16 | 0x10, 4);
		vcpu.rflags |= iopl == 3 ? RFLAGS_IF : RFLAGS_VIF | RFLAGS_IF;
		assert_true(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE));
		assert_int_equal(vcpu.next_rip, 0x10);
		assert_int_equal(vcpu.seg[SEG_CS].base, 0x3000);
		assert_int_equal(vcpu.gpr[RSP], STACK_OUT - 6);
		assert_int_equal(get(STACK_OUT - 2, 2), 0x3202);
		assert_int_equal(vcpu.rflags & (RFLAGS_IF | RFLAGS_VIF), iopl == 3 ? 0 : RFLAGS_IF);
		assert_true(event_iret(&vcpu, 2));
		assert_int_equal(vcpu.rflags & (RFLAGS_IF | RFLAGS_VIF),
				 iopl == 3 ? RFLAGS_IF : RFLAGS_IF | RFLAGS_VIF);
		/* A set bit: to the protected-mode handler, or #GP below IOPL 3. */
		put(TSS + 0x68 + 0x21 / 8, 1 << 0x21 % 8, 1);
		set_idt(0x21, CODE0, HANDLER, 0xee);
		assert_int_equal(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE), iopl == 3);
	}
	machine_v86(0);
	vcpu.cr4 |= CR4_VME;
	vcpu.rflags |= RFLAGS_VIP;
	put(STACK_OUT + 4, RFLAGS_IF, 2);
	assert_false(event_iret(&vcpu, 2));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
}

/* ---- real mode ---- */

static void real_mode(void **state)
{
	struct snapshot before;
	machine_real();
	put(0x21 * 4, 0x1234 << 16 | 0x5678, 4);
	vcpu.rflags |= RFLAGS_IF | RFLAGS_TF | RFLAGS_AC;
	assert_true(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE));
	assert_int_equal(vcpu.next_rip, 0x5678);
	assert_int_equal(vcpu.seg[SEG_CS].base, 0x12340);
	assert_int_equal(vcpu.rflags, RFLAGS_FIXED1);
	const u64 frame[] = { 0x7002, 0, 0x302 };
	assert_frame(STACK_IN - 6, frame, 3, 2);
	assert_true(event_iret(&vcpu, 2));
	assert_int_equal(vcpu.rflags, 0x302);
	assert_int_equal(vcpu.seg[SEG_CS].selector, 0);
	vcpu.idtr.limit = 0x21 * 4 + 2;
	snapshot_take(&before);
	assert_outcome(event_software_interrupt(&vcpu, 0x21, EVENT_SOFTWARE), (struct expect){ VEC_GP, 0x10a }, &before, "IVT");
	/* No error code in real mode. */
	put(VEC_GP * 4, 0x10, 4);
	vcpu.gpr[RSP] = STACK_IN;
	assert_true(event_deliver_fault(&vcpu));
	assert_int_equal(vcpu.gpr[RSP], STACK_IN - 6);
	put(STACK_IN, 0x10000, 4);
	vcpu.gpr[RSP] = STACK_IN;
	assert_false(event_iret(&vcpu, 4));
	assert_int_equal(vcpu.fault.vector, VEC_GP);
}

/* ---- faults during delivery ---- */

static void double_faults(void **state)
{
	static const struct {
		u8 first;
		u16 cs; /* of its gate: decides the second fault */
		u8 handled;
		bool error_first;
	} cases[] = {
		{ VEC_UD, BEYOND, VEC_GP, false },
		{ VEC_GP, BEYOND, VEC_DF, true },
		{ VEC_PF, CODE_NP, VEC_DF, true },
		{ VEC_DE, BEYOND, VEC_DF, false },
		{ VEC_DB, CODE_NP, VEC_NP, false },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		machine_protected(0);
		for (unsigned v = 0; v < 32; v++)
			set_idt(v, CODE0, HANDLER + v, 0x8e);
		set_idt(cases[i].first, cases[i].cs, HANDLER, 0x8e);
		vcpu.fault = (struct guest_fault){ .vector = cases[i].first, .has_error = cases[i].error_first };
		assert_true(event_deliver_fault(&vcpu));
		assert_int_equal(vcpu.rip, HANDLER + cases[i].handled);
		if (cases[i].handled == VEC_DF)
			assert_int_equal(get(STACK_IN - 16, 4), 0);
		assert_false(vcpu.delivery.delivering);
	}
}

/* A page fault while a contributory exception is delivered is handled on its own; while a page fault is, it is a double fault. */
static void nested_page_faults(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		const u8 first = i ? VEC_PF : VEC_GP;
		machine_long(3);
		for (unsigned v = 0; v < 32; v++)
			set_idt64(v, CODE64_0, HANDLER + v, 0x8e, 1);
		set_idt64(first, CODE64_0, HANDLER, 0x8e, 0);
		put(TSS + 4, UNMAPPED + 0x1000, 8);
		vcpu.fault = (struct guest_fault){ .vector = first, .has_error = true, .payload = 0x1234 };
		assert_true(event_deliver_fault(&vcpu));
		assert_int_equal(vcpu.rip, HANDLER + (i ? VEC_DF : VEC_PF));
		assert_int_equal(vcpu.cr2, UNMAPPED + 0xff8);
	}
}

static void triple_fault(void **state)
{
	machine_protected(0);
	vcpu.idtr.limit = 0;
	vcpu.fault = (struct guest_fault){ .vector = VEC_UD };
	assert_false(event_deliver_fault(&vcpu));
	assert_int_equal(vcpu.activity, ACTIVITY_SHUTDOWN);
	assert_int_equal(vcpu.rip, 0x7000);
	assert_int_equal(vcpu.cpl, 0);
}

/* A software interrupt with a contributory vector is benign. */
static void software_is_benign(void **state)
{
	machine_protected(0);
	for (unsigned v = 0; v < 32; v++)
		set_idt(v, CODE0, HANDLER + v, 0x8e);
	set_idt(VEC_TS, CODE_NP, HANDLER, 0x8e);
	assert_false(event_software_interrupt(&vcpu, VEC_TS, EVENT_SOFTWARE));
	assert_true(event_deliver_fault(&vcpu));
	assert_int_equal(vcpu.rip, HANDLER + VEC_NP);
	assert_int_equal(get(STACK_IN - 16, 4), CODE_NP);
}

/* ---- debug exceptions ---- */

static void debug_exceptions(void **state)
{
	static const struct {
		u64 payload;
		bool trap, rf;
	} cases[] = { { DR6_B(1), false, false }, { DR6_BD, false, true }, { DR6_BS, true, false } };
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct guest_fault db = { .vector = VEC_DB, .payload = cases[i].payload };
		machine_protected(0);
		set_idt(VEC_DB, CODE0, HANDLER, 0x8e);
		vcpu.dr7 |= DR7_GD;
		vcpu.dr6 |= DR6_B(0) | DR6_BT;
		vcpu.fault = vcpu.trap = db;
		vcpu.pending = cases[i].trap ? PENDING_TRAP | PENDING_KICK : 0;
		assert_true(cases[i].trap ? event_deliver_trap(&vcpu) : event_deliver_fault(&vcpu));
		assert_int_equal(vcpu.dr6, DR6_FIXED1 | DR6_BT | cases[i].payload);
		assert_false(vcpu.dr7 & DR7_GD);
		assert_int_equal(get(STACK_IN - 4, 4) & RFLAGS_RF, cases[i].rf ? RFLAGS_RF : 0);
		assert_int_equal(vcpu.pending, cases[i].trap ? PENDING_KICK : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_from_user), cmocka_unit_test(long_same_level), cmocka_unit_test(long_faults),
		cmocka_unit_test(long_from_compatibility), cmocka_unit_test(iret_long_faults),
		cmocka_unit_test(protected_inner), cmocka_unit_test(protected_faults), cmocka_unit_test(external_bit),
		cmocka_unit_test(tss16_stack), cmocka_unit_test(iret_flags), cmocka_unit_test(iret_same_level_faults),
		cmocka_unit_test(v86_round_trip), cmocka_unit_test(v86_faults), cmocka_unit_test(v86_redirection),
		cmocka_unit_test(real_mode), cmocka_unit_test(double_faults), cmocka_unit_test(nested_page_faults),
		cmocka_unit_test(triple_fault), cmocka_unit_test(software_is_benign), cmocka_unit_test(debug_exceptions),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
