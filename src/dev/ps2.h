/* The two devices at a PC's PS/2 connectors: an enhanced keyboard (IBM PS/2 Hardware Interface Technical Reference,
 * "Keyboards") and a three-button mouse ("Mouse"). Each takes command bytes and fills a small queue with answers and
 * events, which the keyboard controller (i8042.h) empties. */
#ifndef NADIR_DEV_PS2_H
#define NADIR_DEV_PS2_H

#include "arch/types.h"
#include "lib/state.h"

#define PS2_QUEUE_SIZE 32

struct ps2_queue {
	u8 data[PS2_QUEUE_SIZE];
	u8 head, count;
};

struct ps2_keyboard {
	struct ps2_queue queue;
	u8 command; /* waits for its parameter byte, or 0 */
	u8 last;    /* sent last, for the Resend command */
	u8 set;     /* scan-code set: 1 or 2 */
	u8 leds;
	u8 typematic;
	bool scanning;
};

struct ps2_mouse {
	struct ps2_queue queue;
	u8 command, last;
	u8 resolution, rate, buttons;
	bool enabled, remote, wrap, scaling; /* scaling: 2:1 */
	s32 dx, dy;                          /* moved, not yet reported */
};

/* The state in which firmware leaves the device: self-test done, scanning, nothing to say. */
void ps2_keyboard_reset(struct ps2_keyboard *keyboard);
/* A byte from the host to the device. */
void ps2_keyboard_write(struct ps2_keyboard *keyboard, u8 byte);
/* The next byte from the device; false when there is none. */
bool ps2_keyboard_read(struct ps2_keyboard *keyboard, u8 *byte);
/* A key goes down or up. `code` is the key's set 1 code (1 to 0x58), with 0xe000 added for the extended keys. Unknown
 * codes and keys pressed while scanning is off are dropped. False when the queue has no room. */
bool ps2_keyboard_key(struct ps2_keyboard *keyboard, u16 code, bool down);

/* What the keyboard controller makes of a set 2 byte in translation mode: the set 1 code. */
u8 ps2_set2_to_set1(u8 byte);

/* As firmware leaves it: self-test done, reporting off. */
void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, u8 byte);
bool ps2_mouse_read(struct ps2_mouse *mouse, u8 *byte);
/* The mouse moves (dy upwards) and has these buttons down: bit 0 left, 1 right, 2 middle. Movement that does not fit
 * the queue is added to the next report; what is more than the counters hold is lost. */
void ps2_mouse_move(struct ps2_mouse *mouse, s32 dx, s32 dy, u8 buttons);

/* The queue of both: false when full or empty. */
static inline bool ps2_put(struct ps2_queue *queue, u8 byte)
{
	if (queue->count == PS2_QUEUE_SIZE)
		return false;
	queue->data[(queue->head + queue->count++) % PS2_QUEUE_SIZE] = byte;
	return true;
}

static inline bool ps2_get(struct ps2_queue *queue, u8 *byte)
{
	if (!queue->count)
		return false;
	*byte = queue->data[queue->head];
	queue->head = (queue->head + 1) % PS2_QUEUE_SIZE;
	queue->count--;
	return true;
}

#define PS2_ACK 0xfa
#define PS2_RESEND 0xfe
#define PS2_SELF_TEST_PASSED 0xaa
#define PS2_RELEASE 0xf0 /* set 2: the next code is a key going up */
#define PS2_EXTENDED 0xe0

extern const struct state_table ps2_queue_state, ps2_keyboard_state, ps2_mouse_state;

#endif
