/* MISSION B4: the fast system calls, call gates, far calls, jumps and returns change privilege exactly as the manual
 * says. Intel SDM volume 2: SYSENTER, SYSEXIT, SYSCALL, SYSRET, CALL, JMP, RET; AMD APM volume 3 where AMD differs
 * (SYSENTER in long mode, SYSCALL outside 64-bit mode). */
#include "lib/guest.h"

#define TEST_SELECTOR SEL_FREE
#define GATE_SELECTOR (SEL_FREE + 0x10)

CODE(landing, "nop");
CODE(user_landing, "nop");

static u8 inner_stack[3][4096] __attribute__((aligned(64)));

static ulong stack_of(unsigned cpl)
{
	return (ulong)inner_stack[cpl] + sizeof(inner_stack[cpl]) - 64;
}

static void inner_stacks_init(void)
{
	for (unsigned cpl = 1; cpl < 3; cpl++) {
#ifdef __x86_64__
		tss.rsp[cpl] = stack_of(cpl);
#else
		tss.t.stack[cpl].sp = stack_of(cpl);
		tss.t.stack[cpl].ss = selector_data(cpl);
#endif
	}
	run_stack0 = stack_of(0);
}

static ulong frame_word(const struct state *s, unsigned n, unsigned size)
{
	ulong value = 0;
	memcpy(&value, (u8 *)s->sp + n * size, size);
	return value;
}

/* ---- SYSENTER and SYSEXIT ---- */

CODE(sysenter, "sysenter");
CODE(sysexit, ".byte 0x0f, 0x35");

static void sysenter_msrs(u64 cs)
{
	wrmsr(MSR_SYSENTER_CS, cs);
	wrmsr(MSR_SYSENTER_ESP, stack_of(0));
	wrmsr(MSR_SYSENTER_EIP, (ulong)landing);
}

static void sysenter_enters(void)
{
	sysenter_msrs(SEL_CODE32 | 3); /* RPL does not count */
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(sysenter, cpl);
		s.flags |= FLAG_IF | FLAG_CF | FLAG_NT | FLAG_IOPL(1) | FLAG_AC;
		run(&s);
		if (sizeof(long) == 8 && is_amd) {
			CHECK_FAULT_BUT_QEMU(s, VEC_UD, NO_ERROR, sysenter,
					     "TCG allows SYSENTER in long mode for AMD too");
			continue;
		}
		CHECK_END(s, landing);
		CHECK(s.cs == SEL_CODE32 && s.ss == SEL_CODE32 + 8 && s.sp == stack_of(0));
		CHECK_EQ(s.flags, FLAG_FIXED | FLAG_CF | FLAG_NT | FLAG_IOPL(1) | FLAG_AC);
	}
	sysenter_msrs(3); /* a null selector */
	struct state s = run_code(sysenter, 3);
	if (sizeof(long) != 8 || !is_amd)
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, sysenter, "TCG looks at the whole MSR, RPL too");
	sysenter_msrs(0);
	s = run_code(sysenter, 3);
	if (sizeof(long) != 8 || !is_amd)
		CHECK_FAULT(s, VEC_GP, 0, sysenter);
}

static void sysexit_leaves(void)
{
	sysenter_msrs(SEL_CODE32);
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(sysexit, cpl);
		s.dx = (ulong)user_landing;
		s.cx = (ulong)test_stack_top - 512;
		s.flags |= FLAG_CF;
		run(&s);
		if (sizeof(long) == 8 && is_amd) {
			CHECK_BUT_QEMU(s.vector == VEC_UD, "TCG allows SYSEXIT in long mode for AMD too");
			continue;
		}
		if (cpl) {
			CHECK_FAULT(s, VEC_GP, 0, sysexit);
			continue;
		}
		CHECK_END(s, user_landing);
		CHECK(s.cs == ((SEL_CODE32 + 16) | 3) && s.ss == ((SEL_CODE32 + 24) | 3) &&
		      s.sp == (ulong)test_stack_top - 512);
		CHECK_EQ(s.flags, FLAG_FIXED | FLAG_CF);
	}
	sysenter_msrs(0);
	struct state s = run_code(sysexit, 0);
	if (sizeof(long) != 8 || !is_amd)
		CHECK_FAULT(s, VEC_GP, 0, sysexit);
}

