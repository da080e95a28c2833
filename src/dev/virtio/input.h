/* virtio input devices (Virtual I/O Device Specification 1.2, "Input Device"): a keyboard, and a tablet whose pointer is where the host's is. What they
 * tell the guest are Linux' input events. Guests whose firmware or kernel has no driver use the PS/2 ones instead (i8042.h). */
#ifndef NADIR_DEV_VIRTIO_INPUT_H
#define NADIR_DEV_VIRTIO_INPUT_H

#include "dev/virtio/device.h"

#define INPUT_QUEUE_SIZE 64
#define INPUT_POSITION_MAX 0x7fffu /* of both axes */

enum input_kind { INPUT_KEYBOARD, INPUT_TABLET };

/* "Device Operation" */
struct input_event {
	u16 type, code;
	u32 value;
};

/* "Device configuration layout": the driver writes what it wants to know, and reads it. */
struct input_config {
	u8 select, subselect, size, reserved[5];
	u8 data[128];
};

struct virtio_input {
	struct virtio_device virtio;
	enum input_kind kind; /* set before virtio_input_attach */

	struct input_config config;
	struct input_event queue[INPUT_QUEUE_SIZE]; /* that the driver had no room for yet */
	u8 head, count;
	u16 x, y; /* what the driver was told last */
	u8 buttons;
	struct virtq_chain chain; /* the buffer in work */
};

/* Plug in as `function` of the PCI device `slot`. 0 or negative. */
int virtio_input_attach(struct virtio_input *input, struct pci_host *host, struct ram *ram, unsigned slot, unsigned function);

/* A key goes down or up; `code` as that of ps2_keyboard_key. False: try again, the driver has not taken the last ones. Only while virtio_works. */
bool virtio_input_key(struct virtio_input *input, u16 code, bool down);
/* Where the pointer is, 0 to INPUT_POSITION_MAX, and its buttons, as RFB numbers them: a bit each for left, middle, right, and a step of the wheel up, down,
 * left, right. False: there is no room for that now; what comes next will say where the pointer is. Only while virtio_works. */
bool virtio_input_pointer(struct virtio_input *input, u16 x, u16 y, u8 buttons);

/* Linux' code of a key (input_keys.c); 0: there is none. All are below INPUT_KEYS. */
#define INPUT_KEYS 0x100
u16 input_key(u16 code);

extern const struct state_table virtio_input_state;

#endif
