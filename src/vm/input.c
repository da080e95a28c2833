/* Keys and the pointer: which of a machine's keyboards and pointing devices gets them (vm.h). Firmware drives those at the PS/2 connectors, and so do
 * systems without virtio drivers; a guest that drives the virtio ones may look at the others, too, so only one is told. */
#include "host/port.h"
#include "vm/vm.h"

/* RFB's left, middle and right to the mouse's left, right and middle. */
static u8 mouse_buttons(u8 buttons)
{
	return (buttons & 1) | (buttons >> 1 & 2) | (buttons << 1 & 4);
}

bool vm_key(struct vm *vm, u16 code, bool down)
{
	struct board *b = &vm->board;
	host_lock(&vm->lock);
	bool taken = vm->time.stopped ||
		     (virtio_works(&b->keyboard.virtio) ? virtio_input_key(&b->keyboard, code, down) : i8042_key(&b->i8042, code, down));
	host_unlock(&vm->lock);
	return taken;
}

bool vm_pointer(struct vm *vm, const struct vm_pointer *pointer)
{
	struct board *b = &vm->board;
	bool taken = true;
	host_lock(&vm->lock);
	if (!vm->time.stopped && virtio_works(&b->tablet.virtio))
		taken = virtio_input_pointer(&b->tablet, pointer->x, pointer->y, pointer->buttons);
	else if (!vm->time.stopped)
		i8042_mouse(&b->i8042, pointer->dx, pointer->dy, mouse_buttons(pointer->buttons));
	host_unlock(&vm->lock);
	return taken;
}
