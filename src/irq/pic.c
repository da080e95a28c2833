/* The 8259A pair. Intel 8259A data sheet, "Interrupt Sequence", "Initialization Command Words", "Operation Command
 * Words". */
#include "irq/pic.h"

#define ICW1_IC4 BIT(0)
#define ICW1_SNGL BIT(1)
#define ICW1_LTIM BIT(3)
#define ICW1_SELECT BIT(4)
#define ICW4_AEOI BIT(1)
#define ICW4_SFNM BIT(4)
#define OCW3_SELECT BIT(3)
#define OCW3_READ_ISR BIT(0)
#define OCW3_READ BIT(1)
#define OCW3_POLL BIT(2)
#define OCW3_SMM BIT(5)
#define OCW3_ESMM BIT(6)
#define POLL_REQUEST BIT(7)

#define CASCADE_PIN 2
#define SPURIOUS_PIN 7
#define NONE 8 /* in place of a pin or a rank: no bit is set */

enum { MASTER, SLAVE };

static u8 level_triggered(const struct pic_chip *chip)
{
	return (chip->icw1 & ICW1_LTIM) ? 0xff : chip->elcr;
}

/* How many steps of priority the best of a set is below the highest: 0 to 7, or NONE. */
static unsigned best_rank(const struct pic_chip *chip, u8 set)
{
	unsigned first = (chip->lowest + 1) & 7;
	u8 ranked = (u8)(set >> first | set << (8 - first));
	return ranked ? (unsigned)__builtin_ctz(ranked) : NONE;
}

static unsigned pin_of_rank(const struct pic_chip *chip, unsigned rank)
{
	return (chip->lowest + 1 + rank) & 7;
}

/* The input whose request the chip would pass on now, or NONE. */
static unsigned chip_request(const struct pic_chip *chip, bool master)
{
	u8 blocking = chip->isr;

	if (chip->next_icw)
		return NONE;
	if (chip->special_mask)
		blocking &= (u8)~chip->imr;
	if (master && (chip->icw4 & ICW4_SFNM))
		blocking &= (u8)~BIT(CASCADE_PIN);
	unsigned rank = best_rank(chip, chip->irr & (u8)~chip->imr);
	return rank < best_rank(chip, blocking) ? pin_of_rank(chip, rank) : NONE;
}

static void chip_set_line(struct pic_chip *chip, unsigned pin, bool level)
{
	u8 bit = (u8)BIT(pin);
	bool was = chip->lines & bit;

	chip->lines = (u8)((chip->lines & ~bit) | (level ? bit : 0));
	if (!level)
		chip->irr &= (u8)~bit;
	else if (!was || (level_triggered(chip) & bit))
		chip->irr |= bit;
}

/* INT falls after each acknowledge and rises again if there is more: the master sees an edge even in automatic-EOI
 * mode. */
static void slave_acknowledged(struct pic *pic)
{
	chip_set_line(&pic->chip[MASTER], CASCADE_PIN, false);
}

/* Bring the outputs in line with the state: the slave's is an input of the master, the master's is the wire. */
static void update(struct pic *pic)
{
	chip_set_line(&pic->chip[MASTER], CASCADE_PIN, chip_request(&pic->chip[SLAVE], false) != NONE);
	wire_set(&pic->intr, pic_intr(pic));
}

bool pic_intr(const struct pic *pic)
{
	return chip_request(&pic->chip[MASTER], true) != NONE;
}

void pic_set_line(void *opaque, unsigned pin, bool level)
{
	struct pic *pic = opaque;

	if (pin >= PIC_PIN_COUNT || pin == CASCADE_PIN)
		return;
	chip_set_line(&pic->chip[pin / 8], pin % 8, level);
	update(pic);
}

static void chip_reset(struct pic_chip *chip, u8 vector_base, u8 elcr_writable)
{
	*chip = (struct pic_chip){
		.imr = 0xff,
		.lines = chip->lines,
		.elcr_writable = elcr_writable,
		.vector_base = vector_base,
		.lowest = 7,
	};
}

