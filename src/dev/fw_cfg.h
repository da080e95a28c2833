/* QEMU's firmware configuration device, by which the machine tells its firmware what it is made of. QEMU, docs/specs/fw_cfg.rst.
 *
 * Items are bytes under a 16-bit key; some are files, with a name that the file directory lists. A guest selects a key, then reads byte by
 * byte at the data port, or gives the address of a command for a transfer into its memory. Items are the owner's and are never written. */
#ifndef NADIR_DEV_FW_CFG_H
#define NADIR_DEV_FW_CFG_H

#include "dev/bus.h"
#include "lib/state.h"
#include "mmu/ram.h"

/* Keys with a meaning of their own. */
enum fw_cfg_key {
	FW_CFG_SIGNATURE = 0x00,
	FW_CFG_ID = 0x01,
	FW_CFG_UUID = 0x02,
	FW_CFG_RAM_SIZE = 0x03,
	FW_CFG_NOGRAPHIC = 0x04,
	FW_CFG_CPUS = 0x05,
	FW_CFG_KERNEL_ADDRESS = 0x07,
	FW_CFG_KERNEL_SIZE = 0x08,
	FW_CFG_INITRD_ADDRESS = 0x0a,
	FW_CFG_INITRD_SIZE = 0x0b,
	FW_CFG_BOOT_MENU = 0x0e,
	FW_CFG_MAX_CPUS = 0x0f,
	FW_CFG_KERNEL_DATA = 0x11,
	FW_CFG_INITRD_DATA = 0x12,
	FW_CFG_CMDLINE_ADDRESS = 0x13,
	FW_CFG_CMDLINE_SIZE = 0x14,
	FW_CFG_CMDLINE_DATA = 0x15,
	FW_CFG_SETUP_ADDRESS = 0x16,
	FW_CFG_SETUP_SIZE = 0x17,
	FW_CFG_SETUP_DATA = 0x18,
	FW_CFG_DIRECTORY = 0x19,
	FW_CFG_FILES = 0x20, /* the first file */
};

#define FW_CFG_FILES_MAX 24
#define FW_CFG_NAME_SIZE 56

struct fw_cfg_item {
	const u8 *data;
	u32 size;
	u64 value; /* what data points to, for numbers */
	char name[FW_CFG_NAME_SIZE];
};

struct fw_cfg {
	/* Set by the owner before fw_cfg_attach, kept by fw_cfg_reset; may be NULL. An item is selected: its bytes may be made now, but not
	 * more of them. `copied`: these bytes of an item were read, and are not read again soon. */
	void (*selected)(void *opaque, unsigned key);
	void (*copied)(const void *data, u64 size);
	void *opaque;

	struct ram *ram;
	struct fw_cfg_item item[FW_CFG_FILES + FW_CFG_FILES_MAX];
	unsigned files;
	u8 directory[4 + FW_CFG_FILES_MAX * (8 + FW_CFG_NAME_SIZE)];
	u16 key;
	u32 offset; /* next byte of the item */
	u64 command; /* address of the command, as far as it has been written */
};

/* Describe the machine, before fw_cfg_attach. The bytes stay the caller's; `data` of numbers is copied. */
void fw_cfg_add(struct fw_cfg *fw, unsigned key, const void *data, u32 size);
void fw_cfg_add_number(struct fw_cfg *fw, unsigned key, u64 value, unsigned bytes);
/* A file; its key, or 0 if there are too many. */
unsigned fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, u32 size);
unsigned fw_cfg_add_file_number(struct fw_cfg *fw, const char *name, u64 value, unsigned bytes);

/* Answer at PORT_FW_CFG and PORT_FW_CFG_DMA with what was added; `ram` is where transfers go. 0, or a negative value as bus_add. */
int fw_cfg_attach(struct fw_cfg *fw, struct bus *io, struct ram *ram);
void fw_cfg_reset(struct fw_cfg *fw);

extern const struct state_table fw_cfg_state;

#endif
