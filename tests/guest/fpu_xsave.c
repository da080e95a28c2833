/* x87, SSE and extended state as an operating system handles it: CR0.TS, EM and MP, FXSAVE, the XSAVE family in all its
 * forms with their faults, pending x87 exceptions, SIMD exceptions. Intel SDM volume 1, "Managing State Using the XSAVE
 * Feature Set"; volume 3, "System Programming for Instruction Set Extensions"; volume 2, each instruction. */
#include "lib/guest.h"

static u8 area[4096] __attribute__((aligned(64))), area2[4096] __attribute__((aligned(64)));

static struct state run_with(const void *code, unsigned cpl, u64 mask)
{
	struct state s = state_at(code, cpl);
	s.ax = (u32)mask;
	s.dx = (u32)(mask >> 32);
	s.di = (ulong)area;
	s.si = (ulong)area2;
	run(&s);
	return s;
}

/* ---- CR0.TS, EM, MP against each class of instructions ---- */

CODE(x87, "fld1\n fstp %st(0)");
CODE(wait, "fwait");
CODE(mmx, "paddb %mm0, %mm1\n emms");
CODE(sse, "addps %xmm0, %xmm1");
CODE(sse_integer, "paddb %xmm0, %xmm1");
CODE(fxsave, "fxsave (" R "di)");
CODE(fxrstor, "fxrstor (" R "di)");
CODE(ldmxcsr, "ldmxcsr (" R "di)");
CODE(xsave, "xsave (" R "di)");
CODE(xrstor, "xrstor (" R "di)");
CODE(avx, "vaddps %ymm0, %ymm1, %ymm2");
CODE(prefetch, "prefetcht0 (" R "di)");
CODE(sfence, "sfence");

enum class { X87, WAIT, MMX, SSE, SAVE, PLAIN, XSAVE, AVX };

static unsigned expected(enum class class, ulong cr0)
{
	bool ts = cr0 & CR0_TS, em = cr0 & CR0_EM, mp = cr0 & CR0_MP;
	switch (class) {
	case X87:
		return ts || em ? VEC_NM : VECTOR_END;
	case WAIT:
		return ts && mp ? VEC_NM : VECTOR_END;
	case MMX:
		return em ? VEC_UD : ts ? VEC_NM : VECTOR_END;
	case SSE:
		return em ? VEC_UD : ts ? VEC_NM : VECTOR_END;
	case SAVE: /* FXSAVE and FXRSTOR; with EM, AMD's manual says #NM and Intel's #UD: not tried */
		return ts ? VEC_NM : VECTOR_END;
	case XSAVE: /* EM does not count */
	case AVX:
		return ts ? VEC_NM : VECTOR_END;
	default:
		return VECTOR_END;
	}
}

static void reset_mxcsr(void)
{
	*(u32 *)area = 0x1f80;
	run_with(ldmxcsr, 3, 0);
}

static void task_switched(void)
{
	static const struct {
		const void *code;
		enum class class;
	} codes[] = { { x87, X87 },         { wait, WAIT },   { mmx, MMX },      { sse, SSE },
		      { sse_integer, SSE }, { fxsave, SAVE }, { fxrstor, SAVE }, { prefetch, PLAIN },
		      { sfence, PLAIN },    { ldmxcsr, SSE }, { xsave, XSAVE },  { avx, AVX } };
	ulong cr0 = read_cr0() & ~(CR0_TS | CR0_EM | CR0_MP);
	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		if ((codes[i].class == XSAVE && !HAS_XSAVE) || (codes[i].class == AVX && !HAS_AVX))
			continue;
		for (unsigned bits = 0; bits < 8; bits++) {
			ulong value = cr0 | bits << 1;
			if (codes[i].class == SAVE && (value & CR0_EM))
				continue;
			memset(area, 0, sizeof(area));
			write_cr0(value);
			struct state s = run_with(codes[i].code, 3, 3);
			write_cr0(cr0);
			unsigned want = expected(codes[i].class, value);
			CHECK_BUT_QEMU(s.vector == want, "TCG differs in EM and MP");
			if (s.vector != want && !on_qemu) {
				print("    code %u cr0 bits %x: want %u\n", i, bits << 1, want);
				state_print(&s);
			}
		}
	}
	reset_mxcsr();
}

/* Lazy switching: #NM, CLTS in the handler, and the instruction runs with the state that was left. */
static void clear_ts(struct state *s)
{
	(void)s;
	asm volatile("clts");
}