void pic_reset(struct pic *pic)
{
	/* The timer, the keyboard, the cascade, the clock and the coprocessor are edge-triggered in hardware. */
	chip_reset(&pic->chip[MASTER], 0x08, 0xf8);
	chip_reset(&pic->chip[SLAVE], 0x70, 0xde);
	update(pic);
}

/* First INTA pulse: from IRR to ISR. An edge is used up; a level stays as long as its line is high. */
static void chip_accept(struct pic_chip *chip, unsigned pin)
{
	u8 bit = (u8)BIT(pin);

	if (!(level_triggered(chip) & bit))
		chip->irr &= (u8)~bit;
	if (!(chip->icw4 & ICW4_AEOI))
		chip->isr |= bit;
	else if (chip->rotate_on_aeoi)
		chip->lowest = (u8)pin;
}

static u8 chip_acknowledge(struct pic_chip *chip, bool master, unsigned *pin)
{
	*pin = chip_request(chip, master);
	if (*pin != NONE)
		chip_accept(chip, *pin);
	return chip->vector_base + (u8)(*pin == NONE ? SPURIOUS_PIN : *pin);
}

int pic_acknowledge(struct pic *pic)
{
	unsigned pin;
	u8 vector = chip_acknowledge(&pic->chip[MASTER], true, &pin);

	if (pin == CASCADE_PIN) {
		vector = chip_acknowledge(&pic->chip[SLAVE], false, &pin);
		slave_acknowledged(pic);
	}
	update(pic);
	return vector;
}

/* ---- command words ---- */

/* "Initialization Command Words 1 and 2": the edge-sense circuit is reset, so that an input must rise again to be seen.
 */
static void write_icw1(struct pic_chip *chip, u8 value)
{
	chip->icw1 = value;
	chip->icw4 = 0;
	chip->irr = chip->lines & level_triggered(chip);
	chip->isr = 0;
	chip->imr = 0;
	chip->lowest = 7;
	chip->rotate_on_aeoi = false;
	chip->special_mask = false;
	chip->read_isr = false;
	chip->poll = false;
	chip->next_icw = 2;
}

/* "Operation Command Word 2". Bits 7:5 are R, SL and EOI. */
static void write_ocw2(struct pic_chip *chip, u8 value)
{
	bool rotate = value & BIT(7), specific = value & BIT(6), eoi = value & BIT(5);
	unsigned pin = value & 7;

	if (!eoi && !specific) {
		chip->rotate_on_aeoi = rotate;
		return;
	}
	if (eoi && !specific) {
		/* In special mask mode a non-specific EOI does not end what is masked. */
		u8 endable = chip->special_mask ? chip->isr & (u8)~chip->imr : chip->isr;
		unsigned rank = best_rank(chip, endable);
		if (rank == NONE)
			return;
		pin = pin_of_rank(chip, rank);
	}
	if (eoi)
		chip->isr &= (u8)~BIT(pin);
	if (rotate)
		chip->lowest = (u8)pin;
}

static void write_ocw3(struct pic_chip *chip, u8 value)
{
	if (value & OCW3_ESMM)
		chip->special_mask = value & OCW3_SMM;
	if (value & OCW3_POLL)
		chip->poll = true;
	else if (value & OCW3_READ)
		chip->read_isr = value & OCW3_READ_ISR;
}

/* The odd port: the initialization word that is due, or OCW1. ICW3 says what is wired where, which cannot be changed
 * here. */
static void write_odd(struct pic_chip *chip, u8 value)
{
	switch (chip->next_icw) {
	case 0:
		chip->imr = value;
		return;
	case 2:
		chip->vector_base = value & 0xf8;
		break;
	case 4:
		chip->icw4 = value;
		break;
	}
	bool has_icw3 = !(chip->icw1 & ICW1_SNGL), has_icw4 = chip->icw1 & ICW1_IC4;
	if (chip->next_icw == 2 && has_icw3)
		chip->next_icw = 3;
	else
		chip->next_icw = chip->next_icw < 4 && has_icw4 ? 4 : 0;
}

