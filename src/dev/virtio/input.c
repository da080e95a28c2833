/* virtio input devices (input.h). Events go into buffers of the driver's, one each; those that it has no room for wait in a queue, and what belongs together
 * goes there as a whole or not at all, so that the driver never sees half of it. */
#include "dev/virtio/input.h"

#include "lib/string.h"

#define ID 18
#define CLASS_KEYBOARD 0x090000
#define CLASS_TABLET 0x098000 /* input device, other */

enum { EVENTS, STATUS, QUEUES };
#define PACKET_MAX 12u /* two axes, buttons, wheels, and the end */

/* "Device configuration layout". */
enum { SELECT_NAME = 1, SELECT_SERIAL, SELECT_IDS, SELECT_PROPERTIES = 0x10, SELECT_EVENTS, SELECT_AXIS };

/* Linux' input-event-codes.h. */
enum { EV_SYN, EV_KEY, EV_REL, EV_ABS, EV_LED = 0x11, EV_REP = 0x14 };
enum { ABS_X, ABS_Y };
enum { REL_HWHEEL = 6, REL_WHEEL = 8 };
#define BTN_LEFT 0x110
#define LEDS 3 /* Num, Caps and Scroll Lock */
#define BUS_VIRTUAL 6

struct ids {
	u16 bus, vendor, product, version;
};

struct axis {
	u32 min, max, fuzz, flat, resolution;
};

/* RFB's buttons, and what they are to Linux: keys, or a step of a wheel. */
static const struct button {
	u16 type, code;
	s8 step;
} buttons[] = {
	{ EV_KEY, BTN_LEFT, 0 }, { EV_KEY, BTN_LEFT + 2, 0 }, { EV_KEY, BTN_LEFT + 1, 0 }, { EV_REL, REL_WHEEL, 1 },
	{ EV_REL, REL_WHEEL, -1 }, { EV_REL, REL_HWHEEL, -1 }, { EV_REL, REL_HWHEEL, 1 }, { EV_KEY, BTN_LEFT + 3, 0 },
};

static struct virtio_input *input_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_input, virtio);
}

/* ---- what the driver asks ---- */

static void answer(struct input_config *config, const void *bytes, size_t size)
{
	memcpy(config->data, bytes, size);
	config->size = (u8)size;
}

/* Numbers, as a set of bits: in as many bytes as the highest needs. */
static void answer_bit(struct input_config *config, unsigned number)
{
	config->data[number / 8] |= (u8)(1 << number % 8);
	config->size = MAX(config->size, (u8)(number / 8 + 1));
}

static void answer_key(struct input_config *config, u16 key)
{
	if (key)
		answer_bit(config, key);
}

static void answer_keyboard(struct input_config *config)
{
	for (u16 code = 1; config->subselect == EV_KEY && code < 0x80; code++) {
		answer_key(config, input_key(code));
		answer_key(config, input_key(0xe000 | code));
	}
	for (unsigned i = 0; config->subselect == EV_LED && i < LEDS; i++)
		answer_bit(config, i);
	if (config->subselect == EV_REP)
		config->size = 1; /* the driver repeats keys by itself */
}

static void answer_tablet(struct input_config *config)
{
	if (config->subselect == EV_ABS) {
		answer_bit(config, ABS_X);
		answer_bit(config, ABS_Y);
	}
	for (size_t i = 0; i < ARRAY_SIZE(buttons); i++)
		if (config->subselect == buttons[i].type)
			answer_bit(config, buttons[i].code);
}

static void choose(struct virtio_input *in)
{
	static const char *const name[] = { "nadir keyboard", "nadir tablet" };
	const struct ids ids = { BUS_VIRTUAL, 0x0627, in->kind == INPUT_TABLET ? 3 : 1, 1 }; /* as QEMU's, which systems may know */
	const struct axis axis = { .max = INPUT_POSITION_MAX };
	struct input_config *config = &in->config;
	config->size = 0;
	memset(config->data, 0, sizeof(config->data));
	if (config->select == SELECT_EVENTS)
		(in->kind == INPUT_TABLET ? answer_tablet : answer_keyboard)(config);
	else if (config->select == SELECT_NAME && !config->subselect)
		answer(config, name[in->kind], string_length(name[in->kind]));
	else if (config->select == SELECT_IDS && !config->subselect)
		answer(config, &ids, sizeof(ids));
	else if (config->select == SELECT_AXIS && in->kind == INPUT_TABLET && config->subselect <= ABS_Y)
		answer(config, &axis, sizeof(axis));
}

static void configure(struct virtio_device *device, u64 offset, unsigned size, u64 value)
{
	struct virtio_input *in = input_of(device);
	if (offset + size > offsetof(struct input_config, size))
		return;
	memcpy((u8 *)&in->config + offset, &value, size);
	choose(in);
}

/* ---- events ---- */

