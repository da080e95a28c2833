/* CD-ROM drives (ATA8-ACS, "PACKET feature set"; MMC-5; SPC-3): packets, and what they are answered. There is always a medium, unless the guest opens the
 * tray: then until it closes it, or a reset. Data is that of blocks of 2048 bytes; there is no audio. */
#include "dev/ahci_internal.h"

#include "lib/bytes.h"
#include "lib/string.h"

#define REASON_END 3 /* the count register: a status, to the host */
#define LEAD_OUT 0xaa
#define DATA_TRACK 0x14
#define CD_BLOCKS (80 * 60 * 75) /* what is longer is a DVD */
#define PROFILE_CD 0x0008
#define PROFILE_DVD 0x0010

enum { SENSE_NONE, SENSE_NOT_READY = 2, SENSE_MEDIUM_ERROR = 3, SENSE_ILLEGAL_REQUEST = 5, SENSE_UNIT_ATTENTION = 6 };
enum { CODE_BAD_COMMAND = 0x20, CODE_BAD_ADDRESS = 0x21, CODE_BAD_FIELD = 0x24, CODE_WAS_RESET = 0x29, CODE_NO_MEDIUM = 0x3a, CODE_READ_ERROR = 0x11 };

#define ANSWER_MAX 512

static void put_be16(u8 *p, u32 value)
{
	put_u16(p, __builtin_bswap16((u16)value));
}

static void put_be32(u8 *p, u32 value)
{
	put_u32(p, __builtin_bswap32(value));
}

static u32 be16(const u8 *p)
{
	return __builtin_bswap16(get_u16(p));
}

static u32 be32(const u8 *p)
{
	return __builtin_bswap32(get_u32(p));
}

static u32 blocks(const struct ahci_port *port)
{
	return (u32)MIN(port->backend.size / ATAPI_BLOCK, 0xffffffffull);
}

/* ---- the end of a packet ---- */

static u8 sense(struct ahci_port *port, u8 key, u8 code, u8 qualifier)
{
	port->drive.sense_key = key;
	port->drive.sense_code = code;
	port->drive.sense_qualifier = qualifier;
	return (u8)(key << 4 | ATA_ERROR_ABRT);
}

u8 atapi_fail_medium(struct ahci_port *port)
{
	return sense(port, SENSE_MEDIUM_ERROR, CODE_READ_ERROR, 0);
}

static void fail(struct ahci_slot *s, u8 key, u8 code)
{
	ahci_end(s, sense(s->port, key, code, 0));
}

static void bad_field(struct ahci_slot *s)
{
	fail(s, SENSE_ILLEGAL_REQUEST, CODE_BAD_FIELD);
}

static void succeed(struct ahci_slot *s)
{
	ahci_end(s, 0);
}

/* Of `size` bytes as many as the guest has room for. */
static void answer(struct ahci_slot *s, const u8 *data, u32 size, u32 room)
{
	if (ahci_give(s, data, MIN(size, room)))
		ahci_end(s, 0);
}

/* ---- what the drive is: SPC-3, MMC-5 ---- */

static void inquiry(struct ahci_slot *s)
{
	u8 data[36] = { 0x05, 0x80, 0x05, 0x32, sizeof(data) - 5 };
	if (s->packet[1] & 3) /* no pages of vital data */
		return bad_field(s);
	memcpy(data + 8, "nadir   CD-ROM          1.0 ", 28);
	answer(s, data, sizeof(data), be16(s->packet + 3));
}

static void request_sense(struct ahci_slot *s)
{
	struct ata_drive *d = &s->port->drive;
	u8 data[18] = { 0x70, 0, d->sense_key, [7] = 10, [12] = d->sense_code, d->sense_qualifier };
	sense(s->port, SENSE_NONE, 0, 0);
	answer(s, data, sizeof(data), s->packet[4]);
}

static void get_configuration(struct ahci_slot *s)
{
	u32 profile = s->port->drive.tray_open ? 0 : blocks(s->port) > CD_BLOCKS ? PROFILE_DVD : PROFILE_CD;
	u8 data[] = { 0, 0, 0, 0, 0, 0, 0, 0,
		      0, 0, 3, 8, 0, PROFILE_DVD, profile == PROFILE_DVD, 0, 0, PROFILE_CD, profile == PROFILE_CD, 0, /* profiles */
		      0, 1, 3, 4, 0, 0, 0, 7, /* core: Serial ATAPI */
		      0, 3, 3, 4, 0x29, 0, 0, 0, /* removable medium: tray, eject, lock */
		      0, 0x10, profile != 0, 8, 0, 0, ATAPI_BLOCK >> 8, 0, 0, 1, 0, 0, /* random readable */
		      0, 0x1e, profile == PROFILE_CD, 4, 0, 0, 0, 0, /* CD read */
		      0, 0x1f, profile == PROFILE_DVD, 4, 0, 0, 0, 0 /* DVD read */ };
	put_be32(data, sizeof(data) - 4);
	put_be16(data + 6, profile);
	answer(s, data, sizeof(data), be16(s->packet + 7));
}

