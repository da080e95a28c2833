/* Debugging by the CPU: single steps through many kinds of instructions, breakpoints on execution, data and ports, DR6
 * and DR7, general detect, RF, and the delay behind MOV SS. Intel SDM volume 3, "Debug Registers", "Debug Exceptions".
 */
#include "lib/apic.h"
#include "lib/window.h"

#define DR6_CLEAR 0xffff0ff0ul
#define DR6_BS BIT(14)
#define DR6_BD BIT(13)
#define DR7_CLEAR 0x400ul

enum { BP_EXECUTE, BP_WRITE, BP_IO, BP_ACCESS };
enum { LENGTH1, LENGTH2, LENGTH8, LENGTH4 };

static ulong dr7_for(unsigned n, unsigned kind, unsigned length)
{
	return DR7_CLEAR | 2ul << 2 * n | (ulong)(kind | length << 2) << (16 + 4 * n);
}

static void clear_debug(void)
{
	write_dr7(DR7_CLEAR);
	write_dr6(DR6_CLEAR);
	write_dr0(0);
	write_dr1(0);
	write_dr2(0);
	write_dr3(0);
}

/* ---- Single steps ---- */

/* Step through `code` from its start; the addresses of the traps must be those listed, the last one repeated by the
 * end. */
static struct state step_through(const void *code, unsigned cpl, const u8 *const stops[], unsigned count,
				 struct state *start)
{
	struct state s = start ? *start : state_at(code, cpl);
	s.flags |= FLAG_TF;
	for (unsigned i = 0; i < count; i++) {
		write_dr6(DR6_CLEAR);
		run(&s);
		bool ok = s.vector == VEC_DB && s.ip == (ulong)stops[i] && read_dr6() == (DR6_CLEAR | DR6_BS) &&
			  (s.flags & FLAG_TF);
		CHECK(ok);
		if (!ok) {
			print("    step %u: want %p, dr6 %lx\n", i, stops[i], read_dr6());
			state_print(&s);
			break;
		}
	}
	return s;
}

LABEL(simple1);
LABEL(simple2);
LABEL(simple3);
LABEL(simple4);
LABEL(simple5);
LABEL(simple6);
CODE(simple, "nop\n simple1: mov $3, %eax\n simple2: push " R "ax\n simple3: pop " R "cx\n simple4: jmp 1f\n nop\n"
	     "1: simple5: test %eax, %eax\n simple6: nop");
LABEL(emulated1);
LABEL(emulated2);
LABEL(emulated3);
LABEL(emulated4);
LABEL(emulated5);
LABEL(emulated6);
CODE(emulated, "cpuid\n emulated1: rdtsc\n emulated2: in $0x61, %al\n emulated3: mov %cr0, " R "ax\n emulated4: clts\n"
	       "emulated5: mov %dr7, " R "ax\n emulated6: nop");
LABEL(calls1);
LABEL(calls2);
LABEL(calls3);
CODE(calls, "call 1f\n calls2: nop\n calls3: jmp 2f\n 1: calls1: ret\n 2:");

static void steps(void)
{
	static const u8 *const in_simple[] = { simple1, simple2, simple3, simple4, simple5, simple6, simple_end };
	static const u8 *const in_emulated[] = { emulated1, emulated2, emulated3,   emulated4,
						 emulated5, emulated6, emulated_end };
	static const u8 *const in_calls[] = { calls1, calls2, calls3, calls_end };
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		step_through(simple, cpl, in_simple, ARRAY_SIZE(in_simple), NULL);
		step_through(calls, cpl, in_calls, ARRAY_SIZE(in_calls), NULL);
	}
	step_through(emulated, 0, in_emulated, ARRAY_SIZE(in_emulated), NULL);
}

/* Each element of a repeated string instruction is a step. */
CODE(repeated, "rep movsb");

