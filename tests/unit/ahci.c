/* The AHCI controller with drives whose disk completes when the test says so: command lists as a driver makes them, and as none should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/ahci_internal.h"
#include "dev/map.h"
#include "fake_host.h"
#include "host/port.h"
#include "lib/bytes.h"

#define RAM_SIZE 0x100000ull
#define DISK_SIZE 0x100000ull
#define ABAR 0xc0000000ull
#define LIST 0x1000ull
#define RECEIVED 0x2000ull
#define TABLES 0x8000ull /* 0x400 for each slot */
#define DATA 0x40000ull

enum { CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c };
enum { CLB = 0x00, FB = 0x08, PXIS = 0x10, IE = 0x14, CMD = 0x18, TFD = 0x20, SIG = 0x24, SSTS = 0x28, SCTL = 0x2c, SERR = 0x30, SACT = 0x34, CI = 0x38 };
enum { DISK, CDROM };

struct machine {
	struct bus io, memory;
	struct pci_host pci;
	struct ram ram;
	struct ahci ahci;
	u8 *bytes, disk[DISK_SIZE];
	struct block_request *waiting[AHCI_SLOTS], *done;
	unsigned waits, messages, requests;
	bool at_once, fail;
	struct block_request last;
};

/* ---- the disk: of both drives ---- */

static void move(struct machine *m, const struct block_request *r)
{
	u8 *at = m->disk + r->offset;
	for (unsigned i = 0; r->kind <= BLOCK_WRITE && i < r->pieces; at += r->piece[i].size, i++)
		if (r->kind == BLOCK_READ)
			memcpy(r->piece[i].data, at, r->piece[i].size);
		else
			memcpy(at, r->piece[i].data, r->piece[i].size);
}

static bool submit(void *disk, struct block_request *request)
{
	struct machine *m = disk;
	m->last = *request;
	m->requests++;
	if (!m->at_once) {
		m->waiting[m->waits++] = request;
		return false;
	}
	move(m, request);
	request->error = m->fail ? -5 : 0;
	return true;
}

static struct block_request *completed(void *disk)
{
	struct machine *m = disk;
	struct block_request *r = m->done;
	if (r)
		m->done = r->next;
	return r;
}

static void finish(struct machine *m, unsigned which, int error)
{
	struct block_request *r = m->waiting[which];
	m->waiting[which] = m->waiting[--m->waits];
	move(m, r);
	r->error = error;
	r->next = m->done;
	m->done = r;
}

static void drain(void *disk)
{
	struct machine *m = disk;
	while (m->waits)
		finish(m, 0, -1);
}

static void message(void *opaque, const struct msi_message *sent)
{
	((struct machine *)opaque)->messages++;
}

/* ---- the driver ---- */

static u32 get(struct machine *m, u64 offset)
{
	return (u32)bus_read(&m->memory, ABAR + offset, 4, 0);
}

static void set(struct machine *m, u64 offset, u32 value)
{
	bus_write(&m->memory, ABAR + offset, 4, value, 0);
}

static u64 port(unsigned index, u64 offset)
{
	return 0x100 + 0x80 * index + offset;
}

static void start(struct machine *m, unsigned index)
{
	set(m, port(index, CLB), LIST);
	set(m, port(index, FB), RECEIVED);
	set(m, port(index, CMD), PXCMD_FRE | PXCMD_SUD | PXCMD_POD);
	set(m, port(index, CMD), PXCMD_FRE | PXCMD_SUD | PXCMD_POD | PXCMD_ST);
	set(m, port(index, SERR), ~0u);
	set(m, port(index, PXIS), ~0u);
	set(m, port(index, IE), ~0u);
	set(m, GHC, 2);
}

static void config(struct machine *m, unsigned offset, unsigned size, u32 value)
{
	pci_config_write(&m->ahci.pci, offset, size, value, 0);
}

