/* Every exception that a few instructions can cause: vector, error code, and whether the saved instruction pointer is
 * that of the instruction (fault) or the next one (trap); then the order in which exceptions of one instruction are
 * found. Intel SDM volume 3, "Exception and Interrupt Reference", "Priority Among Simultaneous Exceptions and
 * Interrupts". #PF, #DF, #MF, #XM and #DB beyond INT1 have their own guests. */
#include "lib/guest.h"

#define UNMAPPED_SELECTOR SEL_FREE
#define ALL_CPLS 0xfu

struct cause {
	const u8 *code;
	const u8 *ip; /* what the frame shows */
	unsigned vector;
	ulong error;
	unsigned cpls; /* bit n: at CPL n */
	ulong ax, bx, dx, set_cr0, flags;
	const char *qemu; /* why TCG fails */
};

#define QEMU_LOCK "TCG accepts LOCK MOV and CMP, and checks privilege before LOCK"
#define QEMU_ALIGNMENT "TCG has no alignment check"
#define QEMU_IDT "TCG's error code of IDT entries in long mode is vector * 16 + 2"

#define FAULT(name, vector, error, cpls, ...)                                                                          \
	{                                                                                                              \
		name, name, vector, error, cpls, ##__VA_ARGS__                                                         \
	}
#define TRAP(name, vector, error, cpls, ...)                                                                           \
	{                                                                                                              \
		name, name##_next, vector, error, cpls, ##__VA_ARGS__                                                  \
	}

