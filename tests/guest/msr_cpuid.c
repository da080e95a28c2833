/* Rules of control registers, EFER, XCR0 and other model-specific registers: what may be written and what is #GP;
 * CPUID's answers among themselves, and against what the instructions do: one outside CPUID is #UD (H5). Run with
 * several CPU models. Intel SDM volume 3, "Control Registers", "Extended Feature Enable Register"; volume 2, CPUID,
 * XSETBV; AMD APM volume 2. */
#include "lib/guest.h"

CODE(do_rdmsr, "rdmsr");
CODE(do_wrmsr, "wrmsr");
CODE(do_write_cr0, "mov " R "ax, %cr0\n nop");
CODE(do_write_cr4, "mov " R "ax, %cr4");
CODE(do_xsetbv, "xsetbv");
CODE(do_xgetbv, "xgetbv");

static struct state with_value(const void *code, unsigned cpl, u32 index, u64 value)
{
	struct state s = state_at(code, cpl);
	s.cx = index;
	s.ax = (u32)value;
	s.dx = (u32)(value >> 32);
	run(&s);
	return s;
}

static void expect_gp(const void *code, u32 index, u64 value, const char *what)
{
	struct state s = with_value(code, 0, index, value);
	bool ok = s.vector == VEC_GP && s.error == 0 && s.ip == (ulong)code;
	CHECK_BUT_QEMU(ok, "TCG lets much pass");
	if (!ok && !on_qemu) {
		print("    %s: %x <- %llx\n", what, index, value);
		state_print(&s);
	}
}

/* ---- Control registers ---- */

static struct state write_cr(const void *code, ulong value)
{
	struct state s = state_at(code, 0);
	s.ax = value;
	run(&s);
	return s;
}

static void cr_faults(const void *code, ulong value, const char *what)
{
	if (on_qemu) /* takes the values, and goes on in that state */
		return;
	struct state s = write_cr(code, value);
	bool ok = s.vector == VEC_GP && s.error == 0 && s.ip == (ulong)code;
	CHECK(ok);
	if (!ok)
		print("    %s: %lx\n", what, value);
}

