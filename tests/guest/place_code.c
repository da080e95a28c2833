/* User code as Linux runs it that holds what must not run on the CPU as it is, because it would tell of the host: each of these instructions tells of the guest,
 * however often, wherever they are, and however they came there: in busy pages, few or many, in pages that were harmless before, across two pages of
 * which one changes. Intel SDM volume 2, each instruction; volume 3, "Self-Modifying Code". */
#include "lib/place.h"

/* ---- what they tell ---- */

CODE(ask_cpuid, "cpuid\n syscall");
CODE(ask_aux, "rdtscp\n mov %ecx, %r8d");
CODE(ask_rdpid, "rdpid %r8");
CODE(ask_tables, "sgdt (%rbx)\n sidt 16(%rbx)");
CODE(ask_selectors, "sldt %r8d\n str %r9d\n smsw %r10");
CODE(ask_xcr0, "xor %ecx, %ecx\n xgetbv");
CODE(ask_rights, "xor %eax, %eax\n lar %rbx, %rax\n setz %r8b\n lsl %rbx, %rcx\n setz %r9b\n verr %bx\n setz %r10b\n verw %bx\n setz %r12b");

static void cpuids(void)
{
	static const u32 leaves[] = { 0, 1, 2, 4, 7, 0xb, 0xd, 0x15, 0x40000000, 0x80000000, 0x80000001, 0x80000002, 0x80000008, 0x8000001e };
	u8 *at = USER_CODE(0, ask_cpuid);
	for (unsigned i = 0; i < 4 * TIMES; i++) {
		u32 leaf = leaves[i % ARRAY_SIZE(leaves)], subleaf = i / ARRAY_SIZE(leaves) % 3;
		struct cpuid want = cpuid(leaf, subleaf);
		struct state s = user_state(at);
		s.ax = leaf;
		s.cx = subleaf;
		s.dx = s.bx = ~0ul;
		run(&s);
		CHECK_EQ(s.vector, VECTOR_SYSCALL);
		CHECK(s.ax == want.eax && s.bx == want.ebx && s.dx == want.edx); /* SYSCALL has RCX */
	}
}

static void auxiliary(void)
{
	u8 *at = USER_CODE(1, ask_aux), *at2 = USER_CODE(2, ask_rdpid);
	for (unsigned i = 0; i < TIMES; i++) {
		u32 aux = i * 0x1234567 + 1;
		wrmsr(MSR_TSC_AUX, aux);
		u64 before = rdtsc();
		struct state s = user_run(at);
		u64 after = rdtsc(), tsc = s.dx << 32 | s.ax;
		CHECK(s.vector == VECTOR_END && s.r8 == aux && tsc >= before && tsc <= after);
		if (!CPUID_HAS(7, ecx, 22))
			continue;
		s = user_run(at2);
		CHECK(s.vector == VECTOR_END && s.r8 == aux);
	}
}

static void tables(void)
{
	u8 *at = USER_CODE(3, ask_tables), *at2 = USER_CODE(4, ask_selectors), *at3 = USER_CODE(5, ask_xcr0);
	struct cpuid d = cpuid(13, 0);
	struct table_register r;
	for (unsigned i = 0; i < TIMES; i++) {
		struct state s = user_state(at);
		s.bx = (ulong)user_page(DATA_PAGE);
		memset(data_memory[0], 0xcc, 32);
		run(&s);
		CHECK_EQ(s.vector, VECTOR_END);
		memcpy(&r, data_memory[0], sizeof(r));
		CHECK(r.base == (ulong)gdt && r.limit == sizeof(gdt) - 1);
		memcpy(&r, data_memory[0] + 16, sizeof(r));
		CHECK(r.base == (ulong)idt && r.limit == sizeof(idt) - 1);
		s = user_run(at2);
		CHECK(s.vector == VECTOR_END && s.r8 == 0 && s.r9 == SEL_FREE && s.r10 == read_cr0());
		s = user_run(at3);
		CHECK(s.vector == VECTOR_END && (u32)s.ax == d.eax && (u32)s.dx == d.edx);
	}
}

