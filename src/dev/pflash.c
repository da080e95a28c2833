/* A flash chip (pflash.h). Programming takes no time, so that the status says ready whenever it is read. What was programmed is stored when
 * the guest leaves the command mode, as every driver does at the end of a write, or asks for the status. */
#include "dev/pflash.h"

#include "lib/string.h"

enum {
	READ_ARRAY = 0xff,
	READ_ARRAY_OLD = 0x00,
	PROGRAM = 0x40,
	PROGRAM_OLD = 0x10,
	ERASE = 0x20,
	CONFIRM = 0xd0,
	CLEAR_STATUS = 0x50,
	READ_STATUS = 0x70,
	READ_ID = 0x90
};

#define STATUS_READY 0x80 /* once something was done: firmware knows a virtual chip by its being clear before */
#define STATUS_ERASE_ERROR 0x20
#define STATUS_PROGRAM_ERROR 0x10

#define ID_MANUFACTURER 0x89
#define ID_DEVICE 0x18

static void note_dirty(struct pflash *f, u64 offset, u64 size)
{
	f->dirty_from = MIN(f->dirty_from, offset);
	f->dirty_to = MAX(f->dirty_to, offset + size);
}

static void store(struct pflash *f)
{
	if (f->dirty_from >= f->dirty_to)
		return;
	if (f->backend.store && f->backend.store(f->backend.opaque, f->dirty_from, f->dirty_to - f->dirty_from) < 0)
		f->status |= STATUS_PROGRAM_ERROR;
	f->dirty_from = ~0ull;
	f->dirty_to = 0;
}

static u64 pflash_read(void *device, u64 offset, unsigned size, u64 now)
{
	struct pflash *f = device;
	u64 value = 0;
	switch (f->command) {
	case READ_ARRAY:
		memcpy(&value, f->backend.data + offset, size);
		return value;
	case READ_ID:
		return offset & 1 ? ID_DEVICE : ID_MANUFACTURER;
	default:
		store(f);
		return f->status;
	}
}

static void begin(struct pflash *f, u8 command)
{
	switch (command) {
	case PROGRAM_OLD:
	case PROGRAM:
	case ERASE:
		f->command = command;
		break;
	case CLEAR_STATUS: /* and the mode stays, as QEMU has it: reads give the array afterwards */
		f->status = 0;
		f->command = READ_ARRAY;
		break;
	case READ_STATUS:
	case READ_ID:
		f->command = command;
		break;
	default:
		f->command = READ_ARRAY;
		break;
	}
	if (f->command == READ_ARRAY)
		store(f);
}

/* The second write of a command; reads give the status afterwards. Programming clears bits, and only erasing sets them. */
static void finish(struct pflash *f, u64 offset, unsigned size, u64 value)
{
	u64 sector = offset & ~(u64)(PFLASH_SECTOR - 1);
	if (f->command != ERASE) {
		for (unsigned i = 0; i < size; i++)
			f->backend.data[offset + i] &= (u8)(value >> (8 * i));
		note_dirty(f, offset, size);
	} else if ((u8)value == CONFIRM) {
		memset(f->backend.data + sector, 0xff, PFLASH_SECTOR);
		note_dirty(f, sector, PFLASH_SECTOR);
	} else {
		f->status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR;
	}
	f->status |= STATUS_READY;
	f->command = READ_STATUS;
}

static void pflash_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	struct pflash *f = device;
	if (f->command == PROGRAM || f->command == PROGRAM_OLD || f->command == ERASE)
		finish(f, offset, size, value);
	else
		begin(f, (u8)value);
}

static const struct region_ops pflash_ops = { .read = pflash_read, .write = pflash_write };

void pflash_reset(struct pflash *f)
{
	store(f);
	f->command = READ_ARRAY;
	f->status = 0;
}

int pflash_attach(struct pflash *f, const struct pflash_backend *backend, struct bus *memory, gpa_t base)
{
	f->backend = *backend;
	f->dirty_from = ~0ull;
	f->dirty_to = 0;
	pflash_reset(f);
	return bus_add(memory, "flash", base, backend->size, &pflash_ops, f);
}

/* ---- state ---- */

/* The bytes that are loaded next are not those in storage. */
static bool pflash_loaded(void *object)
{
	struct pflash *f = object;
	note_dirty(f, 0, f->backend.size);
	return true;
}

static const struct state_table pflash_state_table = STATE_TABLE(struct pflash, pflash_loaded,
	STATE_NONE(struct pflash, backend), STATE(struct pflash, command), STATE(struct pflash, status),
	STATE_NONE(struct pflash, dirty_from), STATE_NONE(struct pflash, dirty_to));

void pflash_state(struct state *s, struct pflash *f)
{
	state_section(s, "flash", 0, &pflash_state_table, f);
	state_bytes(s, "flash contents", 0, f->backend.data, (u32)f->backend.size);
}
