/* Paging in its three forms (32-bit, PAE, 4-level): every permission with every kind of access, error codes and CR2,
 * accessed and dirty bits, reserved bits, large pages, accesses across pages, and what flushes translations. Intel SDM
 * volume 3, "Paging".
 *
 * The guest's memory is mapped one to one for the supervisor, and once more at ALIAS for user code; the page under test
 * is at `test_va`, where every level of the tables belongs to the test. */
#include "lib/guest.h"

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ALL (PTE_P | PTE_W | PTE_U)
#define ALIAS 0x80000000ul
#define PAGE 4096ul

typedef u8 page[4096];
static page tables[12] __attribute__((aligned(4096)));
static page test_pages[4] __attribute__((aligned(4096)));

/* One form of paging, set up: where the entries for test_va are. */
static struct {
	const char *name;
	unsigned levels, entry_size;
	bool nx;
	ulong test_va, cr3;
	void *entry[5]; /* entry[1]: the page-table entry of test_va; the next pages' follow it */
} mode;

static u64 entry_read(unsigned level, unsigned index)
{
	return mode.entry_size == 4 ? ((volatile u32 *)mode.entry[level])[index]
				    : ((volatile u64 *)mode.entry[level])[index];
}

static void entry_write(unsigned level, unsigned index, u64 value)
{
	if (mode.entry_size == 4)
		((volatile u32 *)mode.entry[level])[index] = value;
	else
		((volatile u64 *)mode.entry[level])[index] = value;
}

static void flush(void)
{
	write_cr3(read_cr3());
}

/* Test pages 0 to 3 at test_va, all rights, nothing accessed yet. */
static void reset_entries(void)
{
	for (unsigned i = 0; i < 4; i++)
		entry_write(1, i, (ulong)test_pages[i] | PTE_ALL);
	for (unsigned level = 2; level <= mode.levels; level++) {
		bool pdpte = mode.levels == 3 && level == 3; /* PAE's have no rights, and no accessed bit */
		entry_write(level, 0,
			    (ulong)mode.entry[level - 1] & ~(PAGE - 1)
				    ? ((ulong)mode.entry[level - 1] & ~(PAGE - 1)) | (pdpte ? PTE_P : PTE_ALL)
				    : 0);
	}
	flush();
}

/* ---- Set-up of the three forms ---- */

#ifdef __x86_64__

static void paging_on(void)
{
	u64 *pml4 = (u64 *)tables[0], *pdpt = (u64 *)tables[1], *pd = (u64 *)tables[2];
	memset(tables, 0, sizeof(tables));
	mode.name = "4-level";
	mode.levels = 4;
	mode.entry_size = 8;
	mode.nx = true;
	mode.test_va = 0x8000000000; /* the second PML4 entry */
	pml4[0] = (ulong)pdpt | PTE_ALL;
	pdpt[0] = (ulong)pd | PTE_ALL;
	pdpt[ALIAS >> 30] = (ulong)tables[3] | PTE_ALL;
	pdpt[3] = 3ull << 30 | PTE_P | PTE_W | PTE_PS; /* the APIC's gigabyte */
	for (unsigned i = 0; i < 512; i++) {
		pd[i] = (u64)i << 21 | PTE_P | PTE_W | PTE_PS;
		((u64 *)tables[3])[i] = (u64)i << 21 | PTE_ALL | PTE_PS;
	}
	if (!HAS_1G_PAGES)
		pdpt[3] = 0;
	mode.entry[4] = pml4 + 1;
	mode.entry[3] = tables[4];
	mode.entry[2] = tables[5];
	mode.entry[1] = tables[6];
	mode.cr3 = (ulong)pml4;
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
	write_cr3(mode.cr3);
	reset_entries();
}

#else

static void map_32bit(void)
{
	u32 *pd = (u32 *)tables[0];
	mode.name = "32-bit";
	mode.levels = 2;
	mode.entry_size = 4;
	mode.nx = false;
	mode.test_va = 0x40000000;
	for (u32 i = 0; i < 256; i++) {
		pd[i] = i << 22 | PTE_P | PTE_W | PTE_PS;
		pd[i + (ALIAS >> 22)] = i << 22 | PTE_ALL | PTE_PS;
	}
	mode.entry[2] = pd + (mode.test_va >> 22);
	mode.entry[1] = tables[1];
	mode.cr3 = (ulong)pd;
	write_cr4((read_cr4() & ~CR4_PAE) | CR4_PSE);
}