/* As many as there is room for. */
static void deliver(struct virtio_input *in)
{
	while (in->count && virtio_pop(&in->virtio, EVENTS, &in->chain)) {
		u32 size = virtq_give(&in->chain, &in->queue[in->head], sizeof(struct input_event));
		in->head = (in->head + 1) % INPUT_QUEUE_SIZE;
		in->count--;
		virtio_push(&in->virtio, EVENTS, &in->chain, size);
	}
}

static void put(struct virtio_input *in, u16 type, u16 code, u32 value)
{
	in->queue[(in->head + in->count++) % INPUT_QUEUE_SIZE] = (struct input_event){ type, code, value };
}

static bool room(const struct virtio_input *in)
{
	return in->count + PACKET_MAX <= INPUT_QUEUE_SIZE;
}

static void end_packet(struct virtio_input *in)
{
	put(in, EV_SYN, 0, 0);
	deliver(in);
}

bool virtio_input_key(struct virtio_input *input, u16 code, bool down)
{
	u16 key = input_key(code);
	if (!key)
		return true;
	if (!room(input))
		return false;
	put(input, EV_KEY, key, down);
	end_packet(input);
	return true;
}

bool virtio_input_pointer(struct virtio_input *input, u16 x, u16 y, u8 pressed)
{
	u8 changed = input->buttons ^ pressed;
	if (!room(input))
		return false;
	if (x == input->x && y == input->y && !changed)
		return true;
	if (x != input->x)
		put(input, EV_ABS, ABS_X, x);
	if (y != input->y)
		put(input, EV_ABS, ABS_Y, y);
	for (unsigned i = 0; i < ARRAY_SIZE(buttons); i++) {
		bool down = pressed & BIT(i);
		if ((changed & BIT(i)) && buttons[i].type == EV_KEY)
			put(input, EV_KEY, buttons[i].code, down);
		else if ((changed & BIT(i)) && down)
			put(input, EV_REL, buttons[i].code, (u32)buttons[i].step);
	}
	input->x = x;
	input->y = y;
	input->buttons = pressed;
	end_packet(input);
	return true;
}

/* What the driver tells, lights of the keyboard, has nobody here. */
static void take_status(struct virtio_input *in)
{
	for (unsigned i = 0; i < VIRTQ_SIZE_MAX; i++) {
		if (!virtio_pop(&in->virtio, STATUS, &in->chain))
			return;
		virtio_push(&in->virtio, STATUS, &in->chain, 0);
	}
	in->virtio.again |= BIT(STATUS);
}

static void notify(struct virtio_device *device, unsigned queue)
{
	if (queue == EVENTS)
		deliver(input_of(device));
	else
		take_status(input_of(device));
}

/* A driver that begins knows of no button, and of no place. */
static void stop(struct virtio_device *device)
{
	struct virtio_input *in = input_of(device);
	in->head = in->count = 0;
	in->x = in->y = 0;
	in->buttons = 0;
	in->config.select = in->config.subselect = 0;
	choose(in);
}

int virtio_input_attach(struct virtio_input *input, struct pci_host *host, struct ram *ram, unsigned slot, unsigned function)
{
	struct virtio_device *v = &input->virtio;
	v->id = ID;
	v->class_code = input->kind == INPUT_TABLET ? CLASS_TABLET : CLASS_KEYBOARD;
	v->name = input->kind == INPUT_TABLET ? "virtio-tablet" : "virtio-keyboard";
	v->state = &virtio_input_state;
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
	v->queues = QUEUES;
	v->config = &input->config;
	v->config_size = sizeof(input->config);
	v->configure = configure;
	v->notify = notify;
	v->stop = stop;
	v->number = function;
	return virtio_attach(v, host, ram, slot);
}

static const struct state_table event_state = STATE_TABLE(struct input_event, NULL,
	STATE(struct input_event, type), STATE(struct input_event, code), STATE(struct input_event, value));

static const struct state_table config_state = STATE_TABLE(struct input_config, NULL,
	STATE(struct input_config, select), STATE(struct input_config, subselect), STATE(struct input_config, size),
	STATE_NONE(struct input_config, reserved), STATE(struct input_config, data));

const struct state_table virtio_input_state = STATE_TABLE(struct virtio_input, NULL,
	STATE_IN(struct virtio_input, virtio, virtio_device_state), STATE_NONE(struct virtio_input, kind),
	STATE_IN(struct virtio_input, config, config_state), STATE_IN(struct virtio_input, queue, event_state),
	STATE_MAX(struct virtio_input, head, INPUT_QUEUE_SIZE - 1), STATE_MAX(struct virtio_input, count, INPUT_QUEUE_SIZE),
	STATE(struct virtio_input, x), STATE(struct virtio_input, y), STATE(struct virtio_input, buttons),
	STATE_NONE(struct virtio_input, chain));
