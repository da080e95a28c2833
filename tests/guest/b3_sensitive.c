/* MISSION B3: the instructions that read or write privileged state without faulting give the guest's own values, at
 * every CPL; with UMIP they fault. Intel SDM volume 2: SGDT, SIDT, SLDT, STR, SMSW, PUSHF, POPF; volume 3, "Control
 * Registers" (CR4.UMIP). */
#include "lib/guest.h"

/* ---- The tables' registers ---- */

static u8 buffer[64] __attribute__((aligned(16)));

CODE(store_gdt, "sgdt (" R "di)");
CODE(store_idt, "sidt (" R "di)");
#ifndef __x86_64__
CODE(store_gdt16, "data16 sgdt (" R "di)"); /* the full base all the same */
#endif

static void table_shows(void *code, u8 *end, const void *base, u16 limit, unsigned cpl)
{
	struct state s = state_at(code, cpl);
	struct table_register r;
	s.di = (ulong)buffer;
	memset(buffer, 0xcc, sizeof(buffer));
	run(&s);
	CHECK(s.vector == VECTOR_END && s.ip == (ulong)end + 2);
	memcpy(&r, buffer, sizeof(r));
	CHECK_EQ(r.base, (ulong)base);
	CHECK_EQ(r.limit, limit);
	CHECK_EQ(buffer[sizeof(r)], 0xcc);
}

static void tables_show_guests(unsigned cpl)
{
	table_shows(store_gdt, store_gdt_end, gdt, sizeof(gdt) - 1, cpl);
	table_shows(store_idt, store_idt_end, idt, sizeof(idt) - 1, cpl);
#ifndef __x86_64__
	table_shows(store_gdt16, store_gdt16_end, gdt, sizeof(gdt) - 1, cpl);
#endif
}

/* What LGDT and LIDT loaded comes back, limit zero and odd limits included. */
static void table_registers_keep_values(void)
{
	struct table_register set = { 0x1234, (ulong)-1 / 3 }, got;
#ifdef __x86_64__
	set.base = 0x00005555aaaaffffull;
#endif
	asm volatile("lidt %0" : : "m"(set) : "memory");
	asm volatile("sidt %0" : "=m"(got) : : "memory");
	load_idt();
	CHECK(got.base == set.base && got.limit == set.limit);
	asm volatile("lgdt %0" : : "m"(set) : "memory");
	asm volatile("sgdt %0" : "=m"(got) : : "memory");
	load_gdt();
	CHECK(got.base == set.base && got.limit == set.limit);
}

/* ---- LDTR, TR, machine status ---- */

CODE(store_selectors, "sldt %eax\n str %ebx\n sldt %cx\n str %dx");
CODE(store_to_memory, "sldt (" R "di)\n str 4(" R "di)\n smsw 8(" R "di)");

static void selectors_show_guests(unsigned cpl, u16 ldt)
{
	struct state s = state_at(store_selectors, cpl);
	s.ax = s.bx = s.cx = s.dx = 0x99999999;
	run(&s);
	CHECK_END(s, store_selectors);
	CHECK_EQ(s.ax, ldt);
	CHECK_EQ(s.bx, SEL_TSS);
	CHECK_EQ(s.cx, 0x99990000u | ldt);
	CHECK_EQ(s.dx, 0x99990000u | SEL_TSS);

	memset(buffer, 0xcc, sizeof(buffer));
	s = state_at(store_to_memory, cpl);
	s.di = (ulong)buffer;
	run(&s);
	CHECK_END(s, store_to_memory);
	u16 *words = (u16 *)buffer;
	CHECK(words[0] == ldt && words[1] == 0xcccc && words[2] == SEL_TSS && words[3] == 0xcccc);
	CHECK(words[4] == (read_cr0() & 0xffff) && words[5] == 0xcccc); /* always 16 bits to memory */
}

static void ldt_selector_shows(void)
{
	static u64 ldt[4];
	gdt_set_system(SEL_FREE, (ulong)ldt, sizeof(ldt) - 1, ACCESS_LDT);
	write_ldt(SEL_FREE);
	for (unsigned cpl = 0; cpl < 4; cpl++)
		selectors_show_guests(cpl, SEL_FREE);
	write_ldt(0);
	for (unsigned cpl = 0; cpl < 4; cpl++)
		selectors_show_guests(cpl, 0);
}

/* ---- PUSHF and POPF ---- */

/* POPF of a value, then PUSHF of what became of it. */
CODE(pop_push_flags, "push " R "ax\n popf\n pushf\n pop " R "bx\n pushfw\n pop %cx\n push $2\n popf");
CODE(pop_push_flags16, "push %ax\n popfw\n pushf\n pop " R "bx\n push $2\n popf");

#define FLAGS_STATUS (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF | FLAG_DF)

/* The flags that POPF leaves, by the table in its description: IOPL changes at CPL 0 only, IF where CPL <= IOPL; VM,
 * RF, VIF and VIP never (RF is cleared); the rest always. */
static ulong popf_result(ulong value, ulong before, unsigned cpl, bool wide)
{
	unsigned iopl = before >> 12 & 3;
	ulong may = FLAGS_STATUS | FLAG_NT;
	if (wide)
		may |= FLAG_AC | FLAG_ID;
	if (cpl == 0)
		may |= FLAG_IOPL(3);
	if (cpl <= iopl)
		may |= FLAG_IF;
	return (value & may) | (before & ~may) | FLAG_FIXED;
}

