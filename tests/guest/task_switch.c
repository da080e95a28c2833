/* Hardware task switches by JMP, CALL, IRET, interrupts and task gates, between 16- and 32-bit TSSs: what is saved and
 * loaded, busy bits, NT, the back link, CR0.TS, error codes on the new stack, and every check before and after the
 * switch. Intel SDM volume 3, "Task Management". */
#include "lib/guest.h"

#define TASK_SELECTOR SEL_FREE
#define TASK16_SELECTOR (SEL_FREE + 8)
#define GATE_SELECTOR (SEL_FREE + 16)
#define TEST_SELECTOR (SEL_FREE + 24)
#define LDT_SELECTOR (SEL_FREE + 32)
#define CODE16_SELECTOR (SEL_FREE + 40)
#define VECTOR 0x50

static struct tss32 task;
static struct tss16 task16;
static u64 ldt[4];
static u8 stack0[4096], stack3[4096];

static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) pointer;

LABEL(after_jump);
CODE(jump, "ljmp *(%esp)\n after_jump:");
CODE(call, "lcall *(%esp)");
CODE(interrupt, "int $0x50");
CODE(undefined, "ud2");
LABEL(iret_nested);
CODE(iret_code, "pushf\n orl $0x4000, (%esp)\n popf\n iret_nested: iret");
CODE(landing, "nop");
CODE(back, "iret"); /* in the new task: return by the back link */

/* What the machine was like when the run ended. */
static struct {
	u16 tr, ldt;
	bool old_busy, new_busy, new16_busy, ts;
} after;

static bool busy(unsigned selector)
{
	return gdt[selector / 8] >> 41 & 1;
}

static void task_init(unsigned cpl)
{
	task = (struct tss32){ .stack[0] = { (ulong)stack0 + sizeof(stack0), SEL_DATA },
			       .ip = (ulong)landing,
			       .flags = FLAG_FIXED | FLAG_CF,
			       .ax = 0xa1a1a1a1,
			       .cx = 0xc1c1c1c1,
			       .dx = 0xd1d1d1d1,
			       .bx = 0xb1b1b1b1,
			       .sp = (ulong)stack3 + sizeof(stack3) - 64,
			       .bp = 0xe1e1e1e1,
			       .si = 0x51515151,
			       .di = 0xd2d2d2d2,
			       .es = selector_data(cpl),
			       .cs = selector_code(cpl),
			       .ss = selector_data(cpl),
			       .ds = selector_data(cpl),
			       .fs = selector_data(3),
			       .gs = 0,
			       .link = 0xffff,
			       .iomap = sizeof(task),
			       .cr3 = read_cr3() };
	/* Offsets are 16 bits wide: code and stack through bases. */
	gdt_set(CODE16_SELECTOR, descriptor((ulong)landing & ~0xfffful, 0xfffff, ACCESS_CODE, DESC_G | DESC_DB));
	task16 = (struct tss16){ .stack[0] = { 0xfff0, SEL_DATA },
				 .ip = (ulong)landing,
				 .flags = FLAG_CF | FLAG_FIXED,
				 .ax = 0xa1a1,
				 .cx = 0xc1c1,
				 .dx = 0xd1d1,
				 .bx = 0xb1b1,
				 .sp = 0xff00,
				 .bp = 0xe1e1,
				 .si = 0x5151,
				 .di = 0xd2d2,
				 .es = SEL_DATA,
				 .cs = CODE16_SELECTOR,
				 .ss = SEL_DATA16, /* what becomes of ESP's upper half is the processor's own */
				 .ds = SEL_DATA,
				 .link = 0xffff };
	gdt_set(TASK_SELECTOR, descriptor((ulong)&task, sizeof(task) - 1, ACCESS_TSS | ACCESS_DPL(3), 0));
	gdt_set(TASK16_SELECTOR, descriptor((ulong)&task16, sizeof(task16) - 1, ACCESS_TSS16 | ACCESS_DPL(3), 0));
	gdt_set(LDT_SELECTOR, descriptor((ulong)ldt, sizeof(ldt) - 1, ACCESS_LDT, 0));
	gdt_set(GATE_SELECTOR, gate_low(TASK_SELECTOR, 0, GATE_TASK, 3, 0));
	idt_set(VECTOR, TASK_SELECTOR, 0, GATE_TASK, 3, 0);
}

