/* The 16550A under any sequence of register accesses, arriving bytes and time steps. */
#include "dev/uart.h"
#include "host/port.h"
#include "input.h"

#define PORT 0x3f8
#define IIR 2
#define MSR_SIGNALS 0xf0
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

static bool irq;
static unsigned rooms;

static void on_irq(void *opaque, unsigned pin, bool level)
{
	CHECK(irq != level);
	irq = level;
}

static void on_transmit(void *opaque, u8 byte)
{
	CHECK(!(((const struct uart *)opaque)->mcr & MCR_LOOP));
}

static void on_room(void *opaque, u64 now)
{
	CHECK(uart_room(opaque));
	rooms++;
}

/* The line shows what IIR would, as far as OUT2 lets it; reading IIR on a copy disturbs nothing. */
static void check(struct bus *io, struct uart *uart, u64 now)
{
	struct uart kept = *uart;
	uart->irq.sink = NULL;
	u8 id = (u8)bus_read(io, PORT + IIR, 1, now);
	*uart = kept;
	CHECK(irq == (!(id & 1) && (uart->mcr & MCR_OUT2)));
	CHECK(irq == uart->irq.level);
	CHECK(uart->count <= (uart->fcr & 1 ? UART_FIFO_SIZE : 1));
	CHECK(uart_deadline(uart) > now);
}

static void step(struct bus *io, struct uart *uart, struct input *in, u64 *now)
{
	u8 op = input_u8(in);
	unsigned size = op & 0x80 ? input_size(in) : 1, before = uart_room(uart);
	u64 port = PORT + (op >> 2 & 7);

	rooms = 0;
	switch (op & 3) {
	case 0:
		*now += input_step(in);
		uart_advance(uart, *now);
		break;
	case 1:
		CHECK(uart_receive(uart, input_u8(in), *now) == (before > 0));
		return;
	case 2:
		bus_read(io, port, size, *now);
		break;
	default:
		bus_write(io, port, size, input_take(in, size), *now);
	}
	if (size == 1)
		CHECK(rooms == (!before && uart_room(uart)));
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct bus io = { 0 };
	struct uart uart = { .irq = { .sink = on_irq }, .transmit = on_transmit, .room = on_room, .opaque = &uart };
	u64 now = 0;

	irq = false;
	CHECK(!uart_attach(&uart, &io, PORT));
	while (in.left) {
		step(&io, &uart, &in, &now);
		check(&io, &uart, now);
	}
	return 0;
}
