/* MSI-X: a device's interrupts as messages, each with its own address, data and mask (PCI Local Bus Specification 3.0,
 * "MSI-X Capability and Table Structures"). Table and pending bits fill a BAR of their own. */
#ifndef NADIR_DEV_MSIX_H
#define NADIR_DEV_MSIX_H

#include "dev/pci.h"
#include "lib/state.h"

#define MSIX_VECTORS_MAX 64

struct msix_entry {
	u32 address_low, address_high, data, control;
};

struct msix {
	struct pci_function *function;
	unsigned capability; /* its offset in configuration space */
	unsigned vectors;
	struct msix_entry table[MSIX_VECTORS_MAX];
	u64 pending;
};

/* Give the function MSI-X with `vectors` vectors, 1 to MSIX_VECTORS_MAX, in the 32-bit BAR `bar`. Before pci_add. A
 * negative value if they do not fit. */
int msix_add(struct msix *msix, struct pci_function *function, unsigned bar, unsigned vectors);
/* Everything masked, nothing pending. pci_reset does the capability. */
void msix_reset(struct msix *msix);
/* The guest wrote to configuration space: to be called from the function's `written`. */
void msix_config_written(struct msix *msix);

bool msix_enabled(const struct msix *msix);
/* Send the message of `vector`, or remember it while it is masked. Vectors that do not exist are ignored. */
void msix_signal(struct msix *msix, unsigned vector);

extern const struct state_table msix_state;

#endif
