/* Interrupts of devices (irq.h). Intel 82093AA I/O APIC, "Register Description". Each line that is asked for has a vector of its own, from VECTOR_DEVICE on. */
#include "host/metal/irq.h"

#include "host/metal/cpu.h"
#include "host/metal/map.h"
#include "host/port.h"

#define SELECT 0x00
#define WINDOW 0x10
#define VERSION 0x01
#define REDIRECTION(pin) (0x10 + 2 * (pin))
#define MASKED BIT(16)
#define LEVEL BIT(15)
#define LOW_ACTIVE BIT(13)
#define IOAPIC_SIZE 0x20

static struct {
	u8 *page; /* NULL: there is none */
	unsigned pins;
	const struct acpi_isa *isa;
	void (*handler[ACPI_ISA_LINES])(void); /* by line */
} irq;

static u32 read(u32 reg)
{
	*(volatile u32 *)(irq.page + SELECT) = reg;
	return *(volatile u32 *)(irq.page + WINDOW);
}

static void write(u32 reg, u32 value)
{
	*(volatile u32 *)(irq.page + SELECT) = reg;
	*(volatile u32 *)(irq.page + WINDOW) = value;
}

void irq_init(const struct acpi_info *info)
{
	irq.isa = info->isa;
	irq.page = info->ioapic ? map_device(info->ioapic, IOAPIC_SIZE) : NULL;
	irq.pins = irq.page ? (read(VERSION) >> 16 & 0xff) + 1 : 0;
	for (unsigned pin = 0; pin < irq.pins; pin++)
		write(REDIRECTION(pin), MASKED);
}

bool irq_request_isa(unsigned line, void (*handler)(void))
{
	const struct acpi_isa *isa = line < ACPI_ISA_LINES && irq.page ? &irq.isa[line] : NULL;
	if (!isa || isa->input >= irq.pins || cpus[0]->apic_id > 0xfe)
		return false;
	irq.handler[line] = handler;
	write(REDIRECTION(isa->input) + 1, cpus[0]->apic_id << 24);
	write(REDIRECTION(isa->input), (u32)((isa->level ? LEVEL : 0) | (isa->low ? LOW_ACTIVE : 0) | (VECTOR_DEVICE + line)));
	return true;
}

void irq_handle(u8 vector)
{
	unsigned line = vector - VECTOR_DEVICE;
	if (vector >= VECTOR_DEVICE && line < ACPI_ISA_LINES && irq.handler[line])
		irq.handler[line]();
	else
		host_log(LOG_WARN, "an interrupt came by vector %u, which no device has", vector);
}
