/* The pair of 8259A interrupt controllers of a PC, the slave on input 2 of the master, with the edge/level control
 * registers (ELCR) of the EISA and PCI chip sets. Intel 8259A data sheet; Intel 82371SB (PIIX3) data sheet, "Edge/Level
 * Control".
 *
 * The board serializes all calls. */
#ifndef NADIR_IRQ_PIC_H
#define NADIR_IRQ_PIC_H

#include "irq/wire.h"
#include "lib/state.h"

#define PIC_PIN_COUNT 16

struct pic_chip {
	u8 irr, isr, imr;
	u8 lines; /* levels of the inputs */
	u8 elcr;  /* inputs that are level-triggered */
	u8 elcr_writable;
	u8 vector_base; /* ICW2 */
	u8 icw1, icw4;
	u8 next_icw; /* the initialization word expected on the odd port: 2, 3, 4, or 0 when the chip is in operation */
	u8 lowest;   /* the input of lowest priority */
	bool rotate_on_aeoi;
	bool special_mask;
	bool poll; /* the next read is a poll */
	bool read_isr;
};

struct pic {
	struct pic_chip chip[2]; /* master, slave */
	struct wire intr;        /* to the CPU's INTR, or LINT0; connected by the board */
};

/* The state that PC firmware leaves: vectors 08H-0FH and 70H-77H, everything masked. The wire's sink stays connected.
 */
void pic_reset(struct pic *pic);

/* Change an input, 0 to 15 but for 2. The signature is a wire's sink. Edge-triggered inputs must stay high until the
 * interrupt is acknowledged, as the data sheet demands; if not, the acknowledge gives the spurious vector. */
void pic_set_line(void *pic, unsigned pin, bool level);

/* INTR, without going through the wire. */
bool pic_intr(const struct pic *pic);

/* The INTA sequence: moves the interrupt into service and returns its vector. If the request has gone away, the vector
 * of IRQ 7 or 15 comes back and nothing is in service, as on the chip; so ask only while INTR is high. */
int pic_acknowledge(struct pic *pic);

/* Register access; the signatures are those of a bus region: two ports each for master, slave and ELCR. */
u64 pic_master_read(void *pic, u64 offset, unsigned size, u64 now);
void pic_master_write(void *pic, u64 offset, unsigned size, u64 value, u64 now);
u64 pic_slave_read(void *pic, u64 offset, unsigned size, u64 now);
void pic_slave_write(void *pic, u64 offset, unsigned size, u64 value, u64 now);
u64 pic_elcr_read(void *pic, u64 offset, unsigned size, u64 now);
void pic_elcr_write(void *pic, u64 offset, unsigned size, u64 value, u64 now);

extern const struct state_table pic_state;

#endif