CODE(use_registers, "movd %ecx, %xmm3\n movd %xmm3, %eax\n fldpi\n fistpl (" R "di)");

static void lazy(void)
{
	handler_set(VEC_NM, clear_ts);
	write_cr0(read_cr0() | CR0_TS | CR0_MP);
	struct state s = state_at(use_registers, 3);
	s.cx = 0x13579bdf;
	s.di = (ulong)area;
	run(&s);
	handler_set(VEC_NM, NULL);
	CHECK_END(s, use_registers);
	CHECK(s.ax == 0x13579bdf && *(u32 *)area == 3 && !(read_cr0() & CR0_TS));
	write_cr0(read_cr0() & ~CR0_MP);
}

/* ---- FXSAVE and FXRSTOR ---- */

CODE(fill,
     "movdqu (" R "si), %xmm0\n movdqu 16(" R "si), %xmm7\n fninit\n fldl (" R "si)\n fld1\n stmxcsr 32(" R "si)");
CODE(fxsave_twice,
     "fxsave (" R "di)\n pxor %xmm0, %xmm0\n pxor %xmm7, %xmm7\n fninit\n fxrstor (" R "di)\n fxsave 512(" R "di)");

static void fxsave_and_fxrstor(void)
{
	for (unsigned i = 0; i < 64; i++)
		area2[i] = i + 1;
	memset(area, 0, sizeof(area));
	memcpy(area2, &(const u64){ 0x3ff8000000000000 }, sizeof(u64)); /* 1.5 */
	struct state s = run_with(fill, 3, 0);
	CHECK_END(s, fill);
	s = run_with(fxsave_twice, 3, 0);
	CHECK_END(s, fxsave_twice);
	CHECK(memcmp(area, area + 512, 8) == 0 && memcmp(area + 24, area + 512 + 24, 416 - 24) == 0);
	CHECK_EQ(*(u16 *)area, 0x37f);                                                 /* control word */
	CHECK_EQ(*(u16 *)(area + 2), 0x3000);                                          /* top of stack is 6 */
	CHECK_EQ(area[4], 0xc0);                                                       /* abridged tags */
	CHECK_EQ(*(u32 *)(area + 24), 0x1f80);                                         /* MXCSR */
	CHECK(*(u32 *)(area + 28) & 0xffff);                                           /* its mask */
	CHECK(*(u16 *)(area + 32 + 8) == 0x3fff && *(u64 *)(area + 32) == 1ull << 63); /* ST(0) is 1.0 */
	CHECK(memcmp(area + 160, area2, 16) == 0 && memcmp(area + 160 + 7 * 16, area2 + 16, 16) == 0);
	*(u32 *)(area + 24) = 0x1f80 | 1u << 31; /* a reserved bit of MXCSR */
	s = run_with(fxrstor, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, fxrstor, "TCG takes reserved bits");
	*(u32 *)area = 1u << 31;
	s = run_with(ldmxcsr, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, ldmxcsr, "TCG takes reserved bits");
	s = state_at(fxsave, 3);
	s.di = (ulong)area + 8;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, fxsave, "TCG does not look at alignment"); /* must be aligned to 16 bytes */
	reset_mxcsr();
}

/* ---- XSAVE family ---- */

CODE(xsaveopt, "xsaveopt (" R "di)");
CODE(xsavec, "xsavec (" R "di)");
CODE(xsaves, "xsaves (" R "di)");
CODE(xrstors, "xrstors (" R "di)");
CODE(load_ymm, "vmovdqu (" R "si), %ymm1\n vmovdqu 32(" R "si), %ymm2");
CODE(store_ymm, "vmovdqu %ymm1, (" R "si)\n vmovdqu %ymm2, 32(" R "si)");
CODE(clear_vectors, "vzeroall\n fninit");

static u64 header_bv(void)
{
	return *(u64 *)(area + 512);
}

static u64 header_comp(void)
{
	return *(u64 *)(area + 520);
}

static void set_header(u64 bv, u64 comp)
{
	memset(area + 512, 0, 64);
	*(u64 *)(area + 512) = bv;
	*(u64 *)(area + 520) = comp;
}

static u64 features_on;

static void xsave_on(void)
{
	write_cr4(read_cr4() | CR4_OSXSAVE);
	features_on = cpuid(0xd, 0).eax & 7;
	asm volatile("xsetbv" : : "c"(0), "a"((u32)features_on), "d"(0));
}

