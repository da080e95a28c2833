/* The local APIC: registers, priorities, IRR, ISR and EOI, IPIs to itself, LVT entries, errors, the timer's three
 * modes, and x2APIC mode with its rules. Intel SDM volume 3, "Advanced Programmable Interrupt Controller", "Extended
 * XAPIC (x2APIC)". */
#include "lib/apic.h"

static volatile unsigned taken, last_vector, order[16];

static void count(struct state *s)
{
	order[taken % 16] = s->vector;
	last_vector = s->vector;
	taken++;
	apic_eoi();
}

static void count_without_eoi(struct state *s)
{
	order[taken % 16] = s->vector;
	last_vector = s->vector;
	taken++;
}

/* Let what is pending come in: interrupts on for some instructions. */
static void window_open(void)
{
	asm volatile("sti\n nop\n nop\n nop\n cli" : : : "memory");
}

/* ---- Registers ---- */

static void registers(void)
{
	u32 version = apic_read(APIC_VERSION);
	CHECK((version & 0xff) >= 0x10 && (version & 0xff) <= 0x1f && (version >> 16 & 0xff) >= 3);
	CHECK_EQ(apic_read(APIC_ID) >> 24, cpuid(1, 0).ebx >> 24);
	CHECK_EQ(rdmsr(MSR_APIC_BASE) & ~0xfffull & 0xfffff000, APIC_BASE);
	CHECK(rdmsr(MSR_APIC_BASE) & 1 << 8); /* this is the bootstrap processor */
	CHECK(rdmsr(MSR_APIC_BASE) & 1 << 11);
	apic_write(APIC_TPR, 0x5a);
	CHECK_EQ(apic_read(APIC_TPR), 0x5a);
	CHECK_EQ(apic_read(APIC_PPR), 0x5a); /* nothing in service */
	apic_write(APIC_TPR, 0);
	CHECK_EQ(apic_read(APIC_PPR), 0);
	apic_write(APIC_LDR, 0xff000000);
	CHECK_EQ(apic_read(APIC_LDR), 0xff000000);
	apic_write(APIC_DFR, 0xffffffff);
	CHECK_EQ(apic_read(APIC_DFR), 0xffffffff);
	u32 id = apic_read(APIC_ID);
	apic_write(APIC_VERSION, 0); /* read-only ones stay */
	apic_write(APIC_PPR, 0x77);
	apic_write(APIC_IRR, -1u);
	apic_write(APIC_ISR, -1u);
	CHECK(apic_read(APIC_VERSION) == version && apic_read(APIC_PPR) == 0 && apic_read(APIC_IRR) == 0 &&
	      apic_read(APIC_ISR) == 0);
	CHECK_EQ(apic_read(APIC_ID), id);
}

/* ---- IRR, ISR, priorities ---- */

static void one_interrupt(void)
{
	taken = 0;
	handler_set(0x51, count_without_eoi);
	apic_send_self(0x51);
	CHECK(apic_bit(APIC_IRR, 0x51) && !apic_bit(APIC_ISR, 0x51));
	CHECK(!(apic_read(APIC_ICR) & 0x1000)); /* sent */
	window_open();
	CHECK(taken == 1 && last_vector == 0x51);
	CHECK(!apic_bit(APIC_IRR, 0x51) && apic_bit(APIC_ISR, 0x51));
	CHECK_EQ(apic_read(APIC_PPR), 0x50); /* the class in service */
	apic_send_self(0x51);                /* once more, behind the one in service; a third is lost */
	apic_send_self(0x51);
	window_open();
	CHECK(taken == 1 && apic_bit(APIC_IRR, 0x51));
	apic_eoi();
	window_open();
	CHECK(taken == 2 && !apic_bit(APIC_IRR, 0x51));
	apic_eoi();
	CHECK(!apic_bit(APIC_ISR, 0x51) && apic_read(APIC_PPR) == 0);
	window_open();
	CHECK_EQ(taken, 2);
	apic_eoi(); /* with nothing in service: nothing */
	handler_set(0x51, NULL);
}

static void task_priority(void)
{
	taken = 0;
	handler_set(0x61, count);
	for (unsigned tpr = 0; tpr < 0x100; tpr += 0x0f) {
		unsigned before = taken;
		apic_write(APIC_TPR, tpr);
		apic_send_self(0x61);
		window_open();
		CHECK_EQ(taken - before, tpr >> 4 < 6 ? 1 : 0);
		CHECK_EQ(apic_read(APIC_PPR), tpr);
		apic_write(APIC_TPR, 0);
		window_open();
		CHECK_EQ(taken - before, 1);
	}
	handler_set(0x61, NULL);
}

