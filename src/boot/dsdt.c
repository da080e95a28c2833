/* The DSDT: processors, the PCI host bridge and the devices behind it, and the way to switch the machine off.
 * ACPI specification, "Device Configuration", "System \_Sx states", "_OSC (Operating System Capabilities)"; PCI
 * Firmware Specification, "_OSC Interface for PCI Host Bridge Devices". */
#include "boot/acpi.h"
#include "dev/hpet.h"
#include "dev/map.h"
#include "dev/pci_hotplug.h"

#define PCI_SLOTS 32
#define PCI_PINS 4
#define PCI_CONFIG_PORTS 8
#define ELCR_PORTS 2

static void put_processors(struct aml *aml, unsigned cpus)
{
	static const char hex[] = "0123456789ABCDEF";

	for (unsigned i = 0; i < cpus; i++) {
		const char name[] = { 'C', hex[i >> 8 & 0xf], hex[i >> 4 & 0xf], hex[i & 0xf], 0 };
		aml_device(aml, name);
		aml_name_string(aml, "_HID", "ACPI0007");
		aml_name_integer(aml, "_UID", i);
		aml_end(aml);
	}
}

/* A device found by its ports and its interrupt line. A second port follows where port[1] is not zero. */
struct isa_device {
	const char *name, *hid;
	u16 port[2];
	u8 ports; /* of each range */
	u8 irq;   /* 0: none */
	u8 uid;
};

static const struct isa_device isa_devices[] = {
	{ "RTC", "PNP0B00", { PORT_RTC }, 2, IRQ_RTC, 0 },
	{ "KBD", "PNP0303", { PORT_I8042, PORT_I8042 + 4 }, 1, IRQ_KEYBOARD, 0 },
	{ "MOU", "PNP0F13", { 0 }, 0, IRQ_MOUSE, 0 },
	{ "COM1", "PNP0501", { PORT_UART0 }, 8, IRQ_UART0, 1 },
};

static void put_isa_device(struct aml *aml, const struct isa_device *d)
{
	aml_device(aml, d->name);
	aml_name_eisa_id(aml, "_HID", d->hid);
	if (d->uid)
		aml_name_integer(aml, "_UID", d->uid);
	aml_resources(aml, "_CRS");
	for (unsigned i = 0; i < 2; i++)
		if (d->port[i])
			aml_io(aml, d->port[i], d->ports);
	if (d->irq)
		aml_irq(aml, d->irq);
	aml_resources_end(aml);
	aml_end(aml);
}

/* Which input of the I/O APIC each slot's INTA to INTD is wired to. */
static void put_pci_routing(struct aml *aml)
{
	aml_name(aml, "_PRT");
	aml_package(aml, PCI_SLOTS * PCI_PINS);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		for (unsigned pin = 0; pin < PCI_PINS; pin++) {
			aml_package(aml, 4);
			aml_integer(aml, slot << 16 | 0xffff);
			aml_integer(aml, pin);
			aml_integer(aml, 0);
			aml_integer(aml, GSI_PCI_INTA + (slot + pin) % PCI_PINS);
			aml_end(aml);
		}
	}
	aml_end(aml);
}

static void put_pci_windows(struct aml *aml, const struct acpi_machine *machine)
{
	aml_resources(aml, "_CRS");
	aml_bus_window(aml, 0, 255);
	aml_io(aml, PORT_PCI_CONFIG, PCI_CONFIG_PORTS);
	aml_io_window(aml, 0, PORT_PCI_CONFIG - 1);
	aml_io_window(aml, PORT_PCI_CONFIG + PCI_CONFIG_PORTS, 0xffff);
	if (machine->vga)
		aml_memory_window(aml, MAP_LEGACY_HOLE, MAP_PAM - 1);
	aml_memory_window(aml, machine->bars, MAP_PCI_MMIO_END - 1);
	aml_memory_window(aml, MAP_PCI_MMIO_HIGH, MAP_IOAPIC - 1);
	if (machine->high_bars < machine->high_bars_end)
		aml_memory_window(aml, machine->high_bars, machine->high_bars_end - 1);
	aml_resources_end(aml);
}

