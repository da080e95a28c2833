/* An interrupt message on its way to local APICs, whoever sent it: I/O APIC, MSI or IPI.
 * Intel SDM volume 3, "Local APIC", "Interrupt Command Register (ICR)" and "Message Signalled Interrupts". */
#ifndef NADIR_IRQ_INTERRUPT_H
#define NADIR_IRQ_INTERRUPT_H

#include "arch/types.h"

enum delivery_mode {
	DELIVERY_FIXED,
	DELIVERY_LOWEST_PRIORITY, /* like fixed, to one of the destinations, which the router chooses */
	DELIVERY_SMI,
	DELIVERY_RESERVED,
	DELIVERY_NMI,
	DELIVERY_INIT,
	DELIVERY_SIPI,
	DELIVERY_EXTINT, /* the vector comes from the 8259 pair */
};

/* Who gets an IPI; messages of other sources always have SHORTHAND_NONE. */
enum shorthand { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

/* Every local APIC, in physical and logical mode. Sources with 8-bit destinations turn their FFH into this. */
#define DESTINATION_BROADCAST 0xffffffffu

struct interrupt {
	u32 destination;
	u8 vector;
	u8 delivery;  /* enum delivery_mode */
	u8 shorthand; /* enum shorthand */
	bool logical; /* destination mode */
	bool level;   /* trigger mode */
};

/* Widen a destination of 8 bits. */
static inline u32 destination_from_8(u8 destination)
{
	return destination == 0xff ? DESTINATION_BROADCAST : destination;
}

#endif
