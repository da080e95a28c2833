/* Access to the local APIC's registers: by a table, from memory (xAPIC) and by MSR (x2APIC).
 * Intel SDM volume 3, "Local APIC Register Address Map", "x2APIC Register Address Space", "Reserved Bit Checking". */
#include "irq/lapic_internal.h"

/* Who may do what. In xAPIC mode a register without any access is an illegal address; in x2APIC mode a missing access
 * is #GP. */
#define XR BIT(0)
#define XW BIT(1)
#define X2R BIT(2)
#define X2W BIT(3)
#define RW (XR | XW | X2R | X2W)

struct register_rule {
	u8 access;
	u32 writable;
	u32 ignored; /* read-only bits, which may be written without #GP */
	u32 (*read)(struct lapic *lapic, unsigned index, u64 now);              /* NULL: as it is in the page */
	void (*write)(struct lapic *lapic, unsigned index, u32 value, u64 now); /* NULL: as it is in the page */
};

/* ---- reads ---- */

static u32 read_apr(struct lapic *lapic, unsigned index, u64 now)
{
	return lapic_apr(lapic);
}

static u32 read_ppr(struct lapic *lapic, unsigned index, u64 now)
{
	return lapic_ppr(lapic);
}

static u32 read_timer(struct lapic *lapic, unsigned index, u64 now)
{
	return lapic_timer_current(lapic, now);
}

/* ---- writes ---- */

static void write_routing(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	*lapic_reg(lapic, index) = value;
	lapic_update_match(lapic);
}

static void write_dfr(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	write_routing(lapic, index, value | 0x0fffffff, now);
}

static void write_eoi(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	*lapic_reg(lapic, index) = 0; /* a processor may have stored it */
	lapic_end_interrupt(lapic);
}

/* "Local APIC State After It Has Been Software Disabled": every LVT entry is masked. */
static void write_svr(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	write_routing(lapic, index, value, now);
	if (lapic_software_enabled(lapic))
		return;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		*lapic_reg(lapic, REG_LVT + i) |= LVT_MASKED;
}

/* A write makes the errors since the last one readable. */
static void write_esr(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	*lapic_reg(lapic, REG_ESR) = lapic->errors;
	lapic->errors = 0;
}

static void write_lvt(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	*lapic_reg(lapic, index) = value | (lapic_software_enabled(lapic) ? 0 : (u32)LVT_MASKED);
	if (index == REG_LVT + LVT_LINT0)
		lapic_service_lint0(lapic); /* which restores Remote IRR */
}

static void write_timer_lvt(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	lapic_timer_set_lvt(lapic, value | (lapic_software_enabled(lapic) ? 0 : (u32)LVT_MASKED));
}

static void write_timer_initial(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	*lapic_reg(lapic, REG_TIMER_INITIAL) = value;
	lapic_timer_start(lapic, now);
}

static void write_timer_divide(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	lapic_timer_set_divide(lapic, value, now);
}

/* ---- interprocessor interrupts ---- */

#define ICR_DELIVERY_SHIFT 8
#define ICR_LOGICAL BIT(11)
#define ICR_ASSERT BIT(14)
#define ICR_LEVEL BIT(15)
#define ICR_SHORTHAND_SHIFT 18
#define ICR_WRITABLE 0x000ccfffu
#define ICR_STATUS 0x00001000u

/* "Valid Combinations for the Pentium 4 and Intel Xeon Processors' Local xAPIC Interrupt Command Register": the
 * delivery modes, as a set, that each shorthand may have. */
