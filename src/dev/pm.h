/* ACPI fixed hardware (ACPI specification, "ACPI Hardware Specification", "Fixed Hardware Feature Control Bits"): the
 * PM1a event and control blocks, the power-management timer, and the power button. There is no SMI command port, so
 * SCI_EN always reads as set. There are eight general-purpose events ("General-Purpose Event Register Blocks"), each a pulse.
 *
 * The tables must describe it so: PM1a_EVT_BLK at the port with length 4, PM1a_CNT_BLK at +4 with length 2, PM_TMR_BLK
 * at +8 with length 4 and TMR_VAL_EXT set (32 bits), GPE0_BLK at +12 with length 2, SCI level-triggered, \_S5 with the type PM_SLP_TYP_S5. */
#ifndef NADIR_DEV_PM_H
#define NADIR_DEV_PM_H

#include "dev/bus.h"
#include "irq/wire.h"
#include "lib/state.h"

#define PM_TIMER_HZ 3579545ull
#define PM_REGION_SIZE 14
#define PM_GPE0 12 /* the general-purpose events' status, then which of them interrupt; a byte each */

struct pm {
	/* Wired by the board before pm_attach, kept by pm_reset. */
	struct wire sci;
	void (*power_off)(void *opaque); /* the guest entered S5; called from a register write */
	void *opaque;

	u16 status, enable, control;
	u8 gpe_status, gpe_enable;
	u64 half_periods; /* times the timer's top bit has changed since the clock's zero, as far as TMR_STS has seen */
};

void pm_reset(struct pm *pm, u64 now);
/* Reset and answer at `port` (PM_REGION_SIZE bytes); 0, or a negative value as bus_add. */
int pm_attach(struct pm *pm, struct bus *io, u64 port, u64 now);

/* The power button is pressed: asks the guest to shut down. */
void pm_power_button(struct pm *pm);
/* General-purpose event `number`, of 8, happens. */
void pm_general_event(struct pm *pm, unsigned number);

/* The next change of the timer's top bit while it would interrupt, or HOST_NEVER. */
u64 pm_deadline(const struct pm *pm);
void pm_advance(struct pm *pm, u64 now);

extern const struct state_table pm_state;

#endif
