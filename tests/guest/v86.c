/* Virtual-8086 mode as a monitor sees it: what traps at which IOPL, what reaches the monitor and how, the I/O
 * permission bitmap, and the virtual-mode extensions (interrupt redirection, VIF and VIP), and PVI. Intel SDM volume 3,
 * "8086 Emulation". */
#include "lib/real.h"

#define DATA_SEGMENT 0x4000
#define STACK_SEGMENT 0x5000
#define QEMU_LIMITS "TCG does not check limits"

static u8 stack0[4096] __attribute__((aligned(16)));

/* A state in V86 mode at `code` (in .low). */
static struct state v86_at(const void *code, unsigned iopl)
{
	return (struct state){ .ip = LOW_OFFSET(code),
			       .cs = LOW_SEGMENT,
			       .ss = STACK_SEGMENT,
			       .sp = 0x8000,
			       .ds = DATA_SEGMENT,
			       .es = DATA_SEGMENT + 1,
			       .fs = DATA_SEGMENT + 2,
			       .gs = DATA_SEGMENT + 3,
			       .flags = FLAG_FIXED | FLAG_VM | FLAG_IOPL(iopl) };
}

static struct state v86_run(const void *code, unsigned iopl)
{
	struct state s = v86_at(code, iopl);
	run(&s);
	return s;
}

#define CHECK_V86_END(s, code) CHECK_FAULT(s, VECTOR_END, NO_ERROR, LOW_OFFSET(code##_end) + 2)
#define CHECK_V86_FAULT(s, vector, error, at) CHECK_FAULT(s, vector, error, LOW_OFFSET(at))

static u16 *stack_word(unsigned offset)
{
	return (u16 *)(STACK_SEGMENT * 16 + offset);
}

/* ---- Ordinary code ---- */

REAL_CODE(ordinary,
	  "mov %cs, %ax\n mov $0x1234, %bx\n mov %bx, %ds\n mov %ds, %cx\n mov $7, %si\n movl $0x89abcdef, (%si)\n"
	  "mov $0x12350, %edx\n subl $0x12349, %edx");

static void ordinary_code(void)
{
	struct state s = v86_run(ordinary, 3);
	CHECK_V86_END(s, ordinary);
	CHECK(s.ax == LOW_SEGMENT && s.cx == 0x1234 && s.ds == 0x1234 && s.es == DATA_SEGMENT + 1 && s.dx == 7);
	CHECK(s.cs == LOW_SEGMENT && s.ss == STACK_SEGMENT && s.sp == 0x8000 && (s.flags & FLAG_VM));
	CHECK_EQ(*(u32 *)(0x12340 + 7), 0x89abcdef);
}

/* ---- The frame that the monitor gets ---- */

CODE(monitor, "nop");
REAL_CODE(interrupt, "int $0x50");

