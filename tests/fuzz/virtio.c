/* A virtio device behind PCI, the first byte says which, whose driver does anything: registers in any order, rings of both kinds with any contents. */
#include "dev/map.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/block.h"
#include "dev/virtio/console.h"
#include "dev/virtio/fs.h"
#include "dev/virtio/input.h"
#include "dev/virtio/net.h"
#include "dev/virtio/random.h"
#include "dev/virtio/vsock.h"
#include "host/port.h"
#include "input.h"
#include "lib/string.h"

#define RAM_SIZE 0x8000ull
#define ROM 0x10000ull
#define SLOT 1
#define BAR 0xc0000000ull
#define BAR_SIZE 0x4000ull
#define TABLE 0xc0010000ull

static struct {
	struct bus io, memory;
	struct pci_host pci;
	struct virtio_random random;
	struct virtio_balloon balloon;
	struct virtio_input input;
	struct virtio_console console;
	u8 typed; /* bytes that wait for its ports */
	struct virtio_block block;
	struct virtio_net net;
	struct virtio_fs fs;
	struct virtio_vsock vsock;
	struct fs_request *asked[FS_REQUESTS_MAX], *answered;
	unsigned asks;
	struct virtio_device *device;
	u8 frame[sizeof(struct vsock_header) + 2049]; /* the one that waits at the network */
	u32 frame_size; /* 0: none */
	bool full; /* so that nothing can be sent */
	u64 now;
	struct block_request *waiting[BLOCK_REQUESTS_MAX], *done;
	unsigned waits;
} machine;
static struct ram ram;
static u8 *bytes, *rom;

static void fill(void *buffer, size_t size)
{
	CHECK(size && (u8 *)buffer >= bytes && (u8 *)buffer + size <= bytes + RAM_SIZE);
	memset(buffer, 0x5a, size);
}

static void discard(void *hva, u64 size)
{
	CHECK(size && size % PAGE_SIZE == 0 && (u8 *)hva >= bytes && (u8 *)hva + size <= bytes + RAM_SIZE);
	memset(hva, 0, size);
}

static void cable_put(void *opaque, u8 byte)
{
}

static bool cable_get(void *opaque, u8 *byte)
{
	*byte = machine.typed;
	return machine.typed && machine.typed--;
}

static void message(void *opaque, const struct msi_message *m)
{
}

/* ---- a disk that takes its time ---- */

#define DISK_SIZE 0x10000ull

static void check_request(const struct block_request *r)
{
	u64 bytes_of_pieces = 0;
	CHECK(r->offset <= DISK_SIZE && r->size <= DISK_SIZE - r->offset && r->size % BLOCK_SECTOR == 0);
	for (unsigned i = 0; i < r->pieces; i++) {
		const struct virtq_piece *p = &r->piece[i];
		CHECK(p->data >= bytes && p->data + p->size <= bytes + RAM_SIZE && p->data == bytes + p->gpa);
		if (r->kind == BLOCK_READ)
			memset(p->data, 0x33, p->size);
		bytes_of_pieces += p->size;
	}
	CHECK(r->kind > BLOCK_WRITE || bytes_of_pieces == r->size);
}

static bool submit(void *disk, struct block_request *request)
{
	check_request(request);
	if (request->offset & BLOCK_SECTOR)
		return true;
	CHECK(machine.waits < BLOCK_REQUESTS_MAX);
	machine.waiting[machine.waits++] = request;
	return false;
}

static struct block_request *completed(void *disk)
{
	struct block_request *r = machine.done;
	if (r)
		machine.done = r->next;
	return r;
}

static void complete(struct block_request *r, int error)
{
	check_request(r);
	r->error = error;
	r->next = machine.done;
	machine.done = r;
}

static void drain(void *disk)
{
	while (machine.waits)
		complete(machine.waiting[--machine.waits], -1);
}

static void complete_one(u8 which)
{
	if (!machine.waits)
		return;
	unsigned i = which % machine.waits;
	complete(machine.waiting[i], which & 1);
	machine.waiting[i] = machine.waiting[--machine.waits];
	virtio_block_completed(&machine.block);
}

static const struct block_backend disk = { .submit = submit, .completed = completed, .drain = drain, .size = DISK_SIZE };

/* ---- files whose answers take their time ---- */