/* Run `code` with a far pointer to `selector` on its stack. */
static struct state switch_to(const void *code, unsigned cpl, u16 selector)
{
	struct state s = state_at(code, cpl);
	s.sp -= 16;
	pointer.selector = selector;
	pointer.offset = 0xdeadbeef;
	memcpy((void *)s.sp, &pointer, sizeof(pointer));
	s.ax = 0x0a0a0a0a;
	s.bx = 0x0b0b0b0b;
	s.cx = 0x0c0c0c0c;
	s.dx = 0x0d0d0d0d;
	s.si = 0x05050505;
	s.di = 0x06060606;
	s.bp = 0x07070707;
	s.fs = selector_data(3);
	s.flags |= FLAG_ZF | FLAG_AC;
	run(&s);
	asm volatile("str %0\n sldt %1" : "=m"(after.tr), "=m"(after.ldt));
	after.old_busy = busy(SEL_TSS);
	after.new_busy = busy(TASK_SELECTOR);
	after.new16_busy = busy(TASK16_SELECTOR);
	after.ts = read_cr0() & CR0_TS;
	asm volatile("clts");
	write_ldt(0);
	descriptors_init();
	return s;
}

/* The old task's state as it was saved into its TSS. */
static void check_saved(const void *ip, unsigned cpl)
{
	const struct tss32 *t = &tss.t;
	CHECK_EQ(t->ip, (ulong)ip);
	CHECK(t->ax == 0x0a0a0a0a && t->bx == 0x0b0b0b0b && t->cx == 0x0c0c0c0c && t->dx == 0x0d0d0d0d);
	CHECK(t->si == 0x05050505 && t->di == 0x06060606 && t->bp == 0x07070707);
	CHECK_EQ(t->sp, (ulong)test_stack_top - 272);
	CHECK((u16)t->cs == selector_code(cpl) && (u16)t->ss == selector_data(cpl) && (u16)t->ds == selector_data(cpl));
	CHECK((u16)t->es == selector_data(cpl) && (u16)t->fs == selector_data(3) && (u16)t->gs == 0);
	CHECK_EQ(t->flags & ~FLAG_RF, FLAG_FIXED | FLAG_ZF | FLAG_AC);
}

static void check_loaded(const struct state *s, unsigned cpl, ulong nt)
{
	CHECK(s->ax == 0xa1a1a1a1 && s->cx == 0xc1c1c1c1 && s->dx == 0xd1d1d1d1 && s->bx == 0xb1b1b1b1);
	CHECK(s->bp == 0xe1e1e1e1 && s->si == 0x51515151 && s->di == 0xd2d2d2d2);
	CHECK(s->cs == selector_code(cpl) && s->ss == selector_data(cpl) && s->ds == selector_data(cpl) && s->gs == 0);
	CHECK_EQ(s->flags, FLAG_FIXED | FLAG_CF | nt);
	CHECK(after.ts);
	CHECK_EQ(after.tr & ~3u, TASK_SELECTOR);
	CHECK(after.new_busy);
}

static void jump_switches(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		for (unsigned to = 0; to < 4; to += 3) {
			for (unsigned by_gate = 0; by_gate < 2; by_gate++) {
				task_init(to);
				struct state s =
					switch_to(jump, cpl, by_gate ? GATE_SELECTOR | cpl : TASK_SELECTOR | cpl);
				CHECK_END(s, landing);
				check_loaded(&s, to, 0);
				CHECK_EQ(s.sp, (ulong)stack3 + sizeof(stack3) - 64);
				check_saved(after_jump, cpl);
				CHECK(!after.old_busy);
				CHECK_EQ(task.link, 0xffff); /* a jump nests nothing */
			}
		}
	}
}

static void call_switches(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		for (unsigned kind = 0; kind < 3; kind++) {
			task_init(0);
			struct state s =
				kind == 2 ? switch_to(interrupt, cpl, 0)
					  : switch_to(call, cpl, kind ? GATE_SELECTOR | cpl : TASK_SELECTOR | cpl);
			CHECK_END(s, landing);
			check_loaded(&s, 0, FLAG_NT);
			check_saved(kind == 2 ? interrupt_end : call_end, cpl);
			CHECK(after.old_busy);
			CHECK_EQ(task.link & 0xffff, SEL_TSS);
		}
	}
}

