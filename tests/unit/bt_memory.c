/* The translator's memory operands and status flags: what a program computes, and where and how it faults, whichever way a check of an operand
 * takes. The same programs run on step and under lockstep. */
#include "bt_guest.h"

static const struct engine_ops *const engine_list[] = { &engine_bt, &engine_step, &engine_lockstep };

#define EACH_ENGINE(g)                                                                                                                    \
	for (unsigned engine_ = 0; engine_ < ARRAY_SIZE(engine_list); engine_++)                                                            \
		for (struct flat_guest *g = bt_guest(engine_list[engine_]); g; flat_destroy(g), g = NULL)

/* ---- flags across checks ---- */

/* Each line sets flags, accesses memory, and reads the flags; the sum tells which came out. */
PROGRAM(carry, "mov $0x500100, %edi\n xor %ebx, %ebx\n mov $4, %ecx\n"
	       "1: mov %ecx, %eax\n cmp $3, %eax\n mov (%rdi), %rdx\n adc %rbx, %rbx\n"
	       "stc\n mov %rbx, (%rdi)\n adc $0, %rbx\n"
	       "clc\n push %rbx\n pop %rsi\n adc $0, %rbx\n"
	       "add $-1, %eax\n inc %rdi\n movb $7, (%rdi)\n dec %rdi\n adc $0, %rbx\n"
	       "dec %ecx\n jnz 1b");

static void test_carry_passes(void **state)
{
	EACH_ENGINE(g) {
		u64 b = 0;
		for (unsigned c = 4; c; c--) {
			b = 2 * b + (c < 3) + 1 + 1;
		}
		RUN(g, carry);
		assert_int_equal(g->vcpu.gpr[RBX], b);
	}
}

/* All of them, saved before a store that misses the TLB and read behind it: first by PUSHF, then by LAHF. */
PROGRAM(all_flags, "mov $0x500200, %edi\n mov $0x7f, %al\n add $1, %al\n mov %rax, 0x1000(%rdi)\n pushf\n pop %rbx\n"
		   "mov $0xff, %al\n add $1, %al\n mov %rax, 0x2000(%rdi)\n lahf\n mov %rax, %rcx\n"
		   "xor %eax, %eax\n mov 0x2000(%rdi), %rdx\n seto %al\n setz %ah");

static void test_all_flags(void **state)
{
	EACH_ENGINE(g) {
		RUN(g, all_flags);
		assert_int_equal(g->vcpu.gpr[RBX] & RFLAGS_STATUS, RFLAGS_OF | RFLAGS_SF | RFLAGS_AF);
		assert_int_equal(g->vcpu.gpr[RCX] >> 8 & 0xd5, RFLAGS_CF | RFLAGS_ZF | RFLAGS_PF | RFLAGS_AF);
		assert_int_equal(g->vcpu.gpr[RAX], 0x100);
	}
}

/* PUSHF behind another access to the stack, whose check it cannot use again. */
PROGRAM(push_flags, "mov $7, %edx\n mov $1, %eax\n cmp $2, %eax\n push %rdx\n mov %rdx, -64(%rsp)\n pushf\n push %rdx\n pop %rbx\n pop %rcx\n pop %rsi");

static void test_push_flags(void **state)
{
	EACH_ENGINE(g) {
		g->vcpu.gpr[RSP] = STACK_TOP - 64;
		RUN(g, push_flags);
		assert_int_equal(g->vcpu.gpr[RBX], 7);
		assert_int_equal(g->vcpu.gpr[RCX] & RFLAGS_STATUS, RFLAGS_CF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF);
		assert_int_equal(g->vcpu.gpr[RSI], 7);
	}
}

/* AH to BH beside memory, between what sets flags and what reads them. */
PROGRAM(high_bytes, "mov $0x500120, %edi\n movl $0x44332211, (%rdi)\n mov $3, %ecx\n xor %ebx, %ebx\n xor %eax, %eax\n"
		    "1: cmp $3, %ecx\n mov 1(%rdi), %ah\n jne 2f\n inc %ebx\n 2: cmp $2, %ecx\n add %ah, 2(%rdi)\n mov 3(%rdi), %bh\n"
		    "dec %ecx\n jnz 1b");

static void test_high_bytes(void **state)
{
	EACH_ENGINE(g) {
		RUN(g, high_bytes);
		assert_int_equal(g->vcpu.gpr[RAX], 0x2200);
		assert_int_equal(g->vcpu.gpr[RBX], 0x4401);
		assert_int_equal(g->memory[DATA_GPA(0) + 0x122], 0x33 + 3 * 0x22);
	}
}

