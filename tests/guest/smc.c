/* Self-modifying and cross-modifying code: what was written is what runs, whoever wrote it and by whatever address.
 * Intel SDM volume 3, "Self-Modifying Code"; volume 1, "Self-Modifying Code". Processors since the P6 see a store to
 * the next instruction, too, when both use the same linear address. */
#include "lib/window.h"

static u8 code_pages[4][4096] __attribute__((aligned(4096)));

/* In the code under test B is the first byte behind MOV's opcode: its immediate. */
LABEL(next_immediate);
CODE(patch_next, "movb $0x55, (" R "bx)\n .byte 0xb8\n next_immediate: .long 0x11");
LABEL(loop_immediate);
CODE(patch_loop, "xor %edx, %edx\n mov $2000, %ecx\n"
		 "1: .byte 0xb8\n loop_immediate: .long 0\n add %eax, %edx\n incl (" R "bx)\n dec %ecx\n jnz 1b");
CODE(call_it, "call *" R "bx");
LABEL(store_overwritten);
CODE(string_patch, "rep stosb\n store_overwritten: .fill 8, 1, 0xf4"); /* HLT becomes NOP */

static void next_instruction(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		*next_immediate = 0x11;
		struct state s = state_at(patch_next, cpl);
		s.bx = (ulong)next_immediate;
		run(&s);
		CHECK_END(s, patch_next);
		CHECK_EQ(s.ax, 0x55);
	}
}

static void in_a_loop(void)
{
	*(u32 *)loop_immediate = 0;
	struct state s = state_at(patch_loop, 3);
	s.bx = (ulong)loop_immediate;
	run(&s);
	CHECK_END(s, patch_loop);
	CHECK_EQ(s.dx, 1999 * 2000 / 2);
	CHECK_EQ(s.ax, 1999);
}

/* Strings that overwrite the instructions behind them. */
static void by_strings(void)
{
	memset(store_overwritten, 0xf4, 8);
	struct state s = state_at(string_patch, 3);
	s.ax = 0x90;
	s.cx = 8;
	s.di = (ulong)store_overwritten;
	run(&s);
	CHECK_END(s, string_patch);
	CHECK(s.cx == 0 && s.di == (ulong)store_overwritten + 8);
}

/* ---- Code written by the test itself ---- */

/* MOV EAX, value; RET at `at`. */
static unsigned put_function(u8 *at, u32 value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
	return 6;
}

static u32 call_at(const void *address)
{
	struct state s = state_at(call_it, 3);
	s.bx = (ulong)address;
	run(&s);
	CHECK_END(s, call_it);
	return s.ax;
}

static void rewritten_functions(void)
{
	for (u32 i = 0; i < 500; i++) {
		put_function(code_pages[0] + 64 * (i % 8), i);
		put_function(code_pages[1], ~i);
		CHECK(call_at(code_pages[0] + 64 * (i % 8)) == i && call_at(code_pages[1]) == ~i);
	}
}

/* One instruction on two pages, each half changed alone. */
static void across_pages(void)
{
	u8 *at = code_pages[0] + 4096 - 3;
	put_function(at, 0x44332211);
	CHECK_EQ(call_at(at), 0x44332211);
	code_pages[1][0] = 0x99;
	CHECK_EQ(call_at(at), 0x44992211);
	code_pages[0][4095] = 0x88;
	CHECK_EQ(call_at(at), 0x44998811);
	code_pages[1][2] = 0xc3; /* the RET itself */
	code_pages[1][1] = 0x77;
	CHECK_EQ(call_at(at), 0x77998811);
}

/* Code and often-written data in one page. */
CODE(counted, "mov $5000, %ecx\n 1: incl (" R "di)\n call *" R "bx\n dec %ecx\n jnz 1b");

static void data_beside_code(void)
{
	u32 *counter = (u32 *)(code_pages[2] + 2048);
	put_function(code_pages[2], 0x1234);
	*counter = 0;
	struct state s = state_at(counted, 3);
	s.bx = (ulong)code_pages[2];
	s.di = (ulong)counter;
	run(&s);
	CHECK_END(s, counted);
	CHECK(*counter == 5000 && s.ax == 0x1234);
}

/* Pushed over: the stack lies in the code, and PUSH writes the immediate of a function that ran before. */
CODE(push_over,
     "call *" R "bx\n mov %eax, %esi\n xchg " R "di, " R "sp\n pushw %dx\n xchg " R "di, " R "sp\n call *" R "bx");

static void pushed_over_code(void)
{
	put_function(code_pages[3], 0x11111111);
	struct state s = state_at(push_over, 3);
	s.bx = (ulong)code_pages[3];
	s.di = (ulong)code_pages[3] + 3;
	s.dx = 0x7766;
	run(&s);
	CHECK_END(s, push_over);
	CHECK(s.si == 0x11111111 && s.ax == 0x11117766);
}

/* Through another linear address for the same memory. */
static void through_an_alias(void)
{
	window_map(0, code_pages[0], PTE_ALL);
	window_map(1, code_pages[0], PTE_ALL);
	for (u32 i = 0; i < 100; i++) {
		put_function(window + 0x100, i);
		CHECK_EQ(call_at(code_pages[0] + 0x100), i);
		put_function(code_pages[0] + 0x100, i + 1000);
		CHECK_EQ(call_at(window + PAGE + 0x100), i + 1000);
		CHECK_EQ(call_at(window + 0x100), i + 1000);
	}
}

