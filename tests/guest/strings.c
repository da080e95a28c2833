/* String instructions: every size and direction, address sizes, overlapping copies, faults and interrupts in the middle
 * with the exact registers of that element, port input and output. Intel SDM volume 2, REP, MOVS, CMPS, SCAS, STOS,
 * LODS, INS, OUTS. */
#include "lib/apic.h"
#include "lib/window.h"

static u8 area[4][4096] __attribute__((aligned(4096)));
static u8 source[4096] __attribute__((aligned(16))), target[4096] __attribute__((aligned(16))), expected[4096];

#define SIZES(name, op)                                                                                                \
	CODE(name##1, op "b");                                                                                         \
	CODE(name##2, op "w");                                                                                         \
	CODE(name##4, op "l");                                                                                         \
	WIDE_CODE(name, op)                                                                                            \
	static const void *const name[] = { name##1, name##2, name##4, WIDE_NAME(name) };
#ifdef __x86_64__
#define WIDE_CODE(name, op) CODE(name##8, op "q");
#define WIDE_NAME(name) name##8
#else
#define WIDE_CODE(name, op)
#define WIDE_NAME(name)
#endif

SIZES(rep_movs, "rep movs")
SIZES(rep_stos, "rep stos")
SIZES(rep_lods, "rep lods")
SIZES(repe_cmps, "repe cmps")
SIZES(repne_scas, "repne scas")
SIZES(movs, "movs")
#define SIZE_COUNT ARRAY_SIZE(movs)

static void fill(void)
{
	for (unsigned i = 0; i < sizeof(source); i++) {
		source[i] = i * 7 + (i >> 8);
		target[i] = expected[i] = 0xee;
	}
}

static struct state string_state(const void *code, unsigned cpl, const void *si, const void *di, ulong count, bool down)
{
	struct state s = state_at(code, cpl);
	s.si = (ulong)si;
	s.di = (ulong)di;
	s.cx = count;
	s.flags |= down ? FLAG_DF : 0;
	return s;
}

static bool ended(const struct state *s)
{
	return s->vector == VECTOR_END;
}

/* ---- Copies and fills against plain loops ---- */

static void copies(void)
{
	static const u16 counts[] = { 0, 1, 2, 7, 33 };
	for (unsigned z = 0; z < SIZE_COUNT; z++) {
		for (unsigned c = 0; c < ARRAY_SIZE(counts) * 2; c++) {
			bool down = c & 1;
			long size = 1 << z, count = counts[c / 2], step = down ? -size : size;
			u8 *from = source + 1003, *to = target + 1501;
			fill();
			for (long i = 0; i < count; i++)
				memcpy(expected + 1501 + i * step, from + i * step, size);
			struct state s = string_state(rep_movs[z], 3, from, to, count, down);
			run(&s);
			CHECK(ended(&s) && s.cx == 0 && s.si == (ulong)(from + count * step) &&
			      s.di == (ulong)(to + count * step));
			CHECK(memcmp(target, expected, sizeof(target)) == 0);
			fill();
			u64 value = 0x8877665544332211;
			for (long i = 0; i < count; i++)
				memcpy(expected + 1501 + i * step, &value, size);
			s = string_state(rep_stos[z], 3, from, to, count, down);
			s.ax = value;
			run(&s);
			CHECK(ended(&s) && s.cx == 0 && s.si == (ulong)from && s.di == (ulong)(to + count * step));
			CHECK(memcmp(target, expected, sizeof(target)) == 0);
		}
		fill();
		struct state s = string_state(movs[z], 3, source + 8, target + 8, 55,
					      false); /* without REP the count is nothing */
		run(&s);
		CHECK(ended(&s) && s.cx == 55 && s.si == (ulong)source + 8 + (1 << z) &&
		      memcmp(target + 8, source + 8, 1 << z) == 0);
	}
}

/* Overlapping copies go element by element: one apart, they repeat a pattern. */
static void overlapping(void)
{
	for (unsigned z = 0; z < SIZE_COUNT; z++) {
		long size = 1 << z;
		for (long distance = 1; distance < 20; distance++) {
			fill();
			memcpy(target, source, 256);
			memcpy(expected, source, 256);
			for (long i = 0; i < 10; i++) {
				u64 value = 0;
				memcpy(&value, expected + 16 + i * size, size);
				memcpy(expected + 16 + distance + i * size, &value, size);
			}
			struct state s = string_state(rep_movs[z], 0, target + 16, target + 16 + distance, 10, false);
			run(&s);
			CHECK(ended(&s) && memcmp(target, expected, 256) == 0);
		}
	}
}

static void loads(void)
{
	for (unsigned z = 0; z < SIZE_COUNT; z++) {
		fill();
		ulong old = sizeof(long) == 8 ? 0x1111111122222222ull & -1ul : 0x22222222, want = old;
		memcpy(&want, source + 100 + (4 << z), 1 << z);
		if (z == 2)
			want = (u32)want; /* a 32-bit load clears the upper half */
		struct state s = string_state(rep_lods[z], 3, source + 100, target, 5, false);
		s.ax = old;
		run(&s);
		CHECK(ended(&s) && s.cx == 0 && s.ax == want && s.si == (ulong)source + 100 + (5 << z));
	}
}

/* ---- Comparisons stop at the right element with its flags ---- */

#define STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF)

static void comparisons(void)
{
	for (unsigned z = 0; z < SIZE_COUNT; z++) {
		long size = 1 << z;
		for (long at = 0; at < 6; at++) {
			fill();
			memcpy(target, source, sizeof(target));
			if (at < 5)
				target[64 + at * size + size - 1] ^= 0x80;
			struct state s = string_state(repe_cmps[z], 3, source + 64, target + 64, 5, false);
			run(&s);
			long done = at < 5 ? at + 1 : 5;
			CHECK(ended(&s) && s.cx == (ulong)(5 - done) && s.si == (ulong)source + 64 + done * size);
			CHECK(s.di == (ulong)target + 64 + done * size && !(s.flags & FLAG_ZF) == (at < 5));
			fill();
			memset(target, 0x11, 256);
			memset(target + 64 + at * size, 0x22, size);
			s = string_state(repne_scas[z], 3, NULL, target + 64, 5, false);
			s.ax = (ulong)0x2222222222222222ull;
			run(&s);
			CHECK(ended(&s) && s.cx == (ulong)(5 - done) && s.di == (ulong)target + 64 + done * size);
			CHECK(!(s.flags & FLAG_ZF) == (at == 5));
		}
		/* A count of zero compares nothing and leaves the flags. */
		struct state s = string_state(repe_cmps[z], 3, source, target, 0, false);
		s.flags |= STATUS;
		run(&s);
		CHECK(ended(&s) && (s.flags & STATUS) == STATUS && s.si == (ulong)source);
	}
}

/* ---- Address sizes and segments ---- */

#ifdef __x86_64__
CODE(movs_addr32, "addr32 rep movsb");
CODE(movs_fs, "rep movsb %fs:(%rsi), %es:(%rdi)");

static void address_sizes(void)
{
	fill();
	struct state s = string_state(movs_addr32, 3, source, target, 16, false);
	s.si |= 0x1111111100000000; /* the upper halves are not used, and are zero afterwards */
	s.di |= 0x2222222200000000;
	s.cx |= 0x3333333300000000;
	run(&s);
	CHECK(ended(&s) && s.cx == 0 && s.si == (ulong)source + 16 && s.di == (ulong)target + 16);
	CHECK(memcmp(target, source, 16) == 0 && target[16] == 0xee);
	fill();
	wrmsr(MSR_FS_BASE, (ulong)source);
	s = string_state(movs_fs, 3, (void *)0x20, target, 16, false);
	run(&s);
	CHECK(ended(&s) && memcmp(target, source + 0x20, 16) == 0);
	wrmsr(MSR_FS_BASE, 0);
}
#else
CODE(movs_addr16, "addr16 rep movsb");
CODE(movs_fs, "rep movsb %fs:(%esi), %es:(%edi)");

static void address_sizes(void)
{
	u8 *base = (u8 *)0x40000; /* 64 KiB for each of the two segments */
	gdt_set(SEL_FREE, descriptor((ulong)base, 0xfffff, ACCESS_DATA | ACCESS_DPL(3), DESC_G | DESC_DB));
	for (unsigned i = 0; i < 16; i++)
		base[(u16)(0xfff8 + i)] = i;
	struct state s = string_state(movs_addr16, 3, NULL, NULL, 0, false);
	s.ds = s.es = SEL_FREE | 3;
	s.si = 0x1111fff8; /* SI wraps at 64 KiB, the upper halves stay */
	s.di = 0x22221000;
	s.cx = 0x33330010;
	run(&s);
	CHECK(ended(&s) && s.cx == 0x33330000 && s.si == 0x11110008 && s.di == 0x22221010);
	CHECK(base[0x1000] == 0 && base[0x1007] == 7 && base[0x1008] == 8 && base[0x100f] == 15);
	fill();
	gdt_set(SEL_FREE, descriptor((ulong)source, 0xfffff, ACCESS_DATA | ACCESS_DPL(3), DESC_G | DESC_DB));
	s = string_state(movs_fs, 3, (void *)0x20, target, 16, false);
	s.fs = SEL_FREE | 3;
	run(&s);
	CHECK(ended(&s) && memcmp(target, source + 0x20, 16) == 0);
}
#endif

/* ---- Faults in the middle ---- */

/* Page 1 of the window is absent: an instruction that reaches it stops there with the registers of that element, and
 * goes on from there when the page has come. */
static void fault_and_resume(unsigned z, bool down, bool at_source, unsigned misalignment)
{
	long size = 1 << z, step = down ? -size : size;
	u8 *bad_page = window + PAGE, *start = down ? bad_page + PAGE + 5 * size : bad_page - 5 * size;
	start += misalignment;
	long fits = down ? (start - (bad_page + PAGE)) / size + 1 : (bad_page - start) / size;
	if (down && start + size > bad_page + 2 * PAGE)
		return;
	window_map(0, area[0], PTE_ALL);
	window_map(1, area[1], 0);
	window_map(2, area[2], PTE_ALL);
	memset(area, 0x5a, sizeof(area));
	fill();
	u8 *other = source + 1024;
	struct state s =
		string_state(rep_movs[z], 3, at_source ? start : other, at_source ? target + 1024 : start, 12, down);
	ulong si = s.si, di = s.di;
	run(&s);
	u8 *fault_at = start + fits * step;
	ulong cr2 = (ulong)fault_at < (ulong)bad_page ? (ulong)bad_page : (ulong)fault_at;
	bool ok = s.vector == VEC_PF && s.error == (PF_U | (at_source ? 0 : PF_W)) && s.cr2 == cr2 &&
		  s.ip == (ulong)rep_movs[z] && s.cx == (ulong)(12 - fits) && s.si == si + fits * step &&
		  s.di == di + fits * step;
	CHECK(ok);
	if (!ok) {
		print("    size %u down %u source %u misaligned %u fits %u\n", (unsigned)size, down, at_source,
		      misalignment, (unsigned)fits);
		state_print(&s);
	}
	window_map(1, area[1], PTE_ALL);
	s.flags &= ~FLAG_RF;
	run(&s);
	CHECK(ended(&s) && s.cx == 0 && s.si == si + 12 * step && s.di == di + 12 * step);
	bool same = true;
	for (long i = 0; i < 12; i++)
		same = same && memcmp((u8 *)di + i * step, (u8 *)si + i * step, size) == 0;
	CHECK(same);
}

static void faults(void)
{
	for (unsigned z = 0; z < SIZE_COUNT; z++)
		for (unsigned i = 0; i < 4; i++)
			for (unsigned misalignment = 0; misalignment < (1u << z); misalignment++)
				fault_and_resume(z, i & 1, i & 2, misalignment);
}

/* A write that may not be: nothing of the element is written, DI and CX say which it was. */
static void write_protected(void)
{
	memset(area, 0, sizeof(area));
	window_map(0, area[0], PTE_ALL);
	window_map(1, area[1], PTE_P | PTE_U);
	struct state s = string_state(rep_stos[2], 3, NULL, window + PAGE - 10, 8, false);
	s.ax = 0xabababab;
	run(&s);
	CHECK(s.vector == VEC_PF && s.error == (PF_P | PF_W | PF_U) && s.cr2 == (ulong)window + PAGE);
	CHECK(s.cx == 6 && s.di == (ulong)window + PAGE - 2 && area[0][4095] == 0 && area[0][4093] == 0xab &&
	      area[1][0] == 0);
	/* With both bad, the source is read first. */
	window_map(1, NULL, 0);
	window_map(2, NULL, 0);
	s = string_state(rep_movs[0], 3, window + PAGE, window + 2 * PAGE, 3, false);
	run(&s);
	CHECK(s.vector == VEC_PF && s.error == PF_U && s.cr2 == (ulong)window + PAGE);
	/* A count of zero touches nothing. */
	s = string_state(rep_movs[0], 3, window + PAGE, window + 2 * PAGE, 0, false);
	run(&s);
	CHECK(ended(&s));
}

/* ---- Interrupts in the middle ---- */

#define VECTOR 0x40

static void interrupted(void)
{
	u8 *big = (u8 *)0x1000000; /* 16 MiB, into which nothing was loaded */
	unsigned size = 4u << 20, stops = 0, ticks = 20000;
	apic_init();
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR);
	memset(big, 0, size);
	struct state s = string_state(rep_stos[0], 3, NULL, big, size, false);
	s.ax = 0x77;
	s.flags |= FLAG_IF;
	for (;;) {
		ulong left = s.cx;
		apic_write(APIC_TIMER_INITIAL, ticks);
		run(&s);
		if (s.cx == left)
			ticks *= 2; /* a machine that is too slow to begin meanwhile */
		CHECK(s.di - (ulong)big == size - s.cx);
		if (s.vector != VECTOR)
			break;
		stops++;
		apic_eoi();
		bool inside = s.ip == (ulong)rep_stos[0];
		CHECK(inside || s.cx == 0);
		if (inside && s.cx < size)
			CHECK(big[size - s.cx - 1] == 0x77);
	}
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	CHECK_END(s, rep_stos1);
	CHECK(big[0] == 0x77 && big[size - 1] == 0x77 && big[size] == 0 && s.cx == 0);
	print("%u interrupts\n", stops);
}

/* ---- Ports ---- */

CODE(rep_outsb, "rep outsb");
CODE(rep_insb, "rep insb");
CODE(rep_outsw, "rep outsw");
CODE(insb, "insb");

static void ports(void)
{
	fill();
	struct state s = string_state(rep_outsb, 0, source + 5, NULL, 9, false);
	s.dx = 0x80;
	run(&s);
	CHECK(ended(&s) && s.cx == 0 && s.si == (ulong)source + 14 && s.di == 0);
	s = string_state(rep_outsw, 0, source + 50, NULL, 4, true);
	s.dx = 0x80;
	run(&s);
	CHECK(ended(&s) && s.cx == 0 && s.si == (ulong)source + 42);
	outb(0x70, 0x5e);
	outb(0x71, 0xc3);
	outb(0x70, 0x5e); /* reading may move the index back; each INS of the port gives the byte anyway or 0xff */
	s = string_state(rep_insb, 0, NULL, target + 5, 1, false);
	s.dx = 0x71;
	run(&s);
	CHECK(ended(&s) && s.cx == 0 && s.di == (ulong)target + 6 && target[5] == 0xc3 && target[6] == 0xee &&
	      target[4] == 0xee);
	/* Rights first: IOPL and the bitmap, before memory is looked at. */
	window_map(1, NULL, 0);
	s = string_state(insb, 3, NULL, window + PAGE, 1, false);
	s.dx = 0x71;
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, insb);
	s = string_state(insb, 0, NULL, window + PAGE, 1, false);
	s.dx = 0x80;
	run(&s);
	CHECK(s.vector == VEC_PF && s.error == PF_W && s.cr2 == (ulong)window + PAGE && s.ip == (ulong)insb);
	s = string_state(rep_outsb, 0, window + PAGE - 3, NULL, 5, false);
	s.dx = 0x80;
	run(&s);
	CHECK(s.vector == VEC_PF && s.cx == 2 && s.si == (ulong)window + PAGE && s.cr2 == (ulong)window + PAGE);
}

void guest_main(void)
{
	window_init();
	copies();
	overlapping();
	loads();
	comparisons();
	address_sizes();
	faults();
	write_protected();
	interrupted();
	ports();
}