static bool ask(void *share, struct fs_request *r)
{
	for (unsigned i = 0; i < r->pieces; i++) {
		const struct virtq_piece *p = &r->piece[i];
		CHECK(p->size && ((p->data >= bytes && p->data + p->size <= bytes + RAM_SIZE) || (i < r->readable && p->data >= rom)));
		if (i >= r->readable)
			memset(p->data, 0x44, p->size);
	}
	CHECK(r->readable <= r->pieces && r->index < FS_REQUESTS_MAX);
	r->written = r->pieces * 0x3000;
	if (r->pieces & 1)
		return true;
	CHECK(machine.asks < FS_REQUESTS_MAX);
	machine.asked[machine.asks++] = r;
	return false;
}

static struct fs_request *answered(void *share)
{
	struct fs_request *r = machine.answered;
	if (r)
		machine.answered = r->next;
	return r;
}

static void answer(unsigned which)
{
	struct fs_request *r = machine.asked[which];
	machine.asked[which] = machine.asked[--machine.asks];
	r->next = machine.answered;
	machine.answered = r;
}

static void answer_all(void *share)
{
	while (machine.asks)
		answer(0);
}

static const struct fs_backend files = { .submit = ask, .completed = answered, .drain = answer_all, .tag = "files" };

/* ---- a network with room for one frame ---- */

static bool net_send(void *net, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	u64 size = 0;
	for (unsigned i = 0; i < pieces; i++) {
		CHECK(!piece[i].size || (piece[i].data >= bytes && piece[i].data + piece[i].size <= bytes + RAM_SIZE));
		size += piece[i].size;
	}
	CHECK(size >= NET_FRAME_MIN && size <= NET_FRAME_MAX);
	CHECK(!(header->flags & NET_NEEDS_CHECKSUM) || (u64)header->checksum_start + header->checksum_offset + 2 <= size);
	CHECK(!header->gso_type || (header->gso_size && header->flags));
	return !machine.full;
}

static void net_flush(void *net)
{
}

static const u8 *net_peek(void *net, u32 *size)
{
	*size = machine.frame_size;
	return *size ? machine.frame : NULL;
}

static void net_next(void *net)
{
	machine.frame_size = 0;
}

static void net_accept(void *net, u32 offloads)
{
	CHECK(!(offloads & ~(u32)NET_OFFLOADS));
}

static void net_wake(void *net)
{
}

static bool net_poll(void *net)
{
	return !machine.full;
}

static const struct net_backend network = { .send = net_send, .flush = net_flush, .peek = net_peek, .next = net_next, .accept = net_accept, .poll = net_poll, .wake = net_wake,
					    .offloads = NET_OFFLOADS };

/* ---- a cable with room for one packet: the frame that waits at the network ---- */

static bool vsock_send(void *cable, const struct vsock_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	u64 size = 0;
	for (unsigned i = 0; i < pieces; i++) {
		CHECK(!piece[i].size || (piece[i].data >= bytes && piece[i].data + piece[i].size <= bytes + RAM_SIZE) || piece[i].data >= rom);
		size += piece[i].size;
	}
	CHECK(size == header->length && size <= VSOCK_PAYLOAD_MAX && header->from_cid == 3);
	return !machine.full;
}

static void vsock_reset(void *cable)
{
}

static const struct vsock_backend sockets = { .send = vsock_send, .peek = net_peek, .next = net_next, .reset = vsock_reset, .cid = 3 };

static void vsock_step(struct input *in)
{
	u8 what = input_u8(in);
	machine.full = what & 1;
	if (!machine.frame_size && (what & 2)) {
		const struct vsock_header header = { .length = (u32)input_take(in, 2) % 2048 };
		memcpy(machine.frame, &header, sizeof(header));
		machine.frame_size = (u32)sizeof(header) + header.length + (what >> 7);
	}
	virtio_vsock_ready(&machine.vsock);
}

static void press_step(struct input *in)
{
	u16 code = (u16)input_take(in, 2);
	if (!virtio_works(machine.device))
		return;
	if (machine.input.kind == INPUT_KEYBOARD)
		virtio_input_key(&machine.input, code, code & 1);
	else
		virtio_input_pointer(&machine.input, code & INPUT_POSITION_MAX, 7, (u8)(code >> 8));
	CHECK(machine.input.count <= INPUT_QUEUE_SIZE);
}

