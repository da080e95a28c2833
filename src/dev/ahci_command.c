/* Command lists of the AHCI controller: a command from its slot to its end, the bytes it moves, and the FISes that the drive sends. Serial ATA AHCI
 * 1.3.1 Specification, "System Memory Structures", "Port State Machine"; Serial ATA Specification, "FIS types".
 *
 * All of it is hostile: each structure is copied from guest memory once, and then checked. */
#include "dev/ahci_internal.h"

#include "lib/bytes.h"
#include "lib/string.h"

enum { FIS_HOST_TO_DEVICE = 0x27, FIS_DEVICE_TO_HOST = 0x34, FIS_PIO_SETUP = 0x5f, FIS_SET_DEVICE_BITS = 0xa1 };
#define FIS_COMMAND 0x80 /* a command, not the control register */
#define FIS_INTERRUPT 0x40
#define FIS_TO_HOST 0x20 /* of data */
#define CONTROL_SRST BIT(2)

/* Where the HBA puts what it receives. */
#define RECEIVED_PIO_SETUP 0x20
#define RECEIVED_REGISTERS 0x40
#define RECEIVED_DEVICE_BITS 0x58

#define HEADER_SIZE 32
#define HEADER_WRITE BIT(6)
#define HEADER_PRDBC 4
#define TABLE_PACKET 0x40
#define TABLE_PRDT 0x80
#define TABLE_ALIGN 0x7fu
#define PRD_SIZE 16
#define PRD_BYTES 0x3fffffu

#define SIGNATURE_DISK 0x00000101u
#define SIGNATURE_ATAPI 0xeb140101u

/* ---- FISes from the drive ---- */

static void receive(struct ahci_port *port, unsigned where, const u8 *fis, u32 size)
{
	if (port->cmd & PXCMD_FRE)
		ram_write(port->hba->ram, port->fb + where, fis, size); /* into nowhere, if the driver wants it so */
}

static void put_registers(u8 *fis, u8 type, u8 flags, const struct ata_registers *r)
{
	fis[0] = type;
	fis[1] = flags;
	fis[2] = r->status;
	fis[3] = r->error;
	for (unsigned i = 0; i < 3; i++) {
		fis[4 + i] = (u8)(r->lba >> (8 * i));
		fis[8 + i] = (u8)(r->lba >> (24 + 8 * i));
	}
	fis[7] = r->device;
	put_u16(fis + 12, r->count);
}

static void send_registers(struct ahci_port *port, bool interrupt)
{
	u8 fis[20] = { 0 };
	put_registers(fis, FIS_DEVICE_TO_HOST, interrupt ? FIS_INTERRUPT : 0, &port->registers);
	receive(port, RECEIVED_REGISTERS, fis, sizeof(fis));
	u32 bits = interrupt ? PXIS_DHRS : 0;
	ahci_event(port, bits | (port->registers.status & ATA_ERR ? PXIS_TFES : 0));
}

static void send_pio_setup(struct ahci_port *port, u32 bytes)
{
	u8 fis[20] = { 0 };
	put_registers(fis, FIS_PIO_SETUP, FIS_INTERRUPT | FIS_TO_HOST, &port->registers);
	fis[15] = port->registers.status;
	put_u16(fis + 16, (u16)bytes);
	receive(port, RECEIVED_PIO_SETUP, fis, sizeof(fis));
	ahci_event(port, PXIS_PSS);
}

/* "Set Device Bits": queued commands are complete, or one has failed. */
static void send_device_bits(struct ahci_port *port, u32 complete)
{
	u8 fis[8] = { FIS_SET_DEVICE_BITS, FIS_INTERRUPT, port->registers.status & 0x77, port->registers.error };
	put_u32(fis + 4, complete);
	receive(port, RECEIVED_DEVICE_BITS, fis, sizeof(fis));
	port->sact &= ~complete;
	ahci_event(port, PXIS_SDBS | (port->registers.status & ATA_ERR ? PXIS_TFES : 0));
}

void ahci_tell_signature(struct ahci_port *port)
{
	port->sig = is_cdrom(port) ? SIGNATURE_ATAPI : SIGNATURE_DISK;
	port->registers = (struct ata_registers){
		.status = is_cdrom(port) ? 0 : ATA_GOOD,
		.error = 1, /* diagnostics passed */
		.count = 1,
		.lba = port->sig >> 8,
	};
	port->untold = !(port->cmd & PXCMD_FRE);
	if (!port->untold)
		send_registers(port, false);
}