/* ---- SYSCALL and SYSRET ---- */

CODE(syscall, "syscall");
LABEL(syscall_next);
CODE(syscall_first, "syscall\n syscall_next: nop");
CODE(sysret, "sysretl");

static void syscall_disabled(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE);
	struct state s = run_code(syscall, 3);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, syscall);
	s = run_code(sysret, 0);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, sysret);
}

#ifdef __x86_64__

#define SYSCALL_FLAGS (FLAG_FIXED | FLAG_CF | FLAG_DF | FLAG_IF | FLAG_NT | FLAG_AC | FLAG_IOPL(3))

CODE(sysretq, "sysretq");
LABEL(syscall32_next);
CODE32(syscall32_first, "syscall\n syscall32_next: nop");
CODE32(user_landing32, "nop");

/* SYSCALL's CS is STAR[47:32] whatever is there: make the kernel's selector that of 64-bit code, with data after it. */
#define SYSCALL_CS (SEL_FREE + 0x20)

static void syscall_init(u64 mask)
{
	gdt_set(SYSCALL_CS, gdt[SEL_CODE64 / 8]);
	gdt_set(SYSCALL_CS + 8, gdt[SEL_DATA / 8]);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (u64)SEL_USER_CODE32 << 48 | (u64)SYSCALL_CS << 32 | 0x12345678);
	wrmsr(MSR_LSTAR, (ulong)landing);
	wrmsr(MSR_CSTAR, (ulong)user_landing);
	wrmsr(MSR_SFMASK, mask);
}

static void syscall_enters(u64 mask)
{
	syscall_init(mask);
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(syscall_first, cpl);
		s.flags = SYSCALL_FLAGS;
		ulong sp = s.sp;
		run(&s);
		CHECK_END(s, landing);
		CHECK(s.cs == SYSCALL_CS && s.ss == SYSCALL_CS + 8 && s.sp == sp);
		CHECK_EQ(s.cx, (ulong)syscall_next);
		CHECK_EQ(s.r11, SYSCALL_FLAGS);
		CHECK_BUT_QEMU(s.flags == ((SYSCALL_FLAGS & ~mask) | FLAG_FIXED), "TCG loses the status flags and DF");
	}
}

static void syscall_from_compatibility(void)
{
	syscall_init(0);
	struct state s = state_at(syscall32_first, 3);
	s.cs = selector_code32(3);
	run(&s);
	if (!is_amd) {
		CHECK_FAULT(s, VEC_UD, NO_ERROR, syscall32_first);
		return;
	}
	CHECK_END(s, user_landing); /* CSTAR */
	CHECK(s.cs == SYSCALL_CS && s.cx == (ulong)syscall32_next && s.r11 == FLAG_FIXED);
}

