/* Interrupt and trap gates of every kind: where they lead, what they push, which flags they clear, and every check on
 * the way with its error code. Intel SDM volume 2, INT n; volume 3, "Interrupt and Exception Handling", "64-Bit Mode
 * Stack Frame". */
#include "lib/guest.h"

#define VECTOR 0x50
#define TEST_SELECTOR SEL_FREE
#define QEMU_IDT "TCG's error code of IDT entries in long mode is vector * 16 + 2"
#define QEMU_EXT "TCG does not set EXT in error codes during the delivery of an exception"

CODE(software_interrupt, "int $0x50");
CODE(landing, "nop"); /* where gates lead to */
CODE(undefined, "ud2");
CODE(privileged, "int $0x60");

/* The IDT's own restored stub is DPL 0; tests make what they need. */
static u8 inner_stack[3][4096] __attribute__((aligned(64)));

static ulong stack_of(unsigned cpl)
{
	return (ulong)inner_stack[cpl] + sizeof(inner_stack[cpl]) - 64;
}

#define FLAGS_TRIED (FLAG_IF | FLAG_NT | FLAG_CF | FLAG_DF | FLAG_IOPL(2) | FLAG_AC | FLAG_ID)

/* The flags inside the handler: TF, NT, RF, VM cleared by every gate, IF by interrupt gates. */
static ulong handler_flags(ulong flags, bool trap_gate)
{
	return flags & ~(FLAG_NT | FLAG_TF | FLAG_RF | FLAG_VM | (trap_gate ? 0 : FLAG_IF));
}

static struct state interrupt(const void *code, unsigned cpl, ulong flags)
{
	struct state s = state_at(code, cpl);
	s.flags = flags | FLAG_FIXED;
	run_stack0 = stack_of(0);
	run(&s);
	run_stack0 = 0;
	return s;
}

static void inner_stacks_init(void)
{
	for (unsigned cpl = 1; cpl < 3; cpl++) {
#ifdef __x86_64__
		tss.rsp[cpl] = stack_of(cpl);
#else
		tss.t.stack[cpl].sp = stack_of(cpl);
		tss.t.stack[cpl].ss = selector_data(cpl);
#endif
	}
}

/* ---- Delivery from every CPL to every inner one ---- */

#ifdef __x86_64__
static const enum gate_type types[] = { GATE_INT, GATE_TRAP };
#else
static const enum gate_type types[] = { GATE_INT, GATE_TRAP, GATE_INT16, GATE_TRAP16 };
#endif

static u64 frame_word(const struct state *s, unsigned n, unsigned size)
{
	u64 value = 0;
	memcpy(&value, (u8 *)s->sp + n * size, size);
	return value;
}

