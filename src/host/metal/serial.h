/* The machine's first serial port: where the host and the guests speak. */
#ifndef NADIR_HOST_METAL_SERIAL_H
#define NADIR_HOST_METAL_SERIAL_H

#include "arch/types.h"

/* 115200 bits a second, 8 data bits, no parity. */
void serial_init(void);
void serial_put(u8 byte);
/* A line of the host's. It begins at the left margin, whatever a guest has written. */
void serial_line(const char *text);
/* False: nothing has come. */
bool serial_get(u8 *byte);
/* From now on no lock is waited for: its holder may have been stopped. */
void serial_panic(void);

#endif
