/* The local APIC under any sequence of register and MSR accesses, interrupts, acknowledges and time steps. */
#include "irq/lapic.h"
#include "host/port.h"
#include "input.h"

static struct posted posted;

static void send(void *opaque, const struct interrupt *interrupt)
{
	CHECK(interrupt->shorthand == SHORTHAND_NONE || interrupt->shorthand == SHORTHAND_OTHERS);
	CHECK(interrupt->delivery != DELIVERY_EXTINT && interrupt->delivery != DELIVERY_RESERVED);
	if (interrupt->delivery <= DELIVERY_LOWEST_PRIORITY)
		CHECK(interrupt->vector >= 16);
}

static void eoi(void *opaque, u8 vector)
{
	CHECK(vector >= 16);
}

static const struct lapic_ops ops = { .send = send, .eoi = eoi };

static void check(const struct lapic *lapic, u64 now)
{
	int highest = lapic_highest(lapic);
	u64 isr[4], irr[4];
	lapic_vectors(lapic, LAPIC_ISR, isr);
	lapic_vectors(lapic, LAPIC_IRR, irr);
	u64 ppr = isr[3] ? (u64)(255 - __builtin_clzll(isr[3])) : 0;

	CHECK(!((irr[0] | isr[0]) & 0xffff));
	CHECK(highest == -1 || (highest >= 16 && (u64)highest >> 4 > ppr >> 4));
	CHECK(lapic_enabled(lapic) == ((lapic->base & APIC_BASE_EN) && (lapic->page[4 * 0xf] & BIT(8))));
	CHECK((lapic->base & (APIC_BASE_EN | APIC_BASE_EXTD)) != APIC_BASE_EXTD);
	CHECK(lapic_matches(lapic, DESTINATION_BROADCAST, false) == !!(lapic->base & APIC_BASE_EN));
}

static void interrupt_in(struct lapic *lapic, struct input *in)
{
	u64 bits = input_take(in, 2);
	struct interrupt interrupt = { .vector = (u8)bits, .delivery = bits >> 8 & 7, .level = bits >> 11 & 1 };

	if (bits & BIT(12)) {
		posted_post(&posted, (u8)bits, bits >> 11 & 1);
		lapic_accept_posted(lapic, &posted);
		CHECK(!posted_pending(&posted));
	} else if (bits & BIT(13)) {
		lapic_set_lint(lapic, bits & 1, bits & 2);
	} else {
		lapic_accept(lapic, &interrupt);
	}
}

static void acknowledge(struct lapic *lapic)
{
	int expected = lapic_highest(lapic), vector = lapic_acknowledge(lapic);

	CHECK(vector == expected);
	if (vector < 0)
		return;
	u64 isr[4];
	lapic_vectors(lapic, LAPIC_ISR, isr);
	CHECK(isr[vector / 64] & BIT(vector % 64));
	CHECK(lapic_highest(lapic) == -1 || lapic_highest(lapic) >> 4 > vector >> 4);
}

static void access_msr(struct lapic *lapic, struct input *in, u8 op, u64 now)
{
	static const u32 msrs[] = { MSR_APIC_BASE, MSR_TSC_DEADLINE };
	u32 index = op & 0x40 ? msrs[op >> 3 & 1] : MSR_X2APIC + input_u8(in);
	u64 value;

	CHECK(lapic_owns_msr(index));
	if (op & 0x20)
		lapic_msr_read(lapic, index, now, &value);
	else
		lapic_msr_write(lapic, index, now, input_take(in, 8));
}

/* What a processor does that virtualizes the registers: it stores the value, and leaves the rest to us. */
static void written(struct lapic *lapic, struct input *in, u64 now)
{
	static const u16 offsets[] = { 0x20, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0 };
	u16 offset = offsets[input_u8(in) % ARRAY_SIZE(offsets)];
	if ((lapic->base & APIC_BASE_EXTD) || !(lapic->base & APIC_BASE_EN))
		return;
	lapic->page[offset / 4] = input_u32(in);
	lapic_written(lapic, offset, now);
}

static void step(struct lapic *lapic, struct input *in, u64 *now)
{
	u8 op = input_u8(in);
	unsigned size = input_size(in);
	u64 offset = (input_u8(in) << 4 & 0xff0) | (op & 0x80 ? input_u8(in) & 8 : 0);

	switch (op & 7) {
	case 0:
		*now += input_step(in);
		lapic_advance(lapic, *now);
		CHECK(lapic_deadline(lapic) > *now);
		break;
	case 1:
		interrupt_in(lapic, in);
		break;
	case 2:
		acknowledge(lapic);
		break;
	case 3:
		CHECK(!(lapic_mmio_read(lapic, offset, size, *now) & ~size_mask(size)));
		break;
	case 4:
	case 5:
		if (op & 0x40) {
			written(lapic, in, *now);
			break;
		}
		lapic_mmio_write(lapic, offset, size, input_take(in, size), *now);
		break;
	case 6:
		access_msr(lapic, in, op, *now);
		break;
	default:
		if (op & 8)
			lapic_reset(lapic, op & 0x10);
		else
			lapic_set_tsc(lapic, input_take(in, 8), *now, input_u32(in));
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct lapic lapic;
	u64 now = 0;

	posted = (struct posted){ 0 };
	lapic_init(&lapic, input_u8(&in), true, &ops, NULL);
	lapic_set_virtual_wire(&lapic);
	while (in.left) {
		step(&lapic, &in, &now);
		check(&lapic, now);
	}
	return 0;
}
