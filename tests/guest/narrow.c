/* Code segments of 16 and 32 bits that are not flat: instruction pointers that wrap or leave the segment, counting in CX, one page of code at
 * two bases, 16-bit stacks, data segments with a base. Each piece of code runs several times, as an engine that keeps what it knows of code
 * must do it right the second time, too. Intel SDM volume 2, JMP, Jcc, CALL, RET, LOOP; volume 3, "Limit Checking". */
#include "lib/guest.h"

#define TEST_SELECTOR SEL_FREE
#define RUNS 3
#define AREA_SIZE 0x12000
#define INT3 0xcc
#define END 0xcd, VECTOR_END /* INT */

static u8 area[AREA_SIZE] __attribute__((aligned(4096)));

/* A piece of code: where in the area, and its bytes. */
struct piece {
	u32 at;
	u8 size, bytes[12];
};
#define PIECE(where, ...) { where, sizeof((u8[]){ __VA_ARGS__ }), { __VA_ARGS__ } }

static void place(const struct piece *piece)
{
	memcpy(area + piece->at, piece->bytes, piece->size);
}

/* A state that starts at an offset of a code segment which begins `base` bytes into the area. */
static struct state start(u32 base, u32 limit, bool code32, u32 ip)
{
	gdt_set(TEST_SELECTOR, descriptor((u32)(ulong)area + base, limit, ACCESS_CODE | ACCESS_DPL(3), code32 ? DESC_DB : 0));
	struct state s = state_at(NULL, 3);
	s.cs = TEST_SELECTOR | 3;
	s.ip = ip;
	return s;
}

/* ---- where jumps lead ---- */

struct jump {
	struct piece from, to;
	u32 base; /* of the segment in the area */
	u32 limit;
	bool code32;
	u32 ip; /* where it starts */
	u32 end; /* where it ends: behind the INT */
	u32 cx, cx_after, ax_after, sp_moved;
};

/* What is not written is INT3. */
static const struct jump jumps[] = {
	/* JMP SHORT below IP 0, to the end of 64 KBytes, though the page begins before the segment does; and the other way. */
	{ PIECE(0x238, 0xeb, 0xee), PIECE(0x1022a - 2, 0x40, 0x40, 0x40, END), 0x234, 0xffff, false, 4, 0xfff9, 0, 0, 3, 0 },
	{ PIECE(0x1022a, 0xeb, 0x10), PIECE(0x23c, 0x40, END), 0x234, 0xffff, false, 0xfff6, 0xb, 0, 0, 1, 0 },
	{ PIECE(0x238, 0x75, 0xee), PIECE(0x1022a - 2, 0x40, 0x40, 0x40, END), 0x234, 0xffff, false, 4, 0xfff9, 0, 0, 3, 0 },
	/* CALL the same way */
	{ PIECE(0x238, 0xe8, 0xed, 0xff), PIECE(0x1022a - 2, 0x40, 0x40, 0x40, END), 0x234, 0xffff, false, 4, 0xfff9, 0, 0, 3, 2 },
	/* LOOP and its kin */
	{ PIECE(0x100, 0x40, 0xe2, 0xfd, END), {}, 0, 0xffff, false, 0x100, 0x105, 0x70003, 0x70000, 3, 0 },
	{ PIECE(0x100, 0x40, 0x67, 0xe2, 0xfc, END), {}, 0, 0xffff, false, 0x100, 0x106, 3, 0, 3, 0 },
	{ PIECE(0x100, 0x40, 0xe1, 0xfd, END), {}, 0, 0xffff, false, 0x100, 0x105, 0x70003, 0x70002, 1, 0 },
	{ PIECE(0x100, 0x40, 0xe0, 0xfd, END), {}, 0, 0xffff, false, 0x100, 0x105, 0x70003, 0x70000, 3, 0 },
	{ PIECE(0x100, 0xe3, 1, 0x40, 0x40, END), {}, 0, 0xffff, false, 0x100, 0x106, 0x70000, 0x70000, 1, 0 },
	{ PIECE(0x100, 0xe3, 1, 0x40, 0x40, END), {}, 0, 0xffff, false, 0x100, 0x106, 1, 1, 2, 0 },
	{ PIECE(0x100, 0x67, 0xe3, 1, 0x40, 0x40, END), {}, 0, 0xffff, false, 0x100, 0x107, 0x70000, 0x70000, 2, 0 },
	{ PIECE(0x100, 0x67, 0xe2, 0xfd, 0x40, END), {}, 0, 0xffff, true, 0x100, 0x106, 0x70001, 0x70000, 1, 0 },
	/* CALL and RET of 16 and of 32 bits */
	{ PIECE(0x100, 0xe8, 3, 0, 0x40, END), PIECE(0x106, 0x40, 0xc3), 0, 0xffff, false, 0x100, 0x106, 0, 0, 2, 0 },
	{ PIECE(0x100, 0x66, 0xe8, 3, 0, 0, 0, 0x40, END), PIECE(0x109, 0x40, 0x66, 0xc3), 0, 0xffff, false, 0x100, 0x109, 0, 0, 2, 0 },
	{ PIECE(0x100, 0x66, 0xe8, 3, 0, 0x40, END), PIECE(0x107, 0x40, 0x66, 0xc3), 0, 0xffff, true, 0x100, 0x107, 0, 0, 2, 0 },
	{ PIECE(0x100, 0xe8, 3, 0, 0, 0, 0x40, END), PIECE(0x108, 0x40, 0xc2, 8, 0), 0, 0xffff, true, 0x100, 0x108, 0, 0, 2, (u32)-8 },
	/* 16-bit jumps of 32-bit code lose the upper half of EIP. */
	{ PIECE(0x10100, 0x66, 0xe9, 0, 1), PIECE(0x204, 0x40, END), 0, 0x11fff, true, 0x10100, 0x207, 0, 0, 1, 0 },
	{ PIECE(0x10100, 0x66, 0x0f, 0x85, 0, 1), PIECE(0x205, 0x40, END), 0, 0x11fff, true, 0x10100, 0x208, 0, 0, 1, 0 },
	{ PIECE(0x10100, 0xeb, 2), PIECE(0x10104, 0x40, END), 0, 0x11fff, true, 0x10100, 0x10107, 0, 0, 1, 0 },
	/* So do all jumps of 16-bit code above 64 KBytes. */
	{ PIECE(0x10100, 0xeb, 2), PIECE(0x104, 0x40, END), 0, 0x11fff, false, 0x10100, 0x107, 0, 0, 1, 0 },
	{ PIECE(0x10100, 0x75, 0x10), PIECE(0x112, 0x40, END), 0, 0x11fff, false, 0x10100, 0x115, 0, 0, 1, 0 },
};

