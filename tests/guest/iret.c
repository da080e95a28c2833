/* IRET in all its forms: same and outer privilege, V86, nested task, 16- 32- and 64-bit, and each of its checks.
 * Intel SDM volume 2, IRET/IRETD/IRETQ. */
#include "lib/guest.h"
#ifndef __x86_64__
#include "lib/real.h"
#endif

#define TEST_SELECTOR SEL_FREE

CODE(iret16, "iretw");
CODE(iret32, "iretl");
#ifdef __x86_64__
CODE(iret64, "iretq");
#endif
CODE(landing, "nop");
CODE32(landing32, "nop");

struct frame {
	u64 ip, cs, flags, sp, ss;
};

/* Execute an IRET of `size` bytes at CPL `from` with this frame on the stack. */
static struct state iret(unsigned size, unsigned from, const struct frame *f)
{
	u8 *const codes[] = {
		[2] = iret16,
		[4] = iret32,
#ifdef __x86_64__
		[8] = iret64,
#endif
	};
	struct state s = state_at(codes[size], from);
	u64 words[] = { f->ip, f->cs, f->flags, f->sp, f->ss };
	s.sp -= 256;
	for (unsigned i = 0; i < 5; i++)
		memcpy((u8 *)s.sp + i * size, &words[i], size);
	s.fs = selector_data(3);
	s.flags |= FLAG_IOPL(3);
	run(&s);
	return s;
}

static struct frame frame_for(unsigned cpl)
{
	return (struct frame){ (ulong)landing, selector_code(cpl), FLAG_FIXED, (ulong)test_stack_top - 512,
			       selector_data(cpl) };
}

#define WIDE sizeof(long)
#ifdef __x86_64__
#define native_iret iret64
#else
#define native_iret iret32
#endif

/* ---- To every CPL ---- */

static void to_every_cpl(void)
{
	for (unsigned from = 0; from < 4; from++) {
		for (unsigned to = 0; to < 4; to++) {
			struct frame f = frame_for(to);
			f.flags |= FLAG_CF | FLAG_DF;
			struct state s = iret(WIDE, from, &f);
			if (to < from) {
				CHECK_FAULT(s, VEC_GP, selector_code(to) & ~3u, native_iret);
				continue;
			}
			CHECK_END(s, landing);
			CHECK(s.cs == selector_code(to) && s.ss == selector_data(to));
			bool switched = from != to || WIDE == 8;
			CHECK_EQ(s.sp, switched ? f.sp : (ulong)test_stack_top - 512 + 12);
			CHECK_EQ(s.ds, from == to ? selector_data(from) : 0);
			CHECK_EQ(s.fs, selector_data(3)); /* what the outer level may use stays */
		}
	}
}

/* ---- Which flags it loads ---- */

static ulong flags_loaded(ulong value, unsigned cpl, unsigned iopl, unsigned size)
{
	ulong may = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_DF | FLAG_OF | FLAG_NT;
	if (size > 2)
		may |= FLAG_RF | FLAG_AC | FLAG_ID;
	if (cpl <= iopl)
		may |= FLAG_IF;
	if (cpl == 0) {
		may |= FLAG_IOPL(3);
		if (size > 2)
			may |= FLAG_VIF | FLAG_VIP;
	}
	ulong before = FLAG_IOPL(3);
	return (value & may) | (before & ~may) | FLAG_FIXED;
}

