/* What the files of the local APIC share: lapic.c (acceptance, priority, state), lapic_timer.c and lapic_registers.c.
 */
#ifndef NADIR_IRQ_LAPIC_INTERNAL_H
#define NADIR_IRQ_LAPIC_INTERNAL_H

#include "irq/lapic.h"

/* Registers by offset / 16, which is also the offset from MSR 800H. "Local APIC Register Address Map". */
enum lapic_register {
	REG_ID = 0x02,
	REG_VERSION = 0x03,
	REG_TPR = 0x08,
	REG_APR = 0x09,
	REG_PPR = 0x0a,
	REG_EOI = 0x0b,
	REG_RRD = 0x0c,
	REG_LDR = 0x0d,
	REG_DFR = 0x0e,
	REG_SVR = 0x0f,
	REG_ISR = 0x10,
	REG_TMR = 0x18,
	REG_IRR = 0x20,
	REG_ESR = 0x28,
	REG_ICR_LOW = 0x30,
	REG_ICR_HIGH = 0x31,
	REG_LVT = 0x32, /* LVT_COUNT of them, in the order of enum lapic_lvt */
	REG_TIMER_INITIAL = 0x38,
	REG_TIMER_CURRENT = 0x39,
	REG_TIMER_DIVIDE = 0x3e,
	REG_SELF_IPI = 0x3f,
};

/* Version 14H, six LVT entries, EOI-broadcast suppression. */
#define LAPIC_VERSION 0x01050014u

#define SVR_ENABLE BIT(8)
#define SVR_SUPPRESS_EOI BIT(12)

#define LVT_DELIVERY_SHIFT 8
#define LVT_REMOTE_IRR BIT(14)
#define LVT_LEVEL BIT(15)
#define LVT_MASKED BIT(16)
#define LVT_TIMER_MODE_SHIFT 17
#define LVT_TSC_DEADLINE BIT(18)

enum timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };

#define ESR_SEND_ILLEGAL_VECTOR BIT(5)
#define ESR_RECEIVE_ILLEGAL_VECTOR BIT(6)
#define ESR_ILLEGAL_REGISTER BIT(7)

static inline u32 *lapic_reg(const struct lapic *lapic, unsigned index)
{
	return &lapic->page[4 * index];
}

static inline bool lapic_hardware_enabled(const struct lapic *lapic)
{
	return lapic->base & APIC_BASE_EN;
}

static inline bool lapic_x2apic(const struct lapic *lapic)
{
	return lapic->base & APIC_BASE_EXTD;
}

static inline bool lapic_software_enabled(const struct lapic *lapic)
{
	return *lapic_reg(lapic, REG_SVR) & SVR_ENABLE;
}

/* lapic.c */
void lapic_reset_registers(struct lapic *lapic);
void lapic_update_match(struct lapic *lapic);
void lapic_error(struct lapic *lapic, u32 errors);
u32 lapic_ppr(const struct lapic *lapic);
u32 lapic_apr(const struct lapic *lapic);
void lapic_service_lint0(struct lapic *lapic);

/* lapic_timer.c */
/* The registers were reset, or loaded: what is derived of them. */
void lapic_timer_reset(struct lapic *lapic);
void lapic_timer_loaded(struct lapic *lapic);
void lapic_timer_stop(struct lapic *lapic);
void lapic_timer_start(struct lapic *lapic, u64 now);
u32 lapic_timer_current(const struct lapic *lapic, u64 now);
void lapic_timer_set_divide(struct lapic *lapic, u32 divide, u64 now);
void lapic_timer_set_lvt(struct lapic *lapic, u32 lvt);
u64 lapic_timer_tsc_deadline(const struct lapic *lapic);
void lapic_timer_set_tsc_deadline(struct lapic *lapic, u64 deadline);

#endif
