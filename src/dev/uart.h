/* 16550A universal asynchronous receiver/transmitter, one serial port of a PC (National Semiconductor PC16550D data
 * sheet, "Registers").
 *
 * The transmitter is infinitely fast: a byte leaves when it is written, so THRE and TEMT always read as set. The
 * receiver takes bytes as fast as its FIFO has room; the line speed only times the receive time-out. The other end of
 * the cable is always ready (CTS, DSR and DCD on). */
#ifndef NADIR_DEV_UART_H
#define NADIR_DEV_UART_H

#include "dev/bus.h"
#include "irq/wire.h"
#include "lib/state.h"

#define UART_FIFO_SIZE 16
#define UART_REGION_SIZE 8

struct uart {
	/* Wired by the board before uart_attach, kept by uart_reset. */
	struct wire irq;
	void (*transmit)(void *opaque, u8 byte);
	void (*room)(void *opaque, u64 now); /* the receiver was full and has room again; may be NULL */
	void *opaque;

	u8 ier, fcr, lcr, mcr, scr;
	u8 modem_delta; /* MSR bits 3:0 */
	u16 divisor;
	bool overrun;
	bool thre_pending; /* the transmitter-empty interrupt waits for an IIR read or a write */
	bool timed_out;    /* the receive time-out has been reached */
	u64 timeout;       /* when it will be, while the FIFO holds something */
	u8 fifo[UART_FIFO_SIZE];
	u8 head, count;
};

/* Power-on state, level of the wire included. */
void uart_reset(struct uart *uart);
/* Reset and answer at `port` of the I/O bus; 0, or a negative value as bus_add. */
int uart_attach(struct uart *uart, struct bus *io, u64 port);

/* Bytes the receiver takes now. None in loop-back mode, where its input is cut from the line. */
unsigned uart_room(const struct uart *uart);
/* A byte arrives on the line. False when there is no room: the caller keeps it. */
bool uart_receive(struct uart *uart, u8 byte, u64 now);

/* The receive time-out, as time on host_now()'s scale, or HOST_NEVER. */
u64 uart_deadline(const struct uart *uart);
void uart_advance(struct uart *uart, u64 now);

extern const struct state_table uart_state;

#endif
