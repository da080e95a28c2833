/* The I/O APIC under any sequence of register accesses, line changes and EOIs. */
#include "irq/ioapic.h"
#include "input.h"

static u64 delivered;

static void deliver(void *opaque, const struct interrupt *interrupt)
{
	CHECK(interrupt->delivery != DELIVERY_SMI && interrupt->delivery != DELIVERY_RESERVED);
	CHECK(interrupt->shorthand == SHORTHAND_NONE);
	CHECK(interrupt->destination <= 0xfe || interrupt->destination == DESTINATION_BROADCAST);
	delivered++;
}

/* Remote IRR is on exactly where a level-triggered interrupt was sent, so an asserted, open level input has it. */
static void check(const struct ioapic *ioapic)
{
	for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++) {
		u64 rte = ioapic->redirection[pin];
		bool level = rte & BIT(15), masked = rte & BIT(16), remote_irr = rte & BIT(14);
		unsigned delivery = rte >> 8 & 7;
		if (!level)
			CHECK(!remote_irr);
		if (level && !masked && delivery < 2 && (ioapic->lines & BIT(pin)))
			CHECK(remote_irr);
		CHECK(!(rte & 0x00fffffffffe1000ull));
	}
}

static void step(struct ioapic *ioapic, struct input *in)
{
	static const u8 offsets[] = { 0x00, 0x10, 0x10, 0x40 };
	u8 op = input_u8(in);
	unsigned size = input_size(in);
	u64 offset = op & 0x80 ? input_u8(in) : offsets[op >> 2 & 3];

	switch (op & 3) {
	case 0:
		ioapic_set_line(ioapic, input_u8(in), op & 4);
		break;
	case 1:
		ioapic_eoi(ioapic, input_u8(in));
		break;
	case 2:
		CHECK(!(ioapic_read(ioapic, offset, size, 0) & ~size_mask(size)));
		break;
	default:
		ioapic_write(ioapic, offset, size, input_take(in, size), 0);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct ioapic ioapic;

	delivered = 0;
	ioapic_init(&ioapic, deliver, NULL);
	while (in.left) {
		u64 before = delivered;
		step(&ioapic, &in);
		CHECK(delivered - before <= IOAPIC_PIN_COUNT);
		check(&ioapic);
	}
	return 0;
}
