/* ATA disks (ATA8-ACS, "Command descriptions"): what they say of themselves, and which of their commands is which transfer. Addresses are logical
 * ones, of 28 or 48 bits. */
#include "dev/ahci_internal.h"

#include "host/port.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define SECTORS_28 0x0fffffffull
#define QUEUE_DEPTH AHCI_SLOTS
#define MULTIPLE_MAX 16

#define FEATURE_XFER_MODE 0x03
#define FEATURE_CACHE_ON 0x02
#define FEATURE_CACHE_OFF 0x82
#define FEATURE_LOOK_AHEAD_ON 0xaa
#define FEATURE_LOOK_AHEAD_OFF 0x55

#define LOG_DIRECTORY 0x00
#define LOG_QUEUED_ERROR 0x10
#define LOG_SIZE 512

/* ---- IDENTIFY ---- */

void ata_string(u16 *word, const char *text, unsigned words)
{
	size_t length = string_length(text);
	for (unsigned i = 0; i < words; i++) {
		u8 first = 2 * i < length ? (u8)text[2 * i] : ' ';
		u8 second = 2 * i + 1 < length ? (u8)text[2 * i + 1] : ' ';
		word[i] = (u16)(first << 8 | second);
	}
}

/* Word 255, "Integrity word". */
static void put_integrity(u16 *word)
{
	u8 sum = 0xa5;
	word[255] = 0;
	for (unsigned i = 0; i < 255; i++)
		sum += (u8)word[i] + (u8)(word[i] >> 8);
	word[255] = (u16)((u8)-sum << 8 | 0xa5);
}

static u64 sectors(const struct ahci_port *port)
{
	return port->backend.size / BLOCK_SECTOR;
}

/* Words that have a value which does not depend on the disk, in the order of the manual's table. */
static const struct {
	u8 index;
	u16 value;
} identity[] = {
	{ 0, 0x0040 },	{ 1, 16383 },	{ 3, 16 },	{ 6, 63 },
	{ 47, 0x8000 | MULTIPLE_MAX },
	{ 49, 0x0f00 }, /* DMA, LBA, IORDY */
	{ 50, 0x4000 }, { 53, 0x0006 }, { 63, 0x0007 }, { 64, 0x0003 }, { 65, 120 },	{ 66, 120 },	{ 67, 120 },	{ 68, 120 },
	{ 75, QUEUE_DEPTH - 1 },
	{ 76, 0x010e }, /* NCQ, three speeds */
	{ 80, 0x01f0 }, /* up to ATA8-ACS */
	{ 82, 0x0068 }, /* look-ahead, write cache, power management */
	{ 83, 0x7400 }, /* FLUSH CACHE (EXT), 48 bits */
	{ 84, 0x4060 }, /* FUA, logs */
	{ 86, 0x3400 }, { 87, 0x4060 }, { 88, 0x203f },
	{ 106, 0x4000 }, { 217, 1 /* solid state */ }, { 222, 0x1020 },
};

static void identify(struct ahci_slot *s)
{
	const struct ahci_port *port = s->port;
	u16 word[256] = { 0 };
	u64 total = sectors(port), small = MIN(total, SECTORS_28);
	char serial[BLOCK_SERIAL_SIZE + 1] = { 0 };
	memcpy(serial, port->backend.serial, BLOCK_SERIAL_SIZE);
	if (!*serial)
		host_snprintf(serial, sizeof(serial), "nadir-sata%u", port->index);
	for (size_t i = 0; i < ARRAY_SIZE(identity); i++)
		word[identity[i].index] = identity[i].value;
	ata_string(word + 10, serial, 10);
	ata_string(word + 23, "1.0", 4);
	ata_string(word + 27, "nadir SATA disk", 20);
	word[59] = (u16)(0x100 | port->drive.multiple);
	memcpy(word + 60, &small, 4);
	word[85] = 0x0048 | (port->drive.write_cache ? 0x20 : 0);
	memcpy(word + 100, &total, 8);
	word[105] = port->backend.readonly ? 0 : 1;
	word[169] = port->backend.readonly ? 0 : 1; /* TRIM */
	put_integrity(word);
	if (ahci_give(s, word, sizeof(word)))
		ahci_end(s, 0);
}

/* ---- reads and writes ---- */

enum address { ADDRESS_NONE, ADDRESS_28, ADDRESS_48, ADDRESS_QUEUED };

/* The sectors that the command names; false if they are not on the disk. */
static bool place(struct ahci_slot *s, enum address address)
{
	u64 lba = s->lba, count = address == ADDRESS_QUEUED ? s->features : s->count;
	if (address == ADDRESS_28) {
		lba = (lba & 0xffffff) | (u64)(s->device & 0xf) << 24;
		count = (u8)count ? (u8)count : 256;
	}
	count = count ? count : 65536;
	s->offset = lba * BLOCK_SECTOR;
	s->left = count * BLOCK_SECTOR;
	return (s->device & ATA_DEVICE_LBA) && lba <= sectors(s->port) && count <= sectors(s->port) - lba;
}

static void read(struct ahci_slot *s)
{
	ahci_transfer(s, BLOCK_READ, false);
}