/* CALL or INT, then IRET in the new task: back where it came from, both tasks' bits as before. */
static void iret_returns(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		for (unsigned by_interrupt = 0; by_interrupt < 2; by_interrupt++) {
			task_init(0);
			task.ip = (ulong)back;
			struct state s = switch_to(by_interrupt ? interrupt : call, cpl, TASK_SELECTOR | cpl);
			CHECK(s.vector == VECTOR_END && s.ip == (ulong)(by_interrupt ? interrupt_end : call_end) + 2);
			CHECK(s.ax == 0x0a0a0a0a && s.bp == 0x07070707 && s.cs == selector_code(cpl) &&
			      s.ss == selector_data(cpl));
			CHECK_EQ(s.flags, FLAG_FIXED | FLAG_ZF | FLAG_AC);
			CHECK(after.old_busy && !after.new_busy && after.tr == SEL_TSS && after.ts);
			CHECK_EQ(task.ip, (ulong)back_end);
			CHECK_EQ(task.flags, FLAG_FIXED | FLAG_CF); /* NT is cleared in what IRET saves */
		}
	}
}

/* An exception with an error code through a task gate pushes the code on the new task's stack. */
static void exception_through_gate(void)
{
	task_init(0);
	idt_set(VEC_GP, TASK_SELECTOR, 0, GATE_TASK, 0, 0);
	idt_set(VECTOR, SEL_CODE32, 0, GATE_INT, 0, 0);
	struct state s = switch_to(interrupt, 3, 0);
	CHECK_END(s, landing);
	CHECK_EQ(s.sp, (ulong)stack3 + sizeof(stack3) - 64 - 4);
	CHECK_EQ(*(u32 *)s.sp, VECTOR * 8 + 2);
	CHECK_EQ(tss.t.ip, (ulong)interrupt); /* a fault: the instruction itself */
	task_init(0);
	idt_set(VEC_UD, TASK_SELECTOR, 0, GATE_TASK, 0, 0);
	s = switch_to(undefined, 3, 0);
	CHECK_END(s, landing);
	CHECK_EQ(s.sp, (ulong)stack3 + sizeof(stack3) - 64);
	CHECK_EQ(tss.t.ip, (ulong)undefined);
	CHECK_BUT_QEMU(tss.t.flags & FLAG_RF, "TCG does not set RF");
}

static void to_16bit_tss(void)
{
	task_init(0);
	struct state s = switch_to(call, 0, TASK16_SELECTOR);
	CHECK(s.vector == VECTOR_END && (s.ip & 0xffff) == (((ulong)landing_end + 2) & 0xffff));
	CHECK((s.ax & 0xffff) == 0xa1a1 && (s.bx & 0xffff) == 0xb1b1 && (s.cx & 0xffff) == 0xc1c1 &&
	      (s.dx & 0xffff) == 0xd1d1);
	CHECK((s.si & 0xffff) == 0x5151 && (s.di & 0xffff) == 0xd2d2 && (s.bp & 0xffff) == 0xe1e1 &&
	      (s.sp & 0xffff) == 0xff00);
	CHECK(s.cs == CODE16_SELECTOR && s.ss == SEL_DATA16 && s.ds == SEL_DATA && s.es == SEL_DATA);
	CHECK_EQ(s.flags & 0xffff, FLAG_FIXED | FLAG_CF | FLAG_NT);
	CHECK_EQ(task16.link, SEL_TSS);
	CHECK(after.new16_busy && after.old_busy && after.tr == TASK16_SELECTOR);
	check_saved(call_end, 0);
}

/* ---- Checks before the switch: the fault is the old task's ---- */

struct before {
	const char *what;
	unsigned access, limit;
	unsigned cpl, rpl;
	unsigned vector;
	ulong error;
};

static const struct before befores[] = {
	{ "busy", 0xeb, 103, 0, 0, VEC_GP, TASK_SELECTOR },
	{ "absent", 0x69, 103, 0, 0, VEC_NP, TASK_SELECTOR },
	{ "DPL below CPL", 0x89, 103, 3, 0, VEC_GP, TASK_SELECTOR },
	{ "DPL below RPL", 0x89, 103, 0, 3, VEC_GP, TASK_SELECTOR },
	{ "too short", 0xe9, 102, 0, 0, VEC_TS, TASK_SELECTOR },
	{ "16 bits, too short", 0xe1, 42, 0, 0, VEC_TS, TASK_SELECTOR },
	{ "not a TSS", 0xe2, 103, 0, 0, VEC_GP, TASK_SELECTOR },
};

static void check_before(const struct before *b)
{
	u8 *const codes[] = { jump, call };
	for (unsigned i = 0; i < 2; i++) {
		task_init(0);
		gdt_set(TASK_SELECTOR, descriptor((ulong)&task, b->limit, b->access, 0));
		struct state s = switch_to(codes[i], b->cpl, TASK_SELECTOR | b->rpl);
		CHECK_FAULT(s, b->vector, b->error, codes[i]);
		CHECK(after.tr == SEL_TSS && s.ax == 0x0a0a0a0a);
		if (s.vector != b->vector)
			print("    %s\n", b->what);
	}
}