/* A shift by zero leaves all flags as they were. */
PROGRAM(shift_by_zero, "mov $0x500300, %edi\n xor %ecx, %ecx\n mov $1, %edx\n cmp $2, %edx\n mov %rdx, (%rdi)\n shl %cl, %rdx\n"
		       "mov (%rdi), %rsi\n setc %al\n sets %bl\n rol %cl, %rsi\n mov %rsi, 8(%rdi)\n adc $0, %rsi");

static void test_shift_by_zero(void **state)
{
	EACH_ENGINE(g) {
		RUN(g, shift_by_zero);
		assert_int_equal(g->vcpu.gpr[RAX] & 0xff, 1);
		assert_int_equal(g->vcpu.gpr[RBX] & 0xff, 1);
		assert_int_equal(g->vcpu.gpr[RSI], 2);
	}
}

/* ---- crossing pages ---- */

PROGRAM(crossing, "mov $0x500ffd, %edi\n movabs $0x1122334455667788, %rax\n mov %rax, (%rdi)\n mov (%rdi), %rbx\n addq $1, (%rdi)\n"
		  "mov 1(%rdi), %ecx\n lock addl $2, 0xffe(%rdi)\n xchg %rdx, 0xffd(%rdi)\n movdqu %xmm0, 0x1ff8(%rdi)\n"
		  "mov %rsp, %rsi\n lea 4(%rdi), %rsp\n push %rax\n pop %r9\n push (%rdi)\n pop 0x1000(%rdi)\n mov %rsi, %rsp");

static void test_crossing(void **state)
{
	EACH_ENGINE(g) {
		RUN(g, crossing);
		assert_int_equal(g->vcpu.gpr[RBX], 0x1122334455667788);
		assert_int_equal(g->vcpu.gpr[RCX], 0x44556677);
		assert_int_equal(g->vcpu.gpr[R9], 0x1122334455667788);
	}
}

/* ---- faults ---- */

struct operand {
	const u8 *start, *end;
	bool write;
	u8 fault_at; /* offset of the instruction that faults */
};

/* RDI is the address; RBX counts what was done before. */
#define OPERANDS(X)                                                                                                                       \
	X(load, "mov (%rdi), %rax", 0) X(store, "mov %rax, (%rdi)", 1) X(modify, "addl $1, (%rdi)", 1) X(locked, "lock incl (%rdi)", 1)      \
	X(byte, "movb $1, (%rdi)", 1) X(extend, "movzbl (%rdi), %eax", 0) X(compare, "cmpl $1, (%rdi)", 0) X(exchange, "xchg %eax, (%rdi)", 1) \
	X(sse_load, "movups (%rdi), %xmm1", 0) X(sse_store, "movups %xmm1, (%rdi)", 1) X(x87_load, "fldl (%rdi)", 0)                          \
	X(push_memory, "push (%rdi)", 0) X(pop_memory, "pop (%rdi)", 1) X(jump, "jmp *(%rdi)", 0) X(call, "call *(%rdi)", 0)                 \
	X(bit, "btsl $3, (%rdi)", 1) X(conditional, "cmovz (%rdi), %eax", 0) X(divide, "divl (%rdi)", 0) X(string, "stosb", 1)
