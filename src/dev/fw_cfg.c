/* The firmware configuration device (fw_cfg.h). Numbers in items are little-endian; the directory and commands are big-endian. */
#include "dev/fw_cfg.h"

#include "dev/map.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define SIGNATURE "QEMU"
#define ID_PORTS 1
#define ID_DMA 2
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG", read at the DMA register */

#define SELECTOR_PORT 0
#define DATA_PORT 1
#define KEY_FLAGS 0xc000 /* architecture-local items, of which there are none, and a wish to write, from long ago */

/* A command in guest memory: control, length, address. The key to select is in the upper half of control. */
enum { COMMAND_CONTROL = 0, COMMAND_LENGTH = 4, COMMAND_ADDRESS = 8, COMMAND_SIZE = 16 };
#define CONTROL_ERROR BIT(0)
#define CONTROL_READ BIT(1)
#define CONTROL_SKIP BIT(2)
#define CONTROL_SELECT BIT(3)
#define CONTROL_WRITE BIT(4)

#define PART 4096u /* of a transfer, that is done at a time */
#define TELL_PART (1u << 20) /* of an item, that its owner is told of at a time */

static u32 get_be32(const u8 *p)
{
	return __builtin_bswap32(get_u32(p));
}

static void put_be32(u8 *p, u32 value)
{
	put_u32(p, __builtin_bswap32(value));
}

/* ---- items ---- */

void fw_cfg_add(struct fw_cfg *fw, unsigned key, const void *data, u32 size)
{
	fw->item[key].data = data;
	fw->item[key].size = size;
}

void fw_cfg_add_number(struct fw_cfg *fw, unsigned key, u64 value, unsigned bytes)
{
	fw->item[key].value = value;
	fw_cfg_add(fw, key, &fw->item[key].value, bytes);
}

unsigned fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, u32 size)
{
	if (fw->files == FW_CFG_FILES_MAX)
		return 0;
	unsigned key = FW_CFG_FILES + fw->files++;
	memcpy(fw->item[key].name, name, MIN(string_length(name), FW_CFG_NAME_SIZE - 1));
	fw_cfg_add(fw, key, data, size);
	return key;
}

unsigned fw_cfg_add_file_number(struct fw_cfg *fw, const char *name, u64 value, unsigned bytes)
{
	unsigned key = fw_cfg_add_file(fw, name, NULL, 0);
	if (key)
		fw_cfg_add_number(fw, key, value, bytes);
	return key;
}

static void make_directory(struct fw_cfg *fw)
{
	u8 *p = fw->directory;
	put_be32(p, fw->files);
	p += 4;
	for (unsigned key = FW_CFG_FILES; key < FW_CFG_FILES + fw->files; key++) {
		put_be32(p, fw->item[key].size);
		put_u16(p + 4, __builtin_bswap16((u16)key));
		put_u16(p + 6, 0);
		memcpy(p + 8, fw->item[key].name, FW_CFG_NAME_SIZE);
		p += 8 + FW_CFG_NAME_SIZE;
	}
	fw_cfg_add(fw, FW_CFG_DIRECTORY, fw->directory, (u32)(p - fw->directory));
}

static const struct fw_cfg_item *current(const struct fw_cfg *fw)
{
	static const struct fw_cfg_item none;
	return fw->key < ARRAY_SIZE(fw->item) ? &fw->item[fw->key] : &none;
}

static void select_item(struct fw_cfg *fw, u16 key)
{
	fw->key = key & (u16)~KEY_FLAGS;
	if (key & KEY_FLAGS)
		fw->key = (u16)~KEY_FLAGS;
	fw->offset = 0;
	if (fw->selected)
		fw->selected(fw->opaque, fw->key);
}

/* Tell the owner of parts of large items that were read to their end. */
static void tell_copied(const struct fw_cfg *fw, const struct fw_cfg_item *item, u32 from, u32 to)
{
	u32 first = from / TELL_PART, last = to / TELL_PART;
	if (fw->copied && item->size >= TELL_PART && first != last)
		fw->copied(item->data + first * TELL_PART, (u64)(last - first) * TELL_PART);
}

/* ---- the data port ---- */

static u8 read_byte(struct fw_cfg *fw)
{
	const struct fw_cfg_item *item = current(fw);
	return fw->offset < item->size ? item->data[fw->offset++] : 0;
}

/* A selector is written at once; the data port lies in its upper half, and is of bytes. */
static u64 ports_read(void *device, u64 offset, unsigned size, u64 now)
{
	return offset == DATA_PORT ? read_byte(device) : size_mask(size);
}

