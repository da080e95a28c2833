/* Code in place in a space (C2), on the real host: it runs as it is, comes back when it traps or is stopped, takes turns with translated
 * code, and meets break points. */
#define _GNU_SOURCE
#include "space_test.h"

/* As SNIPPET, for a page of guest RAM. */
#define IN_PLACE(name, text)                                                       \
	asm(".pushsection .rodata\n" #name ": " text "\n" #name "_end:\n.popsection"); \
	extern const u8 name[], name##_end[]

IN_PLACE(place_syscall, "mov $39, %eax\n\tsyscall");
IN_PLACE(place_gs, "mov %gs:8, %rax\n\tmov $0x1234560, %ecx\n\twrgsbase %rcx\n\tud2");
IN_PLACE(place_loop, "1:\tinc %rax\n\tjmp 1b");
IN_PLACE(place_write, "mov %rax, (%rip)");
IN_PLACE(place_step, "pushf\n\torl $0x100, (%rsp)\n\tpopf\n\tnop\n\tnop");
IN_PLACE(place_segment, "mov $0x2b, %ecx\n\tmov %ecx, %ds\n\tud2");
IN_PLACE(place_forge, "jmp *%rbx");

static enum host_space_exit place_bytes(const u8 *start, const u8 *end)
{
	memcpy(ram, start, (size_t)(end - start));
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_EXEC), 0);
	assert_int_equal(host_space_map(space, 2 * GLA, ram + PAGE_SIZE, PAGE_SIZE, SPACE_WRITE), 0);
	regs()->rip = GLA;
	regs()->gpr[RSP] = 2 * GLA + PAGE_SIZE;
	return host_space_run(space, &trap, true);
}

#define PLACE(name) place_bytes(name, name##_end)

static void test_place(void **state)
{
	if (!host_space_runs_in_place())
		skip();
	regs()->rflags = RFLAGS_CF | RFLAGS_AC | RFLAGS_ID;
	assert_int_equal(PLACE(place_syscall), SPACE_SYSCALL);
	assert_int_equal(regs()->rip, GLA + (u64)(place_syscall_end - place_syscall));
	assert_int_equal(trap.address, regs()->rip);
	assert_int_equal(regs()->gpr[RAX], 39);
	assert_int_equal(regs()->rflags & (RFLAGS_CF | RFLAGS_AC | RFLAGS_ID), RFLAGS_CF | RFLAGS_AC | RFLAGS_ID);
	regs()->rflags = 0;

	u64 value = 77;
	memcpy(ram + PAGE_SIZE + 8, &value, sizeof(value));
	regs()->gs_base = 2 * GLA;
	assert_int_equal(PLACE(place_gs), SPACE_TRAP);
	assert_int_equal(trap.vector, 6);
	assert_int_equal(regs()->gpr[RAX], 77);
	assert_int_equal(regs()->gs_base, 0x1234560);
	static const u16 selector[6] = { 0, HOST_SPACE_CS, HOST_SPACE_SS, 0, 0, 0 };
	assert_memory_equal(regs()->selector, selector, sizeof(selector));

	assert_int_equal(PLACE(place_write), SPACE_TRAP);
	assert_int_equal(trap.vector, 14);
	assert_int_equal(trap.error_code, 7);
	assert_int_equal(PLACE(place_step), SPACE_TRAP);
	assert_int_equal(trap.vector, 1);
	assert_true(regs()->rflags & RFLAGS_TF);
	assert_int_equal(PLACE(place_segment), SPACE_TRAP);
	assert_int_equal(regs()->selector[3], 0x2b);
	assert_int_equal(PLACE(place_gs), SPACE_TRAP);
	assert_int_equal(regs()->selector[3], 0);
	/* Not executable: a fetch faults. */
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_WRITE), 0);
	regs()->rip = GLA;
	assert_int_equal(host_space_run(space, &trap, true), SPACE_TRAP);
	assert_int_equal(trap.error_code & 0x14, 0x14);
	/* Translated code is as it was. */
	assert_int_equal(RUN(nothing), SPACE_LEFT);
}

