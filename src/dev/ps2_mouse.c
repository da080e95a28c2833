/* PS/2 mouse (ps2.h): the standard three-byte protocol. */
#include "dev/ps2.h"

enum {
	SET_SCALING_1 = 0xe6,
	SET_SCALING_2 = 0xe7,
	SET_RESOLUTION = 0xe8,
	STATUS_REQUEST = 0xe9,
	SET_STREAM = 0xea,
	READ_DATA = 0xeb,
	RESET_WRAP = 0xec,
	SET_WRAP = 0xee,
	SET_REMOTE = 0xf0,
	READ_DEVICE_TYPE = 0xf2,
	SET_RATE = 0xf3,
	ENABLE = 0xf4,
	DISABLE = 0xf5,
	SET_DEFAULT = 0xf6,
	RESEND = 0xfe,
	RESET = 0xff
};

#define REPORT_SIZE 3
#define BUTTONS 0x07
#define DISTANCE_MAX 1024

static s32 clamp(s32 distance)
{
	return MAX(MIN(distance, DISTANCE_MAX), -DISTANCE_MAX);
}

static void answer(struct ps2_mouse *mouse, u8 byte)
{
	ps2_put(&mouse->queue, byte);
}

static void set_defaults(struct ps2_mouse *mouse)
{
	*mouse = (struct ps2_mouse){ .last = mouse->last, .buttons = mouse->buttons, .resolution = 2, .rate = 100 };
}

void ps2_mouse_reset(struct ps2_mouse *mouse)
{
	set_defaults(mouse);
}

/* One movement report: buttons and signs, then the distances, nine bits each. What is left over goes into the next one.
 */
static void report(struct ps2_mouse *mouse)
{
	s32 dx = MAX(MIN(mouse->dx, 255), -256), dy = MAX(MIN(mouse->dy, 255), -256);
	mouse->dx -= dx;
	mouse->dy -= dy;
	answer(mouse, mouse->buttons | 0x08 | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0));
	answer(mouse, (u8)dx);
	answer(mouse, (u8)dy);
}

static void answer_status(struct ps2_mouse *mouse)
{
	u8 left = mouse->buttons & 1, right = mouse->buttons >> 1 & 1, middle = mouse->buttons >> 2 & 1;
	answer(mouse, mouse->remote << 6 | mouse->enabled << 5 | mouse->scaling << 4 | left << 2 | middle << 1 | right);
	answer(mouse, mouse->resolution);
	answer(mouse, mouse->rate);
}

static bool take_parameter(struct ps2_mouse *mouse, u8 byte)
{
	u8 command = mouse->command;
	mouse->command = 0;
	if (!command)
		return false;
	if (command == SET_RATE)
		mouse->rate = byte;
	else
		mouse->resolution = byte & 3;
	answer(mouse, PS2_ACK);
	return true;
}

/* Commands that only change a mode. */
static bool take_mode(struct ps2_mouse *mouse, u8 byte)
{
	switch (byte) {
	case SET_SCALING_1:
	case SET_SCALING_2:
		mouse->scaling = byte == SET_SCALING_2;
		break;
	case SET_STREAM:
	case SET_REMOTE:
		mouse->remote = byte == SET_REMOTE;
		break;
	case RESET_WRAP:
	case SET_WRAP:
		mouse->wrap = byte == SET_WRAP;
		break;
	case ENABLE:
	case DISABLE:
		mouse->enabled = byte == ENABLE;
		break;
	case SET_RESOLUTION:
	case SET_RATE:
		mouse->command = byte;
		break;
	case SET_DEFAULT:
		set_defaults(mouse);
		break;
	default:
		return false;
	}
	answer(mouse, PS2_ACK);
	return true;
}

/* Commands with an answer of their own. After its self-test the mouse tells its type, 0. */
static void take_request(struct ps2_mouse *mouse, u8 byte)
{
	switch (byte) {
	case STATUS_REQUEST:
		answer(mouse, PS2_ACK);
		answer_status(mouse);
		break;
	case READ_DATA:
		answer(mouse, PS2_ACK);
		report(mouse);
		break;
	case READ_DEVICE_TYPE:
		answer(mouse, PS2_ACK);
		answer(mouse, 0);
		break;
	case RESEND:
		answer(mouse, mouse->last);
		break;
	case RESET:
		set_defaults(mouse);
		answer(mouse, PS2_ACK);
		answer(mouse, PS2_SELF_TEST_PASSED);
		answer(mouse, 0);
		break;
	default:
		answer(mouse, PS2_RESEND);
	}
}

/* A command throws away what was still to be sent; in wrap mode every byte but two is echoed. */
void ps2_mouse_write(struct ps2_mouse *mouse, u8 byte)
{
	mouse->queue.count = 0;
	if (mouse->wrap && byte != RESET && byte != RESET_WRAP)
		answer(mouse, byte);
	else if (!take_parameter(mouse, byte) && !take_mode(mouse, byte))
		take_request(mouse, byte);
}

bool ps2_mouse_read(struct ps2_mouse *mouse, u8 *byte)
{
	if (!ps2_get(&mouse->queue, byte))
		return false;
	mouse->last = *byte;
	return true;
}

void ps2_mouse_move(struct ps2_mouse *mouse, s32 dx, s32 dy, u8 buttons)
{
	bool changed = (buttons & BUTTONS) != mouse->buttons;
	mouse->buttons = buttons & BUTTONS;
	mouse->dx = clamp(mouse->dx + clamp(dx));
	mouse->dy = clamp(mouse->dy + clamp(dy));
	if (!mouse->enabled || mouse->remote || mouse->wrap)
		return;
	while ((changed || mouse->dx || mouse->dy) && mouse->queue.count + REPORT_SIZE <= PS2_QUEUE_SIZE) {
		report(mouse);
		changed = false;
	}
}

const struct state_table ps2_mouse_state = STATE_TABLE(struct ps2_mouse, NULL,
	STATE_IN(struct ps2_mouse, queue, ps2_queue_state), STATE(struct ps2_mouse, command), STATE(struct ps2_mouse, last),
	STATE(struct ps2_mouse, resolution), STATE(struct ps2_mouse, rate), STATE(struct ps2_mouse, buttons),
	STATE(struct ps2_mouse, enabled), STATE(struct ps2_mouse, remote), STATE(struct ps2_mouse, wrap),
	STATE(struct ps2_mouse, scaling), STATE(struct ps2_mouse, dx), STATE(struct ps2_mouse, dy));