static void control_registers(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();
	cr_faults(do_write_cr0, (cr0 | CR0_PG) & ~CR0_PE, "PG without PE");
	cr_faults(do_write_cr0, (cr0 | CR0_NW) & ~CR0_CD, "NW without CD");
	CHECK_EQ(read_cr0(), cr0);
	write_cr0(cr0 & ~CR0_ET); /* a fixed one */
	CHECK_EQ(read_cr0(), cr0);
	write_cr0(cr0 | 1 << 6 | 1 << 17); /* reserved bits are ignored */
	CHECK_BUT_QEMU(read_cr0() == cr0, "TCG keeps reserved bits");
	write_cr0(cr0);
	write_cr0(cr0 | CR0_TS | CR0_MP | CR0_EM | CR0_AM);
	CHECK_EQ(read_cr0(), cr0 | CR0_TS | CR0_MP | CR0_EM | CR0_AM);
	asm volatile("clts");
	CHECK_EQ(read_cr0(), cr0 | CR0_MP | CR0_EM | CR0_AM);
	asm volatile("lmsw %w0" : : "r"((u32)cr0 | 8));
	CHECK_EQ(read_cr0(), (cr0 | CR0_TS) | (cr0 & ~15ul) | CR0_AM);
	asm volatile("lmsw %w0" : : "r"(0)); /* LMSW cannot clear PE */
	CHECK(read_cr0() & CR0_PE);
	write_cr0(cr0);
	static const struct {
		unsigned bit;
		u32 leaf;
		unsigned reg, cpuid_bit; /* reg: 1 EBX, 2 ECX, 3 EDX */
	} gated[] = {
		{ 0, 1, 3, 1 },  { 1, 1, 3, 1 },   { 3, 1, 3, 2 },  { 4, 1, 3, 3 },  { 7, 1, 3, 13 },
		{ 11, 7, 2, 2 }, { 12, 7, 2, 16 }, { 13, 1, 2, 5 }, { 16, 7, 1, 0 }, { 18, 1, 2, 26 },
		{ 20, 7, 1, 7 }, { 21, 7, 1, 20 }, { 22, 7, 2, 3 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(gated); i++) {
		struct cpuid c = cpuid_checked(gated[i].leaf, 0);
		u32 words[] = { c.eax, c.ebx, c.ecx, c.edx };
		if (gated[i].bit == 12 || gated[i].bit == 13 || gated[i].bit == 20 || gated[i].bit == 21)
			continue; /* not switched on lightly: this code and stack are user pages */
		bool have = words[gated[i].reg] >> gated[i].cpuid_bit & 1;
		if (!have) {
			cr_faults(do_write_cr4, cr4 | BIT(gated[i].bit), "bit outside CPUID");
			continue;
		}
		struct state s = write_cr(do_write_cr4, cr4 | BIT(gated[i].bit));
		CHECK_END(s, do_write_cr4);
		CHECK_EQ(read_cr4(), cr4 | BIT(gated[i].bit));
		write_cr4(cr4);
	}
	cr_faults(do_write_cr4, cr4 | 1 << 15, "reserved bit 15");
	cr_faults(do_write_cr4, cr4 | 1ul << 31, "reserved bit 31");
	CHECK_EQ(read_cr4(), cr4);
}

#ifdef __x86_64__
CODE(do_write_cr3, "mov %rax, %cr3");
CODE(do_write_cr8, "mov %rax, %cr8");

static void long_mode_rules(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();
	cr_faults(do_write_cr0, cr0 | 1ul << 32, "CR0's upper half");
	cr_faults(do_write_cr4, cr4 | 1ul << 32, "CR4's upper half");
	cr_faults(do_write_cr4, cr4 & ~CR4_PAE, "PAE cleared in long mode");
	cr_faults(do_write_cr8, 16, "CR8 above 15");
	cr_faults(do_write_cr3, read_cr3() | 1ul << (cpuid_checked(0x80000008, 0).eax & 0xff), "CR3 above MAXPHYADDR");
	u64 efer = rdmsr(MSR_EFER);
	CHECK((efer & EFER_LMA) && (efer & EFER_LME));
	expect_gp(do_wrmsr, MSR_EFER, efer & ~EFER_LME, "LME cleared with paging on");
	CHECK_BUT_QEMU(rdmsr(MSR_EFER) == efer, "TCG lets much pass");
	wrmsr(MSR_EFER, efer);
}
#else
static void long_mode_rules(void)
{
	CHECK(!(rdmsr(MSR_EFER) & EFER_LMA));
}
#endif

/* ---- MSRs ---- */

static void model_specific_registers(void)
{
	static const u32 unknown[] = { 0x3, 0x12345678, 0xc0001234, 0x4b564dff, 0xffffffff };
	for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
		expect_gp(do_rdmsr, unknown[i], 0, "unknown MSR");
		expect_gp(do_wrmsr, unknown[i], 0, "unknown MSR");
	}
	u64 efer = rdmsr(MSR_EFER);
	expect_gp(do_wrmsr, MSR_EFER, efer | 1 << 1, "EFER's reserved bit 1");
	expect_gp(do_wrmsr, MSR_EFER, efer | 1ull << 63, "EFER's reserved bit 63");
	if (!HAS_NX)
		expect_gp(do_wrmsr, MSR_EFER, efer | EFER_NXE, "NXE without NX");
	if (HAS_SYSCALL) {
		wrmsr(MSR_EFER, efer | EFER_SCE);
		CHECK_EQ(rdmsr(MSR_EFER), efer | EFER_SCE);
		wrmsr(MSR_EFER, efer);
	}
	CHECK_EQ(rdmsr(MSR_PAT), 0x0007040600070406);
	expect_gp(do_wrmsr, MSR_PAT, 0x0007040600070402, "PAT type 2");
	expect_gp(do_wrmsr, MSR_PAT, 0x0807040600070406, "PAT type 8");
	wrmsr(MSR_PAT, 0x0007040600070401);
	CHECK_EQ(rdmsr(MSR_PAT), 0x0007040600070401);
	wrmsr(MSR_PAT, 0x0007040600070406);
	u64 base = rdmsr(MSR_APIC_BASE);
	expect_gp(do_wrmsr, MSR_APIC_BASE, base | 1, "APIC base's reserved bits");
	expect_gp(do_wrmsr, MSR_APIC_BASE, base | 1ull << 60, "APIC base above MAXPHYADDR");
	for (u32 i = 0; i < 3; i++) {
		u32 msr = MSR_SYSENTER_CS + i;
		wrmsr(msr, 0x1234 + i);
		CHECK_EQ(rdmsr(msr), 0x1234 + i);
		wrmsr(msr, 0);
	}
	/* RDMSR clears the upper halves; at CPL 3 it faults whatever the index. */
	struct state s = state_at(do_rdmsr, 0);
	s.cx = MSR_APIC_BASE;
	s.ax = s.dx = -1ul;
	run(&s);
	CHECK(s.ax == (u32)base && s.dx == base >> 32);
	s = with_value(do_rdmsr, 3, 0x12345678, 0);
	CHECK_FAULT(s, VEC_GP, 0, do_rdmsr);
}

