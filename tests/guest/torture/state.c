/* Torture: what an interrupt must not change: a user program, string instructions under way, vector registers. */
#include "torture/torture.h"

/* ---- user mode ---- */

static u8 user_stacks[CPUS_MAX][4096] __attribute__((aligned(16)));
extern u8 user_code[], syscall_entry[];
void user_enter(u64 *kernel_sp, ulong user_sp);
extern u8 user_left[];

/* RAX doubles in the kernel; the sum is in R12 in the end. */
asm(".pushsection .text\n"
    "user_code: xorl %r12d, %r12d\n movl $20, %ebx\n movq %rsp, %r13\n"
    "1: movl %ebx, %eax\n syscall\n addq %rax, %r12\n decl %ebx\n jnz 1b\n"
    "int $" STRINGIFY(V_USER_END) "\n ud2\n"
    "syscall_entry: addq %rax, %rax\n sysretq\n"
    "user_enter: pushq %rbx\n pushq %rbp\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
    "movq %rsp, (%rdi)\n pushq $" STRINGIFY(SEL_USER_DATA) " + 3\n pushq %rsi\n pushq $0x202\n"
    "pushq $" STRINGIFY(SEL_USER_CODE64) " + 3\n pushq $user_code\n iretq\n"
    "user_left: popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbp\n popq %rbx\n ret\n"
    ".popsection");

void on_user_end(struct state *s)
{
	struct worker *w = self();
	expect("sum of a user program", s->r12, 420);
	expect("stack of a user program", s->r13, s->sp);
	s->ip = (ulong)user_left;
	s->cs = SEL_CODE64;
	s->ss = SEL_DATA;
	s->ds = s->es = SEL_DATA;
	s->sp = w->kernel_sp;
	s->flags = FLAG_FIXED | FLAG_IF;
}

void act_user(void)
{
	struct worker *w = self();
	user_enter(&w->kernel_sp, (ulong)user_stacks[this_cpu()->index] + 4000);
	w->users++;
}

void user_set_up(void)
{
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
	wrmsr(MSR_STAR, (u64)(SEL_USER_CODE32 | 3) << 48 | (u64)SEL_SYSCALL << 32);
	wrmsr(MSR_LSTAR, (ulong)syscall_entry);
	wrmsr(MSR_SFMASK, FLAG_IF | FLAG_TF | FLAG_DF);
}

/* ---- strings ---- */

static u8 strings[CPUS_MAX][2][32768] __attribute__((aligned(64)));

void act_string(void)
{
	u8 *from = strings[this_cpu()->index][0], *to = strings[this_cpu()->index][1];
	u64 offset = pick(4096), length = 1 + pick(28000), value = pick(256);
	if (!timer_waits())
		timer_arm(1 + pick(5000));
	memset(from + offset, value, length);
	from[offset] = ~value;
	from[offset + length - 1] = ~value;
	memcpy(to, from + offset, length);
	const u8 *a = to, *b = from + offset;
	u64 left = length;
	asm volatile("repe cmpsb" : "+S"(a), "+D"(b), "+c"(left) : : "memory", "cc");
	expect("strings are equal", left, 0);
	expect("a string's ends", to[0] | (u64)to[length - 1] << 8, (~value & 0xff) * 0x101);
	if (length > 2)
		expect("a string's inside", to[1 + pick(length - 2)], value);
}

/* ---- vector state ---- */

static u8 vector_areas[CPUS_MAX][3][4096] __attribute__((aligned(64)));
static u64 vector_patterns[CPUS_MAX][2];

static void vectors_load(u64 pattern)
{
	u64 pair[2] __attribute__((aligned(16))) = { pattern, ~pattern };
	asm volatile("movdqa (%0), %%xmm0\n movdqa %%xmm0, %%xmm5\n movdqa %%xmm0, %%xmm7\n movdqa %%xmm0, %%xmm15"
		     : : "r"(pair) : "memory");
	if (HAS_AVX && (read_cr4() & CR4_OSXSAVE))
		asm volatile("vbroadcastf128 (%0), %%ymm6" : : "r"(pair) : "memory");
}

static bool vectors_hold(u64 pattern)
{
	u64 got[5][4] __attribute__((aligned(32))) = { 0 };
	asm volatile("movdqa %%xmm0, (%0)\n movdqa %%xmm5, 32(%0)\n movdqa %%xmm7, 64(%0)\n movdqa %%xmm15, 96(%0)"
		     : : "r"(got) : "memory");
	bool ok = true;
	for (unsigned i = 0; i < 4; i++)
		ok &= got[i][0] == pattern && got[i][1] == ~pattern;
	if (HAS_AVX && (read_cr4() & CR4_OSXSAVE)) {
		asm volatile("vmovdqu %%ymm6, (%0)" : : "r"(got[4]) : "memory");
		for (unsigned i = 0; i < 4; i++)
			ok &= got[4][i] == (i & 1 ? ~pattern : pattern);
	}
	return ok;
}

void vectors_disturb(void)
{
	u8 *area = vector_areas[this_cpu()->index][2];
	asm volatile("fxsave64 (%0)\n pxor %%xmm0, %%xmm0\n pcmpeqd %%xmm7, %%xmm7\n movdqa %%xmm7, %%xmm15\n fxrstor64 (%0)"
		     : : "r"(area) : "memory");
}

/* Two threads' states by turns: bring one back, see that it is what it was, change it, put it away. */
void act_vectors(void)
{
	unsigned me = this_cpu()->index, thread = pick(2);
	bool xsave = read_cr4() & CR4_OSXSAVE;
	u8 *area = vector_areas[me][thread];
	u64 *pattern = &vector_patterns[me][thread];
	if (*pattern) {
		if (xsave)
			asm volatile("xrstor64 (%0)" : : "r"(area), "a"(7), "d"(0) : "memory");
		else
			asm volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
		expect("vector state comes back", vectors_hold(*pattern), true);
	}
	*pattern = random64(&self()->seed);
	vectors_load(*pattern);
	if (!timer_waits() && pick(2))
		timer_arm(1 + pick(2000));
	for (u64 n = pick(300); n; n--)
		pause();
	expect("vector state stays", vectors_hold(*pattern), true);
	if (xsave)
		asm volatile("xsave64 (%0)" : : "r"(area), "a"(7), "d"(0) : "memory");
	else
		asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
}

void vectors_set_up(void)
{
	if (HAS_XSAVE && HAS_AVX) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		asm volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
	}
}