/* Of the data segment behind the host's own ones too, whose limit tells of a CPU there. */
static void rights(void)
{
	u8 *at = USER_CODE(6, ask_rights);
	for (unsigned i = 0; i < 10 * TIMES; i++) {
		unsigned selector = i % GDT_ENTRIES << 3 | 3;
		u64 d = gdt[selector >> 3];
		bool user = (d >> 44 & 7) == 7 && (selector & ~7u) && (d >> 47 & 1), code = d >> 43 & 1;
		struct state s = user_state(at);
		s.bx = selector;
		s.cx = 1234;
		run(&s);
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK(s.r8 == user && s.r9 == user && s.r10 == user && s.r12 == (user && !code && (d >> 41 & 1)));
		CHECK_EQ(s.ax & 0xf0ff00, user ? d >> 32 & 0xf0ff00 : 0);
		CHECK_EQ(s.cx, !user ? 1234 : d >> 55 & 1 ? 0xffffffff : 0);
	}
}

/* ---- busy pages ---- */

#define CALLS 2000

/* Calls the functions whose addresses are at RBX, in turn, and adds up what they return. */
CODE(call_all, "1: mov (%rbx,%r12,8), %rax\n inc %r12\n and $7, %r12\n xor %ebp, %ebp\n call *%rax\n add %rbp, %r13\n add %r13, %r14\n dec %r15\n jnz 1b");
CODE(clean, "mov $1, %ebp\n ret");
CODE(store_tr, "str %ebp\n ret");
CODE(machine_status, "smsw %ebp\n ret");
CODE(six, "str %ebp\n str %edi\n add %edi, %ebp\n sldt %edi\n add %edi, %ebp\n str %edi\n add %edi, %ebp\n str %edi\n add %edi, %ebp\n str %edi\n add %edi, %ebp\n ret");
CODE(two, "str %ebp\n nop\n str %edi\n add %edi, %ebp\n ret");
/* What looks like one but is part of another instruction. */
CODE(alike, "mov $0xa20f, %ebp\n movabs $0xa20fa20fa20fa20f, %rdi\n lea 0xf9010f(%rdi), %rdi\n ret");

static u8 *caller_at;

static struct state call_functions(u8 *const at[8], unsigned calls)
{
	memcpy(data_memory[0], at, 8 * sizeof(*at));
	struct state s = user_state(caller_at);
	s.bx = (ulong)user_page(DATA_PAGE);
	s.r15 = calls;
	run(&s);
	CHECK_EQ(s.vector, VECTOR_END);
	return s;
}

/* `value[i]` comes from function i. */
static void calls_return(u8 *const at[8], const u32 value[8], unsigned calls)
{
	ulong sum = 0, sums = 0;
	for (unsigned i = 0; i < calls; i++)
		sums += sum += value[i & 7];
	struct state s = call_functions(at, calls);
	CHECK_EQ(s.r13, sum);
	CHECK_EQ(s.r14, sums);
}

static void busy_pages(void)
{
	const u32 msw = read_cr0(), tr = SEL_FREE;
	u8 *ordinary = USER_CODE(8, clean), *number = USER_CODE(9, six), *like = USER_CODE(10, alike), *other[8];
	for (unsigned i = 0; i < 8; i++)
		other[i] = i & 1 ? user_code_at(11 + i, 100 * i, machine_status, machine_status_end) : user_code_at(11 + i, 100 * i, store_tr, store_tr_end);
	u8 *pair = USER_CODE(19, two);
	calls_return((u8 *[]){ ordinary, ordinary, ordinary, ordinary, ordinary, ordinary, ordinary, ordinary }, (u32[]){ 1, 1, 1, 1, 1, 1, 1, 1 }, CALLS);
	calls_return((u8 *[]){ ordinary, number, ordinary, number, like, number, ordinary, like }, (u32[]){ 1, 5 * tr, 1, 5 * tr, 0xa20f, 5 * tr, 1, 0xa20f }, CALLS);
	calls_return((u8 *[]){ ordinary, other[0], ordinary, other[0], like, ordinary, ordinary, ordinary }, (u32[]){ 1, tr, 1, tr, 0xa20f, 1, 1, 1 }, CALLS);
	calls_return((u8 *[]){ pair, other[1], ordinary, other[2], like, pair, other[1], ordinary }, (u32[]){ 2 * tr, msw, 1, tr, 0xa20f, 2 * tr, msw, 1 }, CALLS);
	for (unsigned i = 0; i < 3; i++)
		calls_return(other, (u32[]){ tr, msw, tr, msw, tr, msw, tr, msw }, CALLS);
	/* From phase to phase. */
	for (unsigned i = 0; i < TIMES; i++) {
		u8 *a = other[i / 20 & 7], *b = i / 40 & 1 ? pair : other[i / 30 % 8];
		u32 va = i / 20 & 1 ? msw : tr, vb = b == pair ? 2 * tr : i / 30 % 8 & 1 ? msw : tr;
		calls_return((u8 *[]){ ordinary, a, b, ordinary, a, b, ordinary, like }, (u32[]){ 1, va, vb, 1, va, vb, 1, 0xa20f }, 64);
	}
}

