/* The machine's first serial port: where the host and the guests speak. */
#ifndef NADIR_HOST_METAL_SERIAL_H
#define NADIR_HOST_METAL_SERIAL_H

#include "arch/types.h"

/* 115200 bits a second, 8 data bits, no parity. */
void serial_init(void);
void serial_put(u8 byte);
/* A line of the host's. It begins at the left margin, whatever a guest has written. */
void serial_line(const char *text);
/* Until all has left. */
void serial_flush(void);
/* False: nothing has come. */
bool serial_get(u8 *byte);
/* Let the port interrupt the boot CPU, if there is a way (irq.h): then nobody waits for the line any more. On a thread. */
void serial_start_interrupts(void);
bool serial_has_interrupts(void);
/* How many there were. */
u32 serial_interrupts(void);
/* Sleep until input has come since this was called last, or for so long. */
void serial_wait(u64 nanoseconds);
/* From now on no lock is waited for: its holder may have been stopped. */
void serial_panic(void);

#endif
