/* The display (display.h): drawing runs beside the guest, from a copy of the device's registers, so that it holds nobody up. */
#include "host/linux/display.h"

#include "host/linux/png.h"
#include "host/linux/rom.h"
#include "host/linux/vnc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int display_open(struct display *display, const struct run_options *options)
{
	display->vga = options->vnc || strcmp(options->vga, "none");
	if (options->vnc && vnc_open(options->vnc, strcmp(options->sandbox, "off")) < 0)
		return -1;
	return display->vga ? rom_load_vga(&display->rom) : 0;
}

void display_configure(const struct display *display, struct vm_config *config)
{
	config->backends.vga = display->vga;
	config->backends.vga_rom = display->rom.data;
	config->backends.vga_rom_size = display->rom.size;
}

bool display_draw(struct vm *vm, u32 *pixel, unsigned *width, unsigned *height)
{
	struct vga_regs regs;
	if (!vm_display(vm, &regs))
		return false;
	vga_size(&regs, width, height);
	vga_draw(&regs, vm->board.vga.memory, pixel);
	return true;
}

const char *display_png(struct vm *vm, u8 **file, size_t *size)
{
	unsigned width, height;
	u32 *pixel = malloc(VGA_PICTURE_MAX);
	const char *why = !pixel ? "out of memory" : NULL;
	if (!why && !display_draw(vm, pixel, &width, &height))
		why = "the virtual machine has no display (--vga)";
	*file = why ? NULL : png_encode(pixel, width, height, size);
	free(pixel);
	return why ? why : *file ? NULL : "out of memory";
}

int display_start(struct vm *vm)
{
	int error = vnc_start(vm);
	if (error)
		fprintf(stderr, "nadir: cannot start the thread of the display: %s\n", strerror(error));
	return error ? -1 : 0;
}

void display_stop(void)
{
	vnc_stop();
}

void display_close(struct display *display)
{
	file_release(&display->rom);
}