static void pattern(void)
{
	for (unsigned i = 0; i < 64; i++)
		area2[i] = 0x40 + i;
}

/* What was saved comes back; components not asked for are left alone in memory and in the registers. */
static void save_and_restore(const void *save, const void *restore, bool compact)
{
	pattern();
	struct state s = run_with(load_ymm, 3, 0);
	CHECK_END(s, load_ymm);
	memset(area, 0xee, 512);
	memset(area + 576, 0xee, sizeof(area) - 576);
	set_header(0, 0);
	s = run_with(save, restore == xrstors ? 0 : 3, -1ull);
	CHECK_EQ(s.vector, VECTOR_END);
	CHECK_EQ(header_bv() & ~1ull, features_on & ~1ull); /* x87 may be in its initial state */
	CHECK_EQ(header_comp(), compact ? 1ull << 63 | features_on : 0);
	CHECK(memcmp(area + 160 + 16, area2, 16) == 0);
	u32 offset = compact ? 576 : cpuid(0xd, 2).ebx;
	CHECK(memcmp(area + offset + 16, area2 + 16, 16) == 0);
	s = run_with(clear_vectors, 3, 0);
	CHECK_EQ(s.vector, VECTOR_END);
	s = run_with(restore, restore == xrstors ? 0 : 3, -1ull);
	CHECK_EQ(s.vector, VECTOR_END);
	memset(area2, 0, 64);
	run_with(store_ymm, 3, 0);
	for (unsigned i = 0; i < 64; i++)
		CHECK(area2[i] == 0x40 + i);
}

static void partial(void)
{
	pattern();
	run_with(load_ymm, 3, 0);
	memset(area, 0xee, sizeof(area));
	set_header(0x55 & features_on, 0);
	struct state s = run_with(xsave, 3, 2); /* SSE alone */
	CHECK_END(s, xsave);
	CHECK_EQ(header_bv(), ((0x55 & features_on) & ~2ull) | 2);
	CHECK(area[0] == 0xee && area[32] == 0xee && memcmp(area + 176, area2, 16) == 0 &&
	      *(u32 *)(area + 24) == 0x1f80);
	CHECK_EQ(area[cpuid(0xd, 2).ebx + 16], 0xee);
	/* A component whose bit is clear in XSTATE_BV gets its initial state; one outside RFBM stays. */
	set_header(0, 0);
	s = run_with(xrstor, 3, 2);
	CHECK_END(s, xrstor);
	memset(area2, 0xcc, 64);
	run_with(store_ymm, 3, 0);
	bool low_zero = true, high_kept = true;
	for (unsigned i = 0; i < 16; i++) {
		low_zero = low_zero && area2[i] == 0;
		high_kept = high_kept && area2[16 + i] == 0x50 + i;
	}
	CHECK(low_zero && high_kept);
}

static void header_faults(void)
{
	static const struct {
		u64 bv, comp;
		const char *what;
	} bad[] = {
		{ 1ull << 20, 0, "XSTATE_BV outside XCR0" },
		{ 1ull << 63, 0, "XSTATE_BV bit 63" },
		{ 0, 1, "XCOMP_BV without bit 63" },
		{ 0, 1ull << 63 | 1ull << 20, "XCOMP_BV outside XCR0" },
		{ 2, 1ull << 63 | 1, "XSTATE_BV outside XCOMP_BV" },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(area, 0, sizeof(area));
		*(u32 *)(area + 24) = 0x1f80;
		set_header(bad[i].bv, bad[i].comp);
		struct state s = run_with(xrstor, 3, -1ull);
		CHECK_FAULT(s, VEC_GP, 0, xrstor);
		if (s.vector != VEC_GP)
			print("    %s\n", bad[i].what);
	}
	for (unsigned i = 16; i < 64;
	     i += 8) { /* bytes 63:16 of the header must be zero in the standard form, byte by byte */
		set_header(0, 0);
		area[512 + i] = 1;
		struct state s = run_with(xrstor, 3, -1ull);
		if (i < 24)
			CHECK_FAULT(s, VEC_GP, 0, xrstor);
	}
	set_header(2, 0);
	*(u32 *)(area + 24) = 1u << 31;
	struct state s = run_with(xrstor, 3, 2);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, xrstor, "TCG takes reserved bits");
	s = state_at(xsave, 3);
	s.ax = 3;
	s.di = (ulong)area + 32; /* must be aligned to 64 bytes */
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, xsave);
	if (CPUID_HAS(0xd, eax, 0) && cpuid(0xd, 1).eax & 8) {
		s = run_with(xsaves, 3, 3);
		CHECK_FAULT(s, VEC_GP, 0, xsaves);
		set_header(0, 0);
		s = run_with(xrstors, 0, 3);
		CHECK_FAULT(s, VEC_GP, 0, xrstors); /* takes the compact form only */
	}
}

