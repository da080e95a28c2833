/* Interrupts of devices. */
#ifndef NADIR_HOST_METAL_IRQ_H
#define NADIR_HOST_METAL_IRQ_H

#include "arch/types.h"

/* One came by this vector; its end has been signalled. */
void irq_handle(u8 vector);

#endif