static int setup(void **state)
{
	struct machine *m = host_alloc(sizeof(*m));
	struct block_backend backend = { .submit = submit, .completed = completed, .drain = drain, .disk = m, .size = DISK_SIZE, .bus = BLOCK_SATA,
					 .serial = "twenty characters, o" };
	m->bytes = host_ram_create(RAM_SIZE);
	m->at_once = true;
	m->pci.message = message;
	m->pci.opaque = m;
	for (unsigned i = 0; i < DISK_SIZE; i++)
		m->disk[i] = (u8)(i / 512 * 7 + i);
	assert_int_equal(ram_add(&m->ram, 0, RAM_SIZE, m->bytes, false), 0);
	assert_int_equal(pci_attach(&m->pci, &m->io, &m->memory), 0);
	assert_non_null(ahci_add(&m->ahci, &backend));
	backend.bus = BLOCK_CDROM;
	assert_non_null(ahci_add(&m->ahci, &backend));
	assert_int_equal(ahci_attach(&m->ahci, &m->pci, &m->ram), 0);
	config(m, PCI_BAR0 + 20, 4, ABAR);
	config(m, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	start(m, DISK);
	start(m, CDROM);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;
	ahci_destroy(&m->ahci);
	ram_release(&m->ram);
	host_ram_destroy(m->bytes, RAM_SIZE);
	host_free(m);
	return 0;
}

struct command {
	u8 code, device;
	u16 features, count;
	u64 lba;
	const u8 *packet;
};

static u8 *table(struct machine *m, unsigned slot)
{
	return m->bytes + TABLES + slot * 0x400;
}

/* A command with one piece of memory, not issued yet. */
static void prepare(struct machine *m, unsigned slot, struct command c, u32 size)
{
	u8 *header = m->bytes + LIST + 32 * slot, *t = table(m, slot);
	memset(t, 0, 0x400);
	put_u32(header, 5 | (size ? 1 << 16 : 0));
	put_u32(header + 4, 0);
	put_u64(header + 8, TABLES + slot * 0x400);
	const u8 fis[] = { 0x27, 0x80, c.code, (u8)c.features, (u8)c.lba, (u8)(c.lba >> 8), (u8)(c.lba >> 16), c.device, (u8)(c.lba >> 24),
			   (u8)(c.lba >> 32), (u8)(c.lba >> 40), (u8)(c.features >> 8), (u8)c.count, (u8)(c.count >> 8) };
	memcpy(t, fis, sizeof(fis));
	if (c.packet)
		memcpy(t + 0x40, c.packet, 12);
	put_u64(t + 0x80, DATA);
	put_u32(t + 0x8c, size - 1);
}

static void issue(struct machine *m, unsigned index, unsigned slot, struct command c, u32 size)
{
	prepare(m, slot, c, size);
	set(m, port(index, CI), 1u << slot);
}

static u32 moved(const struct machine *m, unsigned slot)
{
	return get_u32(m->bytes + LIST + 32 * slot + 4);
}

/* A packet to the drive; what it moved. */
static u32 packet(struct machine *m, const u8 *bytes, u32 size)
{
	issue(m, CDROM, 0, (struct command){ .code = 0xa0, .features = 1, .packet = bytes }, size);
	return moved(m, 0);
}

static void restart(struct machine *m, unsigned index)
{
	set(m, port(index, CMD), PXCMD_FRE);
	set(m, port(index, PXIS), ~0u);
	set(m, port(index, CMD), PXCMD_FRE | PXCMD_ST);
}

/* ---- tests ---- */

static void reset_state(void **state)
{
	struct machine *m = *state;
	assert_int_equal(get(m, PI), 3);
	assert_int_equal(get(m, CAP) & 0x1f, 1);
	assert_int_equal(get(m, port(DISK, SIG)), 0x101);
	assert_int_equal(get(m, port(CDROM, SIG)), 0xeb140101);
	assert_int_equal(get(m, port(DISK, SSTS)), 0x133);
	assert_int_equal(get(m, port(DISK, TFD)), 0x150);
	assert_int_equal(m->bytes[RECEIVED + 0x40], 0x34); /* told when there was a place for it */
	assert_int_equal(get(m, port(2, SSTS)), 0);
}

static void identifies(void **state)
{
	struct machine *m = *state;
	issue(m, DISK, 0, (struct command){ .code = 0xec }, 512);
	const u8 *id = m->bytes + DATA;
	u8 sum = 0;
	for (unsigned i = 0; i < 512; i++)
		sum += id[i];
	assert_int_equal(sum, 0);
	assert_memory_equal(id + 20, "wtne", 4); /* bytes of words change places */
	assert_int_equal(get_u64(id + 200), DISK_SIZE / 512);
	assert_int_equal(moved(m, 0), 512);
	assert_int_equal(get(m, port(DISK, PXIS)), PXIS_PSS);
	assert_int_equal(m->bytes[RECEIVED + 0x20], 0x5f);
	assert_int_equal(get(m, port(DISK, CI)), 0);
	assert_int_equal(get(m, IS), 1);
	assert_true(m->ahci.pci.intx);
	set(m, port(DISK, PXIS), ~0u);
	set(m, IS, ~0u);
	assert_false(m->ahci.pci.intx);
	issue(m, CDROM, 0, (struct command){ .code = 0xec }, 512); /* is none */
	assert_int_equal(get(m, port(CDROM, TFD)), 0x451);
	restart(m, CDROM);
	issue(m, CDROM, 0, (struct command){ .code = 0xa1 }, 512);
	assert_int_equal(get_u16(id), 0x85c0);
}

static void reads_and_writes(void **state)
{
	struct machine *m = *state;
	static const struct {
		u8 command;
		bool writes;
	} commands[] = { { 0x20, false }, { 0x24, false }, { 0x25, false }, { 0xc8, false }, { 0xc4, false }, { 0x29, false },
			 { 0x30, true },  { 0x34, true },  { 0x35, true },  { 0xca, true },  { 0xc5, true },  { 0x39, true },  { 0x3d, true } };
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		memset(m->bytes + DATA, (int)i + 1, 1024);
		issue(m, DISK, i, (struct command){ commands[i].command, 0x40, .count = 2, .lba = 5 + i }, 1024);
		assert_int_equal(get(m, port(DISK, CI)), 0);
		assert_int_equal(get(m, port(DISK, TFD)), 0x50);
		assert_int_equal(moved(m, i), 1024);
		assert_memory_equal(m->disk + (size_t)(5 + i) * 512, m->bytes + DATA, 1024);
		assert_int_equal(m->last.kind, commands[i].writes ? BLOCK_WRITE : BLOCK_READ);
		assert_int_equal(m->last.durable, commands[i].command == 0x3d);
	}
	issue(m, DISK, 0, (struct command){ 0xef, 0, .features = 0x82 }, 0); /* no write cache */
	assert_int_equal(m->last.kind, BLOCK_FLUSH);
	issue(m, DISK, 0, (struct command){ 0x35, 0x40, .count = 1 }, 512);
	assert_true(m->last.durable);
}