static void create_dword_field(struct aml *aml, u8 offset, const char *name)
{
	aml_byte(aml, AML_CREATE_DWORD_FIELD);
	aml_byte(aml, AML_ARG3);
	aml_integer(aml, offset);
	aml_path(aml, name);
}

/* CDW1 |= bits */
static void set_status(struct aml *aml, unsigned bits)
{
	aml_byte(aml, AML_OR);
	aml_path(aml, "CDW1");
	aml_integer(aml, bits);
	aml_path(aml, "CDW1");
}

/* The guest may have every control it asks for: there is no firmware to keep it. */
static void put_osc(struct aml *aml)
{
	/* 33db4d5b-1ff7-401c-9657-7441c03dd766 in memory order */
	static const u8 uuid[16] = { 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
				     0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66 };
	enum { UNKNOWN_UUID = 4, UNKNOWN_REVISION = 8 };

	aml_method(aml, "_OSC", 4);
	create_dword_field(aml, 0, "CDW1");
	aml_block(aml, AML_IF);
	aml_byte(aml, AML_LEQUAL);
	aml_byte(aml, AML_ARG0);
	aml_buffer(aml, uuid, sizeof(uuid));
	aml_block(aml, AML_IF);
	aml_byte(aml, AML_LNOT);
	aml_byte(aml, AML_LEQUAL);
	aml_byte(aml, AML_ARG1);
	aml_byte(aml, AML_ONE);
	set_status(aml, UNKNOWN_REVISION);
	aml_end(aml);
	aml_end(aml);
	aml_block(aml, AML_ELSE);
	set_status(aml, UNKNOWN_UUID);
	aml_end(aml);
	aml_byte(aml, AML_RETURN);
	aml_byte(aml, AML_ARG3);
	aml_end(aml);
}

/* ---- hot plug: "Device Object Notifications", "_EJx (Eject)", "_SUN (Slot User Number)" ---- */

enum { NOTIFY_DEVICE_CHECK = 1, NOTIFY_EJECT = 3 };

static const char *const hotplug_registers[] = { "PCUP", "PCDN", "PCEJ" };

static void slot_name(char name[4], unsigned slot)
{
	static const char digits[] = "0123456789ABCDEF";
	name[0] = 'S';
	name[1] = digits[slot >> 4];
	name[2] = digits[slot & 0xf];
	name[3] = 0;
}

static void put_slot(struct aml *aml, unsigned slot)
{
	char name[4];
	slot_name(name, slot);
	aml_device(aml, name);
	aml_name_integer(aml, "_ADR", slot << 16);
	aml_name_integer(aml, "_SUN", slot);
	aml_method(aml, "_EJ0", 1);
	aml_byte(aml, AML_STORE);
	aml_integer(aml, BIT(slot));
	aml_path(aml, "PCEJ");
	aml_end(aml);
	aml_end(aml);
}

/* If (Local0 & bit) { Notify (slot, what) } */
static void put_notification(struct aml *aml, unsigned slot, u8 what)
{
	char name[4];
	slot_name(name, slot);
	aml_block(aml, AML_IF);
	aml_byte(aml, AML_AND);
	aml_byte(aml, AML_LOCAL0);
	aml_integer(aml, BIT(slot));
	aml_byte(aml, AML_ZERO); /* to no target */
	aml_byte(aml, AML_NOTIFY);
	aml_path(aml, name);
	aml_integer(aml, what);
	aml_end(aml);
}

static void put_notifications(struct aml *aml, const char *from, u8 what)
{
	aml_byte(aml, AML_STORE);
	aml_path(aml, from);
	aml_byte(aml, AML_LOCAL0);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		if (PCI_SLOTS_HOTPLUG & BIT(slot))
			put_notification(aml, slot, what);
}