static void write(struct ahci_slot *s)
{
	ahci_transfer(s, BLOCK_WRITE, !s->port->drive.write_cache);
}

static void write_fua(struct ahci_slot *s)
{
	ahci_transfer(s, BLOCK_WRITE, true);
}

static void write_queued(struct ahci_slot *s)
{
	ahci_transfer(s, BLOCK_WRITE, !s->port->drive.write_cache || (s->device & ATA_DEVICE_FUA));
}

static void succeed(struct ahci_slot *s)
{
	ahci_end(s, 0);
}

static void flush(struct ahci_slot *s)
{
	s->left = 1;
	ahci_transfer(s, BLOCK_FLUSH, true);
}

/* DATA SET MANAGEMENT with TRIM: ranges of a 48-bit address and a count, 0 for none, and one block of them. */
static void trim(struct ahci_slot *s)
{
	u64 range[ATA_TRIM_RANGES];
	u32 taken;
	if (s->features != 1 || s->count != 1 || s->port->backend.readonly)
		return ahci_end(s, ATA_ERROR_ABRT);
	if (!ahci_take(s, range, sizeof(range), &taken))
		return;
	for (unsigned i = 0; i < taken / sizeof(*range); i++) {
		u64 lba = range[i] & (BIT(48) - 1), count = range[i] >> 48;
		if (lba > sectors(s->port) || count > sectors(s->port) - lba)
			return ahci_end(s, ATA_ERROR_IDNF | ATA_ERROR_ABRT);
		if (count)
			s->range[s->ranges++] = range[i];
	}
	ahci_transfer(s, BLOCK_DISCARD, !s->port->drive.write_cache);
}

/* ---- the rest ---- */

static void set_features(struct ahci_slot *s)
{
	switch ((u8)s->features) {
	case FEATURE_CACHE_ON:
	case FEATURE_CACHE_OFF:
		s->port->drive.write_cache = (u8)s->features == FEATURE_CACHE_ON;
		return (u8)s->features == FEATURE_CACHE_ON ? succeed(s) : flush(s);
	case FEATURE_XFER_MODE:
	case FEATURE_LOOK_AHEAD_ON:
	case FEATURE_LOOK_AHEAD_OFF:
		return succeed(s);
	}
	ahci_end(s, ATA_ERROR_ABRT);
}

static void set_multiple(struct ahci_slot *s)
{
	u8 n = (u8)s->count;
	if (n > MULTIPLE_MAX || (n & (n - 1)))
		return ahci_end(s, ATA_ERROR_ABRT);
	s->port->drive.multiple = n;
	succeed(s);
}

static void check_power(struct ahci_slot *s)
{
	s->port->registers.count = 0xff; /* active */
	succeed(s);
}

static void native_maximum(struct ahci_slot *s)
{
	bool ext = s->command == 0x27;
	u64 last = MIN(sectors(s->port), ext ? ~0ull : SECTORS_28 + 1) - 1;
	s->port->registers.lba = ext ? last : last & 0xffffff;
	s->port->registers.device = (u8)(ATA_DEVICE_LBA | (ext ? 0 : last >> 24));
	succeed(s);
}

/* EXECUTE DEVICE DIAGNOSTIC: the signature, with an error register that says that all is well. */
static void diagnose(struct ahci_slot *s)
{
	s->port->registers.lba = 0;
	s->port->registers.count = 1;
	succeed(s);
}

/* "Queued Error Log": what failed, once. */
static void put_queued_error(struct ahci_port *port, u8 *log)
{
	const struct ata_registers *r = &port->drive.failed;
	u8 sum = 0;
	log[0] = port->drive.failed_tag == ATA_NO_TAG ? 0x80 : port->drive.failed_tag;
	log[2] = r->status;
	log[3] = r->error;
	for (unsigned i = 0; i < 3; i++) {
		log[4 + i] = (u8)(r->lba >> (8 * i));
		log[8 + i] = (u8)(r->lba >> (24 + 8 * i));
	}
	log[7] = r->device;
	put_u16(log + 12, r->count);
	for (unsigned i = 0; i < LOG_SIZE - 1; i++)
		sum += log[i];
	log[LOG_SIZE - 1] = -sum;
	port->drive.failed_tag = ATA_NO_TAG;
}

static void read_log(struct ahci_slot *s)
{
	u8 log[LOG_SIZE] = { 0 }, page = (u8)s->lba;
	if (s->count != 1 || (page != LOG_DIRECTORY && page != LOG_QUEUED_ERROR))
		return ahci_end(s, ATA_ERROR_ABRT);
	if (page == LOG_QUEUED_ERROR) {
		put_queued_error(s->port, log);
	} else {
		put_u16(log, 1); /* version */
		put_u16(log + 2 * LOG_QUEUED_ERROR, 1); /* pages */
	}
	if (ahci_give(s, log, sizeof(log)))
		ahci_end(s, 0);
}

/* ---- the table ---- */

