/* The translator's code cache and jumps: code that is mapped elsewhere, written, evicted or interrupted. */
#include "bt_guest.h"

#include <signal.h>
#include <sys/time.h>

/* ---- translations of code that change ---- */

PROGRAM(one, "mov $1, %eax");
PROGRAM(two, "mov $2, %eax");

#define ELSEWHERE_GPA 0x60000ull

/* The page at CODE is another one after INVLPG, and after each of so many flushes that the jump cache's salts wrap around. */
static void test_remapped(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	memcpy(g->memory + ELSEWHERE_GPA, two_start, LENGTH(two));
	RUN(g, one);
	for (unsigned i = 0; i < 70000; i++) {
		flat_map(g, CODE, i % 2 ? CODE_GPA : ELSEWHERE_GPA, PTE_P | PTE_W);
		assert_int_equal(bt_go(g, CODE), EXIT_HLT);
		assert_int_equal(g->vcpu.gpr[RAX], i % 2 ? 1 : 2);
	}
	flat_destroy(g);
}

/* The guest maps the page at CODE + 4096, whose code it calls, elsewhere by itself: entry at R8, values in R10 and R11. */
PROGRAM(invlpg, "mov $100, %ecx\n xor %ebx, %ebx\n mov $0x401000, %edi\n"
		"1: mov %r10, (%r8)\n invlpg (%rdi)\n call *%rdi\n add %eax, %ebx\n mov %r11, (%r8)\n invlpg (%rdi)\n call *%rdi\n"
		"add %eax, %ebx\n dec %ecx\n jnz 1b");
PROGRAM(reload, "mov $100, %ecx\n xor %ebx, %ebx\n mov $0x401000, %edi\n mov %cr3, %rsi\n"
		"1: mov %r10, (%r8)\n mov %rsi, %cr3\n call *%rdi\n add %eax, %ebx\n mov %r11, (%r8)\n mov %rsi, %cr3\n call *%rdi\n"
		"add %eax, %ebx\n dec %ecx\n jnz 1b");
PROGRAM(give_three, "mov $3, %eax\n ret");
PROGRAM(give_four, "mov $4, %eax\n ret");

static u64 leaf_entry(struct flat_guest *g, gla_t gla)
{
	u64 table = g->vcpu.cr3 & PTE_ADDR;
	for (unsigned shift = 39; shift > 12; shift -= 9) {
		memcpy(&table, g->memory + table + (gla >> shift & 511) * 8, 8);
		table &= PTE_ADDR;
	}
	return table + (gla >> 12 & 511) * 8;
}

static void test_guest_remaps(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	gpa_t entry = leaf_entry(g, CODE + PAGE_SIZE);
	memcpy(g->memory + ELSEWHERE_GPA, give_three_start, LENGTH(give_three));
	memcpy(g->memory + ELSEWHERE_GPA + PAGE_SIZE, give_four_start, LENGTH(give_four));
	flat_map(g, 0x900000, entry & PAGE_MASK, PTE_P | PTE_W);
	g->vcpu.gpr[R8] = 0x900000 + (entry & ~PAGE_MASK);
	g->vcpu.gpr[R10] = ELSEWHERE_GPA | PTE_P;
	g->vcpu.gpr[R11] = (ELSEWHERE_GPA + PAGE_SIZE) | PTE_P;
	RUN(g, invlpg);
	assert_int_equal(g->vcpu.gpr[RBX], 700);
	RUN(g, reload);
	assert_int_equal(g->vcpu.gpr[RBX], 700);
	flat_destroy(g);
}

/* ---- code that is written ---- */