/* ---- code that changes ---- */

static void put_code(u8 *to, const u8 *code, const u8 *end)
{
	memcpy(to, code, (ulong)(end - code));
}

/* The kernel writes code into a page, and after that maps another page instead of it. Pages that changed often are no longer run in place: each has a few changes. */
static void changed_by_kernel(void)
{
	const u32 tr = SEL_FREE;
	for (unsigned i = 0; i < 16; i++) {
		unsigned index = 20 + i % 4;
		u8 *at = user_page(index) + 64 * i, *ordinary = user_page(8);
		u8 *const calls[8] = { at, ordinary, at, at, at, ordinary, at, at };
		put_code(code_memory[index] + 64 * i, clean, clean_end);
		calls_return(calls, (u32[]){ 1, 1, 1, 1, 1, 1, 1, 1 }, 200);
		put_code(code_memory[index] + 64 * i, store_tr, store_tr_end);
		calls_return(calls, (u32[]){ tr, 1, tr, tr, tr, 1, tr, tr }, 200);
		code_memory[index][64 * i + 2] = 0xc5; /* STR EBP becomes SLDT */
		calls_return(calls, (u32[]){ 0, 1, 0, 0, 0, 1, 0, 0 }, 200);
		put_code(code_memory[index] + 64 * i, clean, clean_end);
		calls_return(calls, (u32[]){ 1, 1, 1, 1, 1, 1, 1, 1 }, 200);
	}
}

static void remapped(void)
{
	const u32 tr = SEL_FREE;
	u8 *at = user_page(FREE_PAGE) + 8, *ordinary = user_page(8);
	u8 *const calls[8] = { at, ordinary, at, at, at, ordinary, at, at };
	put_code(spare_memory[3] + 8, clean, clean_end);
	put_code(spare_memory[4] + 8, store_tr, store_tr_end);
	put_code(spare_memory[5] + 8, six, six_end);
	for (unsigned i = 0; i < TIMES; i++) {
		window_map(FREE_PAGE, spare_memory[3 + i % 3], PTE_CODE);
		u32 v = i % 3 == 0 ? 1 : i % 3 == 1 ? tr : 5 * tr;
		calls_return(calls, (u32[]){ v, 1, v, v, v, 1, v, v }, i / 3 % 3 == 2 ? 200 : 8);
	}
	window_map(FREE_PAGE, NULL, 0);
}

/* User code changes the immediate of a function through another mapping at RSI, or in place; then calls it. */
LABEL(immediate);
CODE(returns, "mov $0, %ebp\n ret");
CODE(patch_and_call, "1: mov %r15d, (%rsi)\n call *%rbx\n add %rbp, %r13\n dec %r15\n jnz 1b");
LABEL(own_immediate);
CODE(patch_itself, "1: mov %r15d, own_immediate + 0(%rip)\n .byte 0xbd\n own_immediate: .long 0\n add %rbp, %r13\n dec %r15\n jnz 1b");

static void changed_by_user(void)
{
	u8 *patcher = USER_CODE(24, patch_and_call), *function = USER_CODE(25, returns);
	window_map(FREE_PAGE + 1, code_memory[25], PTE_DATA);
	for (unsigned i = 0; i < 4; i++) {
		struct state s = user_state(patcher);
		s.si = i & 1 ? (ulong)function + 1 : (ulong)user_page(FREE_PAGE + 1) + 1;
		window_map(25, code_memory[25], i & 1 ? PTE_DATA : PTE_CODE);
		s.bx = (ulong)function;
		s.r15 = TIMES;
		run(&s);
		CHECK(s.vector == VECTOR_END && s.r13 == TIMES * (TIMES + 1) / 2);
	}
	u8 *itself = USER_CODE(26, patch_itself);
	window_map(26, code_memory[26], PTE_DATA);
	for (unsigned i = 0; i < 4; i++) {
		struct state s = user_state(itself);
		s.r15 = TIMES;
		run(&s);
		CHECK(s.vector == VECTOR_END && s.r13 == TIMES * (TIMES + 1) / 2);
	}
	window_map(FREE_PAGE + 1, NULL, 0);
}

