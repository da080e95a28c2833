/* PCI configuration space and BARs under any sequence of accesses by port and by memory. */
#include "dev/pci.h"
#include "dev/map.h"
#include "input.h"
#include "lib/string.h"

#define FUNCTIONS 3
#define BAR_SIZE_MAX 0x4000

static struct pci_host host;
static struct pci_function function[FUNCTIONS], fresh[FUNCTIONS];
static bool intx[PCI_PINS];
static unsigned resets;

static void on_intx(void *opaque, unsigned pin, bool level)
{
	CHECK(intx[pin] != level);
	intx[pin] = level;
}

/* A BAR's device knows its size and sees no access outside. */
static u64 bar_read(void *device, u64 offset, unsigned size, u64 now)
{
	CHECK(size <= 4 && offset + size <= *(const u64 *)device);
	return offset;
}

static void bar_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	CHECK(size <= 4 && offset + size <= *(const u64 *)device);
}

static const struct region_ops bar_ops = { .read = bar_read, .write = bar_write, .width = 4 };

static void describe(unsigned index)
{
	static const struct {
		u8 index;
		enum pci_bar_kind kind;
		u64 size;
	} bars[] = { { 0, PCI_BAR_MEM32, 0x1000 },
		     { 1, PCI_BAR_IO, 64 },
		     { 2, PCI_BAR_MEM64, BAR_SIZE_MAX },
		     { 5, PCI_BAR_MEM32, 16 } };
	struct pci_function *f = &function[index];
	pci_function_init(f, 0x1af4, (u16)index, 0x020000, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bars); i++)
		CHECK(!pci_add_bar(f, bars[i].index, bars[i].kind, bars[i].size, "bar", &bar_ops,
				   (void *)&bars[i].size));
	CHECK(pci_add_capability(f, 0x11, 12));
	pci_put(f, PCI_INTERRUPT_PIN, 1, 1 + index);
	CHECK(!pci_add(&host, f, 1 + index, 0));
	fresh[index] = *f;
}

static void check_bus(const struct bus *bus)
{
	for (unsigned i = 1; i < bus->count; i++)
		CHECK(bus->region[i].base - bus->region[i - 1].base >= bus->region[i - 1].size);
}

/* What the guest may not write is as it was, but for the interrupt status. */
static void check_function(const struct pci_function *f, const struct pci_function *before)
{
	for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
		u8 fixed = (u8) ~(f->writable[i] | (i == PCI_STATUS ? PCI_STATUS_INTERRUPT : 0));
		CHECK(!((f->config[i] ^ before->config[i]) & fixed));
	}
	u16 command = (u16)pci_get(f, PCI_COMMAND, 2);
	for (unsigned i = 0; i < PCI_BARS; i++)
		if (f->bar[i].bus)
			CHECK(command & (f->bar[i].kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY));
	CHECK(f->intx_driven == (f->intx && !(command & PCI_COMMAND_INTX_DISABLE)));
}

static void check_wires(void)
{
	bool wanted[PCI_PINS] = { false };
	for (unsigned i = 0; i < FUNCTIONS; i++)
		wanted[((function[i].devfn >> 3) + i) % PCI_PINS] |= function[i].intx_driven;
	CHECK(!memcmp(wanted, intx, sizeof(intx)));
}

static void step(struct bus *io, struct bus *memory, struct input *in)
{
	u8 op = input_u8(in);
	unsigned size = input_size(in);
	u64 offset = op & 0x80 ? input_take(in, 2) : input_u8(in);
	u64 ecam = MAP_ECAM + ((u64)(op >> 4 & 3) << 15) + offset;

	switch (op & 15) {
	case 0: /* slow, so once an input */
		if (!resets++)
			pci_reset(&host);
		break;
	case 1:
		pci_set_intx(&function[offset % FUNCTIONS], op & 0x80);
		break;
	case 2:
		CHECK(!(bus_read(memory, ecam, size, 0) & ~size_mask(size)));
		break;
	case 3:
		bus_write(memory, input_take(in, 8), size, 0, 0);
		break;
	case 4:
		bus_read(memory, input_u32(in), size, 0);
		break;
	case 5:
		bus_read(io, input_take(in, 2), MIN(size, 4), 0);
		break;
	case 6:
		bus_write(io, PORT_PCI_CONFIG, 4, 0x80000000 | input_take(in, 2), 0);
		break;
	case 7:
		bus_write(io, PORT_PCI_CONFIG + offset % 8, MIN(size, 4), input_u32(in), 0);
		break;
	default:
		bus_write(memory, ecam, size, input_take(in, size), 0);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct bus io = { 0 }, memory = { 0 };

	memset(&host, 0, sizeof(host));
	memset(intx, 0, sizeof(intx));
	resets = 0;
	for (unsigned i = 0; i < PCI_PINS; i++)
		host.intx[i] = (struct wire){ .sink = on_intx, .pin = i };
	CHECK(!pci_attach(&host, &io, &memory));
	for (unsigned i = 0; i < FUNCTIONS; i++)
		describe(i);
	while (in.left)
		step(&io, &memory, &in);
	check_bus(&io);
	check_bus(&memory);
	for (unsigned i = 0; i < FUNCTIONS; i++)
		check_function(&function[i], &fresh[i]);
	check_wires();
	return 0;
}
