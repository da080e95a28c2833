/* 8042 keyboard controller (i8042.h). The chip answers at once, so the input buffer is never full; the output buffer
 * holds one byte, and the next one moves up when it is read: the controller's own answer first, then the keyboard's,
 * then the mouse's. */
#include "dev/i8042.h"

#include "dev/map.h"

/* "Status Register". */
#define STATUS_OBF 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08
#define STATUS_NOT_INHIBITED 0x10
#define STATUS_AUX_OBF 0x20

/* "Controller Command Byte". */
#define CTR_KEYBOARD_IRQ 0x01
#define CTR_MOUSE_IRQ 0x02
#define CTR_SYSTEM 0x04
#define CTR_KEYBOARD_OFF 0x10
#define CTR_MOUSE_OFF 0x20
#define CTR_TRANSLATE 0x40

/* "Output Port". */
#define OUT_NO_RESET 0x01
#define OUT_A20 0x02
#define OUT_KEYBOARD_IRQ 0x10
#define OUT_MOUSE_IRQ 0x20
#define OUT_IDLE_LINES 0xcc

enum source { SOURCE_NONE, SOURCE_CONTROLLER, SOURCE_KEYBOARD, SOURCE_MOUSE };

/* "Controller Commands". 20-3F and 60-7F read and write the RAM, F0-FF pulse the low lines of the output port. */
enum {
	READ_RAM = 0x20,
	WRITE_RAM = 0x60,
	MOUSE_DISABLE = 0xa7,
	MOUSE_ENABLE = 0xa8,
	MOUSE_TEST = 0xa9,
	SELF_TEST = 0xaa,
	KEYBOARD_TEST = 0xab,
	KEYBOARD_DISABLE = 0xad,
	KEYBOARD_ENABLE = 0xae,
	READ_INPUT_PORT = 0xc0,
	READ_OUTPUT_PORT = 0xd0,
	WRITE_OUTPUT_PORT = 0xd1,
	WRITE_KEYBOARD_OUTPUT = 0xd2,
	WRITE_MOUSE_OUTPUT = 0xd3,
	WRITE_MOUSE = 0xd4,
	A20_OFF = 0xdd,
	A20_ON = 0xdf,
	READ_TEST_INPUTS = 0xe0,
	PULSE = 0xf0
};

#define SELF_TEST_PASSED 0x55
#define PORT_TEST_PASSED 0x00
#define INPUT_PORT_NOT_LOCKED 0x80
#define KIND_MASK 0xe0
#define INDEX_MASK 0x1f

static u8 *ctr(struct i8042 *i8042)
{
	return &i8042->ram[0];
}

/* Set 2 to set 1 as bytes pass by. The release prefix becomes the top bit of the code after it. False: no byte comes
 * out. */
static bool translate(struct i8042 *i8042, u8 *byte)
{
	if (!(*ctr(i8042) & CTR_TRANSLATE))
		return true;
	if (*byte == PS2_RELEASE) {
		i8042->release = true;
		return false;
	}
	*byte = ps2_set2_to_set1(*byte) | (i8042->release ? 0x80 : 0);
	i8042->release = false;
	return true;
}

static bool keyboard_byte(struct i8042 *i8042, u8 *byte)
{
	if (*ctr(i8042) & CTR_KEYBOARD_OFF)
		return false;
	while (ps2_keyboard_read(&i8042->keyboard, byte))
		if (translate(i8042, byte))
			return true;
	return false;
}

static bool mouse_byte(struct i8042 *i8042, u8 *byte)
{
	return !(*ctr(i8042) & CTR_MOUSE_OFF) && ps2_mouse_read(&i8042->mouse, byte);
}

/* Fill the output buffer if it is free. */
static void refill(struct i8042 *i8042)
{
	if (i8042->source)
		return;
	if (i8042->answer_source) {
		i8042->output = i8042->answer;
		i8042->source = i8042->answer_source;
		i8042->answer_source = SOURCE_NONE;
	} else if (keyboard_byte(i8042, &i8042->output)) {
		i8042->source = SOURCE_KEYBOARD;
	} else if (mouse_byte(i8042, &i8042->output)) {
		i8042->source = SOURCE_MOUSE;
	}
}

