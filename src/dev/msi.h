/* MSI: a function's one interrupt as a message (PCI Local Bus Specification 3.0, "MSI Capability Structure"), with a 64-bit address and no mask. */
#ifndef NADIR_DEV_MSI_H
#define NADIR_DEV_MSI_H

#include "dev/pci.h"

struct msi {
	struct pci_function *function;
	unsigned capability; /* its offset in configuration space, which holds all of the state */
};

/* Give the function the capability, before pci_add. A negative value if it does not fit. */
int msi_add(struct msi *msi, struct pci_function *function);
/* While this holds the function must not use its pin. */
bool msi_enabled(const struct msi *msi);
/* Send the message, if it is enabled. */
void msi_signal(struct msi *msi);

#endif