static void gate_checks(void)
{
	task_init(0);
	gdt_set(GATE_SELECTOR, gate_low(TASK_SELECTOR, 0, GATE_TASK, 2, 0));
	struct state s = switch_to(call, 3, GATE_SELECTOR);
	CHECK_FAULT(s, VEC_GP, GATE_SELECTOR, call);
	task_init(0);
	gdt_set(GATE_SELECTOR, gate_low(TASK_SELECTOR, 0, GATE_TASK, 3, 0) & ~(1ull << 47));
	s = switch_to(call, 3, GATE_SELECTOR);
	CHECK_FAULT(s, VEC_NP, GATE_SELECTOR, call);
	task_init(0);
	gdt_set(GATE_SELECTOR, gate_low(0xc, 0, GATE_TASK, 3, 0)); /* a TSS in an LDT */
	s = switch_to(call, 3, GATE_SELECTOR);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0xc, call, "TCG raises #TS");
	task_init(0);
	gdt_set(GATE_SELECTOR, gate_low(SEL_DATA, 0, GATE_TASK, 3, 0));
	s = switch_to(call, 3, GATE_SELECTOR);
	CHECK_FAULT(s, VEC_GP, SEL_DATA, call);
	task_init(0);
	gdt_set(TASK_SELECTOR,
		descriptor((ulong)&task, 103, 0x89, 0)); /* through a gate the TSS's DPL does not count */
	s = switch_to(call, 3, GATE_SELECTOR | 3);
	CHECK_END(s, landing);
	task_init(0);
	idt[VECTOR].low &= ~(1ull << 47);
	s = switch_to(interrupt, 3, 0);
	CHECK_FAULT(s, VEC_NP, VECTOR * 8 + 2, interrupt);
	task_init(0);
	gdt_set(TASK_SELECTOR, descriptor((ulong)&task, 103, 0x8b, 0)); /* busy */
	s = switch_to(interrupt, 3, 0);
	CHECK_FAULT(s, VEC_GP, TASK_SELECTOR, interrupt);
}

/* IRET with NT: the back link must be a busy TSS in the GDT, else #TS. */
static void iret_checks(void)
{
	static const u16 links[] = { TASK_SELECTOR, 0, SEL_DATA, 0xc, GDT_ENTRIES * 8 };
	for (unsigned i = 0; i < ARRAY_SIZE(links); i++) {
		task_init(0);
		tss.t.link = links[i];
		struct state s = state_at(iret_code, 0);
		run(&s);
		CHECK_FAULT(s, VEC_TS, links[i] & ~3u, iret_nested);
	}
}

/* ---- Checks after the switch: the fault is the new task's, at its first instruction ---- */

struct afterwards {
	const char *what;
	unsigned cpl;
	size_t field; /* offset in the TSS */
	u16 selector;
	unsigned access; /* of the descriptor at TEST_SELECTOR */
	unsigned vector;
	ulong error;
};

#define FIELD(name) offsetof(struct tss32, name)
static const struct afterwards afterwards[] = {
	{ "LDT is no LDT", 3, FIELD(ldt), SEL_DATA, 0, VEC_TS, SEL_DATA },
	{ "LDT in an LDT", 3, FIELD(ldt), 0xc, 0, VEC_TS, 0xc },
	{ "LDT absent", 3, FIELD(ldt), TEST_SELECTOR, 0x02, VEC_TS, TEST_SELECTOR },
	{ "DS is execute-only", 0, FIELD(ds), TEST_SELECTOR, 0x99, VEC_TS, TEST_SELECTOR },
	{ "DS is a TSS", 0, FIELD(ds), SEL_TSS, 0, VEC_TS, SEL_TSS },
	{ "DS beyond the GDT", 0, FIELD(ds), GDT_ENTRIES * 8, 0, VEC_TS, GDT_ENTRIES * 8 },
	{ "DS's DPL", 3, FIELD(ds), SEL_DATA | 3, 0, VEC_TS, SEL_DATA },
	{ "DS absent", 0, FIELD(ds), TEST_SELECTOR, 0x13, VEC_NP, TEST_SELECTOR },
	{ "GS absent", 3, FIELD(gs), TEST_SELECTOR | 3, 0x73, VEC_NP, TEST_SELECTOR },
	{ "SS's RPL", 3, FIELD(ss), SEL_USER_DATA | 2, 0, VEC_TS, SEL_USER_DATA },
	{ "SS null", 3, FIELD(ss), 0, 0, VEC_TS, 0 },
	{ "SS absent", 3, FIELD(ss), TEST_SELECTOR | 3, 0x73, VEC_SS, TEST_SELECTOR },
	{ "SS read-only", 3, FIELD(ss), TEST_SELECTOR | 3, 0xf1, VEC_TS, TEST_SELECTOR },
};

