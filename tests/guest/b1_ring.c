/* MISSION B1: code sees its own privilege level, whatever the machine below it did to run it.
 * Intel SDM volume 2: LAR, LSL, VERR, VERW, ARPL; volume 3, "Segment Protection". */
#include "lib/guest.h"

CODE(read_selectors, "mov %cs, %eax\n mov %ss, %ebx\n mov %ds, %ecx\n mov %es, %edx");

static void selectors_show_cpl(unsigned cpl)
{
	struct state s = run_code(read_selectors, cpl);
	CHECK_END(s, read_selectors);
	CHECK_EQ(s.ax & 0xffff, selector_code(cpl));
	CHECK_EQ(s.bx & 0xffff, selector_data(cpl));
	CHECK_EQ(s.cx & 0xffff, selector_data(cpl));
	CHECK_EQ(s.ax & 3, cpl);
	CHECK_EQ(s.cs & 3, cpl);
	CHECK_EQ(s.ss & 3, cpl);
}

#ifndef __x86_64__
CODE(push_cs, "push %cs\n pop %eax\n pushw %cs\n popw %bx\n push %ss\n pop %ecx");

static void push_shows_cpl(unsigned cpl)
{
	struct state s = run_code(push_cs, cpl);
	CHECK_END(s, push_cs);
	CHECK_EQ(s.ax & 0xffff, selector_code(cpl));
	CHECK_EQ(s.bx & 0xffff, selector_code(cpl));
	CHECK_EQ(s.cx & 0xffff, selector_data(cpl));
}
#endif

/* The four instructions that ask about a descriptor, with CPL and RPL in the question. */
CODE(ask, "lar %esi, %eax\n setz %bl\n lsl %esi, %ecx\n setz %bh\n verr %si\n setz %dl\n verw %si\n setz %dh");

#define UNTOUCHED 0x5a5a5a5au
#define TEST_SELECTOR SEL_FREE

struct question {
	unsigned type, dpl, rpl, cpl; /* type: the low five bits of the access byte */
};

static bool is_code(unsigned type)
{
	return (type & 0x18) == 0x18;
}

static bool privilege_allows(const struct question *q)
{
	bool conforming = is_code(q->type) && (q->type & 4);
	return conforming || (q->cpl <= q->dpl && q->rpl <= q->dpl);
}

/* The table of types in LAR's and LSL's descriptions: bit n set where system type n is valid. */
static bool type_in(unsigned type, unsigned system_types)
{
	return type >= 16 || (system_types >> type & 1);
}

#ifdef __x86_64__
#define LAR_TYPES 0x1a04u /* LDT, TSS, busy TSS, call gate */
#define LSL_TYPES 0x0a04u
#else
#define LAR_TYPES 0x1a3eu /* and the 16-bit ones, and the task gate */
#define LSL_TYPES 0x0a0eu
#endif

static bool readable(unsigned type)
{
	return type >= 16 && !(is_code(type) && !(type & 2));
}

static bool writable(unsigned type)
{
	return type >= 16 && !is_code(type) && (type & 2);
}

static void ask_about(const struct question *q, u64 value, u32 limit)
{
	struct state s = state_at(ask, q->cpl);
	s.si = TEST_SELECTOR | q->rpl;
	s.ax = s.cx = UNTOUCHED;
	gdt_set(TEST_SELECTOR, value);
	run(&s);
	bool allowed = privilege_allows(q);
	bool lar = allowed && type_in(q->type, LAR_TYPES), lsl = allowed && type_in(q->type, LSL_TYPES);
	bool verr = allowed && readable(q->type), verw = allowed && writable(q->type);
	u32 rights = (u32)(value >> 32) & 0xf0ff00; /* bits 19:16 are undefined */
	bool ok = s.vector == VECTOR_END && (s.bx & 1) == lar && (s.bx >> 8 & 1) == lsl && (s.dx & 1) == verr &&
		  (s.dx >> 8 & 1) == verw && (lar ? (s.ax & 0xf0ff00) == rights : s.ax == UNTOUCHED) &&
		  s.cx == (lsl ? limit : UNTOUCHED);
	if (q->type < 16 && !(LAR_TYPES >> q->type & 1))
		CHECK_BUT_QEMU(ok, "TCG knows the 16-bit types in long mode too");
	else
		CHECK(ok);
	if (ok || on_qemu)
		return;
	print("    type %x dpl %u rpl %u cpl %u: want lar %u lsl %u verr %u verw %u\n", q->type, q->dpl, q->rpl, q->cpl,
	      lar, lsl, verr, verw);
	state_print(&s);
}

static void ask_everything(unsigned cpl)
{
	for (unsigned i = 0; i < 32 * 16; i++) {
		struct question q = { .type = i & 31, .dpl = i >> 5 & 3, .rpl = i >> 7, .cpl = cpl };
		unsigned flags = i % 3 == 0 ? DESC_G : 0;
		u32 limit = 0x12345;
		unsigned present = i % 5 ? ACCESS_P : 0; /* none of the four asks for presence */
		u64 value = descriptor(0x123456, limit, present | ACCESS_DPL(q.dpl) | q.type, flags);
		gdt_set(TEST_SELECTOR + 8, 0);
		ask_about(&q, value, flags ? limit << 12 | 0xfff : limit);
	}
}

static void bad_selectors(unsigned cpl)
{
	static const u16 selectors[] = { 0, 3, sizeof(gdt), 0xfff8, 0x4, 0xfffc };
	for (unsigned i = 0; i < ARRAY_SIZE(selectors); i++) {
		struct state s = state_at(ask, cpl);
		s.si = selectors[i];
		s.ax = s.cx = UNTOUCHED;
		run(&s);
		CHECK_END(s, ask);
		CHECK(!(s.bx & 0x101) && !(s.dx & 0x101) && s.ax == UNTOUCHED && s.cx == UNTOUCHED);
	}
}

/* SMSW shows CR0's low word at every level, and all of it into a wide register. */
CODE(machine_status, "smsw %ax\n xor %ebx, %ebx\n not %ebx\n smsw %bx\n smsw %ecx");

static void smsw_shows_cr0(unsigned cpl)
{
	struct state s = run_code(machine_status, cpl);
	CHECK_END(s, machine_status);
	CHECK_EQ(s.ax, read_cr0() & 0xffff);
	CHECK_EQ(s.bx, 0xffff0000u | (read_cr0() & 0xffff));
	CHECK_EQ(s.cx & 0xffff, read_cr0() & 0xffff);
}

#ifndef __x86_64__
CODE(arpl, "arpl %bx, %ax\n setz %cl\n arpl %dx, %ax\n setz %ch");

/* ARPL raises the RPL to the caller's, and says so in ZF. */
static void arpl_adjusts(unsigned cpl)
{
	struct state s = state_at(arpl, cpl);
	s.ax = 0x101;
	s.bx = 3;
	s.dx = 0;
	run(&s);
	CHECK_END(s, arpl);
	CHECK_EQ(s.ax, 0x103);
	CHECK_EQ(s.cx, 1);
}
#endif

void guest_main(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		selectors_show_cpl(cpl);
#ifndef __x86_64__
		push_shows_cpl(cpl);
		arpl_adjusts(cpl);
#endif
		smsw_shows_cr0(cpl);
		bad_selectors(cpl);
		ask_everything(cpl);
	}
}