static void xsave_family(void)
{
	if (!HAS_XSAVE || !HAS_AVX)
		return;
	u32 extended = cpuid(0xd, 1).eax;
	save_and_restore(xsave, xrstor, false);
	if (extended & 1)
		save_and_restore(xsaveopt, xrstor, false);
	if (extended & 2)
		save_and_restore(xsavec, xrstor, true);
	if (extended & 8)
		save_and_restore(xsaves, xrstors, true);
	partial();
	header_faults();
	/* XGETBV(1): what is in use. */
	if (extended & 4) {
		u32 used;
		run_with(clear_vectors, 3, 0);
		asm volatile("xgetbv" : "=a"(used) : "c"(1) : "edx");
		CHECK_BUT_QEMU(!(used & 4) && !(used & ~features_on), "TCG does not track what is in use");
		pattern();
		run_with(load_ymm, 3, 0);
		asm volatile("xgetbv" : "=a"(used) : "c"(1) : "edx");
		CHECK_EQ(used & 6, 6);
	}
}

/* ---- Exceptions ---- */

LABEL(pending_wait);
LABEL(unmasked_divide);
CODE(x87_pending, "fninit\n fldcw (" R "di)\n fld1\n fldz\n fdivrp\n nop\n pending_wait: fwait");
CODE(x87_pending_load, "fninit\n fldcw (" R "di)\n fld1\n fldz\n fdivrp\n mov $1, %eax\n unmasked_divide: fld1");
CODE(x87_masked, "fninit\n fld1\n fldz\n fdivrp\n fnstsw %ax\n fnclex");
CODE(no_wait, "fninit\n fldcw (" R "di)\n fld1\n fldz\n fdivrp\n fnstsw %ax\n fnclex\n fwait");
LABEL(simd_divide);
CODE(simd, "ldmxcsr (" R "di)\n pxor %xmm0, %xmm0\n pcmpeqd %xmm1, %xmm1\n psrld $25, %xmm1\n pslld $23, %xmm1\n"
	   "simd_divide: divps %xmm0, %xmm1");
CODE(init_x87, "fninit");

static void exceptions(void)
{
	write_cr0(read_cr0() | CR0_NE);
	*(u16 *)area = 0x37f & ~4; /* division by zero unmasked */
	struct state s = run_with(x87_pending, 3, 0);
	CHECK_FAULT(s, VEC_MF, NO_ERROR, pending_wait); /* at the next waiting instruction */
	s = run_with(x87_pending_load, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_MF, NO_ERROR, unmasked_divide, "TCG looks at FWAIT only");
	CHECK_EQ(s.ax, 1);
	run_with(init_x87, 3, 0);
	s = run_with(x87_masked, 3, 0);
	CHECK_END(s, x87_masked);
	CHECK_EQ(s.ax & 0x84, 4);
	s = run_with(no_wait, 3, 0); /* FNSTSW and FNCLEX do not wait */
	CHECK_END(s, no_wait);
	CHECK_EQ(s.ax & 0x84, 0x84);
	run_with(init_x87, 3, 0);
	*(u32 *)area = 0x1f80 & ~0x200; /* division by zero unmasked */
	s = run_with(simd, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_XM, NO_ERROR, simd_divide, "TCG has no SIMD exceptions");
	write_cr4(read_cr4() & ~CR4_OSXMMEXCPT);
	s = run_with(simd, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_UD, NO_ERROR, simd_divide, "TCG has no SIMD exceptions");
	write_cr4(read_cr4() | CR4_OSXMMEXCPT);
	*(u32 *)area = 0x1f80;
	s = run_with(simd, 3, 0);
	CHECK_END(s, simd);
	run_with(ldmxcsr, 3, 0);
}

void guest_main(void)
{
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	if (HAS_XSAVE)
		xsave_on();
	asm volatile("fninit");
	task_switched();
	lazy();
	fxsave_and_fxrstor();
	xsave_family();
	exceptions();
}
