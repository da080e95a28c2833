/* What user code as Linux runs it has kept when it goes on, however it left: segments and their bases, flags, extended state, the results of long
 * computations that interrupts come between; and that time goes on evenly for it and for the kernel. */
#include "lib/place.h"

/* ---- segments ---- */

CODE(load_data, "mov %ebx, %ds\n mov %ebx, %es\n mov %ebx, %fs\n mov (%rsi), %r10\n"
		"mov %ds, %eax\n mov %es, %r8d\n mov %fs, %edx\n rdfsbase %r9\n syscall\n"
		"mov %ds, %eax\n mov %es, %r8d\n mov %fs, %edx");
CODE(load_stack, "mov %ebx, %ss\n push $5\n pop %rdx\n mov %ss, %eax\n syscall");

/* Null with an RPL is not tried: whenever the processor returns to user code, by IRET, it may become 0. */
static void data_segments(void)
{
	static const u16 good[] = { 0, USER_SS, USER_CS, SEL_USER_CODE32 | 3, SEL_USER_DATA, SEL_TSS | 3 };
	u8 *at = USER_CODE(0, load_data), *at2 = user_code_at(0, 128, load_stack, load_stack_end);
	for (unsigned i = 0; i < TIMES; i++) {
		u16 selector = good[i % ARRAY_SIZE(good)];
		struct state s = user_state(at);
		wrmsr(MSR_FS_BASE, selector > 3 ? 0x12345678 : 0);
		s.bx = selector;
		s.si = (ulong)user_page(FREE_PAGE);
		window_map(FREE_PAGE, spare_memory[1 + i % 2], PTE_P | PTE_U); /* the host has to map it while the segments are loaded */
		run(&s);
		CHECK(s.vector == VECTOR_SYSCALL && s.ds == selector && s.es == selector && s.fs == selector);
		CHECK(s.ax == selector && s.r8 == selector && s.dx == selector && s.r9 == 0 && rdmsr(MSR_FS_BASE) == 0);
		run(&s);
		CHECK(s.vector == VECTOR_END && s.ax == selector && s.r8 == selector && s.dx == selector);
		s = user_state(at2);
		s.bx = USER_SS;
		run(&s);
		CHECK(s.vector == VECTOR_SYSCALL && s.ax == s.bx && s.dx == 5);
	}
}

CODE(set_bases, "wrfsbase %rbx\n wrgsbase %r10\n syscall\n rdfsbase %rbx\n rdgsbase %r10\n mov %fs:8, %r8\n mov %gs:16, %r9\n syscall");

/* User code sets the bases, the kernel finds them in the MSRs; the kernel sets them, and user code has them. */
static void bases(void)
{
	u8 *at = USER_CODE(1, set_bases);
	ulong data = (ulong)user_page(DATA_PAGE);
	for (ulong i = 0; i < TIMES; i++) {
		struct state s = user_state(at);
		s.bx = i * 0x123456789;
		s.r10 = -i * 0x1000;
		run(&s);
		CHECK_EQ(s.vector, VECTOR_SYSCALL);
		CHECK_EQ(rdmsr(MSR_FS_BASE), i * 0x123456789);
		CHECK_EQ(rdmsr(MSR_GS_BASE), -i * 0x1000);
		wrmsr(MSR_FS_BASE, data + i);
		wrmsr(MSR_GS_BASE, data + 2048 - i);
		for (unsigned n = 0; n < 512; n++)
			((u64 *)data_memory[0])[n] = n * i;
		run(&s);
		CHECK(s.vector == VECTOR_SYSCALL && s.bx == data + i && s.r10 == data + 2048 - i);
		CHECK_EQ(s.r8, *(u64 *)(data_memory[0] + 8 + i));
		CHECK_EQ(s.r9, *(u64 *)(data_memory[0] + 2048 + 16 - i));
	}
	wrmsr(MSR_FS_BASE, 0);
	wrmsr(MSR_GS_BASE, 0);
}

/* A 64-bit program goes to 32-bit code and back by far returns; that is not run in place, or as if it were. */
LABEL(mixed_low);
LABEL(mixed_back);
CODE(mixed, "push $" STRINGIFY(SEL_USER_CODE32) " | 3\n push %rbx\n lretq\n mixed_back: inc %r12");
asm(".pushsection .text\n.balign 16\nmixed_low: .code32\n inc %eax\n mov %eax, %edi\n xor %eax, %eax\n cpuid\n mov %ebx, %esi\n"
    "ljmp *(%ebp)\n.code64\n.popsection");

