/* Firmware images: those of Debian's packages, by name, and others by path (rom.c). */
#ifndef NADIR_HOST_LINUX_ROM_H
#define NADIR_HOST_LINUX_ROM_H

#include "boot/boot.h"
#include "host/linux/file.h"

struct roms {
	struct file firmware;
	struct file option; /* by which a BIOS loads a kernel */
	struct file net; /* by which it boots from a network card */
};

/* Load the ROM that --firmware names ("seabios", "ovmf", or a path), and what that needs, if it is a BIOS, to boot a kernel (unless NULL) and from the
 * network. Its path, or NULL after one sentence on stderr. */
const char *rom_load(const char *name, const char *kernel, bool network, struct roms *roms);
void rom_configure(const struct roms *roms, struct boot_source *boot);
void rom_release(struct roms *roms);
/* Load the video BIOS for --vga. 0, or -1 after one sentence on stderr. */
int rom_load_vga(struct file *rom);

#endif