static void sysret_leaves(void)
{
	syscall_init(0);
	for (unsigned wide = 0; wide < 2; wide++) {
		struct state s = state_at(wide ? sysretq : sysret, 0);
		s.cx = (ulong)(wide ? user_landing : user_landing32);
		s.r11 = 0xffffffffful & ~FLAG_TF;
		s.flags = FLAG_FIXED;
		ulong sp = s.sp;
		run(&s);
		CHECK(s.vector == VECTOR_END && s.ip == (ulong)(wide ? user_landing_end : user_landing32_end) + 2);
		CHECK(s.cs == (wide ? SEL_USER_CODE64 | 3 : SEL_USER_CODE32 | 3) && s.ss == (SEL_USER_DATA | 3) &&
		      s.sp == sp);
		CHECK_BUT_QEMU(s.flags == ((0x3c7fd7 & ~FLAG_TF) | FLAG_FIXED),
			       "TCG takes RF and VM, not VIF and VIP"); /* RF and VM never, reserved bits neither */
		s = run_code(wide ? sysretq : sysret, 3);
		CHECK_FAULT(s, VEC_GP, 0, wide ? sysretq : sysret);
	}
	struct state s = state_at(sysret, 0); /* to compatibility mode: ECX only */
	s.cx = (ulong)user_landing32 | 0xffff800000000000;
	s.r11 = FLAG_FIXED;
	run(&s);
	CHECK_END(s, user_landing32);
	s = state_at(sysretq, 0); /* TF traps before the first instruction */
	s.cx = (ulong)user_landing;
	s.r11 = FLAG_FIXED | FLAG_TF;
	run(&s);
	CHECK_FAULT(s, VEC_DB, NO_ERROR, user_landing);
	CHECK(s.cs == (SEL_USER_CODE64 | 3) && (s.flags & FLAG_TF));
	s = state_at(sysretq, 0);
	s.cx = 0x800000000000;
	s.r11 = FLAG_FIXED;
	run(&s);
	CHECK(s.vector == VEC_GP && s.error == 0);
	if (is_amd) /* AMD faults at the target, in user mode; Intel at SYSRET */
		CHECK(s.cs == (SEL_USER_CODE64 | 3) && s.ip == 0x800000000000);
	else
		CHECK(s.cs == SEL_CODE64 && s.ip == (ulong)sysretq);
}

/* MSRs that hold addresses take canonical ones only. */
CODE(wrmsr_code, "wrmsr");

static void canonical_msrs(void)
{
	static const u32 msrs[] = { MSR_LSTAR, MSR_CSTAR, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE };
	for (unsigned i = 0; i < ARRAY_SIZE(msrs); i++) {
		struct state s = state_at(wrmsr_code, 0);
		s.cx = msrs[i];
		s.dx = 0x8000;
		run(&s);
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, wrmsr_code, "TCG takes non-canonical addresses in MSRs");
	}
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
}

/* SWAPGS, FSGSBASE. */
CODE(swapgs, "swapgs");
CODE(bases, "wrfsbase %rbx\n rdfsbase %rcx\n wrgsbase %rax\n rdgsbase %rdx\n wrfsbase %ebx\n rdfsbase %r8");

static void segment_bases(void)
{
	wrmsr(MSR_GS_BASE, 0x1111);
	wrmsr(MSR_KERNEL_GS_BASE, 0xffff888800000000);
	struct state s = run_code(swapgs, 0);
	CHECK_END(s, swapgs);
	CHECK(rdmsr(MSR_GS_BASE) == 0xffff888800000000 && rdmsr(MSR_KERNEL_GS_BASE) == 0x1111);
	s = run_code(swapgs, 3);
	CHECK_FAULT(s, VEC_GP, 0, swapgs);
	if (!HAS_FSGSBASE)
		return;
	s = run_code(bases, 3);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, bases);
	write_cr4(read_cr4() | CR4_FSGSBASE);
	s = state_at(bases, 3);
	s.bx = 0x7fff12345678;
	s.ax = 0xffff800000000000;
	run(&s);
	CHECK_END(s, bases);
	CHECK(s.cx == 0x7fff12345678 && s.dx == 0xffff800000000000 && s.r8 == 0x12345678);
	s = state_at(bases, 3);
	s.bx = 0x800000000000;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, bases, "TCG takes non-canonical bases");
	write_cr4(read_cr4() & ~CR4_FSGSBASE);
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
}

static void system_calls(void)
{
	syscall_disabled();
	syscall_enters(0);
	syscall_enters(FLAG_IF | FLAG_DF | FLAG_TF | FLAG_NT);
	syscall_enters(0xffffffff);
	syscall_from_compatibility();
	sysret_leaves();
	canonical_msrs();
	segment_bases();
}

/* ---- Call gates: 64-bit ---- */