static void step_strings(void)
{
	static u8 from[8] = { 1, 2, 3, 4 }, to[8];
	static const u8 *const stops[] = { repeated, repeated, repeated, repeated_end };
	struct state start = state_at(repeated, 3);
	start.si = (ulong)from;
	start.di = (ulong)to;
	start.cx = 4;
	struct state s = step_through(repeated, 3, stops, 3, &start);
	CHECK(s.cx == 1 && s.di == (ulong)to + 3 && to[2] == 3 && to[3] == 0);
	write_dr6(DR6_CLEAR);
	run(&s);
	CHECK_BUT_QEMU(s.vector == VEC_DB && s.ip == (ulong)repeated_end && s.cx == 0 && to[3] == 4,
		       "TCG stops once more");
}

/* Instructions that change TF or the frame: POPF, IRET, INT, MOV SS. */
LABEL(set_by_popf1);
LABEL(set_by_popf2);
CODE(set_by_popf, "pushf\n or" SUFFIX " $0x100, (" R "sp)\n popf\n set_by_popf1: nop\n set_by_popf2: nop");
LABEL(cleared_by_popf1);
LABEL(cleared_by_popf2);
LABEL(cleared_by_popf3);
CODE(cleared_by_popf,
     "pushf\n cleared_by_popf1: and" SUFFIX " $~0x100, (" R "sp)\n cleared_by_popf2: popf\n cleared_by_popf3: nop");
CODE(into_interrupt, "int $0x81");
LABEL(mov_ss2);
CODE(mov_ss, "mov %eax, %ss\n nop\n mov_ss2: nop");
LABEL(pushes1);
CODE(pushes, "pushf\n pushes1: pop " R "ax");
CODE(faults, "ud2");
LABEL(sti_step1);
LABEL(sti_step2);
CODE(sti_step, "sti\n sti_step1: nop\n sti_step2: nop");

static void step_flags(void)
{
	struct state s = run_code(set_by_popf, 3); /* takes effect after the next instruction */
	CHECK_FAULT(s, VEC_DB, NO_ERROR, set_by_popf2);
	static const u8 *const cleared[] = { cleared_by_popf1, cleared_by_popf2 };
	s = step_through(cleared_by_popf, 3, cleared, 2, NULL);
	write_dr6(DR6_CLEAR);
	run(&s); /* POPF itself, which clears TF, is still followed by a trap: TF was set when it began */
	CHECK_BUT_QEMU(s.vector == VEC_DB && s.ip == (ulong)cleared_by_popf3 && !(s.flags & FLAG_TF),
		       "TCG has no trap after it");
	s = state_at(into_interrupt, 3); /* the gate clears TF: no trap at the handler's start */
	s.flags |= FLAG_TF;
	run(&s);
	CHECK_EQ(s.vector, VECTOR_END);
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		s = state_at(mov_ss, cpl); /* no trap between MOV SS and the next instruction */
		s.ax = selector_data(cpl);
		s.flags |= FLAG_TF;
		write_dr6(DR6_CLEAR);
		run(&s);
		CHECK_FAULT(s, VEC_DB, NO_ERROR, mov_ss2);
	}
	static const u8 *const pushed[] = { pushes1, pushes_end };
	s = step_through(pushes, 3, pushed, 2, NULL);
	CHECK(s.ax & FLAG_TF); /* PUSHF shows it */
	write_dr6(DR6_CLEAR);
	s = state_at(faults, 3); /* a fault is not followed by a step */
	s.flags |= FLAG_TF;
	run(&s);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, faults);
	CHECK(read_dr6() == DR6_CLEAR && (s.flags & FLAG_TF));
	static const u8 *const with_sti[] = { sti_step1, sti_step2 };
	if (!on_qemu) /* delays the trap by STI's shadow */
		step_through(sti_step, 0, with_sti, 2, NULL);
}

/* ---- Breakpoints on execution ---- */

LABEL(target1);
LABEL(target2);
CODE(target, "nop\n target1: add $1, %eax\n target2: inc %ebx\n dec %ecx\n jnz 1f\n jmp 2f\n 1: jmp target1\n 2:");