static void map_pae(void)
{
	u64 *pdpt = (u64 *)tables[0], *pd = (u64 *)tables[1];
	mode.name = "PAE";
	mode.levels = 3;
	mode.entry_size = 8;
	mode.nx = HAS_NX;
	mode.test_va = 0x40000000;
	for (unsigned i = 0; i < 512; i++) {
		pd[i] = (u64)i << 21 | PTE_P | PTE_W | PTE_PS;
		((u64 *)tables[2])[i] = (u64)i << 21 | PTE_ALL | PTE_PS;
	}
	pdpt[0] = (ulong)pd | PTE_P;
	pdpt[ALIAS >> 30] = (ulong)tables[2] | PTE_P;
	mode.entry[3] = pdpt + 1;
	mode.entry[2] = tables[3];
	mode.entry[1] = tables[4];
	pdpt[1] = (ulong)tables[3] | PTE_P;
	mode.cr3 = (ulong)pdpt;
	write_cr4(read_cr4() | CR4_PAE);
	if (HAS_NX)
		wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
}

static void paging_on(bool pae)
{
	write_cr0(read_cr0() & ~CR0_PG);
	memset(tables, 0, sizeof(tables));
	if (pae)
		map_pae();
	else
		map_32bit();
	df_tss.cr3 = mode.cr3;
	write_cr3(mode.cr3);
	write_cr0(read_cr0() | CR0_PG | CR0_WP);
	reset_entries();
}

#endif

/* ---- Accesses ---- */

CODE(do_read, "mov (" R "bx), %eax");
CODE(do_write, "mov %eax, (" R "bx)");
CODE(do_jump, "jmp *" R "bx");
enum access { READ, WRITE, EXECUTE };

#define FILLER (0x010001ul * 0xcd | 0x01000100ul * VECTOR_END)

/* Run at CPL 0 in the supervisor's mapping, or at CPL 3 in the user's. */
static struct state access_at(const void *code, unsigned cpl, ulong address)
{
	ulong offset = cpl == 3 ? ALIAS : 0;
	struct state s = state_at((const u8 *)code + offset, cpl);
	s.sp += offset;
	s.bx = address;
	return s;
}

static struct state do_access(enum access access, unsigned cpl, ulong address, ulong flags)
{
	u8 *const codes[] = { do_read, do_write, do_jump };
	struct state s = access_at(codes[access], cpl, address);
	s.ax = FILLER; /* a write leaves code there */
	s.flags |= flags;
	run(&s);
	return s;
}

/* The test page holds INT VECTOR_END, so that a jump to it ends the run. */
static void fill_pages(void)
{
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned j = 0; j < PAGE; j += 2) {
			test_pages[i][j] = 0xcd;
			test_pages[i][j + 1] = VECTOR_END;
		}
	}
}

/* ---- The permission matrix ---- */

struct rights {
	bool w, u, nx; /* of the whole path */
	bool wp, smep, smap, ac;
	unsigned cpl;
};

/* Zero: allowed; else the error code. Intel SDM volume 3, "Access Rights", "Page-Fault Exceptions". */
static unsigned permission_error(const struct rights *r, enum access access)
{
	bool user = r->cpl == 3, bad;
	if (user)
		bad = !r->u || (access == WRITE && !r->w) || (access == EXECUTE && r->nx);
	else if (access == EXECUTE)
		bad = r->nx || (r->smep && r->u);
	else
		bad = (access == WRITE && !r->w && r->wp) || (r->smap && r->u && !r->ac);
	if (!bad)
		return 0;
	bool fetch_bit = access == EXECUTE && (mode.nx || r->smep);
	return PF_P | (access == WRITE ? PF_W : 0) | (user ? PF_U : 0) | (fetch_bit ? PF_I : 0);
}

static void check_access(const struct rights *r, enum access access)
{
	ulong va = mode.test_va + 0x10;
	struct state s = do_access(access, r->cpl, va, r->ac ? FLAG_AC : 0);
	unsigned want = permission_error(r, access);
	bool ok = want ? s.vector == VEC_PF && s.error == want && s.cr2 == va : s.vector == VECTOR_END;
	if (ok && want && access != EXECUTE)
		ok = s.ip == (ulong)(access == READ ? do_read : do_write) + (r->cpl == 3 ? ALIAS : 0);
	if (ok && want && access == EXECUTE)
		ok = s.ip == va;
	CHECK(ok);
	if (ok)
		return;
	print("    %s access %u w %u u %u nx %u wp %u smep %u smap %u ac %u cpl %u: want error %x\n", mode.name, access,
	      r->w, r->u, r->nx, r->wp, r->smep, r->smap, r->ac, r->cpl, want);
	state_print(&s);
}

