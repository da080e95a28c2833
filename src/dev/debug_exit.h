/* A port by which a test guest ends its machine with a status, after QEMU's isa-debug-exit: writing v ends with (v <<
 * 1) | 1, so that no guest can claim the status 0. */
#ifndef NADIR_DEV_DEBUG_EXIT_H
#define NADIR_DEV_DEBUG_EXIT_H

#include "dev/bus.h"

struct debug_exit {
	void (*exit)(void *opaque, u32 status); /* called from the register write */
	void *opaque;
};

/* Answer at PORT_DEBUG_EXIT, 4 bytes; 0, or a negative value as bus_add. */
int debug_exit_attach(struct debug_exit *debug_exit, struct bus *io);

#endif