/* PPR is the higher of TPR and the class in service; EOI ends the highest one. */
static void nested_service(void)
{
	static const u8 vectors[] = { 0x41, 0x63, 0x85, 0xa7 };
	taken = 0;
	for (unsigned i = 0; i < 4; i++) {
		handler_set(vectors[i], count_without_eoi);
		apic_send_self(vectors[i]);
		window_open();
		CHECK_EQ(taken, i + 1);
		CHECK_EQ(apic_read(APIC_PPR), vectors[i] & 0xf0);
	}
	apic_write(APIC_TPR, 0x95);
	CHECK_EQ(apic_read(APIC_PPR), 0xa0);
	apic_eoi();
	CHECK(!apic_bit(APIC_ISR, 0xa7) && apic_bit(APIC_ISR, 0x85));
	CHECK_EQ(apic_read(APIC_PPR), 0x95);
	apic_write(APIC_TPR, 0);
	CHECK_EQ(apic_read(APIC_PPR), 0x80);
	for (unsigned i = 3; i-- > 0;) {
		apic_eoi();
		CHECK(!apic_bit(APIC_ISR, vectors[i]));
		CHECK_EQ(apic_read(APIC_PPR), i ? vectors[i - 1] & 0xf0 : 0);
	}
	/* All pending at once: from the highest down. */
	taken = 0;
	for (unsigned i = 0; i < 4; i++) {
		handler_set(vectors[i], count);
		apic_send_self(vectors[i]);
	}
	window_open();
	window_open();
	CHECK(wait_for(&taken, 4));
	for (unsigned i = 0; i < 4; i++) {
		CHECK_EQ(order[i], vectors[3 - i]);
		handler_set(vectors[i], NULL);
	}
}

/* ---- IPIs to itself by every way of naming itself ---- */

static void destinations(void)
{
	u32 id = apic_read(APIC_ID) & 0xff000000u;
	struct {
		u32 high, low;
		bool arrives;
	} sends[] = {
		{ id, 0x71, true },                              /* physical */
		{ 0xff000000, 0x71, true },                      /* physical broadcast */
		{ (id + 0x01000000) & 0xff000000, 0x71, false }, /* nobody there */
		{ 0x04000000, 0x71 | ICR_LOGICAL, true },        /* flat model: a shared bit */
		{ 0x03000000, 0x71 | ICR_LOGICAL, false },
		{ 0x04000000, 0x71 | ICR_LOGICAL | ICR_LOWEST, true },
		{ 0, 0x71 | ICR_SELF, true },
		{ 0, 0x71 | ICR_ALL, true },
		{ 0, 0x71 | ICR_OTHERS, false },
	};
	apic_write(APIC_LDR, 0x04000000);
	apic_write(APIC_DFR, 0xffffffff);
	handler_set(0x71, count);
	for (unsigned i = 0; i < ARRAY_SIZE(sends); i++) {
		taken = 0;
		apic_write(APIC_ICR_HIGH, sends[i].high);
		apic_write(APIC_ICR, sends[i].low | ICR_ASSERT);
		window_open();
		window_open();
		CHECK_EQ(taken, sends[i].arrives);
		if (taken != sends[i].arrives)
			print("    send %u\n", i);
	}
	apic_write(APIC_DFR, 0x0fffffff); /* cluster model: cluster 2, member 1 */
	apic_write(APIC_LDR, 0x21000000);
	taken = 0;
	apic_write(APIC_ICR_HIGH, 0x23000000);
	apic_write(APIC_ICR, 0x71 | ICR_LOGICAL | ICR_ASSERT);
	window_open();
	CHECK_EQ(taken, 1);
	apic_write(APIC_ICR_HIGH, 0x33000000);
	apic_write(APIC_ICR, 0x71 | ICR_LOGICAL | ICR_ASSERT);
	window_open();
	CHECK_EQ(taken, 1);
	apic_write(APIC_DFR, 0xffffffff);
	handler_set(0x71, NULL);
}

/* ---- Errors ---- */

static void errors(void)
{
	if (on_qemu) /* delivers illegal vectors */
		return;
	taken = 0;
	handler_set(0x91, count);
	apic_write(APIC_ESR, 0);
	apic_write(APIC_ESR, 0);
	CHECK_EQ(apic_read(APIC_ESR), 0);
	apic_write(APIC_LVT_ERROR, 0x91);
	apic_send_self(0x0f); /* vectors below 16 are illegal */
	window_open();
	CHECK(taken == 1 && last_vector == 0x91);
	apic_write(APIC_ESR, 0);
	CHECK(apic_read(APIC_ESR) & 0x20); /* send illegal vector */
	apic_write(APIC_ESR, 0);
	CHECK_EQ(apic_read(APIC_ESR), 0);
	taken = 0;
	apic_read(0x3f0 - 0x20); /* 0x3d0: no such register */
	apic_write(APIC_ESR, 0);
	CHECK_EQ(apic_read(APIC_ESR), 0x80);
	window_open();
	apic_write(APIC_LVT_ERROR, LVT_MASKED);
	apic_write(APIC_ESR, 0);
	handler_set(0x91, NULL);
}

