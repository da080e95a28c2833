/* virtio console device (Virtual I/O Device Specification 1.2, "Console Device"), with several ports: the first is a console of the guest's (hvc0 in
 * Linux), the others are named channels (/dev/virtio-ports/NAME). A port's other end is a cable of bytes, as a serial port's. */
#ifndef NADIR_DEV_VIRTIO_CONSOLE_H
#define NADIR_DEV_VIRTIO_CONSOLE_H

#include "dev/virtio/device.h"

/* Each port has two queues, and the control messages have two: so many fit. */
#define CONSOLE_PORTS_MAX ((VIRTIO_QUEUES_MAX - 2) / 2)
#define CONSOLE_NAME_MAX 32

/* The other end. Both are called under the board's lock and must not call back. */
struct console_cable {
	void (*put)(void *opaque, u8 byte);
	bool (*get)(void *opaque, u8 *byte); /* false: nothing waits; vm_console_input tells when something does */
	void *opaque;
	const char *name; /* of a port but the first */
};

/* "Device configuration layout" */
struct console_config {
	u16 columns, rows; /* not offered */
	u32 ports;
	u32 emergency; /* what is written there is a byte for the first port, before there are queues */
};

struct console_port {
	bool open; /* a program in the guest has it open */
	bool waits; /* `byte` is there for the guest, taken from the cable already */
	u8 byte;
	u8 messages; /* control messages that the driver has to get: a bit each */
};

struct virtio_console {
	struct virtio_device virtio;
	/* Wired by the board before virtio_console_attach. */
	struct console_cable cable[CONSOLE_PORTS_MAX];
	unsigned ports; /* at least 1 */

	struct console_config config;
	struct console_port port[CONSOLE_PORTS_MAX];
	struct virtq_chain chain; /* the buffer in work */
};

int virtio_console_attach(struct virtio_console *console, struct pci_host *host, struct ram *ram, unsigned slot);

/* Bytes for the guest may wait at a port. */
void virtio_console_input(struct virtio_console *console, unsigned port);

extern const struct state_table virtio_console_state;

#endif
