/* The PCI host bridge: two ways into configuration space, the ports of "Configuration Mechanism #1" (PCI Local Bus
 * Specification 3.0, "Generating Configuration Transactions") and the memory window of the "PCI Express Enhanced
 * Configuration Access Mechanism".
 *
 * CONFIG_ADDRESS is a register for 32-bit accesses only; narrower ones belong to the bus behind the bridge. */
#include "dev/map.h"
#include "dev/pci.h"

#define BRIDGE_VENDOR 0x8086 /* Intel's Q35 MCH (mch.h), and the subsystem by which firmware knows a virtual one */
#define BRIDGE_DEVICE 0x29c0
#define BRIDGE_SUBSYSTEM_VENDOR 0x1af4
#define BRIDGE_SUBSYSTEM 0x1100
#define BRIDGE_CLASS 0x060000 /* host bridge */

#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_MASK 0x80fffffcu

#define ECAM_BUS_SHIFT 20
#define ECAM_FUNCTION_SHIFT 12

static struct pci_function *lookup(const struct pci_host *host, u64 bus, u64 devfn)
{
	return bus == 0 ? host->function[devfn & 0xff] : NULL;
}

static u64 address_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct pci_host *host = device;
	return size == 4 ? host->address : bus_read(&host->behind, PORT_PCI_CONFIG + offset, size, now);
}

static void address_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct pci_host *host = device;
	if (size == 4)
		host->address = (u32)value & ADDRESS_MASK;
	else
		bus_write(&host->behind, PORT_PCI_CONFIG + offset, size, value, now);
}

static struct pci_function *selected(const struct pci_host *host)
{
	if (!(host->address & ADDRESS_ENABLE))
		return NULL;
	return lookup(host, host->address >> 16 & 0xff, host->address >> 8 & 0xff);
}

static u64 data_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct pci_host *host = device;
	struct pci_function *function = selected(host);
	return function ? pci_config_read(function, (host->address & 0xfc) + (unsigned)offset, size, now) : ~0ull;
}

static void data_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	const struct pci_host *host = device;
	struct pci_function *function = selected(host);
	if (function)
		pci_config_write(function, (host->address & 0xfc) + (unsigned)offset, size, (u32)value, now);
}

/* The function an access to the window means, or NULL. An access must not run from one function into the next. */
static struct pci_function *ecam_function(const struct pci_host *host, u64 offset, unsigned size)
{
	if (offset % PCI_CONFIG_SIZE + size > PCI_CONFIG_SIZE)
		return NULL;
	return lookup(host, offset >> ECAM_BUS_SHIFT, offset >> ECAM_FUNCTION_SHIFT);
}

static u64 ecam_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct pci_function *function = ecam_function(container_of(device, struct pci_host, ecam), offset, size);
	return function ? pci_config_read(function, offset % PCI_CONFIG_SIZE, size, now) : ~0ull;
}

static void ecam_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct pci_function *function = ecam_function(container_of(device, struct pci_host, ecam), offset, size);
	if (function)
		pci_config_write(function, offset % PCI_CONFIG_SIZE, size, (u32)value, now);
}

static const struct region_ops address_ops = { .read = address_read, .write = address_write, .width = 4 };
static const struct region_ops data_ops = { .read = data_read, .write = data_write, .width = 4 };
static const struct region_ops ecam_ops = { .read = ecam_read, .write = ecam_write, .width = 4 };

int pci_place_ecam(struct pci_host *host, u64 base)
{
	if (host->ecam == base)
		return 0;
	bus_remove(host->memory, &host->ecam);
	host->ecam = base;
	return base ? bus_add(host->memory, "PCI ECAM", base, MAP_ECAM_SIZE, &ecam_ops, &host->ecam) : 0;
}

int pci_attach(struct pci_host *host, struct bus *io, struct bus *memory)
{
	host->io = io;
	host->memory = memory;
	host->behind.count = 0;
	host->address = 0;
	host->ecam = 0;
	pci_function_init(&host->bridge, BRIDGE_VENDOR, BRIDGE_DEVICE, BRIDGE_CLASS, 0);
	pci_put(&host->bridge, PCI_SUBSYSTEM_VENDOR, 2, BRIDGE_SUBSYSTEM_VENDOR);
	pci_put(&host->bridge, PCI_SUBSYSTEM, 2, BRIDGE_SUBSYSTEM);
	int error = pci_add(host, &host->bridge, 0, 0);
	error = error ? error : bus_add(io, "PCI config address", PORT_PCI_CONFIG, 4, &address_ops, host);
	error = error ? error : bus_add(io, "PCI config data", PORT_PCI_CONFIG + 4, 4, &data_ops, host);
	return error ? error : pci_place_ecam(host, MAP_ECAM);
}
