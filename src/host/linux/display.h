/* The machine's display on the host: its option, and pictures of it (display.c). */
#ifndef NADIR_HOST_LINUX_DISPLAY_H
#define NADIR_HOST_LINUX_DISPLAY_H

#include "host/linux/file.h"
#include "host/linux/options.h"
#include "vm/vm.h"

struct display {
	struct file rom; /* the video BIOS, for firmware and for its font */
	bool vga;
};

/* What the options want. 0, or -1 after one sentence on stderr. */
int display_open(struct display *display, const struct run_options *options);
void display_configure(const struct display *display, struct vm_config *config);
/* The picture is drawn there: VGA_PICTURE_MAX bytes. False: the machine has no display. Any thread that handles faults (trap.h). */
bool display_draw(struct vm *vm, u32 *pixel, unsigned *width, unsigned *height);
/* The picture as a PNG file, which the caller frees. NULL, and why. */
const char *display_png(struct vm *vm, u8 **file, size_t *size);
/* Let clients see it. 0, or -1 after one sentence on stderr. */
int display_start(struct vm *vm);
void display_stop(void);
void display_close(struct display *display);

#endif
