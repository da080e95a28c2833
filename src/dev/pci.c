/* PCI functions: configuration space, BARs, capabilities and interrupt pins (pci.h). The bridge to them is pci_host.c.
 */
#include "dev/pci.h"

#include "lib/string.h"

#define BAR_IO 0x1
#define BAR_MEM64 0x4

u32 pci_get(const struct pci_function *function, unsigned offset, unsigned size)
{
	u32 value = 0;
	memcpy(&value, function->config + offset, size);
	return value;
}

void pci_put(struct pci_function *function, unsigned offset, unsigned size, u32 value)
{
	memcpy(function->config + offset, &value, size);
}

void pci_allow(struct pci_function *function, unsigned offset, unsigned size, u32 bits)
{
	memcpy(function->writable + offset, &bits, size);
}

void pci_function_init(struct pci_function *function, u16 vendor, u16 device, u32 class_code, u8 revision)
{
	*function = (struct pci_function){ .written = function->written,
					   .reading = function->reading,
					   .opaque = function->opaque,
					   .capabilities_end = PCI_HEADER_END };
	pci_put(function, PCI_VENDOR, 2, vendor);
	pci_put(function, PCI_DEVICE, 2, device);
	pci_put(function, PCI_REVISION, 4, class_code << 8 | revision);
	pci_allow(function, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	pci_allow(function, PCI_INTERRUPT_LINE, 1, 0xff);
}

static void allow_bar(struct pci_function *function, unsigned index, u64 size, u32 type)
{
	unsigned at = PCI_BAR0 + 4 * index;
	pci_put(function, at, 4, type);
	pci_allow(function, at, 4, (u32) ~(size - 1));
	if (type == BAR_MEM64)
		pci_allow(function, at + 4, 4, (u32)(~(size - 1) >> 32));
	pci_allow(function, PCI_COMMAND, 2,
		  function->writable[PCI_COMMAND] | (u32)function->writable[PCI_COMMAND + 1] << 8 |
			  (type == BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY));
}

/* A BAR is its own device on the bus, so that it can be taken off by itself. */
static u64 bar_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct pci_bar *bar = device;
	return bar->ops->read(bar->device, offset, size, now);
}

static void bar_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	const struct pci_bar *bar = device;
	bar->ops->write(bar->device, offset, size, value, now);
}

int pci_add_bar(struct pci_function *function, unsigned index, enum pci_bar_kind kind, u64 size, const char *name,
		const struct region_ops *ops, void *device)
{
	u64 smallest = kind == PCI_BAR_IO ? 4 : 16;
	u64 largest = kind == PCI_BAR_IO ? 256 : kind == PCI_BAR_MEM32 ? BIT(31) : BIT(47);
	unsigned slots = kind == PCI_BAR_MEM64 ? 2 : 1;
	if (index + slots > PCI_BARS || size < smallest || size > largest || (size & (size - 1)))
		return -1;
	function->bar[index] = (struct pci_bar){
		.kind = kind,
		.name = name,
		.ops = ops,
		.device = device,
		.forward = { .read = bar_read, .write = bar_write, .width = ops->width },
		.size = size,
		.place = PCI_NOWHERE,
	};
	allow_bar(function, index, size, kind == PCI_BAR_IO ? BAR_IO : kind == PCI_BAR_MEM64 ? BAR_MEM64 : 0);
	return 0;
}

/* New capabilities go to the front of the list ("Capabilities List"). */
unsigned pci_add_capability(struct pci_function *function, u8 id, unsigned size)
{
	unsigned at = function->capabilities_end, end = (at + size + 3) & ~3u;
	if (size < 2 || end > 0xfc)
		return 0;
	function->config[at] = id;
	function->config[at + 1] = function->config[PCI_CAPABILITIES];
	function->config[PCI_CAPABILITIES] = (u8)at;
	function->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
	function->capabilities_end = (u8)end;
	return at;
}

static u64 bar_address(const struct pci_function *function, unsigned index)
{
	unsigned at = PCI_BAR0 + 4 * index;
	u64 low = pci_get(function, at, 4);
	if (function->bar[index].kind == PCI_BAR_IO)
		return low & ~(u64)3;
	u64 high = function->bar[index].kind == PCI_BAR_MEM64 ? pci_get(function, at + 4, 4) : 0;
	return high << 32 | (low & ~(u64)15);
}

static struct bus *wanted_bus(const struct pci_function *function, const struct pci_bar *bar)
{
	u16 command = (u16)pci_get(function, PCI_COMMAND, 2);
	if (bar->kind == PCI_BAR_IO)
		return command & PCI_COMMAND_IO ? function->host->io : NULL;
	return command & PCI_COMMAND_MEMORY ? function->host->memory : NULL;
}

static void unmap(struct pci_bar *bar)
{
	__atomic_store_n(&bar->place, PCI_NOWHERE, __ATOMIC_RELAXED);
	if (bar->bus)
		bus_remove(bar->bus, bar);
	bar->bus = NULL;
}

static void map(struct pci_function *function, unsigned index)
{
	struct pci_bar *bar = &function->bar[index];
	struct bus *bus = bar->kind ? wanted_bus(function, bar) : NULL;
	u64 base = bar_address(function, index);
	if (bar->bus == bus && bar->base == base)
		return;
	unmap(bar);
	if (bus && !bus_add(bus, bar->name, base, bar->size, &bar->forward, bar)) {
		bar->bus = bus;
		bar->base = base;
		__atomic_store_n(&bar->place, base, __ATOMIC_RELAXED);
	}
}

