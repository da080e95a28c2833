/* Address spaces of their own, on the real host: code put into the code area runs in a space, what it does and suffers comes back, and
 * nothing it does hurts us. */
#define _GNU_SOURCE
#include "space_test.h"

SNIPPET(shuffle, "xchg %rax, %r15\n\txchg %rbx, %r14\n\txchg %rcx, %r13\n\txchg %rdx, %r12\n\txchg %rsi, %r11\n\txchg %rdi, %r10\n\t"
		 "xchg %rbp, %r9\n\txchg %rsp, %r8");
SNIPPET(copy, "mov (%rsi), %rax\n\tmov %rax, (%rdi)");
SNIPPET(store, "mov %rax, (%rdi)");
SNIPPET(flip, "cmc\n\tstd");
SNIPPET(red_zone, "mov %rax, -8(%rsp)\n\tmov %rax, -128(%rsp)");
SNIPPET(vectors, "paddq %xmm0, %xmm0\n\tfld1\n\tfaddp");
SNIPPET(thread_local, "mov %fs:0, %rax");
SNIPPET(divide, "xor %ecx, %ecx\n\tdiv %ecx");
SNIPPET(undefined, "ud2");
SNIPPET(breakpoint, "int3");
SNIPPET(wait_for_stop, "movl $1, %gs:8\n1:\tpause\n\tcmpl $0, %gs:0x3000\n\tje 1b");
SNIPPET(deaf, "movl $1, %gs:8\n1:\tpause\n\tjmp 1b");
SNIPPET(wreck, "rdgsbase %rdi\n\tmov $0x3000, %ecx\n\tmov %gs:0, %rbx\n\trep stosb\n\tlea 0x4000(%rdi), %rdi\n\tmov $0x800, %ecx\n\t"
	       "rep stosb\n\tjmp *%rbx");

/* ---- what works ---- */

static void test_registers(void **state)
{
	for (unsigned i = 0; i < 16; i++)
		regs()->gpr[i] = 0x1111111111111111 * i + 7;
	struct host_space_regs before = *regs();
	assert_int_equal(RUN(nothing), SPACE_LEFT);
	assert_memory_equal(regs()->gpr, before.gpr, sizeof(before.gpr));
	assert_int_equal(RUN(shuffle), SPACE_LEFT);
	static const u8 pairs[][2] = { { 0, 15 }, { 3, 14 }, { 1, 13 }, { 2, 12 }, { 6, 11 }, { 7, 10 }, { 5, 9 }, { 4, 8 } };
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		assert_int_equal(regs()->gpr[pairs[i][0]], before.gpr[pairs[i][1]]);
		assert_int_equal(regs()->gpr[pairs[i][1]], before.gpr[pairs[i][0]]);
	}
}

static void test_flags(void **state)
{
	for (u64 in = 0; in < 0x1000; in++) {
		if (in & ~(u64)(RFLAGS_STATUS | RFLAGS_DF))
			continue;
		regs()->rflags = in;
		assert_int_equal(RUN(flip), SPACE_LEFT);
		assert_int_equal(regs()->rflags & (RFLAGS_STATUS | RFLAGS_DF), (in ^ RFLAGS_CF) | RFLAGS_DF);
	}
	/* What must not get there does not. */
	regs()->rflags = ~0ull;
	assert_int_equal(RUN(nothing), SPACE_LEFT);
}

static void test_fs_base(void **state)
{
	u64 value = 0x1234;
	memcpy(ram + 3 * PAGE_SIZE, &value, sizeof(value));
	assert_int_equal(host_space_map(space, GLA, ram + 3 * PAGE_SIZE, PAGE_SIZE, SPACE_READ), 0);
	regs()->fs_base = GLA;
	assert_int_equal(RUN(thread_local), SPACE_LEFT);
	assert_int_equal(regs()->gpr[RAX], value);
}

static void test_vectors(void **state)
{
	u8 *xsave = space->window->xsave;
	u64 in[2] = { 0x0123456789abcdef, 21 }, out[2];
	memcpy(xsave + 160, in, sizeof(in));
	xsave[512] = 3; /* x87 and SSE state is not the initial one */
	memcpy(xsave + 32, (const u8[]){ 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f }, 10); /* ST(0) = 1.0 */
	xsave[4] = 1;
	assert_int_equal(RUN(vectors), SPACE_LEFT);
	memcpy(out, xsave + 160, sizeof(out));
	assert_int_equal(out[0], 2 * in[0]);
	assert_int_equal(out[1], 2 * in[1]);
	assert_memory_equal(xsave + 32, ((const u8[]){ 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x40 }), 10);
	/* In traps too. */
	memcpy(xsave + 160, in, sizeof(in));
	assert_int_equal(RUN(undefined), SPACE_TRAP);
	memcpy(out, xsave + 160, sizeof(out));
	assert_memory_equal(out, in, sizeof(in));
	assert_memory_equal(xsave + 32, ((const u8[]){ 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0x40 }), 10);
}

