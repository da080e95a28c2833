/* The I/O APIC. Intel 82093AA data sheet, "Register Description". */
#include "irq/ioapic.h"

/* A redirection entry. */
#define RTE_VECTOR 0xffull
#define RTE_DELIVERY_SHIFT 8
#define RTE_LOGICAL BIT(11)
#define RTE_DELIVERY_STATUS BIT(12)
#define RTE_POLARITY BIT(13)
#define RTE_REMOTE_IRR BIT(14)
#define RTE_LEVEL BIT(15)
#define RTE_MASKED BIT(16)
#define RTE_DESTINATION_SHIFT 56
#define RTE_WRITABLE (0xff0000000001ffffull & ~(RTE_DELIVERY_STATUS | RTE_REMOTE_IRR))

/* Offsets in the window. */
#define IOREGSEL 0x00
#define IOWIN 0x10
#define IOEOI 0x40

/* Registers behind the window. */
#define IOAPICID 0
#define IOAPICVER 1
#define IOAPICARB 2
#define IOREDTBL 0x10

#define VERSION (0x20u | (IOAPIC_PIN_COUNT - 1) << 16)

static u8 rte_delivery(u64 rte)
{
	return (rte >> RTE_DELIVERY_SHIFT) & 7;
}

/* Remote IRR waits for an EOI, which only fixed and lowest-priority interrupts get. */
static bool rte_holds(u64 rte)
{
	return (rte & RTE_LEVEL) && rte_delivery(rte) <= DELIVERY_LOWEST_PRIORITY;
}

static void send(struct ioapic *ioapic, u64 rte)
{
	u8 delivery = rte_delivery(rte);

	if (delivery == DELIVERY_SMI || delivery == DELIVERY_RESERVED || delivery == DELIVERY_SIPI)
		return;
	struct interrupt interrupt = {
		.destination = destination_from_8((u8)(rte >> RTE_DESTINATION_SHIFT)),
		.vector = (u8)rte,
		.delivery = delivery,
		.logical = rte & RTE_LOGICAL,
		.level = rte_holds(rte),
	};
	ioapic->deliver(ioapic->opaque, &interrupt);
}

/* Send a level-triggered interrupt if its input asks for one and the previous one has ended. */
static void service_level(struct ioapic *ioapic, unsigned pin)
{
	u64 *rte = &ioapic->redirection[pin];

	if (!(ioapic->lines & BIT(pin)) || (*rte & (RTE_MASKED | RTE_REMOTE_IRR)) || !rte_holds(*rte))
		return;
	*rte |= RTE_REMOTE_IRR;
	send(ioapic, *rte);
}

void ioapic_set_line(void *opaque, unsigned pin, bool level)
{
	struct ioapic *ioapic = opaque;

	if (pin >= IOAPIC_PIN_COUNT)
		return;
	bool was = ioapic->lines & BIT(pin);
	u64 rte = ioapic->redirection[pin];
	ioapic->lines = (u32)((ioapic->lines & ~BIT(pin)) | (level ? BIT(pin) : 0));
	if (rte_holds(rte))
		service_level(ioapic, pin);
	else if (level && !was && !(rte & RTE_MASKED)) /* an edge while masked is lost */
		send(ioapic, rte);
}

void ioapic_eoi(struct ioapic *ioapic, u8 vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++) {
		u64 *rte = &ioapic->redirection[pin];
		if (!(*rte & RTE_REMOTE_IRR) || (*rte & RTE_VECTOR) != vector)
			continue;
		*rte &= ~RTE_REMOTE_IRR;
		service_level(ioapic, pin);
	}
}

void ioapic_init(struct ioapic *ioapic, void (*deliver)(void *opaque, const struct interrupt *interrupt), void *opaque)
{
	*ioapic = (struct ioapic){ .deliver = deliver, .opaque = opaque };
	ioapic_reset(ioapic);
}

void ioapic_reset(struct ioapic *ioapic)
{
	ioapic->select = 0;
	ioapic->id = 0;
	for (unsigned pin = 0; pin < IOAPIC_PIN_COUNT; pin++)
		ioapic->redirection[pin] = RTE_MASKED;
}

/* Write half of a redirection entry. Making an entry edge-triggered clears its remote IRR: that is how software ends an
 * interrupt on I/O APICs without an EOI register, and they all do it. */
static void redirection_write(struct ioapic *ioapic, unsigned pin, bool high, u32 value)
{
	u64 *rte = &ioapic->redirection[pin];
	unsigned shift = high ? 32 : 0;
	u64 writable = RTE_WRITABLE & (0xffffffffull << shift);

	*rte = (*rte & ~writable) | (((u64)value << shift) & writable);
	if (!rte_holds(*rte))
		*rte &= ~RTE_REMOTE_IRR;
	service_level(ioapic, pin);
}

static u32 register_read(const struct ioapic *ioapic)
{
	u8 index = ioapic->select;
	unsigned pin = (index - IOREDTBL) / 2;

	if (index == IOAPICID || index == IOAPICARB)
		return (u32)ioapic->id << 24;
	if (index == IOAPICVER)
		return VERSION;
	if (index < IOREDTBL || pin >= IOAPIC_PIN_COUNT)
		return 0;
	return (u32)(ioapic->redirection[pin] >> (index & 1 ? 32 : 0));
}

static void register_write(struct ioapic *ioapic, u32 value)
{
	u8 index = ioapic->select;
	unsigned pin = (index - IOREDTBL) / 2;

	if (index == IOAPICID)
		ioapic->id = (value >> 24) & 0xf;
	else if (index >= IOREDTBL && pin < IOAPIC_PIN_COUNT)
		redirection_write(ioapic, pin, index & 1, value);
}

u64 ioapic_read(void *opaque, u64 offset, unsigned size, u64 now)
{
	const struct ioapic *ioapic = opaque;

	if (offset == IOREGSEL)
		return ioapic->select;
	if (offset == IOWIN)
		return register_read(ioapic) & size_mask(size);
	return 0;
}

void ioapic_write(void *opaque, u64 offset, unsigned size, u64 value, u64 now)
{
	struct ioapic *ioapic = opaque;

	if (offset == IOREGSEL)
		ioapic->select = (u8)value;
	else if (offset == IOWIN && size >= 4)
		register_write(ioapic, (u32)value);
	else if (offset == IOEOI)
		ioapic_eoi(ioapic, (u8)value);
}

const struct state_table ioapic_state = STATE_TABLE(struct ioapic, NULL,
	STATE(struct ioapic, redirection), STATE(struct ioapic, lines), STATE(struct ioapic, select), STATE(struct ioapic, id),
	STATE_NONE(struct ioapic, deliver), STATE_NONE(struct ioapic, opaque));
