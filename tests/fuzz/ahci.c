/* The AHCI controller with a disk and a CD-ROM drive, whose driver does anything: registers in any order, command lists, tables, scatter lists and
 * packets with any contents. */
#include "dev/ahci_internal.h"
#include "dev/map.h"
#include "host/port.h"
#include "input.h"
#include "lib/bytes.h"
#include "lib/string.h"

#define RAM_SIZE 0x8000ull
#define ROM 0x10000ull
#define ABAR 0xc0000000ull
#define DISK_SIZE 0x10000ull
#define LIST 0x0000ull
#define RECEIVED 0x0400ull
#define TABLES 0x1000ull /* 0x100 for each of eight slots */

static struct machine {
	struct bus io, memory;
	struct pci_host pci;
	struct ahci ahci;
	struct drive {
		struct block_request *waiting[AHCI_SLOTS], *done;
		unsigned waits;
	} drive[2];
	u32 pattern;
} machine;
static struct ram ram;
static u8 *bytes, *rom;

static void message(void *opaque, const struct msi_message *sent)
{
}

static void check_request(const struct block_request *r)
{
	u64 total = 0;
	CHECK(r->offset <= DISK_SIZE && r->size <= DISK_SIZE - r->offset && r->size % BLOCK_SECTOR == 0);
	CHECK(r->pieces <= VIRTQ_PIECES_MAX);
	for (unsigned i = 0; i < r->pieces; i++) {
		const struct virtq_piece *p = &r->piece[i];
		bool in_rom = p->data >= rom && p->data + p->size <= rom + PAGE_SIZE;
		CHECK((p->data >= bytes && p->data + p->size <= bytes + RAM_SIZE) || (r->kind == BLOCK_WRITE && in_rom));
		if (r->kind == BLOCK_READ)
			memset(p->data, 0x33, p->size);
		total += p->size;
	}
	CHECK(r->kind > BLOCK_WRITE || total == r->size);
}

static bool submit(void *disk, struct block_request *request)
{
	struct drive *d = disk;
	check_request(request);
	machine.pattern = machine.pattern * 1103515245 + 12345;
	request->error = machine.pattern >> 28 ? 0 : -5;
	if (machine.pattern & 0x10000)
		return true;
	CHECK(d->waits < AHCI_SLOTS);
	d->waiting[d->waits++] = request;
	return false;
}

static struct block_request *completed(void *disk)
{
	struct drive *d = disk;
	struct block_request *r = d->done;
	if (r)
		d->done = r->next;
	return r;
}

static void complete(struct drive *d, unsigned which, int error)
{
	struct block_request *r = d->waiting[which];
	d->waiting[which] = d->waiting[--d->waits];
	check_request(r);
	r->error = error;
	r->next = d->done;
	d->done = r;
}

static void drain(void *disk)
{
	struct drive *d = disk;
	while (d->waits)
		complete(d, 0, -1);
}

static void set(u64 offset, u32 value)
{
	bus_write(&machine.memory, ABAR + offset, 4, value, 0);
}

/* A driver that does everything right. */
static void start(unsigned port)
{
	u64 at = 0x100 + 0x80 * port;
	set(at + 0x18, 0);
	set(at + 0x00, LIST);
	set(at + 0x08, RECEIVED);
	set(at + 0x18, PXCMD_FRE);
	set(at + 0x18, PXCMD_FRE | PXCMD_ST);
}