static const u8 valid_deliveries[] = {
	[SHORTHAND_NONE] = BIT(DELIVERY_FIXED) | BIT(DELIVERY_LOWEST_PRIORITY) | BIT(DELIVERY_SMI) | BIT(DELIVERY_NMI) |
			   BIT(DELIVERY_INIT) | BIT(DELIVERY_SIPI),
	[SHORTHAND_SELF] = BIT(DELIVERY_FIXED),
	[SHORTHAND_ALL] = BIT(DELIVERY_FIXED),
	[SHORTHAND_OTHERS] = BIT(DELIVERY_FIXED) | BIT(DELIVERY_LOWEST_PRIORITY) | BIT(DELIVERY_SMI) |
			     BIT(DELIVERY_NMI) | BIT(DELIVERY_INIT) | BIT(DELIVERY_SIPI),
};

static bool has_vector(const struct interrupt *interrupt)
{
	return interrupt->delivery == DELIVERY_FIXED || interrupt->delivery == DELIVERY_LOWEST_PRIORITY;
}

/* All IPIs are edges. The one use of a level, INIT de-assert, does nothing since the Pentium 4. */
static void send_ipi(struct lapic *lapic, u32 icr, u32 destination)
{
	struct interrupt ipi = {
		.destination = destination,
		.vector = (u8)icr,
		.delivery = (icr >> ICR_DELIVERY_SHIFT) & 7,
		.shorthand = (icr >> ICR_SHORTHAND_SHIFT) & 3,
		.logical = icr & ICR_LOGICAL,
	};

	if (!(valid_deliveries[ipi.shorthand] & BIT(ipi.delivery)) || ipi.delivery == DELIVERY_SMI)
		return;
	if (ipi.delivery == DELIVERY_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT))
		return;
	if (has_vector(&ipi) && ipi.vector < 16) {
		lapic_error(lapic, ESR_SEND_ILLEGAL_VECTOR);
		return;
	}
	if (ipi.shorthand == SHORTHAND_SELF || ipi.shorthand == SHORTHAND_ALL)
		lapic_accept(lapic, &ipi);
	if (ipi.shorthand == SHORTHAND_SELF)
		return;
	if (ipi.shorthand == SHORTHAND_ALL)
		ipi.shorthand = SHORTHAND_OTHERS;
	lapic->ops->send(lapic->opaque, &ipi);
}

static void write_icr_low(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	*lapic_reg(lapic, REG_ICR_LOW) = value;
	send_ipi(lapic, value, destination_from_8((u8)(*lapic_reg(lapic, REG_ICR_HIGH) >> 24)));
}

static void write_self_ipi(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	send_ipi(lapic, value | SHORTHAND_SELF << ICR_SHORTHAND_SHIFT, 0);
}

/* ---- the table ---- */

#define LVT_STATUS (u32) BIT(12)
#define LVT_PIN_STATUS (LVT_STATUS | (u32)LVT_REMOTE_IRR)

static const struct register_rule rules[LAPIC_REGISTER_COUNT] = {
	[REG_ID] = { XR | XW | X2R, 0xff000000, .write = write_routing },
	[REG_VERSION] = { XR | X2R },
	[REG_TPR] = { RW, 0xff },
	[REG_APR] = { XR, .read = read_apr },
	[REG_PPR] = { XR | X2R, .read = read_ppr },
	[REG_EOI] = { XW | X2W, .write = write_eoi },
	[REG_RRD] = { XR },
	[REG_LDR] = { XR | XW | X2R, 0xff000000, .write = write_routing },
	[REG_DFR] = { XR | XW, 0xf0000000, .write = write_dfr },
	[REG_SVR] = { RW, 0x11ff, 0x200, .write = write_svr },
	[REG_ISR... REG_ISR + 7] = { XR | X2R },
	[REG_TMR... REG_TMR + 7] = { XR | X2R },
	[REG_IRR... REG_IRR + 7] = { XR | X2R },
	[REG_ESR] = { RW, .write = write_esr },
	[REG_ICR_LOW] = { XR | XW, ICR_WRITABLE, .write = write_icr_low },
	[REG_ICR_HIGH] = { XR | XW, 0xff000000 },
	[REG_LVT + LVT_TIMER] = { RW, 0x700ff, LVT_STATUS, .write = write_timer_lvt },
	[REG_LVT + LVT_THERMAL] = { RW, 0x107ff, LVT_STATUS, .write = write_lvt },
	[REG_LVT + LVT_PERFORMANCE] = { RW, 0x107ff, LVT_STATUS, .write = write_lvt },
	[REG_LVT + LVT_LINT0] = { RW, 0x1a7ff, LVT_PIN_STATUS, .write = write_lvt },
	[REG_LVT + LVT_LINT1] = { RW, 0x1a7ff, LVT_PIN_STATUS, .write = write_lvt },
	[REG_LVT + LVT_ERROR] = { RW, 0x100ff, LVT_STATUS, .write = write_lvt },
	[REG_TIMER_INITIAL] = { RW, 0xffffffff, .write = write_timer_initial },
	[REG_TIMER_CURRENT] = { XR | X2R, .read = read_timer },
	[REG_TIMER_DIVIDE] = { RW, 0xb, .write = write_timer_divide },
	[REG_SELF_IPI] = { X2W, 0xff, .write = write_self_ipi },
};

