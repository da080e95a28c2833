/* Firmware images: those of Debian's packages, by name, and others by path (rom.c). */
#ifndef NADIR_HOST_LINUX_ROM_H
#define NADIR_HOST_LINUX_ROM_H

#include "host/linux/file.h"

/* Load the ROM that --firmware names ("seabios", "ovmf", or a path). With a kernel to boot (not NULL), and firmware that needs one, also the
 * option ROM that loads it. Its path, or NULL after one sentence on stderr. */
const char *rom_load(const char *name, const char *kernel, struct file *rom, struct file *option_rom);
/* Load the video BIOS for --vga. 0, or -1 after one sentence on stderr. */
int rom_load_vga(struct file *rom);

#endif
