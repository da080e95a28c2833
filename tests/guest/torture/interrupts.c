/* Torture: timers, HLT, and IPIs of every kind; none is lost, none comes twice. */
#include "torture/torture.h"

/* ---- timers ---- */

void on_timer(struct state *s)
{
	struct worker *w = self();
	(void)s;
	if (++w->timers_fired > w->timers_armed)
		fail("a timer fired twice", w->timers_fired, w->timers_armed);
	if (w->timers_fired % 4 == 0)
		vectors_disturb();
	apic_eoi();
}

void on_period(struct state *s)
{
	(void)s;
	self()->periods++;
	apic_eoi();
}

bool timer_waits(void)
{
	volatile struct worker *w = self();
	return w->timers_fired != w->timers_armed;
}

void timer_arm(u64 ticks)
{
	struct worker *w = self();
	WAIT(!timer_waits());
	w->timers_armed++;
	if (HAS_TSC_DEADLINE && pick(2)) {
		apic_write(APIC_LVT_TIMER, V_TIMER | LVT_TSC_DEADLINE);
		mfence();
		wrmsr(MSR_TSC_DEADLINE, rdtsc() + ticks * 2);
	} else {
		apic_write(APIC_LVT_TIMER, V_TIMER);
		apic_write(APIC_TIMER_DIVIDE, pick(2) ? 0xb : 0);
		apic_write(APIC_TIMER_INITIAL, ticks);
	}
}

void act_timer(void)
{
	timer_arm(1 + pick(100000));
}

void act_periodic(void)
{
	volatile struct worker *w = self();
	WAIT(!timer_waits());
	u64 before = w->periods, wanted = 1 + pick(4);
	apic_write(APIC_LVT_TIMER, V_PERIODIC | LVT_PERIODIC);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_TIMER_INITIAL, 60000 + pick(100000));
	WAIT(w->periods - before >= wanted);
	apic_write(APIC_TIMER_INITIAL, 0);
}

/* As an idle loop does: look with interrupts off, STI and HLT as one. */
void act_halt(void)
{
	timer_arm(1 + pick(200000));
	while (timer_waits() && !stop) {
		cli();
		if (timer_waits())
			asm volatile("sti\n hlt" : : : "memory");
		sti();
	}
}

/* ---- IPIs ---- */

volatile u64 nmi_wanted[CPUS_MAX], nmis_sent[CPUS_MAX];

void on_pair(struct state *s)
{
	self()->received[s->vector - V_PAIR]++;
	apic_eoi();
}

void on_self(struct state *s)
{
	(void)s;
	self()->selfs_received++;
	apic_eoi();
}

void on_nmi(struct state *s)
{
	(void)s;
	if (!atomic_exchange(&nmi_wanted[this_cpu()->index], 0))
		fail("an NMI that nobody sent", 1, 0);
	self()->nmis_received++;
}

bool pair_arrived(unsigned from, unsigned to)
{
	return *(volatile u64 *)&workers[to].received[from] == workers[from].sent[to];
}

/* The next is sent when the last one has come: there is one place for each vector. */
void act_ipi(void)
{
	unsigned me = this_cpu()->index, to = pick(smp_cpus);
	WAIT(pair_arrived(me, to));
	if (stop)
		return;
	workers[me].sent[to]++;
	smp_send(smp_apic_id(to), V_PAIR + me);
}

void act_self(void)
{
	volatile struct worker *w = self();
	w->selfs_sent++;
	apic_send_self(V_SELF);
	WAIT(w->selfs_received == w->selfs_sent);
}

void act_nmi(void)
{
	unsigned to = pick(smp_cpus);
	if (atomic_exchange(&nmi_wanted[to], 1))
		return; /* one is on its way */
	atomic_add(&nmis_sent[to], 1);
	smp_send(smp_apic_id(to), ICR_NMI);
}