/* The slots, and what looks who came and who is to go. */
static void put_hotplug(struct aml *aml)
{
	aml_io_registers(aml, "PCHP", PORT_PCI_HOTPLUG, hotplug_registers, ARRAY_SIZE(hotplug_registers));
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		if (PCI_SLOTS_HOTPLUG & BIT(slot))
			put_slot(aml, slot);
	aml_method(aml, "PCNT", 0 | AML_SERIALIZED);
	put_notifications(aml, hotplug_registers[0], NOTIFY_DEVICE_CHECK);
	put_notifications(aml, hotplug_registers[1], NOTIFY_EJECT);
	aml_end(aml);
}

/* Edge-triggered: the event is cleared before its method runs, so that what comes meanwhile is not lost. */
static void put_events(struct aml *aml)
{
	static_assert(GPE_PCI_HOTPLUG == 1, "_E01");
	aml_scope(aml, "\\_GPE");
	aml_method(aml, "_E01", 0);
	aml_path(aml, "\\_SB.PCI0.PCNT");
	aml_end(aml);
	aml_end(aml);
}

static void put_pci(struct aml *aml, const struct acpi_machine *machine)
{
	aml_device(aml, "PCI0");
	aml_name_eisa_id(aml, "_HID", "PNP0A08");
	aml_name_eisa_id(aml, "_CID", "PNP0A03");
	aml_name_integer(aml, "_UID", 0);
	aml_name_integer(aml, "_SEG", 0);
	aml_name_integer(aml, "_BBN", 0);
	put_osc(aml);
	put_pci_windows(aml, machine);
	put_pci_routing(aml);
	put_hotplug(aml);
	for (unsigned i = 0; i < ARRAY_SIZE(isa_devices); i++)
		put_isa_device(aml, &isa_devices[i]);
	aml_end(aml);
}

static void put_hpet(struct aml *aml)
{
	aml_device(aml, "HPET");
	aml_name_eisa_id(aml, "_HID", "PNP0103");
	aml_name_integer(aml, "_UID", 0);
	aml_resources(aml, "_CRS");
	aml_memory_fixed(aml, MAP_HPET, HPET_SIZE);
	aml_resources_end(aml);
	aml_end(aml);
}

/* What no other device claims: the guest must put nothing there. */
static void put_motherboard(struct aml *aml, gpa_t ecam)
{
	aml_device(aml, "MBRD");
	aml_name_eisa_id(aml, "_HID", "PNP0C02");
	aml_name_integer(aml, "_UID", 0);
	aml_resources(aml, "_CRS");
	aml_io(aml, PORT_PIC_ELCR, ELCR_PORTS);
	aml_io(aml, PORT_PM, PM_REGION_SIZE);
	aml_io(aml, PORT_PCI_HOTPLUG, PCI_HOTPLUG_REGION_SIZE);
	if (ecam)
		aml_memory_fixed(aml, (u32)ecam, MAP_ECAM_SIZE);
	aml_resources_end(aml);
	aml_end(aml);
}

/* What to write to PM1a and PM1b control for soft off. */
static void put_soft_off(struct aml *aml)
{
	aml_name(aml, "\\_S5");
	aml_package(aml, 4);
	aml_integer(aml, PM_SLP_TYP_S5);
	for (unsigned i = 0; i < 3; i++)
		aml_integer(aml, 0);
	aml_end(aml);
}

void acpi_dsdt(struct aml *aml, const struct acpi_machine *machine)
{
	put_soft_off(aml);
	aml_scope(aml, "\\_SB");
	put_processors(aml, machine->cpus);
	put_hpet(aml);
	put_motherboard(aml, machine->ecam);
	put_pci(aml, machine);
	aml_end(aml);
	put_events(aml);
}
