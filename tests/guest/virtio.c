/* A virtio disk and a virtio network card, driven by hand: by polling, through PCI and split queues. Virtual I/O Device Specification 1.2, "Virtio Over
 * PCI Bus", "Block Device", "Network Device". With "me=N" and "others=N" on the command line there are machines 1 to N at one network, which all
 * write to a disk with the same image: none sees the others' writes, and each hears from all others. */
#include "lib/apic.h"

#define VENDOR 0x1af4u
#define BLOCK 0x1042u
#define NETWORK 0x1041u
#define SECTOR 512u
#define SIZE 8u /* of a queue */
#define WAIT (1ull << 34) /* ticks: seconds */

/* Where things are in BAR 0: the capabilities of the device say it, and each is as large as it need be. */
enum { COMMON, NOTIFY, ISR, CONFIG, KINDS };

struct descriptor {
	u64 address;
	u32 size;
	u16 flags, next;
};

struct queue {
	struct descriptor descriptor[SIZE] __attribute__((aligned(4096)));
	struct {
		u16 flags, index, ring[SIZE];
	} available __attribute__((aligned(4096)));
	struct {
		u16 flags, index;
		struct {
			u32 id, size;
		} ring[SIZE];
	} used __attribute__((aligned(4096)));
	u16 seen;
};

struct device {
	u32 function; /* for the configuration port */
	ulong at[KINDS];
	u32 notify_step;
	struct queue *queue[2];
};

static struct queue disk_queue, receive_queue, send_queue;
static struct device disk, card;
static u64 me = 1, others = 1;

/* ---- PCI ---- */

static u32 config_read(u32 function, u32 offset)
{
	outl(0xcf8, 0x80000000u | function | (offset & 0xfc));
	return inl(0xcfc) >> (offset & 3) * 8;
}

static void config_write(u32 function, u32 offset, u32 value)
{
	outl(0xcf8, 0x80000000u | function | offset);
	outl(0xcfc, value);
}

/* Where the structures are, now that BAR 0 is at `base`. */
static void find_structures(struct device *d, ulong base)
{
	for (u32 at = config_read(d->function, 0x34) & 0xff; at; at = config_read(d->function, at + 1) & 0xff) {
		u32 kind = config_read(d->function, at + 3) & 0xff;
		if ((config_read(d->function, at) & 0xff) != 9 || kind < 1 || kind > KINDS)
			continue;
		d->at[kind - 1] = base + config_read(d->function, at + 8);
		if (kind - 1 == NOTIFY)
			d->notify_step = config_read(d->function, at + 16);
	}
}

static bool find_device(struct device *d, u32 id, ulong base)
{
	for (u32 slot = 0; slot < 32; slot++) {
		d->function = slot << 11;
		if (config_read(d->function, 0) != (id << 16 | VENDOR))
			continue;
		config_write(d->function, 0x10, base);
		config_write(d->function, 0x14, 0);
		config_write(d->function, 4, 6);
		find_structures(d, base);
		return true;
	}
	return false;
}

/* ---- the device ---- */

#define REGISTER(d, kind, type, offset) (*(volatile type *)((d)->at[kind] + (offset)))

static void set_queue(struct device *d, u16 index, struct queue *q)
{
	REGISTER(d, COMMON, u16, 22) = index;
	REGISTER(d, COMMON, u16, 24) = SIZE;
	const void *parts[] = { q->descriptor, &q->available, &q->used };
	for (unsigned i = 0; i < 3; i++) {
		REGISTER(d, COMMON, u32, 32 + 8 * i) = (u32)(ulong)parts[i];
		REGISTER(d, COMMON, u32, 36 + 8 * i) = 0;
	}
	REGISTER(d, COMMON, u16, 28) = 1;
	d->queue[index] = q;
}

/* VERSION_1, and nothing else; `second` may be NULL. */
static void start(struct device *d, struct queue *first, struct queue *second)
{
	REGISTER(d, COMMON, u8, 20) = 0;
	REGISTER(d, COMMON, u8, 20) = 3;
	REGISTER(d, COMMON, u32, 8) = 1;
	REGISTER(d, COMMON, u32, 12) = 1;
	REGISTER(d, COMMON, u32, 8) = 0;
	REGISTER(d, COMMON, u32, 12) = 0;
	REGISTER(d, COMMON, u8, 20) = 11;
	CHECK_EQ(REGISTER(d, COMMON, u8, 20), 11);
	set_queue(d, 0, first);
	if (second)
		set_queue(d, 1, second);
	REGISTER(d, COMMON, u8, 20) = 15;
}

static void offer(struct device *d, u16 queue, u16 head)
{
	struct queue *q = d->queue[queue];
	q->available.ring[q->available.index % SIZE] = head;
	asm volatile("mfence" : : : "memory");
	q->available.index++;
	asm volatile("mfence" : : : "memory");
	REGISTER(d, COMMON, u16, 22) = queue;
	*(volatile u16 *)(d->at[NOTIFY] + REGISTER(d, COMMON, u16, 30) * d->notify_step) = queue;
}