/* A kick at any moment stops it between two instructions, and nothing is lost. */
static void test_place_kicks(void **state)
{
	pthread_t thread;
	u64 counted = 0;
	if (!host_space_runs_in_place())
		skip();
	round_begun = 0;
	assert_int_equal(pthread_create(&thread, NULL, kick, NULL), 0);
	regs()->gpr[RAX] = 0;
	memcpy(ram, place_loop, (size_t)(place_loop_end - place_loop));
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_EXEC), 0);
	regs()->rip = GLA;
	for (u32 i = 1; i <= KICKS; i++) {
		__atomic_store_n(&round_begun, i, __ATOMIC_RELEASE);
		do { /* a signal of the round before may still come */
			vcpu_watch(&vcpu, &space->window->stop);
			assert_int_equal(host_space_run(space, &trap, true), SPACE_STOPPED);
			vcpu_watch(&vcpu, NULL);
		} while (!vcpu_pending(&vcpu));
		assert_true(regs()->gpr[RAX] >= counted);
		counted = regs()->gpr[RAX];
		assert_in_range(regs()->rip, GLA, GLA + 8);
		vcpu_clear_pending(&vcpu, PENDING_KICK);
	}
	pthread_join(thread, NULL);
	assert_true(counted > 0);
}

/* Guest code that jumps to the runtime's own system calls gets nothing by it. */
static void test_place_forges(void **state)
{
	unsigned found = 0;
	if (!host_space_runs_in_place())
		skip();
	for (u32 i = 0; i + 1 < space_runtime_size; i++) {
		if (space_runtime[i] != 0x0f || space_runtime[i + 1] != 0x05)
			continue;
		found++;
		regs()->gpr[RBX] = (host_space_leave() & PAGE_MASK) + i;
		regs()->gpr[RAX] = SYS_mmap;
		regs()->gpr[RDI] = 3 * GLA;
		regs()->gpr[RSI] = PAGE_SIZE;
		regs()->gpr[RDX] = PROT_READ | PROT_WRITE;
		regs()->gpr[R10] = MAP_SHARED | MAP_FIXED;
		regs()->gpr[R8] = SPACE_RAM_FD;
		regs()->gpr[R9] = 8 * PAGE_SIZE;
		assert_int_equal(PLACE(place_forge), SPACE_BROKEN);
		host_space_destroy(space);
		assert_int_equal(make_space(NULL), 0);
	}
	assert_true(found > 5);
}

/* ---- in turn with translated code ---- */

IN_PLACE(place_calls, "1:\tcall *%rbx\n\tinc %rax\n\tjmp 1b");
/* Translated code for a function that counts and returns, by host_space_enter_place(), whose address is in the window. */
IN_PLACE(counts, "lea 1(%rdi), %rdi\n\tpop %gs:0x10c8\n\tmov %rcx, %gs:0x10d0\n\tjmp *%gs:0");

_Static_assert(offsetof(struct host_space_window, place_target) == 0x10c8 && offsetof(struct host_space_window, place_rcx) == 0x10d0, "counts");

/* A loop in place that calls what it may not execute. */
static void set_up_turns(void)
{
	u64 callee = 3 * GLA + 0x123;
	memcpy(ram, place_calls, (size_t)(place_calls_end - place_calls));
	memcpy(code.rw, counts, (size_t)(counts_end - counts));
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_EXEC), 0);
	assert_int_equal(host_space_map(space, 2 * GLA, ram + PAGE_SIZE, 2 * PAGE_SIZE, SPACE_WRITE), 0);
	assert_int_equal(host_space_map(space, 3 * GLA, ram + 3 * PAGE_SIZE, PAGE_SIZE, SPACE_READ), 0);
	*(u64 *)(void *)space->window->user = host_space_enter_place();
	unsigned i = host_space_crossing(callee);
	space->window->crossing[i].rip = callee;
	space->window->crossing[i].code = (u64)(uintptr_t)code.rx;
	regs()->rip = GLA;
	regs()->gpr[RAX] = regs()->gpr[RDI] = 0;
	regs()->gpr[RBX] = callee;
	regs()->gpr[RCX] = 0x5555;
	regs()->gpr[RSP] = 2 * GLA + PAGE_SIZE;
	regs()->gs_base = 0x123000;
}

