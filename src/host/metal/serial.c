/* The serial port at 0x3f8: asked whether it can take a byte, and telling by interrupt that one has come. National Semiconductor PC16550D, "Registers". */
#include "host/metal/serial.h"

#include "host/metal/irq.h"
#include "host/metal/spinlock.h"
#include "host/port.h"

#define PORT 0x3f8
#define IRQ 4
#define DATA (PORT + 0)
#define INTERRUPT_ENABLE (PORT + 1)
#define FIFO_CONTROL (PORT + 2)
#define LINE_CONTROL (PORT + 3)
#define MODEM_CONTROL (PORT + 4)
#define LINE_STATUS (PORT + 5)
#define STATUS_RECEIVED BIT(0)
#define STATUS_EMPTY BIT(5)
#define PATIENCE 1000000u /* a port that is not there is never ready */

static struct {
	struct spinlock lock;
	bool panic;
	bool middle; /* the last byte was no line end */
	bool absent;
	bool interrupts;
	u32 count; /* of interrupts, atomic: where serial_wait sleeps */
	u32 seen; /* its */
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

static void put(u8 byte)
{
	for (unsigned i = 0; i < PATIENCE && !serial.absent && !(inb(LINE_STATUS) & STATUS_EMPTY); i++)
		cpu_relax();
	outb(DATA, byte);
	serial.middle = byte != '\n' && (byte != '\r' || serial.middle);
}

void serial_put(u8 byte)
{
	u64 flags = lock();
	put(byte);
	unlock(flags);
}

void serial_line(const char *text)
{
	u64 flags = lock();
	if (serial.middle) {
		put('\r');
		put('\n');
	}
	while (*text)
		put((u8)*text++);
	put('\r');
	put('\n');
	unlock(flags);
}

bool serial_get(u8 *byte)
{
	u64 flags = lock();
	bool received = !serial.absent && (inb(LINE_STATUS) & STATUS_RECEIVED);
	if (received)
		*byte = inb(DATA);
	unlock(flags);
	return received;
}

/* ---- interrupts ---- */

/* The line stays high until all that came has been read, and is then low until more comes: an edge for each time that somebody has to look. */
static void interrupted(void)
{
	__atomic_fetch_add(&serial.count, 1, __ATOMIC_SEQ_CST);
	host_wake(&serial.count);
}

void serial_start_interrupts(void)
{
	serial.interrupts = !serial.absent && irq_request_isa(IRQ, interrupted);
	if (serial.interrupts)
		outb(INTERRUPT_ENABLE, 1);
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
	host_wait(&serial.count, serial.seen, host_now() + nanoseconds);
	serial.seen = __atomic_load_n(&serial.count, __ATOMIC_SEQ_CST);
}

void serial_panic(void)
{
	serial.panic = true;
}
