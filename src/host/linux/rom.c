/* Firmware images (rom.h). A name stands for the first of a few places where distributions put that image. */
#define _GNU_SOURCE
#include "host/linux/rom.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROM_MAX (1u << 30) /* more than any chip: the loader says what is too large for the machine */
#define BIOS_MAX (256u << 10) /* a ROM of more than that is UEFI, which needs no option ROM to load a kernel */

static const char *const option_rom_paths[] = { "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/seabios/linuxboot_dma.bin", NULL };

static const char *const vga_rom_paths[] = { "/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin", NULL };

static const struct known {
	const char *name, *package;
	const char *path[4];
} known[] = {
	{ "seabios", "seabios", { "/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin" } },
	{ "ovmf", "ovmf", { "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd" } },
};

static const struct known *find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i].name, name))
			return &known[i];
	return NULL;
}

static const char *find_path(const char *const *path)
{
	while (*path && access(*path, R_OK))
		path++;
	return *path;
}

const char *rom_load(const char *name, const char *kernel, struct file *rom, struct file *option_rom)
{
	const struct known *k = find(name);
	const char *path = k ? find_path(k->path) : name;
	if (!path) {
		fprintf(stderr, "nadir: --firmware: %s is not installed; it comes with Debian's package %s\n", name, k->package);
		return NULL;
	}
	if (file_load(rom, "firmware", path, ROM_MAX) < 0)
		return NULL;
	if (!kernel || rom->size > BIOS_MAX)
		return path;
	const char *option_path = find_path(option_rom_paths);
	if (!option_path) {
		fprintf(stderr, "nadir: --kernel: a BIOS needs linuxboot_dma.bin to load it, which comes with Debian's package qemu-system-data; "
				"leave out --firmware, or boot from a disk\n");
		return NULL;
	}
	return file_load(option_rom, "firmware", option_path, ROM_MAX) < 0 ? NULL : path;
}

int rom_load_vga(struct file *rom)
{
	const char *path = find_path(vga_rom_paths);
	if (path)
		return file_load(rom, "vga", path, BIOS_MAX);
	fprintf(stderr, "nadir: --vga: vgabios-stdvga.bin is not installed; it comes with Debian's package seabios\n");
	return -1;
}