static void test_memory(void **state)
{
	static const u64 places[] = { GLA, 0x10000, 0x555555554000, 0x7ffff7fc0000, HOST_SPACE_END - 2 * PAGE_SIZE };
	u64 *a = (u64 *)(void *)(ram + 5 * PAGE_SIZE), *b = (u64 *)(void *)(ram + RAM_SIZE - PAGE_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		assert_int_equal(host_space_map(space, places[i], a, PAGE_SIZE, SPACE_READ), 0);
		assert_int_equal(host_space_map(space, 0x20000000, b, PAGE_SIZE, SPACE_WRITE), 0);
		*a = 0xabcdef + i;
		regs()->gpr[RSI] = places[i];
		regs()->gpr[RDI] = 0x20000000 + 8 * i;
		assert_int_equal(RUN(copy), SPACE_LEFT);
		assert_int_equal(b[i], *a);
	}
}

static void test_red_zone(void **state)
{
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_WRITE), 0);
	memset(ram, 0x55, PAGE_SIZE);
	regs()->gpr[RSP] = GLA + 512;
	regs()->gpr[RAX] = 0x5555555555555555;
	assert_int_equal(RUN(red_zone), SPACE_LEFT);
	memcpy(code.rw, undefined, (size_t)(undefined_end - undefined));
	regs()->rip = (u64)(uintptr_t)code.rx;
	assert_int_equal(host_space_run(space, &trap, false), SPACE_TRAP);
	assert_int_equal(regs()->gpr[RSP], GLA + 512);
	for (size_t i = 0; i < PAGE_SIZE; i++)
		assert_int_equal(ram[i], 0x55);
}

static void test_tables(void **state)
{
	u64 value = 0x77;
	memcpy(space->tables + TABLES_SIZE - 8, &value, sizeof(value));
	regs()->gpr[RSI] = space->tables_there + TABLES_SIZE - 8;
	assert_int_equal(RUN(load), SPACE_LEFT);
	assert_int_equal(regs()->gpr[RAX], value);
}

/* ---- faults ---- */

static void expect_page_fault(u64 address, u32 error)
{
	assert_int_equal(trap.vector, 14);
	assert_int_equal(trap.address, address);
	assert_int_equal(trap.error_code, error);
	assert_int_equal(trap.pc, (u64)(uintptr_t)code.rx);
}

static void test_page_faults(void **state)
{
	regs()->gpr[RSI] = regs()->gpr[RDI] = GLA + 8;
	regs()->gpr[RAX] = 99;
	regs()->rflags = RFLAGS_CF | RFLAGS_ZF | RFLAGS_DF;
	assert_int_equal(RUN(load), SPACE_TRAP);
	expect_page_fault(GLA + 8, 4);
	assert_int_equal(regs()->gpr[RAX], 99);
	assert_int_equal(regs()->gpr[RSI], GLA + 8);
	assert_int_equal(regs()->rflags & (RFLAGS_STATUS | RFLAGS_DF), RFLAGS_CF | RFLAGS_ZF | RFLAGS_DF);
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_READ), 0);
	assert_int_equal(host_space_run(space, &trap, false), SPACE_LEFT);
	assert_int_equal(regs()->gpr[RAX], 0);
	assert_int_equal(RUN(store), SPACE_TRAP);
	expect_page_fault(GLA + 8, 7);
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_WRITE), 0);
	assert_int_equal(RUN(store), SPACE_LEFT);
	assert_int_equal(host_space_unmap(space, GLA, PAGE_SIZE), 0);
	assert_int_equal(RUN(load), SPACE_TRAP);
	expect_page_fault(GLA + 8, 4);
}

static void test_other_traps(void **state)
{
	assert_int_equal(RUN(divide), SPACE_TRAP);
	assert_int_equal(trap.vector, 0);
	assert_int_equal(trap.pc, (u64)(uintptr_t)code.rx + 2);
	assert_int_equal(RUN(undefined), SPACE_TRAP);
	assert_int_equal(trap.vector, 6);
	assert_int_equal(RUN(breakpoint), SPACE_TRAP);
	assert_int_equal(trap.vector, 3);
	regs()->gpr[RSI] = 1ull << 63;
	assert_int_equal(RUN(load), SPACE_TRAP);
	assert_int_equal(trap.vector, 13);
	assert_int_equal(RUN(nothing), SPACE_LEFT);
}

