/* Reset control and system control port A (reset.h). */
#include "dev/reset.h"

#include "dev/map.h"

#define RST_CNT_RST_CPU                                                                                                \
	0x04 /* a rising edge resets; bits 1 and 3 choose how thoroughly, which a virtual machine does not tell apart  \
	      */
#define RST_CNT_MASK 0x0e

#define PORT92_INIT_NOW 0x01
#define PORT92_A20 0x02

static void request(struct reset *reset)
{
	if (reset->reset)
		reset->reset(reset->opaque);
}

static u64 control_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct reset *reset = device;
	return reset->control;
}

static void control_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct reset *reset = device;
	bool rises = ~reset->control & value & RST_CNT_RST_CPU;
	reset->control = value & RST_CNT_MASK;
	if (rises)
		request(reset);
}

static u64 port92_read(void *device, u64 offset, unsigned size, u64 now)
{
	const struct reset *reset = device;
	return reset->port92;
}

static void port92_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct reset *reset = device;
	bool rises = ~reset->port92 & value & PORT92_INIT_NOW;
	reset->port92 = (u8)value;
	wire_set(&reset->a20, value & PORT92_A20);
	if (rises)
		request(reset);
}

static const struct region_ops control_ops = { .read = control_read, .write = control_write, .width = 1 };
static const struct region_ops port92_ops = { .read = port92_read, .write = port92_write, .width = 1 };

void reset_reset(struct reset *reset)
{
	reset->control = 0;
	reset->port92 = PORT92_A20;
	wire_set(&reset->a20, true);
}

int reset_attach(struct reset *reset, struct bus *io, struct bus *behind)
{
	reset_reset(reset);
	int error = bus_add(io, "port 92", PORT_FAST_A20, 1, &port92_ops, reset);
	return error ? error : bus_add(behind, "reset control", PORT_RESET, 1, &control_ops, reset);
}

const struct state_table reset_state = STATE_TABLE(struct reset, NULL,
	STATE_NONE(struct reset, reset), STATE_NONE(struct reset, opaque), STATE_IN(struct reset, a20, wire_state),
	STATE(struct reset, control), STATE(struct reset, port92));