static void net_step(struct input *in)
{
	u8 what = input_u8(in);
	machine.full = what & 1;
	if (!machine.frame_size && (what & 2)) {
		machine.frame_size = (u32)input_take(in, 2) % sizeof(machine.frame);
		for (unsigned i = 0; i < 32; i++)
			machine.frame[i] = input_u8(in);
	}
	virtio_net_ready(&machine.net);
}

/* ---- the driver ---- */

static void set(u64 address, unsigned size, u64 value)
{
	bus_write(&machine.memory, address, size, value, 0);
}

/* A driver that does everything right, up to DRIVER_OK. */
static void start(u8 kind)
{
	bool net = machine.device == &machine.net.virtio || machine.device == &machine.vsock.virtio || machine.device == &machine.balloon.virtio || machine.device == &machine.console.virtio;
	u64 features = (net ? machine.device->features & ~(VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX) : 0) | VIRTIO_F_VERSION_1 | (kind & 1 ? VIRTIO_F_RING_PACKED : 0) | (kind & 2 ? VIRTIO_F_EVENT_IDX : 0);
	set(BAR + 20, 1, 0);
	for (u32 i = 0; i < 2; i++) {
		set(BAR + 8, 4, i);
		set(BAR + 12, 4, (u32)(features >> (32 * i)));
	}
	set(BAR + 20, 1, 11);
	for (unsigned queue = 0; queue < (net ? MIN(machine.device->queues, 7u) : 1); queue++) {
		set(BAR + 22, 2, queue);
		set(BAR + 24, 2, 1u << (kind >> 4 & 7));
		set(BAR + 32, 4, 0); /* all share their descriptors */
		set(BAR + 40, 4, 0x1000 + queue * 0x200);
		set(BAR + 48, 4, 0x1800 + queue * 0x500);
		set(BAR + 28, 2, 1);
	}
	set(BAR + 20, 1, 15);
}

/* A descriptor of either kind that is mostly sensible. */
static void put_descriptor(struct input *in)
{
	struct {
		u64 address;
		u32 length;
		u16 third, fourth;
	} d = { input_take(in, 2), input_take(in, 2), input_u8(in), (u16)input_take(in, 2) };
	memcpy(bytes + (size_t)(input_u8(in) % 128) * sizeof(d), &d, sizeof(d));
}

/* As a vCPU notifies a queue, some time after the last. */
static void ring(u64 queue, u8 pause)
{
	u64 address = BAR + 0x3000 + 4 * queue;
	machine.now += pause * 20000ull;
	if (!virtio_doorbell(machine.device, address, machine.now))
		set(address, 2, 0);
}

static void step(struct input *in)
{
	u8 op = input_u8(in);
	unsigned size = input_size(in);
	switch (op % 14) {
	case 0:
		start(op >> 1 ^ input_u8(in));
		break;
	case 1:
		put_descriptor(in);
		break;
	case 2: /* the driver's area: available ring or event suppression */
		bytes[0x1000 + input_take(in, 2) % 0x600] = input_u8(in);
		break;
	case 3:
		bytes[input_take(in, 2) % RAM_SIZE] = input_u8(in);
		break;
	case 4: /* common structure */
		set(BAR + input_u8(in) % 64, size, input_take(in, size));
		break;
	case 5:
		set(BAR + input_take(in, 2) % BAR_SIZE, size, input_take(in, size));
		break;
	case 6:
		bus_read(&machine.memory, BAR + input_take(in, 2) % BAR_SIZE, size, 0);
		break;
	case 7:
		set(TABLE + input_take(in, 2) % 0x1000, size, input_take(in, size));
		break;
	case 8:
		set(MAP_ECAM + (SLOT << 15) + 0x40 + input_u8(in), size, input_take(in, size));
		break;
	case 9:
		bus_read(&machine.memory, MAP_ECAM + (SLOT << 15) + input_u8(in), size, 0);
		break;
	case 10:
		virtio_advance(machine.device);
		break;
	case 11:
		if (machine.device == &machine.block.virtio)
			complete_one(input_u8(in));
		if (machine.device == &machine.console.virtio) {
			machine.typed = input_u8(in);
			virtio_console_input(&machine.console, machine.typed % 4);
		}
		if (machine.device == &machine.input.virtio)
			press_step(in);
		if (machine.device == &machine.net.virtio)
			net_step(in);
		if (machine.device == &machine.vsock.virtio)
			vsock_step(in);
		if (machine.device == &machine.fs.virtio && machine.asks) {
			answer(input_u8(in) % machine.asks);
			virtio_fs_completed(&machine.fs);
		}
		break;
	case 12: /* a request's header: a sensible type and place */
		bytes[0x2000 + (op >> 4) * 16] = input_u8(in) & 15;
		bytes[0x2008 + (op >> 4) * 16] = input_u8(in);
		break;
	default:
		ring((op >> 4) % 4, op >> 6);
	}
}