static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) pointer;

CODE(far_call, "lcall *(%rdi)");
CODE(far_jump, "ljmp *(%rdi)");
LABEL(far_return_lands);
CODE(call_and_return, "lcall *(%rdi)\n far_return_lands: mov %cs, %eax");
CODE(return_far, "lretq");

static struct state far_transfer(const void *code, unsigned cpl, u16 selector, ulong offset)
{
	pointer.offset = offset;
	pointer.selector = selector;
	struct state s = state_at(code, cpl);
	s.di = (ulong)&pointer;
	run(&s);
	return s;
}

static void call_gates(void)
{
	for (unsigned from = 0; from < 4; from++) {
		for (unsigned to = 0; to <= from; to++) {
			gdt_set_gate(GATE_SELECTOR, selector_code(to) & ~3u, (ulong)landing, GATE_CALL, 3, 0);
			struct state s = far_transfer(far_call, from, GATE_SELECTOR | from, 0xdeadbeef);
			CHECK_END(s, landing);
			CHECK_EQ(s.cs, selector_code(to));
			CHECK_EQ(frame_word(&s, 0, 8), (ulong)far_call_end);
			CHECK_EQ(frame_word(&s, 1, 8), selector_code(from));
			if (from == to) {
				CHECK_EQ(s.sp, (ulong)test_stack_top - 256 - 16);
				CHECK_EQ(s.ss, selector_data(from));
				continue;
			}
			CHECK_EQ(s.sp, stack_of(to) - 32);
			CHECK_EQ(s.ss, to);
			CHECK_EQ(frame_word(&s, 2, 8), (ulong)test_stack_top - 256);
			CHECK_EQ(frame_word(&s, 3, 8), selector_data(from));
		}
	}
	gdt_set_gate(GATE_SELECTOR, SEL_CODE64, (ulong)return_far, GATE_CALL, 3, 0);
	struct state s = far_transfer(call_and_return, 3, GATE_SELECTOR | 3, 0);
	CHECK_END(s, call_and_return);
	CHECK(s.ax == selector_code(3) && s.sp == (ulong)test_stack_top - 256 && s.ss == selector_data(3));
}

static void call_gate_faults(void)
{
	gdt_set_gate(GATE_SELECTOR, SEL_CODE64, (ulong)landing, GATE_CALL, 2, 0);
	struct state s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, GATE_SELECTOR, far_call);
	s = far_transfer(far_call, 2, GATE_SELECTOR | 3, 0);
	CHECK_FAULT(s, VEC_GP, GATE_SELECTOR, far_call);
	gdt_set_gate(GATE_SELECTOR, SEL_CODE64, (ulong)landing, GATE_CALL, 3, 0);
	gdt[GATE_SELECTOR / 8] &= ~(1ull << 47);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_NP, GATE_SELECTOR, far_call);
	gdt_set_gate(GATE_SELECTOR, SEL_CODE64, (ulong)landing, GATE_CALL, 3, 0);
	gdt[GATE_SELECTOR / 8 + 1] |= 1ull << 40; /* a type in the upper half */
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, GATE_SELECTOR, far_call, "TCG ignores the upper half's type");
	gdt_set_gate(GATE_SELECTOR, SEL_CODE32, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, SEL_CODE32, far_call);
	gdt_set_gate(GATE_SELECTOR, 0, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, 0, far_call);
	gdt_set_gate(GATE_SELECTOR, SEL_CODE64, (ulong)landing, GATE_CALL16, 3, 0);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, GATE_SELECTOR, far_call, "TCG knows 16-bit gates in long mode");
	/* A jump through a gate may not change the privilege. */
	gdt_set_gate(GATE_SELECTOR, SEL_CODE64, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_jump, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, SEL_CODE64, far_jump);
	s = far_transfer(far_jump, 0, GATE_SELECTOR, 0);
	CHECK_END(s, landing);
}