static void other_code_segment(void)
{
	static struct __attribute__((packed)) {
		u32 ip;
		u16 cs;
	} back;
	u8 *low = spare_memory[1];
	memcpy(low, mixed_low, 64);
	u32 vendor = cpuid(0, 0).ebx;
	/* The way back is below 4 GBytes: the INT after it ends the run there. */
	memcpy(low + 256, mixed_back, (ulong)(mixed_end - mixed_back) + 2);
	back.ip = (u32)(ulong)low + 256;
	back.cs = USER_CS;
	u8 *at = USER_CODE(2, mixed);
	for (unsigned i = 0; i < TIMES; i++) {
		struct state s = user_state(at);
		s.bx = (ulong)low;
		s.ax = i;
		s.bp = (ulong)&back;
		s.sp = (ulong)test_stack_top - 512;
		run(&s);
		CHECK(s.vector == VECTOR_END && s.cs == USER_CS && s.di == i + 1 && s.r12 == 1);
		CHECK_EQ(s.si, vendor);
	}
}

/* ---- flags ---- */

/* The flags in RBX set, a way out and back, and what they are then. */
CODE(keep_flags, "push %rbx\n popf\n syscall\n pushf\n pop %r12\n push %rbx\n popf\n int3\n pushf\n pop %r13\n push %rbx\n popf\n ud2\n pushf\n pop %r14\n"
		 "push %rbx\n popf\n cpuid\n pushf\n pop %r15\n push $0x202\n popf");

static void go_on(struct state *s)
{
	s->ip += s->vector == VEC_UD ? 2 : 0;
}

static void flags(void)
{
	static const ulong bits[] = { FLAG_CF, FLAG_PF, FLAG_AF, FLAG_ZF, FLAG_SF, FLAG_OF, FLAG_DF, FLAG_NT, FLAG_AC, FLAG_ID };
	u8 *at = USER_CODE(3, keep_flags);
	handler_set(VECTOR_SYSCALL, go_on);
	handler_set(VEC_BP, go_on);
	handler_set(VEC_UD, go_on);
	for (unsigned i = 0; i < 1024; i += on_qemu ? 7 : 1) {
		ulong want = FLAG_FIXED | FLAG_IF;
		for (unsigned n = 0; n < ARRAY_SIZE(bits); n++)
			want |= i >> n & 1 ? bits[n] : 0;
		struct state s = user_state(at);
		s.bx = want;
		s.ax = 0x80000000;
		run(&s);
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK(s.r12 == want && s.r13 == want && s.r14 == want && s.r15 == want);
	}
	handler_set(VECTOR_SYSCALL, NULL);
	handler_set(VEC_BP, NULL);
	handler_set(VEC_UD, NULL);
}

/* ---- extended state ---- */

#define STATE_USED 0xe7ul /* x87, SSE, AVX and AVX-512 */
#define IMAGE_PAGES 2

CODE(keep_state, "mov $0xe7, %eax\n xor %edx, %edx\n xrstor64 (%rbx)\n syscall\n int3\n ud2\n int $0x81\n mov (%r12), %rax\n xor %eax, %eax\n"
		 "mov $0xe7, %eax\n xor %edx, %edx\n xsave64 (%rsi)");

static u8 image[IMAGE_PAGES * PAGE] __attribute__((aligned(64)));
static u64 seed = 12345;

static void random_bytes(u8 *to, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		to[i] = random64(&seed) >> 13;
}

static bool component(unsigned i, struct cpuid *at)
{
	*at = cpuid(13, i);
	return (STATE_USED & cpuid(13, 0).eax) >> i & 1;
}

static void make_image(void)
{
	struct cpuid at;
	memset(image, 0, sizeof(image));
	*(u64 *)(image + 512) = STATE_USED & cpuid(13, 0).eax;
	*(u16 *)image = 0x37f | (random64(&seed) & 0xc00);
	image[3] = random64(&seed) & 0x47; /* condition codes */
	image[4] = 0xff;
	*(u32 *)(image + 24) = 0x1f80 | (random64(&seed) & 0xe03f);
	for (unsigned i = 0; i < 8; i++)
		random_bytes(image + 32 + 16 * i, 10);
	random_bytes(image + 160, 256);
	for (unsigned i = 2; i < 8; i++)
		if (component(i, &at))
			random_bytes(image + at.ebx, at.eax);
}