/* Polled, for events of the medium. */
static void get_event(struct ahci_slot *s)
{
	u8 data[8] = { 0, 6, 4, 0x10, 0, s->port->drive.tray_open ? 1 : 2 };
	if (!(s->packet[1] & 1))
		return bad_field(s);
	bool wanted = s->packet[4] & 0x10;
	if (!wanted) {
		data[1] = 2;
		data[2] = 0x80; /* no event of a class that is there */
	}
	answer(s, data, wanted ? 8 : 4, be16(s->packet + 7));
}

/* Capabilities ("CD/DVD Capabilities and Mechanical Status") and error recovery, behind a header. */
static void mode_sense(struct ahci_slot *s)
{
	static const u8 recovery[] = { 0x01, 0x0a, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0 };
	static const u8 capabilities[] = { 0x2a, 0x12, 0x3f, 0, 0x71, 0x60, 0x29, 0, 0x02, 0xc2, 0, 2, 0x02, 0, 0x02, 0xc2, 0, 0, 0, 0 };
	bool ten = s->packet[0] == 0x5a;
	u8 data[8 + sizeof(recovery) + sizeof(capabilities)] = { 0 }, page = s->packet[2] & 0x3f;
	u32 size = ten ? 8 : 4;
	if (page != 0x01 && page != 0x2a && page != 0x3f)
		return bad_field(s);
	if (page != 0x2a) {
		memcpy(data + size, recovery, sizeof(recovery));
		size += sizeof(recovery);
	}
	if (page != 0x01) {
		memcpy(data + size, capabilities, sizeof(capabilities));
		size += sizeof(capabilities);
	}
	if (ten)
		put_be16(data, size - 2);
	else
		data[0] = (u8)(size - 1);
	answer(s, data, size, ten ? be16(s->packet + 7) : s->packet[4]);
}

static void mechanism_status(struct ahci_slot *s)
{
	u8 data[8] = { 0, s->port->drive.tray_open ? 0x10 : 0, 0, 0, 0, 1 };
	answer(s, data, sizeof(data), be16(s->packet + 8));
}

/* ---- the medium ---- */

static void read_capacity(struct ahci_slot *s)
{
	u8 data[8];
	put_be32(data, blocks(s->port) - 1);
	put_be32(data + 4, ATAPI_BLOCK);
	answer(s, data, sizeof(data), sizeof(data));
}

static void put_address(u8 *p, u32 block, bool msf)
{
	u32 frames = block + 150;
	put_be32(p, msf ? (frames / (60 * 75) & 0xff) << 16 | frames / 75 % 60 << 8 | frames % 75 : block);
}

/* One track: its beginning, and that of the lead-out (format 0), or the one session (format 1). */
static void read_toc(struct ahci_slot *s)
{
	bool msf = s->packet[1] & 2;
	u8 format = s->packet[2] & 0xf ? s->packet[2] & 0xf : s->packet[9] >> 6, track = s->packet[6];
	u8 data[20] = { 0, 0, 1, 1 };
	u32 size = 4;
	if (format > 1 || (!format && track > 1 && track != LEAD_OUT))
		return bad_field(s);
	if (format || track <= 1) {
		data[size + 1] = DATA_TRACK;
		data[size + 2] = 1;
		put_address(data + size + 4, 0, msf);
		size += 8;
	}
	if (!format) {
		data[size + 1] = DATA_TRACK;
		data[size + 2] = LEAD_OUT;
		put_address(data + size + 4, blocks(s->port), msf);
		size += 8;
	}
	put_be16(data, size - 2);
	answer(s, data, size, be16(s->packet + 7));
}

static void read_disc_information(struct ahci_slot *s)
{
	u8 data[34] = { 0, sizeof(data) - 2, 0x0e, 1, 1, 1, 1, 0x20 };
	answer(s, data, sizeof(data), be16(s->packet + 7));
}

static void read_blocks(struct ahci_slot *s, u32 block, u32 count)
{
	if (block > blocks(s->port) || count > blocks(s->port) - block)
		return fail(s, SENSE_ILLEGAL_REQUEST, CODE_BAD_ADDRESS);
	s->offset = (u64)block * ATAPI_BLOCK;
	s->left = (u64)count * ATAPI_BLOCK;
	ahci_transfer(s, BLOCK_READ, false);
}

static void read_10(struct ahci_slot *s)
{
	read_blocks(s, be32(s->packet + 2), be16(s->packet + 7));
}

static void read_12(struct ahci_slot *s)
{
	read_blocks(s, be32(s->packet + 2), be32(s->packet + 6));
}

/* READ CD: of user data, which is all there is of a sector of mode 1. */
static void read_cd(struct ahci_slot *s)
{
	u8 type = s->packet[1] >> 2 & 7, parts = s->packet[9] & 0xf8;
	u32 count = be32(s->packet + 5) & 0xffffff;
	if (!parts)
		count = 0;
	else if (parts != 0x10 || type == 1)
		return fail(s, SENSE_ILLEGAL_REQUEST, CODE_BAD_FIELD);
	read_blocks(s, be32(s->packet + 2), count);
}