/* ---- Software disable ---- */

static void software_disable(void)
{
	apic_write(APIC_LVT_TIMER, 0x50);
	apic_write(APIC_LVT_ERROR, 0x50);
	apic_write(APIC_SVR, 0xff);
	CHECK_BUT_QEMU(apic_read(APIC_LVT_TIMER) & apic_read(APIC_LVT_ERROR) & apic_read(APIC_LVT_LINT0) & LVT_MASKED,
		       "TCG does not mask");
	apic_write(APIC_LVT_TIMER, 0x50); /* the mask cannot be cleared now */
	CHECK_BUT_QEMU(apic_read(APIC_LVT_TIMER) & LVT_MASKED, "TCG lets it be cleared");
	apic_init();
	CHECK_EQ(apic_read(APIC_SVR) & 0x1ff, 0x1ff);
}

/* ---- Timer ---- */

static void timer_one_shot(void)
{
	taken = 0;
	handler_set(0xa1, count);
	apic_write(APIC_TIMER_DIVIDE, 0xb); /* by 1 */
	apic_write(APIC_LVT_TIMER, 0xa1);
	apic_write(APIC_TIMER_INITIAL, 100000);
	CHECK(wait_for(&taken, 1));
	CHECK_EQ(apic_read(APIC_TIMER_CURRENT), 0);
	spin(3000000);
	window_open();
	CHECK_EQ(taken, 1);                            /* once */
	apic_write(APIC_LVT_TIMER, 0xa1 | LVT_MASKED); /* a masked one counts but does not interrupt */
	apic_write(APIC_TIMER_INITIAL, 1000);
	spin(3000000);
	window_open();
	CHECK_EQ(taken, 1);
	CHECK_EQ(apic_read(APIC_TIMER_CURRENT), 0);
	apic_write(APIC_TIMER_INITIAL, 0xffffffff);
	u32 first = apic_read(APIC_TIMER_CURRENT);
	spin(100000);
	u32 second = apic_read(APIC_TIMER_CURRENT);
	CHECK(first < 0xffffffff && second < first);
	apic_write(APIC_TIMER_INITIAL, 0); /* zero stops it */
	CHECK_EQ(apic_read(APIC_TIMER_CURRENT), 0);
	handler_set(0xa1, NULL);
}

static void timer_periodic(void)
{
	taken = 0;
	handler_set(0xa2, count);
	apic_write(APIC_LVT_TIMER, 0xa2 | LVT_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, 500000);
	CHECK(wait_for(&taken, 5));
	CHECK(apic_read(APIC_TIMER_CURRENT) <= 500000);
	apic_write(APIC_TIMER_INITIAL, 0);
	window_open();
	unsigned stopped = taken;
	spin(5000000);
	window_open();
	CHECK_EQ(taken, stopped);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	handler_set(0xa2, NULL);
}

/* The divisor changes the speed: counts against the TSC, since a busy host lets any amount of time pass; also while the timer is started and read, which
 * must be little of the whole. */
static u64 counted(u32 divide, u64 *cycles)
{
	apic_write(APIC_TIMER_DIVIDE, divide);
	u64 start = rdtsc(), started, before, after;
	u32 count_now;
	apic_write(APIC_TIMER_INITIAL, 0xffffffff);
	started = rdtsc();
	do {
		spin(10000000);
		before = rdtsc();
		count_now = 0xffffffff - apic_read(APIC_TIMER_CURRENT);
		after = rdtsc();
	} while (started - start + after - before > (before - started) / 4);
	*cycles = after - start;
	apic_write(APIC_TIMER_INITIAL, 0);
	return count_now;
}

static void timer_divides(void)
{
	static const struct {
		u8 code, divisor;
	} divisors[] = { { 0xb, 1 }, { 0, 2 }, { 1, 4 }, { 2, 8 }, { 3, 16 }, { 8, 32 }, { 9, 64 }, { 0xa, 128 } };
	u64 base_cycles, cycles;
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	u64 base = counted(0xb, &base_cycles);
	for (unsigned i = 1; i < ARRAY_SIZE(divisors); i++) {
		u64 scaled = counted(divisors[i].code, &cycles) * divisors[i].divisor;
		u64 rate = (scaled >> 8) * (base_cycles >> 8), base_rate = (base >> 8) * (cycles >> 8);
		CHECK(rate > base_rate / 2 && rate / 2 < base_rate);
	}
	apic_write(APIC_TIMER_DIVIDE, 0xb);
}

