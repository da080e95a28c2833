/* ACPI fixed hardware (pm.h). Every register may be read and written by the byte. */
#include "dev/pm.h"

#include "dev/map.h"
#include "host/port.h"

enum { PM1_STATUS = 0, PM1_ENABLE = 2, PM1_CONTROL = 4, PM_TIMER = 8, GPE0_STATUS = PM_GPE0, GPE0_ENABLE };

/* "PM1 Status Registers" and "PM1 Enable Registers" share their bit numbers. */
#define PM1_TMR 0x0001
#define PM1_GBL 0x0020
#define PM1_PWRBTN 0x0100
#define PM1_RTC 0x0400
#define PM1_EVENTS (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC)

/* "PM1 Control Registers". GBL_RLS and SLP_EN are write-only. */
#define PM1_SCI_EN 0x0001
#define PM1_BM_RLD 0x0002
#define PM1_SLP_TYP_SHIFT 10
#define PM1_SLP_TYP 0x1c00
#define PM1_SLP_EN 0x2000

#define TIMER_TOP_BIT 31
#define NS_PER_S 1000000000ull

/* Ticks since the clock's zero, exact for any `now`. */
static u64 ticks_at(u64 now)
{
	return now / NS_PER_S * PM_TIMER_HZ + now % NS_PER_S * PM_TIMER_HZ / NS_PER_S;
}

/* The first time at which `ticks` are over. */
static u64 time_of(u64 ticks)
{
	u64 rest = ticks % PM_TIMER_HZ * NS_PER_S;
	return ticks / PM_TIMER_HZ * NS_PER_S + (rest + PM_TIMER_HZ - 1) / PM_TIMER_HZ;
}

static void update_sci(struct pm *pm)
{
	wire_set(&pm->sci, (pm->status & pm->enable) || (pm->gpe_status & pm->gpe_enable));
}

static u64 pm_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct pm *pm = device;
	pm_advance(pm, now);
	u64 low = pm->status | (u64)pm->enable << 16 | (u64)pm->control << 32;
	u64 high = (u32)ticks_at(now) | (u64)pm->gpe_status << 32 | (u64)pm->gpe_enable << 40;
	u64 value = 0;
	for (unsigned i = 0; i < size; i++) {
		u64 at = offset + i;
		u8 byte = (u8)(at < PM_TIMER ? low >> (8 * at) : high >> (8 * (at - PM_TIMER)));
		value |= (u64)byte << (8 * i);
	}
	return value;
}

/* Sleep type and enable share the upper byte of the control register, so that byte alone starts the transition. */
static void write_control_high(struct pm *pm, u8 byte)
{
	u16 value = (u16)(byte << 8);
	pm->control = (pm->control & ~PM1_SLP_TYP) | (value & PM1_SLP_TYP);
	if ((value & PM1_SLP_EN) && (value & PM1_SLP_TYP) >> PM1_SLP_TYP_SHIFT == PM_SLP_TYP_S5 && pm->power_off)
		pm->power_off(pm->opaque);
}

static void write_byte(struct pm *pm, u64 offset, u8 byte)
{
	switch (offset) {
	case PM1_STATUS:
	case PM1_STATUS + 1: /* write 1 to clear */
		pm->status &= ~(byte << 8 * (offset - PM1_STATUS));
		break;
	case PM1_ENABLE:
		pm->enable = ((pm->enable & 0xff00) | byte) & PM1_EVENTS;
		break;
	case PM1_ENABLE + 1:
		pm->enable = ((pm->enable & 0x00ff) | byte << 8) & PM1_EVENTS;
		break;
	case PM1_CONTROL:
		pm->control = (pm->control & ~PM1_BM_RLD) | (byte & PM1_BM_RLD);
		break;
	case PM1_CONTROL + 1:
		write_control_high(pm, byte);
		break;
	case GPE0_STATUS: /* write 1 to clear */
		pm->gpe_status &= (u8)~byte;
		break;
	case GPE0_ENABLE:
		pm->gpe_enable = byte;
		break;
	}
}

static void pm_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct pm *pm = device;
	pm_advance(pm, now);
	for (unsigned i = 0; i < size; i++)
		write_byte(pm, offset + i, (u8)(value >> (8 * i)));
	update_sci(pm);
}

static const struct region_ops pm_ops = { .read = pm_read, .write = pm_write, .width = 4 };

void pm_reset(struct pm *pm, u64 now)
{
	pm->status = 0;
	pm->enable = 0;
	pm->control = PM1_SCI_EN;
	pm->gpe_status = pm->gpe_enable = 0;
	pm->half_periods = ticks_at(now) >> TIMER_TOP_BIT;
	update_sci(pm);
}

int pm_attach(struct pm *pm, struct bus *io, u64 port, u64 now)
{
	pm_reset(pm, now);
	return bus_add(io, "ACPI PM", port, PM_REGION_SIZE, &pm_ops, pm);
}

void pm_power_button(struct pm *pm)
{
	pm->status |= PM1_PWRBTN;
	update_sci(pm);
}

void pm_general_event(struct pm *pm, unsigned number)
{
	pm->gpe_status |= (u8)BIT(number);
	update_sci(pm);
}

u64 pm_deadline(const struct pm *pm)
{
	if (!(pm->enable & PM1_TMR) || (pm->status & PM1_TMR))
		return HOST_NEVER;
	return time_of((pm->half_periods + 1) << TIMER_TOP_BIT);
}

/* "Power Management Timer": TMR_STS is set whenever the top bit of the counter changes, up or down. */
void pm_advance(struct pm *pm, u64 now)
{
	u64 half_periods = ticks_at(now) >> TIMER_TOP_BIT;
	if (half_periods <= pm->half_periods)
		return;
	pm->half_periods = half_periods;
	pm->status |= PM1_TMR;
	update_sci(pm);
}

const struct state_table pm_state = STATE_TABLE(struct pm, NULL,
	STATE_IN(struct pm, sci, wire_state), STATE_NONE(struct pm, power_off), STATE_NONE(struct pm, opaque), STATE(struct pm, status),
	STATE(struct pm, enable), STATE(struct pm, control), STATE(struct pm, gpe_status), STATE(struct pm, gpe_enable), STATE(struct pm, half_periods));