/* Nothing of this program is there, and what is the runtime's own cannot be written. */
static void test_nothing_else(void **state)
{
	const char *why;
	u64 hole = host_space_hole(&why);
	u64 ours[] = { (u64)(uintptr_t)&trap, (u64)(uintptr_t)test_nothing_else, (u64)(uintptr_t)malloc, (u64)(uintptr_t)ram, hole,
		       (u64)(uintptr_t)space->tables, (u64)(uintptr_t)__builtin_frame_address(0) };
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
		regs()->gpr[RSI] = ours[i];
		assert_int_equal(RUN(load), SPACE_TRAP);
		assert_int_equal(trap.address, ours[i]);
	}
	u64 kept[] = { host_space_leave() & PAGE_MASK, space->tables_there, (u64)(uintptr_t)code.rx };
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		regs()->gpr[RDI] = kept[i] + 64;
		assert_int_equal(RUN(store), SPACE_TRAP);
		expect_page_fault(kept[i] + 64, trap.error_code | 6); /* whether the page is there yet is no matter */
	}
}

/* ---- mappings ---- */

static void test_refused_mappings(void **state)
{
	const char *why;
	u64 hole = host_space_hole(&why);
	static const u64 bad[] = { 0, HOST_SPACE_END - PAGE_SIZE, HOST_SPACE_END, 1ull << 63, -PAGE_SIZE };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(host_space_map(space, bad[i], ram, PAGE_SIZE, SPACE_READ), -1);
	assert_int_equal(host_space_map(space, hole, ram, PAGE_SIZE, SPACE_WRITE), -1);
	assert_int_equal(host_space_map(space, hole - PAGE_SIZE, ram, 2 * PAGE_SIZE, SPACE_WRITE), -1);
	assert_int_equal(host_space_map(space, hole + HOST_SPACE_HOLE - PAGE_SIZE, ram, PAGE_SIZE, SPACE_WRITE), -1);
	assert_int_equal(host_space_map(space, GLA, ram - PAGE_SIZE, PAGE_SIZE, SPACE_WRITE), -1);
	assert_int_equal(host_space_map(space, GLA, ram + RAM_SIZE, PAGE_SIZE, SPACE_WRITE), -1);
	assert_int_equal(host_space_map(space, GLA, ram, RAM_SIZE + PAGE_SIZE, SPACE_WRITE), -1);
	assert_int_equal(host_space_unmap(space, HOST_SPACE_END, PAGE_SIZE), -1);
	assert_int_equal(host_space_unmap(space, -PAGE_SIZE, 2 * PAGE_SIZE), -1);
	assert_int_equal(RUN(nothing), SPACE_LEFT);
}

/* More than the queue holds, in an order that does not merge, then everything away. */
static void test_many_mappings(void **state)
{
	unsigned pages = RAM_SIZE / PAGE_SIZE;
	for (unsigned i = 0; i < pages; i++) {
		*(u32 *)(void *)(ram + i * PAGE_SIZE) = i;
		assert_int_equal(host_space_map(space, GLA + (u64)(pages - i) * PAGE_SIZE, ram + i * PAGE_SIZE, PAGE_SIZE, SPACE_READ), 0);
	}
	for (unsigned i = 0; i < pages; i += 37) {
		regs()->gpr[RSI] = GLA + (u64)(pages - i) * PAGE_SIZE;
		assert_int_equal(RUN(load), SPACE_LEFT);
		assert_int_equal(regs()->gpr[RAX], i);
	}
	assert_int_equal(host_space_unmap(space, 0, HOST_SPACE_END), 0);
	assert_int_equal(host_space_map(space, GLA, ram + PAGE_SIZE, PAGE_SIZE, SPACE_READ), 0);
	assert_int_equal(RUN(load), SPACE_TRAP);
	regs()->gpr[RSI] = GLA;
	assert_int_equal(RUN(load), SPACE_LEFT);
	assert_int_equal(regs()->gpr[RAX], 1);
}