static void time_stamp(void)
{
	u64 first = rdtsc(), second = rdtsc();
	CHECK(second > first);
	if (on_qemu) /* its RDMSR does not count */
		return;
	u64 by_msr = rdmsr(MSR_TSC);
	CHECK(by_msr > second && rdtsc() > by_msr);
	wrmsr(MSR_TSC, 1ull << 50);
	u64 now = rdtsc();
	CHECK(now >= 1ull << 50 && now < (1ull << 50) + (1ull << 40));
	wrmsr(MSR_TSC, 0);
	CHECK(rdtsc() < 1ull << 40);
	if (!HAS_RDTSCP)
		return;
	wrmsr(MSR_TSC_AUX, 0x12345);
	u32 low, high, aux;
	asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
	CHECK_EQ(aux, 0x12345);
	if (CPUID_HAS(7, ecx, 22)) {
		ulong id;
		asm volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" : "=a"(id)); /* RDPID */
		CHECK_EQ(id, 0x12345);
	}
	wrmsr(MSR_TSC_AUX, 0);
}

/* ---- CPUID by itself ---- */

CODE(do_cpuid, "cpuid");

static void cpuid_is_consistent(void)
{
	struct cpuid leaf0 = cpuid(0, 0), leaf1 = cpuid(1, 0);
	CHECK(leaf0.eax >= 1 && leaf0.eax < 0x100);
	for (unsigned cpl = 0; cpl < 4; cpl++) { /* the same at every level */
		struct state s = with_value(do_cpuid, cpl, 0, 0);
		CHECK(s.ax == leaf0.eax && s.bx == leaf0.ebx && s.cx == leaf0.ecx && s.dx == leaf0.edx);
	}
	CHECK(leaf1.edx & 1 && leaf1.edx & 1 << 4 && leaf1.edx & 1 << 5 && leaf1.edx & 1 << 8); /* FPU, TSC, MSR, CX8 */
	CHECK(leaf1.ecx & 1u << 31); /* a hypervisor is there */
	CHECK(cpuid(0x40000000, 0).eax >= 0x40000000);
	CHECK(!(leaf1.ecx & 1 << 27)); /* OSXSAVE follows CR4 */
	if (HAS_XSAVE) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		CHECK(CPUID_HAS(1, ecx, 27));
		write_cr4(read_cr4() & ~CR4_OSXSAVE);
		CHECK(!CPUID_HAS(1, ecx, 27));
	}
	struct cpuid extended = cpuid(0x80000000, 0);
	CHECK(extended.eax >= 0x80000004);
	if (extended.eax >= 0x80000008) {
		u32 bits = cpuid(0x80000008, 0).eax;
		CHECK((bits & 0xff) >= 32 && (bits & 0xff) <= 52 && (bits >> 8 & 0xff) >= 32 &&
		      (bits >> 8 & 0xff) <= 57);
	}
	/* Beyond the last leaf: zeros on AMD, the last basic leaf on Intel. */
	struct cpuid beyond = cpuid(leaf0.eax + 1, 0), last = cpuid(leaf0.eax, 0);
	if (is_amd)
		CHECK_BUT_QEMU(!beyond.eax && !beyond.ebx && !beyond.ecx && !beyond.edx, "TCG answers as Intel's");
	else
		CHECK(beyond.eax == last.eax && beyond.ecx == last.ecx);
	/* Things that need others. */
	struct cpuid leaf7 = cpuid_checked(7, 0);
	if (leaf1.ecx & 1 << 28) /* AVX needs XSAVE */
		CHECK(leaf1.ecx & 1 << 26);
	if (leaf7.ebx & 1 << 5) /* AVX2 needs AVX */
		CHECK(leaf1.ecx & 1 << 28);
	if (leaf7.ebx & 1 << 16) /* AVX-512F needs AVX2 */
		CHECK(leaf7.ebx & 1 << 5);
	if (leaf7.ebx & 1u << 31) /* AVX-512VL needs AVX-512F */
		CHECK(leaf7.ebx & 1 << 16);
	if (leaf7.ebx & 1 << 10) /* INVPCID without PCID makes no sense to any guest */
		CHECK(leaf1.ecx & 1 << 17);
}