/* ---- scatter lists ---- */

/* What "fatal" errors have in common: nothing goes on before the driver has stopped the port. */
static void halt(struct ahci_port *port, u32 why)
{
	port->halted = true;
	ahci_event(port, why);
}

static u8 *reach(struct ram *ram, gpa_t gpa, u64 size, bool write)
{
	const struct ram_slot *slot = ram_find(ram, gpa);
	return slot && !(write && slot->readonly) ? ram_pointer(ram, gpa, size) : NULL;
}

enum found { FOUND_PIECE, FOUND_END, FOUND_NOTHING };

/* The next piece of memory, of `most` bytes at most. */
static enum found next_piece(struct ahci_slot *s, struct virtq_piece *piece, u64 most)
{
	u8 prd[PRD_SIZE];
	for (; s->prd < s->prds; s->prd++, s->prd_offset = 0) {
		if (!ram_read(s->port->hba->ram, s->prdt + (u64)s->prd * PRD_SIZE, prd, sizeof(prd)))
			return FOUND_NOTHING;
		u32 size = (get_u32(prd + 12) & PRD_BYTES) + 1;
		if (s->prd_offset >= size)
			continue;
		piece->gpa = (get_u64(prd) & ~1ull) + s->prd_offset;
		piece->size = (u32)MIN(size - s->prd_offset, most);
		piece->data = reach(s->port->hba->ram, piece->gpa, piece->size, s->writable);
		s->prd_offset += piece->size;
		return piece->data ? FOUND_PIECE : FOUND_NOTHING;
	}
	return FOUND_END;
}

/* From `from` to the scatter list, or, if that is NULL, from there to `to`. */
static bool copy(struct ahci_slot *s, const u8 *from, u8 *to, u32 size, u32 *done)
{
	struct virtq_piece piece;
	enum found found = FOUND_PIECE;
	s->writable = from != NULL;
	for (*done = 0; *done < size; *done += piece.size) {
		found = next_piece(s, &piece, size - *done);
		if (found != FOUND_PIECE)
			break;
		if (from) {
			memcpy(piece.data, from + *done, piece.size);
			ram_written(s->port->hba->ram, piece.gpa, piece.size);
		} else {
			memcpy(to + *done, piece.data, piece.size);
		}
	}
	s->moved += *done;
	if (found == FOUND_NOTHING)
		halt(s->port, PXIS_HBFS);
	return found != FOUND_NOTHING;
}

bool ahci_give(struct ahci_slot *slot, const void *data, u32 size)
{
	u32 done;
	return copy(slot, data, NULL, size, &done);
}

bool ahci_take(struct ahci_slot *slot, void *data, u32 size, u32 *taken)
{
	return copy(slot, NULL, data, size, taken);
}

/* The next pieces, of whole sectors. What is left of a sector is left in the list. */
static enum found gather(struct ahci_slot *s)
{
	struct block_request *r = &s->request;
	u64 total = 0, wanted = MIN(s->left, BLOCK_SIZE_MAX);
	u32 first = 0, first_offset = 0;
	enum found found = FOUND_PIECE;
	r->piece = s->piece;
	for (r->pieces = 0; total < wanted && r->pieces < VIRTQ_PIECES_MAX; r->pieces++) {
		struct virtq_piece *p = &s->piece[r->pieces];
		found = next_piece(s, p, wanted - total);
		if (found != FOUND_PIECE)
			break;
		total += p->size;
		if (!r->pieces) {
			first = s->prd;
			first_offset = s->prd_offset - p->size;
		}
	}
	for (u32 rest = total % BLOCK_SECTOR, n; rest; rest -= n) {
		struct virtq_piece *p = &s->piece[r->pieces - 1];
		n = MIN(rest, p->size);
		p->size -= n;
		r->pieces -= !p->size;
		s->prd = first + (r->pieces ? r->pieces - 1 : 0);
		s->prd_offset = (r->pieces > 1 ? 0 : first_offset) + (r->pieces ? s->piece[r->pieces - 1].size : 0);
	}
	r->size = total - total % BLOCK_SECTOR;
	return r->size ? FOUND_PIECE : found == FOUND_PIECE ? FOUND_END : found;
}