/* Pieces that cut sectors, and more of them than a request takes. */
static void scatters(void **state)
{
	struct machine *m = *state;
	const u32 count = 300, size = 34; /* bytes each */
	prepare(m, 0, (struct command){ 0x25, 0x40, .count = (u16)(count * size / 512), .lba = 9 }, 512);
	put_u16(m->bytes + LIST + 2, (u16)count);
	put_u64(m->bytes + LIST + 8, 0x10000);
	memcpy(m->bytes + 0x10000, table(m, 0), 64);
	for (u32 i = 0; i < count; i++) {
		put_u64(m->bytes + 0x10080 + 16 * (size_t)i, DATA + (u64)i * 64);
		put_u32(m->bytes + 0x1008c + 16 * (size_t)i, size - 1);
	}
	set(m, port(DISK, CI), 1);
	assert_int_equal(get(m, port(DISK, CI)), 0);
	assert_int_equal(moved(m, 0), count * size / 512 * 512);
	assert_int_equal(m->requests, 3);
	for (u32 i = 0; i < count * size / 512 * 512; i++)
		assert_int_equal(m->bytes[DATA + (u64)(i / size) * 64 + i % size], m->disk[9 * 512 + i]);
}

static void queues(void **state)
{
	struct machine *m = *state;
	m->at_once = false;
	for (unsigned i = 0; i < 3; i++)
		prepare(m, i, (struct command){ 0x60, 0x40, .features = 1, .count = (u16)(i << 3), .lba = i }, 512);
	prepare(m, 3, (struct command){ 0xea, 0x40 }, 0);
	set(m, port(DISK, SACT), 7);
	set(m, port(DISK, CI), 15);
	assert_int_equal(m->waits, 3);
	assert_int_equal(get(m, port(DISK, CI)), 8); /* waits until the queue is empty */
	assert_int_equal(get(m, port(DISK, SACT)), 7);
	assert_true(ahci_busy(&m->ahci));
	finish(m, 1, 0);
	ahci_completed(&m->ahci.port[DISK]);
	assert_int_equal(get(m, port(DISK, SACT)), 5);
	assert_int_equal(m->bytes[RECEIVED + 0x58], 0xa1);
	assert_int_equal(get_u32(m->bytes + RECEIVED + 0x5c), 2);
	finish(m, 0, 0);
	finish(m, 0, 0);
	ahci_completed(&m->ahci.port[DISK]);
	assert_int_equal(get(m, port(DISK, SACT)), 0);
	assert_int_equal(m->waiting[0]->kind, BLOCK_FLUSH);
	finish(m, 0, 0);
	ahci_completed(&m->ahci.port[DISK]);
	assert_int_equal(get(m, port(DISK, CI)), 0);
	assert_false(ahci_busy(&m->ahci));
}

