/* MISSION B7: the hidden part of a segment register stays what it was when loaded, though the table in memory has
 * changed since, and into real mode. Intel SDM volume 3, "Segment Registers", "Switching to Real-Address Mode". */
#include "lib/guest.h"
#ifndef __x86_64__
#include "lib/real.h"
#endif

#define TEST_SELECTOR SEL_FREE
#define LDT_SELECTOR (SEL_FREE + 0x10)

static u32 first[4] = { 0x11111111, 0x11111112 }, second[4] = { 0x22222222, 0x22222223 };

static u64 data_at(const void *base)
{
	return descriptor((u32)(ulong)base, 0xfffff, ACCESS_DATA | ACCESS_DPL(3), DESC_G | DESC_DB);
}

static void write_fs(u16 selector)
{
	asm volatile("mov %0, %%fs" : : "r"((u32)selector) : "memory");
}

static u32 read_by_fs(u32 offset)
{
	u32 value;
	asm volatile("movl %%fs:(%1), %0" : "=r"(value) : "r"((ulong)offset) : "memory");
	return value;
}

/* ---- Descriptors changed or taken away behind a loaded register ---- */

static void changed_descriptor(void)
{
	gdt_set(TEST_SELECTOR, data_at(first));
	write_fs(TEST_SELECTOR);
	CHECK_EQ(read_by_fs(0), 0x11111111);
	gdt_set(TEST_SELECTOR, data_at(second));
	CHECK_EQ(read_by_fs(0), 0x11111111); /* not yet */
	gdt_set(TEST_SELECTOR, 0);
	CHECK_EQ(read_by_fs(4), 0x11111112); /* not even when the descriptor is gone */
	gdt_set(TEST_SELECTOR, data_at(second));
	write_fs(TEST_SELECTOR);
	CHECK_EQ(read_by_fs(0), 0x22222222);
	write_fs(0);
}

static void another_gdt(void)
{
	static u64 other[GDT_ENTRIES];
	struct table_register r = { sizeof(other) - 1, (ulong)other };
	gdt_set(TEST_SELECTOR, data_at(first));
	write_fs(TEST_SELECTOR);
	memcpy(other, gdt, sizeof(other));
	other[TEST_SELECTOR / 8] = data_at(second);
	asm volatile("lgdt %0" : : "m"(r) : "memory");
	CHECK_EQ(read_by_fs(0), 0x11111111);
	write_fs(TEST_SELECTOR);
	CHECK_EQ(read_by_fs(0), 0x22222222);
	load_gdt();
	CHECK_EQ(read_by_fs(0), 0x22222222);
	write_fs(0);
}

static void another_ldt(void)
{
	static u64 ldt1[4], ldt2[4];
	ldt1[1] = data_at(first);
	ldt2[1] = data_at(second);
	gdt_set_system(LDT_SELECTOR, (ulong)ldt1, sizeof(ldt1) - 1, ACCESS_LDT);
	write_ldt(LDT_SELECTOR);
	write_fs(0xc);
	CHECK_EQ(read_by_fs(0), 0x11111111);
	gdt_set_system(LDT_SELECTOR, (ulong)ldt2, sizeof(ldt2) - 1, ACCESS_LDT);
	write_fs(0xc); /* the LDT register itself has a hidden part */
	CHECK_EQ(read_by_fs(0), 0x11111111);
	write_ldt(LDT_SELECTOR);
	CHECK_EQ(read_by_fs(0), 0x11111111);
	write_fs(0xc);
	CHECK_EQ(read_by_fs(0), 0x22222222);
	write_ldt(0);
	CHECK_EQ(read_by_fs(4), 0x22222223);
	write_fs(0);
}

/* The task register: the TSS moved in the table, but entries to CPL 0 still use the old one. */
CODE(user_interrupt, "nop");

static void changed_tss(void)
{
	gdt_set_system(SEL_TSS, 0xdead0000, 0xffff, ACCESS_TSS | 2);
	struct state s = run_code(user_interrupt, 3);
	CHECK_END(s, user_interrupt);
	descriptors_init();
}

/* CS and SS: code goes on under a descriptor that is gone; a fault in it comes and goes without a look at CS's
 * descriptor. */
CODE(long_code, "mov $100000, %ecx\n 1: dec %ecx\n jnz 1b\n mov $0x77, %eax");

static void changed_code_segment(void)
{
	struct state s = state_at(long_code, 3);
	gdt_set(TEST_SELECTOR, gdt[(selector_code(3) & ~7u) / 8]);
	s.cs = TEST_SELECTOR | 3;
	run(&s);
	CHECK_END(s, long_code);
	CHECK(s.ax == 0x77 && s.cs == (TEST_SELECTOR | 3));
}

#ifdef __x86_64__

/* ---- 64-bit: FS and GS bases come from the descriptor or the MSR, whichever was last ---- */

static void bases_and_selectors(void)
{
	gdt_set(TEST_SELECTOR, data_at(first));
	write_fs(TEST_SELECTOR);
	CHECK_EQ(rdmsr(MSR_FS_BASE), (ulong)first);
	wrmsr(MSR_FS_BASE, (ulong)second);
	CHECK_EQ(read_by_fs(0), 0x22222222);
	u16 selector;
	asm volatile("mov %%fs, %0" : "=m"(selector));
	CHECK_EQ(selector, TEST_SELECTOR);
	write_fs(TEST_SELECTOR);
	CHECK_EQ(rdmsr(MSR_FS_BASE), (ulong)first);
	write_fs(0);
	if (!is_amd) /* a null selector clears the base; AMD before Zen 4 keeps it */
		CHECK_EQ(rdmsr(MSR_FS_BASE), 0);
	wrmsr(MSR_FS_BASE, 0);
}