static void frame_for_monitor(void)
{
	static const enum gate_type types[] = { GATE_INT, GATE_TRAP };
	for (unsigned i = 0; i < 2; i++) {
		idt_set(0x50, SEL_CODE32, (ulong)monitor, types[i], 3, 0);
		struct state s = v86_at(interrupt, 3);
		s.flags |= FLAG_CF | FLAG_IF | FLAG_NT;
		run_stack0 = (ulong)stack0 + sizeof(stack0);
		run(&s);
		run_stack0 = 0;
		CHECK_END(s, monitor);
		const u32 *frame = (u32 *)s.sp;
		CHECK_EQ(s.sp, (ulong)stack0 + sizeof(stack0) - 36);
		CHECK(frame[0] == LOW_OFFSET(interrupt_end) && (u16)frame[1] == LOW_SEGMENT);
		CHECK_EQ(frame[2], FLAG_FIXED | FLAG_VM | FLAG_IOPL(3) | FLAG_CF | FLAG_IF | FLAG_NT);
		CHECK(frame[3] == 0x8000 && (u16)frame[4] == STACK_SEGMENT && (u16)frame[5] == DATA_SEGMENT + 1);
		CHECK((u16)frame[6] == DATA_SEGMENT && (u16)frame[7] == DATA_SEGMENT + 2 &&
		      (u16)frame[8] == DATA_SEGMENT + 3);
		CHECK(!s.ds && !s.es && !s.fs && !s.gs); /* the monitor starts with null data segments */
		CHECK(s.cs == SEL_CODE32 && s.ss == SEL_DATA);
		CHECK_EQ(s.flags, FLAG_FIXED | FLAG_IOPL(3) | FLAG_CF | (i ? FLAG_IF : 0));
		idt_restore(0x50);
	}
	/* The handler must be at CPL 0, and not conforming. */
	idt_set(0x50, SEL_RING1_CODE32, (ulong)monitor, GATE_INT, 3, 0);
	struct state s = v86_run(interrupt, 3);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, SEL_RING1_CODE32, LOW_OFFSET(interrupt), "TCG looks at the stack first");
	gdt_set(SEL_FREE, descriptor(0, 0xfffff, 0x9f, DESC_G | DESC_DB));
	idt_set(0x50, SEL_FREE, (ulong)monitor, GATE_INT, 3, 0);
	s = v86_run(interrupt, 3);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, SEL_FREE, LOW_OFFSET(interrupt), "TCG goes to a conforming handler");
	idt_set(0x50, SEL_CODE32, (ulong)monitor, GATE_INT, 2, 0);
	s = v86_run(interrupt, 3);
	CHECK_V86_FAULT(s, VEC_GP, 0x50 * 8 + 2, interrupt);
	idt_restore(0x50);
}

/* ---- What traps ---- */

REAL_CODE(do_cli, "cli");
REAL_CODE(do_sti, "sti");
REAL_CODE(do_pushf, "pushfw\n pop %ax");
REAL_CODE(do_popf, "pushw $0x0003\n popfw");
REAL_CODE(do_pushfd, "pushfl\n pop %eax");
REAL_CODE(do_popfd, ".byte 0x66, 0x9d");
REAL_CODE(do_int, "int $0x81");
REAL_CODE(do_iret, "iretw");
REAL_CODE(do_int3, "int3");
REAL_CODE(do_hlt, "hlt");
REAL_CODE(do_lgdt, "lgdt (0)");
REAL_CODE(do_mov_cr0, "mov %cr0, %eax");
REAL_CODE(do_mov_dr7, "mov %dr7, %eax");
REAL_CODE(do_clts, "clts");
REAL_CODE(do_lmsw, "lmsw %ax");
REAL_CODE(do_rdmsr, "rdmsr");
REAL_CODE(do_sldt, "sldt %ax");
REAL_CODE(do_str, "str %ax");
REAL_CODE(do_lldt, "lldt %ax");
REAL_CODE(do_ltr, "ltr %ax");
REAL_CODE(do_lar, "lar %ax, %bx");
REAL_CODE(do_lsl, "lsl %ax, %bx");
REAL_CODE(do_verr, "verr %ax");
REAL_CODE(do_arpl, "arpl %ax, %bx");
REAL_CODE(do_sysexit, ".byte 0x0f, 0x35");
REAL_CODE(do_smsw, "smsw %ax");
REAL_CODE(do_sgdt, "sgdt (0)");

static void what_traps(void)
{
	u8 *const by_iopl[] = { do_cli, do_sti, do_pushf, do_int, do_iret, do_pushfd, do_popfd };
	u8 *const privileged[] = { do_hlt, do_lgdt, do_mov_cr0, do_mov_dr7, do_clts, do_lmsw, do_rdmsr, do_sysexit };
	u8 *const undefined[] = { do_sldt, do_str, do_lldt, do_ltr, do_lar, do_lsl, do_verr, do_arpl };
	for (unsigned iopl = 0; iopl < 4; iopl++) {
		for (unsigned i = 0; iopl < 3 && i < ARRAY_SIZE(by_iopl); i++) {
			struct state s = v86_run(by_iopl[i], iopl);
			CHECK_V86_FAULT(s, VEC_GP, 0, by_iopl[i]);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(privileged); i++) {
			struct state s = v86_run(privileged[i], iopl);
			CHECK_V86_FAULT(s, VEC_GP, 0, privileged[i]);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(undefined); i++) {
			struct state s = v86_run(undefined[i], iopl);
			CHECK_V86_FAULT(s, VEC_UD, NO_ERROR, undefined[i]);
		}
		struct state s = v86_run(do_int3, iopl); /* not sensitive to IOPL */
		CHECK_FAULT(s, VEC_BP, NO_ERROR, LOW_OFFSET(do_int3_end));
	}
	struct state s = v86_run(do_smsw, 3);
	CHECK_V86_END(s, do_smsw);
	CHECK_EQ(s.ax, read_cr0() & 0xffff);
	s = v86_run(do_sgdt, 3);
	CHECK_V86_END(s, do_sgdt);
	CHECK_EQ(*(u32 *)(DATA_SEGMENT * 16 + 2), (ulong)gdt);
}

