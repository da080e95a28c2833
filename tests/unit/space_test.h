/* What the tests of spaces share: guest RAM, a code area, a space for each test; code for it, and kicks at any moment. */
#ifndef NADIR_TESTS_UNIT_SPACE_TEST_H
#define NADIR_TESTS_UNIT_SPACE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/regs.h"
#include "host/linux/space.h"
#include "host/linux/space_layout.h"
#include "vcpu/vcpu.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RAM_SIZE (16u << 20)
#define CODE_SIZE (64u << 10)
#define TABLES_SIZE (64u << 10)
#define GLA 0x400000 /* where we map most things, as an ordinary program's code */

/* Code for a space; it leaves through a pointer that `run` puts at the start of the window. */
#define SNIPPET(name, text)                                                                                        \
	asm(".pushsection .rodata\n" #name ": " text "\n\tjmp *%gs:0\n" #name "_end:\n.popsection");               \
	extern const u8 name[], name##_end[]

SNIPPET(nothing, "");
SNIPPET(load, "mov (%rsi), %rax");
SNIPPET(call_system, "syscall");

static struct host_code code;
static u8 *ram;
static struct host_space *space;
static struct host_trap trap;

static struct host_space_regs *regs(void)
{
	return &space->window->regs;
}

static enum host_space_exit run_bytes(const u8 *start, const u8 *end)
{
	memcpy(code.rw, start, (size_t)(end - start));
	regs()->rip = (u64)(uintptr_t)code.rx;
	*(u64 *)(void *)space->window->user = host_space_leave();
	return host_space_run(space, &trap, false);
}

#define RUN(name) run_bytes(name, name##_end)

static int make_space(void **state)
{
	space = host_space_create(&code, ram, RAM_SIZE, TABLES_SIZE);
	if (!space)
		return -1;
	space->window->xcr0_mask = 7;
	/* The state after FNINIT and with MXCSR's default. */
	memcpy(space->window->xsave, (const u8[]){ 0x7f, 3 }, 2);
	memcpy(space->window->xsave + 24, (const u8[]){ 0x80, 0x1f }, 2);
	return 0;
}

static int end_space(void **state)
{
	host_space_destroy(space);
	memset(ram, 0, RAM_SIZE);
	return 0;
}

/* Those that were destroyed take their places until they have ended. */
static struct host_space *create_patiently(void)
{
	struct host_space *s = NULL;
	for (unsigned i = 0; !s && i < 500; i++) {
		if (i)
			usleep(10000);
		s = host_space_create(&code, ram, RAM_SIZE, TABLES_SIZE);
	}
	return s;
}

/* ---- kicks ---- */

/* A kick at any moment around the entry ends the run: what is pending is noticed before it, what comes later during it. */
#define KICKS 2000
static struct vcpu vcpu;
static u32 round_begun;

static void *kick(void *opaque)
{
	for (u32 i = 1; i <= KICKS; i++) {
		while (__atomic_load_n(&round_begun, __ATOMIC_ACQUIRE) != i)
			sched_yield();
		vcpu_set_pending(&vcpu, PENDING_KICK);
	}
	return NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_space, end_space)

/* Guest RAM and a code area. Other than 0: the test's exit status. */
static int space_test_start(void)
{
	const char *why;
	space_start();
	if (!host_space_hole(&why)) {
		print_message("skipped: %s\n", why);
		return 77;
	}
	ram = host_ram_create(RAM_SIZE);
	return !ram || host_code_create(&code, CODE_SIZE);
}

#endif