/* The controller's own answers raise the keyboard's interrupt too. */
static void update_irq(struct i8042 *i8042)
{
	bool mouse = i8042->source == SOURCE_MOUSE;
	wire_set(&i8042->keyboard_irq, i8042->source && !mouse && (*ctr(i8042) & CTR_KEYBOARD_IRQ));
	wire_set(&i8042->mouse_irq, mouse && (*ctr(i8042) & CTR_MOUSE_IRQ));
}

static void update(struct i8042 *i8042)
{
	refill(i8042);
	update_irq(i8042);
}

static void answer(struct i8042 *i8042, u8 byte, enum source source)
{
	i8042->answer = byte;
	i8042->answer_source = source;
}

static void set_output_port(struct i8042 *i8042, u8 value)
{
	i8042->output_port = value;
	wire_set(&i8042->a20, value & OUT_A20);
	if (!(value & OUT_NO_RESET) && i8042->reset)
		i8042->reset(i8042->opaque);
}

static u8 read_output_port(const struct i8042 *i8042)
{
	return (i8042->output_port & (OUT_NO_RESET | OUT_A20)) | OUT_IDLE_LINES |
	       (i8042->keyboard_irq.level ? OUT_KEYBOARD_IRQ : 0) | (i8042->mouse_irq.level ? OUT_MOUSE_IRQ : 0);
}

/* Commands that act at once. Those that wait for a data byte are remembered; unknown ones do nothing. */
static void take_command(struct i8042 *i8042, u8 command)
{
	switch (command) {
	case MOUSE_DISABLE:
		*ctr(i8042) |= CTR_MOUSE_OFF;
		break;
	case MOUSE_ENABLE:
		*ctr(i8042) &= ~CTR_MOUSE_OFF;
		break;
	case KEYBOARD_DISABLE:
		*ctr(i8042) |= CTR_KEYBOARD_OFF;
		break;
	case KEYBOARD_ENABLE:
		*ctr(i8042) &= ~CTR_KEYBOARD_OFF;
		break;
	case SELF_TEST:
		*ctr(i8042) |= CTR_SYSTEM;
		answer(i8042, SELF_TEST_PASSED, SOURCE_CONTROLLER);
		break;
	case MOUSE_TEST:
	case KEYBOARD_TEST:
		answer(i8042, PORT_TEST_PASSED, SOURCE_CONTROLLER);
		break;
	case READ_INPUT_PORT:
		answer(i8042, INPUT_PORT_NOT_LOCKED, SOURCE_CONTROLLER);
		break;
	case READ_OUTPUT_PORT:
		answer(i8042, read_output_port(i8042), SOURCE_CONTROLLER);
		break;
	case READ_TEST_INPUTS:
		answer(i8042, 0, SOURCE_CONTROLLER);
		break;
	case A20_OFF:
		set_output_port(i8042, i8042->output_port & ~OUT_A20);
		break;
	case A20_ON:
		set_output_port(i8042, i8042->output_port | OUT_A20);
		break;
	default:
		i8042->command = command;
	}
}

static void write_command(struct i8042 *i8042, u8 command)
{
	i8042->last_command = true;
	i8042->command = 0;
	if (command >= PULSE) {
		if (!(command & OUT_NO_RESET) && i8042->reset)
			i8042->reset(i8042->opaque);
	} else if ((command & KIND_MASK) == READ_RAM) {
		answer(i8042, i8042->ram[command & INDEX_MASK], SOURCE_CONTROLLER);
	} else {
		take_command(i8042, command);
	}
}

