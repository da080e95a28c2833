/* User code as Linux runs it, leaving for the kernel in every way there is, hundreds of times each: what the kernel sees, and what the code has when it goes on, is
 * what the manual says, whether it is translated or run in place. Intel SDM volume 2, SYSCALL, INT n; volume 3, "Interrupt and Exception Handling". */
#include "lib/place.h"

extern const u8 trap_stubs[];

#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

/* A value of its own for each register, and for each round. */
static void fill_registers(struct state *s, ulong seed)
{
	ulong *first = &s->r15;
	for (unsigned i = 0; i < 8; i++)
		first[i] = seed * 0x9e3779b97f4a7c15 + i;
	s->di = seed + 100;
	s->si = seed + 101;
	s->bp = seed + 102;
	s->bx = seed + 103;
	s->dx = seed + 104;
	s->cx = seed + 105;
	s->ax = seed + 106;
}

static void same_registers(const struct state *s, const struct state *before, bool syscall)
{
	CHECK(!memcmp(&s->r15, &before->r15, 4 * sizeof(ulong)) && !memcmp(&s->r10, &before->r10, 5 * sizeof(ulong)));
	CHECK(s->bx == before->bx && s->bp == before->bp && s->dx == before->dx && s->ax == before->ax && s->sp == before->sp);
	CHECK_EQ(s->cx, syscall ? s->ip : before->cx);
	CHECK_EQ(s->r11, syscall ? s->flags & ~FLAG_RF : before->r11);
	CHECK(s->cs == USER_CS && s->ss == USER_SS && !(s->ds | s->es | s->fs | s->gs));
}

/* ---- ways to leave ---- */

CODE(by_syscall, "syscall");
CODE(by_int80, "int $0x80");
CODE(by_int90, "int $0x90");
CODE(by_int91, "int $0x91");
CODE(by_int3, "int3");
CODE(by_cd03, ".byte 0xcd, 3");
CODE(by_int1, ".byte 0xf1");
CODE(by_ud2, "ud2");
CODE(by_ud0, ".byte 0x0f, 0xff, 0xc0");
CODE(by_into, ".byte 0xce");
CODE(by_hlt, "hlt");
CODE(by_cli, "cli");
CODE(by_in, "in $0x60, %al");
CODE(by_out, "out %al, %dx");
CODE(by_rdmsr, "rdmsr");
CODE(by_cr0, "mov %cr0, %rax");
CODE(by_dr7, "mov %dr7, %rax");
CODE(by_lgdt, "lgdt (%rsp)");
CODE(by_invlpg, "invlpg (%rsp)");
CODE(by_swapgs, "swapgs");
CODE(by_sysret, "sysretq");
CODE(by_clts, "clts");
CODE(by_ltr, "ltr %ax");
CODE(by_divide, "div %r12d");
CODE(by_remainder, "idivl (%rsi)");
CODE(by_data, "mov (%rbx), %rax");
CODE(by_store, "mov %rax, (%rbx)");
CODE(by_stack, "mov (%rbp), %rax");
CODE(by_jump, "jmp *%rbx");
CODE(by_lock, ".byte 0xf0, 0x90");
CODE(by_selector, "mov %bx, %ds");
CODE(by_bound_vector, "movaps %xmm0, 1(%rsi)");

#define NOT_CANONICAL 0x8000123456789ab8ul