/* ---- Flags at IOPL 3 ---- */

REAL_CODE(flags_code,
	  "sti\n pushfw\n pop %ax\n cli\n pushfl\n pop %ebx\n pushl $0x237ed7\n .byte 0x66, 0x9d\n pushfl\n pop %ecx\n"
	  "pushw $0x0002\n popfw\n pushfw\n pop %dx");

static void flags_at_iopl3(void)
{
	struct state s = v86_run(flags_code, 3);
	CHECK_V86_END(s, flags_code);
	CHECK_EQ(s.ax, FLAG_FIXED | FLAG_IOPL(3) | FLAG_IF);
	CHECK_EQ(s.bx, FLAG_FIXED | FLAG_IOPL(3)); /* neither VM nor RF show */
	CHECK_EQ(s.cx, (0x237ed7 & ~(FLAG_VM | FLAG_RF)) | FLAG_IOPL(3));
	CHECK_EQ(s.dx, FLAG_FIXED | FLAG_IOPL(3));
}

REAL_CODE(iret_code, "iretw");
REAL_CODE(iret_lands, "nop");

static void iret_at_iopl3(void)
{
	struct state s = v86_at(iret_code, 3);
	*stack_word(0x8000) = LOW_OFFSET(iret_lands);
	*stack_word(0x8002) = LOW_SEGMENT;
	*stack_word(0x8004) = FLAG_CF | FLAG_IF; /* IOPL 0 in the image: not loaded */
	run(&s);
	CHECK_V86_END(s, iret_lands);
	CHECK_EQ(s.flags, FLAG_FIXED | FLAG_VM | FLAG_IOPL(3) | FLAG_CF | FLAG_IF);
	CHECK_EQ(s.sp, 0x8006);
}

/* ---- Segments have 64 KiB ---- */

REAL_CODE(read_end, "mov (%bx), %eax");
REAL_CODE(read_wide, "mov (%ebx), %al");
REAL_CODE(push_at_0, "push %ax");

static void limits(void)
{
	struct state s = v86_at(read_end, 3);
	s.bx = 0xfffd;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, LOW_OFFSET(read_end), QEMU_LIMITS);
	s = v86_at(read_end, 3);
	s.bx = 0xfffc;
	run(&s);
	CHECK_V86_END(s, read_end);
	s = v86_at(read_wide, 3);
	s.bx = 0x10000;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, LOW_OFFSET(read_wide), QEMU_LIMITS);
	s = v86_at(push_at_0, 3); /* SP wraps from 0 to 0xfffe */
	s.sp = 0;
	s.ax = 0x7788;
	run(&s);
	CHECK_V86_END(s, push_at_0);
	CHECK(s.sp == 0xfffe && *stack_word(0xfffe) == 0x7788);
	s = v86_at(push_at_0, 3);
	s.sp = 1; /* the word would lie at 0xffff and 0x10000 */
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, 0, LOW_OFFSET(push_at_0), QEMU_LIMITS);
}

/* ---- The I/O permission bitmap rules at every IOPL ---- */

REAL_CODE(in_byte, "in %dx, %al");
REAL_CODE(in_word, "in %dx, %ax");
REAL_CODE(in_long, "in %dx, %eax");

