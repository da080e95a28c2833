/* The ISA bridge of Intel's ICH9, as firmware for QEMU's q35 machine looks for it: what it decodes is fixed here. Intel I/O Controller Hub 9
 * (ICH9) Family data sheet, "LPC Interface PCI Register Address Map". */
#ifndef NADIR_DEV_LPC_H
#define NADIR_DEV_LPC_H

#include "dev/pci.h"

struct lpc {
	struct pci_function pci;
};

/* Plug it in; 0, or a negative value as pci_add. */
int lpc_attach(struct lpc *lpc, struct pci_host *host);
/* After pci_reset. */
void lpc_reset(struct lpc *lpc);

extern const struct state_table lpc_state;

#endif