/* It changes an immediate behind it in its own block, in a block chained to it, and in one on another page. */
PROGRAM(patches, "mov $60, %ecx\n xor %ebx, %ebx\n xor %edx, %edx\n xor %esi, %esi\n movl $0x00c3d689, 0x401000\n" /* mov %edx, %esi; ret */
		 "1: mov %cl, 2f + 1 - patches_start + 0x400000\n 2: mov $0, %al\n movzbl %al, %eax\n add %eax, %ebx\n"
		 "mov %ecx, 4f + 1 - patches_start + 0x400000\n jmp 3f\n nop\n 3: nop\n 4: mov $0, %edx\n"
		 "mov $0x401000, %edi\n call *%rdi\n xor $2, %ecx\n xor $2, %ecx\n movb $0x89, (%rdi)\n dec %ecx\n jnz 1b");

static void test_patches(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	RUN(g, patches);
	assert_int_equal(g->vcpu.gpr[RBX], 60 * 61 / 2);
	assert_int_equal(g->vcpu.gpr[RDX], 1);
	assert_int_equal(g->vcpu.gpr[RSI], 1);
	flat_destroy(g);
}

/* A device writes the target of a chained jump between two runs. */
static void test_written_from_outside(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	static const u8 jump[] = { 0xeb, 0x3e }; /* to offset 0x40 */
	bt_load(g, 0, jump, jump + sizeof(jump));
	for (unsigned i = 0; i < 50; i++) {
		const u8 *start = i % 2 ? two_start : one_start;
		bt_load(g, 0x40, start, start + LENGTH(one));
		for (unsigned n = 0; n < 3; n++) {
			assert_int_equal(bt_go(g, CODE), EXIT_HLT);
			assert_int_equal(g->vcpu.gpr[RAX], 1 + i % 2);
		}
	}
	flat_destroy(g);
}

/* Code beside its own data is left to step, which all stores to the page must go to. When it is data only, they need not any more. */
PROGRAM(mixes, "mov $200, %ecx\n 1: mov $0x401000, %edi\n call *%rdi\n dec %ecx\n jnz 1b");
PROGRAM(counts, "add %ecx, 0x401800\n ret");
PROGRAM(stores, "mov $200, %ecx\n 1: mov %ecx, 0x401900\n dec %ecx\n jnz 1b");

static u8 flags_of_code(struct flat_guest *g, unsigned page)
{
	const struct ram_slot *slot = ram_find(&g->ram, CODE_GPA);
	return slot->flags[((CODE_GPA - slot->base) >> PAGE_SHIFT) + page] & (PAGE_CODE | PAGE_MIXED);
}

static void test_code_becomes_data(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	u32 sum = 0;
	for (unsigned i = 0; i < 3; i++) {
		bt_load(g, PAGE_SIZE, counts_start, counts_end);
		RUN(g, mixes);
		assert_int_equal(flags_of_code(g, 1), PAGE_CODE | PAGE_MIXED);
		RUN(g, stores);
		assert_int_equal(flags_of_code(g, 1), 0);
		memcpy(&sum, g->memory + CODE_GPA + PAGE_SIZE + 0x800, sizeof(sum));
		assert_int_equal(sum, (i + 1) * 200 * 201 / 2);
	}
	flat_destroy(g);
}

/* ---- more code than the cache holds ---- */

#define MUCH 0x1000000ull
#define MUCH_GPA 0x300000ull
#define MUCH_SIZE (4ull << 20)

/* Small blocks chained one to the next, each counting in RAX, ended by HLT. */
static unsigned write_much(struct flat_guest *g)
{
	static const u8 block[] = { 0x48, 0xff, 0xc0, 0xeb, 0x00 }; /* inc %rax; jmp to the next */
	unsigned blocks = 0;
	for (u64 at = 0; at < MUCH_SIZE - 64; at += sizeof(block), blocks++)
		memcpy(g->memory + MUCH_GPA + at, block, sizeof(block));
	g->memory[MUCH_GPA + blocks * sizeof(block)] = 0xf4;
	for (u64 at = 0; at < MUCH_SIZE; at += PAGE_SIZE)
		flat_map(g, MUCH + at, MUCH_GPA + at, PTE_P);
	return blocks;
}

static void find_evicted(void *opaque, const char *line)
{
	if (strstr(line, "evicted"))
		*(unsigned long *)opaque = strtoul(line, NULL, 10);
}