CODE(do_wrmsr, "wrmsr");
CODE(do_rdmsr, "rdmsr");

static struct state msr_access(const void *code, u32 index, u64 value)
{
	struct state s = state_at(code, 0);
	s.cx = index;
	s.ax = (u32)value;
	s.dx = (u32)(value >> 32);
	run(&s);
	return s;
}

static void timer_tsc_deadline(void)
{
	if (!HAS_TSC_DEADLINE)
		return;
	taken = 0;
	handler_set(0xa3, count);
	apic_write(APIC_LVT_TIMER, 0xa3 | LVT_TSC_DEADLINE);
	u64 deadline = rdtsc() + 2000000;
	wrmsr(MSR_TSC_DEADLINE, deadline);
	CHECK(wait_for(&taken, 1));
	CHECK(rdtsc() >= deadline);
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0); /* disarmed by firing */
	wrmsr(MSR_TSC_DEADLINE, rdtsc() - 1); /* in the past: at once */
	CHECK(wait_for(&taken, 2));
	u64 ahead = 1000000;
	do { /* taken back, in time: a busy host may take longer between these two */
		deadline = rdtsc() + ahead;
		wrmsr(MSR_TSC_DEADLINE, deadline);
		wrmsr(MSR_TSC_DEADLINE, 0);
		ahead *= 2;
	} while (rdtsc() >= deadline);
	window_open(); /* for one that was too late */
	unsigned before = taken;
	while (rdtsc() < deadline + 2000000)
		spin(100000);
	window_open();
	CHECK_EQ(taken, before);
	apic_write(APIC_TIMER_INITIAL, 1000); /* the count does not matter in this mode */
	CHECK_EQ(apic_read(APIC_TIMER_CURRENT), 0);
	u64 far = rdtsc() + (1ull << 40);
	wrmsr(MSR_TSC_DEADLINE, far);
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), far);
	apic_write(APIC_LVT_TIMER, 0xa3); /* leaving the mode disarms */
	apic_write(APIC_LVT_TIMER, 0xa3 | LVT_TSC_DEADLINE);
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	wrmsr(MSR_TSC_DEADLINE, far); /* outside the mode writes are ignored */
	CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
	handler_set(0xa3, NULL);
}

/* ---- CR8 is TPR's class ---- */

static void cr8(void)
{
#ifdef __x86_64__
	for (unsigned class = 0; class < 16; class ++) {
		write_cr8(class);
		CHECK_EQ(apic_read(APIC_TPR), class << 4);
		CHECK_EQ(read_cr8(), class);
	}
	apic_write(APIC_TPR, 0x37);
	CHECK_EQ(read_cr8(), 3);
	apic_write(APIC_TPR, 0);
#endif
}

/* ---- x2APIC ---- */

#define X2APIC(reg) (0x800 + ((reg) >> 4))

static void x2apic_fault(const void *code, u32 index, u64 value)
{
	struct state s = msr_access(code, index, value);
	CHECK_FAULT(s, VEC_GP, 0, code);
}

/* Registers that are read-only, write-only, absent, or have reserved bits. */
static void x2apic_rules(void)
{
	x2apic_fault(do_wrmsr, X2APIC(APIC_ID), 0);
	x2apic_fault(do_wrmsr, X2APIC(APIC_VERSION), 0);
	x2apic_fault(do_wrmsr, X2APIC(APIC_PPR), 0);
	x2apic_fault(do_wrmsr, X2APIC(APIC_LDR), 0);
	x2apic_fault(do_wrmsr, X2APIC(APIC_IRR), 0);
	x2apic_fault(do_wrmsr, X2APIC(APIC_TIMER_CURRENT), 0);
	x2apic_fault(do_rdmsr, X2APIC(APIC_EOI), 0);
	x2apic_fault(do_rdmsr, 0x83f, 0);
	x2apic_fault(do_rdmsr, X2APIC(APIC_DFR), 0);
	x2apic_fault(do_wrmsr, X2APIC(APIC_DFR), 0);
	x2apic_fault(do_rdmsr, X2APIC(APIC_ICR_HIGH), 0);
	x2apic_fault(do_rdmsr, 0x800, 0);
	x2apic_fault(do_rdmsr, 0x83d, 0);
	x2apic_fault(do_rdmsr, 0x8ff, 0);
	x2apic_fault(do_wrmsr, X2APIC(APIC_EOI), 1);
	x2apic_fault(do_wrmsr, X2APIC(APIC_ESR), 1);
	x2apic_fault(do_wrmsr, X2APIC(APIC_TPR), 0x100);
	x2apic_fault(do_wrmsr, X2APIC(APIC_SVR), 1 << 16);
	x2apic_fault(do_wrmsr, X2APIC(APIC_LVT_TIMER), 1 << 24);
	x2apic_fault(do_wrmsr, X2APIC(APIC_TPR), 1ull << 32);
}

