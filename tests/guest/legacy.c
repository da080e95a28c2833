/* Instructions without a 64-bit form: decimal arithmetic over all inputs against the manual's pseudo-code, PUSHA and
 * POPA, BOUND with 16 bits, LES and LDS, segment pushes and pops, direct far pointers, ENTER and LEAVE, SALC, XLAT, and
 * 16-bit operand and address sizes. Intel SDM volume 2, each instruction. */
#include "lib/guest.h"

/* ---- Decimal arithmetic ---- */

CODE(do_daa, "daa");
CODE(do_das, "das");
CODE(do_aaa, "aaa");
CODE(do_aas, "aas");
CODE(do_aam, "aam");
CODE(do_aad, "aad");
CODE(do_aam7, ".byte 0xd4, 7");
CODE(do_aad9, ".byte 0xd5, 9");
CODE(do_salc, ".byte 0xd6");

struct decimal {
	u16 ax;
	bool cf, af;
};

static ulong parity_zero_sign(u8 al)
{
	return (__builtin_popcount(al) & 1 ? 0 : FLAG_PF) | (al ? 0 : FLAG_ZF) | (al & 0x80 ? FLAG_SF : 0);
}

static struct decimal daa(struct decimal d, bool subtract)
{
	u8 al = d.ax, old = al;
	bool cf = false, low = (al & 15) > 9 || d.af, high = old > 0x99 || d.cf;
	if (low) {
		cf = d.cf || (subtract ? al < 6 : al > 0xff - 6);
		al += subtract ? -6 : 6;
	}
	if (high)
		al += subtract ? -0x60 : 0x60;
	return (struct decimal){ (d.ax & 0xff00) | al, high || (subtract && cf), low };
}

static struct decimal aaa(struct decimal d, bool subtract)
{
	bool adjust = (d.ax & 15) > 9 || d.af;
	u16 ax = d.ax;
	if (adjust)
		ax = subtract ? ax - 6 - 0x100 : ax + 0x106;
	return (struct decimal){ ax & 0xff0f, adjust, adjust };
}

static void check_decimal(const void *code, struct decimal in, struct decimal want, ulong flags, ulong mask,
			  const char *name)
{
	struct state s = state_at(code, 3);
	s.ax = 0xabcd0000 | in.ax;
	s.flags |= (in.cf ? FLAG_CF : 0) | (in.af ? FLAG_AF : 0);
	run(&s);
	bool ok = s.vector == VECTOR_END && s.ax == (0xabcd0000 | want.ax) && (s.flags & mask) == (flags & mask);
	CHECK(ok);
	if (!ok) {
		print("    %s of %x cf %u af %u: want %x flags %lx\n", name, in.ax, in.cf, in.af, want.ax,
		      flags & mask);
		state_print(&s);
	}
}

static ulong carry_flags(struct decimal d)
{
	return (d.cf ? FLAG_CF : 0) | (d.af ? FLAG_AF : 0);
}

static void decimal_arithmetic(void)
{
	const ulong most = FLAG_CF | FLAG_AF | FLAG_PF | FLAG_ZF | FLAG_SF, result = FLAG_PF | FLAG_ZF | FLAG_SF;
	for (unsigned i = 0; i < 256 * 4; i++) {
		struct decimal in = { 0x1200 | (i & 0xff), i & 0x100, i & 0x200 };
		struct decimal d = daa(in, false);
		check_decimal(do_daa, in, d, carry_flags(d) | parity_zero_sign(d.ax), most, "DAA");
		d = daa(in, true);
		check_decimal(do_das, in, d, carry_flags(d) | parity_zero_sign(d.ax), most, "DAS");
		d = aaa(in, false);
		check_decimal(do_aaa, in, d, carry_flags(d), FLAG_CF | FLAG_AF, "AAA");
		d = aaa(in, true);
		check_decimal(do_aas, in, d, carry_flags(d), FLAG_CF | FLAG_AF, "AAS");
		d.ax = in.cf ? 0x12ff : 0x1200;
		check_decimal(do_salc, in, d, carry_flags(in), FLAG_CF | FLAG_AF, "SALC");
		if (i >= 256)
			continue;
		d.ax = (i / 10) << 8 | i % 10;
		check_decimal(do_aam, in, d, parity_zero_sign(d.ax), result, "AAM");
		d.ax = (i / 7) << 8 | i % 7;
		check_decimal(do_aam7, in, d, parity_zero_sign(d.ax), result, "AAM 7");
		d.ax = (i + 0x12 * 10) & 0xff;
		check_decimal(do_aad, in, d, parity_zero_sign(d.ax), result, "AAD");
		d.ax = (i + 0x12 * 9) & 0xff;
		check_decimal(do_aad9, in, d, parity_zero_sign(d.ax), result, "AAD 9");
	}
}

