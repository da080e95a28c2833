/* The keyboard controller and its two devices under any sequence of port accesses, keys and mouse movements. */
#include "dev/i8042.h"
#include "dev/map.h"
#include "input.h"

#define STATUS (PORT_I8042 + 4)
#define OBF 0x01
#define AUX 0x20

static bool irq[16];

static void on_irq(void *opaque, unsigned pin, bool level)
{
	CHECK(irq[pin] != level);
	irq[pin] = level;
}

/* The lines and the status register tell the same story. */
static void check(struct bus *io, const struct i8042 *i8042)
{
	u8 status = (u8)bus_read(io, STATUS, 1, 0), ctr = i8042->ram[0];
	CHECK(irq[IRQ_KEYBOARD] == ((status & (OBF | AUX)) == OBF && (ctr & 1)));
	CHECK(irq[IRQ_MOUSE] == ((status & (OBF | AUX)) == (OBF | AUX) && (ctr & 2)));
	CHECK((status & OBF) || !(status & AUX));
	CHECK(i8042->keyboard.queue.count <= PS2_QUEUE_SIZE && i8042->mouse.queue.count <= PS2_QUEUE_SIZE);
}

/* Whatever was done, a driver that reads until the buffer is empty gets there. */
static void drain(struct bus *io)
{
	unsigned reads = 0;
	while (bus_read(io, STATUS, 1, 0) & OBF) {
		bus_read(io, PORT_I8042, 1, 0);
		CHECK(++reads <= 2 + 2 * PS2_QUEUE_SIZE);
	}
}

static void step(struct bus *io, struct i8042 *i8042, struct input *in)
{
	u8 op = input_u8(in);
	u64 port = op & 8 ? STATUS : PORT_I8042;

	switch (op & 7) {
	case 0:
		i8042_key(i8042, (u16)input_take(in, 2), op & 0x10);
		break;
	case 1:
		i8042_mouse(i8042, (s32)input_u32(in), (s32)input_u32(in), input_u8(in));
		break;
	case 2:
		drain(io);
		break;
	case 3:
		i8042_reset(i8042);
		break;
	case 4:
		bus_read(io, port, 1, 0);
		break;
	case 5: /* a byte for the mouse */
		bus_write(io, STATUS, 1, 0xd4, 0);
		bus_write(io, PORT_I8042, 1, input_u8(in), 0);
		break;
	default:
		bus_write(io, port, op & 0x80 ? input_size(in) : 1, input_u8(in), 0);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct bus io = { 0 };
	struct i8042 i8042 = {
		.keyboard_irq = { .sink = on_irq, .pin = IRQ_KEYBOARD },
		.mouse_irq = { .sink = on_irq, .pin = IRQ_MOUSE },
	};

	irq[IRQ_KEYBOARD] = irq[IRQ_MOUSE] = false;
	CHECK(!i8042_attach(&i8042, &io));
	while (in.left) {
		step(&io, &i8042, &in);
		check(&io, &i8042);
	}
	return 0;
}
