/* Interrupts of devices: none is used yet, and the interrupt controllers are masked. */
#include "host/metal/irq.h"

#include "host/port.h"

void irq_handle(u8 vector)
{
	host_log(LOG_WARN, "an interrupt came by vector %u, which no device has", vector);
}
