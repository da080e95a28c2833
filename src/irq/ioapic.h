/* The I/O APIC: 24 inputs, each with a redirection entry that says which interrupt message its assertion sends.
 * Intel 82093AA data sheet; the EOI register as in the I/O APICs of later chip sets (version 20H).
 *
 * Inputs carry assertion, not voltage: `true` is active whatever the polarity. The polarity bit of an entry is the
 * guest's to write and read, and has no effect. The board serializes all calls. */
#ifndef NADIR_IRQ_IOAPIC_H
#define NADIR_IRQ_IOAPIC_H

#include "irq/interrupt.h"
#include "lib/state.h"

#define IOAPIC_PIN_COUNT 24
#define IOAPIC_MMIO_SIZE 0x1000

struct ioapic {
	u64 redirection[IOAPIC_PIN_COUNT];
	u32 lines; /* asserted inputs */
	u8 select; /* IOREGSEL */
	u8 id;
	/* Where messages go; set once by ioapic_init. Called inside the board's lock. */
	void (*deliver)(void *opaque, const struct interrupt *interrupt);
	void *opaque;
};

void ioapic_init(struct ioapic *ioapic, void (*deliver)(void *opaque, const struct interrupt *interrupt), void *opaque);
/* Power-on state of the registers; the inputs stay as they are. */
void ioapic_reset(struct ioapic *ioapic);

/* Change an input. The signature is a wire's sink. Pins that do not exist are ignored. */
void ioapic_set_line(void *ioapic, unsigned pin, bool level);

/* A local APIC has ended a level-triggered interrupt: inputs still asserted send again. */
void ioapic_eoi(struct ioapic *ioapic, u8 vector);

/* The register window, IOAPIC_MMIO_SIZE bytes; the signatures are those of a bus region. */
u64 ioapic_read(void *ioapic, u64 offset, unsigned size, u64 now);
void ioapic_write(void *ioapic, u64 offset, unsigned size, u64 value, u64 now);

extern const struct state_table ioapic_state;

#endif