static void deliver(enum gate_type type, unsigned from, unsigned to, bool error_code)
{
	bool trap = type & 1;
	unsigned size = type < 8 ? 2 : sizeof(long);
	ulong flags = FLAGS_TRIED | FLAG_FIXED, mask = size == 2 ? 0xffff : -1ul;
	unsigned vector = error_code ? VEC_GP : VECTOR;
	idt_set(vector, selector_code(to), (ulong)landing & mask, type, 3, 0);
	if (size == 2) { /* the offset of a 16-bit gate is 16 bits wide: reach the landing by a base */
		gdt_set(TEST_SELECTOR,
			descriptor((ulong)landing & ~mask, 0xfffff, ACCESS_CODE | ACCESS_DPL(to), DESC_G | DESC_DB));
		idt[vector].low = (idt[vector].low & ~0xffff0000ull) | (u64)(TEST_SELECTOR | to) << 16;
	}
	idt_set(0x60, SEL_CODE32, 0, GATE_INT, 0, 0);
	const void *code = error_code ? privileged : software_interrupt; /* #GP(0x60 * 8 + 2), or INT */
	struct state s = interrupt(code, from, flags);
	idt_restore(vector);
	idt_restore(0x60);

	bool framed = s.vector == VECTOR_END && (s.ip & mask) == (((ulong)landing_end + 2) & mask);
	CHECK(framed);
	if (!framed) {
		print("    gate type %u from CPL %u to %u\n", type, from, to);
		state_print(&s);
		return;
	}
	CHECK_EQ(s.cs & 3, to);
	CHECK_EQ(s.flags, handler_flags(flags, trap));
	unsigned n = 0;
	if (error_code)
		CHECK_BUT_QEMU(frame_word(&s, n++, size) == 0x60 * 8 + 2, QEMU_IDT);
	CHECK_EQ(frame_word(&s, n++, size), ((ulong)code + (error_code ? 0 : 2)) & mask);
	CHECK_EQ(frame_word(&s, n++, size) & 0xffff, selector_code(from));
	u64 saved = frame_word(&s, n++, size) & ~(u64)FLAG_RF;
	CHECK_EQ(saved, flags & mask);
	ulong top = (ulong)test_stack_top - 256;
	if (from != to || sizeof(long) == 8) {
		CHECK_EQ(frame_word(&s, n++, size), top & mask);
		CHECK_EQ(frame_word(&s, n++, size) & 0xffff, selector_data(from));
	}
	if (from != to)
		CHECK_EQ(s.ss, sizeof(long) == 8 ? to : selector_data(to));
	else
		CHECK_EQ(s.ss, selector_data(from));
	CHECK_EQ(s.sp + n * size, from != to ? stack_of(to) : top);
}

static void deliver_everywhere(void)
{
	inner_stacks_init();
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		for (unsigned from = 0; from < 4; from++) {
			for (unsigned to = 0; to <= from; to++) {
				deliver(types[i], from, to, false);
				if (from && to == 0)
					deliver(types[i], from, to, true);
			}
		}
	}
}

/* A conforming handler runs at the caller's CPL and stack. */
static void conforming_handler(void)
{
	unsigned flags = sizeof(long) == 8 ? DESC_L : DESC_DB;
	gdt_set(TEST_SELECTOR, descriptor(0, 0xfffff, 0x9f, DESC_G | flags));
	idt_set(VECTOR, TEST_SELECTOR, (ulong)landing, GATE_INT, 3, 0);
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = interrupt(software_interrupt, cpl, 0);
		CHECK_END(s, landing);
		CHECK_EQ(s.cs, TEST_SELECTOR | cpl);
		CHECK_EQ(s.ss, selector_data(cpl));
	}
	idt_restore(VECTOR);
}

/* ---- Checks ---- */

struct gate_fault {
	const char *what;
	u64 target; /* descriptor put at TEST_SELECTOR */
	unsigned selector;
	unsigned cpl, gate_dpl;
	bool absent;
	unsigned vector;
	ulong error;
	const char *qemu;
};

#define CODE_ACCESS(dpl, access) ((u64)((access) | ACCESS_DPL(dpl)) << 40 | 0xffff | 0xfull << 48 | NATIVE_FLAGS << 52)
#ifdef __x86_64__
#define NATIVE_FLAGS (u64)(DESC_G | DESC_L)
#else
#define NATIVE_FLAGS (u64)(DESC_G | DESC_DB)
#endif