static void loads_flags(void)
{
	static const ulong values[] = {
		FLAG_CF, FLAG_IF,  FLAG_NT,  FLAG_IOPL(1),      FLAG_AC,
		FLAG_ID, FLAG_VIF, FLAG_VIP, FLAG_DF | FLAG_OF, 0x3fffff & ~(FLAG_TF | FLAG_VM | FLAG_RF)
	};
	for (unsigned from = 0; from < 4; from++) {
		for (unsigned i = 0; i < ARRAY_SIZE(values); i++) {
			for (unsigned size = 4; size <= WIDE; size *= 2) {
				struct frame f = frame_for(from);
				f.flags = values[i];
				struct state s = iret(size, from, &f);
				CHECK_END(s, landing);
				ulong want = flags_loaded(values[i], from, 3, size);
				CHECK_BUT_QEMU((s.flags & ~FLAG_RF) == want, "TCG does not load VIF and VIP");
			}
			struct frame f = frame_for(from);
			f.flags = values[i];
			u64 base = (ulong)landing & ~0xfffful;
			/* 16-bit offsets need a segment with a base. */
			gdt_set(TEST_SELECTOR,
				descriptor(base, 0xfffff, ACCESS_CODE | ACCESS_DPL(from), DESC_G | DESC_DB));
			gdt_set(TEST_SELECTOR + 8, descriptor(0, 0xfffff, ACCESS_DATA | ACCESS_DPL(from), DESC_G));
			f.cs = TEST_SELECTOR | from;
			f.ip = (ulong)landing32 & 0xffff;
			f.sp = 0xfff0;
			struct state s = iret(2, from, &f);
			CHECK(s.vector == VECTOR_END && s.ip == (((ulong)landing32_end + 2) & 0xffff));
			CHECK_EQ(s.flags, flags_loaded(values[i] & 0xffff, from, 3, 2));
		}
	}
}

/* IF is not loaded where CPL > IOPL, and IOPL only at CPL 0. */
static void iopl_protects(void)
{
	struct frame f = frame_for(3);
	f.flags |= FLAG_IF | FLAG_IOPL(3);
	struct state s = iret(WIDE, 0, &f);
	CHECK_END(s, landing);
	CHECK_EQ(s.flags, FLAG_FIXED | FLAG_IF | FLAG_IOPL(3)); /* CPL is 0 when IRET runs */
	s = iret(WIDE, 3, &f);
	CHECK_EQ(s.flags, FLAG_FIXED | FLAG_IF | FLAG_IOPL(3));
	s = state_at(iret32, 3);
	u32 words[] = { (u32)(ulong)landing, selector_code(3), FLAG_FIXED | FLAG_IF | FLAG_IOPL(3),
			(u32)(ulong)test_stack_top - 512, selector_data(3) };
	s.sp -= 256;
	memcpy((void *)s.sp, words, sizeof(words));
	run(&s);
	CHECK_END(s, landing);
	CHECK_EQ(s.flags, FLAG_FIXED);
}

/* ---- Checks ---- */

struct iret_fault {
	const char *what;
	u16 cs, ss;
	u64 descriptor;
	unsigned vector;
	ulong error;
	const char *qemu;
};

#define SEGMENT(access, flags) ((u64)(access) << 40 | 0xffff | 0xfull << 48 | (u64)(flags) << 52)
#ifdef __x86_64__
#define CODE_FLAGS (DESC_G | DESC_L)
#define USER_CODE (SEL_USER_CODE64 | 3)
#else
#define CODE_FLAGS (DESC_G | DESC_DB)
#define USER_CODE (SEL_USER_CODE32 | 3)
#endif
#define USER_DATA (SEL_USER_DATA | 3)
#define DATA_FLAGS (DESC_G | DESC_DB)