static const struct {
	const u8 *code, *end;
	unsigned vector, length; /* what is behind counts where it traps */
	ulong error, bx, bp;
} ways[] = {
#define WAY(name, vector, length, error, ...) { name, name##_end, vector, length, error, __VA_ARGS__ }
	WAY(by_syscall, VECTOR_SYSCALL, 2, NO_ERROR, 0, 0),
	WAY(by_int80, 0x80, 2, NO_ERROR, 0, 0),
	WAY(by_int90, VEC_GP, 0, 0x90 * 8 + 2, 0, 0),
	WAY(by_int91, 0x91, 2, NO_ERROR, 0, 0),
	WAY(by_int3, VEC_BP, 1, NO_ERROR, 0, 0),
	WAY(by_cd03, VEC_BP, 2, NO_ERROR, 0, 0),
	WAY(by_int1, VEC_DB, 1, NO_ERROR, 0, 0),
	WAY(by_ud2, VEC_UD, 0, NO_ERROR, 0, 0),
	WAY(by_ud0, VEC_UD, 0, NO_ERROR, 0, 0),
	WAY(by_into, VEC_UD, 0, NO_ERROR, 0, 0),
	WAY(by_hlt, VEC_GP, 0, 0, 0, 0),
	WAY(by_cli, VEC_GP, 0, 0, 0, 0),
	WAY(by_in, VEC_GP, 0, 0, 0, 0),
	WAY(by_out, VEC_GP, 0, 0, 0, 0),
	WAY(by_rdmsr, VEC_GP, 0, 0, 0, 0),
	WAY(by_cr0, VEC_GP, 0, 0, 0, 0),
	WAY(by_dr7, VEC_GP, 0, 0, 0, 0),
	WAY(by_lgdt, VEC_GP, 0, 0, 0, 0),
	WAY(by_invlpg, VEC_GP, 0, 0, 0, 0),
	WAY(by_swapgs, VEC_GP, 0, 0, 0, 0),
	WAY(by_sysret, VEC_GP, 0, 0, 0, 0),
	WAY(by_clts, VEC_GP, 0, 0, 0, 0),
	WAY(by_ltr, VEC_GP, 0, 0, 0, 0),
	WAY(by_divide, VEC_DE, 0, NO_ERROR, 0, 0),
	WAY(by_remainder, VEC_DE, 0, NO_ERROR, 0, 0),
	WAY(by_data, VEC_GP, 0, 0, NOT_CANONICAL, 0),
	WAY(by_store, VEC_GP, 0, 0, NOT_CANONICAL, 0),
	WAY(by_data, VEC_PF, 0, PF_U, 0xffffffff81000000, 0),
	WAY(by_store, VEC_PF, 0, PF_U | PF_W, 0xffffffff81000000, 0),
	WAY(by_jump, VEC_GP, 0, 0, NOT_CANONICAL, 0),
	WAY(by_stack, VEC_SS, 0, 0, 0, NOT_CANONICAL),
	WAY(by_lock, VEC_UD, 0, NO_ERROR, 0, 0),
	WAY(by_selector, VEC_GP, 0, SEL_CODE64, SEL_CODE64, 0),
	WAY(by_selector, VEC_GP, 0, SEL_FREE, SEL_FREE | 3, 0),
	WAY(by_selector, VEC_GP, 0, 4, 7, 0),
	WAY(by_selector, VEC_GP, 0, 0xfffc, 0xffff, 0),
	WAY(by_bound_vector, VEC_GP, 0, 0, 0, 0),
};

static void leave_once(unsigned way, ulong round)
{
	static const ulong flags[] = { 0, FLAGS_STATUS, FLAG_DF, FLAG_ID | FLAG_CF, FLAG_AC, FLAG_NT | FLAG_ZF, FLAGS_STATUS | FLAG_DF | FLAG_ID | FLAG_AC | FLAG_NT };
	struct state s = user_state(user_page(0) + 64 * way);
	fill_registers(&s, round);
	s.bx = ways[way].bx;
	s.bp = ways[way].bp;
	s.si = (ulong)user_page(DATA_PAGE); /* zeros */
	s.flags |= flags[round % ARRAY_SIZE(flags)];
	if (ways[way].code == by_divide)
		s.r12 = 0;
	struct state before = s;
	run(&s);
	bool good = s.vector == ways[way].vector && s.error == ways[way].error && s.ip == before.ip + ways[way].length;
	CHECK_BUT_QEMU(good, "TCG has no INT1, no #SS for RBP, another error code, and jumps before it faults");
	if (!good && !on_qemu) {
		print("    way %u\n", way);
		state_print(&s);
	}
	/* Faults but #DB push RF; the flags of a division that faults are as they were. */
	CHECK_EQ(s.flags & ~FLAG_RF, before.flags);
	if (ways[way].vector == VEC_PF)
		CHECK_EQ(s.cr2, ways[way].bx);
	same_registers(&s, &before, ways[way].vector == VECTOR_SYSCALL);
}

