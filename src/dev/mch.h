/* The host bridge's memory side: Intel's Q35 MCH, as QEMU's q35 machine shows it, so that firmware for that machine knows its way. Intel 3
 * Series Express Chipset Family data sheet, "PCIEXBAR" and "PAM0: Programmable Attribute Map 0" to "PAM6".
 *
 * PCIEXBAR moves the ECAM window. The PAM registers say, for 13 areas between 0xc0000 and 1 MiB, whether reads and whether writes go to RAM;
 * what does not goes to the bus behind, where the end of the firmware's ROM lies in the last 128 KiB and nothing takes writes. Guest RAM
 * at these addresses always holds what reads see: what they do not see is kept here, and changes places with it. */
#ifndef NADIR_DEV_MCH_H
#define NADIR_DEV_MCH_H

#include "dev/pci.h"
#include "mmu/ram.h"

#define MCH_PAM_REGISTERS 7

struct mch {
	/* Wired by the board before mch_attach, kept by mch_reset. */
	void (*memory_changed)(void *opaque); /* every vCPU's view of memory is old; called from a register write */
	void *opaque;
	bool firmware; /* a ROM starts the machine: areas are ROM after reset. Otherwise all is as firmware leaves it for a kernel: RAM. */

	struct pci_host *host;
	struct ram *ram;
	u8 *hidden; /* MAP_PAM_SIZE bytes: what reads of the areas do not see, be it RAM or ROM */
	u8 pam[MCH_PAM_REGISTERS]; /* as they are in force */
};

/* Make the bridge of `host`, which is attached, an MCH that switches `ram`; 0, or a negative value: no memory, or as bus_add. */
int mch_attach(struct mch *mch, struct pci_host *host, struct ram *ram);
void mch_destroy(struct mch *mch);
/* After pci_reset. Memory is to be cleared and the ROM put below 1 MiB after it. */
void mch_reset(struct mch *mch);

/* Saving and loading; after the PCI host. */
void mch_state(struct state *s, struct mch *mch);

/* Where the ECAM window is; 0: nowhere. */
u64 mch_ecam(const struct mch *mch);

#endif
