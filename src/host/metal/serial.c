/* The serial port at 0x3f8. National Semiconductor PC16550D, "Registers".
 *
 * At first, and in a panic, it is asked whether it can take a byte. Once its interrupts have a way to the CPU, both directions have a ring: whoever says
 * something does not wait for the line, which takes 87 us a byte, but for room. An interrupt is an edge of the line, which stays high while there is any
 * reason for it: so who serves one sees to all reasons until none is left. */
#include "host/metal/serial.h"

#include "host/metal/irq.h"
#include "host/metal/spinlock.h"
#include "host/port.h"
#include "lib/string.h"

#define PORT 0x3f8
#define IRQ 4
#define DATA (PORT + 0)
#define INTERRUPT_ENABLE (PORT + 1)
#define INTERRUPT_REASON (PORT + 2)
#define FIFO_CONTROL (PORT + 2)
#define LINE_CONTROL (PORT + 3)
#define MODEM_CONTROL (PORT + 4)
#define LINE_STATUS (PORT + 5)
#define STATUS_RECEIVED BIT(0)
#define STATUS_EMPTY BIT(5)
#define WHEN_RECEIVED BIT(0)
#define WHEN_EMPTY BIT(1)
#define NO_REASON BIT(0)
#define HAS_FIFO 0xc0u
#define FIFO_SIZE 16u
#define PATIENCE 1000000u /* a port that is not there is never ready */
#define REASONS_MAX 256u
#define OUT_SIZE 16384u
#define IN_SIZE 256u

static struct {
	struct spinlock lock;
	bool panic;
	bool middle; /* the last byte was no line end */
	bool absent;
	bool interrupts;
	bool fifo;
	u8 enabled; /* what may interrupt */
	u32 count; /* of interrupts, atomic */
	u32 came; /* of those with input, atomic: where serial_wait sleeps */
	u32 seen; /* its */
	u8 out[OUT_SIZE], in[IN_SIZE];
	u32 out_head, out_tail, in_head, in_tail; /* bytes ever put in and taken out */
} serial;

void serial_init(void)
{
	outb(INTERRUPT_ENABLE, 0);
	outb(LINE_CONTROL, 0x80);
	outb(DATA, 1);
	outb(INTERRUPT_ENABLE, 0);
	outb(LINE_CONTROL, 3);
	outb(FIFO_CONTROL, 7);
	outb(MODEM_CONTROL, 0xb); /* DTR, RTS, and OUT2, which lets interrupts through */
	serial.fifo = (inb(INTERRUPT_REASON) & HAS_FIFO) == HAS_FIFO;
	serial.absent = inb(LINE_STATUS) == 0xff;
}

static u64 lock(void)
{
	return serial.panic ? irq_save() : spin_lock(&serial.lock);
}

static void unlock(u64 flags)
{
	if (serial.panic)
		irq_restore(flags);
	else
		spin_unlock(&serial.lock, flags);
}

/* ---- the port; the lock is held ---- */

static void put_now(u8 byte)
{
	for (unsigned i = 0; i < PATIENCE && !serial.absent && !(inb(LINE_STATUS) & STATUS_EMPTY); i++)
		cpu_relax();
	outb(DATA, byte);
}

static void drain(void)
{
	while (serial.out_tail != serial.out_head)
		put_now(serial.out[serial.out_tail++ % OUT_SIZE]);
}

static void transmit(void)
{
	unsigned room = !(inb(LINE_STATUS) & STATUS_EMPTY) ? 0 : serial.fifo ? FIFO_SIZE : 1;
	for (; room && serial.out_tail != serial.out_head; room--)
		outb(DATA, serial.out[serial.out_tail++ % OUT_SIZE]);
	u8 enabled = (u8)(WHEN_RECEIVED | (serial.out_tail != serial.out_head ? WHEN_EMPTY : 0));
	if (enabled != serial.enabled)
		outb(INTERRUPT_ENABLE, enabled);
	serial.enabled = enabled;
}

/* What finds no room is lost: nobody types that fast. */
static void receive(void)
{
	for (unsigned i = 0; i < IN_SIZE && (inb(LINE_STATUS) & STATUS_RECEIVED); i++) {
		u8 byte = inb(DATA);
		if (serial.in_head - serial.in_tail < IN_SIZE)
			serial.in[serial.in_head++ % IN_SIZE] = byte;
	}
}

static void serve(void)
{
	for (unsigned i = 0; i < REASONS_MAX; i++) {
		receive();
		transmit();
		if (inb(INTERRUPT_REASON) & NO_REASON)
			return;
	}
}

/* ---- output ---- */

static void put(u8 byte)
{
	serial.middle = byte != '\n' && (byte != '\r' || serial.middle);
	if (serial.interrupts && !serial.panic)
		serial.out[serial.out_head++ % OUT_SIZE] = byte;
	else
		put_now(byte);
}

/* The lock, and room for so many bytes. */
static u64 lock_with_room(u32 size)
{
	for (;;) {
		u64 flags = lock();
		if (!serial.interrupts || serial.panic || OUT_SIZE - (serial.out_head - serial.out_tail) >= size)
			return flags;
		transmit();
		if (!(flags & RFLAGS_IF)) {
			drain();
			return flags;
		}
		unlock(flags);
		host_yield();
	}
}

static void finish(u64 flags)
{
	if (serial.interrupts && !serial.panic)
		transmit();
	unlock(flags);
}

void serial_put(u8 byte)
{
	u64 flags = lock_with_room(1);
	put(byte);
	finish(flags);
}

void serial_line(const char *text)
{
	u64 flags = lock_with_room((u32)string_length(text) + 4);
	if (serial.middle) {
		put('\r');
		put('\n');
	}
	while (*text)
		put((u8)*text++);
	put('\r');
	put('\n');
	finish(flags);
}

void serial_flush(void)
{
	u64 flags = lock();
	drain();
	unlock(flags);
}

void serial_panic(void)
{
	serial.panic = true;
	drain();
}

/* ---- input ---- */

bool serial_get(u8 *byte)
{
	u64 flags = lock();
	if (!serial.absent)
		receive();
	bool received = serial.in_head != serial.in_tail;
	if (received)
		*byte = serial.in[serial.in_tail++ % IN_SIZE];
	unlock(flags);
	return received;
}

/* ---- interrupts ---- */

static void interrupted(void)
{
	u64 flags = spin_lock(&serial.lock);
	__atomic_fetch_add(&serial.count, 1, __ATOMIC_RELAXED);
	serve();
	bool received = serial.in_head != serial.in_tail;
	spin_unlock(&serial.lock, flags);
	if (!received)
		return;
	__atomic_fetch_add(&serial.came, 1, __ATOMIC_SEQ_CST);
	host_wake(&serial.came);
}

void serial_start_interrupts(void)
{
	u64 flags = lock();
	serial.interrupts = !serial.absent && irq_request_isa(IRQ, interrupted);
	if (serial.interrupts)
		transmit();
	unlock(flags);
}

bool serial_has_interrupts(void)
{
	return serial.interrupts;
}

u32 serial_interrupts(void)
{
	return __atomic_load_n(&serial.count, __ATOMIC_RELAXED);
}

void serial_wait(u64 nanoseconds)
{
	host_wait(&serial.came, serial.seen, host_now() + nanoseconds);
	serial.seen = __atomic_load_n(&serial.came, __ATOMIC_SEQ_CST);
}
