/* virtio console device (console.h). Control messages ("Multiport Device Operation") are kept as bits until the driver has room for them, so that
 * nothing the driver does makes a list of them grow. */
#include "dev/virtio/console.h"

#include "lib/string.h"

#define ID 3
#define CLASS 0x078000 /* communication controller, other */

#define F_MULTIPORT BIT(1)
#define F_EMERGENCY BIT(2)

#define CONTROL_RX 2u
#define CONTROL_TX 3u
#define BYTES_AT_ONCE 65536u /* before others get the lock; of a longer buffer the rest is lost */
#define MESSAGES_AT_ONCE 64u

/* "Multiport Device Operation": events. */
enum { DEVICE_READY, PORT_ADD, PORT_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME };

struct control {
	u32 port;
	u16 event, value;
};
static_assert(sizeof(struct control) == 8, "struct virtio_console_control");

static struct virtio_console *console_of(struct virtio_device *device)
{
	return container_of(device, struct virtio_console, virtio);
}

/* The queues of port 0 come first, then those of control messages, then those of the other ports. */
static unsigned queue_of(unsigned port)
{
	return port ? 2 + 2 * port : 0;
}

static unsigned port_of(unsigned queue)
{
	return queue < CONTROL_RX ? 0 : queue / 2 - 1;
}

/* ---- from the guest ---- */

static void transmit(struct virtio_console *c, unsigned queue)
{
	const struct console_cable *cable = &c->cable[port_of(queue)];
	for (u32 left = BYTES_AT_ONCE; left;) {
		if (!virtio_pop(&c->virtio, queue, &c->chain))
			return;
		for (unsigned i = 0; i < c->chain.readable && left; i++)
			for (u32 n = 0; n < c->chain.piece[i].size && left; n++, left--)
				cable->put(cable->opaque, c->chain.piece[i].data[n]);
		left -= left ? 1 : 0; /* empty buffers are work, too */
		virtio_push(&c->virtio, queue, &c->chain, 0);
	}
	c->virtio.again |= BIT(queue);
}

/* ---- to the guest ---- */

static bool has_byte(struct virtio_console *c, unsigned port)
{
	struct console_port *p = &c->port[port];
	if (!p->waits)
		p->waits = c->cable[port].get(c->cable[port].opaque, &p->byte);
	return p->waits;
}

/* One buffer's worth; how much it was. */
static u32 give(struct virtio_console *c, unsigned port)
{
	u8 bytes[512];
	u32 n = 0, room = (u32)MIN(virtq_writable(&c->chain), sizeof(bytes));
	for (; n < room && has_byte(c, port); n++) {
		bytes[n] = c->port[port].byte;
		c->port[port].waits = false;
	}
	return virtq_give(&c->chain, bytes, n);
}

/* A named port that nobody has open keeps its bytes: the driver would throw them away. */
void virtio_console_input(struct virtio_console *console, unsigned port)
{
	struct virtio_console *c = console;
	unsigned queue = queue_of(port);
	if (port >= c->ports || !virtio_works(&c->virtio) || (port && !c->port[port].open))
		return;
	for (u32 left = BYTES_AT_ONCE; has_byte(c, port);) {
		if (!virtio_pop(&c->virtio, queue, &c->chain))
			return;
		u32 n = give(c, port);
		virtio_push(&c->virtio, queue, &c->chain, n);
		if (left <= n + 1) {
			c->virtio.again |= BIT(queue);
			return;
		}
		left -= n + 1;
	}
}

/* ---- control messages ---- */

static u32 put_message(struct virtio_console *c, unsigned port, unsigned event)
{
	struct {
		struct control control;
		u8 name[CONSOLE_NAME_MAX];
	} message = { { port, (u16)event, 1 }, { 0 } };
	u32 size = sizeof(message.control);
	if (event == PORT_NAME) {
		size_t length = MIN(string_length(c->cable[port].name), CONSOLE_NAME_MAX);
		memcpy(message.name, c->cable[port].name, length);
		size += (u32)length;
	}
	return virtq_give(&c->chain, (const u8 *)&message, size);
}

