/* The step engine on a flat 64-bit guest: whole small programs, given as code of this test program, and their results.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/insn/decode.h"
#include "flat_guest.h"

#define CODE 0x400000ull
#define DATA 0x500000ull
#define STACK_TOP 0x600000ull

/* A program: bytes between two labels, ended by HLT. */
#define PROGRAM(name, text)                                                                                            \
	__asm__(".pushsection .rodata\n" #name "_start:\n" text "\nhlt\n" #name "_end:\n.popsection\n");               \
	extern const u8 name##_start[], name##_end[]

static struct flat_guest *guest(void)
{
	struct flat_guest *g = flat_create("host");
	for (u64 page = 0; page < 4; page++) {
		flat_map(g, CODE + page * PAGE_SIZE, 0x10000 + page * PAGE_SIZE, PTE_P | PTE_W | PTE_U);
		flat_map(g, DATA + page * PAGE_SIZE, 0x30000 - page * PAGE_SIZE, PTE_P | PTE_W | PTE_U);
		flat_map(g, STACK_TOP - (page + 1) * PAGE_SIZE, 0x40000 + page * PAGE_SIZE, PTE_P | PTE_W | PTE_U);
	}
	flat_mode(g, 64, 0);
	return g;
}

static void run_at(struct flat_guest *g, const u8 *start, const u8 *end, u64 offset)
{
	struct vcpu *v = &g->vcpu;
	struct exit exit;
	for (u64 i = 0; i < (u64)(end - start); i++) {
		gpa_t gpa;
		assert_true(mmu_debug_translate(v, CODE + offset + i, &gpa));
		g->memory[gpa] = start[i];
	}
	v->rip = CODE + offset;
	v->gpr[RSP] = STACK_TOP;
	v->activity = ACTIVITY_ACTIVE;
	engine_step.run(v, &exit);
	assert_int_equal(exit.reason, EXIT_HLT);
	assert_int_equal(v->rip, CODE + offset + (u64)(end - start));
}

#define RUN(g, name) run_at(g, name##_start, name##_end, 0)

PROGRAM(loops, "xor %eax, %eax\n mov $100, %ecx\n 1: add %rcx, %rax\n dec %ecx\n jnz 1b\n"
	       "push %rax\n pop %rbx\n call 2f\n jmp 3f\n 2: lea 5(%rbx,%rbx,2), %rdx\n ret\n 3:");

static void test_loops(void **state)
{
	struct flat_guest *g = guest();
	RUN(g, loops);
	assert_int_equal(g->vcpu.gpr[RAX], 5050);
	assert_int_equal(g->vcpu.gpr[RBX], 5050);
	assert_int_equal(g->vcpu.gpr[RDX], 5050 * 3 + 5);
	assert_int_equal(g->vcpu.gpr[RSP], STACK_TOP);
	flat_destroy(g);
}

PROGRAM(memory, "mov $0x500ffc, %edi\n movabs $0x1122334455667788, %rax\n mov %rax, (%rdi)\n add $1, %rax\n"
		"lock xadd %rax, (%rdi)\n addl $0x10, 4(%rdi)\n mov (%rdi), %rbx\n movzwl 2(%rdi), %ecx\n movsbq "
		"7(%rdi), %rdx\n"
		"bts %rcx, -0x80(%rdi)");

static void test_memory(void **state)
{
	struct flat_guest *g = guest();
	RUN(g, memory);
	assert_int_equal(g->vcpu.gpr[RAX], 0x1122334455667788);
	assert_int_equal(g->vcpu.gpr[RBX], 0x11223354aaccef11 + 0x1122334400000000);
	flat_destroy(g);
}

PROGRAM(strings,
	"mov $0x500f00, %edi\n mov $0x5a, %eax\n mov $0x300, %ecx\n rep stosb\n mov $0x500f10, %esi\n"
	"mov $0x502ff3, %edi\n mov $0x100, %ecx\n rep movsl\n mov $0x500f00, %edi\n mov $0xffff, %ecx\n repe scasb\n");

static void test_strings(void **state)
{
	struct flat_guest *g = guest();
	RUN(g, strings);
	assert_int_equal(g->vcpu.gpr[RDI], 0x501201);
	assert_int_equal(g->vcpu.gpr[RSI], 0x500f10 + 0x400);
	flat_destroy(g);
}

PROGRAM(vectors,
	"fninit\n mov $0x500ff8, %edi\n movabs $0x4008000000000000, %rax\n movq %rax, %xmm1\n addsd %xmm1, %xmm1\n"
	"unpcklpd %xmm1, %xmm1\n movupd %xmm1, (%rdi)\n mov 8(%rdi), %rbx\n fldl (%rdi)\n fsqrt\n fistpl 16(%rdi)\n"
	"mov 16(%rdi), %ecx\n cpuid");

static void test_vectors(void **state)
{
	struct flat_guest *g = guest();
	RUN(g, vectors);
	assert_int_equal(g->vcpu.gpr[RDI], 0x500ff8);
	assert_int_equal(*(u64 *)(void *)(g->memory + 0x2f000), 0x4018000000000000);
	flat_destroy(g);
}

/* With a zero source the destination stays; Linux's fls64() lives on it. */
PROGRAM(bit_scans,
	"mov $-1, %eax\n mov $-2, %rbx\n xor %ecx, %ecx\n mov $1, %edx\n nop\n bsr %rcx, %rax\n bsf %rcx, %rbx\n"
	"mov $0x80, %ecx\n bsr %rcx, %rdx");

static void test_bit_scans_of_zero(void **state)
{
	struct flat_guest *g = guest();
	RUN(g, bit_scans);
	assert_int_equal(g->vcpu.gpr[RAX], 0xffffffff);
	assert_int_equal(g->vcpu.gpr[RBX], (u64)-2);
	assert_int_equal(g->vcpu.gpr[RDX], 7);
	flat_destroy(g);
}

/* The environment shows the guest's addresses, not those of the engine's. */
PROGRAM(pointers, "fninit\n lea 1f(%rip), %rbx\n fld1\n mov $0x500ffc, %edi\n 1: fldl (%rdi)\n fnstenv 8(%rdi)\n mov "
		  "20(%rdi), %eax\n"
		  "mov 28(%rdi), %ecx\n mov 24(%rdi), %edx\n fnop");

static void test_pointers(void **state)
{
	struct flat_guest *g = guest();
	RUN(g, pointers);
	assert_int_equal(g->vcpu.gpr[RAX], g->vcpu.gpr[RBX]);
	assert_int_equal(g->vcpu.gpr[RCX], 0x500ffc);
	assert_int_equal(g->vcpu.gpr[RDX] >> 16, 0x507);
	flat_destroy(g);
}

/* Code that writes itself: the second run of the loop must see the new immediate. */
PROGRAM(patched, "mov $2, %ecx\n lea 2f+1(%rip), %rdi\n 1: 2: mov $1, %eax\n add %eax, %ebx\n movb $7, (%rdi)\n dec "
		 "%ecx\n jnz 1b");

static void test_patched(void **state)
{
	struct flat_guest *g = guest();
	g->vcpu.gpr[RBX] = 0;
	RUN(g, patched);
	assert_int_equal(g->vcpu.gpr[RBX], 8);
	flat_destroy(g);
}

/* Every mnemonic of the decoder stands in the table. */
static void test_complete(void **state)
{
	for (unsigned m = ZYDIS_MNEMONIC_INVALID + 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
		if (!insn_kind_listed((ZydisMnemonic)m))
			fail_msg("not classified: %s", ZydisMnemonicGetString((ZydisMnemonic)m));
}

/* Which masked instructions suppress faults of elements that are masked off: with (%rdi) and {%k1}. */
static void test_masked_kinds(void **state)
{
	static const struct {
		u8 code[8];
		enum insn_kind kind;
	} rows[] = {
		{ { 0x62, 0xf1, 0x7e, 0x49, 0x6f, 0x07 }, KIND_MASKED }, /* vmovdqu32 load */
		{ { 0x62, 0xf1, 0x7e, 0x49, 0x7f, 0x07 }, KIND_MASKED }, /* vmovdqu32 store */
		{ { 0x62, 0xf2, 0x75, 0x49, 0x36, 0x07 }, KIND_NATIVE }, /* vpermd: class E4NF */
		{ { 0x62, 0xf3, 0x7d, 0x49, 0x39, 0x07, 0x00 }, KIND_NATIVE }, /* vextracti32x4: E6NF */
		{ { 0x62, 0xf1, 0x7e, 0x48, 0x6f, 0x07 }, KIND_NATIVE }, /* no mask */
	};
	struct flat_guest *g = flat_create("host");
	struct insn_decoder decoder;
	struct insn insn;
	insn_decoder_init(&decoder, g->policy, true);
	for (unsigned i = 0; i < ARRAY_SIZE(rows) && cpuid_has(g->policy, FEATURE_AVX512F); i++) {
		assert_int_equal(insn_decode(&decoder, INSN_MODE_64, rows[i].code, sizeof(rows[i].code), &insn), DECODE_OK);
		assert_int_equal(insn.kind, rows[i].kind);
	}
	flat_destroy(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_complete), cmocka_unit_test(test_loops),
		cmocka_unit_test(test_memory),   cmocka_unit_test(test_strings),
		cmocka_unit_test(test_vectors),  cmocka_unit_test(test_bit_scans_of_zero),
		cmocka_unit_test(test_patched),  cmocka_unit_test(test_pointers),
		cmocka_unit_test(test_masked_kinds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
