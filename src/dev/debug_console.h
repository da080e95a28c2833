/* The debug console of Bochs and QEMU: bytes written to port 0xe9 appear on the host; reading gives 0xe9, which tells a
 * guest that it is there. Firmware for QEMU writes its log to a second one at port 0x402. */
#ifndef NADIR_DEV_DEBUG_CONSOLE_H
#define NADIR_DEV_DEBUG_CONSOLE_H

#include "dev/bus.h"

struct debug_console {
	void (*emit)(void *opaque, u8 byte);
	void *opaque;
};

/* Answer at PORT_DEBUG_CONSOLE and PORT_FIRMWARE_CONSOLE; 0, or a negative value as bus_add. */
int debug_console_attach(struct debug_console *console, struct bus *io);

#endif
