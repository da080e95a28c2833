/* PS/2 keyboard (ps2.h): commands, and scan codes of sets 1 and 2. Set 3 is refused, as by many real keyboards. */
#include "dev/ps2.h"

enum {
	SET_LEDS = 0xed,
	ECHO = 0xee,
	SET_SCAN_CODES = 0xf0,
	IDENTIFY = 0xf2,
	SET_TYPEMATIC = 0xf3,
	ENABLE = 0xf4,
	DISABLE = 0xf5,
	SET_DEFAULT = 0xf6,
	RESEND = 0xfe,
	RESET = 0xff
};

#define KEYS_MAX 16            /* bytes of keys waiting; the rest of the queue is for answers */
#define TYPEMATIC_DEFAULT 0x2b /* 10.9 characters a second after 500 ms */

/* The controller's translation table, set 2 to set 1 ("Scan Code Translation"). It is also read backwards to make set 2
 * codes, from its end, because 41 and 54 occur twice and the real keys (F7, SysRq) are the later ones. */
static const u8 set1_of[0x85] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
	0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
	0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
	0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
	0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
	0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
	0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
	0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
	0x80, 0x81, 0x82, 0x41, 0x54,                                                                   /* 80 */
};

u8 ps2_set2_to_set1(u8 byte)
{
	return byte < ARRAY_SIZE(set1_of) ? set1_of[byte] : byte;
}

/* 0 when no key has that code. */
static u8 set2_of(u8 set1)
{
	unsigned i = ARRAY_SIZE(set1_of) - 1;
	while (i && set1_of[i] != set1)
		i--;
	return (u8)i;
}

static void set_defaults(struct ps2_keyboard *keyboard, bool scanning)
{
	keyboard->set = 2;
	keyboard->typematic = TYPEMATIC_DEFAULT;
	keyboard->scanning = scanning;
	keyboard->command = 0;
	keyboard->queue.count = 0;
}

void ps2_keyboard_reset(struct ps2_keyboard *keyboard)
{
	set_defaults(keyboard, true);
	keyboard->leds = 0;
}

static void answer(struct ps2_keyboard *keyboard, u8 byte)
{
	ps2_put(&keyboard->queue, byte);
}

static void set_scan_codes(struct ps2_keyboard *keyboard, u8 set)
{
	answer(keyboard, set > 2 ? PS2_RESEND : PS2_ACK);
	if (!set)
		answer(keyboard, keyboard->set);
	else if (set <= 2)
		keyboard->set = set;
}

/* The second byte of a command. False if it is a new command instead, as all bytes above 0x80 are. */
static bool take_parameter(struct ps2_keyboard *keyboard, u8 byte)
{
	u8 command = keyboard->command;
	keyboard->command = 0;
	if (!command || byte >= 0x80)
		return false;
	if (command == SET_SCAN_CODES) {
		set_scan_codes(keyboard, byte);
		return true;
	}
	if (command == SET_LEDS)
		keyboard->leds = byte & 7;
	else
		keyboard->typematic = byte;
	answer(keyboard, PS2_ACK);
	return true;
}

static void take_command(struct ps2_keyboard *keyboard, u8 byte)
{
	switch (byte) {
	case SET_LEDS:
	case SET_SCAN_CODES:
	case SET_TYPEMATIC:
		keyboard->command = byte;
		break;
	case ECHO:
		answer(keyboard, ECHO);
		return;
	case IDENTIFY:
		answer(keyboard, PS2_ACK);
		answer(keyboard, 0xab);
		answer(keyboard, 0x83);
		return;
	case ENABLE:
		keyboard->queue.count = 0;
		keyboard->scanning = true;
		break;
	case DISABLE:
	case SET_DEFAULT:
		set_defaults(keyboard, byte == SET_DEFAULT);
		break;
	case RESEND:
		answer(keyboard, keyboard->last);
		return;
	case RESET:
		ps2_keyboard_reset(keyboard);
		answer(keyboard, PS2_ACK);
		answer(keyboard, PS2_SELF_TEST_PASSED);
		return;
	default:
		answer(keyboard, PS2_RESEND);
		return;
	}
	answer(keyboard, PS2_ACK);
}

void ps2_keyboard_write(struct ps2_keyboard *keyboard, u8 byte)
{
	if (!take_parameter(keyboard, byte))
		take_command(keyboard, byte);
}

bool ps2_keyboard_read(struct ps2_keyboard *keyboard, u8 *byte)
{
	if (!ps2_get(&keyboard->queue, byte))
		return false;
	if (*byte != PS2_RESEND)
		keyboard->last = *byte;
	return true;
}

bool ps2_keyboard_key(struct ps2_keyboard *keyboard, u16 code, bool down)
{
	u8 set1 = code & 0x7f, set2 = set2_of(set1);
	bool extended = code >> 8 == PS2_EXTENDED;
	if (!keyboard->scanning || !set2 || set1 > 0x58)
		return true;
	if (keyboard->queue.count + 3 > KEYS_MAX)
		return false;
	if (extended)
		ps2_put(&keyboard->queue, PS2_EXTENDED);
	if (keyboard->set == 1) {
		ps2_put(&keyboard->queue, set1 | (down ? 0 : 0x80));
		return true;
	}
	if (!down)
		ps2_put(&keyboard->queue, PS2_RELEASE);
	ps2_put(&keyboard->queue, set2);
	return true;
}

const struct state_table ps2_queue_state = STATE_TABLE(struct ps2_queue, NULL,
	STATE(struct ps2_queue, data), STATE_MAX(struct ps2_queue, head, PS2_QUEUE_SIZE - 1),
	STATE_MAX(struct ps2_queue, count, PS2_QUEUE_SIZE));

const struct state_table ps2_keyboard_state = STATE_TABLE(struct ps2_keyboard, NULL,
	STATE_IN(struct ps2_keyboard, queue, ps2_queue_state), STATE(struct ps2_keyboard, command), STATE(struct ps2_keyboard, last),
	STATE_MAX(struct ps2_keyboard, set, 2), STATE(struct ps2_keyboard, leds), STATE(struct ps2_keyboard, typematic),
	STATE(struct ps2_keyboard, scanning));