/* One environment (WP, SMEP, SMAP, AC, CPL) against rights taken away at one level. */
static void check_environment(unsigned bits)
{
	struct rights r = {
		.wp = bits & 1, .smep = bits & 2, .smap = bits & 4, .ac = bits & 8, .cpl = bits & 16 ? 3 : 0
	};
	if ((r.smep && !HAS_SMEP) || (r.smap && !HAS_SMAP))
		return;
	ulong cr0 = read_cr0(), cr4 = read_cr4();
	write_cr0(r.wp ? cr0 | CR0_WP : cr0 & ~CR0_WP);
	write_cr4(cr4 | (r.smep ? CR4_SMEP : 0) | (r.smap ? CR4_SMAP : 0));
	unsigned top = mode.levels == 3 ? 2 : mode.levels; /* PAE's third level has no rights */
	for (unsigned level = 1; level <= top; level++) {
		for (unsigned rights = 0; rights < 8; rights++) {
			r.w = rights & 1;
			r.u = rights & 2;
			r.nx = rights & 4;
			if (r.nx && !mode.nx)
				continue;
			reset_entries();
			u64 entry = entry_read(level, 0) & ~(PTE_W | PTE_U);
			entry_write(level, 0, entry | (r.w ? PTE_W : 0) | (r.u ? PTE_U : 0) | (r.nx ? PTE_NX : 0));
			flush();
			for (enum access access = READ; access <= EXECUTE; access++)
				check_access(&r, access);
		}
	}
	write_cr4(cr4);
	write_cr0(cr0);
	reset_entries();
}

/* ---- Absent and reserved ---- */

static void absent_entries(void)
{
	ulong va = mode.test_va + 0x123;
	for (unsigned level = 1; level <= mode.levels; level++) {
		for (unsigned cpl = 0; cpl < 4; cpl += 3) {
			for (enum access access = READ; access <= EXECUTE; access++) {
				reset_entries();
				entry_write(level, 0, entry_read(level, 0) & ~PTE_P);
				flush();
				struct state s = do_access(access, cpl, va, 0);
				unsigned fetch = access == EXECUTE && mode.nx ? PF_I : 0;
				CHECK(s.vector == VEC_PF && s.cr2 == va);
				CHECK_EQ(s.error, (access == WRITE ? PF_W : 0) | (cpl ? PF_U : 0) | fetch);
			}
		}
	}
	reset_entries();
}

static void check_reserved(unsigned level, u64 bits, const char *what)
{
	reset_entries();
	entry_write(level, 0, entry_read(level, 0) | bits);
	flush();
	struct state s = do_access(READ, 3, mode.test_va, 0);
	bool ok = s.vector == VEC_PF && s.error == (PF_P | PF_U | PF_RSVD) && s.cr2 == mode.test_va;
	CHECK_BUT_QEMU(ok, "TCG does not set P beside RSVD");
	if (!ok && !on_qemu) {
		print("    %s level %u: %s\n", mode.name, level, what);
		state_print(&s);
	}
	reset_entries();
}

static unsigned physical_bits(void)
{
	u32 bits = cpuid_checked(0x80000008, 0).eax & 0xff;
	return bits ? bits : 36;
}

static void reserved_bits(void)
{
	if (mode.entry_size == 4)
		return;
	unsigned top = mode.levels == 3 ? 2 : mode.levels;
	for (unsigned level = 1; level <= top; level++) {
		if (physical_bits() < 52)
			check_reserved(level, 1ull << physical_bits(), "above MAXPHYADDR");
		if (mode.levels == 3)
			check_reserved(level, 1ull << 52, "bit 52 in PAE");
		if (mode.nx) {
			wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_NXE);
			check_reserved(level, PTE_NX, "NX without EFER.NXE");
			wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
		}
	}
	check_reserved(2, PTE_PS | (1 << 13), "bit 13 of a 2 MiB page");
	if (mode.levels == 4) {
		check_reserved(4, PTE_PS, "PS in a PML4 entry");
		check_reserved(3, PTE_PS | (HAS_1G_PAGES ? 1 << 13 : 0), "bit 13 of a 1 GiB page, or no such pages");
	}
}

