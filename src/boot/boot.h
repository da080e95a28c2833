/* Putting a guest into memory and the first vCPU into the state its boot protocol demands.
 *
 * The files come as buffers that the host mapped; nothing in them is trusted. Protocols:
 *   linux64, linux32  Linux kernel, Documentation/arch/x86/boot.rst, "64-bit Boot Protocol" and "32-bit Boot Protocol"
 *   pvh               Xen, "x86/HVM direct boot ABI"
 *   multiboot1, 2     "Multiboot Specification version 0.6.96", "Multiboot2 Specification version 2.0"
 *   flat              a raw image in real mode at 0x7c00, as a BIOS starts a boot sector
 *   firmware          a ROM image that ends at 4 GiB; the vCPU stays in its reset state */
#ifndef NADIR_BOOT_BOOT_H
#define NADIR_BOOT_BOOT_H

#include "mmu/ram.h"
#include "vcpu/vcpu.h"

enum boot_protocol {
	BOOT_AUTO, /* whatever the image's header says */
	BOOT_LINUX64,
	BOOT_LINUX32,
	BOOT_PVH,
	BOOT_MULTIBOOT2,
	BOOT_MULTIBOOT1,
	BOOT_FLAT,     /* never chosen by BOOT_AUTO */
	BOOT_FIRMWARE, /* never chosen by BOOT_AUTO */
};

/* What firmware boots from. */
enum boot_device { BOOT_DEVICE_NONE, BOOT_DEVICE_DISK, BOOT_DEVICE_CDROM, BOOT_DEVICE_NETWORK };
#define BOOT_DEVICES BOOT_DEVICE_NETWORK

struct boot_source {
	/* BOOT_FIRMWARE: the ROM image. Kernel, initrd and command line are then for it to load; there may be none. */
	const u8 *firmware;
	size_t firmware_size;
	const u8 *option_rom; /* by which a BIOS loads a kernel, or NULL */
	size_t option_rom_size;
	const u8 *net_rom; /* by which it boots from a virtio network card, or NULL */
	size_t net_rom_size;
	enum boot_device order[BOOT_DEVICES]; /* what it tries first, as far as it is told; disks and CD-ROMs it tries anyway */
	const u8 *kernel;
	size_t kernel_size;
	const u8 *initrd; /* Linux: the initial ramdisk; PVH, multiboot: the first module. NULL: none */
	size_t initrd_size;
	const char *cmdline; /* NULL: empty */
	enum boot_protocol protocol;
	unsigned cpus;
	bool vga; /* there is one: in text mode, unless firmware is to set one */
	const u8 *vga_rom; /* its BIOS, for BOOT_FIRMWARE, or NULL */
	size_t vga_rom_size;
	unsigned physical_bits; /* of addresses that the CPUs have; for BOOT_FIRMWARE */
	/* These bytes of the kernel or the initrd were copied, and are not read again soon. May be NULL. */
	void (*copied)(const void *data, u64 size);
	u64 ram_size; /* bytes of guest RAM, laid out as boot/e820.h says; the slots must be in the ram already */
};

/* The mode a protocol starts the first vCPU in. */
enum boot_mode {
	BOOT_MODE_RESET,     /* as cpu_reset leaves it */
	BOOT_MODE_REAL,      /* 16-bit, flat at segment 0 */
	BOOT_MODE_PROTECTED, /* 32-bit flat, no paging */
	BOOT_MODE_LONG,      /* 64-bit, first 4 GiB mapped to themselves */
};

struct boot_entry {
	enum boot_protocol protocol; /* what was chosen */
	const char *name;            /* of the protocol: static text */
	enum boot_mode mode;
	u64 rip;
	u64 gpr[GPR_COUNT];
	gpa_t kernel_base, initrd_base; /* for the log; 0: none */
	u64 kernel_size, initrd_size;   /* bytes in guest memory */
	u8 *rom; /* BOOT_FIRMWARE: memory of the ROM slot, from host_ram_create; the owner of the ram destroys it */
	u64 rom_size;
};

/* Load the guest: image, modules, command line, memory map, ACPI tables, page tables. On failure false, and one
 * sentence in `error` that says what is wrong and how to mend it. May be called again on the same ram, to restart the
 * guest: `entry` must then still hold what the last call left (zeroed before the first). */
bool boot_load(struct ram *ram, const struct boot_source *source, struct boot_entry *entry, char *error,
	       size_t error_size);

/* Bring a vCPU that cpu_reset has prepared into the state the protocol starts with. */
void boot_set_cpu(struct vcpu *vcpu, const struct boot_entry *entry);

/* The protocol a user names ("auto", "linux64", "pvh", ...); false if there is none of that name. */
bool boot_protocol_find(const char *name, enum boot_protocol *protocol);

#endif