static void execution(void)
{
	for (unsigned n = 0; n < 4; n++) {
		for (unsigned cpl = 0; cpl < 4; cpl += 3) {
			clear_debug();
			switch (n) {
			case 0:
				write_dr0((ulong)target1);
				break;
			case 1:
				write_dr1((ulong)target1);
				break;
			case 2:
				write_dr2((ulong)target1);
				break;
			default:
				write_dr3((ulong)target1);
			}
			write_dr7(dr7_for(n, BP_EXECUTE, LENGTH1));
			struct state s = state_at(target, cpl);
			s.cx = 2;
			run(&s);
			CHECK_FAULT(s, VEC_DB, NO_ERROR, target1);
			CHECK_EQ(read_dr6(), DR6_CLEAR | BIT(n));
			CHECK_EQ(s.ax, 0);  /* before it runs */
			s.flags |= FLAG_RF; /* passes it once */
			write_dr6(DR6_CLEAR);
			run(&s);
			CHECK_FAULT(s, VEC_DB, NO_ERROR, target1); /* the second time round */
			CHECK(s.ax == 1 && s.bx == 1);
			s.flags |= FLAG_RF;
			run(&s);
			CHECK_END(s, target);
			CHECK(s.ax == 2 && !(s.flags & FLAG_RF));
		}
	}
	clear_debug();
	write_dr7(DR7_CLEAR | 1 << 16); /* not enabled */
	struct state s = state_at(target, 3);
	s.cx = 1;
	run(&s);
	CHECK_END(s, target);
	write_dr0((ulong)target1); /* between the bytes of an instruction there is no breakpoint */
	write_dr1((ulong)target1 + 1);
	write_dr7(dr7_for(1, BP_EXECUTE, LENGTH1));
	s = state_at(target, 3);
	s.cx = 1;
	run(&s);
	CHECK_END(s, target);
	clear_debug();
	/* A breakpoint comes before whatever the instruction would fault with. */
	write_dr0((ulong)faults);
	write_dr7(dr7_for(0, BP_EXECUTE, LENGTH1));
	s = run_code(faults, 3);
	CHECK_FAULT(s, VEC_DB, NO_ERROR, faults);
	s.flags |= FLAG_RF;
	run(&s);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, faults);
	clear_debug();
}

/* ---- Breakpoints on data ---- */

static u8 data[64] __attribute__((aligned(64)));
CODE(write1, "movb $1, (" R "bx)");
CODE(write2, "movw $1, (" R "bx)");
CODE(write4, "movl $1, (" R "bx)");
CODE(read1, "movb (" R "bx), %al");
CODE(read4, "movl (" R "bx), %eax");
CODE(modify4, "addl $1, (" R "bx)");

static struct access {
	const char *name;
	u8 *code, *end;
	unsigned size;
	bool write;
} accesses[] = {
	{ "write 1", write1, write1_end, 1, true }, { "write 2", write2, write2_end, 2, true },
	{ "write 4", write4, write4_end, 4, true }, { "read 1", read1, read1_end, 1, false },
	{ "read 4", read4, read4_end, 4, false },   { "modify 4", modify4, modify4_end, 4, true },
};

static void data_breakpoint(const struct access *a, unsigned at, unsigned kind, unsigned length, unsigned bytes)
{
	clear_debug();
	write_dr2((ulong)data + 32 + (at & 3)); /* the low bits below the length do not count */
	write_dr7(dr7_for(2, kind, length));
	unsigned start = 32 + ((at & 3) & ~(bytes - 1));
	struct state s = state_at(a->code, 3);
	unsigned where = 28 + at;
	s.bx = (ulong)data + where;
	run(&s);
	write_dr7(DR7_CLEAR);
	bool overlaps = where < start + bytes && where + a->size > start;
	bool hit = overlaps && (a->write || kind == BP_ACCESS);
	bool ok = hit ? s.vector == VEC_DB && s.ip == (ulong)a->end && read_dr6() == (DR6_CLEAR | BIT(2))
		      : s.vector == VECTOR_END;
	CHECK_BUT_QEMU(ok, "TCG watches other bytes");
	if (!ok && !on_qemu) {
		print("    %s at %u, kind %u, %u bytes at %u, dr6 %lx\n", a->name, where, kind, bytes, start,
		      read_dr6());
		state_print(&s);
	}
}

