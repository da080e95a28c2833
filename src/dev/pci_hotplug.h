/* Plugging PCI devices in and out of a running machine: the registers by which the guest's ACPI code (boot/dsdt.c) learns what has come and what is
 * wanted back, and lets go of it. They are those of QEMU (docs/specs/acpi_pci_hotplug), at bus 0; a bit for each device of the bus.
 *
 *     +0  read: devices that were plugged in since this was last read
 *     +4  read: devices that are wanted back, until they are ejected
 *     +8  write: eject these devices
 *
 * The guest may eject what nobody asked for. Other accesses than whole registers read as zero and have no effect. */
#ifndef NADIR_DEV_PCI_HOTPLUG_H
#define NADIR_DEV_PCI_HOTPLUG_H

#include "dev/bus.h"
#include "dev/pm.h"
#include "lib/state.h"

#define PCI_HOTPLUG_REGION_SIZE 12
enum { PCI_HOTPLUG_UP = 0, PCI_HOTPLUG_DOWN = 4, PCI_HOTPLUG_EJECT = 8 };

struct pci_hotplug {
	/* Wired by the board before pci_hotplug_attach, kept by pci_hotplug_reset. */
	struct pm *pm; /* whose event GPE_PCI_HOTPLUG tells the guest to look */
	void (*eject)(void *opaque, unsigned device); /* take it out, if it is there and may go */
	void *opaque;

	u32 up, down;
};

/* Answer at `port`; 0, or a negative value as bus_add. */
int pci_hotplug_attach(struct pci_hotplug *hotplug, struct bus *io, u64 port);
/* Whatever was wanted back is ejected: the guest that used it is gone. */
void pci_hotplug_reset(struct pci_hotplug *hotplug);

/* Tell the guest that this device has come; ask it for this device. */
void pci_hotplug_come(struct pci_hotplug *hotplug, unsigned device);
void pci_hotplug_ask(struct pci_hotplug *hotplug, unsigned device);

extern const struct state_table pci_hotplug_state;

#endif
