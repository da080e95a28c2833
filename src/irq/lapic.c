/* The local APIC: which interrupts it accepts, in what order they go to the processor, and its state after reset.
 * Intel SDM volume 3, "Handling Interrupts", "Interrupt, Task, and Processor Priority", "Determining IPI Destination".
 */
#include "host/port.h"
#include "irq/lapic_internal.h"

#define MASKED_LVT (u32) LVT_MASKED
#define FIRST_LEGAL_VECTOR 16

/* ---- sets of 256 vectors ---- */

static void set_bit(u64 set[4], u8 vector, bool on)
{
	u64 bit = BIT(vector % 64);
	set[vector / 64] = (set[vector / 64] & ~bit) | (on ? bit : 0);
}

static bool get_bit(const u64 set[4], u8 vector)
{
	return set[vector / 64] & BIT(vector % 64);
}

static int highest_bit(const u64 set[4])
{
	for (int i = 3; i >= 0; i--)
		if (set[i])
			return i * 64 + 63 - __builtin_clzll(set[i]);
	return -1;
}

/* ---- priority ---- */

static u32 highest_or_0(const u64 set[4])
{
	int vector = highest_bit(set);
	return vector < 0 ? 0 : (u32)vector;
}

/* "Processor Priority Register (PPR)". */
u32 lapic_ppr(const struct lapic *lapic)
{
	u32 tpr = lapic->reg[REG_TPR], isrv = highest_or_0(lapic->isr);
	return tpr >> 4 >= isrv >> 4 ? tpr : isrv & 0xf0;
}

/* "Arbitration Priority Register (APR)". */
u32 lapic_apr(const struct lapic *lapic)
{
	u32 tpr = lapic->reg[REG_TPR] >> 4, isrv = highest_or_0(lapic->isr) >> 4, irrv = highest_or_0(lapic->irr) >> 4;
	return tpr >= irrv && tpr > isrv ? lapic->reg[REG_TPR] : MAX(tpr & isrv, irrv) << 4;
}

int lapic_highest(const struct lapic *lapic)
{
	int vector = highest_bit(lapic->irr);

	if (vector < 0 || !lapic_hardware_enabled(lapic))
		return -1;
	return (u32)vector >> 4 > lapic_ppr(lapic) >> 4 ? vector : -1;
}

int lapic_acknowledge(struct lapic *lapic)
{
	int vector = lapic_highest(lapic);

	if (vector < 0)
		return -1;
	set_bit(lapic->irr, (u8)vector, false);
	set_bit(lapic->isr, (u8)vector, true);
	return vector;
}

u64 lapic_cr8(const struct lapic *lapic)
{
	return lapic->reg[REG_TPR] >> 4;
}

void lapic_set_cr8(struct lapic *lapic, u64 value)
{
	lapic->reg[REG_TPR] = (u32)(value & 0xf) << 4;
}

/* ---- interrupts in ---- */

/* "Error Handling": each kind of error interrupts once until software has looked, so an illegal vector in the error
 * entry itself ends here. */
void lapic_error(struct lapic *lapic, u32 errors)
{
	u32 fresh = errors & ~lapic->errors;

	lapic->errors |= errors;
	if (fresh)
		lapic_trigger(lapic, LVT_ERROR);
}

static unsigned accept_fixed(struct lapic *lapic, u8 vector, bool level)
{
	if (!lapic_software_enabled(lapic))
		return 0;
	if (vector < FIRST_LEGAL_VECTOR) {
		lapic_error(lapic, ESR_RECEIVE_ILLEGAL_VECTOR);
		return 0;
	}
	set_bit(lapic->tmr, vector, level);
	set_bit(lapic->irr, vector, true);
	return LAPIC_ACCEPTED;
}

unsigned lapic_accept(struct lapic *lapic, const struct interrupt *interrupt)
{
	if (!lapic_hardware_enabled(lapic))
		return 0;
	switch ((enum delivery_mode)interrupt->delivery) {
	case DELIVERY_FIXED:
	case DELIVERY_LOWEST_PRIORITY:
		return accept_fixed(lapic, interrupt->vector, interrupt->level);
	case DELIVERY_NMI:
		return LAPIC_NMI;
	case DELIVERY_INIT:
		return LAPIC_INIT;
	case DELIVERY_SIPI:
		return LAPIC_SIPI;
	case DELIVERY_EXTINT:
		return lapic_software_enabled(lapic) ? LAPIC_EXTINT : 0;
	case DELIVERY_SMI:
	case DELIVERY_RESERVED:
		break;
	}
	return 0;
}

void lapic_accept_posted(struct lapic *lapic, struct posted *posted)
{
	u64 vectors[4], level[4];

	if (!posted_drain(posted, vectors, level) || !lapic_hardware_enabled(lapic) || !lapic_software_enabled(lapic))
		return;
	if (vectors[0] & mask_of(FIRST_LEGAL_VECTOR))
		lapic_error(lapic, ESR_RECEIVE_ILLEGAL_VECTOR);
	vectors[0] &= ~mask_of(FIRST_LEGAL_VECTOR);
	for (unsigned i = 0; i < 4; i++) {
		lapic->tmr[i] = (lapic->tmr[i] & ~vectors[i]) | (level[i] & vectors[i]);
		lapic->irr[i] |= vectors[i];
	}
}

