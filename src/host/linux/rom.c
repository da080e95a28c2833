/* Firmware images (rom.h). A name stands for the first of a few places where distributions put that image. */
#define _GNU_SOURCE
#include "host/linux/rom.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROM_MAX (1u << 30) /* more than any chip: the loader says what is too large for the machine */
#define BIOS_MAX (256u << 10) /* a ROM of more than that is UEFI, which needs no option ROM to load a kernel */

static const char *const option_rom_paths[] = { "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/seabios/linuxboot_dma.bin", NULL };

static const char *const net_rom_paths[] = { "/usr/lib/ipxe/qemu/pxe-virtio.rom", "/usr/share/qemu/pxe-virtio.rom", "/usr/share/ipxe/qemu/pxe-virtio.rom", NULL };

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

/* What a BIOS needs beside itself: the first of these places, or -1 after one sentence that says what brings it. */
static int load_helper(const char *option, const char *const *paths, const char *missing, struct file *rom)
{
	const char *path = find_path(paths);
	if (path)
		return file_load(rom, option, path, ROM_MAX);
	fprintf(stderr, "nadir: --%s: a BIOS needs %s\n", option, missing);
	return -1;
}

const char *rom_load(const char *name, const char *kernel, bool network, struct roms *roms)
{
	const struct known *k = find(name);
	const char *path = k ? find_path(k->path) : name;
	if (!path) {
		fprintf(stderr, "nadir: --firmware: %s is not installed; it comes with Debian's package %s\n", name, k->package);
		return NULL;
	}
	if (file_load(&roms->firmware, "firmware", path, ROM_MAX) < 0)
		return NULL;
	if (roms->firmware.size > BIOS_MAX)
		return path;
	if (kernel && load_helper("kernel", option_rom_paths, "linuxboot_dma.bin to load it, which comes with Debian's package qemu-system-data; "
							      "leave out --firmware, or boot from a disk", &roms->option) < 0)
		return NULL;
	if (network && load_helper("boot", net_rom_paths, "pxe-virtio.rom to boot from the network, which comes with Debian's package ipxe-qemu", &roms->net) < 0)
		return NULL;
	return path;
}

void rom_configure(const struct roms *roms, struct boot_source *boot)
{
	boot->firmware = roms->firmware.data;
	boot->firmware_size = roms->firmware.size;
	boot->option_rom = roms->option.data;
	boot->option_rom_size = roms->option.size;
	boot->net_rom = roms->net.data;
	boot->net_rom_size = roms->net.size;
}

void rom_release(struct roms *roms)
{
	file_release(&roms->firmware);
	file_release(&roms->option);
	file_release(&roms->net);
}

int rom_load_vga(struct file *rom)
{
	const char *path = find_path(vga_rom_paths);
	if (path)
		return file_load(rom, "vga", path, BIOS_MAX);
	fprintf(stderr, "nadir: --vga: vgabios-stdvga.bin is not installed; it comes with Debian's package seabios\n");
	return -1;
}