/* The next buffer that came back; false: none does in time. */
static bool taken(struct queue *q, u32 *id, u32 *size, u64 ticks)
{
	u64 end = rdtsc() + ticks;
	while (*(volatile u16 *)&q->used.index == q->seen) {
		if (rdtsc() > end)
			return false;
		pause();
	}
	asm volatile("" : : : "memory");
	*id = q->used.ring[q->seen % SIZE].id;
	*size = q->used.ring[q->seen % SIZE].size;
	q->seen++;
	return true;
}

/* ---- the disk ---- */

static u8 data[256 * SECTOR] __attribute__((aligned(4096)));

static u8 request(u32 type, u64 sector, u32 size)
{
	static struct {
		u32 type, reserved;
		u64 sector;
	} header;
	static u8 status;
	u32 id, length;
	header.type = type;
	header.sector = sector;
	status = 0xff;
	disk_queue.descriptor[0] = (struct descriptor){ (ulong)&header, 16, 1, 1 };
	disk_queue.descriptor[1] = (struct descriptor){ (ulong)data, size, type ? 1 : 3, 2 };
	disk_queue.descriptor[2] = (struct descriptor){ (ulong)&status, 1, 2, 0 };
	offer(&disk, 0, 0);
	return taken(&disk_queue, &id, &length, WAIT) ? status : 0xfe;
}

/* The image is "sector N" at the start of sector N, in this form. */
static bool is_of_image(u32 from, u32 count)
{
	for (u32 i = 0; i < count; i++) {
		u32 number;
		memcpy(&number, data + i * SECTOR, 4);
		if (number != (from + i) * 0x01000193u + 1)
			return false;
	}
	return true;
}

static void test_disk(void)
{
	CHECK(find_device(&disk, BLOCK, 0xc0000000));
	start(&disk, &disk_queue, NULL);
	u64 sectors = REGISTER(&disk, CONFIG, u32, 0);
	CHECK_EQ(sectors, 2048 + 3);
	CHECK_EQ(request(0, 0, sizeof(data)), 0); /* large: carried out apart */
	CHECK(is_of_image(0, 256));
	CHECK_EQ(request(0, sectors - 3, 3 * SECTOR), 0);
	CHECK(is_of_image(sectors - 3, 3));
	memset(data, (int)me, sizeof(data));
	CHECK_EQ(request(1, 5, 4 * SECTOR), 0);
	CHECK_EQ(request(1, 1024, sizeof(data)), 0);
	CHECK_EQ(request(0, sectors - 1, 2 * SECTOR), 1); /* beyond the end */
	memset(data, 0, sizeof(data));
	CHECK_EQ(request(0, 4, 6 * SECTOR), 0);
	CHECK(is_of_image(4, 1));
	CHECK(data[SECTOR] == me && data[5 * SECTOR - 1] == me);
	CHECK_EQ(request(0, 9, SECTOR), 0);
	CHECK(is_of_image(9, 1));
	CHECK_EQ(request(0, 1024, sizeof(data)), 0);
	CHECK(data[0] == me && data[sizeof(data) - 1] == me);
}

/* ---- the network ---- */

#define FRAME 100u
#define HEADER 12u

static u8 received[SIZE][2048], sent[2048];

static void receive_into(u16 buffer)
{
	receive_queue.descriptor[buffer] = (struct descriptor){ (ulong)received[buffer], sizeof(received[0]), 2, 0 };
	offer(&card, 0, buffer);
}

/* To all: from which machine, and from which it has heard so far. */
static void say(u8 heard)
{
	u32 id, size;
	memset(sent, 0, sizeof(sent));
	memset(sent + HEADER, 0xff, 6);
	for (unsigned i = 0; i < 6; i++)
		sent[HEADER + 6 + i] = REGISTER(&card, CONFIG, u8, i);
	sent[HEADER + 12] = 0x88;
	sent[HEADER + 13] = 0xb5;
	sent[HEADER + 14] = (u8)me;
	sent[HEADER + 15] = heard;
	send_queue.descriptor[0] = (struct descriptor){ (ulong)sent, HEADER + FRAME, 0, 0 };
	offer(&card, 1, 0);
	CHECK(taken(&send_queue, &id, &size, WAIT));
}

/* Until each has heard from all others, and knows that they have. */
static void test_network(void)
{
	u8 all = (u8)((2u << others) - 2), heard = 1u << me, done = 0;
	u32 id, size;
	CHECK(find_device(&card, NETWORK, 0xc0100000));
	start(&card, &receive_queue, &send_queue);
	for (u16 i = 0; i < SIZE; i++)
		receive_into(i);
	u64 end = rdtsc() + 64 * WAIT;
	while ((heard != all || done != (all & ~(1u << me))) && rdtsc() < end) {
		say(heard);
		while (taken(&receive_queue, &id, &size, 1 << 26)) {
			const u8 *frame = received[id] + HEADER;
			CHECK_EQ(size, HEADER + FRAME);
			heard |= 1u << frame[14];
			done |= frame[15] == all ? 1u << frame[14] : 0;
			receive_into((u16)id);
		}
	}
	for (unsigned i = 0; i < 20; i++) /* for who has not heard that we have */
		say(heard);
	CHECK_EQ(heard, all);
	CHECK_EQ(done, all & ~(1u << me));
}

void guest_main(void)
{
	command_option("me", &me);
	command_option("others", &others);
	test_disk();
	if (others > 1)
		test_network();
}