/* A command that is mostly sensible. */
static void put_command(struct input *in)
{
	static const u8 codes[] = { 0x25, 0x35, 0x60, 0x61, 0xa0, 0xa0, 0x06, 0x2f, 0xec, 0xc8, 0xca, 0xea, 0x24, 0xef, 0xa1, 0x30 };
	static const u8 packets[] = { 0x28, 0xa8, 0xbe, 0x43, 0x5a, 0x46, 0x4a, 0x12, 0x03, 0x1b, 0x25, 0x51, 0x1a, 0xbd, 0x00, 0x2b };
	u8 which = input_u8(in), what = input_u8(in);
	u8 *header = bytes + LIST + 32 * (which & 7), *table = bytes + TABLES + 0x100 * (which & 7);
	put_u32(header, 5 | (u32)(input_u8(in) % 9) << 16);
	put_u64(header + 8, TABLES + 0x100 * (which & 7));
	memset(table, 0, 0x80);
	table[0] = 0x27;
	table[1] = which & 0x80 ? 0 : 0x80;
	table[2] = what & 0x80 ? input_u8(in) : codes[what % 16];
	table[3] = input_u8(in);
	table[4] = input_u8(in);
	table[7] = 0x40;
	table[12] = input_u8(in);
	table[15] = which & 0x40 ? 4 : 0;
	table[0x40] = what & 0x40 ? input_u8(in) : packets[(what >> 2) % 16];
	for (unsigned i = 1; i < 10; i++)
		table[0x40 + i] = which & 0x20 ? input_u8(in) : i == 8 ? input_u8(in) : 0;
	for (unsigned i = 0; i < 8; i++) {
		put_u64(table + 0x80 + 16 * i, input_take(in, 2) % (ROM + 0x1800));
		put_u32(table + 0x8c + 16 * i, (u32)input_take(in, 2) & 0xfff);
	}
}

static void step(struct input *in)
{
	u8 op = input_u8(in);
	struct drive *d = &machine.drive[op >> 7];
	switch (op % 9) {
	case 0:
		start(op >> 7);
		break;
	case 1:
	case 2:
		put_command(in);
		break;
	case 3: /* issue */
		set(0x134 + 0x80 * (op >> 7), input_u8(in));
		set(0x138 + 0x80 * (op >> 7), input_u8(in));
		break;
	case 4:
		bytes[input_take(in, 2) % RAM_SIZE] = input_u8(in);
		break;
	case 5:
		set((input_take(in, 2) % 0x240) & ~3u, input_u32(in));
		break;
	case 6:
		bus_read(&machine.memory, ABAR + input_take(in, 2) % 0x1000, input_size(in), 0);
		break;
	case 7:
		bus_write(&machine.memory, MAP_ECAM + (0xfa << 12) + 0x40 + input_u8(in), 2, input_take(in, 2), 0);
		break;
	default:
		if (d->waits) {
			u8 which = input_u8(in);
			complete(d, which % d->waits, which & 0x80 ? -5 : 0);
			ahci_completed(&machine.ahci.port[op >> 7]);
		}
	}
}

static void create_memory(void)
{
	bytes = host_ram_create(RAM_SIZE);
	rom = host_ram_create(PAGE_SIZE);
	CHECK(bytes && rom && !ram_add(&ram, 0, RAM_SIZE, bytes, false) && !ram_add(&ram, ROM, PAGE_SIZE, rom, true));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };
	if (!bytes)
		create_memory();
	memset(bytes, 0, RAM_SIZE);
	memset(&machine, 0, sizeof(machine));
	machine.pci.message = message;
	CHECK(!pci_attach(&machine.pci, &machine.io, &machine.memory));
	u8 kind = input_u8(&in);
	for (unsigned i = 0; i < 2; i++) {
		const struct block_backend backend = { .submit = submit, .completed = completed, .drain = drain, .disk = &machine.drive[i], .size = DISK_SIZE,
						       .bus = i ? BLOCK_CDROM : BLOCK_SATA, .readonly = i || (kind & 1) };
		CHECK(ahci_add(&machine.ahci, &backend));
	}
	machine.pattern = kind;
	CHECK(!ahci_attach(&machine.ahci, &machine.pci, &ram));
	bus_write(&machine.memory, MAP_ECAM + (0xfa << 12) + PCI_BAR0 + 20, 4, ABAR, 0);
	bus_write(&machine.memory, MAP_ECAM + (0xfa << 12) + PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
	while (in.left)
		step(&in);
	ahci_reset(&machine.ahci);
	CHECK(!machine.drive[0].waits && !machine.drive[1].waits && !ahci_busy(&machine.ahci));
	ahci_destroy(&machine.ahci);
	for (unsigned i = 0; i < PAGE_SIZE; i++)
		CHECK(!rom[i]);
	return 0;
}