static void data_breakpoints(void)
{
	static const struct {
		u8 length, bytes;
	} lengths[] = { { LENGTH1, 1 }, { LENGTH2, 2 }, { LENGTH4, 4 } };
	for (unsigned i = 0; i < ARRAY_SIZE(accesses); i++)
		for (unsigned at = 0; at < 12; at++)
			for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++) {
				data_breakpoint(&accesses[i], at, BP_WRITE, lengths[l].length, lengths[l].bytes);
				data_breakpoint(&accesses[i], at, BP_ACCESS, lengths[l].length, lengths[l].bytes);
			}
	clear_debug();
}

LABEL(stack_access1);
CODE(stack_access, "push " R "ax\n stack_access1: nop");
LABEL(mov_ss_data2);
CODE(mov_ss_data, "mov (" R "bx), %ss\n nop\n mov_ss_data2: nop");

static void data_elsewhere(void)
{
	/* PUSH writes. */
	struct state s = state_at(stack_access, 3);
	write_dr0(s.sp - sizeof(long));
	write_dr7(dr7_for(0, BP_WRITE, LENGTH4));
	run(&s);
	CHECK_FAULT(s, VEC_DB, NO_ERROR, stack_access1);
	clear_debug();
	/* A repeated string instruction stops after the element that hit. */
	s = state_at(repeated, 3);
	s.si = (ulong)data;
	s.di = (ulong)data + 32;
	s.cx = 8;
	write_dr1((ulong)data + 36);
	write_dr7(dr7_for(1, BP_WRITE, LENGTH1));
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_DB, NO_ERROR, repeated, "TCG goes on");
	CHECK_BUT_QEMU(s.cx == 3 && s.di == (ulong)data + 37 && read_dr6() == (DR6_CLEAR | 2), "TCG goes on");
	clear_debug();
	/* The trap of MOV SS itself waits for the next instruction. */
	*(u16 *)data = selector_data(3);
	s = state_at(mov_ss_data, 3);
	s.bx = (ulong)data;
	write_dr0((ulong)data);
	write_dr7(dr7_for(0, BP_ACCESS, LENGTH2));
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_DB, NO_ERROR, mov_ss_data2, "TCG does not delay it");
	CHECK_EQ(read_dr6(), DR6_CLEAR | 1);
	clear_debug();
	/* A step and a breakpoint at once. */
	s = state_at(write4, 3);
	s.bx = (ulong)data + 8;
	s.flags |= FLAG_TF;
	write_dr3((ulong)data + 8);
	write_dr7(dr7_for(3, BP_WRITE, LENGTH4));
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_DB, NO_ERROR, write4_end, "TCG stops in the handler");
	CHECK_BUT_QEMU(read_dr6() == (DR6_CLEAR | DR6_BS | 8), "TCG reports one of them");
	clear_debug();
	/* A faulting access leaves no trap. */
	window_map(0, NULL, 0);
	s = state_at(write4, 3);
	s.bx = (ulong)window;
	write_dr0((ulong)window);
	write_dr7(dr7_for(0, BP_WRITE, LENGTH4));
	run(&s);
	CHECK_FAULT(s, VEC_PF, PF_U | PF_W, write4);
	CHECK_EQ(read_dr6(), DR6_CLEAR);
	clear_debug();
}

/* ---- Hot code in the company of break and watch points ---- */

#define ROUNDS 50000

/* What is watched, and what the loop uses, side by side; so are its own code and the break points. */
static struct {
	ulong sum, seen;
	u8 watched[8];
	ulong last;
} shared __attribute__((aligned(4096)));