/* ---- transfers ---- */

static void tell_touched(const struct ahci_slot *s)
{
	for (unsigned i = 0; s->request.kind == BLOCK_READ && i < s->request.pieces; i++)
		ram_written(s->port->hba->ram, s->piece[i].gpa, s->piece[i].size);
}

/* Make the next request. False: there is none; then the command has ended. */
static bool prepare(struct ahci_slot *s)
{
	struct block_request *r = &s->request;
	if (r->kind == BLOCK_DISCARD) {
		if (!s->ranges)
			return false;
		u64 range = s->range[--s->ranges];
		r->offset = (range & (BIT(48) - 1)) * BLOCK_SECTOR;
		r->size = (range >> 48) * BLOCK_SECTOR;
		return true;
	}
	if (!s->left)
		return false;
	if (r->kind == BLOCK_FLUSH) {
		s->left = 0;
		return true;
	}
	enum found found = gather(s);
	r->offset = s->offset;
	if (found == FOUND_NOTHING)
		halt(s->port, PXIS_HBFS);
	else if (found == FOUND_END)
		halt(s->port, PXIS_OFS | PXIS_IFS);
	return found == FOUND_PIECE;
}

/* A request is complete. False: it failed, and the command with it. */
static bool carried_out(struct ahci_slot *s)
{
	const struct block_request *r = &s->request;
	tell_touched(s);
	if (r->error) {
		ahci_end(s, is_cdrom(s->port) ? atapi_fail_medium(s->port) : r->kind > BLOCK_WRITE ? ATA_ERROR_ABRT : ATA_ERROR_UNC);
		return false;
	}
	if (r->kind <= BLOCK_WRITE) {
		s->offset += r->size;
		s->left -= r->size;
		s->moved += (u32)r->size;
	}
	return true;
}

/* Go on until a request waits for the disk, or the command has ended. */
static void go_on(struct ahci_slot *s)
{
	struct ahci_port *port = s->port;
	while (prepare(s)) {
		struct block_request *r = &s->request;
		port->count[r->kind].requests++;
		port->count[r->kind].bytes += r->size;
		r->error = 0;
		if (!port->backend.submit(port->backend.disk, r)) {
			port->submitted++;
			return;
		}
		if (!carried_out(s))
			return;
	}
	if (!port->halted)
		ahci_end(s, 0);
}

void ahci_transfer(struct ahci_slot *slot, enum block_kind kind, bool durable)
{
	slot->request = (struct block_request){ .kind = kind, .durable = durable };
	slot->writable = kind == BLOCK_READ;
	go_on(slot);
}

/* Those that complete after another has failed do not count any more. */
void ahci_completed(struct ahci_port *port)
{
	struct block_request *done;
	while ((done = port->backend.completed(port->backend.disk))) {
		struct ahci_slot *s = container_of(done, struct ahci_slot, request);
		port->submitted--;
		if (port->halted)
			tell_touched(s);
		else if (carried_out(s))
			go_on(s);
	}
	ahci_work(port);
}

void ahci_abandon(struct ahci_port *port)
{
	struct block_request *done;
	if (port->submitted)
		port->backend.drain(port->backend.disk);
	while (port->submitted && (done = port->backend.completed(port->backend.disk))) {
		tell_touched(container_of(done, struct ahci_slot, request));
		port->submitted--;
	}
	port->running = port->ci = port->sact = 0;
	port->halted = false;
	port->registers.status &= ~ATA_BSY;
}

/* ---- commands ---- */

/* "Native Queued Commands": the log of errors tells the rest. */
static void end_queued(struct ahci_slot *s, u8 error)
{
	struct ahci_port *port = s->port;
	if (!error) {
		port->registers.status = ATA_GOOD;
		port->registers.error = 0;
		return send_device_bits(port, (u32)BIT(s->number));
	}
	port->registers = (struct ata_registers){ .status = ATA_GOOD | ATA_ERR, .error = error, .device = s->device };
	port->drive.failed_tag = (u8)s->number;
	port->drive.failed = port->registers;
	port->drive.failed.lba = s->lba;
	port->drive.failed.count = s->count;
	port->halted = true;
	send_device_bits(port, 0);
}