LABEL(int1_next);
LABEL(int3_next);
LABEL(int3_long_next);
CODE(div_zero, "div %bl");
CODE(div_overflow, "div %bl");
CODE(idiv_overflow, "idiv %ebx");
CODE(idiv_minimum, "idiv %ebx");
CODE(int1, ".byte 0xf1\n int1_next:");
CODE(int3, "int3\n int3_next:");
CODE(int3_long, ".byte 0xcd, 3\n int3_long_next:");
CODE(undefined, "ud2");
CODE(undefined1, "ud1 %eax, %eax");
CODE(lock_mov, ".byte 0xf0, 0x89, 0x03");      /* LOCK MOV */
CODE(lock_register, ".byte 0xf0, 0x01, 0xc0"); /* LOCK ADD with a register destination */
CODE(lock_cmp, ".byte 0xf0, 0x39, 0x03");      /* LOCK CMP */
CODE(lea_register, ".byte 0x8d, 0xc0");
CODE(cmpxchg8b_register, ".byte 0x0f, 0xc7, 0xc8");
CODE(bad_group, ".byte 0xfe, 0xd0"); /* group 4 has only INC and DEC */
CODE(x87_ts, "fnop");
CODE(wait_ts, "fwait");
CODE(x87_em, "fldz");
CODE(sse_off, "movaps %xmm0, %xmm1"); /* CR4.OSFXSR clear */
CODE(mmx_em, "paddb %mm0, %mm1");
CODE(int_privileged, "int $0x50");
CODE(int_empty, "int $0x60");
CODE(int_typeless, "int $0x61");
CODE(too_long, ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90");
CODE(long_enough, ".byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90");
CODE(alignment, "mov 1(" R "di), %eax");
CODE(alignment_write, "mov %ax, 1(" R "di)");

static const struct cause causes[] = {
	FAULT(div_zero, VEC_DE, NO_ERROR, ALL_CPLS, .ax = 5),
	FAULT(div_overflow, VEC_DE, NO_ERROR, ALL_CPLS, .ax = 0x1000, .bx = 2),
	FAULT(idiv_overflow, VEC_DE, NO_ERROR, ALL_CPLS, .dx = 1, .bx = 2),
	FAULT(idiv_minimum, VEC_DE, NO_ERROR, ALL_CPLS, .ax = 0x80000000, .dx = 0xffffffff, .bx = 0xffffffff),
	TRAP(int1, VEC_DB, NO_ERROR, ALL_CPLS, .qemu = "TCG has no INT1"),
	TRAP(int3, VEC_BP, NO_ERROR, ALL_CPLS),
	TRAP(int3_long, VEC_BP, NO_ERROR, ALL_CPLS),
	FAULT(undefined, VEC_UD, NO_ERROR, ALL_CPLS),
	FAULT(undefined1, VEC_UD, NO_ERROR, ALL_CPLS),
	FAULT(lock_mov, VEC_UD, NO_ERROR, ALL_CPLS, .qemu = QEMU_LOCK),
	FAULT(lock_register, VEC_UD, NO_ERROR, ALL_CPLS),
	FAULT(lock_cmp, VEC_UD, NO_ERROR, ALL_CPLS, .qemu = QEMU_LOCK),
	FAULT(lea_register, VEC_UD, NO_ERROR, ALL_CPLS),
	FAULT(cmpxchg8b_register, VEC_UD, NO_ERROR, ALL_CPLS),
	FAULT(bad_group, VEC_UD, NO_ERROR, ALL_CPLS),
	FAULT(x87_ts, VEC_NM, NO_ERROR, ALL_CPLS, .set_cr0 = CR0_TS),
	FAULT(wait_ts, VEC_NM, NO_ERROR, ALL_CPLS, .set_cr0 = CR0_TS | CR0_MP),
	FAULT(x87_em, VEC_NM, NO_ERROR, ALL_CPLS, .set_cr0 = CR0_EM),
	FAULT(sse_off, VEC_UD, NO_ERROR, ALL_CPLS),
	FAULT(sse_off, VEC_UD, NO_ERROR, ALL_CPLS, .set_cr0 = CR0_TS), /* #UD before #NM */
	FAULT(mmx_em, VEC_UD, NO_ERROR, ALL_CPLS, .set_cr0 = CR0_EM),
	FAULT(mmx_em, VEC_NM, NO_ERROR, ALL_CPLS, .set_cr0 = CR0_TS),
	FAULT(int_privileged, VEC_GP, 0x50 * 8 + 2, ALL_CPLS & ~1u, .qemu = QEMU_IDT),
	FAULT(int_empty, VEC_NP, 0x60 * 8 + 2, ALL_CPLS, .qemu = QEMU_IDT),
	FAULT(int_typeless, VEC_GP, 0x61 * 8 + 2, ALL_CPLS, .qemu = QEMU_IDT),
	FAULT(too_long, VEC_GP, 0, ALL_CPLS),
	FAULT(alignment, VEC_AC, 0, BIT(3), .set_cr0 = CR0_AM, .flags = FLAG_AC, .qemu = QEMU_ALIGNMENT),
	FAULT(alignment_write, VEC_AC, 0, BIT(3), .set_cr0 = CR0_AM, .flags = FLAG_AC, .qemu = QEMU_ALIGNMENT),
};

static void provoke(const struct cause *c, unsigned cpl)
{
	static u64 data[2];
	ulong cr0 = read_cr0();
	struct state s = state_at(c->code, cpl);
	s.ax = c->ax;
	s.bx = c->bx;
	s.dx = c->dx;
	s.di = (ulong)data;
	s.flags |= c->flags;
	ulong sp = s.sp;
	write_cr0(cr0 | c->set_cr0);
	run(&s);
	write_cr0(cr0);
	check_fault(&s, c->vector, c->error, (ulong)c->ip, c->qemu, __FILE_NAME__, __LINE__);
	if (on_qemu && c->qemu)
		return;
	CHECK_EQ(s.sp, sp);
	CHECK_EQ(s.cs, selector_code(cpl));
	CHECK_EQ(s.ax, c->ax);
	if (c->ip == c->code) /* a fault's frame has RF set, so that the restarted instruction passes its breakpoint */
		CHECK_BUT_QEMU(s.flags & FLAG_RF, "TCG does not set RF");
	else
		CHECK(!(s.flags & FLAG_RF));
}

static void provoke_all(void)
{
	idt[0x60].low = (idt[0x60].low | 3ull << 45) & ~(1ull << 47); /* DPL 3, not present */
	idt[0x61].low = 3ull << 45 | 1ull << 47;                      /* no type of gate at all */
	for (unsigned cpl = 0; cpl < 4; cpl++)
		for (unsigned i = 0; i < ARRAY_SIZE(causes); i++)
			if (causes[i].cpls >> cpl & 1)
				provoke(&causes[i], cpl);
	idt_restore(0x60);
	idt_restore(0x61);
	struct state s = run_code(long_enough, 3);
	CHECK_END(s, long_enough);
}

/* #AC needs all of CR0.AM, RFLAGS.AC and CPL 3. */
static void alignment_check_conditions(void)
{
	static u64 data[2];
	for (unsigned i = 0; i < 16; i++) {
		struct state s = state_at(alignment, i & 3);
		s.di = (ulong)data;
		s.flags |= i & 4 ? FLAG_AC : 0;
		ulong cr0 = read_cr0();
		write_cr0(i & 8 ? cr0 | CR0_AM : cr0);
		run(&s);
		write_cr0(cr0);
		CHECK_BUT_QEMU(s.vector == (i == 15 ? VEC_AC : VECTOR_END), QEMU_ALIGNMENT);
	}
}

/* ---- A short IDT: vectors beyond the limit are #GP(vector * 8 + IDT) ---- */

CODE(int_last, "int $0x90");

static void short_idt(void)
{
	struct table_register r = { 0x91 * sizeof(idt[0]) - 1, (ulong)idt };
	idt_set(0x90, SEL_CODE32, 0, GATE_INT, 3, 0);
	handler_set(0x90, NULL);
	idt[0x90].low |= 3ull << 45; /* DPL 3 */
	asm volatile("lidt %0" : : "m"(r));
	struct state s = run_code(int_last, 3);
	CHECK_EQ(s.vector, 0x90);
	r.limit--;
	asm volatile("lidt %0" : : "m"(r));
	s = run_code(int_last, 3);
	load_idt();
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0x90 * 8 + 2, int_last, QEMU_IDT);
	idt_restore(0x90);
}

