/* MISSION E7: memory-mapped registers behind every kind of instruction. The local APIC's task priority is the register:
 * it keeps eight bits. Beside it: holes in the address space, and accesses that begin in memory and end in a device. */
#include "lib/apic.h"
#include "lib/window.h"

#define TPR (APIC_BASE + APIC_TPR)

/* B is the register's address. */
CODE(do_mov, "mov (" R "bx), %ecx\n movl $0x21, (" R "bx)\n mov (" R "bx), %edx\n mov %edx, %eax");
CODE(do_alu,
     "movl $0x10, (" R "bx)\n addl $0x22, (" R "bx)\n orl $0x04, (" R "bx)\n incl (" R "bx)\n xorl $0x01, (" R "bx)\n"
     "notl (" R "bx)\n notl (" R "bx)\n mov (" R "bx), %eax\n subl $0x6, (" R "bx)\n mov (" R "bx), %ecx");
CODE(do_shift,
     "movl $0x11, (" R "bx)\n shll $2, (" R "bx)\n mov (" R "bx), %eax\n btsl $1, (" R "bx)\n mov (" R "bx), %ecx\n"
     "btrl $2, (" R "bx)\n mov (" R "bx), %edx");
CODE(do_exchange,
     "movl $0x33, (" R "bx)\n mov $0x44, %ecx\n xchg %ecx, (" R "bx)\n mov $0x11, %edx\n lock xadd %edx, (" R "bx)\n"
     "mov $0x55, %eax\n mov $0x66, %esi\n lock cmpxchg %esi, (" R "bx)\n setz %al\n movzx %al, %eax\n mov (" R
     "bx), %edi");
CODE(do_compare,
     "movl $0x30, (" R "bx)\n cmpl $0x30, (" R "bx)\n setz %al\n testl $0x20, (" R "bx)\n setnz %cl\n cmp $0x31, %edx\n"
     "mov $0x30, %edx\n cmp (" R "bx), %edx\n setz %dl");
CODE(do_stack, "movl $0x42, (" R "bx)\n push" SUFFIX " (" R "bx)\n pop " R "ax\n push $0x53\n pop" SUFFIX " (" R
	       "bx)\n mov (" R "bx), %ecx");
CODE(do_strings, "movl $0x61, (" R "bx)\n mov " R "bx, " R "si\n mov " R "bp, " R "di\n movsl\n mov (" R "bp), %eax\n"
		 "movl $0x72, (" R "bp)\n mov " R "bp, " R "si\n mov " R "bx, " R "di\n movsl\n mov (" R "bx), %ecx\n"
		 "mov " R "bx, " R "di\n mov $0x83, %eax\n stosl\n mov " R "bx, " R "si\n lodsl\n mov %eax, %edx");
CODE(do_vector,
     "movl $0x74, (" R "bx)\n movd (" R "bx), %xmm1\n movd %xmm1, %eax\n mov $0x85, %ecx\n movd %ecx, %xmm2\n"
     "movd %xmm2, (" R "bx)\n mov (" R "bx), %ecx");
CODE(do_multiply, "movl $0x91, (" R "bx)\n imul $2, (" R "bx), %esi\n mov $3, %eax\n mull (" R "bx)");

static struct state with_register(const void *code, unsigned cpl)
{
	struct state s = state_at(code, cpl);
	static u32 scratch[4];
	apic_write(APIC_TPR, 0);
	s.bx = TPR;
	s.bp = (ulong)scratch;
	run(&s);
	return s;
}

