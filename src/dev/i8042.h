/* 8042 keyboard controller with a PS/2 keyboard and mouse (IBM PS/2 Hardware Interface Technical Reference, "Keyboard
 * and Auxiliary Device Controller"): data at port 0x60, status and command at 0x64. */
#ifndef NADIR_DEV_I8042_H
#define NADIR_DEV_I8042_H

#include "dev/bus.h"
#include "dev/ps2.h"
#include "irq/wire.h"
#include "lib/state.h"

#define I8042_RAM_SIZE 32

struct i8042 {
	/* Wired by the board before i8042_attach, kept by i8042_reset. */
	struct wire keyboard_irq, mouse_irq;
	struct wire a20;             /* this chip's share of the A20 gate (reset.h) */
	void (*reset)(void *opaque); /* the guest pulsed the CPU's reset line; called from a register write */
	void *opaque;

	u8 ram[I8042_RAM_SIZE]; /* byte 0 is the command byte */
	u8 output_port;
	u8 command;        /* waits for its data byte, or 0 */
	bool last_command; /* the last write went to the command port */
	u8 output;         /* the output buffer and where its byte came from */
	u8 source;
	u8 answer; /* the controller's own answer, when the output buffer was not free for it */
	u8 answer_source;
	bool release; /* translation: the keyboard's last byte was the release prefix */
	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
};

/* The state in which firmware leaves the chip: keyboard on and translated to set 1, mouse off, A20 open. */
void i8042_reset(struct i8042 *i8042);
/* Reset and answer at ports 0x60 and 0x64; 0, or a negative value as bus_add. */
int i8042_attach(struct i8042 *i8042, struct bus *io);

/* Input, as ps2_keyboard_key and ps2_mouse_move. */
bool i8042_key(struct i8042 *i8042, u16 code, bool down);
void i8042_mouse(struct i8042 *i8042, s32 dx, s32 dy, u8 buttons);

extern const struct state_table i8042_state;

#endif