/* Send what waits, as far as there is room: those of one port in the order of their numbers. */
static void send_messages(struct virtio_console *c)
{
	for (unsigned port = 0; port < c->ports; port++)
		for (unsigned event = 0; event <= PORT_NAME; event++) {
			if (!(c->port[port].messages & BIT(event)))
				continue;
			if (!virtio_pop(&c->virtio, CONTROL_RX, &c->chain))
				return;
			c->port[port].messages &= (u8)~BIT(event);
			virtio_push(&c->virtio, CONTROL_RX, &c->chain, put_message(c, port, event));
		}
}

static void obey(struct virtio_console *c, const struct control *m)
{
	if (m->event == DEVICE_READY && m->value)
		for (unsigned port = 0; port < c->ports; port++)
			c->port[port].messages = BIT(PORT_ADD);
	if (m->port >= c->ports)
		return;
	if (m->event == PORT_READY && m->value)
		c->port[m->port].messages |= m->port ? BIT(PORT_NAME) | BIT(PORT_OPEN) : BIT(CONSOLE_PORT) | BIT(PORT_OPEN);
	if (m->event == PORT_OPEN) {
		c->port[m->port].open = m->value;
		virtio_console_input(c, m->port);
	}
}

static void take_messages(struct virtio_console *c)
{
	struct control message;
	for (unsigned i = 0; i < MESSAGES_AT_ONCE; i++) {
		if (!virtio_pop(&c->virtio, CONTROL_TX, &c->chain))
			return;
		bool whole = virtq_take(&c->chain, &message, sizeof(message));
		virtio_push(&c->virtio, CONTROL_TX, &c->chain, 0);
		if (whole)
			obey(c, &message);
		send_messages(c);
	}
	c->virtio.again |= BIT(CONTROL_TX);
}

/* ---- what happens ---- */

static void notify(struct virtio_device *device, unsigned queue)
{
	struct virtio_console *c = console_of(device);
	if (queue == CONTROL_RX)
		send_messages(c);
	else if (queue == CONTROL_TX)
		take_messages(c);
	else if (queue & 1)
		transmit(c, queue);
	else
		virtio_console_input(c, port_of(queue));
}

static void configure(struct virtio_device *device, u64 offset, unsigned size, u64 value)
{
	struct virtio_console *c = console_of(device);
	if (offset == offsetof(struct console_config, emergency))
		c->cable[0].put(c->cable[0].opaque, (u8)value);
}

static void stop(struct virtio_device *device)
{
	struct virtio_console *c = console_of(device);
	for (unsigned i = 0; i < c->ports; i++) {
		c->port[i].open = false;
		c->port[i].messages = 0;
	}
}

int virtio_console_attach(struct virtio_console *console, struct pci_host *host, struct ram *ram, unsigned slot)
{
	struct virtio_device *v = &console->virtio;
	console->config.ports = console->ports;
	v->id = ID;
	v->class_code = CLASS;
	v->name = "virtio-console";
	v->state = &virtio_console_state;
	v->features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | F_MULTIPORT | F_EMERGENCY;
	v->queues = 2 + 2 * console->ports;
	v->config = &console->config;
	v->config_size = sizeof(console->config);
	v->configure = configure;
	v->notify = notify;
	v->stop = stop;
	return virtio_attach(v, host, ram, slot);
}

static const struct state_table port_state = STATE_TABLE(struct console_port, NULL,
	STATE(struct console_port, open), STATE(struct console_port, waits), STATE(struct console_port, byte),
	STATE(struct console_port, messages));

const struct state_table virtio_console_state = STATE_TABLE(struct virtio_console, NULL,
	STATE_IN(struct virtio_console, virtio, virtio_device_state), STATE_NONE(struct virtio_console, cable),
	STATE_SAME(struct virtio_console, ports), STATE_NONE(struct virtio_console, config),
	STATE_IN(struct virtio_console, port, port_state), STATE_NONE(struct virtio_console, chain));