static void chip_write(struct pic_chip *chip, bool odd, u8 value)
{
	if (odd)
		write_odd(chip, value);
	else if (value & ICW1_SELECT)
		write_icw1(chip, value);
	else if (value & OCW3_SELECT)
		write_ocw3(chip, value);
	else
		write_ocw2(chip, value);
}

/* "Poll Command": the read is the acknowledge. */
static u8 chip_poll(struct pic_chip *chip, bool master)
{
	unsigned pin = chip_request(chip, master);

	chip->poll = false;
	if (pin == NONE)
		return 0;
	chip_accept(chip, pin);
	return (u8)(POLL_REQUEST | pin);
}

static u8 chip_read(struct pic_chip *chip, bool master, bool odd)
{
	if (chip->poll)
		return chip_poll(chip, master);
	if (odd)
		return chip->imr;
	return chip->read_isr ? chip->isr : chip->irr;
}

/* ---- ports: accesses wider than a byte touch the two ports in turn, as the ISA bus splits them ---- */

static u64 pair_read(struct pic *pic, unsigned which, u64 offset, unsigned size)
{
	u64 value = 0;

	if (which == SLAVE && pic->chip[SLAVE].poll)
		slave_acknowledged(pic);
	for (unsigned i = 0; i < size; i++)
		value |= (u64)chip_read(&pic->chip[which], which == MASTER, (offset + i) & 1) << (8 * i);
	update(pic);
	return value;
}

static void pair_write(struct pic *pic, unsigned which, u64 offset, unsigned size, u64 value)
{
	for (unsigned i = 0; i < size; i++)
		chip_write(&pic->chip[which], (offset + i) & 1, (u8)(value >> (8 * i)));
	update(pic);
}

u64 pic_master_read(void *pic, u64 offset, unsigned size, u64 now)
{
	return pair_read(pic, MASTER, offset, size);
}

void pic_master_write(void *pic, u64 offset, unsigned size, u64 value, u64 now)
{
	pair_write(pic, MASTER, offset, size, value);
}

u64 pic_slave_read(void *pic, u64 offset, unsigned size, u64 now)
{
	return pair_read(pic, SLAVE, offset, size);
}

void pic_slave_write(void *pic, u64 offset, unsigned size, u64 value, u64 now)
{
	pair_write(pic, SLAVE, offset, size, value);
}

u64 pic_elcr_read(void *opaque, u64 offset, unsigned size, u64 now)
{
	const struct pic *pic = opaque;
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)pic->chip[(offset + i) & 1].elcr << (8 * i);
	return value;
}

void pic_elcr_write(void *opaque, u64 offset, unsigned size, u64 value, u64 now)
{
	struct pic *pic = opaque;

	for (unsigned i = 0; i < size; i++) {
		struct pic_chip *chip = &pic->chip[(offset + i) & 1];
		chip->elcr = (u8)(value >> (8 * i)) & chip->elcr_writable;
		chip->irr |= chip->lines & chip->elcr;
	}
	update(pic);
}

/* ---- state ---- */

static const struct state_table chip_state = STATE_TABLE(struct pic_chip, NULL,
	STATE(struct pic_chip, irr), STATE(struct pic_chip, isr), STATE(struct pic_chip, imr), STATE(struct pic_chip, lines),
	STATE(struct pic_chip, elcr), STATE_NONE(struct pic_chip, elcr_writable), STATE(struct pic_chip, vector_base),
	STATE(struct pic_chip, icw1), STATE(struct pic_chip, icw4), STATE_MAX(struct pic_chip, next_icw, 4),
	STATE_MAX(struct pic_chip, lowest, 7), STATE(struct pic_chip, rotate_on_aeoi), STATE(struct pic_chip, special_mask),
	STATE(struct pic_chip, poll), STATE(struct pic_chip, read_isr));

const struct state_table pic_state = STATE_TABLE(struct pic, NULL,
	STATE_IN(struct pic, chip, chip_state), STATE_IN(struct pic, intr, wire_state));