/* ---- local sources ---- */

unsigned lapic_trigger(struct lapic *lapic, enum lapic_lvt entry)
{
	u32 lvt = lapic->reg[REG_LVT + entry];
	u8 delivery = (lvt >> LVT_DELIVERY_SHIFT) & 7;
	bool level = entry == LVT_LINT0 && (lvt & LVT_LEVEL) && delivery == DELIVERY_FIXED;
	struct interrupt interrupt = { .vector = (u8)lvt, .delivery = delivery, .level = level };

	/* "Local Vector Table": the other modes have no meaning here. */
	bool known = delivery == DELIVERY_FIXED || delivery == DELIVERY_NMI || delivery == DELIVERY_INIT ||
		     delivery == DELIVERY_EXTINT;
	return known && !(lvt & LVT_MASKED) ? lapic_accept(lapic, &interrupt) : 0;
}

static bool lint0_level(const struct lapic *lapic)
{
	u32 lvt = lapic->reg[REG_LVT + LVT_LINT0];
	return (lvt & LVT_LEVEL) && ((lvt >> LVT_DELIVERY_SHIFT) & 7) == DELIVERY_FIXED;
}

/* A level-triggered LINT0 sends once, and again when that interrupt has ended with the line still up. */
void lapic_service_lint0(struct lapic *lapic)
{
	if (!lint0_level(lapic))
		lapic->lint_remote_irr = false;
	else if (lapic->lint_line[0] && !lapic->lint_remote_irr)
		lapic->lint_remote_irr = lapic_trigger(lapic, LVT_LINT0) & LAPIC_ACCEPTED;
}

unsigned lapic_set_lint(struct lapic *lapic, unsigned pin, bool level)
{
	bool rising = level && !lapic->lint_line[pin & 1];

	lapic->lint_line[pin & 1] = level;
	if (!rising)
		return 0;
	if (pin || !lint0_level(lapic))
		return lapic_trigger(lapic, pin ? LVT_LINT1 : LVT_LINT0);
	lapic_service_lint0(lapic);
	return lapic->lint_remote_irr ? LAPIC_ACCEPTED : 0;
}

bool lapic_passes_extint(const struct lapic *lapic)
{
	u32 lvt = lapic->reg[REG_LVT + LVT_LINT0];

	if (!lapic_hardware_enabled(lapic))
		return true;
	return !(lvt & LVT_MASKED) && ((lvt >> LVT_DELIVERY_SHIFT) & 7) == DELIVERY_EXTINT;
}

bool lapic_lint0_nmi(const struct lapic *lapic)
{
	u32 lvt = __atomic_load_n(&lapic->reg[REG_LVT + LVT_LINT0], __ATOMIC_RELAXED);

	return !(lvt & LVT_MASKED) && ((lvt >> LVT_DELIVERY_SHIFT) & 7) == DELIVERY_NMI;
}

/* "Signaling Interrupt Servicing Completion". */
void lapic_end_interrupt(struct lapic *lapic)
{
	int vector = highest_bit(lapic->isr);

	if (vector < 0)
		return;
	set_bit(lapic->isr, (u8)vector, false);
	if (!get_bit(lapic->tmr, (u8)vector))
		return;
	if (lapic->lint_remote_irr && (u8)lapic->reg[REG_LVT + LVT_LINT0] == vector) {
		lapic->lint_remote_irr = false;
		lapic_service_lint0(lapic);
	}
	if (!(lapic->reg[REG_SVR] & SVR_SUPPRESS_EOI))
		lapic->ops->eoi(lapic->opaque, (u8)vector);
}

bool lapic_end_may_wait(const struct lapic *lapic)
{
	int vector = highest_bit(lapic->isr);

	return vector >= 0 && highest_bit(lapic->irr) < 0 && !get_bit(lapic->tmr, (u8)vector);
}

/* ---- routing ---- */

/* The packed snapshot: ID in bits 31:0, logical ID of xAPIC mode in 39:32, then flags. */
#define MATCH_LDR_SHIFT 32
#define MATCH_FLAT BIT(40)
#define MATCH_X2APIC BIT(41)
#define MATCH_HARDWARE_ENABLED BIT(42)
#define MATCH_ENABLED BIT(43)

static u32 x2apic_ldr(u32 id)
{
	return id >> 4 << 16 | 1u << (id & 0xf);
}

u32 lapic_ldr(const struct lapic *lapic)
{
	return lapic_x2apic(lapic) ? x2apic_ldr(lapic->id) : lapic->reg[REG_LDR];
}