void ahci_end(struct ahci_slot *slot, u8 error)
{
	struct ahci_port *port = slot->port;
	u8 moved[4];
	port->running &= ~(u32)BIT(slot->number);
	if (slot->protocol == ATA_QUEUED)
		return end_queued(slot, error);
	put_u32(moved, slot->moved);
	ram_write(port->hba->ram, slot->header + HEADER_PRDBC, moved, sizeof(moved));
	port->registers.status = ATA_GOOD | (error ? ATA_ERR : 0);
	port->registers.error = error;
	port->halted |= error != 0;
	if (error)
		return send_registers(port, true); /* PxCI and PxCMD.CCS tell which it was */
	port->ci &= ~(u32)BIT(slot->number);
	if (slot->protocol == ATA_PIO_IN)
		send_pio_setup(port, slot->moved);
	else
		send_registers(port, true);
}

/* The control register: SRST set and cleared again is a reset of the drive ("Software Reset"). */
static void control(struct ahci_port *port, unsigned number, u8 value)
{
	port->ci &= ~(u32)BIT(number);
	if (value & CONTROL_SRST) {
		port->drive.resetting = true;
	} else if (port->drive.resetting) {
		ata_reset(port, false);
		ahci_tell_signature(port);
	}
}

static void parse(struct ahci_slot *s, const u8 *fis)
{
	s->command = fis[2];
	s->features = (u16)(fis[3] | fis[11] << 8);
	s->lba = fis[4] | (u64)fis[5] << 8 | (u64)fis[6] << 16 | (u64)fis[8] << 24 | (u64)fis[9] << 32 | (u64)fis[10] << 40;
	s->device = fis[7];
	s->count = get_u16(fis + 12);
}

/* Fetch the command. False: a bad pointer, which has halted the port. */
static bool fetch(struct ahci_slot *s, u8 *fis, u32 size)
{
	struct ram *ram = s->port->hba->ram;
	u8 header[16];
	s->header = s->port->clb + s->number * HEADER_SIZE;
	if (ram_read(ram, s->header, header, sizeof(header))) {
		gpa_t table = get_u64(header + 8) & ~(u64)TABLE_ALIGN;
		s->prdt = table + TABLE_PRDT;
		s->prds = get_u16(header + 2);
		if (ram_read(ram, table, fis, size) && ram_read(ram, table + TABLE_PACKET, s->packet, sizeof(s->packet)))
			return true;
	}
	halt(s->port, PXIS_HBFS);
	return false;
}

/* Begin the command of this slot. False: it has to wait. */
static bool begin(struct ahci_port *port, unsigned number)
{
	struct ahci_slot *s = &port->slot[number];
	u8 fis[20];
	*s = (struct ahci_slot){ .port = port, .number = number };
	if (!fetch(s, fis, sizeof(fis)))
		return false;
	parse(s, fis);
	bool is_command = fis[1] & FIS_COMMAND;
	bool queues = is_command && !is_cdrom(port) && ata_queues(s->command);
	if (port->running && !(port->queued && queues))
		return false;
	port->last = (u8)number;
	port->cmd = (port->cmd & ~(u32)PXCMD_CCS) | number << PXCMD_CCS_SHIFT;
	if (fis[0] != FIS_HOST_TO_DEVICE) {
		halt(port, PXIS_IFS);
		return false;
	}
	if (!is_command) {
		control(port, number, fis[15]);
		return true;
	}
	port->queued = queues;
	port->running |= (u32)BIT(number);
	if (queues)
		port->ci &= ~(u32)BIT(number);
	port->registers = (struct ata_registers){ .status = queues ? ATA_GOOD : ATA_BSY, .device = s->device, .lba = s->lba, .count = s->count };
	ata_execute(s);
	return true;
}

/* The next slot in turn. */
static unsigned next(const struct ahci_port *port, u32 waiting)
{
	for (unsigned i = 1; i <= AHCI_SLOTS; i++) {
		unsigned number = (port->last + i) % AHCI_SLOTS;
		if (waiting & BIT(number))
			return number;
	}
	return 0;
}

void ahci_work(struct ahci_port *port)
{
	u32 waiting;
	while ((port->cmd & PXCMD_ST) && !port->halted && (waiting = port->ci & ~port->running))
		if ((port->running && !port->queued) || !begin(port, next(port, waiting)))
			return;
}
