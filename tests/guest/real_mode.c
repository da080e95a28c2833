/* Real-address mode: interrupts through the vector table, faults without error codes, limits of 64 KiB, wrap-around of
 * the stack and of 16-bit addresses, 32-bit operands and addresses, what is privileged elsewhere and allowed here, and
 * what does not exist. Intel SDM volume 3, "8086 Emulation", "Real-Address Mode". */
#include "lib/apic.h"
#include "lib/real.h"

#define STACK_BASE (REAL_STACK_SEGMENT * 16)
#define DATA_BASE (REAL_DATA_SEGMENT * 16)

static struct real_state real_run(const void *code)
{
	struct real_state s = real_state_at(code);
	run_real(&s);
	return s;
}

static u16 stack_word(u32 sp)
{
	return *(u16 *)(STACK_BASE + (sp & 0xffff));
}

/* ---- Computing ---- */

REAL_CODE(addresses,
	  "mov $0x20, %bx\n mov $8, %si\n movw $0x1234, (%bx,%si)\n mov (0x28), %ax\n movl $0x89abcdef, 2(%bx,%si)\n"
	  "mov $0x4000, %ecx\n mov -0x3fd6(%ecx), %edx\n lea -0x30(%bx), %di\n mov $0x10000, %ebp\n"
	  "lea 0x10(%ebp,%ebp,2), %ebp");
REAL_CODE(far_pointers, "les (0), %bx\n ldsl (%si), %edx\n mov %es, %ax");
REAL_CODE(calls, "call 1f\n jmp 2f\n 1: mov %sp, %bx\n mov %ss:(%bx), %cx\n ret $4\n 2: nop");
REAL_CODE(
	stack_32,
	"push $0x7766\n pushl $0x12345678\n pop %ax\n pop %cx\n pop %dx\n push %esp\n pop %ebx\n pushw %cs\n pop %si\n"
	"pushf\n pushfl\n pop %edi\n popf");

static void computing(void)
{
	struct real_state s = real_run(addresses);
	CHECK_REAL_END(s, addresses);
	CHECK(s.ax == 0x1234 && s.dx == 0x89abcdef && (u16)s.di == 0xfff0 && s.bp == 0x30010);
	*(u16 *)DATA_BASE = 0x5678;
	*(u16 *)(DATA_BASE + 2) = 0x1357;
	*(u32 *)(DATA_BASE + 0x10) = 0xaabbccdd;
	*(u16 *)(DATA_BASE + 0x14) = 0x2468;
	s = real_state_at(far_pointers);
	s.si = 0x10;
	run_real(&s);
	CHECK_REAL_END(s, far_pointers);
	CHECK((u16)s.bx == 0x5678 && s.es == 0x1357 && s.ax == 0x1357 && s.dx == 0xaabbccdd && s.ds == 0x2468);
	s = real_run(calls);
	CHECK_REAL_END(s, calls);
	CHECK(s.cx == LOW_OFFSET(calls) + 3 && s.sp == 0xff00 + 4);
	s = real_run(stack_32);
	CHECK_REAL_END(s, stack_32);
	CHECK((u16)s.ax == 0x5678 && (u16)s.cx == 0x1234 && (u16)s.dx == 0x7766 && (u16)s.bx == 0xff00 &&
	      (u16)s.si == LOW_SEGMENT);
	CHECK_EQ(s.di, FLAG_FIXED);
}

/* ---- Interrupts and exceptions ---- */

LABEL(int3_next);
LABEL(into_next);
REAL_CODE(software, "int $0x42");
REAL_CODE(breakpoint, "int3\n int3_next:");
REAL_CODE(overflow, "into\n into_next:");
REAL_CODE(divide, "div %bl");
REAL_CODE(undefined, "ud2");
REAL_CODE(bounds, "bound %ax, (%bx)");
REAL_CODE(lldt, "lldt %ax");
REAL_CODE(str, "str %ax");
REAL_CODE(lar, "lar %ax, %bx");
REAL_CODE(arpl, "arpl %ax, %bx");
REAL_CODE(verr, "verr %ax");
REAL_CODE(sysenter, ".byte 0x0f, 0x34");
REAL_CODE(vex, ".byte 0xc5, 0xf8, 0x77"); /* LDS with a register operand here */
REAL_CODE(step, "nop\n nop");