/* Between 64-bit and compatibility mode by far jump, at every CPL. */
static void mode_changes(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = far_transfer(far_jump, cpl, selector_code32(cpl), (ulong)user_landing32);
		CHECK_END(s, user_landing32);
		CHECK_EQ(s.cs, selector_code32(cpl));
	}
}

#else

/* Outside long mode AMD has SYSCALL too; Intel raises #UD. */
static void system_calls(void)
{
	if (!HAS_SYSCALL || !HAS_LM)
		return;
	syscall_disabled();
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (u64)SEL_USER_CODE32 << 48 | (u64)SEL_CODE32 << 32 | (ulong)landing);
	struct state s = state_at(syscall_first, 3);
	s.flags |= FLAG_IF | FLAG_CF;
	run(&s);
	if (!is_amd) {
		CHECK_FAULT(s, VEC_UD, NO_ERROR, syscall_first);
	} else {
		CHECK_END(s, landing);
		CHECK(s.cs == SEL_CODE32 && s.ss == SEL_CODE32 + 8 && s.cx == (ulong)syscall_next);
		CHECK_EQ(s.flags, FLAG_FIXED | FLAG_CF);
		s = state_at(sysret, 0);
		s.cx = (ulong)user_landing;
		run(&s);
		CHECK_END(s, user_landing);
		CHECK(s.cs == (SEL_USER_CODE32 | 3) && s.ss == (SEL_USER_DATA | 3));
		CHECK_EQ(s.flags, FLAG_FIXED | FLAG_IF);
	}
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE);
}

/* ---- Call gates: 16- and 32-bit, with parameters ---- */

static struct {
	u32 offset;
	u16 selector;
} __attribute__((packed)) pointer;

CODE(far_call, "lcall *(%edi)");
CODE(far_jump, "ljmp *(%edi)");
CODE(call_and_return, "lcall *(%edi)\n mov %cs, %eax");
CODE(return_far, "lret $12");

static struct state far_transfer(const void *code, unsigned cpl, u16 selector, ulong offset)
{
	pointer.offset = offset;
	pointer.selector = selector;
	struct state s = state_at(code, cpl);
	s.di = (ulong)&pointer;
	run(&s);
	return s;
}

static void call_through(enum gate_type type, unsigned from, unsigned to, unsigned parameters)
{
	unsigned size = type == GATE_CALL ? 4 : 2, n = 0;
	ulong mask = size == 4 ? ~0ul : 0xffff, top = (ulong)test_stack_top - 256;
	gdt_set(TEST_SELECTOR,
		descriptor((ulong)landing & ~mask, 0xfffff, ACCESS_CODE | ACCESS_DPL(to), DESC_G | DESC_DB));
	gdt_set_gate(GATE_SELECTOR, TEST_SELECTOR, (ulong)landing & mask, type, 3, parameters);
	for (unsigned i = 0; i < 64; i++)
		((u32 *)top)[i] = 0x01010101u * i;
	struct state s = far_transfer(far_call, from, GATE_SELECTOR | from, 0xdeadbeef);
	CHECK(s.vector == VECTOR_END && (s.ip & mask) == (((ulong)landing_end + 2) & mask));
	CHECK_EQ(s.cs, TEST_SELECTOR | to);
	CHECK_EQ(frame_word(&s, n++, size), (ulong)far_call_end & mask);
	CHECK_EQ(frame_word(&s, n++, size) & 0xffff, selector_code(from));
	if (from == to) {
		CHECK_EQ(s.sp, top - n * size);
		return;
	}
	CHECK_EQ(s.ss, selector_data(to));
	CHECK(memcmp((u8 *)s.sp + n * size, (void *)top, parameters * size) == 0);
	n += parameters;
	CHECK_EQ(frame_word(&s, n++, size), top & mask);
	CHECK_EQ(frame_word(&s, n++, size) & 0xffff, selector_data(from));
	CHECK_EQ(s.sp, stack_of(to) - n * size);
}