static void permit(unsigned port, bool allowed)
{
	if (allowed)
		tss.io_bitmap[port / 8] &= ~(1u << port % 8);
	else
		tss.io_bitmap[port / 8] |= 1u << port % 8;
}

static void io_bitmap(void)
{
	u8 *const codes[] = { in_byte, in_word, in_long };
	memset(tss.io_bitmap, 0xff, sizeof(tss.io_bitmap));
	for (unsigned port = 0x2f6; port < 0x2fc; port++) /* ports without a device, across a byte of the bitmap */
		permit(port, true);
	for (unsigned iopl = 0; iopl < 4; iopl += 3) {
		for (unsigned i = 0; i < 3; i++) {
			for (unsigned port = 0x2f3; port < 0x2fe; port++) {
				struct state s = v86_at(codes[i], iopl);
				s.dx = port;
				run(&s);
				bool allowed = port >= 0x2f6 && port + (1u << i) <= 0x2fc;
				if (!allowed)
					CHECK_V86_FAULT(s, VEC_GP, 0, codes[i]);
				else
					CHECK(s.ip != LOW_OFFSET(codes[i]));
			}
		}
	}
	memset(tss.io_bitmap, 0xff, sizeof(tss.io_bitmap));
}

/* ---- VME ---- */

REAL_CODE(vme_int, "int $0x21");
REAL_CODE(vme_handler, "nop");
REAL_CODE(vme_flags, "pushfw\n pop %ax\n sti\n pushfw\n pop %bx\n cli\n pushfw\n pop %cx");
REAL_CODE(vme_popf, "push %ax\n popfw\n pushfw\n pop %bx");
REAL_CODE(vme_iret, "iretw");

static struct state vme_run(const void *code, unsigned iopl, ulong flags, u16 ax)
{
	struct state s = v86_at(code, iopl);
	s.flags |= flags;
	s.ax = ax;
	run(&s);
	return s;
}

/* INT n with its bit clear goes through the table at 0, as on an 8086. */
static void vme_redirection(void)
{
	tss.redirection[0x21 / 8] &= ~(1u << 0x21 % 8);
	ivt_write(0x21, LOW_SEGMENT, LOW_OFFSET(vme_handler));
	struct state s = vme_run(vme_int, 3, FLAG_IF | FLAG_CF, 0);
	CHECK_V86_END(s, vme_handler);
	CHECK_EQ(s.sp, 0x8000 - 6);
	CHECK(*stack_word(0x7ffa) == LOW_OFFSET(vme_int_end) && *stack_word(0x7ffc) == LOW_SEGMENT);
	CHECK_EQ(*stack_word(0x7ffe), FLAG_FIXED | FLAG_CF | FLAG_IF | FLAG_IOPL(3));
	CHECK_EQ(s.flags, FLAG_FIXED | FLAG_VM | FLAG_CF | FLAG_IOPL(3)); /* IF cleared */
	tss.redirection[0x21 / 8] |= 1u << 0x21 % 8;
	s = vme_run(vme_int, 3, 0, 0);
	CHECK_V86_FAULT(s, VEC_GP, 0x21 * 8 + 2, vme_int); /* through the IDT: the gate's DPL is 0 */
	for (unsigned iopl = 0; iopl < 3; iopl++) {
		s = vme_run(vme_int, iopl, 0, 0);
		CHECK_V86_FAULT(s, VEC_GP, 0, vme_int);
		tss.redirection[0x21 / 8] &= ~(1u << 0x21 % 8);
		s = vme_run(vme_int, iopl, FLAG_VIF | FLAG_IF, 0);
		tss.redirection[0x21 / 8] |= 1u << 0x21 % 8;
		CHECK_EQ(s.sp & 0xffff, 0x8000 - 6);
		CHECK_EQ(*stack_word(0x7ffe),
			 FLAG_FIXED | FLAG_IF | FLAG_IOPL(3)); /* the image shows VIF as IF, and IOPL 3 */
		CHECK(!(s.flags & FLAG_VIF) && (s.flags & FLAG_IF));
	}
}