static void general(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		struct state s = with_register(do_mov, cpl);
		CHECK_END(s, do_mov);
		CHECK(s.cx == 0 && s.dx == 0x21);
		s = with_register(do_alu, cpl);
		CHECK_END(s, do_alu);
		CHECK_EQ(s.ax, (((0x10 + 0x22) | 4) + 1) ^ 1);
		CHECK_EQ(s.cx, s.ax - 6);
		s = with_register(do_shift, cpl);
		CHECK_END(s, do_shift);
		CHECK(s.ax == 0x44 && s.cx == 0x46 && s.dx == 0x42);
		s = with_register(do_exchange, cpl);
		CHECK_END(s, do_exchange);
		CHECK(s.cx == 0x33 && s.dx == 0x44 && s.ax == 1 && s.di == 0x66);
		s = with_register(do_compare, cpl);
		CHECK_END(s, do_compare);
		CHECK((s.ax & 0xff) == 1 && (s.cx & 0xff) == 1 && (s.dx & 0xff) == 1);
		s = with_register(do_strings, cpl);
		CHECK_END(s, do_strings);
		CHECK(s.ax == 0x83 && s.cx == 0x72 && s.dx == 0x83);
		CHECK(s.si == TPR + 4 && s.di == TPR + 4);
		s = with_register(do_multiply, cpl);
		CHECK_END(s, do_multiply);
		CHECK(s.si == 0x122 && s.ax == 0x1b3 && s.dx == 0);
		s = with_register(do_vector, cpl);
		CHECK_END(s, do_vector);
		CHECK(s.ax == 0x74 && s.cx == 0x85);
		if (sizeof(long) == 8)
			continue; /* eight bytes of an APIC register are undefined */
		s = with_register(do_stack, cpl);
		CHECK_END(s, do_stack);
		CHECK(s.ax == 0x42 && s.cx == 0x53);
	}
	apic_write(APIC_TPR, 0);
}

/* ---- Nothing there: reads give ones, writes go nowhere ---- */

#define HOLE 0xd0000000ul

CODE(read_hole,
     "mov (" R "bx), %al\n mov 2(" R "bx), %cx\n mov 4(" R "bx), %edx\n movl $0, 4(" R "bx)\n mov 4(" R "bx), %esi\n"
     "mov 1(" R "bx), %edi");

static void hole(void)
{
	struct state s = state_at(read_hole, 0);
	s.bx = HOLE;
	run(&s);
	CHECK_END(s, read_hole);
	CHECK_BUT_QEMU((s.ax & 0xff) == 0xff && (s.cx & 0xffff) == 0xffff && s.dx == 0xffffffff && s.si == 0xffffffff &&
			       s.di == 0xffffffff,
		       "TCG's bus reads zeros");
}

/* ---- Half memory, half device: page 0 of the window is memory, page 1 the hole or the APIC ---- */

CODE(read_straddling, "mov (" R "bx), %eax");
CODE(write_straddling, "mov %eax, (" R "bx)");
CODE(copy_straddling, "rep movsb");

static void straddling(void)
{
	static u8 memory[4096] __attribute__((aligned(4096)));
	window_map(0, memory, PTE_ALL);
	window_map(1, (void *)HOLE, PTE_ALL);
	for (unsigned inside = 1; inside < 4; inside++) {
		memset(memory + 4092, 0x11, 4);
		struct state s = state_at(read_straddling, 0);
		s.bx = (ulong)window + PAGE - inside;
		run(&s);
		CHECK_END(s, read_straddling);
		u32 mask = 0xffffffffu >> (32 - 8 * inside);
		CHECK_EQ(s.ax & mask, 0x11111111 & mask);
		CHECK_BUT_QEMU((s.ax | mask) == 0xffffffff, "TCG's bus reads zeros");
		s = state_at(write_straddling, 0);
		s.bx = (ulong)window + PAGE - inside;
		s.ax = 0x22222222;
		run(&s);
		CHECK_END(s, write_straddling);
		CHECK(memory[4096 - inside] == 0x22 && memory[4095] == 0x22 && memory[4095 - inside] != 0x22);
	}
	struct state s = state_at(copy_straddling, 0);
	s.si = (ulong)window + PAGE - 8;
	s.di = (ulong)memory;
	s.cx = 16;
	run(&s);
	CHECK_END(s, copy_straddling);
	CHECK(s.cx == 0 && memory[7] == 0x22);
	CHECK_BUT_QEMU(memory[8] == 0xff && memory[15] == 0xff, "TCG's bus reads zeros");
}

/* Execution from where there is no memory: whatever comes, the machine stays alive; all ones are an invalid opcode. */
static void executing(void)
{
	if (on_qemu)
		return;
	struct state s = state_at((void *)HOLE, 0);
	run(&s);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, HOLE);
}

void guest_main(void)
{
	window_init();
	write_cr4(read_cr4() | CR4_OSFXSR);
	apic_init();
	general();
	hole();
	straddling();
	executing();
}
