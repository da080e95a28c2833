/* Faults during the delivery of faults: which combinations become #DF, which are handled one after the other, and what
 * #DF's handler gets. Intel SDM volume 3, "Interrupt 8—Double Fault Exception (#DF)". In 64-bit guests #DF has an IST
 * stack, in 32-bit ones a task. */
#include "lib/window.h"

#define ABSENT_SELECTOR SEL_FREE
#define QEMU_EXT "TCG does not set EXT in error codes during the delivery of an exception"

CODE(divide, "xor %ebx, %ebx\n div %ebx");
CODE(undefined, "ud2");
CODE(page_fault, "mov (" R "bx), %eax");
CODE(general, "mov %ebx, %ds");
#ifndef __x86_64__
CODE(exhaust, "mov " R "bx, " R "sp\n push " R "ax");
#endif
CODE(breakpoint, "int3");
CODE(nothing, "nop");

static u64 saved[32][2];

static void break_gate(unsigned vector)
{
	memcpy(saved[vector], &idt[vector], sizeof(idt[0]));
	idt[vector].low &= ~(1ull << 47);
}

static void mend_gate(unsigned vector)
{
	memcpy(&idt[vector], saved[vector], sizeof(idt[0]));
}

/* The gate's target is absent or no code: #NP or #GP with the selector, instead of the gate's own index. */
static void bend_gate(unsigned vector, u16 selector)
{
	memcpy(saved[vector], &idt[vector], sizeof(idt[0]));
	idt[vector].low = (idt[vector].low & ~0xffff0000ull) | (u64)selector << 16;
}

static struct state provoke(const void *code, unsigned cpl, ulong bx)
{
	struct state s = state_at(code, cpl);
	s.bx = bx;
	run(&s);
	return s;
}

#define CHECK_DF(s, code, own_cs)                                                                                      \
	CHECK((s).vector == VEC_DF && (s).error == 0 && (s).cs == (own_cs) && (s).ip >= (ulong)(code) &&               \
	      (s).ip < (ulong)code##_end)

/* ---- The table: first exception's class against the second's ---- */

static void benign_then_contributory(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		break_gate(VEC_UD);
		struct state s = provoke(undefined, cpl, 0);
		mend_gate(VEC_UD);
		CHECK_FAULT_BUT_QEMU(s, VEC_NP, VEC_UD * 8 + 3, undefined, QEMU_EXT);
		break_gate(VEC_BP);
		s = provoke(breakpoint, cpl, 0);
		mend_gate(VEC_BP);
		CHECK_EQ(s.vector, VEC_NP);
		CHECK_BUT_QEMU(s.error == VEC_BP * 8 + 2,
			       "TCG's error code in long mode"); /* INT3 is software's: EXT clear */
	}
}

static void contributory_then_contributory(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		break_gate(VEC_DE);
		struct state s = provoke(divide, cpl, 0);
		CHECK_DF(s, divide, selector_code(cpl));
		mend_gate(VEC_DE);
		break_gate(VEC_GP);
		s = provoke(general, cpl, 0xfff8);
		CHECK_DF(s, general, selector_code(cpl));
		mend_gate(VEC_GP);
		bend_gate(VEC_GP, SEL_DATA);
		s = provoke(general, cpl, 0xfff8);
		CHECK_DF(s, general, selector_code(cpl));
		mend_gate(VEC_GP);
		gdt_set(ABSENT_SELECTOR, gdt[(selector_code(0) & ~7u) / 8] & ~(1ull << 47));
		bend_gate(VEC_DE, ABSENT_SELECTOR);
		s = provoke(divide, cpl, 0);
		CHECK_DF(s, divide, selector_code(cpl));
		mend_gate(VEC_DE);
	}
}

static void page_fault_then(void)
{
	window_map(0, NULL, 0);
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		break_gate(VEC_PF); /* then contributory */
		struct state s = provoke(page_fault, cpl, (ulong)window);
		CHECK_DF(s, page_fault, selector_code(cpl));
		mend_gate(VEC_PF);
		CHECK_EQ(read_cr2(), (ulong)window);
	}
}

/* An exception whose handler's stack is not there: #PF during its delivery; if the first was a #PF or contributory. */
#ifdef __x86_64__
static void stack_is_absent(void)
{
	static const struct {
		const void *code;
		unsigned vector, second;
	} cases[] = { { page_fault, VEC_PF, VEC_DF },
		      { undefined, VEC_UD, VEC_PF },
		      { divide, VEC_DE, VEC_PF },
		      { general, VEC_GP, VEC_PF } };
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		tss.ist[3] = (ulong)window + PAGE;
		memcpy(saved[cases[i].vector], &idt[cases[i].vector], sizeof(idt[0]));
		idt[cases[i].vector].low = (idt[cases[i].vector].low & ~(7ull << 32)) | 4ull << 32;
		struct state s = provoke(cases[i].code, 3, i ? 0xfff8 : (ulong)window);
		mend_gate(cases[i].vector);
		CHECK_EQ(s.vector, cases[i].second); /* #PF after a contributory one is a plain #PF */
		if (s.vector == VEC_PF)
			CHECK(s.cr2 == (ulong)window + PAGE - 8 && s.error == PF_W);
		CHECK_EQ(s.cs, selector_code(3));
	}
}
#else
static void stack_is_absent(void)
{
	/* Without IST every handler uses the one absent stack: #PF, and another in its delivery. */
	run_stack0 = (ulong)window + PAGE;
	struct state s = provoke(undefined, 3, 0);
	CHECK_DF(s, undefined, selector_code(3));
	s = provoke(page_fault, 3, (ulong)window);
	CHECK_DF(s, page_fault, selector_code(3));
	run_stack0 = 0;
	/* The kernel's own stack runs out: a push faults, and so does the frame of that fault. */
	s = state_at(exhaust, 0);
	s.bx = (ulong)window + PAGE;
	run(&s);
	CHECK_DF(s, exhaust, SEL_CODE32);
	CHECK_EQ(s.sp, (ulong)window + PAGE);
}
#endif

/* #DF's frame: the instruction that began it all. A #DF whose own handler works leaves the machine usable. */
static void afterwards(void)
{
	struct state s = run_code(nothing, 3);
	CHECK_END(s, nothing);
	for (unsigned i = 0; i < 20; i++) {
		break_gate(VEC_DE);
		s = provoke(divide, i & 3, 0);
		CHECK_DF(s, divide, selector_code(i & 3));
		mend_gate(VEC_DE);
	}
	s = provoke(divide, 3, 0);
	CHECK_EQ(s.vector, VEC_DE);
}

void guest_main(void)
{
	window_init();
	benign_then_contributory();
	contributory_then_contributory();
	page_fault_then();
	stack_is_absent();
	afterwards();
}