static void leave(void)
{
	idt_set(0x80, SEL_CODE64, (ulong)trap_stubs + 16 * 0x80, GATE_INT, 3, 1);
	idt_set(0x91, SEL_CODE64, (ulong)trap_stubs + 16 * 0x91, GATE_TRAP, 3, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(ways); i++)
		user_code_at(0, 64 * i, ways[i].code, ways[i].end);
	for (ulong round = 0; round < TIMES; round++)
		for (unsigned i = 0; i < ARRAY_SIZE(ways); i++)
			leave_once(i, round);
}

/* ---- system calls that return by SYSRET, as fast as they come ---- */

extern u8 quick_entry[];
u64 quick_calls;
asm(".pushsection .text\n.balign 16\nquick_entry: incq quick_calls(%rip)\n sysretq\n.popsection");
CODE(call_often, "1: mov %ebx, %eax\n add %r12, %r13\n syscall\n xor %r11, %r14\n add %rcx, %r15\n dec %ebx\n jnz 1b");

static void return_by_sysret(void)
{
	u8 *at = USER_CODE(1, call_often);
	wrmsr(MSR_LSTAR, (ulong)quick_entry);
	struct state s = user_state(at);
	s.bx = 10 * TIMES;
	s.r12 = 3;
	run(&s);
	wrmsr(MSR_LSTAR, (ulong)place_syscall_entry);
	CHECK(s.vector == VECTOR_END && s.bx == 0 && quick_calls == 10 * TIMES);
	CHECK_EQ(s.r13, 30 * TIMES);
	CHECK_EQ(s.r15, 10 * TIMES * ((ulong)at + 7));
	CHECK(!(s.r14 & ~FLAGS_STATUS));
}

/* User code that calls the kernel's half of memory faults there, also where Linux has something for old programs, which is not there. */
CODE(call_high, "call *%rbx");

static void high_addresses(void)
{
	u8 *at = USER_CODE(1, call_high);
	for (ulong i = 0; i < TIMES; i++) {
		struct state s = user_state(at), before;
		fill_registers(&s, i);
		s.bx = i & 4 ? 0xffffffff81000000 + i : 0xffffffffff600000 + i % 4 * 0x400;
		before = s;
		before.sp -= 8;
		run(&s);
		CHECK_EQ(s.vector, VEC_PF);
		CHECK_EQ(s.error, PF_U | PF_I);
		CHECK(s.ip == before.bx && s.cr2 == before.bx);
		/* A host that has that page too leaves the number of its own call in RAX, which no way leads back from. */
		if (!(i & 4) && i % 4 < 3)
			before.ax = s.ax;
		same_registers(&s, &before, false);
		CHECK_EQ(*(ulong *)s.sp, (ulong)at + 2);
	}
}

/* ---- page faults that are mended ---- */

static struct state faults[4];
static unsigned fault_count;
static u8 *missing_code;

static void mend(struct state *s)
{
	if (fault_count < ARRAY_SIZE(faults))
		faults[fault_count] = *s;
	fault_count++;
	unsigned index = (s->cr2 - (ulong)window) / PAGE;
	if (s->error & PF_I)
		window_map(index, missing_code, PTE_CODE);
	else
		window_map(index, spare_memory[1], s->error & PF_W ? PTE_DATA : PTE_P | PTE_U);
}

LABEL(touch_store);
LABEL(touch_back);
CODE(touch, "mov (%rbx), %rax\n touch_store: mov %rcx, 8(%rbx)\n call *%rdx\n touch_back:");

static void page_faults(void)
{
	u8 *at = USER_CODE(2, touch);
	handler_set(VEC_PF, mend);
	missing_code = spare_memory[2];
	missing_code[5] = 0xc3;
	for (ulong i = 0; i < TIMES; i++) {
		u8 *page = user_page(FREE_PAGE + 2 * (i % 50));
		*(u64 *)spare_memory[1] = i * 77;
		fault_count = 0;
		struct state s = user_state(at);
		s.bx = (ulong)page;
		s.cx = i;
		s.dx = (ulong)page + PAGE + 5;
		run(&s);
		CHECK(s.vector == VECTOR_END && fault_count == 3 && s.ax == i * 77);
		CHECK_EQ(*(u64 *)(spare_memory[1] + 8), i);
		CHECK(faults[0].error == PF_U && faults[0].cr2 == (ulong)page && faults[0].ip == (ulong)at);
		CHECK(faults[1].error == (PF_P | PF_U | PF_W) && faults[1].cr2 == (ulong)page + 8 && faults[1].ip == (ulong)MOVED(at, touch, touch_store));
		CHECK(faults[2].error == (PF_U | PF_I) && faults[2].cr2 == s.dx && faults[2].ip == s.dx);
		window_map(FREE_PAGE + 2 * (i % 50), NULL, 0);
		window_map(FREE_PAGE + 2 * (i % 50) + 1, NULL, 0);
	}
	handler_set(VEC_PF, NULL);
}