static void test_eviction(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	unsigned blocks = write_much(g);
	for (unsigned i = 0; i < 2; i++) {
		g->vcpu.gpr[RAX] = 0;
		assert_int_equal(bt_go(g, MUCH), EXIT_HLT);
		assert_int_equal(g->vcpu.gpr[RAX], blocks);
		RUN(g, one);
	}
	unsigned long evicted = 0;
	g->vcpu.engine->report(&g->vcpu, find_evicted, &evicted);
	assert_in_range(evicted, 1, 100000);
	flat_destroy(g);
}

/* ---- loops are interrupted ---- */

static struct vcpu *kicked;

static void kick(int signal)
{
	vcpu_set_pending(kicked, PENDING_KICK);
}

PROGRAM(loop_short, "1: jmp 1b");
PROGRAM(loop_count, "xor %ecx, %ecx\n dec %rcx\n 1: dec %rcx\n jnz 1b");
PROGRAM(loop_flags, "stc\n 1: lea 1(%rcx), %rcx\n jc 1b");
PROGRAM(loop_instruction, "xor %ecx, %ecx\n 1: loop 1b");
PROGRAM(loop_indirect, "lea 1f(%rip), %rax\n 1: jmp *%rax");
PROGRAM(loop_call, "1: call 2f\n jmp 1b\n 2: ret");
PROGRAM(loop_pages, "1: jmp 2f\n .skip 5000, 0x90\n 2: jmp 1b");
PROGRAM(loop_forward, "jmp 2f\n 1: jmp 3f\n 2: jmp 1b\n 3: jmp 2b");
PROGRAM(loop_memory, "mov $0x500000, %edi\n 1: addl $1, (%rdi)\n cmpl $0, 0x1000(%rdi)\n je 1b");
PROGRAM(loop_calls, "mov $1f - loop_calls_start + 0x400000, %eax\n 1: mov $0x5ff800, %esp\n call *%rax");

static const struct {
	const u8 *start, *end;
} loops[] = {
#define LOOP(name) { name##_start, name##_end }
	LOOP(loop_short), LOOP(loop_count), LOOP(loop_flags), LOOP(loop_instruction), LOOP(loop_indirect), LOOP(loop_call), LOOP(loop_pages),
	LOOP(loop_forward), LOOP(loop_memory), LOOP(loop_calls),
};

static void test_loops(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	struct itimerval soon = { .it_value = { .tv_usec = 3000 } };
	kicked = &g->vcpu;
	sigaction(SIGALRM, &(struct sigaction){ .sa_handler = kick, .sa_flags = SA_RESTART }, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(loops); i++) {
		bt_load(g, 0, loops[i].start, loops[i].end);
		setitimer(ITIMER_REAL, &soon, NULL);
		assert_int_equal(bt_go(g, CODE), EXIT_INTERRUPTED);
		assert_in_range(g->vcpu.rip, CODE, CODE + (u64)(loops[i].end - loops[i].start));
	}
	flat_destroy(g);
}

/* ---- the limits of blocks ---- */

PROGRAM(straight, "xor %eax, %eax\n .rept 1500\n inc %eax\n .endr");
PROGRAM(jumps, "xor %eax, %eax\n .rept 300\n test %eax, %eax\n js 1f\n inc %eax\n 1:\n .endr");

/* Long ones, and each beginning at every offset around the end of a page. */
static void test_limits(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	RUN(g, straight);
	assert_int_equal(g->vcpu.gpr[RAX], 1500);
	for (unsigned before = 0; before < 20; before++) {
		bt_run_at(g, jumps_start, jumps_end, PAGE_SIZE - 40 + before);
		assert_int_equal(g->vcpu.gpr[RAX], 300);
		bt_run_at(g, straight_start, straight_end, PAGE_SIZE - before);
		assert_int_equal(g->vcpu.gpr[RAX], 1500);
	}
	flat_destroy(g);
}