static const struct iret_fault faults[] = {
	{ "null CS", 0, USER_DATA, 0, VEC_GP, 0, NULL },
	{ "null CS with RPL 3", 3, USER_DATA, 0, VEC_GP, 0, NULL },
	{ "CS beyond the GDT", GDT_ENTRIES * 8 | 3, USER_DATA, 0, VEC_GP, GDT_ENTRIES * 8, NULL },
	{ "CS in a missing LDT", 0xf, USER_DATA, 0, VEC_GP, 0xc, NULL },
	{ "CS is data", USER_DATA, USER_DATA, 0, VEC_GP, SEL_USER_DATA, NULL },
	{ "CS is a TSS", SEL_TSS | 3, USER_DATA, 0, VEC_GP, SEL_TSS, NULL },
	{ "RPL is not DPL", TEST_SELECTOR | 3, USER_DATA, SEGMENT(0xdb, CODE_FLAGS), VEC_GP, TEST_SELECTOR, NULL },
	{ "conforming with DPL above RPL", TEST_SELECTOR | 2, SEL_RING2_DATA | 2, SEGMENT(0xff, CODE_FLAGS), VEC_GP,
	  TEST_SELECTOR, NULL },
	{ "CS absent", TEST_SELECTOR | 3, USER_DATA, SEGMENT(0x7b, CODE_FLAGS), VEC_NP, TEST_SELECTOR, NULL },
	{ "null SS", USER_CODE, 0, 0, VEC_GP, 0, NULL },
	{ "null SS with RPL 3", USER_CODE, 3, 0, VEC_GP, 0, NULL },
	{ "SS beyond the GDT", USER_CODE, GDT_ENTRIES * 8 | 3, 0, VEC_GP, GDT_ENTRIES * 8, NULL },
	{ "SS is code", USER_CODE, USER_CODE, 0, VEC_GP, USER_CODE & ~3, NULL },
	{ "SS's RPL", USER_CODE, SEL_USER_DATA | 2, 0, VEC_GP, SEL_USER_DATA, NULL },
	{ "SS's DPL", USER_CODE, SEL_RING2_DATA | 3, 0, VEC_GP, SEL_RING2_DATA, NULL },
	{ "SS is read-only", USER_CODE, TEST_SELECTOR | 3, SEGMENT(0xf1, DATA_FLAGS), VEC_GP, TEST_SELECTOR, NULL },
	{ "SS absent", USER_CODE, TEST_SELECTOR | 3, SEGMENT(0x73, DATA_FLAGS), VEC_SS, TEST_SELECTOR,
	  "TCG raises #NP" },
#ifdef __x86_64__
	{ "L and D both set", TEST_SELECTOR | 3, USER_DATA, SEGMENT(0xfb, DESC_G | DESC_L | DESC_DB), VEC_GP,
	  TEST_SELECTOR, "TCG takes L with D" },
#endif
};

static void check_iret_fault(const struct iret_fault *fault)
{
	gdt_set(TEST_SELECTOR, fault->descriptor);
	struct frame f = frame_for(3);
	f.cs = fault->cs;
	f.ss = fault->ss;
	struct state s = iret(WIDE, 0, &f);
	bool ok = s.vector == fault->vector && s.error == fault->error && s.sp == (ulong)test_stack_top - 512 &&
		  (s.cs & 3) == 0;
	if (fault->qemu)
		CHECK_BUT_QEMU(ok, fault->qemu);
	else
		CHECK(ok);
	if (!ok) {
		print("    %s\n", fault->what);
		state_print(&s);
	}
}

#ifdef __x86_64__

/* ---- 64-bit forms ---- */

/* To compatibility mode, to null SS where that is allowed, and to non-canonical addresses. */
static void wide_forms(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct frame f = frame_for(cpl);
		f.ip = (ulong)landing32;
		f.cs = selector_code32(cpl);
		struct state s = iret(8, 0, &f);
		CHECK_END(s, landing32);
		CHECK(s.cs == selector_code32(cpl) && s.sp == f.sp && s.ss == selector_data(cpl));
		if (cpl == 3)
			continue;
		f = frame_for(cpl);
		f.ss = cpl; /* null, but for CPL 3 */
		s = iret(8, 0, &f);
		CHECK_END(s, landing);
		CHECK_EQ(s.ss, cpl);
		f.cs = selector_code32(cpl);
		s = iret(8, 0, &f);
		CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, iret64, "TCG takes a null SS for compatibility mode too");
	}
	struct frame f = frame_for(3);
	f.ip = 0x800000000000;
	struct state s = iret(8, 0, &f);
	CHECK(s.vector == VEC_GP && s.error == 0);
	CHECK_BUT_QEMU(s.ip == (ulong)iret64 && s.cs == SEL_CODE64, "TCG faults at the target");
	f = frame_for(3); /* a 32-bit IRET in 64-bit mode pops the stack too */
	s = iret(4, 0, &f);
	CHECK_END(s, landing);
	CHECK(s.sp == f.sp && s.ss == selector_data(3));
}

static void nested_task_faults(void)
{
	struct state s = state_at(iret64, 0);
	s.flags |= FLAG_NT;
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, iret64);
}

/* IRET in compatibility mode does not pop the stack at the same level. */
CODE32(iret_compatible, "iretl");