/* DS, ES and SS have bases in compatibility mode only. */
CODE32(read_ds_base, "mov (%ebx), %eax\n mov %fs:(%ebx), %ecx");

static void compatibility_bases(void)
{
	gdt_set(TEST_SELECTOR, data_at(first));
	struct state s = state_at(read_ds_base, 3);
	s.cs = selector_code32(3);
	s.ds = s.fs = TEST_SELECTOR | 3;
	s.bx = 4;
	run(&s);
	CHECK_END(s, read_ds_base);
	CHECK(s.ax == 0x11111112 && s.cx == 0x11111112);
	write_fs(0);
}

static void width_specific(void)
{
	bases_and_selectors();
	compatibility_bases();
}

#else

/* ---- Real mode: limits and bases survive the switch; selectors loaded there change the base alone ---- */

/* Enters protected mode in real mode's code, loads FS and GS with what descriptors say, and leaves again: "unreal"
 * mode. GDTR is the protected-mode one; the vectors stay real mode's. BX: the offset to read; results in ECX, EDX, ESI.
 */
REAL_CODE(unreal, "mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
		  "mov $" STRINGIFY(SEL_FREE) ", %bp\n mov %bp, %fs\n mov %bp, %gs\n"
					      "and $0xfe, %al\n mov %eax, %cr0\n"
					      "mov %fs:(%ebx), %ecx\n" /* base and limit of the descriptor */
					      "mov $0x4000, %bp\n mov %bp, %gs\n"
					      "mov %gs:(%edi), %edx\n" /* base of the selector, limit still 4 GiB */
					      "mov %cs, %bp");

static void unreal_mode(void)
{
	static u32 far_data[2] = { 0xfeedf00d };
	gdt_set(TEST_SELECTOR, descriptor(0x1000, 0xfffff, ACCESS_DATA, DESC_G | DESC_DB));
	struct real_state s = real_state_at(unreal);
	s.bx = (ulong)far_data - 0x1000;
	s.di = (ulong)far_data - 0x40000;
	run_real(&s);
	CHECK_REAL_END(s, unreal);
	CHECK_EQ(s.cx, 0xfeedf00d);
	CHECK_EQ(s.dx, 0xfeedf00d);
	CHECK(s.fs == TEST_SELECTOR && s.gs == 0x4000 && s.bp == LOW_SEGMENT);
}

/* Without that, 64 KiB is the limit in real mode: #GP (vector 13), #SS for the stack, no error code. */
REAL_CODE(real_read, "mov (%ebx), %al");
REAL_CODE(real_read_word, "mov (%bx), %ax");
REAL_CODE(real_jump, "jmpl *%eax");

static void real_limits(void)
{
	struct real_state s = real_state_at(real_read);
	s.bx = 0xffff;
	run_real(&s);
	CHECK_REAL_END(s, real_read);
	if (on_qemu) /* TCG does not check limits */
		return;
	s = real_state_at(real_read);
	s.bx = 0x10000;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, real_read);
	s = real_state_at(real_read_word);
	s.bx = 0xffff;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, real_read_word);
	s = real_state_at(real_jump);
	s.ax = 0x10000;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, real_jump);
}

/* Real-mode segments may wrap past 1 MiB: with A20 open, FFFF:0010 is at 0x100000. */
REAL_CODE(read_high, "mov $0xffff, %ax\n mov %ax, %ds\n mov $0x10, %bx\n mov (%bx), %ecx");

static void above_1_mib(void)
{
	struct real_state s = real_state_at(read_high);
	run_real(&s);
	CHECK_REAL_END(s, read_high);
	CHECK_EQ(s.cx, *(u32 *)0x100000);
}

/* Interrupts in real mode use IDTR: a table elsewhere, whose entry 0x21 leads to a handler here, the rest to the usual
 * stubs. */
REAL_CODE(real_int, "lidtl (%bx)\n int $0x21");
REAL_CODE(real_handler, "nop");

static void real_mode_idtr(void)
{
	static struct __attribute__((packed)) {
		u16 limit;
		u32 base;
	} idtr = { 0x3ff, 0x60000 };
	u32 *table = (u32 *)0x60000;
	for (unsigned i = 0; i < 256; i++)
		table[i] = (u32)LOW_SEGMENT << 16 | (LOW_OFFSET(real_stubs) + 8 * i);
	table[0x21] = (u32)LOW_SEGMENT << 16 | LOW_OFFSET(real_handler);
	memcpy((void *)(REAL_DATA_SEGMENT * 16), &idtr, sizeof(idtr));
	struct real_state s = real_state_at(real_int);
	s.flags |= FLAG_CF | FLAG_IF;
	run_real(&s);
	CHECK_REAL_END(s, real_handler);
	CHECK(s.sp == 0xff00 - 6 && !(s.flags & FLAG_IF) && (s.flags & FLAG_CF));
	const u16 *frame = (u16 *)(REAL_STACK_SEGMENT * 16 + s.sp);
	CHECK(frame[0] == LOW_OFFSET(real_int_end) && frame[1] == LOW_SEGMENT &&
	      frame[2] == (FLAG_FIXED | FLAG_CF | FLAG_IF));
	idtr.limit = 0x21 * 4 + 2; /* the vector is beyond the table: #GP, which is inside */
	memcpy((void *)(REAL_DATA_SEGMENT * 16), &idtr, sizeof(idtr));
	s = real_state_at(real_int);
	run_real(&s);
	CHECK_EQ(s.vector, VEC_GP);
}

static void width_specific(void)
{
	unreal_mode();
	real_limits();
	above_1_mib();
	real_mode_idtr();
}

#endif

void guest_main(void)
{
	changed_descriptor();
	another_gdt();
	another_ldt();
	changed_tss();
	changed_code_segment();
	width_specific();
}