/* ---- Accessed and dirty ---- */

static bool all_accessed(void)
{
	unsigned top = mode.levels == 3 ? 2 : mode.levels;
	bool all = true;
	for (unsigned level = 1; level <= top; level++)
		all = all && (entry_read(level, 0) & PTE_A);
	return all;
}

static void accessed_and_dirty(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		for (enum access access = READ; access <= EXECUTE; access++) {
			reset_entries();
			entry_write(2, 0, entry_read(2, 0) & ~PTE_D);
			CHECK_EQ(do_access(access, cpl, mode.test_va, 0).vector, VECTOR_END);
			fill_pages();
			CHECK(all_accessed());
			CHECK_EQ(entry_read(1, 0) & PTE_D, access == WRITE ? PTE_D : 0);
			CHECK(!(entry_read(2, 0) & PTE_D)); /* only the last level gets dirty */
			CHECK(!(entry_read(1, 1) & (PTE_A | PTE_D)));
		}
	}
	/* A page read first and written later gets dirty then; a refused write leaves it clean. */
	reset_entries();
	do_access(READ, 3, mode.test_va, 0);
	CHECK(!(entry_read(1, 0) & PTE_D));
	do_access(WRITE, 3, mode.test_va, 0);
	CHECK(entry_read(1, 0) & PTE_D);
	reset_entries();
	entry_write(1, 0, entry_read(1, 0) & ~PTE_W);
	flush();
	CHECK_EQ(do_access(WRITE, 3, mode.test_va, 0).vector, VEC_PF);
	CHECK(!(entry_read(1, 0) & PTE_D));
	/* Bits cleared by software are set again after a flush. */
	reset_entries();
	do_access(WRITE, 0, mode.test_va, 0);
	entry_write(1, 0, entry_read(1, 0) & ~(PTE_A | PTE_D));
	invlpg((void *)mode.test_va);
	do_access(WRITE, 0, mode.test_va, 0);
	CHECK_EQ(entry_read(1, 0) & (PTE_A | PTE_D), PTE_A | PTE_D);
	fill_pages();
}

/* ---- Large pages ---- */

static void large_pages(void)
{
	ulong size = mode.entry_size == 4 ? 4ul << 20 : 2ul << 20;
	ulong physical = (ulong)test_pages[0], base = physical & ~(size - 1);
	*(u32 *)(test_pages[0] + 0x18) = 0x600dda7a;
	for (unsigned level = 2; level <= (mode.levels == 4 && HAS_1G_PAGES ? 3 : 2); level++) {
		if (level == 3) {
			size = 1ul << 30;
			base = 0;
		}
		reset_entries();
		entry_write(level, 0, base | PTE_ALL | PTE_PS);
		flush();
		ulong va = mode.test_va + (physical & (size - 1)) + 0x18;
		struct state s = do_access(READ, 3, va, 0);
		CHECK(s.vector == VECTOR_END && s.ax == 0x600dda7a);
		CHECK_EQ(entry_read(level, 0) & (PTE_A | PTE_D), PTE_A);
		s = do_access(WRITE, 3, va, 0);
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK_EQ(*(u32 *)(test_pages[0] + 0x18), FILLER);
		CHECK_EQ(entry_read(level, 0) & (PTE_A | PTE_D), PTE_A | PTE_D);
		*(u32 *)(test_pages[0] + 0x18) = 0x600dda7a;
	}
	reset_entries();
	fill_pages();
}

/* ---- Across a page boundary ---- */

CODE(do_add, "add %eax, (" R "bx)");
CODE(do_push, "push " R "ax");
CODE(do_call, "call *" R "bx");
CODE(do_pop_memory, "pop" SUFFIX " (" R "bx)");
CODE(do_cmpxchg, "cmpxchg %ecx, (" R "bx)");