#ifdef __x86_64__
#define WATCHED_AT "16"
#else
#define WATCHED_AT "8"
#endif

LABEL(hot_every);
LABEL(hot_left);
CODE(hot, "1: add %ecx, %eax\n mov " R "ax, (" R "bx)\n add (" R "bx), %edx\n push " R "ax\n pop " R "si\n call 4f\n test $4095, %ecx\n jnz 2f\n"
	  "hot_every: inc %edi\n 2: cmp $1, %ecx\n dec %ecx\n jnz 1b\n"
	  "hot_left: setc %al\n movb $1, " WATCHED_AT "(" R "bx)\n jmp 5f\n 4: xor %ebp, %ebp\n ret\n 5:");
#define HOT_PAIRS (ROUNDS / 4096)

static void arm_hot(unsigned kind)
{
	clear_debug();
	write_dr0((ulong)hot_every);
	write_dr1((ulong)hot_left);
	write_dr2((ulong)shared.watched);
	write_dr3((ulong)hot + 1); /* the middle of an instruction */
	write_dr7(dr7_for(0, BP_EXECUTE, LENGTH1) | dr7_for(1, BP_EXECUTE, LENGTH1) | dr7_for(2, kind, LENGTH1) |
		  dr7_for(3, BP_EXECUTE, LENGTH1));
}

static void hot_loop(unsigned cpl, unsigned kind)
{
	u32 sum = 0, rounds = ROUNDS;
	struct state s = state_at(hot, cpl);
	s.bx = (ulong)&shared;
	s.cx = rounds;
	arm_hot(kind);
	for (u32 pairs = 0; pairs < HOT_PAIRS; pairs++) {
		u32 stop = (HOT_PAIRS - pairs) * 4096;
		for (; rounds >= stop; rounds--)
			sum += rounds;
		write_dr6(DR6_CLEAR);
		run(&s);
		CHECK_FAULT(s, VEC_DB, NO_ERROR, hot_every);
		CHECK(read_dr6() == (DR6_CLEAR | 1) && s.cx == stop && s.ax == sum && s.di == pairs && (s.flags & FLAG_ZF));
		s.flags |= FLAG_RF;
	}
	write_dr6(DR6_CLEAR);
	run(&s);
	CHECK_FAULT(s, VEC_DB, NO_ERROR, hot_left);
	CHECK(read_dr6() == (DR6_CLEAR | 2) && s.cx == 0 && s.di == HOT_PAIRS && s.ax == (u32)(ROUNDS / 2 * (ROUNDS + 1ul)));
	CHECK((s.flags & (FLAG_ZF | FLAG_CF)) == FLAG_ZF);
	s.flags |= FLAG_RF;
	write_dr6(DR6_CLEAR);
	run(&s);
	CHECK(s.vector == VEC_DB && read_dr6() == (DR6_CLEAR | 4));
	run(&s);
	CHECK_END(s, hot);
	clear_debug();
	CHECK_EQ(shared.watched[0], 1);
	/* Disarmed again, the same code runs through. */
	s = state_at(hot, cpl);
	s.bx = (ulong)&shared;
	s.cx = ROUNDS;
	run(&s);
	CHECK_END(s, hot);
}

/* The same code at other linear addresses, with a break point at one of them only. */
static void aliases(void)
{
	ulong offset = (ulong)target1 & 4095;
	window_map(0, (void *)((ulong)target1 & ~4095ul), PTE_ALL);
	for (unsigned round = 0; round < 6; round++) {
		clear_debug();
		write_dr0((ulong)window + offset);
		if (round & 1)
			write_dr7(dr7_for(0, BP_EXECUTE, LENGTH1));
		struct state s = state_at(target, 0);
		s.cx = 1;
		run(&s);
		CHECK_END(s, target);
		s = state_at((u8 *)window + ((ulong)target & 4095), 0);
		s.cx = 1;
		run(&s);
		if (round & 1)
			CHECK_FAULT(s, VEC_DB, NO_ERROR, (ulong)window + offset);
		else
			CHECK_EQ(s.vector, VECTOR_END);
	}
	clear_debug();
}

