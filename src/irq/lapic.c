/* The local APIC: which interrupts it accepts, in what order they go to the processor, and its state after reset.
 * Intel SDM volume 3, "Handling Interrupts", "Interrupt, Task, and Processor Priority", "Determining IPI Destination".
 */
#include "host/port.h"
#include "irq/lapic_internal.h"

#define MASKED_LVT (u32) LVT_MASKED
#define FIRST_LEGAL_VECTOR 16

/* ---- sets of 256 vectors, each in eight registers of 32 bits ---- */

static u32 *word_of(const struct lapic *lapic, unsigned set, u8 vector)
{
	return lapic_reg(lapic, set + vector / 32);
}

static void set_bit(struct lapic *lapic, unsigned set, u8 vector, bool on)
{
	u32 *word = word_of(lapic, set, vector), bit = (u32)BIT(vector % 32);
	*word = on ? *word | bit : *word & ~bit;
	lapic->vectors_changed = true;
}

static bool get_bit(const struct lapic *lapic, unsigned set, u8 vector)
{
	return *word_of(lapic, set, vector) >> (vector % 32) & 1;
}

static int highest_bit(const struct lapic *lapic, unsigned set)
{
	for (int i = 7; i >= 0; i--) {
		u32 word = *lapic_reg(lapic, set + (unsigned)i);
		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

static const u8 first_of[] = { [LAPIC_ISR] = REG_ISR, [LAPIC_TMR] = REG_TMR, [LAPIC_IRR] = REG_IRR };

void lapic_vectors(const struct lapic *lapic, enum lapic_set which, u64 out[4])
{
	for (unsigned i = 0; i < 4; i++)
		out[i] = *lapic_reg(lapic, first_of[which] + 2 * i) | (u64)*lapic_reg(lapic, first_of[which] + 2 * i + 1) << 32;
}

int lapic_highest_of(const struct lapic *lapic, enum lapic_set which)
{
	return highest_bit(lapic, first_of[which]);
}

/* ---- priority ---- */

static u32 highest_or_0(const struct lapic *lapic, unsigned set)
{
	int vector = highest_bit(lapic, set);
	return vector < 0 ? 0 : (u32)vector;
}

/* "Processor Priority Register (PPR)". */
u32 lapic_ppr(const struct lapic *lapic)
{
	u32 tpr = *lapic_reg(lapic, REG_TPR), isrv = highest_or_0(lapic, REG_ISR);
	return tpr >> 4 >= isrv >> 4 ? tpr : isrv & 0xf0;
}

/* "Arbitration Priority Register (APR)". */
u32 lapic_apr(const struct lapic *lapic)
{
	u32 tpr = *lapic_reg(lapic, REG_TPR) >> 4, isrv = highest_or_0(lapic, REG_ISR) >> 4, irrv = highest_or_0(lapic, REG_IRR) >> 4;
	return tpr >= irrv && tpr > isrv ? *lapic_reg(lapic, REG_TPR) : MAX(tpr & isrv, irrv) << 4;
}

int lapic_highest(const struct lapic *lapic)
{
	int vector = highest_bit(lapic, REG_IRR);

	if (vector < 0 || !lapic_hardware_enabled(lapic))
		return -1;
	return (u32)vector >> 4 > lapic_ppr(lapic) >> 4 ? vector : -1;
}

int lapic_acknowledge(struct lapic *lapic)
{
	int vector = lapic_highest(lapic);

	if (vector < 0)
		return -1;
	set_bit(lapic, REG_IRR, (u8)vector, false);
	set_bit(lapic, REG_ISR, (u8)vector, true);
	return vector;
}

u8 lapic_tpr_threshold(const struct lapic *lapic)
{
	u32 wanted = highest_or_0(lapic, REG_IRR) >> 4, tpr = *lapic_reg(lapic, REG_TPR) >> 4 & 0xf;
	return lapic_hardware_enabled(lapic) && wanted <= tpr ? (u8)wanted : 0;
}

u64 lapic_cr8(const struct lapic *lapic)
{
	return *lapic_reg(lapic, REG_TPR) >> 4;
}

void lapic_set_cr8(struct lapic *lapic, u64 value)
{
	*lapic_reg(lapic, REG_TPR) = (u32)(value & 0xf) << 4;
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
	set_bit(lapic, REG_TMR, vector, level);
	set_bit(lapic, REG_IRR, vector, true);
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
	for (unsigned i = 0; i < 8; i++) {
		u32 word = (u32)(vectors[i / 2] >> (i % 2 * 32)), *tmr = lapic_reg(lapic, REG_TMR + i);
		*tmr = (*tmr & ~word) | ((u32)(level[i / 2] >> (i % 2 * 32)) & word);
		*lapic_reg(lapic, REG_IRR + i) |= word;
	}
	lapic->vectors_changed = true;
}

/* ---- local sources ---- */

unsigned lapic_trigger(struct lapic *lapic, enum lapic_lvt entry)
{
	u32 lvt = *lapic_reg(lapic, REG_LVT + entry);
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
	u32 lvt = *lapic_reg(lapic, REG_LVT + LVT_LINT0);
	return (lvt & LVT_LEVEL) && ((lvt >> LVT_DELIVERY_SHIFT) & 7) == DELIVERY_FIXED;
}

static void set_remote_irr(struct lapic *lapic, bool on)
{
	u32 *lvt = lapic_reg(lapic, REG_LVT + LVT_LINT0);
	lapic->lint_remote_irr = on;
	*lvt = (*lvt & ~(u32)LVT_REMOTE_IRR) | (on ? (u32)LVT_REMOTE_IRR : 0);
}

/* A level-triggered LINT0 sends once, and again when that interrupt has ended with the line still up. */
void lapic_service_lint0(struct lapic *lapic)
{
	bool sent = lapic->lint_remote_irr;
	if (lapic->lint_line[0] && !sent && lint0_level(lapic))
		sent = lapic_trigger(lapic, LVT_LINT0) & LAPIC_ACCEPTED;
	set_remote_irr(lapic, sent && lint0_level(lapic));
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
	u32 lvt = *lapic_reg(lapic, REG_LVT + LVT_LINT0);

	if (!lapic_hardware_enabled(lapic))
		return true;
	return !(lvt & LVT_MASKED) && ((lvt >> LVT_DELIVERY_SHIFT) & 7) == DELIVERY_EXTINT;
}

bool lapic_lint0_nmi(const struct lapic *lapic)
{
	u32 lvt = __atomic_load_n(lapic_reg(lapic, REG_LVT + LVT_LINT0), __ATOMIC_RELAXED);

	return !(lvt & LVT_MASKED) && ((lvt >> LVT_DELIVERY_SHIFT) & 7) == DELIVERY_NMI;
}

/* "Signaling Interrupt Servicing Completion". */
void lapic_end_interrupt(struct lapic *lapic)
{
	int vector = highest_bit(lapic, REG_ISR);

	if (vector < 0)
		return;
	set_bit(lapic, REG_ISR, (u8)vector, false);
	lapic_ended(lapic, (u8)vector);
}

void lapic_ended(struct lapic *lapic, u8 vector)
{
	if (!get_bit(lapic, REG_TMR, vector))
		return;
	if (lapic->lint_remote_irr && (u8)*lapic_reg(lapic, REG_LVT + LVT_LINT0) == vector) {
		lapic->lint_remote_irr = false;
		lapic_service_lint0(lapic);
	}
	if (!(*lapic_reg(lapic, REG_SVR) & SVR_SUPPRESS_EOI))
		lapic->ops->eoi(lapic->opaque, vector);
}

bool lapic_end_may_wait(const struct lapic *lapic)
{
	int vector = highest_bit(lapic, REG_ISR);

	return vector >= 0 && highest_bit(lapic, REG_IRR) < 0 && !get_bit(lapic, REG_TMR, (u8)vector);
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

/* What the registers say of the ID, in either mode; the mode changes from xAPIC to x2APIC, and back by a reset only. */
void lapic_update_match(struct lapic *lapic)
{
	bool x2apic = lapic_x2apic(lapic), enabled = lapic_hardware_enabled(lapic);
	if (x2apic) {
		*lapic_reg(lapic, REG_ID) = lapic->id;
		*lapic_reg(lapic, REG_LDR) = x2apic_ldr(lapic->id);
	}
	u64 match = x2apic ? lapic->id : *lapic_reg(lapic, REG_ID) >> 24;

	match |= x2apic ? 0 : (u64)(*lapic_reg(lapic, REG_LDR) >> 24) << MATCH_LDR_SHIFT;
	match |= *lapic_reg(lapic, REG_DFR) >> 28 == 0xf ? MATCH_FLAT : 0;
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
	__builtin_memset(lapic->page, 0, sizeof(lapic->own));
	lapic->vectors_changed = true;
	lapic->errors = 0;
	lapic->lint_remote_irr = false;
	*lapic_reg(lapic, REG_ID) = lapic->id << 24;
	*lapic_reg(lapic, REG_VERSION) = LAPIC_VERSION;
	*lapic_reg(lapic, REG_DFR) = 0xffffffff;
	*lapic_reg(lapic, REG_SVR) = 0xff;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		*lapic_reg(lapic, REG_LVT + i) = MASKED_LVT;
	lapic_timer_reset(lapic);
	lapic_update_match(lapic);
}

void lapic_reset(struct lapic *lapic, bool init)
{
	if (!init)
		lapic->base = (lapic->base & APIC_BASE_BSP) | APIC_BASE_EN | 0xfee00000;
	u32 xapic_id = *lapic_reg(lapic, REG_ID);
	lapic_reset_registers(lapic);
	if (init)
		*lapic_reg(lapic, REG_ID) = xapic_id;
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
	lapic->page = lapic->own;
	lapic_reset(lapic, false);
}

void lapic_use_page(struct lapic *lapic, void *page)
{
	u32 *to = page ? page : lapic->own;
	if (to != lapic->page)
		__builtin_memcpy(to, lapic->page, sizeof(lapic->own));
	lapic->page = to;
	lapic->vectors_changed = true;
}

void lapic_set_virtual_wire(struct lapic *lapic)
{
	*lapic_reg(lapic, REG_SVR) = 0xff | SVR_ENABLE;
	*lapic_reg(lapic, REG_LVT + LVT_LINT0) = DELIVERY_EXTINT << LVT_DELIVERY_SHIFT;
	*lapic_reg(lapic, REG_LVT + LVT_LINT1) = DELIVERY_NMI << LVT_DELIVERY_SHIFT;
	lapic_update_match(lapic);
}

static bool loaded(void *object)
{
	struct lapic *lapic = object;
	lapic_use_page(lapic, NULL);
	lapic_timer_loaded(lapic);
	lapic_update_match(lapic);
	return lapic->tsc.hz;
}

const struct state_table lapic_state = STATE_TABLE(struct lapic, loaded,
	STATE_NONE(struct lapic, page), STATE(struct lapic, own), STATE_NONE(struct lapic, direct), STATE_NONE(struct lapic, posted), STATE_NONE(struct lapic, vectors_changed), STATE(struct lapic, base),
	STATE(struct lapic, errors), STATE(struct lapic, lint_line), STATE(struct lapic, lint_remote_irr),
	STATE(struct lapic, timer.deadline), STATE(struct lapic, timer.not_before), STATE(struct lapic, timer.tsc_deadline),
	STATE_NONE(struct lapic, timer.mode), STATE_NONE(struct lapic, timer.shift),
	STATE(struct lapic, tsc.anchor), STATE(struct lapic, tsc.anchor_now), STATE(struct lapic, tsc.hz),
	STATE_NONE(struct lapic, match), STATE_SAME(struct lapic, id), STATE_SAME(struct lapic, physical_bits),
	STATE_SAME(struct lapic, has_x2apic), STATE_SAME(struct lapic, has_tsc_deadline), STATE_NONE(struct lapic, ops),
	STATE_NONE(struct lapic, opaque));
