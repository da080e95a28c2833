/* MISSION B5: when external interrupts and NMIs are taken and when not: IF, the shadows of STI and MOV SS, HLT, NMI
 * blocking, and the order among several. Interrupts come from the local APIC to itself. Intel SDM volume 3, "Masking
 * Interrupts", "Nonmaskable Interrupt (NMI)", "Priority Among Simultaneous Exceptions and Interrupts"; volume 2, STI,
 * HLT, MOV, POPF, IRET. */
#include "lib/apic.h"

#define VECTOR 0x40
#define HIGH_VECTOR 0x60

LABEL(sti_second);
LABEL(sti_third);
CODE(sti_code, "sti\n sti_second: nop\n sti_third: nop");
CODE(sti_cli, "sti\n cli\n nop");
LABEL(popf_next);
CODE(popf_code, "push $0x202\n popf\n popf_next: nop");
LABEL(hlt_next);
CODE(sti_hlt, "sti\n hlt\n hlt_next: nop");
CODE(nothing, "nop");
CODE(undefined, "ud2");
CODE(sti_undefined, "sti\n ud2");
LABEL(nmi_sent);
CODE(sti_send_nmi, "sti\n movl %eax, (" R "bx)\n nmi_sent: nop");

/* Run with one interrupt pending and IF clear. */
static struct state run_pending(const void *code, unsigned cpl, ulong flags)
{
	apic_send_self(VECTOR);
	struct state s = state_at(code, cpl);
	s.flags |= flags;
	run(&s);
	return s;
}

/* Take back an interrupt that was not delivered. */
static void drain(void)
{
	struct state s = state_at(sti_code, 0);
	if (apic_bit(APIC_IRR, VECTOR)) {
		run(&s);
		CHECK_EQ(s.vector, VECTOR);
		apic_eoi();
	}
	CHECK(!apic_bit(APIC_IRR, VECTOR) && !apic_bit(APIC_ISR, VECTOR));
}

#define CHECK_INTERRUPT(s, at) CHECK_FAULT(s, VECTOR, NO_ERROR, at)

static void if_masks(void)
{
	struct state s = run_pending(nothing, 0, 0);
	CHECK_END(s, nothing);
	CHECK(apic_bit(APIC_IRR, VECTOR) && !apic_bit(APIC_ISR, VECTOR));
	drain();
	for (unsigned cpl = 0; cpl < 4; cpl++) { /* IRET that sets IF has no shadow: taken at its target */
		s = run_pending(nothing, cpl, FLAG_IF);
		CHECK_INTERRUPT(s, nothing);
		CHECK(s.flags & FLAG_IF);
		CHECK(!apic_bit(APIC_IRR, VECTOR) && apic_bit(APIC_ISR, VECTOR));
		apic_eoi();
	}
	s = run_pending(popf_code, 0, 0); /* nor has POPF */
	CHECK_INTERRUPT(s, popf_next);
	apic_eoi();
	s = run_pending(undefined, 3, FLAG_IF); /* before the fault of the next instruction */
	CHECK_INTERRUPT(s, undefined);
	apic_eoi();
}

static void sti_shadow(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = run_pending(sti_code, cpl, FLAG_IOPL(cpl));
		CHECK_INTERRUPT(s, sti_third);
		apic_eoi();
		s = run_pending(sti_code, cpl, FLAG_IOPL(cpl) | FLAG_IF);
		CHECK_INTERRUPT(s, sti_code);
		apic_eoi();
	}
	struct state s = run_pending(sti_cli, 0, 0); /* CLI in the shadow: no interrupt at all */
	CHECK_END(s, sti_cli);
	drain();
	s = run_pending(sti_undefined, 0, 0); /* the fault in the shadow comes first */
	CHECK_EQ(s.vector, VEC_UD);
	drain();
}

/* No interrupt arrives between MOV SS or POP SS and the instruction after it: a timer fires often, at random places of
 * a loop. */
LABEL(mov_ss_next);
LABEL(pop_ss_next);
#ifdef __x86_64__
#define POP_SS "nop\n pop_ss_next: nop\n"
#else
#define POP_SS "push %ss\n pop %ss\n pop_ss_next: nop\n"
#endif
CODE(mov_ss_loop, "1: mov %ss, %eax\n mov %eax, %ss\n mov_ss_next: nop\n mov %eax, %ss\n nop\n " POP_SS " jmp 1b");

static void mov_ss_shadow(void)
{
	unsigned in_shadow = 0;
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR);
	for (unsigned i = 0; i < 300; i++) {
		apic_write(APIC_TIMER_INITIAL, 1000 + 37 * i);
		struct state s = state_at(mov_ss_loop, 0);
		s.flags |= FLAG_IF;
		run(&s);
		CHECK_EQ(s.vector, VECTOR);
		in_shadow += s.ip == (ulong)mov_ss_next || (sizeof(long) == 4 && s.ip == (ulong)pop_ss_next);
		apic_eoi();
	}
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	CHECK_EQ(in_shadow, 0);
}

/* ---- HLT ---- */

static void halt_wakes(void)
{
	struct state s = run_pending(sti_hlt, 0, 0); /* STI's shadow covers HLT: the race-free way to sleep */
	CHECK_INTERRUPT(s, hlt_next);
	apic_eoi();
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR);
	apic_write(APIC_TIMER_INITIAL, 1000000);
	s = run_code(sti_hlt, 0);
	CHECK_INTERRUPT(s, hlt_next);
	apic_eoi();
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

/* ---- NMI ---- */

static unsigned nmi_count, nmi_depth, nmi_deepest;

