/* 16550A serial port (uart.h). Sections cited are the PC16550D data sheet's. */
#include "dev/uart.h"

#include "host/port.h"

/* Register offsets. With LCR.DLAB set, the first two are the divisor latch. */
enum { RBR = 0, THR = 0, DLL = 0, IER = 1, DLM = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

#define IER_ERBFI 0x01
#define IER_ETBEI 0x02
#define IER_ELSI 0x04
#define IER_EDSSI 0x08
#define IER_MASK 0x0f

#define IIR_NONE 0x01
#define IIR_LINE_STATUS 0x06
#define IIR_DATA 0x04
#define IIR_TIMEOUT 0x0c
#define IIR_THRE 0x02
#define IIR_MODEM_STATUS 0x00
#define IIR_FIFOS 0xc0

#define FCR_ENABLE 0x01
#define FCR_CLEAR_RECEIVER 0x02
#define FCR_TRIGGER_SHIFT 6
#define FCR_KEPT 0xc9 /* enable, DMA mode, trigger */

#define LCR_WORD_LENGTH 0x03
#define LCR_STOP 0x04
#define LCR_PARITY 0x08
#define LCR_DLAB 0x80

#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_MASK 0x1f

#define LSR_DR 0x01
#define LSR_OE 0x02
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

#define MSR_DELTAS 0x0f
#define MSR_TERI 0x04
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

#define BAUD_BASE 115200ull /* 1.8432 MHz / 16 */

static bool fifos_on(const struct uart *uart)
{
	return uart->fcr & FCR_ENABLE;
}

static unsigned capacity(const struct uart *uart)
{
	return fifos_on(uart) ? UART_FIFO_SIZE : 1;
}

/* The number of received bytes that raises the data interrupt ("FIFO Control Register", bits 7:6). */
static unsigned trigger_level(const struct uart *uart)
{
	static const u8 level[4] = { 1, 4, 8, 14 };
	return fifos_on(uart) ? level[uart->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

/* Four character times, start, parity and stop bits included ("FIFO Interrupt Mode Operation"). A divisor of 0 stops
 * real hardware's clock; here it counts as the fastest line, so that nothing received gets stuck. */
static u64 timeout_length(const struct uart *uart)
{
	unsigned bits =
		1 + 5 + (uart->lcr & LCR_WORD_LENGTH) + !!(uart->lcr & LCR_PARITY) + (uart->lcr & LCR_STOP ? 2 : 1);
	return 4ull * bits * MAX(uart->divisor, 1) * 1000000000ull / BAUD_BASE;
}

/* Every arrival and every read starts the time-out anew. */
static void restart_timeout(struct uart *uart, u64 now)
{
	uart->timed_out = false;
	uart->timeout = fifos_on(uart) && uart->count ? now + timeout_length(uart) : HOST_NEVER;
}

/* The signals at the modem inputs; loop-back feeds them from the modem control register ("Modem Control Register", bit
 * 4). */
static u8 modem_signals(const struct uart *uart)
{
	if (!(uart->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

/* The pending interrupt of highest priority ("Interrupt Identification Register"). */
static u8 interrupt_id(const struct uart *uart)
{
	if ((uart->ier & IER_ELSI) && uart->overrun)
		return IIR_LINE_STATUS;
	if ((uart->ier & IER_ERBFI) && uart->count >= trigger_level(uart))
		return IIR_DATA;
	if ((uart->ier & IER_ERBFI) && uart->timed_out)
		return IIR_TIMEOUT;
	if ((uart->ier & IER_ETBEI) && uart->thre_pending)
		return IIR_THRE;
	if ((uart->ier & IER_EDSSI) && uart->modem_delta)
		return IIR_MODEM_STATUS;
	return IIR_NONE;
}

/* On a PC, OUT2 gates the interrupt output onto the bus. */
static void update_irq(struct uart *uart)
{
	wire_set(&uart->irq, interrupt_id(uart) != IIR_NONE && (uart->mcr & MCR_OUT2));
}

/* A byte comes out of the line or of the looped-back transmitter. In FIFO mode an overrun loses the new byte, without
 * FIFOs the old one ("Line Status Register", bit 1). */
static void accept(struct uart *uart, u8 byte, u64 now)
{
	if (uart->count == capacity(uart)) {
		uart->overrun = true;
		if (!fifos_on(uart))
			uart->fifo[uart->head] = byte;
	} else {
		uart->fifo[(uart->head + uart->count++) % UART_FIFO_SIZE] = byte;
	}
	restart_timeout(uart, now);
}

static void tell_room(struct uart *uart, unsigned before, u64 now)
{
	if (!before && uart_room(uart) && uart->room)
		uart->room(uart->opaque, now);
}

static u8 read_data(struct uart *uart, u64 now)
{
	u8 byte = uart->fifo[uart->head];
	if (uart->count) {
		uart->head = (uart->head + 1) % UART_FIFO_SIZE;
		uart->count--;
	}
	restart_timeout(uart, now);
	return byte;
}

/* The byte leaves at once. The request line falls and rises again, so that an edge-triggered controller sees the new
 * transmitter-empty event. */
static void write_data(struct uart *uart, u8 byte, u64 now)
{
	uart->thre_pending = false;
	update_irq(uart);
	if (uart->mcr & MCR_LOOP)
		accept(uart, byte, now);
	else if (uart->transmit)
		uart->transmit(uart->opaque, byte);
	uart->thre_pending = true;
}

/* Reading IIR drops the transmitter-empty interrupt if that is what it shows ("Interrupt Identification Register"). */
static u8 read_iir(struct uart *uart)
{
	u8 id = interrupt_id(uart);
	if (id == IIR_THRE)
		uart->thre_pending = false;
	return id | (fifos_on(uart) ? IIR_FIFOS : 0);
}

static u8 read_lsr(struct uart *uart)
{
	u8 value = LSR_THRE | LSR_TEMT | (uart->count ? LSR_DR : 0) | (uart->overrun ? LSR_OE : 0);
	uart->overrun = false;
	return value;
}

static u8 read_msr(struct uart *uart)
{
	u8 value = modem_signals(uart) | uart->modem_delta;
	uart->modem_delta = 0;
	return value;
}

/* Enabling the transmitter-empty interrupt while the transmitter is empty raises it. */
static void write_ier(struct uart *uart, u8 value)
{
	if ((uart->ier ^ value) & IER_ETBEI)
		uart->thre_pending = value & IER_ETBEI;
	uart->ier = value & IER_MASK;
}

/* Bits other than the enable bit are taken only together with it; changing it empties the FIFOs ("FIFO Control
 * Register"). */
static void write_fcr(struct uart *uart, u8 value, u64 now)
{
	bool changed = (uart->fcr ^ value) & FCR_ENABLE;
	uart->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
	if (changed || (value & FCR_CLEAR_RECEIVER && value & FCR_ENABLE))
		uart->count = 0;
	restart_timeout(uart, now);
}

/* Modem inputs that follow MCR in loop-back mode leave their deltas; the ring indicator only by its trailing edge. */
static void write_mcr(struct uart *uart, u8 value)
{
	u8 before = modem_signals(uart);
	uart->mcr = value & MCR_MASK;
	u8 after = modem_signals(uart);
	u8 delta = (before ^ after) >> 4 & MSR_DELTAS;
	if (after & MSR_RI)
		delta &= ~MSR_TERI;
	uart->modem_delta |= delta;
}

static u8 read_register(struct uart *uart, u64 offset, u64 now)
{
	bool dlab = uart->lcr & LCR_DLAB;
	switch (offset) {
	case RBR:
		return dlab ? uart->divisor & 0xff : read_data(uart, now);
	case IER:
		return dlab ? uart->divisor >> 8 : uart->ier;
	case IIR:
		return read_iir(uart);
	case LCR:
		return uart->lcr;
	case MCR:
		return uart->mcr;
	case LSR:
		return read_lsr(uart);
	case MSR:
		return read_msr(uart);
	default:
		return uart->scr;
	}
}

static void write_register(struct uart *uart, u64 offset, u8 value, u64 now)
{
	bool dlab = uart->lcr & LCR_DLAB;
	switch (offset) {
	case THR:
		if (dlab)
			uart->divisor = (uart->divisor & 0xff00) | value;
		else
			write_data(uart, value, now);
		break;
	case IER:
		if (dlab)
			uart->divisor = (uart->divisor & 0xff) | value << 8;
		else
			write_ier(uart, value);
		break;
	case FCR:
		write_fcr(uart, value, now);
		break;
	case LCR:
		uart->lcr = value;
		break;
	case MCR:
		write_mcr(uart, value);
		break;
	case SCR:
		uart->scr = value;
		break;
	}
}

static u64 uart_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct uart *uart = device;
	unsigned before = uart_room(uart);
	uart_advance(uart, now);
	u8 value = read_register(uart, offset, now);
	update_irq(uart);
	tell_room(uart, before, now);
	return value;
}

static void uart_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct uart *uart = device;
	unsigned before = uart_room(uart);
	uart_advance(uart, now);
	write_register(uart, offset, (u8)value, now);
	update_irq(uart);
	tell_room(uart, before, now);
}

static const struct region_ops uart_ops = { .read = uart_read, .write = uart_write, .width = 1 };

/* "Reset Configuration": the divisor and the scratch register are undefined there; here 1 (115200 baud) and 0. */
void uart_reset(struct uart *uart)
{
	*uart = (struct uart){
		.irq = uart->irq,
		.transmit = uart->transmit,
		.room = uart->room,
		.opaque = uart->opaque,
		.divisor = 1,
		.timeout = HOST_NEVER,
	};
	update_irq(uart);
}

int uart_attach(struct uart *uart, struct bus *io, u64 port)
{
	uart_reset(uart);
	return bus_add(io, "16550A", port, UART_REGION_SIZE, &uart_ops, uart);
}

unsigned uart_room(const struct uart *uart)
{
	return uart->mcr & MCR_LOOP ? 0 : capacity(uart) - uart->count;
}

bool uart_receive(struct uart *uart, u8 byte, u64 now)
{
	if (!uart_room(uart))
		return false;
	accept(uart, byte, now);
	update_irq(uart);
	return true;
}

/* Only while the time-out could interrupt: the data interrupt comes first, and a disabled one needs no timer. */
u64 uart_deadline(const struct uart *uart)
{
	bool wanted = (uart->ier & IER_ERBFI) && !uart->timed_out && uart->count < trigger_level(uart);
	return wanted ? uart->timeout : HOST_NEVER;
}

void uart_advance(struct uart *uart, u64 now)
{
	if (uart->timeout != HOST_NEVER && now >= uart->timeout) {
		uart->timed_out = true;
		uart->timeout = HOST_NEVER;
	}
	update_irq(uart);
}

const struct state_table uart_state = STATE_TABLE(struct uart, NULL,
	STATE_IN(struct uart, irq, wire_state), STATE_NONE(struct uart, transmit), STATE_NONE(struct uart, room),
	STATE_NONE(struct uart, opaque), STATE(struct uart, ier), STATE(struct uart, fcr), STATE(struct uart, lcr),
	STATE(struct uart, mcr), STATE(struct uart, scr), STATE(struct uart, modem_delta), STATE(struct uart, divisor),
	STATE(struct uart, overrun), STATE(struct uart, thre_pending), STATE(struct uart, timed_out), STATE(struct uart, timeout),
	STATE(struct uart, fifo), STATE_MAX(struct uart, head, UART_FIFO_SIZE - 1), STATE_MAX(struct uart, count, UART_FIFO_SIZE));