static void across_pages(void)
{
	ulong boundary = mode.test_va + PAGE;
	for (unsigned cpl = 0; cpl < 4; cpl += 3) {
		reset_entries();
		entry_write(1, 1, 0);
		flush();
		for (unsigned before = 1; before < 4; before++) {
			struct state s = do_access(READ, cpl, boundary - before, 0);
			CHECK(s.vector == VEC_PF && s.error == (cpl ? PF_U : 0) && s.cr2 == boundary);
			s = access_at(do_write, cpl, boundary - before);
			s.ax = 0x99999999;
			run(&s);
			CHECK(s.vector == VEC_PF && s.error == ((cpl ? PF_U : 0) | PF_W) && s.cr2 == boundary);
			CHECK(test_pages[0][PAGE - 1] == VECTOR_END &&
			      test_pages[0][PAGE - 2] == 0xcd); /* nothing was written */
			s = access_at(do_add, cpl, boundary - before);
			s.ax = 0x01010101;
			s.flags |= FLAG_CF;
			run(&s);
			CHECK(s.vector == VEC_PF && s.cr2 == boundary && (s.flags & FLAG_CF));
			CHECK_BUT_QEMU(s.error == ((cpl ? PF_U : 0) | PF_W), "TCG reads before it writes");
			CHECK(test_pages[0][PAGE - 1] == VECTOR_END && test_pages[0][PAGE - 2] == 0xcd);
		}
		/* An instruction whose second part is on the absent page. */
		test_pages[0][PAGE - 1] = 0xb8; /* MOV EAX, imm32 */
		struct state s = do_access(EXECUTE, cpl, boundary - 1, 0);
		CHECK(s.vector == VEC_PF && s.cr2 == boundary && s.ip == boundary - 1);
		CHECK_EQ(s.error, (cpl ? PF_U : 0) | (mode.nx ? PF_I : 0));
		fill_pages();
		/* The pages need not be neighbours in physical memory. */
		reset_entries();
		entry_write(1, 1, (ulong)test_pages[3] | PTE_ALL);
		flush();
		s = access_at(do_write, cpl, boundary - 2);
		s.ax = 0x44332211;
		run(&s);
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK(test_pages[0][PAGE - 2] == 0x11 && test_pages[0][PAGE - 1] == 0x22 && test_pages[3][0] == 0x33 &&
		      test_pages[3][1] == 0x44 && test_pages[1][0] == 0xcd);
		s = do_access(READ, cpl, boundary - 2, 0);
		CHECK(s.vector == VECTOR_END && s.ax == 0x44332211);
		s = access_at(do_add, cpl, boundary - 2);
		s.ax = 0x11111111;
		run(&s);
		CHECK_EQ(s.vector, VECTOR_END);
		CHECK(test_pages[0][PAGE - 2] == 0x22 && test_pages[3][1] == 0x55);
		fill_pages();
	}
	reset_entries();
}

/* A fault in the middle of an instruction leaves the registers as they were. */
static void restartable(void)
{
	reset_entries();
	entry_write(1, 0, entry_read(1, 0) & ~PTE_W);
	entry_write(1, 1, 0);
	flush();
	struct state s = access_at(do_push, 3, 0);
	s.sp = mode.test_va + 2 * PAGE; /* the push would lie on the absent page */
	run(&s);
	CHECK(s.vector == VEC_PF && s.error == (PF_U | PF_W) && s.cr2 == mode.test_va + 2 * PAGE - sizeof(long));
	CHECK_EQ(s.sp, mode.test_va + 2 * PAGE);
	s = access_at(do_call, 3, 0x1000);
	s.sp = mode.test_va + 2 * PAGE;
	run(&s);
	CHECK(s.vector == VEC_PF && s.sp == mode.test_va + 2 * PAGE && s.ip == (ulong)do_call + ALIAS);
	s = access_at(do_pop_memory, 3, mode.test_va + 8);
	ulong sp = s.sp;
	run(&s);
	CHECK(s.vector == VEC_PF && s.error == (PF_P | PF_U | PF_W) && s.sp == sp &&
	      s.ip == (ulong)do_pop_memory + ALIAS);
	/* CMPXCHG and read-modify-write need the right to write even where nothing changes. */
	s = access_at(do_cmpxchg, 3, mode.test_va + 8);
	s.ax = 1;
	run(&s);
	CHECK(s.vector == VEC_PF && s.error == (PF_P | PF_U | PF_W) && s.ax == 1);
	s = access_at(do_add, 3, mode.test_va + 8);
	run(&s);
	CHECK(s.vector == VEC_PF && s.error == (PF_P | PF_U | PF_W));
	reset_entries();
}

/* ---- What makes a changed entry visible ---- */

static u32 read_test_page(void)
{
	return do_access(READ, 0, mode.test_va, 0).ax;
}

