/* Posting interrupts. Intel VT-d specification, "Interrupt-Posting Hardware Operation".
 *
 * Order: a poster sets the request bit and then ON; the owner clears ON and then takes the request bits. So a bit that
 * the owner misses was set after ON was cleared, and its poster found ON clear and notifies. */
#include "irq/posted.h"

/* What it was. */
static bool atomic_set_bit(u64 *set, u8 n, bool on)
{
	u64 bit = BIT(n % 64);
	if (on)
		return __atomic_fetch_or(&set[n / 64], bit, __ATOMIC_SEQ_CST) & bit;
	return __atomic_fetch_and(&set[n / 64], ~bit, __ATOMIC_SEQ_CST) & bit;
}

bool posted_post(struct posted *posted, u8 vector, bool level)
{
	u64 *control = &posted->descriptor.control;

	atomic_set_bit(posted->level, vector, level);
	atomic_set_bit(posted->descriptor.pir, vector, true);
	if (__atomic_load_n(control, __ATOMIC_SEQ_CST) & POSTED_SN)
		return false;
	return !(__atomic_fetch_or(control, POSTED_ON, __ATOMIC_SEQ_CST) & POSTED_ON);
}

bool posted_post_aside(struct posted *posted, u8 vector, bool level)
{
	bool was = __atomic_load_n(&posted->level[vector / 64], __ATOMIC_SEQ_CST) & BIT(vector % 64);
	if (!level && !was)
		return false;
	atomic_set_bit(posted->level, vector, level);
	atomic_set_bit(posted->aside, vector, true);
	return true;
}

bool posted_pending(const struct posted *posted)
{
	u64 any = 0;
	for (unsigned i = 0; i < 4; i++)
		any |= __atomic_load_n(&posted->descriptor.pir[i], __ATOMIC_SEQ_CST) | __atomic_load_n(&posted->aside[i], __ATOMIC_SEQ_CST);
	return any;
}

bool posted_drain(struct posted *posted, u64 vectors[4], u64 level[4])
{
	u64 any = 0;

	__atomic_fetch_and(&posted->descriptor.control, ~POSTED_ON, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < 4; i++) {
		vectors[i] = 0;
		if (__atomic_load_n(&posted->descriptor.pir[i], __ATOMIC_SEQ_CST))
			vectors[i] = __atomic_exchange_n(&posted->descriptor.pir[i], 0, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&posted->aside[i], __ATOMIC_SEQ_CST))
			vectors[i] |= __atomic_exchange_n(&posted->aside[i], 0, __ATOMIC_SEQ_CST);
		level[i] = __atomic_load_n(&posted->level[i], __ATOMIC_SEQ_CST) & vectors[i];
		any |= vectors[i];
	}
	return any;
}

void posted_suppress(struct posted *posted, bool suppress)
{
	if (suppress)
		__atomic_fetch_or(&posted->descriptor.control, POSTED_SN, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_and(&posted->descriptor.control, ~POSTED_SN, __ATOMIC_SEQ_CST);
}

const struct state_table posted_state = STATE_TABLE(struct posted, NULL,
	STATE(struct posted, descriptor.pir), STATE(struct posted, descriptor.control), STATE_NONE(struct posted, descriptor.reserved),
	STATE(struct posted, level), STATE(struct posted, aside));