static void vme_virtual_flag(void)
{
	for (unsigned iopl = 0; iopl < 3; iopl++) {
		struct state s = vme_run(vme_flags, iopl, FLAG_IF, 0);
		CHECK_EQ(s.vector, VEC_GP); /* the INT at its end */
		CHECK_EQ(s.ip, LOW_OFFSET(vme_flags_end));
		CHECK_EQ(s.ax, FLAG_FIXED | FLAG_IOPL(3));
		CHECK_EQ(s.bx, FLAG_FIXED | FLAG_IOPL(3) | FLAG_IF);
		CHECK_EQ(s.cx, FLAG_FIXED | FLAG_IOPL(3));
		CHECK((s.flags & FLAG_IF) && !(s.flags & FLAG_VIF));
		s = vme_run(do_sti, iopl, FLAG_VIP, 0);
		CHECK_V86_FAULT(s, VEC_GP, 0, do_sti);
		s = vme_run(vme_popf, iopl, 0, FLAG_IF | FLAG_CF);
		CHECK_EQ(s.ip, LOW_OFFSET(vme_popf_end));
		CHECK((s.flags & FLAG_VIF) && !(s.flags & FLAG_IF) && (s.flags & FLAG_CF));
		CHECK_EQ(s.flags & FLAG_IOPL(3), FLAG_IOPL(iopl));
		s = vme_run(vme_popf, iopl, FLAG_VIP, FLAG_IF);
		CHECK_FAULT(s, VEC_GP, 0, LOW_OFFSET(vme_popf) + 1);
		s = vme_run(vme_popf, iopl, 0, FLAG_TF);
		CHECK_FAULT(s, VEC_GP, 0, LOW_OFFSET(vme_popf) + 1);
		s = v86_run(do_pushfd, iopl);
		CHECK_V86_FAULT(s, VEC_GP, 0, do_pushfd);
		s = v86_at(vme_iret, iopl);
		*stack_word(0x8000) = LOW_OFFSET(iret_lands);
		*stack_word(0x8002) = LOW_SEGMENT;
		*stack_word(0x8004) = FLAG_CF | FLAG_IF;
		run(&s);
		CHECK_EQ(s.ip, LOW_OFFSET(iret_lands_end));
		CHECK((s.flags & FLAG_VIF) && !(s.flags & FLAG_IF) && (s.flags & FLAG_CF));
	}
	/* At IOPL 3 everything is as without VME. */
	struct state s = v86_run(flags_code, 3);
	CHECK_V86_END(s, flags_code);
	CHECK_EQ(s.ax, FLAG_FIXED | FLAG_IOPL(3) | FLAG_IF);
}

/* PVI: CLI and STI of protected-mode code at CPL 3 with IOPL below 3. */
CODE(pvi_code, "sti\n pushf\n cli\n pushf\n pop %ebx\n pop %eax");
CODE(pvi_sti, "sti");

static void protected_virtual_interrupts(void)
{
	write_cr4((read_cr4() & ~CR4_VME) | CR4_PVI);
	struct state s = state_at(pvi_code, 3);
	s.flags |= FLAG_IF;
	run(&s);
	CHECK_END(s, pvi_code);
	CHECK_EQ(s.ax, FLAG_FIXED | FLAG_IF | FLAG_VIF);
	CHECK_EQ(s.bx, FLAG_FIXED | FLAG_IF);
	s = state_at(pvi_sti, 3);
	s.flags |= FLAG_VIP;
	run(&s);
	CHECK_FAULT(s, VEC_GP, 0, pvi_sti);
	s = run_code(pvi_sti, 2);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, pvi_sti, "TCG does not look at CPL");
	write_cr4(read_cr4() & ~CR4_PVI);
}

void guest_main(void)
{
	memset(tss.redirection, 0xff, sizeof(tss.redirection));
	ordinary_code();
	frame_for_monitor();
	what_traps();
	flags_at_iopl3();
	iret_at_iopl3();
	limits();
	io_bitmap();
	if (!HAS_VME)
		return;
	write_cr4(read_cr4() | CR4_VME);
	vme_redirection();
	vme_virtual_flag();
	protected_virtual_interrupts();
}