static void remap(unsigned page_index, u64 bits)
{
	entry_write(1, 0, (ulong)test_pages[page_index] | PTE_ALL | bits);
}

static void visibility(void)
{
	for (unsigned i = 0; i < 4; i++)
		*(u32 *)test_pages[i] = i;
	reset_entries();
	CHECK_EQ(read_test_page(), 0);
	remap(1, 0);
	invlpg((void *)(mode.test_va + 0xabc));
	CHECK_EQ(read_test_page(), 1);
	remap(2, 0);
	flush();
	CHECK_EQ(read_test_page(), 2);
	entry_write(1, 0, 0); /* absent ones are not cached: no flush needed to see it come */
	flush();
	CHECK_EQ(do_access(READ, 0, mode.test_va, 0).vector, VEC_PF);
	remap(3, 0);
	CHECK_EQ(read_test_page(), 3);
	if (HAS_PGE) {
		write_cr4(read_cr4() | CR4_PGE);
		remap(1, PTE_G);
		invlpg((void *)mode.test_va);
		CHECK_EQ(read_test_page(), 1);
		remap(2, PTE_G);
		invlpg((void *)mode.test_va); /* INVLPG flushes global pages too */
		CHECK_EQ(read_test_page(), 2);
		remap(3, PTE_G);
		write_cr4(read_cr4() & ~CR4_PGE); /* as does any change of PGE */
		CHECK_EQ(read_test_page(), 3);
	}
	remap(0, 0);
	write_cr0(read_cr0() & ~CR0_WP);
	write_cr0(read_cr0() | CR0_WP);
	flush();
	CHECK_EQ(read_test_page(), 0);
	fill_pages();
}

/* STAC and CLAC. */
CODE(do_stac, "stac\n pushf\n pop " R "cx\n clac\n pushf\n pop " R "dx");

static void stac_and_clac(void)
{
	if (!HAS_SMAP)
		return;
	struct state s = run_code(do_stac, 0);
	CHECK_END(s, do_stac);
	CHECK((s.cx & FLAG_AC) && !(s.dx & FLAG_AC));
	s = access_at(do_stac, 3, 0);
	run(&s);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, (ulong)do_stac + ALIAS);
}

static void test_mode(void)
{
	print("%s\n", mode.name);
	fill_pages();
	for (unsigned bits = 0; bits < 32; bits++)
		check_environment(bits);
	absent_entries();
	reserved_bits();
	accessed_and_dirty();
	large_pages();
	across_pages();
	restartable();
	visibility();
	stac_and_clac();
}

#ifdef __x86_64__

/* The same tables in the upper half; sign extension. */
static void upper_half(void)
{
	u64 *pml4 = (u64 *)tables[0];
	pml4[511] = pml4[256] = pml4[1];
	*(u32 *)test_pages[0] = 0x12345678;
	static const ulong addresses[] = { 0xffffff8000000000, 0xffff800000000000 };
	for (unsigned i = 0; i < 2; i++) {
		struct state s = do_access(READ, 3, addresses[i], 0);
		CHECK(s.vector == VECTOR_END && s.ax == 0x12345678);
		s = do_access(READ, 3, addresses[i] + 0x200000, 0);
		CHECK(s.vector == VEC_PF && s.cr2 == addresses[i] + 0x200000);
		s = do_access(READ, 3, addresses[i] & 0xffffffffffff, 0);
		CHECK(s.vector == VEC_GP && s.error == 0);
	}
	fill_pages();
}

/* PCIDs: translations tagged, kept on request, dropped by INVPCID. Nothing says that a stale one must survive: only
 * that it must not be seen where it was flushed. */
CODE(do_invpcid, "invpcid (%rbx), %rax");
CODE(do_write_cr3, "mov %rax, %cr3");
CODE(do_write_cr4, "mov %rax, %cr4");

static void invpcid(ulong type, u64 pcid, u64 address)
{
	u64 descriptor[2] = { pcid, address };
	struct state s = state_at(do_invpcid, 0);
	s.ax = type;
	s.bx = (ulong)descriptor;
	run(&s);
	CHECK_END(s, do_invpcid);
}

