/* The ISA bridge (lpc.h). Interrupt routing to the 8259 pair can be written and read, and has no effect: PCI pins go to the I/O APIC alone. */
#include "dev/lpc.h"

#include "dev/map.h"

#define LPC_VENDOR 0x8086
#define LPC_DEVICE 0x2918
#define LPC_CLASS 0x060100 /* ISA bridge */
#define LPC_REVISION 2

#define PMBASE 0x40
#define PMBASE_IO BIT(0)
#define ACPI_CNTL 0x44
#define ACPI_CNTL_ENABLE 0x80 /* SCI at IRQ 9 */
#define PIRQA_ROUT 0x60 /* to PIRQD; E to H 8 bytes on */
#define PIRQ_OFF 0x80
#define PIRQ_BITS 0x8f

void lpc_reset(struct lpc *lpc)
{
	for (unsigned i = 0; i < 8; i++)
		pci_put(&lpc->pci, PIRQA_ROUT + (i & 3) + (i & 4) * 2, 1, PIRQ_OFF);
}

int lpc_attach(struct lpc *lpc, struct pci_host *host)
{
	struct pci_function *f = &lpc->pci;
	pci_function_init(f, LPC_VENDOR, LPC_DEVICE, LPC_CLASS, LPC_REVISION);
	/* Firmware uses what lies behind only if it can enable the bridge. */
	pci_allow(f, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	pci_put(f, PMBASE, 4, PORT_PM | PMBASE_IO);
	pci_put(f, ACPI_CNTL, 1, ACPI_CNTL_ENABLE);
	for (unsigned i = 0; i < 8; i++)
		pci_allow(f, PIRQA_ROUT + (i & 3) + (i & 4) * 2, 1, PIRQ_BITS);
	lpc_reset(lpc);
	return pci_add(host, f, PCI_SLOT_LPC, 0);
}

const struct state_table lpc_state = STATE_TABLE(struct lpc, NULL, STATE_IN(struct lpc, pci, pci_function_state));