static void count_x2apic(struct state *s)
{
	last_vector = s->vector;
	taken++;
	wrmsr(X2APIC(APIC_EOI), 0);
}

static void x2apic(void)
{
	u64 base = rdmsr(MSR_APIC_BASE);
	if (!HAS_X2APIC && on_qemu) /* takes the bit all the same */
		return;
	if (!HAS_X2APIC) {
		x2apic_fault(do_wrmsr, MSR_APIC_BASE, base | 1 << 10);
		return;
	}
	x2apic_fault(do_rdmsr, X2APIC(APIC_ID), 0);                              /* not in xAPIC mode */
	x2apic_fault(do_wrmsr, MSR_APIC_BASE, (base | 1 << 10) & ~(1ull << 11)); /* EXTD without EN */
	u32 id = apic_read(APIC_ID) >> 24;
	wrmsr(MSR_APIC_BASE, base | 1 << 10);
	CHECK_EQ(rdmsr(X2APIC(APIC_ID)), id);
	CHECK_EQ(cpuid_checked(0xb, 0).edx, id);
	CHECK_EQ(rdmsr(X2APIC(APIC_LDR)), (u64)(id >> 4) << 16 | 1u << (id & 15));
	CHECK_EQ(rdmsr(X2APIC(APIC_SVR)), 0x1ff); /* the rest of the state stays */
	taken = 0;
	handler_set(0xb1, count_x2apic);
	wrmsr(0x83f, 0xb1);
	window_open();
	CHECK(taken == 1 && last_vector == 0xb1);
	wrmsr(X2APIC(APIC_ICR), (u64)id << 32 | 0xb1);
	window_open();
	CHECK_EQ(taken, 2);
	wrmsr(X2APIC(APIC_ICR), 0xffffffffull << 32 | 0xb1);
	window_open();
	CHECK_EQ(taken, 3);
	wrmsr(X2APIC(APIC_ICR), (u64)((id >> 4) << 16 | 1u << (id & 15)) << 32 | ICR_LOGICAL | 0xb1);
	window_open();
	CHECK_EQ(taken, 4);
	wrmsr(X2APIC(APIC_TPR), 0xb0);
	wrmsr(0x83f, 0xb1);
	window_open();
	CHECK_EQ(taken, 4);
	CHECK_EQ(rdmsr(X2APIC(APIC_IRR) + 0xb1 / 32) >> (0xb1 % 32) & 1, 1);
	wrmsr(X2APIC(APIC_TPR), 0);
	window_open();
	CHECK_EQ(taken, 5);
	wrmsr(X2APIC(APIC_LVT_TIMER), 0xb1);
	wrmsr(X2APIC(APIC_TIMER_DIVIDE), 0xb);
	wrmsr(X2APIC(APIC_TIMER_INITIAL), 10000);
	CHECK(wait_for(&taken, 6));
	x2apic_rules();
	x2apic_fault(do_wrmsr, MSR_APIC_BASE, base); /* not straight back to xAPIC mode */
	wrmsr(MSR_APIC_BASE, base & ~(3ull << 10));
	x2apic_fault(do_wrmsr, MSR_APIC_BASE, (base | 1 << 10) & ~(1ull << 11));
	CHECK(!CPUID_HAS(1, edx, 9)); /* a disabled APIC is not shown */
	wrmsr(MSR_APIC_BASE, base);
	CHECK(CPUID_HAS(1, edx, 9));
	apic_init();
	handler_set(0xb1, NULL);
	apic_send_self(0x51);
	CHECK(apic_bit(APIC_IRR, 0x51));
	taken = 0;
	handler_set(0x51, count);
	window_open();
	CHECK_EQ(taken, 1);
	handler_set(0x51, NULL);
}

void guest_main(void)
{
	apic_init();
	registers();
	one_interrupt();
	task_priority();
	nested_service();
	destinations();
	errors();
	software_disable();
	timer_one_shot();
	timer_periodic();
	timer_divides();
	timer_tsc_deadline();
	cr8();
	x2apic();
}