/* The same linear address mapped to other memory. */
static void remapped(void)
{
	put_function(code_pages[0], 10);
	put_function(code_pages[1], 11);
	for (unsigned i = 0; i < 20; i++) {
		window_map(0, code_pages[i & 1], PTE_ALL);
		CHECK_EQ(call_at(window), 10 + (i & 1));
	}
	/* The second page of an instruction mapped elsewhere. */
	put_function(code_pages[0] + 4094, 0x01010101);
	memcpy(code_pages[2], "\x22\x22\x22\xc3", 4);
	memcpy(code_pages[3], "\x33\x33\x33\xc3", 4);
	window_map(0, code_pages[0], PTE_ALL);
	for (unsigned i = 0; i < 20; i++) {
		window_map(1, code_pages[2 + (i & 1)], PTE_ALL);
		CHECK_EQ(call_at(window + 4094), i & 1 ? 0x33333301 : 0x22222201);
	}
}

/* Data mapped elsewhere again and again: more often than a host may have mappings, and no two pages so that they could be one. */
#define FRAMES 64
CODE(mix_pages, "mov $64, %ecx\n 1: rol $3, %eax\n add (" R "bx), %eax\n add $4096, " R "bx\n dec %ecx\n jnz 1b");

static void remapped_often(void)
{
	static u8 frame[FRAMES][PAGE] __attribute__((aligned(4096)));
	u32 wrong = 0;
	for (u32 i = 0; i < FRAMES; i++)
		*(u32 *)frame[i] = i + 1;
	for (u32 round = 0; round < 1100; round++) {
		u32 mixed = 0;
		for (u32 i = 0; i < FRAMES; i++) {
			u32 number = round & 1 ? i * 37 % FRAMES : FRAMES - 1 - i;
			window_map(i, frame[number], PTE_ALL | PTE_A | PTE_D);
			mixed = (mixed << 3 | mixed >> 29) + number + 1;
		}
		struct state s = state_at(mix_pages, 3);
		s.bx = (ulong)window;
		run(&s);
		CHECK_END(s, mix_pages);
		wrong += (u32)s.ax != mixed;
	}
	CHECK_EQ(wrong, 0);
}

/* By a device: port input into code (CMOS byte 0x5f holds what is put there). */
CODE(input_code, "insb");

static void by_port_input(void)
{
	put_function(code_pages[0], 0);
	CHECK_EQ(call_at(code_pages[0]), 0);
	outb(0x70, 0x5f);
	outb(0x71, 0x66);
	outb(0x70, 0x5f);
	struct state s = state_at(input_code, 0);
	s.dx = 0x71;
	s.di = (ulong)code_pages[0] + 1;
	run(&s);
	CHECK_END(s, input_code);
	CHECK_EQ(call_at(code_pages[0]), 0x66);
}

/* Bytes that were no instruction become one, whichever of them changes. */
static void invalid_becomes_valid(void)
{
	u8 *at = code_pages[0] + 4096 - 2; /* on one page, then across two */
	for (unsigned i = 0; i < 2; i++, at -= 64) {
		memcpy(at, "\x0f\x24\x00\xcd", 4);
		at[4] = VECTOR_END;
		struct state s = run_code(at, 3);
		CHECK_FAULT(s, VEC_UD, NO_ERROR, at);
		at[1] = 0x1f; /* NOP (AX) */
		s = run_code(at, 3);
		CHECK_EQ(s.vector, VECTOR_END);
		memcpy(at, "\x66\x66\x0f\x24\x00", 5);
		s = run_code(at, 3);
		CHECK_FAULT(s, VEC_UD, NO_ERROR, at);
		memcpy(at, "\x66\x66\x90\xcd", 4);
		at[4] = VECTOR_END;
		s = run_code(at, 3);
		CHECK_EQ(s.vector, VECTOR_END);
	}
}

/* The same bytes as 32- and 64-bit code: 48 is DEC EAX, or a prefix. */
static void same_bytes_other_mode(void)
{
	static const u8 bytes[] = { 0xb8, 1, 0, 0, 0, 0x48, 0x90, 0xcd, VECTOR_END };
	memcpy(code_pages[0], bytes, sizeof(bytes));
	for (unsigned i = 0; i < 6; i++) {
		bool wide = sizeof(long) == 8 && (i & 1);
		struct state s = state_at(code_pages[0], 3);
		s.cs = wide ? selector_code(3) : selector_code32(3);
		run(&s);
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK_EQ(s.ax, wide ? 1 : 0);
	}
}

void guest_main(void)
{
	window_init();
	remapped_often(); /* while no code was written yet: what is written often does not run in spaces */
	next_instruction();
	in_a_loop();
	by_strings();
	rewritten_functions();
	across_pages();
	data_beside_code();
	pushed_over_code();
	through_an_alias();
	remapped();
	by_port_input();
	invalid_becomes_valid();
	same_bytes_other_mode();
}