static void ports_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	if (offset == SELECTOR_PORT && size == 2)
		select_item(device, (u16)value);
}

/* ---- transfers ---- */

/* Copy what is left of the item, then zeroes, to guest memory; false if that is not all RAM. */
static bool copy_to_guest(struct fw_cfg *fw, gpa_t to, u32 length)
{
	static const u8 zeroes[PART];
	const struct fw_cfg_item *item = current(fw);
	u32 before = fw->offset;
	for (u32 done = 0, part; done < length; done += part) {
		u32 left = fw->offset < item->size ? item->size - fw->offset : 0;
		part = MIN(MIN(length - done, PART), left ? left : PART);
		if (!ram_write(fw->ram, to + done, left ? item->data + fw->offset : zeroes, part))
			return false;
		fw->offset += left ? part : 0;
	}
	tell_copied(fw, item, before, fw->offset);
	return true;
}

static void skip(struct fw_cfg *fw, u32 length)
{
	u32 size = current(fw)->size;
	fw->offset += MIN(length, size - MIN(fw->offset, size));
}

/* How a command ends: nothing in control, or the error bit. */
static u32 carry_out(struct fw_cfg *fw, const u8 *command)
{
	u32 control = get_be32(command + COMMAND_CONTROL), length = get_be32(command + COMMAND_LENGTH);
	gpa_t address = __builtin_bswap64(get_u64(command + COMMAND_ADDRESS));
	if (control & CONTROL_SELECT)
		select_item(fw, (u16)(control >> 16));
	if (control & CONTROL_READ)
		return copy_to_guest(fw, address, length) ? 0 : CONTROL_ERROR;
	if (control & CONTROL_WRITE)
		return CONTROL_ERROR;
	if (control & CONTROL_SKIP)
		skip(fw, length);
	return 0;
}

static void run_command(struct fw_cfg *fw, gpa_t at)
{
	u8 command[COMMAND_SIZE], result[4];
	if (!ram_read(fw->ram, at, command, sizeof(command)))
		return;
	put_be32(result, carry_out(fw, command));
	ram_write(fw->ram, at + COMMAND_CONTROL, result, sizeof(result));
}

static u64 dma_read(void *device, u64 offset, unsigned size, u64 now)
{
	u64 value = __builtin_bswap64(DMA_SIGNATURE);
	return value >> (8 * offset);
}

/* The address is big-endian: its upper half at offset 0, and the lower one, which starts the command. */
static void dma_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct fw_cfg *fw = device;
	u32 half = __builtin_bswap32((u32)value);
	if (size != 4)
		return;
	if (!offset) {
		fw->command = (u64)half << 32;
	} else if (offset == 4) {
		gpa_t at = fw->command | half;
		fw->command = 0;
		run_command(fw, at);
	}
}

static const struct region_ops ports_ops = { .read = ports_read, .write = ports_write, .width = 2 };
static const struct region_ops dma_ops = { .read = dma_read, .write = dma_write, .width = 4 };

void fw_cfg_reset(struct fw_cfg *fw)
{
	fw->key = 0;
	fw->offset = 0;
	fw->command = 0;
}

int fw_cfg_attach(struct fw_cfg *fw, struct bus *io, struct ram *ram)
{
	fw->ram = ram;
	fw_cfg_add(fw, FW_CFG_SIGNATURE, SIGNATURE, sizeof(SIGNATURE) - 1);
	fw_cfg_add_number(fw, FW_CFG_ID, ID_PORTS | ID_DMA, 4);
	make_directory(fw);
	fw_cfg_reset(fw);
	int error = bus_add(io, "fw_cfg", PORT_FW_CFG, 2, &ports_ops, fw);
	return error ? error : bus_add(io, "fw_cfg DMA", PORT_FW_CFG_DMA, 8, &dma_ops, fw);
}

/* The items are the owner's; one that is being read goes on. */
const struct state_table fw_cfg_state = STATE_TABLE(struct fw_cfg, NULL,
	STATE_NONE(struct fw_cfg, selected), STATE_NONE(struct fw_cfg, copied), STATE_NONE(struct fw_cfg, opaque),
	STATE_NONE(struct fw_cfg, ram), STATE_NONE(struct fw_cfg, item), STATE_NONE(struct fw_cfg, files),
	STATE_NONE(struct fw_cfg, directory), STATE(struct fw_cfg, key), STATE(struct fw_cfg, offset), STATE(struct fw_cfg, command));
