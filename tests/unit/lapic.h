/* A local APIC on a bench: what it sends is recorded. */
#ifndef NADIR_TESTS_LAPIC_H
#define NADIR_TESTS_LAPIC_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "irq/lapic.h"

struct board {
	struct lapic lapic;
	u64 now;
	struct interrupt last;
	unsigned sent, eois;
	u8 last_eoi;
};

static inline void on_send(void *opaque, const struct interrupt *interrupt)
{
	struct board *b = opaque;
	b->last = *interrupt;
	b->sent++;
}

static inline void on_eoi(void *opaque, u8 vector)
{
	struct board *b = opaque;
	b->last_eoi = vector;
	b->eois++;
}

static inline u32 mmio_read(struct board *b, u32 offset)
{
	return (u32)lapic_mmio_read(&b->lapic, offset, 4, b->now);
}

static inline void mmio_write(struct board *b, u32 offset, u32 value)
{
	lapic_mmio_write(&b->lapic, offset, 4, value, b->now);
}

static inline u64 msr(struct board *b, u32 index)
{
	u64 value = 0;
	assert_true(lapic_msr_read(&b->lapic, index, b->now, &value));
	return value;
}

static inline bool msr_write(struct board *b, u32 index, u64 value)
{
	return lapic_msr_write(&b->lapic, index, b->now, value);
}

static inline void x2apic(struct board *b)
{
	assert_true(msr_write(b, MSR_APIC_BASE, msr(b, MSR_APIC_BASE) | APIC_BASE_EXTD));
}

static inline unsigned fixed(struct board *b, u8 vector, bool level)
{
	struct interrupt interrupt = { .vector = vector, .level = level };
	return lapic_accept(&b->lapic, &interrupt);
}

/* A software-enabled local APIC of an application processor. */
static inline struct board *board(u32 id)
{
	static const struct lapic_ops ops = { .send = on_send, .eoi = on_eoi };
	static struct board b;

	b = (struct board){ .now = 1000000 };
	lapic_init(&b.lapic, id, false, &ops, &b);
	mmio_write(&b, 0x0f0, 0x1ff);
	return &b;
}

#endif