static void check_afterwards(const struct afterwards *a)
{
	task_init(a->cpl);
	gdt_set(TEST_SELECTOR, descriptor(0, 0xfffff, a->access, DESC_G | DESC_DB));
	memcpy((u8 *)&task + a->field, &a->selector, sizeof(a->selector));
	struct state s = switch_to(jump, 0, TASK_SELECTOR);
	CHECK_FAULT_BUT_QEMU(s, a->vector, a->error, landing, "TCG faults at the old task's address");
	CHECK(after.tr == TASK_SELECTOR && !after.old_busy && s.ax == 0xa1a1a1a1);
	if (s.vector != a->vector || s.error != a->error)
		print("    %s\n", a->what);
}

/* CPL is in doubt while CS is not loaded: the task goes to CPL 3, so that the handler gets a fresh stack in any case.
 */
static void bad_cs_faults(void)
{
	static const struct {
		u16 cs;
		unsigned access, vector;
	} bad[] = { { SEL_USER_DATA | 3, 0, VEC_TS },
		    { TEST_SELECTOR | 3, 0x7b, VEC_NP },
		    { SEL_CODE32 | 3, 0, VEC_TS } };
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		task_init(3);
		gdt_set(TEST_SELECTOR, descriptor(0, 0xfffff, bad[i].access, DESC_G | DESC_DB));
		task.cs = bad[i].cs;
		struct state s = switch_to(jump, 0, TASK_SELECTOR);
		CHECK_EQ(s.vector, bad[i].vector);
		CHECK_EQ(s.error, bad[i].cs & ~3u);
	}
}

/* The LDT comes with the task; the T flag traps after the switch, with BT in DR6. */
static void ldt_and_trap_flag(void)
{
	task_init(0);
	task.ldt = LDT_SELECTOR;
	ldt[1] = descriptor(0, 0xfffff, ACCESS_DATA, DESC_G | DESC_DB);
	task.ds = 0xc;
	struct state s = switch_to(jump, 0, TASK_SELECTOR);
	CHECK_END(s, landing);
	CHECK(s.ds == 0xc && after.ldt == LDT_SELECTOR);
	task_init(0);
	task.trap = 1;
	write_dr6(0xffff0ff0);
	s = switch_to(jump, 0, TASK_SELECTOR);
	CHECK_FAULT_BUT_QEMU(s, VEC_DB, NO_ERROR, landing, "TCG ignores the T flag");
	CHECK_BUT_QEMU(read_dr6() == 0xffff8ff0, "TCG ignores the T flag");
	write_dr6(0xffff0ff0);
}

/* A task may be a V86 one. */
static void to_v86_task(void)
{
	task_init(0);
	u8 *code = (u8 *)0x20100;
	code[0] = 0xf4; /* HLT: #GP in V86 mode */
	task.flags |= FLAG_VM;
	task.cs = 0x2000;
	task.ip = 0x100;
	task.ss = 0x3000;
	task.sp = 0xff00;
	task.ds = task.es = task.fs = task.gs = 0x2345;
	struct state s = switch_to(jump, 0, TASK_SELECTOR);
	CHECK_FAULT(s, VEC_GP, 0, 0x100);
	CHECK(s.cs == 0x2000 && s.ss == 0x3000 && s.ds == 0x2345 && (s.flags & FLAG_VM));
}

void guest_main(void)
{
	jump_switches();
	call_switches();
	iret_returns();
	exception_through_gate();
	to_16bit_tss();
	for (unsigned i = 0; i < ARRAY_SIZE(befores); i++)
		check_before(&befores[i]);
	gate_checks();
	iret_checks();
	for (unsigned i = 0; i < ARRAY_SIZE(afterwards); i++)
		check_afterwards(&afterwards[i]);
	if (!on_qemu) /* TCG pushes the frame nowhere */
		bad_cs_faults();
	ldt_and_trap_flag();
	to_v86_task();
}