void lapic_update_match(struct lapic *lapic)
{
	bool x2apic = lapic_x2apic(lapic), enabled = lapic_hardware_enabled(lapic);
	u64 match = x2apic ? lapic->id : lapic->reg[REG_ID] >> 24;

	match |= (u64)(lapic->reg[REG_LDR] >> 24) << MATCH_LDR_SHIFT;
	match |= lapic->reg[REG_DFR] >> 28 == 0xf ? MATCH_FLAT : 0;
	match |= x2apic ? MATCH_X2APIC : 0;
	match |= enabled ? MATCH_HARDWARE_ENABLED : 0;
	match |= enabled && lapic_software_enabled(lapic) ? MATCH_ENABLED : 0;
	__atomic_store_n(&lapic->match, match, __ATOMIC_RELEASE);
}

static bool matches_logical(u64 match, u32 destination)
{
	u8 ldr = (u8)(match >> MATCH_LDR_SHIFT);

	if (match & MATCH_X2APIC) {
		u32 wide = x2apic_ldr((u32)match);
		return wide >> 16 == destination >> 16 && (wide & destination & 0xffff);
	}
	if (destination > 0xff)
		return false;
	if (match & MATCH_FLAT)
		return ldr & destination;
	return ldr >> 4 == destination >> 4 && (ldr & destination & 0xf);
}

bool lapic_matches(const struct lapic *lapic, u32 destination, bool logical)
{
	u64 match = __atomic_load_n(&lapic->match, __ATOMIC_ACQUIRE);

	if (!(match & MATCH_HARDWARE_ENABLED))
		return false;
	if (destination == DESTINATION_BROADCAST)
		return true;
	return logical ? matches_logical(match, destination) : (u32)match == destination;
}

bool lapic_enabled(const struct lapic *lapic)
{
	return __atomic_load_n(&lapic->match, __ATOMIC_ACQUIRE) & MATCH_ENABLED;
}

/* ---- state ---- */

/* The registers after power-up. The lines are inputs: they stay. */
void lapic_reset_registers(struct lapic *lapic)
{
	__builtin_memset(lapic->reg, 0, sizeof(lapic->reg));
	__builtin_memset(lapic->irr, 0, sizeof(lapic->irr));
	__builtin_memset(lapic->isr, 0, sizeof(lapic->isr));
	__builtin_memset(lapic->tmr, 0, sizeof(lapic->tmr));
	lapic->errors = 0;
	lapic->lint_remote_irr = false;
	lapic->reg[REG_ID] = lapic->id << 24;
	lapic->reg[REG_DFR] = 0xffffffff;
	lapic->reg[REG_SVR] = 0xff;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		lapic->reg[REG_LVT + i] = MASKED_LVT;
	lapic_timer_stop(lapic);
	lapic_update_match(lapic);
}

void lapic_reset(struct lapic *lapic, bool init)
{
	if (!init)
		lapic->base = (lapic->base & APIC_BASE_BSP) | APIC_BASE_EN | 0xfee00000;
	u32 xapic_id = lapic->reg[REG_ID];
	lapic_reset_registers(lapic);
	if (init)
		lapic->reg[REG_ID] = xapic_id;
	lapic_update_match(lapic);
}

void lapic_init(struct lapic *lapic, u32 id, bool bsp, const struct lapic_ops *ops, void *opaque)
{
	*lapic = (struct lapic){
		.base = bsp ? APIC_BASE_BSP : 0,
		.id = id,
		.physical_bits = 52,
		.has_x2apic = true,
		.has_tsc_deadline = true,
		.ops = ops,
		.opaque = opaque,
		.tsc.hz = 1000000000,
	};
	lapic_reset(lapic, false);
}

void lapic_set_virtual_wire(struct lapic *lapic)
{
	lapic->reg[REG_SVR] = 0xff | SVR_ENABLE;
	lapic->reg[REG_LVT + LVT_LINT0] = DELIVERY_EXTINT << LVT_DELIVERY_SHIFT;
	lapic->reg[REG_LVT + LVT_LINT1] = DELIVERY_NMI << LVT_DELIVERY_SHIFT;
	lapic_update_match(lapic);
}

static bool loaded(void *object)
{
	struct lapic *lapic = object;
	lapic_update_match(lapic);
	return lapic->tsc.hz;
}

const struct state_table lapic_state = STATE_TABLE(struct lapic, loaded,
	STATE(struct lapic, reg), STATE(struct lapic, irr), STATE(struct lapic, isr), STATE(struct lapic, tmr), STATE(struct lapic, base),
	STATE(struct lapic, errors), STATE(struct lapic, lint_line), STATE(struct lapic, lint_remote_irr),
	STATE(struct lapic, timer.deadline), STATE(struct lapic, timer.not_before), STATE(struct lapic, timer.tsc_deadline),
	STATE(struct lapic, tsc.anchor), STATE(struct lapic, tsc.anchor_now), STATE(struct lapic, tsc.hz),
	STATE_NONE(struct lapic, match), STATE_SAME(struct lapic, id), STATE_SAME(struct lapic, physical_bits),
	STATE_SAME(struct lapic, has_x2apic), STATE_SAME(struct lapic, has_tsc_deadline), STATE_NONE(struct lapic, ops),
	STATE_NONE(struct lapic, opaque));