/* An instruction that ends in a page that is not there yet, which then holds plain code, or CPUID. */
CODE(crossing, "movabs $0x123456789abcdef0, %rax\n xor %ecx, %ecx\n nop");
CODE(crossing_cpuid, "movabs $0x23456789abcdef01, %rax\n mov %rax, %rdx\n mov $0, %eax\n cpuid");

/* The code begins `before` bytes before the page. */
static void into_page(const u8 *code, const u8 *end, unsigned before, u32 ax, u32 bx)
{
	memcpy(code_memory[CODE_PAGES - 1] + PAGE - before, code, before);
	missing_code = spare_memory[3 + before % 4];
	memcpy(missing_code, code + before, (ulong)(end - code) + 2 - before);
	for (unsigned i = 0; i < TIMES / 4; i++) {
		window_map(CODE_PAGES, NULL, 0);
		fault_count = 0;
		struct state s = user_run(user_page(CODE_PAGES) - before);
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK(fault_count == 1 && faults[0].error == (PF_U | PF_I) && faults[0].cr2 == (ulong)user_page(CODE_PAGES));
		CHECK_EQ(faults[0].ip, (ulong)user_page(CODE_PAGES) - before);
		CHECK((u32)s.ax == ax && s.bx == bx);
	}
}

static void into_next_page(void)
{
	struct cpuid leaf = cpuid(0, 0);
	handler_set(VEC_PF, mend);
	for (unsigned before = 1; before < 10; before += 2) {
		into_page(crossing, crossing_end, before, 0x9abcdef0, 0);
		into_page(crossing_cpuid, crossing_cpuid_end, before, leaf.eax, leaf.ebx);
	}
	handler_set(VEC_PF, NULL);
	window_map(CODE_PAGES, NULL, 0);
}

/* No code, though it may be read. */
static void not_executable(void)
{
	for (ulong i = 0; i < TIMES; i++) {
		window_map(FREE_PAGE, spare_memory[1], PTE_DATA | BIT64(63));
		struct state s = user_run(user_page(FREE_PAGE) + i);
		CHECK(s.vector == VEC_PF && s.error == (PF_P | PF_U | PF_I) && s.cr2 == s.ip && s.ip == (ulong)user_page(FREE_PAGE) + i);
	}
	window_map(FREE_PAGE, NULL, 0);
}

/* ---- alignment, x87 and SIMD exceptions ---- */

CODE(misaligned, "mov 1(%rbx), %eax");
LABEL(x87_waits);
LABEL(x87_divides);
CODE(x87_zero, "fninit\n fldcw (%rbx)\n fld1\n x87_divides: fdivs 8(%rbx)\n nop\n x87_waits: fwait");
LABEL(simd_divides);
CODE(simd_zero, "ldmxcsr 16(%rbx)\n movups 32(%rbx), %xmm0\n simd_divides: divps 48(%rbx), %xmm0");

static u8 area[4096] __attribute__((aligned(64)));

static void save_state(void)
{
	asm volatile("xsave64 %0" : "+m"(area) : "a"(-1), "d"(-1) : "memory");
}