/* One of several fails: the log tells which, and the others are given up. */
static void queue_fails(void **state)
{
	struct machine *m = *state;
	m->at_once = false;
	for (unsigned i = 0; i < 2; i++)
		prepare(m, i + 4, (struct command){ 0x60, 0x40, .features = 1, .count = (u16)((i + 4) << 3), .lba = 20 + i }, 512);
	set(m, port(DISK, SACT), 0x30);
	set(m, port(DISK, CI), 0x30);
	finish(m, 1, -5);
	ahci_completed(&m->ahci.port[DISK]);
	assert_int_equal(get(m, port(DISK, PXIS)) & PXIS_TFES, PXIS_TFES);
	assert_int_equal(get(m, port(DISK, TFD)), 0x4051);
	assert_int_equal(get(m, port(DISK, SACT)), 0x30);
	finish(m, 0, 0);
	ahci_completed(&m->ahci.port[DISK]);
	assert_int_equal(get(m, port(DISK, SACT)), 0x30);
	restart(m, DISK);
	issue(m, DISK, 0, (struct command){ 0x2f, 0x40, .count = 1, .lba = 0x10 }, 512);
	assert_int_equal(m->bytes[DATA], 5);
	assert_int_equal(m->bytes[DATA + 4], 21);
	issue(m, DISK, 0, (struct command){ 0x2f, 0x40, .count = 1, .lba = 0x10 }, 512);
	assert_int_equal(m->bytes[DATA], 0x80);
}