static u32 register_read(struct lapic *lapic, unsigned index, u64 now)
{
	return rules[index].read ? rules[index].read(lapic, index, now) : *lapic_reg(lapic, index);
}

static void register_write(struct lapic *lapic, unsigned index, u32 value, u64 now)
{
	value &= rules[index].writable;
	if (rules[index].write)
		rules[index].write(lapic, index, value, now);
	else
		*lapic_reg(lapic, index) = value;
}

/* ---- xAPIC ---- */

bool lapic_decodes(const struct lapic *lapic, gpa_t gpa)
{
	return (gpa & PAGE_MASK) == (lapic->base & PAGE_MASK) && lapic_hardware_enabled(lapic) && !lapic_x2apic(lapic);
}

/* Whether the register exists in xAPIC mode; says so in the ESR if not. */
static bool xapic_legal(struct lapic *lapic, u64 offset)
{
	unsigned index = (unsigned)offset / 16;

	if (index < LAPIC_REGISTER_COUNT && (rules[index].access & (XR | XW)))
		return true;
	lapic_error(lapic, ESR_ILLEGAL_REGISTER);
	return false;
}

u64 lapic_mmio_read(struct lapic *lapic, u64 offset, unsigned size, u64 now)
{
	lapic_advance(lapic, now);
	if (!xapic_legal(lapic, offset) || !(rules[offset / 16].access & XR) || offset % 16 > 3)
		return 0;
	return ((u64)register_read(lapic, (unsigned)offset / 16, now) >> (offset % 4 * 8)) & size_mask(size);
}

void lapic_mmio_write(struct lapic *lapic, u64 offset, unsigned size, u64 value, u64 now)
{
	lapic_advance(lapic, now);
	if (offset % 16 || size < 4 || !xapic_legal(lapic, offset) || !(rules[offset / 16].access & XW))
		return;
	register_write(lapic, (unsigned)offset / 16, (u32)value, now);
	lapic_advance(lapic, now);
}

void lapic_written(struct lapic *lapic, u64 offset, u64 now)
{
	unsigned index = (unsigned)offset / 16;
	u8 needed = lapic_x2apic(lapic) ? X2W : XW;
	lapic_advance(lapic, now);
	if (index < LAPIC_REGISTER_COUNT && (rules[index].access & needed))
		register_write(lapic, index, *lapic_reg(lapic, index), now);
	lapic_advance(lapic, now);
}

/* ---- x2APIC ---- */

/* The ICR is one register of 64 bits, without a status bit; bit 12 may nevertheless be written. */
static bool x2apic_write_icr(struct lapic *lapic, u64 value)
{
	if ((u32)value & ~(ICR_WRITABLE | ICR_STATUS))
		return false;
	*lapic_reg(lapic, REG_ICR_LOW) = (u32)value & ICR_WRITABLE;
	*lapic_reg(lapic, REG_ICR_HIGH) = (u32)(value >> 32);
	send_ipi(lapic, (u32)value, (u32)(value >> 32));
	return true;
}