static const struct gate_fault faults[] = {
	{ "gate DPL below CPL", CODE_ACCESS(0, 0x9b), TEST_SELECTOR, 3, 2, false, VEC_GP, VECTOR * 8 + 2, QEMU_IDT },
	{ "gate absent", CODE_ACCESS(0, 0x9b), TEST_SELECTOR, 3, 3, true, VEC_NP, VECTOR * 8 + 2, QEMU_IDT },
	{ "privilege before presence", CODE_ACCESS(0, 0x9b), TEST_SELECTOR, 3, 0, true, VEC_GP, VECTOR * 8 + 2,
	  QEMU_IDT },
	{ "null code selector", 0, 0, 3, 3, false, VEC_GP, 0, NULL },
	{ "selector beyond the GDT", 0, sizeof(gdt) | 3, 3, 3, false, VEC_GP, sizeof(gdt), NULL },
	{ "selector in the missing LDT", 0, 0xc, 3, 3, false, VEC_GP, 0xc, NULL },
	{ "data segment", CODE_ACCESS(0, 0x93), TEST_SELECTOR, 3, 3, false, VEC_GP, TEST_SELECTOR, NULL },
	{ "system segment", CODE_ACCESS(0, 0x89), TEST_SELECTOR, 3, 3, false, VEC_GP, TEST_SELECTOR, NULL },
	{ "outer code segment", CODE_ACCESS(3, 0x9b), TEST_SELECTOR, 1, 3, false, VEC_GP, TEST_SELECTOR, NULL },
	{ "outer conforming segment", CODE_ACCESS(3, 0x9f), TEST_SELECTOR, 1, 3, false, VEC_GP, TEST_SELECTOR, NULL },
	{ "absent code segment", CODE_ACCESS(0, 0x1b), TEST_SELECTOR, 3, 3, false, VEC_NP, TEST_SELECTOR, NULL },
	{ "RPL does not matter", CODE_ACCESS(0, 0x1b), TEST_SELECTOR | 3, 3, 3, false, VEC_NP, TEST_SELECTOR, NULL },
#ifdef __x86_64__
	{ "32-bit code segment", CODE_ACCESS(0, 0x9b) ^ (u64)(DESC_L | DESC_DB) << 52, TEST_SELECTOR, 3, 3, false,
	  VEC_GP, TEST_SELECTOR, NULL },
	{ "L and D both set", CODE_ACCESS(0, 0x9b) | (u64)DESC_DB << 52, TEST_SELECTOR, 3, 3, false, VEC_GP,
	  TEST_SELECTOR, NULL },
#endif
};

static void check_gate_fault(const struct gate_fault *f)
{
	gdt_set(TEST_SELECTOR, f->target);
	idt_set(VECTOR, f->selector, (ulong)landing, GATE_INT, f->gate_dpl, 0);
	if (f->absent)
		idt[VECTOR].low &= ~(1ull << 47);
	struct state s = interrupt(software_interrupt, f->cpl, FLAG_CF);
	check_fault(&s, f->vector, f->error, (ulong)software_interrupt, f->qemu, __FILE_NAME__, __LINE__);
	if (s.vector != f->vector || s.error != f->error)
		print("    %s\n", f->what);
	idt_restore(VECTOR);
}

/* An exception's own gate is checked for presence and target too, not for its DPL; EXT says that it was no INT n. */
static void exception_gate_faults(void)
{
	gdt_set(TEST_SELECTOR, CODE_ACCESS(0, 0x1b));
	idt_set(VEC_UD, TEST_SELECTOR, (ulong)landing, GATE_INT, 0, 0);
	struct state s = interrupt(undefined, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_NP, TEST_SELECTOR | 1, undefined, QEMU_EXT);
	idt_set(VEC_UD, SEL_CODE32, 0, GATE_INT, 0, 0);
	idt[VEC_UD].low &= ~(1ull << 47);
	s = interrupt(undefined, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_NP, VEC_UD * 8 + 3, undefined, QEMU_EXT);
	idt_restore(VEC_UD);
	s = interrupt(undefined, 3, 0);
	CHECK_FAULT(s, VEC_UD, NO_ERROR, undefined);
}

#ifdef __x86_64__

/* ---- IST and stacks in 64-bit mode ---- */

static void ist_stacks(void)
{
	for (unsigned ist = 2; ist <= 7; ist++) {
		for (unsigned cpl = 0; cpl < 4; cpl++) {
			ulong top = (ulong)inner_stack[1] + 512 * ist + 7; /* aligned down to 16 bytes */
			tss.ist[ist - 1] = top;
			idt_set(VECTOR, SEL_CODE64, (ulong)landing, GATE_INT, 3, ist);
			struct state s = interrupt(software_interrupt, cpl, 0);
			CHECK_END(s, landing);
			CHECK_EQ(s.sp, (top & ~15ul) - 40);
			CHECK_BUT_QEMU(s.ss == (cpl ? 0 : SEL_DATA), "TCG nulls SS with every IST");
			CHECK_EQ(frame_word(&s, 3, 8), (ulong)test_stack_top - 256);
		}
	}
	idt_restore(VECTOR);
}