static bool image_kept(const u8 *there)
{
	struct cpuid at;
	bool good = !memcmp(there, image, 5) && !memcmp(there + 24, image + 24, 4) && !memcmp(there + 32, image + 32, 384);
	for (unsigned i = 2; i < 8; i++)
		if (component(i, &at))
			good = good && !memcmp(there + at.ebx, image + at.ebx, at.eax);
	return good;
}

static void map_it(struct state *s)
{
	window_map((s->cr2 - (ulong)window) / PAGE, spare_memory[2], PTE_P | PTE_U);
}

static void extended_state(void)
{
	u8 *at = USER_CODE(4, keep_state);
	handler_set(VECTOR_SYSCALL, go_on);
	handler_set(VEC_BP, go_on);
	handler_set(VEC_UD, go_on);
	handler_set(VEC_PF, map_it);
	for (unsigned i = 0; i < TIMES; i++) {
		make_image();
		memcpy(data_memory[2], image, sizeof(image));
		memset(data_memory[4], 0, sizeof(image));
		struct state s = user_state(at);
		s.bx = (ulong)user_page(DATA_PAGE + 2);
		s.si = (ulong)user_page(DATA_PAGE + 4);
		s.r12 = (ulong)user_page(FREE_PAGE);
		window_map(FREE_PAGE, NULL, 0);
		run(&s);
		CHECK(s.vector == VECTOR_END && s.r12);
		run(&s); /* the one in the middle ended the run: go on */
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK(image_kept(data_memory[4]));
	}
	handler_set(VECTOR_SYSCALL, NULL);
	handler_set(VEC_BP, NULL);
	handler_set(VEC_UD, NULL);
	handler_set(VEC_PF, NULL);
	asm volatile("fninit\n ldmxcsr %0" : : "m"((u32){ 0x1f80 }));
}

/* ---- interrupts ---- */

#define VECTOR_TIMER 0x60
#define TICKS 100
#define ROUNDS 20000

CODE(compute, "movq %rax, %xmm0\n movq %rax, %xmm1\n"
	      "1: mov %rax, %rdx\n shl $13, %rdx\n xor %rdx, %rax\n mov %rax, %rdx\n shr $7, %rdx\n xor %rdx, %rax\n mov %rax, %rdx\n shl $17, %rdx\n xor %rdx, %rax\n"
	      "paddq %xmm0, %xmm1\n push %rax\n pop %r8\n adc %r8, %r9\n dec %rcx\n jnz 1b\n movq %xmm1, %r10");

static volatile unsigned ticks, from_user;

static void tick(struct state *s)
{
	ticks++;
	from_user += s->cs == USER_CS;
	apic_eoi();
}

/* The same. ADC adds no carry: XOR has cleared it. */
static struct state computed(ulong value)
{
	struct state s = { .ax = value };
	for (unsigned i = 0; i < ROUNDS; i++) {
		s.ax ^= s.ax << 13;
		s.ax ^= s.ax >> 7;
		s.ax ^= s.ax << 17;
		s.r9 += s.ax;
	}
	s.r10 = value * (ROUNDS + 1);
	return s;
}

static void interrupts(void)
{
	u8 *at = USER_CODE(5, compute);
	handler_set(VECTOR_TIMER, tick);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR_TIMER | LVT_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, 300000);
	for (unsigned i = 0; i < 2000 && from_user < TICKS; i++) {
		struct state s = user_state(at), want = computed(i + 1);
		s.ax = i + 1;
		s.cx = ROUNDS;
		run(&s);
		CHECK(s.vector == VECTOR_END && s.ax == want.ax && s.r9 == want.r9 && s.r10 == want.r10);
	}
	CHECK(from_user >= TICKS);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	apic_write(APIC_TIMER_INITIAL, 0);
}

/* ---- time ---- */

CODE(look_at_time, "mov $100, %r9d\n1: rdtsc\n shl $32, %rdx\n or %rdx, %rax\n cmp %r8, %rax\n jae 2f\n inc %r10\n2: mov %rax, %r8\n dec %r9d\n jnz 1b");

static void time(void)
{
	u8 *at = USER_CODE(6, look_at_time);
	for (unsigned i = 0; i < TIMES; i++) {
		struct state s = user_state(at);
		u64 before = s.r8 = rdtsc();
		run(&s);
		u64 after = rdtsc();
		CHECK(s.vector == VECTOR_END && s.r10 == 0);
		CHECK(s.r8 >= before && s.r8 <= after);
	}
}

void guest_main(void)
{
	if (!place_possible()) {
		CHECK(true);
		return;
	}
	place_init();
	data_segments();
	bases();
	other_code_segment();
	flags();
	extended_state();
	interrupts();
	time();
}