/* Kicks come while either runs, and in between. Nothing is lost, and nothing is done twice. */
static void test_turns(void **state)
{
	pthread_t thread;
	bool translated = false, in_place = false;
	if (!host_space_runs_in_place())
		skip();
	set_up_turns();
	round_begun = 0;
	assert_int_equal(pthread_create(&thread, NULL, kick, NULL), 0);
	for (u32 i = 1; i <= KICKS; i++) {
		__atomic_store_n(&round_begun, i, __ATOMIC_RELEASE);
		do {
			vcpu_watch(&vcpu, &space->window->stop);
			enum host_space_exit how = host_space_run(space, &trap, true);
			vcpu_watch(&vcpu, NULL);
			u64 rax = regs()->gpr[RAX], rdi = regs()->gpr[RDI];
			assert_true(how == SPACE_STOPPED || how == SPACE_LEFT);
			if (how == SPACE_LEFT) { /* when it was about to return */
				assert_int_equal(space->window->place_target, GLA + 2);
				assert_int_equal(space->window->place_rcx, 0x5555);
				regs()->gpr[RCX] = 0x5555;
				regs()->rip = GLA + 2;
				translated = true;
			} else if (regs()->rip >= GLA && regs()->rip < GLA + 8) {
				in_place = true;
			}
			assert_int_equal(regs()->gpr[RCX], 0x5555);
			assert_int_equal(regs()->gs_base, 0x123000);
			bool returned = regs()->rip == GLA + 2;
			assert_int_equal(rdi, rax + returned);
		} while (!vcpu_pending(&vcpu));
		vcpu_clear_pending(&vcpu, PENDING_KICK);
	}
	pthread_join(thread, NULL);
	assert_true(translated || in_place);
	assert_true(regs()->gpr[RAX] > 0);
}

/* What is not in the table, and what would trap at once, comes back. */
static void test_turns_refused(void **state)
{
	if (!host_space_runs_in_place())
		skip();
	set_up_turns();
	memset(space->window->crossing, 0, sizeof(space->window->crossing));
	assert_int_equal(host_space_run(space, &trap, true), SPACE_TRAP);
	assert_int_equal(trap.address, 3 * GLA + 0x123);
	set_up_turns();
	regs()->rflags = RFLAGS_AC;
	assert_int_equal(host_space_run(space, &trap, true), SPACE_TRAP);
	assert_int_equal(trap.pc, 3 * GLA + 0x123);
	assert_true(regs()->rflags & RFLAGS_AC);
	regs()->rflags = 0;
	/* Not in a run of translated code. */
	memcpy(code.rw, counts, (size_t)(counts_end - counts));
	regs()->gpr[RSP] = 2 * GLA + PAGE_SIZE;
	regs()->rip = (u64)(uintptr_t)code.rx;
	assert_int_equal(host_space_run(space, &trap, false), SPACE_LEFT);
}

/* ---- break points of code in place ---- */

/* Eight instructions of a byte at GLA and at each page behind, and the end. */
IN_PLACE(place_nops, "nop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tnop\n\tud2");

/* Run from GLA: it comes back at these addresses, one after the other, then at the end. */
static void expect_breaks(struct host_space *s, const u64 *at, unsigned count)
{
	s->window->regs.rip = GLA;
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(host_space_run(s, &trap, true), SPACE_AT_BREAK);
		assert_int_equal(s->window->regs.rip, at[i]);
		assert_int_equal(trap.pc, at[i]);
		s->window->regs.rip++; /* past the NOP, as whoever steps it would */
	}
	assert_int_equal(host_space_run(s, &trap, true), SPACE_TRAP);
	assert_int_equal(trap.vector, 6);
	assert_int_equal(trap.pc, GLA + 8);
}