/* ---- The stack ---- */

CODE(pusha32, "pushal");
CODE(pusha16, "pushaw");
CODE(popa32, "popal");
CODE(popa16, "popaw");
CODE(push_segments, "push %es\n push %ds\n push %ss\n push %fs\n push %gs\n pushw %es\n pushw %ds");
CODE(pop_segments, "pop %es\n pop %fs\n popw %gs");
CODE(push_sp, "push %esp\n pushw %sp");
CODE(pop_sp, "pop %esp");
CODE(enter0, "enter $16, $0");
CODE(enter3, "enter $8, $3");
CODE(enter16, ".byte 0x66, 0xc8, 4, 0, 2");
CODE(leave32, "leave");
CODE(leave16, ".byte 0x66, 0xc9");

static struct state with_registers(const void *code)
{
	struct state s = state_at(code, 3);
	s.ax = 0xa1a2a3a4;
	s.cx = 0xc1c2c3c4;
	s.dx = 0xd1d2d3d4;
	s.bx = 0xb1b2b3b4;
	s.bp = 0xe1e2e3e4;
	s.si = 0x51525354;
	s.di = 0xf1f2f3f4;
	s.fs = s.gs = 0;
	return s;
}

static void push_and_pop_all(void)
{
	struct state s = with_registers(pusha32), start = s;
	run(&s);
	CHECK_END(s, pusha32);
	const u32 *w = (u32 *)s.sp;
	CHECK(s.sp == start.sp - 32 && w[7] == start.ax && w[6] == start.cx && w[5] == start.dx && w[4] == start.bx);
	CHECK(w[3] == start.sp && w[2] == start.bp && w[1] == start.si && w[0] == start.di);
	s = with_registers(pusha16);
	run(&s);
	CHECK_END(s, pusha16);
	const u16 *h = (u16 *)s.sp;
	CHECK(s.sp == start.sp - 16 && h[7] == 0xa3a4 && h[6] == 0xc3c4 && h[5] == 0xd3d4 && h[4] == 0xb3b4);
	CHECK(h[3] == (u16)start.sp && h[2] == 0xe3e4 && h[1] == 0x5354 && h[0] == 0xf3f4);
	s = with_registers(popa32);
	u32 *stack = (u32 *)(s.sp - 64);
	for (u32 i = 0; i < 8; i++)
		stack[i] = 0x11111111 * (i + 1);
	s.sp = (ulong)stack;
	run(&s);
	CHECK_END(s, popa32);
	CHECK(s.di == 0x11111111 && s.si == 0x22222222 && s.bp == 0x33333333 &&
	      s.bx == 0x55555555); /* ESP's is thrown away */
	CHECK(s.dx == 0x66666666 && s.cx == 0x77777777 && s.ax == 0x88888888 && s.sp == (ulong)stack + 32);
	s = with_registers(popa16);
	s.sp = (ulong)stack;
	run(&s);
	CHECK_END(s, popa16);
	CHECK(s.di == 0xf1f21111 && s.si == 0x51521111 && s.bp == 0xe1e22222 && s.bx == 0xb1b23333 &&
	      s.dx == 0xd1d23333);
	CHECK(s.cx == 0xc1c24444 && s.ax == 0xa1a24444 && s.sp == (ulong)stack + 16);
}