static void call_gates(void)
{
	static const u8 parameters[] = { 0, 1, 7, 31 };
	for (unsigned from = 0; from < 4; from++)
		for (unsigned to = 0; to <= from; to++)
			for (unsigned i = 0; i < ARRAY_SIZE(parameters); i++) {
				call_through(GATE_CALL, from, to, parameters[i]);
				call_through(GATE_CALL16, from, to, parameters[i]);
			}
	/* Call and return with three parameters: both stacks are released, and inner data segments do not survive. */
	gdt_set_gate(GATE_SELECTOR, SEL_CODE32, (ulong)return_far, GATE_CALL, 3, 3);
	struct state s = far_transfer(call_and_return, 3, GATE_SELECTOR | 3, 0);
	CHECK_END(s, call_and_return);
	CHECK(s.ax == selector_code(3) && s.sp == (ulong)test_stack_top - 256 + 12 && s.ss == selector_data(3));
}

static void call_gate_faults(void)
{
	gdt_set_gate(GATE_SELECTOR, SEL_CODE32, (ulong)landing, GATE_CALL, 2, 0);
	struct state s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, GATE_SELECTOR, far_call);
	s = far_transfer(far_call, 2, GATE_SELECTOR | 3, 0);
	CHECK_FAULT(s, VEC_GP, GATE_SELECTOR, far_call);
	gdt_set_gate(GATE_SELECTOR, SEL_CODE32, (ulong)landing, GATE_CALL, 3, 0);
	gdt[GATE_SELECTOR / 8] &= ~(1ull << 47);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_NP, GATE_SELECTOR, far_call);
	gdt_set_gate(GATE_SELECTOR, 3, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, 0, far_call);
	gdt_set_gate(GATE_SELECTOR, SEL_DATA, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, SEL_DATA, far_call);
	gdt_set_gate(GATE_SELECTOR, SEL_USER_CODE32, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_call, 1, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, SEL_USER_CODE32, far_call);
	gdt_set(TEST_SELECTOR, descriptor(0, 0xfffff, 0x1b, DESC_G | DESC_DB));
	gdt_set_gate(GATE_SELECTOR, TEST_SELECTOR | 3, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_NP, TEST_SELECTOR, far_call);
	gdt_set_gate(GATE_SELECTOR, SEL_CODE32, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_jump, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_GP, SEL_CODE32, far_jump);
	s = far_transfer(far_jump, 0, GATE_SELECTOR, 0);
	CHECK_END(s, landing);
	tss.t.stack[1].ss = 0;
	gdt_set_gate(GATE_SELECTOR, SEL_RING1_CODE32, (ulong)landing, GATE_CALL, 3, 0);
	s = far_transfer(far_call, 3, GATE_SELECTOR, 0);
	CHECK_FAULT(s, VEC_TS, 0, far_call);
	inner_stacks_init();
}

static void mode_changes(void)
{
}

#endif

/* ---- Direct far transfers ---- */