static void popf_at(unsigned cpl, unsigned iopl, ulong value)
{
	struct state s = state_at(pop_push_flags, cpl);
	s.flags |= FLAG_IOPL(iopl);
	ulong before = s.flags;
	s.ax = value;
	run(&s);
	CHECK_END(s, pop_push_flags);
	CHECK_EQ(s.bx, popf_result(value, before, cpl, true));
	CHECK_EQ(s.cx, popf_result(value, before, cpl, true) & 0xffff);

	s = state_at(pop_push_flags16, cpl);
	s.flags = before;
	s.ax = value;
	run(&s);
	CHECK_END(s, pop_push_flags16);
	CHECK_EQ(s.bx, popf_result(value & 0xffff, before, cpl, false));
}

static void flags_follow_the_table(void)
{
	static const ulong values[] = { 0,
					FLAGS_STATUS,
					FLAG_IF,
					FLAG_IOPL(1),
					FLAG_IOPL(2),
					FLAG_IOPL(3) | FLAG_IF,
					FLAG_NT,
					FLAG_AC,
					FLAG_ID,
					FLAG_VIF | FLAG_VIP,
					FLAG_RF,
					FLAG_VM,
					0xffffffffu & ~FLAG_TF };
	for (unsigned cpl = 0; cpl < 4; cpl++)
		for (unsigned iopl = 0; iopl < 4; iopl++)
			for (unsigned i = 0; i < ARRAY_SIZE(values); i++)
				popf_at(cpl, iopl, values[i]);
}

/* CLI and STI obey IOPL; the IF that PUSHF shows is the guest's own. */
CODE(cli_sti, "sti\n nop\n pushf\n cli\n pushf\n pop " R "cx\n pop " R "bx");

static void cli_sti_follow_iopl(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		for (unsigned iopl = 0; iopl < 4; iopl++) {
			struct state s = state_at(cli_sti, cpl);
			s.flags |= FLAG_IOPL(iopl);
			run(&s);
			if (cpl > iopl) {
				CHECK_FAULT(s, VEC_GP, 0, cli_sti);
				continue;
			}
			CHECK_END(s, cli_sti);
			CHECK((s.bx & FLAG_IF) && !(s.cx & FLAG_IF));
		}
	}
}

/* ---- UMIP ---- */

CODE(do_sldt, "sldt %eax");
CODE(do_str, "str %eax");
CODE(do_smsw, "smsw %eax");
CODE(do_sgdt, "sgdt (" R "di)");
CODE(do_sidt, "sidt (" R "di)");

static void umip_faults(void)
{
	u8 *const codes[] = { do_sldt, do_str, do_smsw, do_sgdt, do_sidt };
	write_cr4(read_cr4() | CR4_UMIP);
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
			struct state s = state_at(codes[i], cpl);
			s.di = (ulong)buffer;
			run(&s);
			if (cpl)
				CHECK_FAULT(s, VEC_GP, 0, codes[i]);
			else
				CHECK_EQ(s.vector, VECTOR_END);
		}
	}
	write_cr4(read_cr4() & ~CR4_UMIP);
}

/* ---- The privileged ones beside them fault outside CPL 0 ---- */

CODE(do_lgdt, "lgdt (" R "di)");
CODE(do_lidt, "lidt (" R "di)");
CODE(do_lldt, "lldt %ax");
CODE(do_ltr, "ltr %ax");
CODE(do_lmsw, "lmsw %ax");
CODE(do_clts, "clts");
CODE(do_hlt, "hlt");
CODE(do_invd, "invd");
CODE(do_wbinvd, "wbinvd");
CODE(do_invlpg, "invlpg (" R "di)");
CODE(do_rdmsr, "rdmsr");
CODE(do_wrmsr, "wrmsr");
CODE(do_read_cr0, "mov %cr0, " R "ax");
CODE(do_write_cr0, "mov " R "ax, %cr0");
CODE(do_read_cr3, "mov %cr3, " R "ax");
CODE(do_write_cr4, "mov " R "ax, %cr4");
CODE(do_read_dr7, "mov %dr7, " R "ax");
CODE(do_write_dr0, "mov " R "ax, %dr0");
CODE(do_in, "in $0x60, %al");
CODE(do_out, "out %al, $0x80");

static void privileged_fault(void)
{
	u8 *const codes[] = { do_lgdt,     do_lidt,      do_lldt,     do_ltr,       do_lmsw,  do_clts,     do_hlt,
			      do_invd,     do_wbinvd,    do_invlpg,   do_rdmsr,     do_wrmsr, do_read_cr0, do_write_cr0,
			      do_read_cr3, do_write_cr4, do_read_dr7, do_write_dr0, do_in,    do_out };
	for (unsigned cpl = 1; cpl < 4; cpl++) {
		for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
			struct state s = state_at(codes[i], cpl);
			s.di = (ulong)buffer;
			s.cx = MSR_TSC;
			run(&s);
			CHECK_FAULT(s, VEC_GP, 0, codes[i]);
		}
	}
}

/* TSD and PCE make time-stamp and performance counters privileged. */
CODE(do_rdtsc, "rdtsc");

static void time_stamp_disable(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = run_code(do_rdtsc, cpl);
		CHECK_END(s, do_rdtsc);
		write_cr4(read_cr4() | CR4_TSD);
		s = run_code(do_rdtsc, cpl);
		write_cr4(read_cr4() & ~CR4_TSD);
		if (cpl)
			CHECK_FAULT(s, VEC_GP, 0, do_rdtsc);
		else
			CHECK_END(s, do_rdtsc);
	}
}

void guest_main(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++)
		tables_show_guests(cpl);
	table_registers_keep_values();
	ldt_selector_shows();
	flags_follow_the_table();
	cli_sti_follow_iopl();
	privileged_fault();
	time_stamp_disable();
	if (HAS_UMIP)
		umip_faults();
}