#define OPERAND_PROGRAM(name, text, writes)                                                                                               \
	PROGRAM(operand_##name, "xor %ebx, %ebx\n lea -0x10(%rdi), %r9\n inc %ebx\n add $2, %ebx\n " text "\n add $4, %ebx");
OPERANDS(OPERAND_PROGRAM)
#define BEFORE 11 /* bytes in front of the text */
static const struct operand operands[] = {
#define OPERAND_ROW(name, text, writes) { operand_##name##_start, operand_##name##_end, writes, BEFORE },
	OPERANDS(OPERAND_ROW)
};

static void check_fault(struct flat_guest *g, const struct operand *o, gla_t gla, u32 error)
{
	g->vcpu.gpr[RDI] = gla;
	g->vcpu.gpr[RDX] = 0;
	struct fault_frame f = bt_fault_at(g, o->start, o->end, 0);
	assert_int_equal(f.vector, VEC_PF);
	assert_int_equal(f.error, error);
	assert_int_equal(f.rip, CODE + o->fault_at);
	assert_int_equal(g->vcpu.cr2, gla);
	assert_int_equal(g->vcpu.gpr[RBX], 3);
	assert_int_equal(f.rsp, STACK_TOP - 0x800);
	assert_int_equal(g->vcpu.gpr[RDI], gla);
}

static void test_not_present(void **state)
{
	EACH_ENGINE(g)
		for (unsigned i = 0; i < ARRAY_SIZE(operands); i++)
			check_fault(g, &operands[i], DATA + PAGES * PAGE_SIZE + 0x20, operands[i].write ? PF_WR : 0);
}

static void test_read_only(void **state)
{
	EACH_ENGINE(g) {
		flat_map(g, DATA + PAGE_SIZE, DATA_GPA(1), PTE_P);
		for (unsigned i = 0; i < ARRAY_SIZE(operands); i++)
			if (operands[i].write)
				check_fault(g, &operands[i], DATA + PAGE_SIZE + 0x20, PF_P | PF_WR);
	}
}

/* The second page of an access that crosses is the one that is missing. */
static void test_crossing_fault(void **state)
{
	EACH_ENGINE(g) {
		static const u8 *start, *end;
		start = operand_store_start;
		end = operand_store_end;
		g->vcpu.gpr[RDI] = DATA + PAGES * PAGE_SIZE - 4;
		*bt_data(g, DATA + PAGES * PAGE_SIZE - 8) = 0x5555555555555555;
		struct fault_frame f = bt_fault_at(g, start, end, 0);
		assert_int_equal(f.vector, VEC_PF);
		assert_int_equal(g->vcpu.cr2, DATA + PAGES * PAGE_SIZE);
		assert_int_equal(f.rip, CODE + BEFORE);
		assert_int_equal(*bt_data(g, DATA + PAGES * PAGE_SIZE - 8), 0x5555555555555555);
	}
}

static void test_not_canonical(void **state)
{
	EACH_ENGINE(g) {
		for (unsigned i = 0; i < ARRAY_SIZE(operands); i++) {
			g->vcpu.gpr[RDI] = 0x800000000000;
			struct fault_frame f = bt_fault_at(g, operands[i].start, operands[i].end, 0);
			assert_int_equal(f.vector, VEC_GP);
			assert_int_equal(f.error, 0);
			assert_int_equal(f.rip, CODE + BEFORE);
			assert_int_equal(g->vcpu.gpr[RBX], 3);
		}
	}
}

/* ---- MMIO ---- */

#define MMIO_PAGE 0x800000ull
#define MMIO_GPA 0xd0000000ull

PROGRAM(mmio, "mov $0x800010, %edi\n movl $5, (%rdi)\n mov (%rdi), %eax\n cmp $1, %eax\n incw 4(%rdi)\n movb $1, 7(%rdi)\n"
	      "mov %rax, 8(%rdi)\n movzbl (%rdi), %ecx\n inc %edx");

static void test_mmio(void **state)
{
	EACH_ENGINE(g) {
		flat_map(g, MMIO_PAGE, MMIO_GPA, PTE_P | PTE_W);
		g->vcpu.gpr[RDX] = 0;
		RUN(g, mmio);
		assert_int_equal(g->exits, 7);
		assert_int_equal(g->last_exit.reason, EXIT_MMIO);
		assert_int_equal(g->last_exit.mmio.gpa, MMIO_GPA + 0x10);
		assert_int_equal(g->last_exit.mmio.size, 1);
		assert_false(g->last_exit.mmio.write);
		assert_int_equal(g->vcpu.gpr[RDX], 1);
	}
}

/* ---- other faults in the middle of a block ---- */

PROGRAM(divide_error, "mov $7, %eax\n cltd\n xor %ecx, %ecx\n mov $1, %ebx\n idiv %ecx\n mov $2, %ebx");
PROGRAM(undefined, "mov $1, %ebx\n mov %rbx, 0x500100\n ud2\n mov $2, %ebx");
PROGRAM(unaligned, "mov $1, %ebx\n mov $0x500101, %edi\n movaps (%rdi), %xmm0\n mov $2, %ebx");

static void test_other_faults(void **state)
{
	EACH_ENGINE(g) {
		assert_int_equal(FAULT(g, divide_error).vector, VEC_DE);
		assert_int_equal(g->vcpu.gpr[RBX], 1);
		struct fault_frame f = FAULT(g, undefined);
		assert_int_equal(f.vector, VEC_UD);
		assert_int_equal(f.rip, CODE + LENGTH(undefined) - 1 - 5 - 2);
		assert_int_equal(*bt_data(g, DATA + 0x100), 1);
		assert_int_equal(FAULT(g, unaligned).vector, VEC_GP);
		assert_int_equal(g->vcpu.gpr[RBX], 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_carry_passes), cmocka_unit_test(test_high_bytes), cmocka_unit_test(test_push_flags),
		cmocka_unit_test(test_all_flags), cmocka_unit_test(test_shift_by_zero),
		cmocka_unit_test(test_crossing), cmocka_unit_test(test_not_present), cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_crossing_fault), cmocka_unit_test(test_not_canonical), cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_other_faults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