static void jumps_lead(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(jumps) * RUNS; i++) {
		const struct jump *j = &jumps[i / RUNS];
		if (i % RUNS == 0) {
			memset(area, INT3, sizeof(area));
			place(&j->from);
			place(&j->to);
		}
		struct state s = start(j->base, j->limit, j->code32, j->ip);
		ulong sp = s.sp;
		s.cx = j->cx;
		run(&s);
		bool ok = s.vector == VECTOR_END && s.ip == j->end && s.cx == j->cx_after && s.ax == j->ax_after && sp - s.sp == j->sp_moved;
		bool wraps = !j->code32 && (j->base || j->limit > 0xffff);
		if (wraps)
			CHECK_BUT_QEMU(ok, "TCG does not cut IP to 16 bits");
		else
			CHECK(ok);
		if (!ok && !(wraps && on_qemu)) {
			print("    jump %u\n", i / RUNS);
			state_print(&s);
		}
	}
}

/* ---- beyond the limit ---- */

#define QEMU_LIMITS "TCG does not check limits of code segments"

/* At 0x100 of a 32-bit segment, a branch to what lies behind its limit. */
static void beyond(const char *name, const u8 *code, unsigned size, u32 limit, u32 target_at)
{
	u32 target = limit + 1 - (0x100 + target_at + 4);
	memset(area, INT3, sizeof(area));
	memcpy(area + 0x100, code, size);
	if (target_at)
		memcpy(area + 0x100 + target_at, &target, 4);
	for (unsigned i = 0; i < RUNS; i++) {
		struct state s = start(0, limit, true, 0x100);
		*(u32 *)s.sp = limit + 1; /* for RET */
		ulong sp = s.sp;
		s.ax = limit + 1;
		s.cx = 0x7777;
		s.flags |= FLAG_CF;
		run(&s);
		bool ok = s.vector == VEC_GP && s.error == 0 && s.ip == 0x100 && s.sp == sp && s.cx == 0x7777 && s.ax == limit + 1;
		CHECK_BUT_QEMU(ok, QEMU_LIMITS);
		if (!ok && !on_qemu) {
			print("    %s, limit %x\n", name, limit);
			state_print(&s);
		}
	}
}

static void runs_out(u32 limit)
{
	memset(area, INT3, sizeof(area));
	area[limit - 1] = area[limit] = 0x40; /* INC EAX */
	for (unsigned i = 0; i < RUNS; i++) {
		struct state s = start(0, limit, true, limit - 1);
		run(&s);
		CHECK_BUT_QEMU(s.vector == VEC_GP && s.error == 0 && s.ip == limit + 1 && s.ax == 2, QEMU_LIMITS);
	}
	area[limit] = INT3;
	for (unsigned i = 0; i < RUNS; i++) {
		struct state s = start(0, limit, true, limit - 1);
		run(&s);
		CHECK(s.vector == VEC_BP && s.ip == limit + 1 && s.ax == 1);
	}
}