/* ---- Instructions against CPUID ---- */

struct feature {
	const char *name;
	u32 leaf;
	u8 reg, bit; /* reg: 0 EAX to 3 EDX */
	u8 length;
	u8 code[10]; /* uses AX to DX and memory at DI */
	bool privileged;
};

enum { EAX, EBX, ECX, EDX };

static const struct feature features[] = {
	{ "CMOV", 1, EDX, 15, 3, { 0x0f, 0x44, 0xc1 } },
	{ "CMPXCHG8B", 1, EDX, 8, 3, { 0x0f, 0xc7, 0x0f } },
	{ "CLFLUSH", 1, EDX, 19, 3, { 0x0f, 0xae, 0x3f } },
	{ "MMX", 1, EDX, 23, 2, { 0x0f, 0x77 } },
	{ "FXSAVE", 1, EDX, 24, 3, { 0x0f, 0xae, 0x07 } },
	{ "SSE", 1, EDX, 25, 3, { 0x0f, 0x28, 0xc1 } },
	{ "SSE2", 1, EDX, 26, 4, { 0x66, 0x0f, 0x6f, 0xc1 } },
	{ "SSE3", 1, ECX, 0, 4, { 0xf2, 0x0f, 0xd0, 0xc1 } },
	{ "PCLMULQDQ", 1, ECX, 1, 6, { 0x66, 0x0f, 0x3a, 0x44, 0xc1, 0 } },
	{ "SSSE3", 1, ECX, 9, 5, { 0x66, 0x0f, 0x38, 0x00, 0xc1 } },
	{ "SSE4.1", 1, ECX, 19, 5, { 0x66, 0x0f, 0x38, 0x17, 0xc1 } },
	{ "SSE4.2", 1, ECX, 20, 5, { 0xf2, 0x0f, 0x38, 0xf1, 0xc1 } },
	{ "MOVBE", 1, ECX, 22, 4, { 0x0f, 0x38, 0xf0, 0x07 } },
	{ "POPCNT", 1, ECX, 23, 4, { 0xf3, 0x0f, 0xb8, 0xc1 } },
	{ "AES", 1, ECX, 25, 5, { 0x66, 0x0f, 0x38, 0xdc, 0xc1 } },
	{ "RDRAND", 1, ECX, 30, 3, { 0x0f, 0xc7, 0xf0 } },
	{ "BMI1", 7, EBX, 3, 5, { 0xc4, 0xe2, 0x70, 0xf2, 0xc1 } },
	{ "BMI2", 7, EBX, 8, 5, { 0xc4, 0xe2, 0x73, 0xf5, 0xc1 } },
	{ "RDSEED", 7, EBX, 18, 3, { 0x0f, 0xc7, 0xf8 } },
	{ "ADX", 7, EBX, 19, 5, { 0x66, 0x0f, 0x38, 0xf6, 0xc1 } },
	{ "CLFLUSHOPT", 7, EBX, 23, 4, { 0x66, 0x0f, 0xae, 0x3f } },
	{ "CLWB", 7, EBX, 24, 4, { 0x66, 0x0f, 0xae, 0x37 } },
	{ "SHA", 7, EBX, 29, 4, { 0x0f, 0x38, 0xc8, 0xc1 } },
	{ "GFNI", 7, ECX, 8, 5, { 0x66, 0x0f, 0x38, 0xcf, 0xc1 } },
	{ "RDPID", 7, ECX, 22, 4, { 0xf3, 0x0f, 0xc7, 0xf9 } },
	{ "RDTSCP", 0x80000001, EDX, 27, 3, { 0x0f, 0x01, 0xf9 } },
	{ "SSE4A", 0x80000001, ECX, 6, 4, { 0x66, 0x0f, 0x79, 0xc1 } },
	{ "AVX", 1, ECX, 28, 4, { 0xc5, 0xf0, 0x58, 0xc1 } },
	{ "AVX2", 7, EBX, 5, 4, { 0xc5, 0xf5, 0xfe, 0xc1 } },
	{ "FMA", 1, ECX, 12, 5, { 0xc4, 0xe2, 0x71, 0x98, 0xc1 } },
	{ "F16C", 1, ECX, 29, 5, { 0xc4, 0xe2, 0x79, 0x13, 0xc1 } },
	{ "AVX-512F", 7, EBX, 16, 6, { 0x62, 0xf1, 0x74, 0x48, 0x58, 0xc1 } },
	{ "INVPCID", 7, EBX, 10, 5, { 0x66, 0x0f, 0x38, 0x82, 0x07 }, true },
};