static void refuses(void **state)
{
	struct machine *m = *state;
	static const struct command commands[] = {
		{ 0x25, 0x40, .count = 1, .lba = DISK_SIZE / 512 },
		{ 0x25, 0x40, .count = 2, .lba = DISK_SIZE / 512 - 1 },
		{ 0x25, 0x40, .count = 0, .lba = 0 },
		{ 0x25, 0x40, .count = 1, .lba = 0xffffffffffff },
		{ 0x25, 0, .count = 1 },
		{ 0xb0, 0x40 },
		{ 0xa0, 0x40 },
		{ 0x06, 0x40, .features = 0, .count = 1 },
		{ 0x2f, 0x40, .count = 1, .lba = 0x30 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		issue(m, DISK, 1, commands[i], 512);
		assert_int_equal(get(m, port(DISK, TFD)) & 0xff, 0x51);
		assert_int_equal(get(m, port(DISK, PXIS)) & PXIS_TFES, PXIS_TFES);
		assert_int_equal(get(m, port(DISK, CI)), 2); /* and PxCMD.CCS say which it was */
		assert_int_equal(get(m, port(DISK, CMD)) >> 8 & 0x1f, 1);
		issue(m, DISK, 2, (struct command){ .code = 0xe7 }, 0); /* waits for the driver */
		assert_int_equal(get(m, port(DISK, CI)), 6);
		restart(m, DISK);
		assert_int_equal(get(m, port(DISK, CI)), 0);
	}
	assert_int_equal(m->requests, 0);
}

static void bad_pointers(void **state)
{
	struct machine *m = *state;
	prepare(m, 0, (struct command){ 0x25, 0x40, .count = 1 }, 512);
	put_u64(table(m, 0) + 0x80, RAM_SIZE);
	set(m, port(DISK, CI), 1);
	assert_int_equal(get(m, port(DISK, PXIS)), PXIS_HBFS);
	restart(m, DISK);
	prepare(m, 0, (struct command){ 0x25, 0x40, .count = 1 }, 512);
	put_u64(m->bytes + LIST + 8, ~0ull);
	set(m, port(DISK, CI), 1);
	assert_int_equal(get(m, port(DISK, PXIS)), PXIS_HBFS);
	restart(m, DISK);
	issue(m, DISK, 0, (struct command){ 0x25, 0x40, .count = 2 }, 512); /* a list that is too short */
	assert_int_equal(get(m, port(DISK, PXIS)), PXIS_OFS | PXIS_IFS);
	restart(m, DISK);
	prepare(m, 0, (struct command){ 0xec }, 512);
	table(m, 0)[0] = 0x46; /* no register FIS */
	set(m, port(DISK, CI), 1);
	assert_int_equal(get(m, port(DISK, PXIS)), PXIS_IFS);
	restart(m, DISK);
	issue(m, DISK, 0, (struct command){ .code = 0xec }, 512);
	assert_int_equal(get(m, port(DISK, TFD)), 0x50);
}

static void trims(void **state)
{
	struct machine *m = *state;
	put_u64(m->bytes + DATA, 0);
	for (unsigned i = 0; i < 64; i++)
		put_u64(m->bytes + DATA + 8ull * i, i < 3 ? i * 16 | 8ull << 48 : 0);
	issue(m, DISK, 0, (struct command){ 0x06, 0x40, .features = 1, .count = 1 }, 512);
	assert_int_equal(get(m, port(DISK, TFD)), 0x50);
	assert_int_equal(m->requests, 3);
	assert_int_equal(m->last.kind, BLOCK_DISCARD);
	assert_int_equal(m->last.size, 4096);
	put_u64(m->bytes + DATA, DISK_SIZE / 512 | 1ull << 48);
	issue(m, DISK, 0, (struct command){ 0x06, 0x40, .features = 1, .count = 1 }, 512);
	assert_int_equal(get(m, port(DISK, TFD)) & 0xff, 0x51);
	assert_int_equal(m->requests, 3);
}

static void resets(void **state)
{
	struct machine *m = *state;
	m->at_once = false;
	issue(m, DISK, 0, (struct command){ 0x25, 0x40, .count = 1 }, 512);
	assert_int_equal(get(m, port(DISK, TFD)), 0x80);
	set(m, port(DISK, SCTL), 0x301); /* COMRESET */
	assert_int_equal(m->waits, 0);
	assert_int_equal(get(m, port(DISK, SSTS)), 0);
	set(m, port(DISK, SCTL), 0x300);
	assert_int_equal(get(m, port(DISK, SSTS)), 0x133);
	assert_int_equal(get(m, port(DISK, TFD)), 0x150);
	assert_int_equal(get(m, port(DISK, PXIS)) & PXIS_PCS, PXIS_PCS);
	set(m, port(DISK, SERR), ~0u);
	assert_int_equal(get(m, port(DISK, PXIS)) & PXIS_PCS, 0);
	prepare(m, 0, (struct command){ 0 }, 0); /* SRST, set and cleared */
	table(m, 0)[1] = 0;
	table(m, 0)[15] = 4;
	prepare(m, 1, (struct command){ 0 }, 0);
	table(m, 1)[1] = 0;
	m->bytes[RECEIVED + 0x40] = 0;
	restart(m, DISK);
	set(m, port(DISK, CI), 3);
	assert_int_equal(get(m, port(DISK, CI)), 0);
	assert_int_equal(m->bytes[RECEIVED + 0x40], 0x34);
	issue(m, DISK, 0, (struct command){ 0x25, 0x40, .count = 1 }, 512);
	set(m, GHC, 1); /* the whole controller */
	assert_int_equal(m->waits, 0);
	assert_int_equal(get(m, GHC), 0x80000000);
	assert_int_equal(get(m, port(DISK, CMD)) & (PXCMD_ST | PXCMD_CR), 0);
	assert_int_equal(get(m, port(DISK, CLB)), LIST);
}

static void packets(void **state)
{
	struct machine *m = *state;
	const u8 ready[12] = { 0 }, sense[12] = { 3, [4] = 18 }, capacity[12] = { 0x25 }, read[12] = { 0x28, [5] = 3, [8] = 2 };
	const u8 inquiry[12] = { 0x12, [4] = 255 }, beyond[12] = { 0x28, [4] = 0xff, [8] = 1 }, toc[12] = { 0x43, 2, [8] = 20 };
	const u8 eject[12] = { 0x1b, [4] = 2 }, load[12] = { 0x1b, [4] = 3 }, unknown[12] = { 0xff };
	u8 *data = m->bytes + DATA;
	assert_int_equal(packet(m, inquiry, 96), 36);
	assert_memory_equal(data + 8, "nadir", 5);
	packet(m, ready, 0); /* it was reset, and says so once */
	assert_int_equal(get(m, port(CDROM, TFD)), 0x6451);
	restart(m, CDROM);
	assert_int_equal(packet(m, sense, 18), 18);
	assert_int_equal(data[2], 6);
	assert_int_equal(data[12], 0x29);
	packet(m, ready, 0);
	assert_int_equal(get(m, port(CDROM, TFD)), 0x50);
	assert_int_equal(packet(m, capacity, 8), 8);
	assert_int_equal(__builtin_bswap32(get_u32(data)), DISK_SIZE / 2048 - 1);
	assert_int_equal(packet(m, read, 4096), 4096);
	assert_memory_equal(data, m->disk + 3 * 2048, 4096);
	assert_int_equal(packet(m, toc, 20), 20);
	assert_int_equal(data[1], 18);
	assert_int_equal(data[10], 2); /* 150 frames of lead-in */
	packet(m, eject, 0);
	packet(m, read, 4096);
	assert_int_equal(get(m, port(CDROM, TFD)), 0x2451);
	restart(m, CDROM);
	packet(m, load, 0);
	packet(m, beyond, 2048);
	restart(m, CDROM);
	packet(m, sense, 18);
	assert_int_equal(data[12], 0x21);
	packet(m, unknown, 0);
	restart(m, CDROM);
	packet(m, sense, 18);
	assert_int_equal(data[12], 0x20);
	m->fail = true;
	packet(m, read, 4096);
	assert_int_equal(get(m, port(CDROM, TFD)), 0x3451);
}

static void messages(void **state)
{
	struct machine *m = *state;
	unsigned at = m->ahci.msi.capability;
	config(m, at + 4, 4, 0xfee00000);
	config(m, at + 12, 2, 0x41);
	config(m, at + 2, 2, 1);
	issue(m, DISK, 0, (struct command){ .code = 0xe7 }, 0);
	assert_int_equal(m->messages, 1);
	assert_false(m->ahci.pci.intx);
	issue(m, CDROM, 0, (struct command){ .code = 0xa1 }, 512);
	assert_int_equal(m->messages, 2);
	set(m, port(DISK, PXIS), ~0u);
	set(m, IS, 1); /* the other is left */
	assert_int_equal(m->messages, 3);
	set(m, port(CDROM, PXIS), ~0u);
	set(m, IS, 2);
	assert_int_equal(m->messages, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reset_state, setup, teardown), cmocka_unit_test_setup_teardown(identifies, setup, teardown),
		cmocka_unit_test_setup_teardown(reads_and_writes, setup, teardown), cmocka_unit_test_setup_teardown(scatters, setup, teardown),
		cmocka_unit_test_setup_teardown(queues, setup, teardown), cmocka_unit_test_setup_teardown(queue_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses, setup, teardown), cmocka_unit_test_setup_teardown(bad_pointers, setup, teardown),
		cmocka_unit_test_setup_teardown(trims, setup, teardown), cmocka_unit_test_setup_teardown(resets, setup, teardown),
		cmocka_unit_test_setup_teardown(packets, setup, teardown), cmocka_unit_test_setup_teardown(messages, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