static bool x2apic_read(struct lapic *lapic, unsigned index, u64 now, u64 *value)
{
	if (index == REG_ICR_LOW) {
		*value = (u64)*lapic_reg(lapic, REG_ICR_HIGH) << 32 | *lapic_reg(lapic, REG_ICR_LOW);
		return true;
	}
	if (index >= LAPIC_REGISTER_COUNT || !(rules[index].access & X2R))
		return false;
	*value = register_read(lapic, index, now);
	return true;
}

static bool x2apic_write(struct lapic *lapic, unsigned index, u64 now, u64 value)
{
	if (index == REG_ICR_LOW)
		return x2apic_write_icr(lapic, value);
	if (index >= LAPIC_REGISTER_COUNT || !(rules[index].access & X2W))
		return false;
	if (value & ~(u64)(rules[index].writable | rules[index].ignored))
		return false;
	register_write(lapic, index, (u32)value, now);
	return true;
}

/* "Local x2APIC State Transitions". A mode is EN and EXTD of IA32_APIC_BASE. */
enum mode { MODE_DISABLED, MODE_INVALID, MODE_XAPIC, MODE_X2APIC };

static const u8 transitions[] = {
	[MODE_DISABLED] = BIT(MODE_DISABLED) | BIT(MODE_XAPIC),
	[MODE_INVALID] = 0,
	[MODE_XAPIC] = BIT(MODE_DISABLED) | BIT(MODE_XAPIC) | BIT(MODE_X2APIC),
	[MODE_X2APIC] = BIT(MODE_DISABLED) | BIT(MODE_X2APIC),
};

static enum mode mode_of(u64 base)
{
	return (base >> 10) & 3;
}

static bool write_base(struct lapic *lapic, u64 value)
{
	u64 valid = (mask_of(lapic->physical_bits) & PAGE_MASK) | APIC_BASE_BSP | APIC_BASE_EN |
		    (lapic->has_x2apic ? APIC_BASE_EXTD : 0);
	enum mode old = mode_of(lapic->base), new = mode_of(value);

	if ((value & ~valid) || !(transitions[old] & BIT(new)))
		return false;
	lapic->base = value;
	if (new == MODE_DISABLED && old != MODE_DISABLED)
		lapic_reset_registers(lapic);
	lapic_update_match(lapic);
	return true;
}

bool lapic_owns_msr(u32 index)
{
	return index == MSR_APIC_BASE || index == MSR_TSC_DEADLINE || (index >= MSR_X2APIC && index <= MSR_X2APIC_LAST);
}

bool lapic_msr_read(struct lapic *lapic, u32 index, u64 now, u64 *value)
{
	lapic_advance(lapic, now);
	if (index == MSR_APIC_BASE) {
		*value = lapic->base;
		return true;
	}
	if (index == MSR_TSC_DEADLINE) {
		*value = lapic_timer_tsc_deadline(lapic);
		return lapic->has_tsc_deadline;
	}
	return lapic_x2apic(lapic) && x2apic_read(lapic, index - MSR_X2APIC, now, value);
}

bool lapic_msr_write(struct lapic *lapic, u32 index, u64 now, u64 value)
{
	bool ok;

	lapic_advance(lapic, now);
	if (index == MSR_APIC_BASE)
		return write_base(lapic, value);
	if (index == MSR_TSC_DEADLINE) {
		ok = lapic->has_tsc_deadline;
		if (ok)
			lapic_timer_set_tsc_deadline(lapic, value);
	} else {
		ok = lapic_x2apic(lapic) && x2apic_write(lapic, index - MSR_X2APIC, now, value);
	}
	lapic_advance(lapic, now);
	return ok;
}