static void direct_transfers(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = far_transfer(far_jump, cpl, selector_code(cpl), (ulong)landing);
		CHECK_END(s, landing);
		CHECK_EQ(s.cs, selector_code(cpl));
		s = far_transfer(far_call, cpl, selector_code(cpl), (ulong)landing);
		CHECK_END(s, landing);
		CHECK_EQ(frame_word(&s, 0, 4), (u32)(ulong)far_call_end); /* operand size 32 in both modes */
		CHECK_EQ(frame_word(&s, 1, 4) & 0xffff, selector_code(cpl));
		/* RPL above CPL, other DPLs, data, null, beyond the table. */
		s = far_transfer(far_jump, cpl, 0, (ulong)landing);
		CHECK_FAULT(s, VEC_GP, 0, far_jump);
		s = far_transfer(far_jump, cpl, selector_data(cpl), (ulong)landing);
		CHECK_FAULT(s, VEC_GP, selector_data(cpl) & ~3u, far_jump);
		s = far_transfer(far_call, cpl, sizeof(gdt) | cpl, (ulong)landing);
		CHECK_FAULT(s, VEC_GP, sizeof(gdt), far_call);
		if (cpl < 3) {
			s = far_transfer(far_jump, cpl, selector_code(cpl) | 3, (ulong)landing);
			CHECK_FAULT(s, VEC_GP, selector_code(cpl) & ~3u, far_jump);
			s = far_transfer(far_call, cpl, selector_code(3), (ulong)landing);
			CHECK_FAULT(s, VEC_GP, selector_code(3) & ~3u, far_call);
		}
		gdt_set(TEST_SELECTOR, gdt[(selector_code(cpl) & ~7u) / 8] & ~(1ull << 47));
		s = far_transfer(far_call, cpl, TEST_SELECTOR | cpl, (ulong)landing);
		CHECK_FAULT(s, VEC_NP, TEST_SELECTOR, far_call);
		/* Conforming code of a more privileged segment: the CPL stays. */
		gdt_set(TEST_SELECTOR, gdt[(selector_code(0) & ~7u) / 8] | 1ull << 42);
		s = far_transfer(far_jump, cpl, TEST_SELECTOR, (ulong)landing);
		CHECK_END(s, landing);
		CHECK_EQ(s.cs, TEST_SELECTOR | cpl);
	}
}

/* ---- Far returns outwards ---- */

CODE(return_32, "lretl");

static struct state return_to(unsigned from, u16 cs, u16 ss)
{
	struct state s = state_at(return_32, from);
	u32 *frame = (u32 *)(s.sp - 64);
	frame[0] = (u32)(ulong)landing;
	frame[1] = cs;
	frame[2] = (u32)(ulong)test_stack_top - 1024;
	frame[3] = ss;
	s.sp = (ulong)frame;
	run(&s);
	return s;
}

static void far_returns(void)
{
	for (unsigned from = 0; from < 4; from++) {
		for (unsigned to = 0; to < 4; to++) {
			struct state s = return_to(from, selector_code(to), selector_data(to));
			if (to < from) {
				CHECK_FAULT(s, VEC_GP, selector_code(to) & ~3u, return_32);
				continue;
			}
			CHECK_END(s, landing);
			CHECK_EQ(s.cs, selector_code(to));
			CHECK_EQ(s.ss, selector_data(to));
			CHECK_EQ(s.sp, from == to ? (ulong)test_stack_top - 256 - 56 : (ulong)test_stack_top - 1024);
			CHECK_EQ(s.ds, from == to ? selector_data(from) : 0); /* inner data segments become null */
		}
	}
	struct state s = return_to(0, 0, 0);
	CHECK_FAULT(s, VEC_GP, 0, return_32);
	s = return_to(0, selector_code(3), 0);
	CHECK_FAULT(s, VEC_GP, 0, return_32);
	s = return_to(0, selector_code(3), selector_data(2));
	CHECK_FAULT(s, VEC_GP, selector_data(2) & ~3u, return_32);
	s = return_to(0, selector_data(3), selector_data(3));
	CHECK_FAULT(s, VEC_GP, selector_data(3) & ~3u, return_32);
	gdt_set(TEST_SELECTOR, gdt[SEL_USER_DATA / 8] & ~(1ull << 47));
	s = return_to(0, selector_code(3), TEST_SELECTOR | 3);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, TEST_SELECTOR, return_32, "TCG raises #NP");
	gdt_set(TEST_SELECTOR, gdt[SEL_USER_CODE32 / 8] & ~(1ull << 47));
	s = return_to(0, TEST_SELECTOR | 3, selector_data(3));
	CHECK_FAULT(s, VEC_NP, TEST_SELECTOR, return_32);
}

void guest_main(void)
{
	inner_stacks_init();
	if (HAS_SEP) {
		sysenter_enters();
		sysexit_leaves();
	}
	system_calls();
	call_gates();
	call_gate_faults();
	mode_changes();
	direct_transfers();
	far_returns();
}