/* Everything that can be enabled is enabled: XCR0 and OSFXSR. Instructions run from a buffer, ended by an INT. */
static void features_against_instructions(void)
{
	static u8 code[32], data[512] __attribute__((aligned(64)));
	u64 xcr0 = 3;
	write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	if (HAS_XSAVE) {
		write_cr4(read_cr4() | CR4_OSXSAVE);
		xcr0 = cpuid(0xd, 0).eax & 0xe7;
		asm volatile("xsetbv" : : "c"(0), "a"((u32)xcr0), "d"(0));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		struct cpuid c = cpuid_checked(f->leaf, 0);
		u32 words[] = { c.eax, c.ebx, c.ecx, c.edx };
		bool have = words[f->reg] >> f->bit & 1;
		memcpy(code, f->code, f->length);
		code[f->length] = 0xcd;
		code[f->length + 1] = VECTOR_END;
		memset(data, 0, sizeof(data));
		struct state s = state_at(code, f->privileged ? 0 : 3);
		s.di = (ulong)data;
		run(&s);
		bool ok = have ? s.vector == VECTOR_END : s.vector == VEC_UD && s.ip == (ulong)code;
		CHECK_BUT_QEMU(ok, "TCG takes RDRAND's bit for RDSEED");
		if (!ok) {
			print("    %s, in CPUID: %u\n", f->name, have);
			state_print(&s);
		}
	}
	/* LZCNT and TZCNT are other instructions where the feature is missing. */
	ulong lz, tz;
	asm volatile(".byte 0xf3, 0x0f, 0xbd, 0xc1" : "=a"(lz) : "c"(0x10ul));
	asm volatile(".byte 0xf3, 0x0f, 0xbc, 0xc1" : "=a"(tz) : "c"(0x10ul));
	CHECK_EQ(lz, CPUID_HAS(0x80000001, ecx, 5) ? 27 : 4);
	CHECK_EQ(tz, 4);
}

/* ---- XCR0 ---- */

static void xcr0_rules(void)
{
	write_cr4(read_cr4() & ~CR4_OSXSAVE);
	struct state s = with_value(do_xsetbv, 0, 0, 1);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, do_xsetbv);
	s = with_value(do_xgetbv, 3, 0, 0);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, do_xgetbv);
	if (!HAS_XSAVE)
		return;
	write_cr4(read_cr4() | CR4_OSXSAVE);
	u64 can = cpuid(0xd, 0).eax | (u64)cpuid(0xd, 0).edx << 32;
	expect_gp(do_xsetbv, 0, 0, "x87 off");
	expect_gp(do_xsetbv, 0, 2, "x87 off");
	expect_gp(do_xsetbv, 0, 5, "AVX without SSE");
	expect_gp(do_xsetbv, 1, 1, "XCR1");
	expect_gp(do_xsetbv, 0, 0x20 | 7, "AVX-512 in part");
	expect_gp(do_xsetbv, 0, 0xe3, "AVX-512 without AVX");
	expect_gp(do_xsetbv, 0, 1ull << 62 | 7, "a reserved bit");
	expect_gp(do_xgetbv, 2, 0, "XCR2");
	for (unsigned bit = 1; bit < 63; bit++)
		if (!(can >> bit & 1) && bit != 1)
			expect_gp(do_xsetbv, 0, 3 | 1ull << bit, "outside CPUID");
	s = with_value(do_xsetbv, 3, 0, 1);
	CHECK_FAULT(s, VEC_GP, 0, do_xsetbv);
	u32 area_x87 = 0;
	for (u64 value = 1; value <= 7; value = value * 2 + 1) {
		if (value & ~can)
			continue;
		s = with_value(do_xsetbv, 0, 0, value);
		CHECK_END(s, do_xsetbv);
		s = with_value(do_xgetbv, 3, 0, 0);
		CHECK_END(s, do_xgetbv);
		CHECK(s.ax == value && s.dx == 0);
		u32 size = cpuid(0xd, 0).ebx; /* of the features enabled now */
		CHECK(size >= area_x87 && size >= 576 && size <= cpuid(0xd, 0).ecx);
		area_x87 = size;
	}
	with_value(do_xsetbv, 0, 0, 1);
	write_cr4(read_cr4() & ~CR4_OSXSAVE);
}

void guest_main(void)
{
	control_registers();
	long_mode_rules();
	model_specific_registers();
	time_stamp();
	cpuid_is_consistent();
	features_against_instructions();
	xcr0_rules();
}