static void nmi_handler(struct state *s)
{
	nmi_count++;
	if (++nmi_depth > nmi_deepest)
		nmi_deepest = nmi_depth;
	if (nmi_count == 1) {
		apic_send_own_id(ICR_NMI); /* waits for IRET */
		apic_send_own_id(ICR_NMI); /* and only one waits */
		CHECK_EQ(nmi_count, 1);
	}
	nmi_depth--;
	(void)s;
}

static void nmi_blocking(void)
{
	nmi_count = nmi_deepest = 0;
	handler_set(VEC_NMI, nmi_handler);
	apic_send_own_id(ICR_NMI); /* IF is clear */
	spin(100000);
	handler_set(VEC_NMI, NULL);
	CHECK_EQ(nmi_count, 2);
	CHECK_EQ(nmi_deepest, 1);
	/* An exception's IRET within the handler ends the blocking early, as the manual warns; see that NMIs work
	 * again. */
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = state_at(sti_send_nmi, cpl);
		s.flags |= FLAG_IOPL(3);
		s.ax = ICR_NMI | ICR_ASSERT;
		s.bx = APIC_BASE + APIC_ICR;
		run(&s);
		CHECK_EQ(s.vector, VEC_NMI);
		CHECK_BUT_QEMU(s.ip == (ulong)nmi_sent, "TCG takes it at the end of the block");
	}
}

/* Both an NMI and an interrupt wait: the NMI is first. */
static void nmi_before_interrupt(void)
{
	apic_send_self(VECTOR);
	apic_write(APIC_ICR_HIGH, apic_read(APIC_ID) & 0xff000000u);
	struct state s = state_at(sti_send_nmi, 0);
	s.ax = ICR_NMI | ICR_ASSERT;
	s.bx = APIC_BASE + APIC_ICR;
	run(&s);
	CHECK_EQ(s.vector, VEC_NMI);
	CHECK_EQ(s.ip, (ulong)nmi_sent);
	drain();
}

/* HLT with IF clear wakes by an NMI: the PIT's interrupt through the I/O APIC. */
CODE(halt_masked, "hlt\n nop");

static void nmi_wakes_halt(void)
{
	ioapic_pin(2, LVT_MASKED, 0);
	pit_start(0, 0, 60000); /* must not come before HLT */
	ioapic_pin(2, ICR_NMI, apic_read(APIC_ID) & 0xff000000u);
	struct state s = run_code(halt_masked, 0);
	CHECK_FAULT(s, VEC_NMI, NO_ERROR, (ulong)halt_masked + 1);
	ioapic_pin(2, LVT_MASKED, 0);
}

/* ---- Priorities and nesting ---- */

static volatile unsigned order[8], taken;

static void record(struct state *s)
{
	if (taken < ARRAY_SIZE(order))
		order[taken++] = s->vector;
	apic_eoi();
}

static void higher_vector_first(void)
{
	taken = 0;
	handler_set(VECTOR, record);
	handler_set(HIGH_VECTOR, record);
	handler_set(VECTOR + 1, record);
	apic_send_self(VECTOR);
	apic_send_self(HIGH_VECTOR);
	apic_send_self(VECTOR + 1);
	CHECK(wait_for(&taken, 3));
	CHECK(order[0] == HIGH_VECTOR && order[1] == VECTOR + 1 && order[2] == VECTOR);
	CHECK_EQ(taken, 3);
}

static volatile bool nested_seen, low_blocked;

static void low_handler(struct state *s)
{
	unsigned before = taken;
	order[taken++] = s->vector;
	apic_send_self(VECTOR + 1); /* of the same class: waits for the EOI */
	asm volatile("sti\n nop\n nop\n cli" : : : "memory");
	low_blocked = taken == before + 1;
	apic_send_self(HIGH_VECTOR);
	asm volatile("sti\n nop\n nop\n cli" : : : "memory");
	nested_seen = taken == before + 2;
	apic_eoi();
}

static void nesting(void)
{
	taken = 0;
	handler_set(VECTOR, low_handler);
	apic_send_self(VECTOR);
	CHECK(wait_for(&taken, 3));
	CHECK(low_blocked && nested_seen);
	CHECK(order[0] == VECTOR && order[1] == HIGH_VECTOR && order[2] == VECTOR + 1);
	handler_set(VECTOR, NULL);
	handler_set(HIGH_VECTOR, NULL);
	handler_set(VECTOR + 1, NULL);
}

/* An interrupt is one even while user code spins; the flags and registers come back as they were. */
CODE(user_loop, "1: inc " R "cx\n cmp $0, %al\n jmp 1b");

static struct state run_user_loop(unsigned cpl, u32 ticks)
{
	apic_write(APIC_TIMER_INITIAL, ticks);
	struct state s = state_at(user_loop, cpl);
	s.flags |= FLAG_IF;
	s.dx = 0x1234;
	run(&s);
	return s;
}

static void interrupts_user_code(void)
{
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR);
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		struct state s = run_user_loop(cpl, on_qemu ? 100000000 : 5000000);
		for (u32 ticks = 10000000; !s.cx && ticks < 1000000000; ticks *= 4) { /* too slow to begin meanwhile */
			apic_eoi();
			s = run_user_loop(cpl, ticks);
		}
		CHECK_EQ(s.vector, VECTOR);
		CHECK(s.ip >= (ulong)user_loop && s.ip < (ulong)user_loop_end);
		CHECK(s.cx != 0 && s.dx == 0x1234 && s.cs == selector_code(cpl));
		apic_eoi();
	}
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

void guest_main(void)
{
	apic_init();
	if_masks();
	sti_shadow();
	mov_ss_shadow();
	halt_wakes();
	nmi_blocking();
	nmi_before_interrupt();
	nmi_wakes_halt();
	higher_vector_first();
	nesting();
	interrupts_user_code();
}