/* The frame is aligned at the same CPL too. */
static void frame_is_aligned(void)
{
	for (unsigned offset = 0; offset < 17; offset++) {
		struct state s = state_at(software_interrupt, 0);
		s.sp -= offset;
		ulong sp = s.sp;
		idt_set(VECTOR, SEL_CODE64, (ulong)landing, GATE_INT, 3, 0);
		run(&s);
		CHECK_END(s, landing);
		CHECK_EQ(s.sp, (sp & ~15ul) - 40);
		CHECK_EQ(frame_word(&s, 3, 8), sp);
	}
	idt_restore(VECTOR);
}

static void noncanonical_targets(void)
{
	idt_set(VECTOR, SEL_CODE64, 0x800000000000, GATE_INT, 3, 0);
	struct state s = interrupt(software_interrupt, 3, 0);
	CHECK_EQ(s.vector, VEC_GP);
	CHECK_EQ(s.error, 0);
	CHECK_BUT_QEMU(s.ip == (ulong)software_interrupt, "TCG faults in the handler");
	tss.ist[6] = 0x900000000000;
	idt_set(VECTOR, SEL_CODE64, (ulong)landing, GATE_INT, 3, 7);
	s = interrupt(software_interrupt, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, 0, software_interrupt, "TCG raises #GP for stack references too");
	idt_restore(VECTOR);
}

/* From compatibility mode a gate leads to 64-bit mode, with the full frame. */
CODE32(interrupt32, "mov $0xffffffff, %eax\n int $0x50");

static void from_compatibility_mode(void)
{
	idt_set(VECTOR, SEL_CODE64, (ulong)landing, GATE_TRAP, 3, 0);
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(interrupt32, cpl);
		s.cs = selector_code32(cpl);
		run_stack0 = stack_of(0);
		run(&s);
		run_stack0 = 0;
		CHECK_END(s, landing);
		CHECK_EQ(s.cs, SEL_CODE64);
		CHECK_EQ(frame_word(&s, 0, 8), (ulong)interrupt32_end);
		CHECK_EQ(frame_word(&s, 1, 8), selector_code32(cpl));
		CHECK_EQ(frame_word(&s, 4, 8), selector_data(cpl));
	}
	idt_restore(VECTOR);
}

static void width_specific(void)
{
	ist_stacks();
	frame_is_aligned();
	noncanonical_targets();
	from_compatibility_mode();
}

#else

/* ---- Faults of the inner stack: #TS and #SS with the stack's selector ---- */

static void inner_stack_fault(u16 ss, u64 value, unsigned vector, ulong error, const char *what, const char *qemu)
{
	gdt_set(TEST_SELECTOR, value);
	idt_set(VECTOR, SEL_RING1_CODE32, (ulong)landing, GATE_INT, 3, 0);
	tss.t.stack[1].ss = ss;
	struct state s = interrupt(software_interrupt, 3, 0);
	check_fault(&s, vector, error, (ulong)software_interrupt, qemu, __FILE_NAME__, __LINE__);
	if (s.vector != vector || s.error != error)
		print("    %s\n", what);
	inner_stacks_init();
	idt_restore(VECTOR);
}