/* A data byte belongs to the command before it, or goes to the keyboard, which sending to also switches on. */
static void write_data(struct i8042 *i8042, u8 byte)
{
	u8 command = i8042->command;
	i8042->last_command = false;
	i8042->command = 0;
	if ((command & KIND_MASK) == WRITE_RAM) {
		i8042->ram[command & INDEX_MASK] = byte;
		return;
	}
	switch (command) {
	case WRITE_OUTPUT_PORT:
		set_output_port(i8042, byte);
		break;
	case WRITE_KEYBOARD_OUTPUT:
		answer(i8042, byte, SOURCE_KEYBOARD);
		break;
	case WRITE_MOUSE_OUTPUT:
		answer(i8042, byte, SOURCE_MOUSE);
		break;
	case WRITE_MOUSE:
		*ctr(i8042) &= ~CTR_MOUSE_OFF;
		ps2_mouse_write(&i8042->mouse, byte);
		break;
	default:
		*ctr(i8042) &= ~CTR_KEYBOARD_OFF;
		ps2_keyboard_write(&i8042->keyboard, byte);
	}
}

/* Reading frees the output buffer. The request line falls before the next byte raises it, for an edge-triggered
 * controller. */
static u64 data_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct i8042 *i8042 = device;
	u8 byte = i8042->output;
	i8042->source = SOURCE_NONE;
	update_irq(i8042);
	update(i8042);
	return byte;
}

static void data_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	write_data(device, (u8)value);
	update(device);
}

static u64 status_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct i8042 *i8042 = device;
	return STATUS_NOT_INHIBITED | (i8042->source ? STATUS_OBF : 0) |
	       (i8042->source == SOURCE_MOUSE ? STATUS_AUX_OBF : 0) | (i8042->last_command ? STATUS_COMMAND : 0) |
	       (*ctr(i8042) & CTR_SYSTEM ? STATUS_SYSTEM : 0);
}

static void command_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	write_command(device, (u8)value);
	update(device);
}

static const struct region_ops data_ops = { .read = data_read, .write = data_write, .width = 1 };
static const struct region_ops command_ops = { .read = status_read, .write = command_write, .width = 1 };

void i8042_reset(struct i8042 *i8042)
{
	struct i8042 fresh = {
		.keyboard_irq = i8042->keyboard_irq,
		.mouse_irq = i8042->mouse_irq,
		.a20 = i8042->a20,
		.reset = i8042->reset,
		.opaque = i8042->opaque,
		.ram = { CTR_KEYBOARD_IRQ | CTR_SYSTEM | CTR_MOUSE_OFF | CTR_TRANSLATE },
	};
	*i8042 = fresh;
	ps2_keyboard_reset(&i8042->keyboard);
	ps2_mouse_reset(&i8042->mouse);
	set_output_port(i8042, OUT_NO_RESET | OUT_A20);
	update(i8042);
}

int i8042_attach(struct i8042 *i8042, struct bus *io)
{
	i8042_reset(i8042);
	int error = bus_add(io, "8042 data", PORT_I8042, 1, &data_ops, i8042);
	return error ? error : bus_add(io, "8042 command", PORT_I8042 + 4, 1, &command_ops, i8042);
}

bool i8042_key(struct i8042 *i8042, u16 code, bool down)
{
	bool taken = ps2_keyboard_key(&i8042->keyboard, code, down);
	update(i8042);
	return taken;
}

void i8042_mouse(struct i8042 *i8042, s32 dx, s32 dy, u8 buttons)
{
	ps2_mouse_move(&i8042->mouse, dx, dy, buttons);
	update(i8042);
}

const struct state_table i8042_state = STATE_TABLE(struct i8042, NULL,
	STATE_IN(struct i8042, keyboard_irq, wire_state), STATE_IN(struct i8042, mouse_irq, wire_state),
	STATE_IN(struct i8042, a20, wire_state), STATE_NONE(struct i8042, reset), STATE_NONE(struct i8042, opaque),
	STATE(struct i8042, ram), STATE(struct i8042, output_port), STATE(struct i8042, command), STATE(struct i8042, last_command),
	STATE(struct i8042, output), STATE(struct i8042, source), STATE(struct i8042, answer), STATE(struct i8042, answer_source),
	STATE(struct i8042, release), STATE_IN(struct i8042, keyboard, ps2_keyboard_state),
	STATE_IN(struct i8042, mouse, ps2_mouse_state));
