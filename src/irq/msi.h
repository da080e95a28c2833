/* Message-signalled interrupts: a write of `data` to `address` that the interrupt logic takes as an interrupt message.
 * Intel SDM volume 3, "Message Address Register Format" and "Message Data Register Format". */
#ifndef NADIR_IRQ_MSI_H
#define NADIR_IRQ_MSI_H

#include "irq/interrupt.h"

struct msi_message {
	u64 address;
	u32 data;
};

/* Turn a message into an interrupt. With `extended_destination` (the KVM feature of that name, CPUID 4000_0001H EAX bit
 * 15), address bits 11:5 are bits 14:8 of the destination. False: the address is not in the interrupt range FEEx_xxxxH,
 * or the delivery mode is one a message cannot have; the write has no effect. */
bool msi_decode(const struct msi_message *message, bool extended_destination, struct interrupt *interrupt);

#endif