/* The page behind the block's is missing: the fault comes when its first byte is wanted, not before. */
static void test_end_of_code(void **state)
{
	struct flat_guest *g = bt_guest(&engine_bt);
	static const u8 code[] = { 0xff, 0xc0, 0xff, 0xc0 }; /* inc %eax; inc %eax */
	g->vcpu.gpr[RAX] = 0;
	struct fault_frame f = bt_fault_at(g, code, code + sizeof(code), PAGES * PAGE_SIZE - sizeof(code));
	assert_int_equal(f.vector, VEC_PF);
	assert_int_equal(f.rip, CODE + PAGES * PAGE_SIZE);
	assert_int_equal(g->vcpu.gpr[RAX], 2);
	f = bt_fault_at(g, code, code + 1, PAGES * PAGE_SIZE - 1);
	assert_int_equal(f.vector, VEC_PF);
	assert_int_equal(f.rip, CODE + PAGES * PAGE_SIZE - 1);
	assert_int_equal(g->vcpu.cr2, CODE + PAGES * PAGE_SIZE);
	flat_destroy(g);
}

/* ---- where addresses are not canonical ---- */

#define EDGE 0x7ffffffff000ull

/* Each behind a computed jump, which is not the branch that faults. */
#define JUMP_FIRST(number) "lea " #number "f(%rip), %rax\n jmp *%rax\n nop\n " #number ": "
PROGRAM(edge_jmp, JUMP_FIRST(1) "jmp . + 0x1234");
PROGRAM(edge_jcc, JUMP_FIRST(1) "xor %ecx, %ecx\n jz . + 0x1234");
PROGRAM(edge_call, JUMP_FIRST(1) "call . + 0x1234");
PROGRAM(edge_far_back, JUMP_FIRST(1) "jmp . - 0x1234");
PROGRAM(edge_end, JUMP_FIRST(1) "nop"); /* overwritten: goes on to the end */
PROGRAM(edge_ret, JUMP_FIRST(1) "mov $0x800000000000, %rcx\n push %rcx\n ret");

static struct fault_frame fault_at_edge(const struct engine_ops *engine, const u8 *start, const u8 *end, u64 page, u64 offset)
{
	struct flat_guest *g = bt_guest(engine);
	bt_load(g, 0, start, end);
	memset(g->memory + CODE_GPA + (end - start) - 1, 0x90, PAGE_SIZE - (u64)(end - start) + 1); /* the HLT, too */
	memmove(g->memory + CODE_GPA + offset, g->memory + CODE_GPA, PAGE_SIZE - offset);
	flat_map(g, page, CODE_GPA, PTE_P | PTE_W);
	struct fault_frame f = bt_fault_from(g, page + offset);
	flat_destroy(g);
	return f;
}

static void test_edge(void **state)
{
	static const struct {
		const u8 *start, *end;
		u64 page, offset;
	} cases[] = {
		{ edge_jmp_start, edge_jmp_end, EDGE, 0 }, { edge_jcc_start, edge_jcc_end, EDGE, 0 },
		{ edge_call_start, edge_call_end, EDGE, 0 }, { edge_ret_start, edge_ret_end, EDGE, 0 },
		{ edge_end_start, edge_end_end, EDGE, 4000 }, { edge_far_back_start, edge_far_back_end, 0xffff800000000000, 0 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fault_frame a = fault_at_edge(&engine_step, cases[i].start, cases[i].end, cases[i].page, cases[i].offset);
		struct fault_frame b = fault_at_edge(&engine_bt, cases[i].start, cases[i].end, cases[i].page, cases[i].offset);
		assert_int_equal(a.vector, VEC_GP);
		assert_memory_equal(&a, &b, sizeof(a));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_remapped), cmocka_unit_test(test_guest_remaps), cmocka_unit_test(test_patches),
		cmocka_unit_test(test_written_from_outside), cmocka_unit_test(test_code_becomes_data), cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_loops), cmocka_unit_test(test_limits), cmocka_unit_test(test_end_of_code),
		cmocka_unit_test(test_edge),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