static void exceptions(void)
{
	static const struct {
		const void *code;
		unsigned vector;
	} faults[] = { { undefined, VEC_UD }, { lldt, VEC_UD }, { str, VEC_UD }, { lar, VEC_UD },
		       { arpl, VEC_UD },      { verr, VEC_UD }, { vex, VEC_UD } };
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
		struct real_state s = real_run(faults[i].code);
		CHECK_REAL_FAULT(s, faults[i].vector, faults[i].code);
		CHECK_EQ(s.sp, 0xff00); /* no error code was pushed */
	}
	struct real_state s = real_state_at(software);
	s.flags |= FLAG_IF | FLAG_CF | FLAG_DF;
	run_real(&s);
	CHECK(s.vector == 0x42 && s.ip == LOW_OFFSET(software_end) &&
	      s.flags == (FLAG_FIXED | FLAG_IF | FLAG_CF | FLAG_DF));
	s = real_run(breakpoint);
	CHECK_REAL_FAULT(s, VEC_BP, int3_next);
	s = real_run(overflow);
	CHECK_REAL_END(s, overflow);
	s = real_state_at(overflow);
	s.flags |= FLAG_OF;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_OF, into_next);
	s = real_state_at(divide);
	s.ax = 0x1000;
	s.bx = 1;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_DE, divide); /* the instruction itself, since the 286 */
	*(u16 *)(DATA_BASE + 0x30) = 5;
	*(u16 *)(DATA_BASE + 0x32) = 10;
	s = real_state_at(bounds);
	s.ax = 11;
	s.bx = 0x30;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_BR, bounds);
	s = real_state_at(step);
	s.flags |= FLAG_TF;
	run_real(&s);
	CHECK(s.vector == VEC_DB && s.ip == LOW_OFFSET(step) + 1 && (s.flags & FLAG_TF));
	s = real_run(sysenter);
	CHECK_EQ(s.vector, VEC_GP);
}

/* ---- Limits ---- */

REAL_CODE(read_word, "mov (%bx), %ax");
REAL_CODE(read_stack, "mov (%bp), %eax");
REAL_CODE(push_word, "push %ax");
REAL_CODE(push_long, "push %eax");
REAL_CODE(read_32, "mov (%ebx), %al");
REAL_CODE(near_jump, "jmpl *%eax");
REAL_CODE(far_jump, "ljmpl *(%bx)");

static void limits(void)
{
	struct real_state s = real_state_at(push_word); /* SP wraps */
	s.sp = 0;
	s.ax = 0x4321;
	run_real(&s);
	CHECK_REAL_END(s, push_word);
	CHECK(s.sp == 0xfffe && stack_word(0xfffe) == 0x4321);
	s = real_state_at(read_word);
	s.bx = 0xfffe;
	run_real(&s);
	CHECK_REAL_END(s, read_word);
	*(u32 *)(DATA_BASE + 0x40) = LOW_OFFSET(step); /* a far jump with a 32-bit offset */
	*(u16 *)(DATA_BASE + 0x44) = LOW_SEGMENT;
	s = real_state_at(far_jump);
	s.bx = 0x40;
	run_real(&s);
	CHECK_REAL_END(s, step);
	if (on_qemu) /* TCG does not check limits */
		return;
	s = real_state_at(read_word);
	s.bx = 0xffff;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, read_word);
	s = real_state_at(read_32);
	s.bx = 0x12340000;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, read_32);
	s = real_state_at(read_stack);
	s.bp = 0xfffd;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_SS, read_stack);
	s = real_state_at(near_jump);
	s.ax = 0x10000 + LOW_OFFSET(step);
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, near_jump);
	*(u32 *)(DATA_BASE + 0x40) += 0x10000;
	s = real_state_at(far_jump);
	s.bx = 0x40;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, far_jump);
}

