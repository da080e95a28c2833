/* The registers of PCI hot plug (pci_hotplug.h). */
#include "dev/pci_hotplug.h"

#include "dev/map.h"

static void eject(struct pci_hotplug *h, u32 devices)
{
	for (unsigned i = 0; i < 32; i++)
		if (devices & BIT(i))
			h->eject(h->opaque, i);
	h->up &= ~devices;
	h->down &= ~devices;
}

static u64 hotplug_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct pci_hotplug *h = device;
	u32 up = h->up;
	if (size != 4 || (offset != PCI_HOTPLUG_UP && offset != PCI_HOTPLUG_DOWN))
		return 0;
	if (offset == PCI_HOTPLUG_DOWN)
		return h->down;
	h->up = 0;
	return up;
}

static void hotplug_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	if (size == 4 && offset == PCI_HOTPLUG_EJECT)
		eject(device, (u32)value);
}

static const struct region_ops hotplug_ops = { .read = hotplug_read, .write = hotplug_write, .width = 4 };

int pci_hotplug_attach(struct pci_hotplug *hotplug, struct bus *io, u64 port)
{
	hotplug->up = hotplug->down = 0;
	return bus_add(io, "PCI hot plug", port, PCI_HOTPLUG_REGION_SIZE, &hotplug_ops, hotplug);
}

void pci_hotplug_reset(struct pci_hotplug *hotplug)
{
	eject(hotplug, hotplug->down);
	hotplug->up = 0;
}

void pci_hotplug_come(struct pci_hotplug *hotplug, unsigned device)
{
	hotplug->up |= (u32)BIT(device);
	pm_general_event(hotplug->pm, GPE_PCI_HOTPLUG);
}

void pci_hotplug_ask(struct pci_hotplug *hotplug, unsigned device)
{
	hotplug->down |= (u32)BIT(device);
	pm_general_event(hotplug->pm, GPE_PCI_HOTPLUG);
}

const struct state_table pci_hotplug_state = STATE_TABLE(struct pci_hotplug, NULL,
	STATE_NONE(struct pci_hotplug, pm), STATE_NONE(struct pci_hotplug, eject), STATE_NONE(struct pci_hotplug, opaque),
	STATE(struct pci_hotplug, up), STATE(struct pci_hotplug, down));