static void limits(void)
{
	static const u8 jmp[] = { 0xe9, 0, 0, 0, 0 }, jc[] = { 0x0f, 0x82, 0, 0, 0, 0 }, call[] = { 0xe8, 0, 0, 0, 0 }, ret[] = { 0xc3 },
			ret8[] = { 0xc2, 8, 0 }, jmp_ax[] = { 0xff, 0xe0 }, call_ax[] = { 0xff, 0xd0 };
	static const u32 ends[] = { 0x1fff, 0x17ff, 0xfff, 0x7ff };
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
		beyond("jmp", jmp, sizeof(jmp), ends[i], 1);
		beyond("jc", jc, sizeof(jc), ends[i], 2);
		beyond("call", call, sizeof(call), ends[i], 1);
		beyond("ret", ret, sizeof(ret), ends[i], 0);
		beyond("ret 8", ret8, sizeof(ret8), ends[i], 0);
		beyond("jmp *eax", jmp_ax, sizeof(jmp_ax), ends[i], 0);
		beyond("call *eax", call_ax, sizeof(call_ax), ends[i], 0);
		runs_out(ends[i]);
	}
	/* LOOP at the end of the last page but one: CX stays. */
	memset(area, INT3, sizeof(area));
	memcpy(area + 0xfe0, (u8[]){ 0xe2, 0x20 }, 2);
	for (unsigned i = 0; i < RUNS; i++) {
		struct state s = start(0, 0xfff, true, 0xfe0);
		s.cx = 5;
		run(&s);
		CHECK_BUT_QEMU(s.vector == VEC_GP && s.ip == 0xfe0 && s.cx == 5, QEMU_LIMITS);
	}
}

/* ---- one page at several bases ---- */

static void bases(void)
{
	static const struct piece code = PIECE(0x300, 0xe8, 0, 0, 0x58, 0x40, END); /* call 1f; 1: pop ax; inc ax; int */
	memset(area, INT3, sizeof(area));
	place(&code);
	for (unsigned i = 0; i < 12; i++) {
		u32 base = (i * 7 % 4) * 0x90;
		struct state s = start(base, 0xffff, false, 0x300 - base);
		run(&s);
		CHECK(s.vector == VECTOR_END && s.ip == 0x307 - base && s.ax == 0x304 - base);
	}
	/* The same bytes as 32-bit code: CALL takes four bytes more than it has here. */
	static const struct piece both = PIECE(0x400, 0xb8, 0x11, 0x22, 0x40, 0x40, 0x40, END); /* mov ax or eax, imm; inc (three or one) */
	place(&both);
	for (unsigned i = 0; i < 8; i++) {
		struct state s = start(0, 0xffff, i & 1, 0x400);
		run(&s);
		CHECK(s.vector == VECTOR_END && s.ip == 0x408 && s.ax == (i & 1 ? 0x40402212 : 0x2214));
	}
}

/* ---- stacks and data ---- */

CODE(stack_16, "mov $0xabcd0006, %esp\n push %eax\n pushw %ax\n call 1f\n popw %bx\n pop %ecx\n jmp 2f\n 1: push %ebp\n mov %sp, %bp\n movzwl %bp, %edx\n leave\n ret\n 2: nop");
CODE(data_based, "mov %ds:4(%ebx), %eax\n addr16 mov %ds:4(%bx,%si), %ecx\n incl %ds:8\n mov %ah, %ds:0x10\n add %ds:0x11, %bh\n addw $2, %ds:0x12");

static void stacks(void)
{
	for (unsigned i = 0; i < RUNS; i++) {
		memset(area, 0, 0x100);
		gdt_set(TEST_SELECTOR, descriptor((u32)(ulong)area, 0xffff, ACCESS_DATA | ACCESS_DPL(3), 0));
		struct state s = state_at(stack_16, 3);
		s.ss = TEST_SELECTOR | 3;
		s.sp = 0x100; /* the code sets it: IRET to a 16-bit stack loads 16 bits. It wraps below 0, between operands. */
		s.bp = 0x76540000;
		s.ax = 0x12345678;
		run(&s);
		CHECK_END(s, stack_16);
		CHECK(s.sp == 0xabcd0006 && s.bp == 0x76540000 && (u16)s.bx == 0x5678 && s.cx == 0x12345678 && s.dx == 0xfff8);
		CHECK(*(u32 *)(area + 2) == 0x12345678 && *(u16 *)area == 0x5678 && *(u32 *)(area + 0xfff8) == 0x76540000);
	}
}

static void data(void)
{
	for (unsigned i = 0; i < RUNS; i++) {
		memset(area, 0, 0x100);
		*(u32 *)(area + 0x24) = 0x11223344;
		*(u32 *)(area + 0x14) = 0x55667788;
		area[0x11] = 3;
		gdt_set(TEST_SELECTOR, descriptor((u32)(ulong)area, 0x2f, ACCESS_DATA | ACCESS_DPL(3), 0));
		struct state s = state_at(data_based, 3);
		s.ds = TEST_SELECTOR | 3;
		s.bx = 0x20;
		s.si = 0x1234fff0;
		run(&s);
		CHECK_END(s, data_based);
		CHECK(s.ax == 0x11223344 && s.cx == 0x55667788 && area[8] == 1 && area[0x10] == 0x33 && s.bx == 0x320 && area[0x12] == 2);
		s = state_at(data_based, 3);
		s.ds = TEST_SELECTOR | 3;
		s.bx = 0x29; /* one byte too far */
		run(&s);
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, data_based, "TCG does not check limits");
	}
}

void guest_main(void)
{
	jumps_lead();
	limits();
	bases();
	stacks();
	data();
	finish();
}