/* ---- Privileged elsewhere ---- */

REAL_CODE(system,
	  "smsw %ax\n mov %cr0, %ebx\n cli\n sti\n cli\n mov $0x1b, %ecx\n rdmsr\n mov %eax, %esi\n clts\n wbinvd\n"
	  "mov %dr7, %edi\n xor %eax, %eax\n cpuid\n in $0x61, %al\n push $0x7000\n popf\n pushf\n pop %dx\n push $2\n "
	  "popf");
REAL_CODE(tables, "sgdtl (%bx)\n sidtl 8(%bx)\n lidtl 8(%bx)");

static void privileged(void)
{
	struct real_state s = real_run(system);
	CHECK_REAL_END(s, system);
	CHECK_EQ(s.si, (u32)rdmsr(MSR_APIC_BASE));
	CHECK_EQ(s.di, 0x400);
	CHECK_EQ((u16)s.dx, 0x7002); /* NT and IOPL can be set */
	s = real_state_at(tables);
	s.bx = 0x80;
	run_real(&s);
	CHECK_REAL_END(s, tables);
	CHECK(*(u32 *)(DATA_BASE + 0x82) == (u32)(ulong)gdt && *(u16 *)(DATA_BASE + 0x88) == 0x3ff);
	CHECK_EQ(*(u32 *)(DATA_BASE + 0x8a), 0);
}

/* ---- Strings ---- */

REAL_CODE(string_wrap, "rep movsb");
REAL_CODE(string_32, "rep stosw %ax, %es:(%edi)");

static void strings(void)
{
	u8 *data = (u8 *)DATA_BASE;
	for (unsigned i = 0; i < 16; i++)
		data[(u16)(0xfff8 + i)] = i + 1;
	struct real_state s = real_state_at(string_wrap); /* SI passes from 0xffff to 0 */
	s.si = 0xfff8;
	s.di = 0x100;
	s.cx = 0xabcd0010;
	run_real(&s);
	CHECK_REAL_END(s, string_wrap);
	CHECK((u16)s.si == 8 && (u16)s.di == 0x110 && s.cx == 0xabcd0000 && data[0x100] == 1 && data[0x10f] == 16);
	s = real_state_at(string_32);
	s.ax = 0x5a5a;
	s.di = 0x200;
	s.cx = 8;
	run_real(&s);
	CHECK_REAL_END(s, string_32);
	CHECK(s.di == 0x210 && s.cx == 0 && data[0x20f] == 0x5a);
	if (on_qemu)
		return;
	s = real_state_at(string_32); /* with 32-bit addresses there is no wrap, but a limit */
	s.di = 0xfffc;
	s.cx = 8;
	run_real(&s);
	CHECK_REAL_FAULT(s, VEC_GP, string_32);
	CHECK(s.di == 0x10000 && s.cx == 6);
}

/* ---- An interrupt from a device, by the PICs' own vector ---- */

REAL_CODE(wait_code, "1: inc %eax\n jmp 1b");
REAL_CODE(halt_code, "hlt\n nop");

static void device_interrupt(void)
{
	const void *const codes[] = { wait_code, halt_code };
	for (unsigned i = 0; i < 2; i++) {
		pic_init(0x70, 1);
		outb(PIC_MASTER + 1, 0xfe);
		pit_start(0, 0, 20000);
		struct real_state s = real_state_at(codes[i]);
		s.flags |= FLAG_IF;
		run_real(&s);
		CHECK(s.vector == 0x70 && (s.flags & FLAG_IF));
		CHECK(i ? s.ip == LOW_OFFSET(halt_code) + 1 : s.ax != 0);
		outb(PIC_MASTER, 0x20);
	}
	pic_init(0x20, 1);
}

void guest_main(void)
{
	apic_init();
	computing();
	exceptions();
	limits();
	privileged();
	strings();
	device_interrupt();
}