static const struct {
	u8 command;
	enum ata_protocol protocol;
	enum address address;
	bool writes;
	void (*execute)(struct ahci_slot *slot);
} commands[] = {
	{ 0x06, ATA_DMA, ADDRESS_NONE, true, trim },
	{ 0x10, ATA_NON_DATA, ADDRESS_NONE, false, succeed }, /* RECALIBRATE */
	{ 0x20, ATA_PIO_IN, ADDRESS_28, false, read },
	{ 0x21, ATA_PIO_IN, ADDRESS_28, false, read },
	{ 0x24, ATA_PIO_IN, ADDRESS_48, false, read },
	{ 0x25, ATA_DMA, ADDRESS_48, false, read },
	{ 0x27, ATA_NON_DATA, ADDRESS_NONE, false, native_maximum },
	{ 0x29, ATA_PIO_IN, ADDRESS_48, false, read },
	{ 0x2f, ATA_PIO_IN, ADDRESS_NONE, false, read_log },
	{ 0x30, ATA_PIO_OUT, ADDRESS_28, true, write },
	{ 0x31, ATA_PIO_OUT, ADDRESS_28, true, write },
	{ 0x34, ATA_PIO_OUT, ADDRESS_48, true, write },
	{ 0x35, ATA_DMA, ADDRESS_48, true, write },
	{ 0x39, ATA_PIO_OUT, ADDRESS_48, true, write },
	{ 0x3d, ATA_DMA, ADDRESS_48, true, write_fua },
	{ 0x40, ATA_NON_DATA, ADDRESS_28, false, succeed }, /* READ VERIFY SECTOR(S) */
	{ 0x41, ATA_NON_DATA, ADDRESS_28, false, succeed },
	{ 0x42, ATA_NON_DATA, ADDRESS_48, false, succeed },
	{ 0x60, ATA_QUEUED, ADDRESS_QUEUED, false, read },
	{ 0x61, ATA_QUEUED, ADDRESS_QUEUED, true, write_queued },
	{ 0x70, ATA_NON_DATA, ADDRESS_28, false, succeed }, /* SEEK */
	{ 0x90, ATA_NON_DATA, ADDRESS_NONE, false, diagnose },
	{ 0x91, ATA_NON_DATA, ADDRESS_NONE, false, succeed }, /* INITIALIZE DEVICE PARAMETERS */
	{ 0xc4, ATA_PIO_IN, ADDRESS_28, false, read },
	{ 0xc5, ATA_PIO_OUT, ADDRESS_28, true, write },
	{ 0xc6, ATA_NON_DATA, ADDRESS_NONE, false, set_multiple },
	{ 0xc8, ATA_DMA, ADDRESS_28, false, read },
	{ 0xc9, ATA_DMA, ADDRESS_28, false, read },
	{ 0xca, ATA_DMA, ADDRESS_28, true, write },
	{ 0xcb, ATA_DMA, ADDRESS_28, true, write },
	{ 0xce, ATA_PIO_OUT, ADDRESS_48, true, write_fua },
	{ 0xe0, ATA_NON_DATA, ADDRESS_NONE, false, flush }, /* STANDBY IMMEDIATE, as all that stop the disk */
	{ 0xe1, ATA_NON_DATA, ADDRESS_NONE, false, succeed },
	{ 0xe2, ATA_NON_DATA, ADDRESS_NONE, false, flush },
	{ 0xe3, ATA_NON_DATA, ADDRESS_NONE, false, succeed },
	{ 0xe5, ATA_NON_DATA, ADDRESS_NONE, false, check_power },
	{ 0xe6, ATA_NON_DATA, ADDRESS_NONE, false, flush },
	{ 0xe7, ATA_NON_DATA, ADDRESS_NONE, false, flush },
	{ 0xea, ATA_NON_DATA, ADDRESS_NONE, false, flush },
	{ 0xec, ATA_PIO_IN, ADDRESS_NONE, false, identify },
	{ 0xef, ATA_NON_DATA, ADDRESS_NONE, false, set_features },
	{ 0xf8, ATA_NON_DATA, ADDRESS_NONE, false, native_maximum },
};

bool ata_queues(u8 command)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (commands[i].command == command)
			return commands[i].protocol == ATA_QUEUED;
	return false;
}

void ata_execute(struct ahci_slot *slot)
{
	if (is_cdrom(slot->port))
		return atapi_execute(slot);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (commands[i].command != slot->command)
			continue;
		slot->protocol = commands[i].protocol;
		if (commands[i].writes && slot->port->backend.readonly)
			return ahci_end(slot, ATA_ERROR_ABRT);
		if (commands[i].address && !place(slot, commands[i].address))
			return ahci_end(slot, ATA_ERROR_IDNF);
		return commands[i].execute(slot);
	}
	ahci_end(slot, ATA_ERROR_ABRT);
}

void ata_reset(struct ahci_port *port, bool hard)
{
	struct ata_drive *d = &port->drive;
	d->resetting = false;
	d->failed_tag = ATA_NO_TAG;
	if (!hard)
		return;
	d->write_cache = true;
	d->multiple = MULTIPLE_MAX;
	d->attention = is_cdrom(port);
	d->tray_open = false;
	d->sense_key = d->sense_code = d->sense_qualifier = 0;
}