static void segment_pushes(void)
{
	struct state s = with_registers(push_segments);
	s.fs = SEL_USER_DATA | 3;
	ulong sp = s.sp;
	run(&s);
	CHECK_END(s, push_segments);
	CHECK_EQ(s.sp, sp - 24);
	const u16 *h = (u16 *)s.sp;
	CHECK(h[0] == (SEL_USER_DATA | 3) && h[1] == (SEL_USER_DATA | 3) && h[2] == 0 && h[4] == (SEL_USER_DATA | 3));
	s = with_registers(pop_segments);
	u32 *stack = (u32 *)(s.sp - 64);
	stack[0] = 0xffff0000 | SEL_USER_DATA | 3; /* the upper half does not matter */
	stack[1] = 3;
	*(u16 *)(stack + 2) = SEL_USER_DATA | 3;
	s.sp = (ulong)stack;
	run(&s);
	CHECK_END(s, pop_segments);
	CHECK(s.es == (SEL_USER_DATA | 3) && s.fs == 3 && s.gs == (SEL_USER_DATA | 3) && s.sp == (ulong)stack + 10);
	s = with_registers(push_sp); /* the value before the push */
	run(&s);
	CHECK_END(s, push_sp);
	CHECK(*(u32 *)(s.sp + 2) == sp && *(u16 *)s.sp == (u16)(sp - 4));
	s = with_registers(pop_sp);
	*(u32 *)s.sp = sp - 128;
	run(&s);
	CHECK_END(s, pop_sp);
	CHECK_EQ(s.sp, sp - 128);
}

static void frames(void)
{
	struct state s = with_registers(enter0);
	ulong sp = s.sp;
	run(&s);
	CHECK_END(s, enter0);
	CHECK(s.bp == sp - 4 && s.sp == sp - 20 && *(u32 *)s.bp == 0xe1e2e3e4);
	s = with_registers(enter3);
	u32 *frame = (u32 *)(sp - 1024);
	frame[-1] = 0x1001;
	frame[-2] = 0x1002;
	s.bp = (ulong)frame;
	run(&s);
	CHECK_END(s, enter3);
	const u32 *w = (u32 *)s.bp;
	CHECK(s.bp == sp - 4 && w[0] == (u32)(ulong)frame && w[-1] == 0x1001 && w[-2] == 0x1002 && w[-3] == sp - 4);
	CHECK_EQ(s.sp, sp - 16 - 8);
	s = with_registers(enter16);
	s.bp = (ulong)frame;
	*(u16 *)((u8 *)frame - 2) = 0x4321;
	run(&s);
	CHECK_END(s, enter16);
	CHECK((u16)s.bp == (u16)(sp - 2) && s.sp == sp - 6 - 4 && *(u16 *)(sp - 4) == 0x4321 &&
	      *(u16 *)(sp - 6) == (u16)(sp - 2));
	s = with_registers(leave32);
	s.bp = sp - 100;
	*(u32 *)(sp - 100) = 0x77778888;
	run(&s);
	CHECK_END(s, leave32);
	CHECK(s.bp == 0x77778888 && s.sp == sp - 96);
	s = with_registers(leave16);
	s.bp = sp - 100;
	run(&s);
	CHECK_END(s, leave16);
	CHECK((u16)s.bp == 0x8888 && s.bp >> 16 == (sp - 100) >> 16 && s.sp == sp - 98);
}

/* A 16-bit stack segment: only SP moves. */
static void stack_of_16_bits(void)
{
	gdt_set(SEL_FREE, descriptor(0x40000, 0xffff, ACCESS_DATA | ACCESS_DPL(3), 0));
	struct state s = with_registers(pusha32);
	s.ss = SEL_FREE | 3;
	s.sp = 0x12340010;
	run(&s);
	CHECK_END(s, pusha32);
	CHECK_EQ((u16)s.sp, 0xfff0); /* the IRET that came here loaded SP alone, too */
	CHECK(*(u32 *)(0x40000 + 0x0c) == 0xa1a2a3a4 && *(u32 *)(0x40000 + 0xfff0) == 0xf1f2f3f4);
}

/* ---- The rest ---- */

CODE(les, "les (%edi), %ecx");
CODE(lds16, "ldsw (%edi), %cx");
CODE(bound16, "bound %ax, (%edi)");
CODE(xlat, "xlat");
CODE(xlat_fs16, ".byte 0x67, 0x64, 0xd7");
CODE(jump_far, ".byte 0xea\n .long 1f\n .word 0x23\n hlt\n 1:");
CODE(call_far, ".byte 0x9a\n .long 1f\n .word 0x23\n jmp 2f\n 1: mov $0x77, %eax\n lret\n 2: nop");
CODE(loops, "mov $0x10003, %ecx\n xor %eax, %eax\n 1: inc %eax\n addr16 loop 1b\n mov %ecx, %edx\n"
	    "mov $0x10000, %ecx\n jcxz 2f\n mov $0xbad, %ebx\n 2: jecxz 3f\n jmp 4f\n 3: mov $0xbad, %ebx\n 4:");