static void seek(struct ahci_slot *s)
{
	read_blocks(s, be32(s->packet + 2), 0);
}

static void start_stop(struct ahci_slot *s)
{
	if (s->packet[4] & 2) /* LOEJ: load or eject */
		s->port->drive.tray_open = !(s->packet[4] & 1);
	succeed(s);
}

/* ---- the table ---- */

#define NEEDS_MEDIUM BIT(0)
#define WITH_ATTENTION BIT(1) /* is done even if there is something to tell */

static const struct {
	u8 code;
	u8 flags;
	void (*execute)(struct ahci_slot *slot);
} packets[] = {
	{ 0x00, NEEDS_MEDIUM, succeed }, /* TEST UNIT READY */
	{ 0x03, WITH_ATTENTION, request_sense },
	{ 0x12, WITH_ATTENTION, inquiry },
	{ 0x1a, 0, mode_sense },
	{ 0x1b, 0, start_stop },
	{ 0x1e, 0, succeed }, /* PREVENT ALLOW MEDIUM REMOVAL: nobody pushes the button */
	{ 0x25, NEEDS_MEDIUM, read_capacity },
	{ 0x28, NEEDS_MEDIUM, read_10 },
	{ 0x2b, NEEDS_MEDIUM, seek },
	{ 0x35, 0, succeed }, /* SYNCHRONIZE CACHE */
	{ 0x43, NEEDS_MEDIUM, read_toc },
	{ 0x46, WITH_ATTENTION, get_configuration },
	{ 0x4a, WITH_ATTENTION, get_event },
	{ 0x51, NEEDS_MEDIUM, read_disc_information },
	{ 0x5a, 0, mode_sense },
	{ 0xa8, NEEDS_MEDIUM, read_12 },
	{ 0xbb, 0, succeed }, /* SET CD SPEED */
	{ 0xbd, 0, mechanism_status },
	{ 0xbe, NEEDS_MEDIUM, read_cd },
};

static void execute_packet(struct ahci_slot *s)
{
	struct ata_drive *d = &s->port->drive;
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++) {
		if (packets[i].code != s->packet[0])
			continue;
		if (d->attention && !(packets[i].flags & WITH_ATTENTION)) {
			d->attention = false;
			return fail(s, SENSE_UNIT_ATTENTION, CODE_WAS_RESET);
		}
		if (d->tray_open && (packets[i].flags & NEEDS_MEDIUM))
			return ahci_end(s, sense(s->port, SENSE_NOT_READY, CODE_NO_MEDIUM, 2));
		if (packets[i].execute != request_sense)
			sense(s->port, SENSE_NONE, 0, 0);
		return packets[i].execute(s);
	}
	fail(s, SENSE_ILLEGAL_REQUEST, CODE_BAD_COMMAND);
}

/* ---- commands that are not packets ---- */

/* IDENTIFY PACKET DEVICE */
static void identify(struct ahci_slot *s)
{
	u16 word[256] = {
		[0] = 0x85c0, /* a CD-ROM drive, removable, packets of 12 bytes */
		[49] = 0x0b00,
		[53] = 0x0006,
		[63] = 0x0007,
		[64] = 0x0003,
		[65] = 120,
		[66] = 120,
		[67] = 120,
		[68] = 120,
		[76] = 0x000e,
		[80] = 0x01f0,
		[82] = 0x0210, /* packets, DEVICE RESET */
		[83] = 0x4000,
		[84] = 0x4000,
		[85] = 0x0210,
		[87] = 0x4000,
		[88] = 0x203f,
		[222] = 0x1020,
	};
	const char serial[] = { 'n', 'a', 'd', 'i', 'r', '-', 'c', 'd', 'r', 'o', 'm', (char)('0' + s->port->index), 0 };
	ata_string(word + 10, serial, 10);
	ata_string(word + 23, "1.0", 4);
	ata_string(word + 27, "nadir CD-ROM", 20);
	s->protocol = ATA_PIO_IN;
	if (ahci_give(s, word, sizeof(word)))
		ahci_end(s, 0);
}

/* DEVICE RESET, and the commands of disks that answer with a signature to say that this is none ("Device signatures"). */
static void show_signature(struct ahci_slot *s, u8 error)
{
	s->port->registers.lba = s->port->sig >> 8;
	s->port->registers.count = 1;
	ahci_end(s, error);
}

void atapi_execute(struct ahci_slot *slot)
{
	switch (slot->command) {
	case 0xa0:
		slot->protocol = ATA_PACKET;
		slot->port->registers.count = REASON_END;
		return execute_packet(slot);
	case 0xa1:
		return identify(slot);
	case 0x08:
	case 0x90:
		return show_signature(slot, 0);
	case 0xe0: /* STANDBY IMMEDIATE and so on */
	case 0xe1:
	case 0xe6:
	case 0xe7:
	case 0xef: /* SET FEATURES: modes of transfer */
		return ahci_end(slot, 0);
	}
	show_signature(slot, ATA_ERROR_ABRT);
}