static void create_memory(void)
{
	bytes = host_ram_create(RAM_SIZE);
	rom = host_ram_create(PAGE_SIZE);
	CHECK(bytes && rom && !ram_add(&ram, 0, RAM_SIZE, bytes, false) && !ram_add(&ram, ROM, PAGE_SIZE, rom, true));
}

static void attach(u8 kind)
{
	struct block_backend backend = disk;
	backend.readonly = kind & 2;
	struct net_backend several = network;
	several.pairs = kind >> 6;
	machine.device = (kind & 12) == 12 ? &machine.console.virtio : kind & 4 ? &machine.balloon.virtio : kind & 8 ? (kind & 1 ? &machine.vsock.virtio : &machine.net.virtio) : kind & 1 ? &machine.block.virtio : kind & 2 ? &machine.fs.virtio : kind & 16 ? &machine.input.virtio : &machine.random.virtio;
	for (unsigned i = 0; i < CONSOLE_PORTS_MAX; i++)
		machine.console.cable[i] = (struct console_cable){ cable_put, cable_get, NULL, "port" };
	machine.input.kind = kind & 32 ? INPUT_TABLET : INPUT_KEYBOARD;
	machine.console.ports = 1 + (kind >> 4) % CONSOLE_PORTS_MAX;
	if ((kind & 12) == 12)
		CHECK(!virtio_console_attach(&machine.console, &machine.pci, &ram, SLOT));
	else if (kind & 4)
		CHECK(!virtio_balloon_attach(&machine.balloon, &machine.pci, &ram, SLOT));
	else if ((kind & 9) == 9)
		CHECK(!virtio_vsock_attach(&machine.vsock, &sockets, &machine.pci, &ram, SLOT));
	else if (kind & 8)
		CHECK(!virtio_net_attach(&machine.net, &several, &machine.pci, &ram, SLOT));
	else if (kind & 1)
		CHECK(!virtio_block_attach(&machine.block, &backend, 1 + (kind >> 4), &machine.pci, &ram, SLOT));
	else if (kind & 2)
		CHECK(!virtio_fs_attach(&machine.fs, &files, &machine.pci, &ram, SLOT));
	else if (kind & 16)
		CHECK(!virtio_input_attach(&machine.input, &machine.pci, &ram, SLOT, 0));
	else
		CHECK(!virtio_random_attach(&machine.random, &machine.pci, &ram, SLOT));
	machine.device->features |= VIRTIO_F_RING_PACKED;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };
	if (!bytes)
		create_memory();
	memset(bytes, 0, RAM_SIZE);
	memset(&machine, 0, sizeof(machine));
	machine.pci.message = message;
	machine.random.fill = fill;
	machine.balloon.discard = discard;
	machine.balloon.reporting = true;
	CHECK(!pci_attach(&machine.pci, &machine.io, &machine.memory));
	attach(input_u8(&in));
	bus_write(&machine.memory, MAP_ECAM + (SLOT << 15) + PCI_BAR0, 4, BAR, 0);
	bus_write(&machine.memory, MAP_ECAM + (SLOT << 15) + PCI_BAR0 + 8, 4, TABLE, 0);
	bus_write(&machine.memory, MAP_ECAM + (SLOT << 15) + PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
	while (in.left)
		step(&in);
	virtio_reset(machine.device);
	CHECK(!machine.waits && !machine.done && !machine.asks && !machine.answered);
	virtio_block_destroy(&machine.block);
	virtio_fs_destroy(&machine.fs);
	for (unsigned i = 0; i < PAGE_SIZE; i++)
		CHECK(!rom[i]);
	return 0;
}