static void process_context(void)
{
	if (!HAS_PCID)
		return;
	static page other_pml4 __attribute__((aligned(4096)));
	for (unsigned i = 0; i < 4; i++)
		*(u32 *)test_pages[i] = i;
	write_cr3(mode.cr3 | 8); /* PWT: bits 11:0 must be clear for PCIDE to be set */
	struct state s = state_at(do_write_cr4, 0);
	s.ax = read_cr4() | CR4_PCIDE;
	run(&s);
	write_cr3(mode.cr3);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, do_write_cr4, "TCG does not check CR3 when PCIDE is set");
	write_cr4(read_cr4() | CR4_PCIDE);
	remap(0, 0);
	write_cr3(mode.cr3 | 1);
	CHECK_EQ(read_test_page(), 0);
	/* The other context has its own tables with nothing at test_va. */
	memcpy(other_pml4, tables[0], sizeof(other_pml4));
	((u64 *)other_pml4)[1] = 0;
	write_cr3((ulong)other_pml4 | 2);
	CHECK_EQ(do_access(READ, 0, mode.test_va, 0).vector, VEC_PF);
	write_cr3(mode.cr3 | 1 | 1ull << 63);
	CHECK_EQ(read_test_page(), 0);
	CHECK_EQ(read_cr3(), mode.cr3 | 1); /* bit 63 is not kept */
	remap(1, 0);
	write_cr3(mode.cr3 | 1); /* without bit 63: flushed */
	CHECK_EQ(read_test_page(), 1);
	if (HAS_INVPCID) {
		remap(2, 0);
		invpcid(0, 1, mode.test_va);
		CHECK_EQ(read_test_page(), 2);
		remap(3, 0);
		invpcid(1, 1, 0);
		CHECK_EQ(read_test_page(), 3);
		remap(0, 0);
		invpcid(2, 0, 0);
		CHECK_EQ(read_test_page(), 0);
		remap(1, 0);
		invpcid(3, 0, 0);
		CHECK_EQ(read_test_page(), 1);
		static const struct {
			u64 type, pcid, address;
		} bad[] = { { 4, 0, 0 }, { 0, 0x1000, 0 }, { 0, 1, 0x800000000000 } };
		for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
			u64 descriptor[2] = { bad[i].pcid, bad[i].address };
			s = state_at(do_invpcid, 0);
			s.ax = bad[i].type;
			s.bx = (ulong)descriptor;
			run(&s);
			CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, do_invpcid, "TCG does not check INVPCID's descriptor");
		}
		s = access_at(do_invpcid, 3, 0);
		run(&s);
		CHECK_FAULT(s, VEC_GP, 0, (ulong)do_invpcid + ALIAS);
	}
	write_cr3(mode.cr3);
	write_cr4(read_cr4() & ~CR4_PCIDE);
	s = state_at(do_write_cr3, 0);
	s.ax = mode.cr3 | 1ull << 63; /* reserved without PCIDE */
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, do_write_cr3, "TCG does not check CR3's reserved bits");
	write_cr3(mode.cr3);
	reset_entries();
	fill_pages();
}

void guest_main(void)
{
	paging_on();
	test_mode();
	upper_half();
	process_context();
}

#else

/* PAE: the four PDPTEs are read when CR3 is loaded, and reserved bits in them fault there. */
CODE(do_write_cr3, "mov %eax, %cr3");

static void pdptes(void)
{
	u64 good = entry_read(3, 0);
	entry_write(3, 0, good | PTE_W); /* reserved in a PDPTE */
	struct state s = state_at(do_write_cr3, 0);
	s.ax = mode.cr3;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, do_write_cr3, "TCG does not load PDPTEs with CR3");
	entry_write(3, 0, good);
	flush();
	entry_write(3, 0, 0); /* the loaded one still counts */
	invlpg((void *)mode.test_va);
	CHECK_BUT_QEMU(do_access(READ, 0, mode.test_va, 0).vector == VECTOR_END, "TCG does not keep PDPTEs");
	flush();
	CHECK_EQ(do_access(READ, 0, mode.test_va, 0).vector, VEC_PF);
	entry_write(3, 0, good);
	flush();
}

/* A 32-bit page table may map 4 MiB pages above 4 GiB (PSE-36), bit 21 is reserved; PS without CR4.PSE is ignored. */
static void page_size_extension(void)
{
	check_reserved(2, PTE_PS | 1 << 21, "bit 21 of a 4 MiB page");
}

void guest_main(void)
{
	paging_on(false);
	test_mode();
	page_size_extension();
	paging_on(true);
	test_mode();
	pdptes();
}

#endif