/* Mappings come to an end before the host refuses them, and begin anew. */
static void test_too_many(void **state)
{
	u64 gla = GLA;
	while (!host_space_map(space, gla, ram, PAGE_SIZE, SPACE_READ))
		gla += PAGE_SIZE;
	assert_true(gla > GLA + 1000 * PAGE_SIZE);
	assert_int_equal(RUN(nothing), SPACE_LEFT);
	assert_int_equal(host_space_unmap(space, 0, HOST_SPACE_END), 0);
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_READ), 0);
	assert_int_equal(RUN(nothing), SPACE_LEFT);
}

/* ---- kicks ---- */

static void *stop_it(void *opaque)
{
	struct host_space_window *window = opaque;
	while (!__atomic_load_n(&window->user[8], __ATOMIC_ACQUIRE))
		usleep(100);
	__atomic_store_n(&window->stop, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static enum host_space_exit run_and_stop(const u8 *start, const u8 *end)
{
	pthread_t thread;
	memset(space->window->user, 0, 16);
	assert_int_equal(pthread_create(&thread, NULL, stop_it, space->window), 0);
	enum host_space_exit how = run_bytes(start, end);
	pthread_join(thread, NULL);
	return how;
}

static void test_stop(void **state)
{
	for (int i = 0; i < 100; i++) {
		assert_int_equal(run_and_stop(wait_for_stop, wait_for_stop_end), SPACE_LEFT);
		space->window->stop = 0;
	}
}
static void test_kicks(void **state)
{
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, kick, NULL), 0);
	for (u32 i = 1; i <= KICKS; i++) {
		__atomic_store_n(&round_begun, i, __ATOMIC_RELEASE);
		vcpu_watch(&vcpu, &space->window->stop);
		assert_int_equal(RUN(wait_for_stop), SPACE_LEFT);
		vcpu_watch(&vcpu, NULL);
		while (!vcpu_pending(&vcpu))
			sched_yield();
		vcpu_clear_pending(&vcpu, PENDING_KICK);
	}
	pthread_join(thread, NULL);
}
/* Threads with spaces of their own do not meet, but in RAM. */
#define THREADS 4
#define RUNS 1000

static void *live_alone(void *opaque)
{
	u64 number = (u64)(uintptr_t)opaque, *cell = (u64 *)(void *)(ram + number * PAGE_SIZE);
	struct host_trap mine;
	for (u64 life = 0; life < 4; life++) {
		struct host_space *s = host_space_create(&code, ram, RAM_SIZE, TABLES_SIZE);
		if (!s || host_space_map(s, GLA, cell, PAGE_SIZE, SPACE_WRITE))
			return NULL;
		*(u64 *)(void *)s->window->user = host_space_leave();
		for (u64 i = 0; i < RUNS; i++) {
			s->window->regs.rip = (u64)(uintptr_t)code.rx;
			s->window->regs.gpr[RDI] = GLA + (i % 512) * 8;
			s->window->regs.gpr[RAX] = number * RUNS + i;
			if (host_space_run(s, &mine, false) != SPACE_LEFT || cell[i % 512] != number * RUNS + i)
				return NULL;
		}
		host_space_destroy(s);
	}
	return opaque;
}

static void test_threads(void **state)
{
	pthread_t thread[THREADS];
	memcpy(code.rw, store, (size_t)(store_end - store));
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, live_alone, (void *)(i + 1)), 0);
	for (uintptr_t i = 0; i < THREADS; i++) {
		void *good;
		pthread_join(thread[i], &good);
		assert_int_equal((uintptr_t)good, i + 1);
	}
}

/* ---- what a hostile guest may try ---- */

static void test_deaf(void **state)
{
	assert_int_equal(run_and_stop(deaf, deaf_end), SPACE_BROKEN);
	assert_int_equal(RUN(nothing), SPACE_GONE);
	assert_int_equal(host_space_map(space, GLA, ram, PAGE_SIZE, SPACE_WRITE), -1);
}

static void test_system_calls(void **state)
{
	/* write, open, getpid, mmap, munmap, mprotect, fork, kill, futex, exit: from translated code, none. */
	static const u64 calls[] = { 1, 2, 39, 9, 11, 10, 57, 62, 202, 60 };
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		regs()->gpr[RAX] = calls[i];
		assert_int_equal(RUN(call_system), SPACE_BROKEN);
		assert_int_equal(RUN(nothing), SPACE_GONE);
		host_space_destroy(space);
		assert_int_equal(make_space(NULL), 0);
	}
}