/* ---- Ports (CR4.DE), and the general detect ---- */

CODE(out_port, "out %al, %dx");
CODE(read_dr, "mov %dr3, " R "ax");

static void ports_and_detect(void)
{
	write_cr4(read_cr4() | CR4_DE);
	write_dr1(0x80);
	write_dr7(dr7_for(1, BP_IO, LENGTH1));
	struct state s = state_at(out_port, 0);
	s.dx = 0x80;
	run(&s);
	CHECK_FAULT(s, VEC_DB, NO_ERROR, out_port_end);
	CHECK_EQ(read_dr6(), DR6_CLEAR | 2);
	s = state_at(out_port, 0);
	s.dx = 0x81;
	run(&s);
	CHECK_END(s, out_port);
	clear_debug();
	write_cr4(read_cr4() & ~CR4_DE);
	if (on_qemu) /* has no general detect */
		return;
	write_dr7(DR7_CLEAR | 1 << 13);
	s = run_code(read_dr, 0);
	CHECK_FAULT(s, VEC_DB, NO_ERROR, read_dr);
	CHECK_EQ(read_dr6(), DR6_CLEAR | DR6_BD);
	CHECK_EQ(read_dr7(), DR7_CLEAR); /* GD is cleared by the exception */
	clear_debug();
}

/* ---- The registers themselves ---- */

CODE(write_dr7_code, "mov " R "ax, %dr7");
CODE(write_dr6_code, "mov " R "ax, %dr6");

static void registers(void)
{
	clear_debug();
	CHECK_EQ(read_dr7(), 0x400);
	CHECK_EQ(read_dr6(), 0xffff0ff0);
	write_dr6(0);
	CHECK_BUT_QEMU(read_dr6() == 0xffff0ff0, "TCG's DR6 has no fixed ones");
	write_dr6(0xffffffff & ~BIT(12));
	CHECK_EQ(read_dr6() & ~0x10800ul, 0xffffefffu & ~0x10800ul); /* bits 11 and 16 belong to newer features */
	write_dr7(0);
	CHECK_EQ(read_dr7(), 0x400);
	write_dr7(0xffff03ff);
	CHECK_EQ(read_dr7(), 0xffff07ff);
	write_dr7(DR7_CLEAR);
	write_dr0((ulong)-1);
	CHECK_EQ(read_dr0(), (ulong)-1);
	write_dr0(0);
	if (sizeof(long) == 8) {
		struct state s = state_at(write_dr7_code, 0);
		s.ax = (ulong)(1ull << 32 | 0x400);
		run(&s);
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, write_dr7_code, "TCG takes the upper half");
		s = state_at(write_dr6_code, 0);
		s.ax = (ulong)(1ull << 32);
		run(&s);
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, write_dr6_code, "TCG takes the upper half");
	}
	clear_debug();
}

/* An interrupt between two steps: the trap of the last instruction is delivered first. */
static void step_before_interrupt(void)
{
	apic_init();
	apic_send_self(0x40);
	struct state s = state_at(simple, 0);
	s.flags |= FLAG_TF;
	write_dr6(DR6_CLEAR);
	s.ip = (ulong)sti_step;
	run(&s);
	CHECK_FAULT(s, VEC_DB, NO_ERROR, sti_step1);
	run(&s); /* IRET with IF set has no shadow: the interrupt comes before the next step */
	CHECK_FAULT(s, 0x40, NO_ERROR, sti_step1);
	apic_eoi();
	clear_debug();
}

void guest_main(void)
{
	window_init();
	registers();
	steps();
	step_strings();
	step_flags();
	execution();
	data_breakpoints();
	data_elsewhere();
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		hot_loop(cpl, BP_WRITE);
		hot_loop(cpl, BP_ACCESS);
	}
	aliases();
	ports_and_detect();
	if (!on_qemu) /* delays the trap by STI's shadow */
		step_before_interrupt();
}