static void numeric(void)
{
	u8 *at1 = USER_CODE(3, misaligned), *at2 = user_code_at(3, 256, x87_zero, x87_zero_end), *at3 = user_code_at(3, 512, simd_zero, simd_zero_end);
	u8 *data = data_memory[1], *there = user_page(DATA_PAGE + 1);
	memcpy(data, &(u16){ 0x37b }, 2); /* zero divide unmasked */
	memcpy(data + 16, &(u32){ 0x1d80 }, 4);
	for (unsigned i = 0; i < 4; i++)
		memcpy(data + 32 + 4 * i, &(u32){ 0x3f800000 }, 4);
	for (unsigned i = 0; i < TIMES; i++) {
		struct state s = user_state(at1);
		s.bx = (ulong)there;
		s.flags |= FLAG_AC;
		run(&s);
		CHECK_BUT_QEMU(s.vector == VEC_AC && s.error == 0 && s.ip == (ulong)at1 && (s.flags & FLAG_AC), "TCG has no alignment check");
		s = user_state(at2);
		s.bx = (ulong)there;
		run(&s);
		save_state();
		CHECK(s.vector == VEC_MF && s.ip == (ulong)MOVED(at2, x87_zero, x87_waits));
		CHECK_BUT_QEMU(*(u64 *)(area + 8) == (ulong)MOVED(at2, x87_zero, x87_divides), "TCG does not keep it");
		CHECK_BUT_QEMU(*(u64 *)(area + 16) == (ulong)there + 8, "TCG does not keep it");
		CHECK((area[2] & 0x84) == 0x84);
		asm volatile("fninit");
		s = user_state(at3);
		s.bx = (ulong)there;
		run(&s);
		save_state();
		CHECK_BUT_QEMU(s.vector == VEC_XM && s.ip == (ulong)MOVED(at3, simd_zero, simd_divides), "TCG has no SIMD exceptions");
		CHECK_EQ(*(u32 *)(area + 24), 0x1d84);
	}
	asm volatile("ldmxcsr %0" : : "m"((u32){ 0x1f80 }));
}

/* ---- single steps ---- */

LABEL(stepped1);
LABEL(stepped2);
LABEL(stepped3);
LABEL(stepped4);
LABEL(stepped5);
LABEL(stepped6);
LABEL(stepped7);
CODE(stepped, "inc %rax\n stepped1: push %rax\n stepped2: pop %rcx\n stepped3: call 1f\n stepped5: xor %eax, %eax\n stepped6: cpuid\n stepped7: jmp 2f\n"
	      "1: stepped4: ret\n 2:");
LABEL(trap_flag2);
CODE(trap_flag, "pushf\n orl $0x100, (%rsp)\n popf\n inc %rax\n trap_flag2: inc %rax\n inc %rax");
CODE(trap_syscall, "pushf\n orl $0x100, (%rsp)\n popf\n syscall");

static void single_steps(void)
{
	static const u8 *const stops[] = { stepped1, stepped2, stepped3, stepped4, stepped5, stepped6, stepped7, stepped_end };
	u8 *at = USER_CODE(4, stepped), *at2 = user_code_at(5, 0, trap_flag, trap_flag_end), *at3 = user_code_at(5, 128, trap_syscall, trap_syscall_end);
	for (unsigned i = 0; i < TIMES; i++) {
		struct state s = user_state(at);
		s.flags |= FLAG_TF;
		for (unsigned step = 0; step < ARRAY_SIZE(stops); step++) {
			write_dr6(0xffff0ff0);
			run(&s);
			CHECK(s.vector == VEC_DB && s.ip == (ulong)MOVED(at, stepped, stops[step]) && read_dr6() == 0xffff4ff0 && (s.flags & FLAG_TF));
		}
		write_dr6(0xffff0ff0);
		s = user_run(at2);
		CHECK(s.vector == VEC_DB && s.ip == (ulong)MOVED(at2, trap_flag, trap_flag2) && read_dr6() == 0xffff4ff0 && s.ax == 1);
		s.flags &= ~FLAG_TF; /* and on, at full speed */
		run(&s);
		CHECK(s.vector == VECTOR_END && s.ax == 3);
		s = user_run(at3); /* SFMASK clears TF before the trap could come, but for the flags that R11 has */
		CHECK(s.vector == VECTOR_SYSCALL && (s.r11 & FLAG_TF));
	}
	write_dr6(0xffff0ff0);
}

void guest_main(void)
{
	if (!place_possible()) {
		CHECK(true);
		return;
	}
	place_init();
	leave();
	return_by_sysret();
	high_addresses();
	page_faults();
	into_next_page();
	not_executable();
	numeric();
	single_steps();
}
