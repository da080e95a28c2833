/* The two registers by which software resets a PC: the reset control register at port 0xcf9 (Intel ICH/PCH data sheets,
 * "RST_CNT: Reset Control Register") and system control port A at 0x92 ("PORT92: Fast A20 and Init Register").
 *
 * Port 0xcf9 lies within the PCI host bridge's CONFIG_ADDRESS register, which is a register for 32-bit accesses only.
 * All others pass the bridge to the bus behind it; this chip lives there (pci.h). */
#ifndef NADIR_DEV_RESET_H
#define NADIR_DEV_RESET_H

#include "dev/bus.h"
#include "irq/wire.h"
#include "lib/state.h"

struct reset {
	/* Wired by the board before reset_attach, kept by reset_reset. */
	void (*reset)(void *opaque); /* the guest asked for a reset; called from a register write */
	void *opaque;
	struct wire a20; /* this chip's share of the A20 gate: the line is open if this or the keyboard controller says
			    so. It is a register alone: as on processors without A20M#, no address is masked. */

	u8 control, port92;
};

/* Firmware leaves the A20 gate open, and so does this. */
void reset_reset(struct reset *reset);
/* Reset and answer at 0x92 of `io` and at 0xcf9 of `behind`, the bus behind the PCI bridge. 0, or a negative value as
 * bus_add. */
int reset_attach(struct reset *reset, struct bus *io, struct bus *behind);

extern const struct state_table reset_state;

#endif
