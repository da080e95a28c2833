/* Interrupts of devices, by the I/O APIC. */
#ifndef NADIR_HOST_METAL_IRQ_H
#define NADIR_HOST_METAL_IRQ_H

#include "host/metal/acpi.h"

/* Find the I/O APIC and mask all its inputs. */
void irq_init(const struct acpi_info *info);
/* Let an ISA device's interrupts come to the boot CPU: `handler` is called with interrupts off. False: there is no way. */
bool irq_request_isa(unsigned line, void (*handler)(void));

/* One came by this vector; its end has been signalled. */
void irq_handle(u8 vector);

#endif
