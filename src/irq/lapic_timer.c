/* The local APIC's timer. Intel SDM volume 3, "APIC Timer" and "TSC-Deadline Mode".
 *
 * It counts at 1 GHz before the divider, so the time at which the count reaches zero is the only state: the current
 * count is derived from it. */
#include "host/port.h"
#include "irq/lapic_internal.h"
#include "lib/scale.h"

static enum timer_mode timer_mode(u32 lvt)
{
	return (lvt >> LVT_TIMER_MODE_SHIFT) & 3;
}

static enum timer_mode current_mode(const struct lapic *lapic)
{
	return (enum timer_mode)lapic->timer.mode;
}

/* "Divide Configuration Register": bits 3, 1, 0 are 0 for 2, ..., 6 for 128, 7 for 1. */
static u8 divide_shift(u32 divide)
{
	return (((divide & 3) | (divide & 8) >> 1) + 1) & 7;
}

/* Nanoseconds from the initial count to zero. */
static u64 period(const struct lapic *lapic)
{
	return (u64)*lapic_reg(lapic, REG_TIMER_INITIAL) << lapic->timer.shift;
}

void lapic_timer_stop(struct lapic *lapic)
{
	lapic->timer.deadline = HOST_NEVER;
	lapic->timer.not_before = 0;
	lapic->timer.tsc_deadline = 0;
}

void lapic_timer_loaded(struct lapic *lapic)
{
	lapic->timer.mode = (u8)timer_mode(*lapic_reg(lapic, REG_LVT + LVT_TIMER));
	lapic->timer.shift = divide_shift(*lapic_reg(lapic, REG_TIMER_DIVIDE));
}

void lapic_timer_reset(struct lapic *lapic)
{
	lapic_timer_stop(lapic);
	lapic_timer_loaded(lapic);
}

void lapic_timer_start(struct lapic *lapic, u64 now)
{
	if (current_mode(lapic) > TIMER_PERIODIC)
		return;
	lapic_timer_stop(lapic);
	if (period(lapic))
		lapic->timer.deadline = now + period(lapic);
}

/* Nanoseconds to the next zero. A periodic timer may be past several. */
static u64 remaining(const struct lapic *lapic, u64 now)
{
	u64 deadline = lapic->timer.deadline;

	if (deadline == HOST_NEVER || current_mode(lapic) > TIMER_PERIODIC)
		return 0;
	if (deadline > now)
		return deadline - now;
	return current_mode(lapic) == TIMER_PERIODIC ? period(lapic) - (now - deadline) % period(lapic) : 0;
}

u32 lapic_timer_current(const struct lapic *lapic, u64 now)
{
	unsigned shift = lapic->timer.shift;
	return (u32)((remaining(lapic, now) + mask_of(shift)) >> shift);
}

/* The count goes on from where it is, at the new rate. */
void lapic_timer_set_divide(struct lapic *lapic, u32 divide, u64 now)
{
	u64 count = lapic_timer_current(lapic, now);

	*lapic_reg(lapic, REG_TIMER_DIVIDE) = divide;
	lapic->timer.shift = divide_shift(divide);
	if (count)
		lapic->timer.deadline = now + (count << lapic->timer.shift);
}

/* Going to or from the TSC deadline disarms the timer. */
void lapic_timer_set_lvt(struct lapic *lapic, u32 lvt)
{
	enum timer_mode old = current_mode(lapic), new;

	if (!lapic->has_tsc_deadline)
		lvt &= ~(u32)LVT_TSC_DEADLINE;
	new = timer_mode(lvt);
	*lapic_reg(lapic, REG_LVT + LVT_TIMER) = lvt;
	lapic->timer.mode = (u8)new;
	if (old == new || MAX(old, new) <= TIMER_PERIODIC)
		return;
	*lapic_reg(lapic, REG_TIMER_INITIAL) = 0;
	lapic_timer_stop(lapic);
}

static void arm_tsc_deadline(struct lapic *lapic)
{
	u64 deadline = lapic->timer.tsc_deadline, anchor = lapic->tsc.anchor;
	u64 wait = deadline > anchor ? scale_ceil(deadline - anchor, NANOSECONDS_PER_SECOND, lapic->tsc.hz) : 0;

	if (__builtin_add_overflow(lapic->tsc.anchor_now, wait, &lapic->timer.deadline))
		lapic->timer.deadline = HOST_NEVER;
}

u64 lapic_timer_tsc_deadline(const struct lapic *lapic)
{
	return current_mode(lapic) == TIMER_TSC_DEADLINE ? lapic->timer.tsc_deadline : 0;
}

void lapic_timer_set_tsc_deadline(struct lapic *lapic, u64 deadline)
{
	if (current_mode(lapic) != TIMER_TSC_DEADLINE)
		return;
	lapic_timer_stop(lapic);
	lapic->timer.tsc_deadline = deadline;
	if (deadline)
		arm_tsc_deadline(lapic);
}

void lapic_set_tsc(struct lapic *lapic, u64 guest_tsc, u64 now, u64 hz)
{
	lapic->tsc.anchor = guest_tsc;
	lapic->tsc.anchor_now = now;
	lapic->tsc.hz = MAX(hz, 1);
	if (lapic->timer.tsc_deadline)
		arm_tsc_deadline(lapic);
}

u64 lapic_deadline(const struct lapic *lapic)
{
	if (*lapic_reg(lapic, REG_LVT + LVT_TIMER) & LVT_MASKED)
		return HOST_NEVER;
	return MAX(lapic->timer.deadline, lapic->timer.not_before);
}

void lapic_advance(struct lapic *lapic, u64 now)
{
	u64 late = now - lapic->timer.deadline;

	if (now < lapic->timer.deadline || now < lapic->timer.not_before)
		return;
	if (current_mode(lapic) == TIMER_PERIODIC && period(lapic)) {
		lapic->timer.deadline += (late / period(lapic) + 1) * period(lapic);
		lapic->timer.not_before = now + LAPIC_MIN_PERIOD;
	} else {
		lapic_timer_stop(lapic);
	}
	lapic_trigger(lapic, LVT_TIMER);
}