/* A few patches at long intervals, in pages of their own, so that code runs in place between them. */
static void changed_now_and_then(void)
{
	for (unsigned i = 0; i < 8; i++) {
		unsigned index = 20 + i / 2;
		u8 *function = user_code_at(index, 2048, returns, returns_end), *ordinary = user_page(8);
		u8 *const calls[8] = { function, ordinary, function, ordinary, function, ordinary, function, ordinary };
		for (u32 v = 1; v < 5; v++) {
			struct state s = user_state(user_page(24));
			window_map(FREE_PAGE + 1, code_memory[index], PTE_DATA);
			s.si = (ulong)user_page(FREE_PAGE + 1) + 2049;
			s.bx = (ulong)function;
			s.r15 = v;
			run(&s); /* patches v, v - 1, ... 1 */
			CHECK(s.vector == VECTOR_END && s.r13 == v * (v + 1) / 2);
			memcpy(code_memory[index] + 2049, &v, 4);
			calls_return(calls, (u32[]){ v, 1, v, 1, v, 1, v, 1 }, 100);
		}
	}
	window_map(FREE_PAGE + 1, NULL, 0);
}

/* ---- one instruction in two pages ---- */

/* Writes only what differs: a page that is not written stays code. */
static void put_across(u8 *page, u8 *next, u8 last, const u8 *b, unsigned b_size)
{
	if (page[PAGE - 1] != last)
		page[PAGE - 1] = last;
	if (memcmp(next, b, b_size))
		memcpy(next, b, b_size);
}

/* At the boundary between pages A and B, from page `low` of the window. 0F last in A and CD first in B are BSWAP EBP; 00 CD: STR EBP; 00 C5: SLDT EBP; 90, and
 * FF C5: NOP and INC EBP. */
static void across(unsigned low, const u8 *b, unsigned b_size, u8 last, u32 want)
{
	u8 *at = user_page(low) + PAGE - 1, *ordinary = user_page(8);
	u8 *const calls[8] = { at, ordinary, at, ordinary, at, ordinary, at, ordinary };
	if (low + 1 < CODE_PAGES) { /* the kernel writes into the pages that are there */
		put_across(code_memory[low], code_memory[low + 1], last, b, b_size);
	} else { /* it maps others, each for one kind of content: none was written since it was code */
		u8 *a = spare_memory[last == 0x0f ? 1 : 2], *next = spare_memory[b[0] == 0xcd ? 3 : b[1] == 0xcd ? 4 : b[0] ? 5 : 6];
		put_across(a, next, last, b, b_size);
		window_map(low, a, PTE_CODE);
		window_map(low + 1, next, PTE_CODE);
	}
	calls_return(calls, (u32[]){ want, 1, want, 1, want, 1, want, 1 }, 100);
}

static void instruction_in_two_pages(void)
{
	static const u8 plain[] = { 0xcd, 0xc3 }, /* BSWAP EBP, of 0 */ task[] = { 0, 0xcd, 0xc3 }, local[] = { 0, 0xc5, 0xc3 }, one[] = { 0xff, 0xc5, 0xc3 }; /* INC EBP */
	const u32 tr = SEL_FREE;
	for (unsigned i = 0; i < 40; i++) {
		unsigned low = i < 20 ? 27 : FREE_PAGE + 8;
		across(low, plain + 0, sizeof(plain), 0x0f, 0);
		across(low, task, sizeof(task), 0x0f, tr);
		across(low, one, sizeof(one), 0x90, 1);
		across(low, task, sizeof(task), 0x0f, tr);
		across(low, local, sizeof(local), 0x0f, 0);
	}
}

void guest_main(void)
{
	if (!place_possible()) {
		CHECK(true);
		return;
	}
	place_init();
	caller_at = USER_CODE(7, call_all);
	cpuids();
	auxiliary();
	tables();
	rights();
	busy_pages();
	changed_by_kernel();
	remapped();
	changed_by_user();
	changed_now_and_then();
	instruction_in_two_pages();
}