static void inner_stack_faults(void)
{
	u64 good = descriptor(0, 0xfffff, ACCESS_DATA | ACCESS_DPL(1), DESC_G | DESC_DB);
	inner_stack_fault(1, good, VEC_TS, 0, "null SS1", NULL);
	inner_stack_fault(sizeof(gdt) | 1, good, VEC_TS, sizeof(gdt), "SS1 beyond the GDT", NULL);
	inner_stack_fault(TEST_SELECTOR, good, VEC_TS, TEST_SELECTOR, "RPL of SS1", NULL);
	inner_stack_fault(TEST_SELECTOR | 1, descriptor(0, 0xfffff, ACCESS_DATA, DESC_G | DESC_DB), VEC_TS,
			  TEST_SELECTOR, "DPL of SS1", NULL);
	inner_stack_fault(TEST_SELECTOR | 1, descriptor(0, 0xfffff, 0xb1, DESC_G | DESC_DB), VEC_TS, TEST_SELECTOR,
			  "read-only SS1", NULL);
	inner_stack_fault(TEST_SELECTOR | 1, descriptor(0, 0xfffff, 0xbb, DESC_G | DESC_DB), VEC_TS, TEST_SELECTOR,
			  "code as SS1", NULL);
	inner_stack_fault(TEST_SELECTOR | 1, descriptor(0, 0xfffff, 0x33, DESC_G | DESC_DB), VEC_SS, TEST_SELECTOR,
			  "absent SS1", "TCG raises #TS");
}

/* No room for the frame on the inner stack: #SS with the stack's selector; on the same stack: #SS(0). */
static void no_room(void)
{
	gdt_set(TEST_SELECTOR, descriptor(0x40000, 0xfff, ACCESS_DATA | ACCESS_DPL(1), DESC_DB));
	idt_set(VECTOR, SEL_RING1_CODE32, (ulong)landing, GATE_INT, 3, 0);
	tss.t.stack[1].ss = TEST_SELECTOR | 1;
	tss.t.stack[1].sp = 19;
	struct state s = interrupt(software_interrupt, 3, 0);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, TEST_SELECTOR, software_interrupt, "TCG does not check limits");
	tss.t.stack[1].sp = 20;
	s = interrupt(software_interrupt, 3, 0);
	CHECK_END(s, landing);
	CHECK_EQ(s.sp, 0);
	s = state_at(software_interrupt, 1);
	s.ss = TEST_SELECTOR | 1;
	s.sp = 11;
	run(&s);
	CHECK_FAULT_BUT_QEMU(s, VEC_SS, 0, software_interrupt, "TCG does not check limits");
	inner_stacks_init();
	idt_restore(VECTOR);
}

/* A TSS too short to hold the inner stack pointer: #TS(TSS selector). */
static void short_tss(void)
{
	idt_set(VECTOR, SEL_RING2_CODE32, (ulong)landing, GATE_INT, 3, 0);
	gdt_set(SEL_TSS, descriptor((ulong)&tss, offsetof(struct tss32, cr3) - 1, ACCESS_TSS, 0));
	write_tr(SEL_TSS);
	struct state s = interrupt(software_interrupt, 3, 0);
	CHECK_END(s, landing);
	gdt_set(SEL_TSS, descriptor((ulong)&tss, offsetof(struct tss32, stack[2].ss), ACCESS_TSS, 0));
	write_tr(SEL_TSS);
	s = interrupt(software_interrupt, 3, 0);
	descriptors_init();
	inner_stacks_init();
	CHECK_FAULT(s, VEC_TS, SEL_TSS, software_interrupt);
}

/* The handler's offset must be inside its segment: #GP(0). */
static void offset_beyond_limit(void)
{
	gdt_set(TEST_SELECTOR, descriptor(0, 0xfff, ACCESS_CODE, DESC_DB));
	idt_set(VECTOR, TEST_SELECTOR, 0x1000, GATE_INT, 3, 0);
	struct state s = interrupt(software_interrupt, 3, 0);
	idt_restore(VECTOR);
	CHECK_FAULT_BUT_QEMU(s, VEC_GP, 0, software_interrupt, "TCG does not check limits");
}

static void width_specific(void)
{
	inner_stack_faults();
	no_room();
	short_tss();
	if (!on_qemu) /* would run into nowhere */
		offset_beyond_limit();
}

#endif

void guest_main(void)
{
	deliver_everywhere();
	conforming_handler();
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		check_gate_fault(&faults[i]);
	exception_gate_faults();
	width_specific();
}