static void compatibility_mode(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(iret_compatible, cpl);
		s.cs = selector_code32(cpl);
		s.sp -= 256;
		u32 *frame = (u32 *)s.sp;
		frame[0] = (u32)(ulong)landing32;
		frame[1] = selector_code32(cpl);
		frame[2] = FLAG_FIXED | FLAG_CF;
		ulong sp = s.sp;
		run(&s);
		CHECK_END(s, landing32);
		CHECK(s.sp == sp + 12 && (s.flags & FLAG_CF));
	}
}

static void width_specific(void)
{
	wide_forms();
	nested_task_faults();
	compatibility_mode();
}

#else

/* ---- To V86 mode ---- */

static void to_v86(void)
{
	struct state s = state_at(iret32, 0);
	u32 words[] = { 0x100,
			LOW_SEGMENT + 0x800,
			FLAG_FIXED | FLAG_VM | FLAG_IOPL(1) | FLAG_CF,
			0xff00,
			0x5000,
			0x1111,
			0x2222,
			0x3333,
			0x4444 };
	u8 *code = (u8 *)((LOW_SEGMENT + 0x800) * 16 + 0x100);
	code[0] = 0xf4; /* HLT: #GP in V86 mode */
	s.sp -= 256;
	memcpy((void *)s.sp, words, sizeof(words));
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, 0x100);
	CHECK(s.cs == LOW_SEGMENT + 0x800 && s.ss == 0x5000 && s.sp == 0xff00);
	CHECK(s.es == 0x1111 && s.ds == 0x2222 && s.fs == 0x3333 && s.gs == 0x4444);
	CHECK_EQ(s.flags & ~FLAG_RF, FLAG_FIXED | FLAG_VM | FLAG_IOPL(1) | FLAG_CF);
	/* VM in the frame is ignored outside CPL 0. */
	if (on_qemu) /* goes to V86 mode */
		return;
	struct frame f = frame_for(3);
	f.flags |= FLAG_VM;
	s = iret(4, 3, &f);
	CHECK_END(s, landing);
	CHECK(!(s.flags & FLAG_VM) && s.cs == selector_code(3));
}

/* ---- Real mode ---- */

REAL_CODE(real_iret16, "iretw");
REAL_CODE(real_iret32, "iretl");
REAL_CODE(real_landing, "nop");

static void real_mode(void)
{
	struct real_state s = real_state_at(real_iret16);
	u16 *frame = (u16 *)(REAL_STACK_SEGMENT * 16 + 0x8000);
	frame[0] = LOW_OFFSET(real_landing);
	frame[1] = LOW_SEGMENT;
	frame[2] = FLAG_CF | FLAG_IOPL(3) | FLAG_NT | FLAG_DF;
	s.sp = 0x8000;
	run_real(&s);
	CHECK_REAL_END(s, real_landing);
	CHECK_EQ(s.sp, 0x8006);
	CHECK_EQ(s.flags, FLAG_FIXED | FLAG_CF | FLAG_IOPL(3) | FLAG_NT | FLAG_DF);

	s = real_state_at(real_iret32);
	u32 *wide = (u32 *)frame;
	wide[0] = LOW_OFFSET(real_landing);
	wide[1] = LOW_SEGMENT | 0xabcd0000; /* the upper half of CS is ignored */
	wide[2] = FLAG_ZF | FLAG_AC | FLAG_ID;
	s.sp = 0x8000;
	run_real(&s);
	CHECK_REAL_END(s, real_landing);
	CHECK_EQ(s.sp, 0x800c);
	CHECK_EQ(s.flags, FLAG_FIXED | FLAG_ZF);

	wide[0] = 0x10000 + LOW_OFFSET(real_landing); /* beyond the limit: #GP */
	s = real_state_at(real_iret32);
	s.sp = 0x8000;
	if (on_qemu) /* goes there */
		return;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, real_iret32);
}

static void width_specific(void)
{
	to_v86();
	real_mode();
}

#endif

void guest_main(void)
{
	to_every_cpl();
	loads_flags();
	iopl_protects();
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		check_iret_fault(&faults[i]);
	width_specific();
}