static void map_nops(struct host_space *s)
{
	memcpy(ram, place_nops, (size_t)(place_nops_end - place_nops));
	assert_int_equal(host_space_map(s, GLA, ram, PAGE_SIZE, SPACE_EXEC), 0);
}

/* Whether there are any: the host may keep its debug registers for itself. */
static bool breaks_work(void)
{
	return host_space_runs_in_place() && host_space_break(space, (const u64[]){ GLA }, 1);
}

static void test_breaks(void **state)
{
	static const u64 all[] = { GLA + 1, GLA + 3, GLA + 4, GLA + 7 }, other[] = { GLA, GLA + 5 };
	if (!breaks_work())
		skip();
	map_nops(space);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned count = 1; count <= HOST_SPACE_BREAKS; count++) {
			assert_true(host_space_break(space, all, count));
			expect_breaks(space, all, count);
			expect_breaks(space, all, count); /* they stay */
		}
		/* Instead of those before, fewer, and none. */
		assert_true(host_space_break(space, other, ARRAY_SIZE(other)));
		expect_breaks(space, other, ARRAY_SIZE(other));
		assert_true(host_space_break(space, NULL, 0));
		expect_breaks(space, NULL, 0);
	}
	/* Of instructions alone: data may be read and written there; and translated code is not concerned. */
	assert_true(host_space_break(space, (const u64[]){ GLA + 2, (u64)(uintptr_t)code.rx + PAGE_SIZE }, 2));
	regs()->gpr[RSI] = GLA + 2;
	assert_int_equal(RUN(load), SPACE_LEFT);
	expect_breaks(space, (const u64[]){ GLA + 2 }, 1);
	/* Where nothing is mapped it or a page fault comes first. */
	assert_true(host_space_break(space, (const u64[]){ 3 * GLA }, 1));
	regs()->rip = 3 * GLA;
	enum host_space_exit how = host_space_run(space, &trap, true);
	assert_true(how == SPACE_AT_BREAK || (how == SPACE_TRAP && trap.vector == 14));
	expect_breaks(space, NULL, 0);
}

/* What the debug registers cannot hold is refused, and then there are none. */
static void test_breaks_refused(void **state)
{
	static const u64 good[] = { GLA + 1 }, bad[] = { GLA + 1, 0xffffffff81000000 }, hole[] = { 1ull << 63 };
	if (!breaks_work())
		skip();
	map_nops(space);
	assert_true(host_space_break(space, good, 1));
	assert_false(host_space_break(space, bad, 2));
	expect_breaks(space, NULL, 0);
	assert_false(host_space_break(space, hole, 1));
	assert_true(host_space_break(space, good, 1));
	expect_breaks(space, good, 1);
}

/* Each space has its own, also those that come later in the same place, and those that are lost have none. */
static void test_breaks_of_many(void **state)
{
	struct host_space *many[8] = { NULL };
	if (!breaks_work())
		skip();
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++) {
		many[i] = create_patiently();
		assert_non_null(many[i]);
		many[i]->window->xcr0_mask = 7;
		memcpy(many[i]->window->xsave, space->window->xsave, sizeof(space->window->xsave));
		map_nops(many[i]);
		assert_true(host_space_break(many[i], (const u64[]){ GLA + i }, 1));
	}
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
			expect_breaks(many[i], (const u64[]){ GLA + i }, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		host_space_destroy(many[i]);
	host_space_destroy(space);
	space = create_patiently();
	assert_non_null(space);
	space->window->xcr0_mask = 7;
	memcpy(space->window->xsave, (const u8[]){ 0x7f, 3 }, 2);
	memcpy(space->window->xsave + 24, (const u8[]){ 0x80, 0x1f }, 2);
	map_nops(space);
	expect_breaks(space, NULL, 0);
	assert_int_equal(RUN(call_system), SPACE_BROKEN);
	assert_false(host_space_break(space, (const u64[]){ GLA }, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_place), TEST(test_place_kicks), TEST(test_place_forges), TEST(test_turns), TEST(test_turns_refused),
		TEST(test_breaks), TEST(test_breaks_refused), TEST(test_breaks_of_many),
	};
	int status = space_test_start();
	if (status)
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
