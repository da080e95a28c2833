/* Random bytes executed as user code, in every mode of this width, with random registers: each run must end by an
 * exception or by the timer, and must not touch what user code may not touch (B6, A3). "seed=N" and "rounds=N" on the
 * command line. */
#include "lib/apic.h"
#include "lib/window.h"

#define VECTOR 0x40

/* Where code of less than 64 bits finds the window. */
#define LOW_WINDOW 0x40000000ul

static u8 user_pages[16][4096] __attribute__((aligned(4096)));
static u64 seed = 1;
static unsigned ends[32], interrupted, others;

static u64 next(void)
{
	return random64(&seed);
}

/* Opcodes that are worth more than chance gives them. */
static const u8 favourites[] = { 0x0f, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x65, 0xc4, 0xc5, 0x62,
				 0x48, 0x8e, 0xcf, 0xcb, 0xff, 0x9d, 0xa4, 0xa5, 0xaa, 0xab, 0xcd, 0xe8,
				 0xe9, 0xeb, 0x0f, 0x38, 0x3a, 0xd9, 0xdd, 0xc8, 0xc9, 0x9a, 0xea };

static void fill_code(u8 *code, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		u64 r = next();
		code[i] = r & 0x700 ? r >> 16 : favourites[(u32)(r >> 24) % ARRAY_SIZE(favourites)];
	}
}

/* Addresses of user pages and near them, small numbers, and noise. */
static ulong random_register(ulong base)
{
	u64 r = next();
	switch (r & 3) {
	case 0:
		return r >> 40;
	case 1:
		return r >> 2;
	default:
		return base + (u32)(r >> 8) % (20 * PAGE);
	}
}

static void late(struct state *s)
{
	(void)s;
	apic_eoi();
}

/* In a 32-bit guest there is one width, and 16-bit code in a segment of its own; in a 64-bit guest compatibility mode,
 * too. */
static u16 random_code_selector(void)
{
	if (next() & 3)
		return selector_code(3);
	return sizeof(long) == 8 ? selector_code32(3) : SEL_FREE | 3;
}

static void one_round(void)
{
	struct state s = state_at(NULL, 3);
	u64 r = next();
	s.cs = random_code_selector();
	ulong base = sizeof(long) == 8 && s.cs == selector_code(3) ? (ulong)window : LOW_WINDOW;
	fill_code(user_pages[0], 64);
	s.ip = (s.cs == (SEL_FREE | 3) ? 0 : base) + (r & 3 ? 0 : PAGE - 8);
	if (s.ip & 0xfff)
		fill_code(user_pages[0] + PAGE - 8, 8);
	s.sp = base + 12 * PAGE;
	ulong *registers[] = { &s.ax, &s.bx, &s.cx, &s.dx, &s.si, &s.di, &s.bp };
	for (unsigned i = 0; i < ARRAY_SIZE(registers); i++)
		*registers[i] = random_register(base);
	s.flags = FLAG_FIXED | FLAG_IF | (next() & (FLAG_CF | FLAG_ZF | FLAG_DF | FLAG_AC | FLAG_OF | FLAG_SF));
	apic_write(APIC_TIMER_INITIAL, 300000);
	run(&s);
	if (s.vector == VECTOR) {
		interrupted++;
		apic_eoi();
	} else if (s.vector < 32) {
		ends[s.vector]++;
	} else {
		others++;
	}
	CHECK((s.cs & 3) == 3);
	apic_write(APIC_TIMER_INITIAL, 0);
	handler_set(VECTOR, late); /* the timer may have fired after the exception */
	asm volatile("sti\n nop\n nop\n cli" : : : "memory");
	handler_set(VECTOR, NULL);
}

/* Kernel memory is closed to user code: the identity map loses its user bit. */
static void close_kernel(void)
{
#ifdef __x86_64__
	extern u64 boot_pml4[];
	u64 *pdpt = (u64 *)(boot_pml4[0] & ~0xfffull);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned j = 0; j < 512; j++)
			((u64 *)(pdpt[i] & ~0xfffull))[j] &= ~PTE_U;
	u64 *window_pdpt = (u64 *)(boot_pml4[(ulong)window >> 39] & ~0xfffull);
	pdpt[LOW_WINDOW >> 30] = window_pdpt[0];
#else
	u32 *directory = (u32 *)read_cr3();
	for (unsigned i = 0; i < 1024; i++)
		if (i != (ulong)window >> 22)
			directory[i] &= ~(u32)PTE_U;
#endif
	write_cr3(read_cr3());
}

void guest_main(void)
{
	u64 rounds = 3000;
	command_option("seed", &seed);
	command_option("rounds", &rounds);
	seed = seed * 0x9e3779b97f4a7c15 + 1;
	window_init();
	for (unsigned i = 0; i < ARRAY_SIZE(user_pages); i++)
		window_map(i, user_pages[i], i == 5 ? PTE_P | PTE_U : PTE_ALL);
	close_kernel();
	apic_init();
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	if (HAS_XSAVE) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		asm volatile("xsetbv" : : "c"(0), "a"(cpuid(0xd, 0).eax & 0xe7), "d"(0));
	}
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR);
	gdt_set(SEL_FREE, descriptor((u32)(ulong)window, 0xffff, ACCESS_CODE | ACCESS_DPL(3), 0));
	u64 before[2] = { 0, 0 };
	const void *kernel = (const void *)(ulong)guest_main;
	memcpy(before, kernel, sizeof(before));
	for (u32 i = 0; i < rounds; i++)
		one_round();
	CHECK(memcmp(before, kernel, sizeof(before)) == 0);
	for (unsigned i = 0; i < 32; i++)
		if (ends[i])
			print("vector %u: %u\n", i, ends[i]);
	print("timer: %u, others: %u\n", interrupted, others);
}