/* All that it can write is garbage: it may be lost, but that is all. */
static void test_wreck(void **state)
{
	for (unsigned fill = 0; fill < 256; fill += 17) {
		regs()->gpr[RAX] = fill;
		RUN(wreck);
		regs()->gpr[RAX] = fill;
		RUN(nothing);
		host_space_destroy(space);
		assert_int_equal(make_space(NULL), 0);
	}
	assert_int_equal(RUN(nothing), SPACE_LEFT);
}

/* ---- many ---- */

static void test_many_spaces(void **state)
{
	static struct host_space *many[SPACE_SLOTS];
	unsigned count = 0;
	u64 value = 1;
	while (count < SPACE_SLOTS - 1 && (many[count] = create_patiently()))
		count++;
	assert_null(host_space_create(&code, ram, RAM_SIZE, TABLES_SIZE));
	assert_int_equal(count, SPACE_SLOTS - 1); /* one is `space` */
	memcpy(code.rw, store, (size_t)(store_end - store));
	for (unsigned i = 0; i < count; i++) {
		struct host_space *s = many[i];
		s->window->regs.rip = (u64)(uintptr_t)code.rx;
		*(u64 *)(void *)s->window->user = host_space_leave();
		s->window->regs.gpr[RAX] = value = i + 1000;
		s->window->regs.gpr[RDI] = GLA;
		assert_int_equal(host_space_map(s, GLA, ram + i * PAGE_SIZE, PAGE_SIZE, SPACE_WRITE), 0);
		assert_int_equal(host_space_run(s, &trap, false), SPACE_LEFT);
		assert_int_equal(*(u64 *)(void *)(ram + i * PAGE_SIZE), value);
	}
	for (unsigned i = 0; i < count; i++)
		host_space_destroy(many[i]);
}

/* Another VMM, in a process that was forked from this one, and its first space. */
static void be_another(void)
{
	space_start();
	ram = host_ram_create(RAM_SIZE);
	if (!ram || host_code_create(&code, CODE_SIZE) || make_space(NULL))
		_exit(1);
}

/* A VMM in a space that does not listen. */
static void run_for_ever(int told)
{
	be_another();
	if (write(told, "x", 1) != 1)
		_exit(1);
	RUN(deaf);
	_exit(1);
}

/* When a VMM is killed, its server and its spaces end. Whoever loses its parent becomes the child of `watch`, which thus sees all
 * their ends. */
static void watch(void)
{
	int told[2];
	char byte;
	alarm(20);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) || pipe(told))
		_exit(1);
	pid_t pid = fork();
	if (!pid)
		run_for_ever(told[1]);
	close(told[1]);
	if (read(told[0], &byte, 1) != 1)
		_exit(1);
	usleep(100000);
	kill(pid, SIGKILL);
	int ended = 0;
	while (wait(NULL) > 0)
		ended++;
	_exit(ended);
}

static void test_killed(void **state)
{
	int status;
	pid_t pid = fork();
	if (!pid)
		watch();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_in_range(WEXITSTATUS(status), 2, 3); /* the VMM, the server, and perhaps its space */
}

static void *kill_server(void *opaque)
{
	usleep(50000);
	kill(*(pid_t *)opaque, SIGKILL);
	return NULL;
}

/* When the server is killed, its spaces are lost, and whoever is in one hears of it. */
static void lose_server(void)
{
	pthread_t thread;
	int pid = 0;
	be_another();
	FILE *children = fopen("/proc/thread-self/children", "r");
	if (!children)
		_exit(77);
	if (fscanf(children, "%d", &pid) != 1 || pthread_create(&thread, NULL, kill_server, &pid))
		_exit(1);
	if (RUN(deaf) != SPACE_BROKEN || RUN(nothing) != SPACE_GONE || host_space_create(&code, ram, RAM_SIZE, TABLES_SIZE))
		_exit(2);
	host_space_destroy(space);
	_exit(0);
}

static void test_server_killed(void **state)
{
	int status;
	pid_t pid = fork();
	if (!pid)
		lose_server();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_registers), TEST(test_flags), TEST(test_fs_base), TEST(test_vectors), TEST(test_memory), TEST(test_red_zone),
		TEST(test_tables), TEST(test_page_faults), TEST(test_other_traps), TEST(test_nothing_else), TEST(test_refused_mappings),
		TEST(test_many_mappings), TEST(test_too_many), TEST(test_stop), TEST(test_kicks), TEST(test_threads), TEST(test_deaf),
		TEST(test_system_calls), TEST(test_wreck), TEST(test_many_spaces),
		cmocka_unit_test(test_killed), cmocka_unit_test(test_server_killed),
	};
	int status = space_test_start();
	if (status)
		return status;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