/* One BAR that moves may free the place another one is waiting for, so all are looked at. */
static void map_all(struct pci_host *host)
{
	for (unsigned i = 0; i < PCI_FUNCTIONS; i++)
		for (unsigned bar = 0; host->function[i] && bar < PCI_BARS; bar++)
			map(host->function[i], bar);
}

/* Pins are swizzled over the four wires by device number, and each wire is the OR of its pins. */
static void update_intx(struct pci_function *function)
{
	u8 pin = function->config[PCI_INTERRUPT_PIN];
	bool masked = pci_get(function, PCI_COMMAND, 2) & PCI_COMMAND_INTX_DISABLE;
	bool driven = function->intx && !masked;
	if (!pin || driven == function->intx_driven)
		return;
	struct pci_host *host = function->host;
	unsigned wire = ((function->devfn >> 3) + pin - 1) % PCI_PINS;
	function->intx_driven = driven;
	host->asserted[wire] += driven ? 1 : -1;
	wire_set(&host->intx[wire], host->asserted[wire]);
}

void pci_set_intx(struct pci_function *function, bool level)
{
	function->intx = level;
	function->config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
	function->config[PCI_STATUS] |= level ? PCI_STATUS_INTERRUPT : 0;
	update_intx(function);
}

void pci_message(struct pci_function *function, const struct msi_message *message)
{
	const struct pci_host *host = function->host;
	if (host->message && (pci_get(function, PCI_COMMAND, 2) & PCI_COMMAND_MASTER))
		host->message(host->opaque, message);
}

static bool touches(unsigned offset, unsigned size, unsigned first, unsigned end)
{
	return offset < end && offset + size > first;
}

u32 pci_config_read(struct pci_function *function, unsigned offset, unsigned size, u64 now)
{
	if (function->reading)
		function->reading(function->opaque, offset, size, now);
	return pci_get(function, offset, size);
}

void pci_config_write(struct pci_function *function, unsigned offset, unsigned size, u32 value, u64 now)
{
	for (unsigned i = 0; i < size; i++) {
		u8 byte = (u8)(value >> (8 * i)), *config = &function->config[offset + i];
		u8 mask = function->writable[offset + i];
		*config = (*config & ~mask) | (byte & mask);
		*config &= ~(byte & function->write_clears[offset + i]);
	}
	if (touches(offset, size, PCI_COMMAND, PCI_STATUS) ||
	    touches(offset, size, PCI_BAR0, PCI_BAR0 + 4 * PCI_BARS)) {
		map_all(function->host);
		update_intx(function);
	}
	if (function->written)
		function->written(function->opaque, offset, size, now);
}

/* Function 0 says whether there are others to look for. */
static void mark_multifunction(struct pci_host *host, unsigned device)
{
	struct pci_function *first = host->function[device << 3];
	for (unsigned number = 1; first && number < 8; number++)
		if (host->function[device << 3 | number])
			first->config[PCI_HEADER_TYPE] |= PCI_MULTIFUNCTION;
}

int pci_add(struct pci_host *host, struct pci_function *function, unsigned device, unsigned number)
{
	if (device >= 32 || number >= 8 || host->function[device << 3 | number])
		return -1;
	function->host = host;
	function->devfn = (u8)(device << 3 | number);
	host->function[function->devfn] = function;
	mark_multifunction(host, device);
	return 0;
}

void pci_remove(struct pci_function *function)
{
	struct pci_host *host = function->host;
	pci_set_intx(function, false);
	for (unsigned i = 0; i < PCI_BARS; i++)
		unmap(&function->bar[i]);
	host->function[function->devfn] = NULL;
	map_all(host);
}

static void function_reset(struct pci_function *function)
{
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
		function->config[i] &= ~(function->writable[i] | function->write_clears[i]);
	pci_set_intx(function, false);
}

void pci_reset(struct pci_host *host)
{
	host->address = 0;
	for (unsigned i = 0; i < PCI_FUNCTIONS; i++)
		if (host->function[i])
			function_reset(host->function[i]);
	map_all(host);
}

/* ---- state ---- */

/* BARs follow the registers: when all functions are loaded (the host is loaded last). */
static bool host_loaded(void *host)
{
	map_all(host);
	return true;
}

const struct state_table pci_function_state = STATE_TABLE(struct pci_function, NULL,
	STATE_NONE(struct pci_function, written), STATE_NONE(struct pci_function, reading), STATE_NONE(struct pci_function, opaque),
	STATE_NONE(struct pci_function, host), STATE_SAME(struct pci_function, devfn), STATE_SAME(struct pci_function, capabilities_end),
	STATE(struct pci_function, intx), STATE(struct pci_function, intx_driven), STATE_NONE(struct pci_function, bar),
	STATE(struct pci_function, config), STATE_NONE(struct pci_function, writable), STATE_NONE(struct pci_function, write_clears));

const struct state_table pci_host_state = STATE_TABLE(struct pci_host, host_loaded,
	STATE_IN(struct pci_host, intx, wire_state), STATE_NONE(struct pci_host, message), STATE_NONE(struct pci_host, opaque),
	STATE_NONE(struct pci_host, io), STATE_NONE(struct pci_host, memory), STATE_NONE(struct pci_host, behind),
	STATE(struct pci_host, address), STATE_NONE(struct pci_host, ecam), STATE(struct pci_host, asserted), STATE_NONE(struct pci_host, function),
	STATE_IN(struct pci_host, bridge, pci_function_state));