/* ---- Order of checks ---- */

CODE(lgdt_anywhere, "lgdt (" R "di)");
CODE(invlpg_register, ".byte 0x0f, 0x01, 0xf8"); /* SWAPGS in 64-bit mode, nothing in 32-bit mode */
CODE(lock_cli, ".byte 0xf0, 0xfa");
CODE(mov_cr1, ".byte 0x0f, 0x22, 0xc8");
CODE(mov_dr4, ".byte 0x0f, 0x23, 0xe0");
CODE(rdmsr_bad, "rdmsr");

static void order_of_checks(void)
{
	/* Privilege before the memory operand: #GP(0) and not what the address would raise. */
	struct state s = state_at(lgdt_anywhere, 3);
	s.di = sizeof(long) == 8 ? 0x100000000000ul : 0;
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, lgdt_anywhere);
	/* An invalid LOCK before privilege. */
	s = run_code(lock_cli, 3);
	CHECK_FAULT_BUT_QEMU(s, VEC_UD, NO_ERROR, lock_cli, QEMU_LOCK);
	/* A control register that does not exist, at CPL 0; DR4 is DR6 unless CR4.DE. */
	s = run_code(mov_cr1, 0);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, mov_cr1);
	s = run_code(mov_dr4, 0);
	CHECK_END(s, mov_dr4);
	write_cr4(read_cr4() | CR4_DE);
	s = run_code(mov_dr4, 0);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, mov_dr4);
	write_cr4(read_cr4() & ~CR4_DE);
	s = state_at(rdmsr_bad, 0);
	s.cx = 0xdeadbeef;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, rdmsr_bad, "TCG reads unknown MSRs as zero");
	s = run_code(invlpg_register, 3);
	CHECK_FAULT(s, sizeof(long) == 8 ? VEC_GP : VEC_UD, sizeof(long) == 8 ? 0 : NO_ERROR, invlpg_register);
}

/* ---- Only in 32-bit mode, or only in 64-bit mode ---- */

#ifdef __x86_64__
CODE(removed_pusha, ".byte 0x60");
CODE(removed_push_es, ".byte 0x06");
CODE(removed_daa, ".byte 0x27");
CODE(removed_into, ".byte 0xce");
CODE(removed_far_call, ".byte 0x9a, 0, 0, 0, 0, 0, 0");
CODE(removed_salc, ".byte 0xd6");
CODE(removed_aam, ".byte 0xd4, 0x0a");
CODE(removed_group1a, ".byte 0x82, 0xc0, 0x00");

static void mode_specific(void)
{
	u8 *const codes[] = { removed_pusha,    removed_push_es, removed_daa, removed_into,
			      removed_far_call, removed_salc,    removed_aam, removed_group1a };
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		struct state s = run_code(codes[i], i & 3);
		CHECK_FAULT(s, VEC_UD, NO_ERROR, codes[i]);
	}
}
#else
LABEL(into_next);
CODE(into, "into\n into_next:");
CODE(bound32, "bound %eax, (%edi)");
CODE(aam_zero, ".byte 0xd4, 0");
CODE(pop_cs_is_two_byte, ".byte 0x0f, 0xff, 0xc0"); /* UD0 */

static void mode_specific(void)
{
	static const u32 range[2] = { (u32)-10, 20 };
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(into, cpl);
		run(&s);
		CHECK_END(s, into);
		s = state_at(into, cpl);
		s.flags |= FLAG_OF;
		run(&s);
		CHECK_FAULT(s, VEC_OF, NO_ERROR, into_next);
		for (int value = -11; value <= 21; value += 32) {
			s = state_at(bound32, cpl);
			s.di = (ulong)range;
			s.ax = value;
			run(&s);
			CHECK_FAULT(s, VEC_BR, NO_ERROR, bound32);
		}
		s = state_at(bound32, cpl);
		s.di = (ulong)range;
		s.ax = 20;
		run(&s);
		CHECK_END(s, bound32);
		s = state_at(aam_zero, cpl);
		s.ax = 0x12;
		run(&s);
		CHECK_FAULT(s, VEC_DE, NO_ERROR, aam_zero);
		s = run_code(pop_cs_is_two_byte, cpl);
		CHECK_FAULT(s, VEC_UD, NO_ERROR, pop_cs_is_two_byte);
	}
}
#endif

void guest_main(void)
{
	write_cr0(read_cr0() & ~(CR0_AM | CR0_TS | CR0_EM | CR0_MP));
	provoke_all();
	alignment_check_conditions();
	short_idt();
	order_of_checks();
	mode_specific();
}
