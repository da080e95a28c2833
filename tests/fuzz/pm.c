/* The ACPI hardware, the registers of PCI hot plug and the reset registers under any sequence of port accesses, button presses, devices that come and are
 * wanted back, and time steps. */
#include "dev/map.h"
#include "dev/pci_hotplug.h"
#include "dev/reset.h"
#include "input.h"

static bool sci;
static unsigned resets;
static struct pci_hotplug hotplug;
static u32 there; /* devices, a bit each */

static void on_sci(void *opaque, unsigned pin, bool level)
{
	CHECK(sci != level);
	sci = level;
}

static void on_reset(void *opaque)
{
	resets++;
}

static void on_eject(void *opaque, unsigned device)
{
	CHECK(device < 32);
	there &= ~(u32)BIT(device);
}

static void check(struct bus *io, struct pm *pm, u64 now)
{
	u64 events = bus_read(io, PORT_PM + PM_GPE0, 1, now), wanted = bus_read(io, PORT_PM + PM_GPE0 + 1, 1, now);
	CHECK(!(events & ~BIT(GPE_PCI_HOTPLUG)) && !((hotplug.up | hotplug.down) & ~there));
	u64 status = bus_read(io, PORT_PM, 2, now), enable = bus_read(io, PORT_PM + 2, 2, now);
	CHECK(!(enable & ~0x521ull) && !(status & ~0x101ull));
	CHECK(sci == ((status & enable) || (events & wanted)));
	CHECK((bus_read(io, PORT_PM + 4, 4, now) & ~0x1c02ull) == 1);
	CHECK(pm_deadline(pm) > now);
}

static void step(struct bus *io, struct pm *pm, struct input *in, u64 *now)
{
	static const u16 ports[] = { PORT_PM, PORT_PM + 4, PORT_PM + 8, PORT_PM + 12, PORT_PCI_HOTPLUG, PORT_PCI_HOTPLUG + 4, PORT_PCI_HOTPLUG + 8, PORT_FAST_A20 };
	u8 op = input_u8(in);
	unsigned size = input_size(in);
	u64 port = ports[op >> 2 & 7] + (op >> 5 & 3);
	unsigned device = op >> 3;

	switch (op & 3) {
	case 0:
		*now += input_step(in) << 6;
		pm_advance(pm, *now);
		break;
	case 1:
		if (op & 4 && (op & 0x80 || there & BIT(device)))
			(op & 0x80 ? pci_hotplug_come : pci_hotplug_ask)(&hotplug, device);
		else
			pm_power_button(pm);
		there |= (op & 0x84) == 0x84 ? (u32)BIT(device) : 0;
		break;
	case 2:
		CHECK(!(bus_read(io, port, size, *now) & ~size_mask(size)));
		break;
	default:
		bus_write(io, port, size, input_take(in, size), *now);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct bus io = { 0 }, behind = { 0 };
	struct pm pm = { .sci = { .sink = on_sci } };
	struct reset reset = { .reset = on_reset };
	u64 now = 0;

	sci = false;
	there = 0;
	hotplug = (struct pci_hotplug){ .pm = &pm, .eject = on_eject };
	CHECK(!pm_attach(&pm, &io, PORT_PM, now));
	CHECK(!pci_hotplug_attach(&hotplug, &io, PORT_PCI_HOTPLUG));
	CHECK(!reset_attach(&reset, &io, &behind));
	while (in.left) {
		step(&io, &pm, &in, &now);
		check(&io, &pm, now);
	}
	pci_hotplug_reset(&hotplug);
	CHECK(!hotplug.up && !hotplug.down);
	return 0;
}