CODE(jump_16bit_operand, ".byte 0x66, 0xe9, 0, 0\n nop");
CODE(short_addresses,
     "mov $0x20, %bx\n mov $8, %si\n mov $4, %di\n mov $0x40, %bp\n mov (%bx,%si), %eax\n mov 2(%bp,%di), %ecx\n"
     "lea -0x30(%bx), %edx");

static void the_rest(void)
{
	static u8 table[256] = { [0x5a] = 0xa5 };
	struct __attribute__((packed)) {
		u32 offset;
		u16 selector;
	} far = { 0x12345678, SEL_USER_DATA | 3 };
	struct state s = with_registers(les);
	s.di = (ulong)&far;
	run(&s);
	CHECK_END(s, les);
	CHECK(s.cx == 0x12345678 && s.es == (SEL_USER_DATA | 3));
	u16 far16[2] = { 0xabcd, 3 };
	s = with_registers(lds16);
	s.di = (ulong)far16;
	run(&s);
	CHECK_END(s, lds16);
	CHECK(s.cx == 0xc1c2abcd && s.ds == 3);
	const u16 range[2] = { (u16)-5, 5 };
	for (int value = -7; value < 8; value++) {
		s = with_registers(bound16);
		s.ax = 0x10000 | (u16)value;
		s.di = (ulong)range;
		run(&s);
		CHECK_EQ(s.vector, value < -5 || value > 5 ? VEC_BR : VECTOR_END);
	}
	s = with_registers(xlat);
	s.ax = 0x1234565a;
	s.bx = (ulong)table;
	run(&s);
	CHECK_END(s, xlat);
	CHECK_EQ(s.ax, 0x123456a5);
	gdt_set(SEL_FREE, descriptor((ulong)table - 0x1234, 0xfffff, ACCESS_DATA | ACCESS_DPL(3), DESC_G | DESC_DB));
	s = with_registers(xlat_fs16);
	s.ax = 0x5a;
	s.bx = 0xffff1234;
	s.fs = SEL_FREE | 3;
	run(&s);
	CHECK_END(s, xlat_fs16);
	CHECK_EQ(s.ax, 0xa5);
	s = with_registers(jump_far);
	run(&s);
	CHECK_END(s, jump_far);
	s = with_registers(call_far);
	run(&s);
	CHECK_END(s, call_far);
	CHECK_EQ(s.ax, 0x77);
	s = with_registers(loops);
	run(&s);
	CHECK_END(s, loops);
	CHECK(s.ax == 3 && s.dx == 0x10000 && s.bx == 0xb1b2b3b4);
	u8 *low = (u8 *)((ulong)(jump_16bit_operand + 4) & 0xffff); /* a 16-bit operand size cuts EIP */
	low[0] = 0xcd;
	low[1] = VECTOR_END;
	s = with_registers(jump_16bit_operand);
	run(&s);
	CHECK(s.vector == VECTOR_END && s.ip == (ulong)low + 2);
}

/* 16-bit addressing through a segment at 0x40000; BP addresses the stack segment. */
static void sixteen_bit_addressing(void)
{
	gdt_set(SEL_FREE, descriptor(0x40000, 0xffff, ACCESS_DATA | ACCESS_DPL(3), DESC_DB));
	gdt_set(SEL_FREE + 8, descriptor(0x50000, 0xffff, ACCESS_DATA | ACCESS_DPL(3), DESC_DB));
	*(u32 *)(0x40000 + 0x28) = 0x11112222;
	*(u32 *)(0x50000 + 0x46) = 0x33334444;
	struct state s = with_registers(short_addresses);
	s.ds = SEL_FREE | 3;
	s.ss = (SEL_FREE + 8) | 3;
	s.sp = 0x8000;
	run(&s);
	CHECK_END(s, short_addresses);
	CHECK(s.ax == 0x11112222 && s.cx == 0x33334444 && s.dx == 0xfff0);
}

void guest_main(void)
{
	decimal_arithmetic();
	push_and_pop_all();
	segment_pushes();
	frames();
	stack_of_16_bits();
	the_rest();
	sixteen_bit_addressing();
}
