/* The virtio network device with a network that is a list of frames: both ways, in buffers of any size, what drivers ask of the device and what they
 * may not, the filter, and rings that break the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/net.h"
#include "fake_host.h"
#include "virtio_driver.h"

#define RX 0
#define TX 1
#define CONTROL 2
#define DATA 0x10000ull
#define HEADER sizeof(struct net_header)
#define CSUM BIT(0)
#define GUEST_CSUM BIT(1)
#define GUEST_OFFLOADS BIT(2)
#define GUEST_TSO4 BIT(7)
#define HOST_TSO4 BIT(11)
#define MERGEABLE BIT(15)
#define CTRL_VQ BIT(17)
#define CTRL_RX BIT(18)
#define CTRL_VLAN BIT(19)
#define CTRL_RX_EXTRA BIT(20)
#define MQ BIT(22)
#define CTRL_MAC BIT(23)

struct machine {
	struct driver driver;
	struct virtio_net net;
	/* The network. */
	bool full, down;
	unsigned sent;
	struct net_header sent_header;
	u8 sent_frame[NET_FRAME_MAX];
	u64 sent_size;
	alignas(8) u8 waiting[4][(HEADER + NET_FRAME_MAX + 7) & ~7ull];
	u32 waiting_size[4];
	unsigned waits;
	u32 accepted;
	unsigned woken;
};

static const u8 our_mac[] = { 0x52, 0x54, 0, 1, 2, 3 };

static bool net_send(void *net, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	struct machine *m = net;
	if (m->full)
		return false;
	m->sent++;
	m->sent_header = *header;
	m->sent_size = 0;
	for (unsigned i = 0; i < pieces; i++) {
		memcpy(m->sent_frame + m->sent_size, piece[i].data, piece[i].size);
		m->sent_size += piece[i].size;
	}
	return true;
}

static void net_flush(void *net)
{
}

static const u8 *net_peek(void *net, u32 *size)
{
	struct machine *m = net;
	*size = m->waiting_size[0];
	return m->waits ? m->waiting[0] : NULL;
}

static void net_next(void *net)
{
	struct machine *m = net;
	m->waits--;
	memmove(m->waiting[0], m->waiting[1], sizeof(m->waiting) - sizeof(m->waiting[0]));
	memmove(m->waiting_size, m->waiting_size + 1, sizeof(m->waiting_size) - sizeof(m->waiting_size[0]));
}

static void net_take(void *net, u32 offloads)
{
	((struct machine *)net)->accepted = offloads;
}

static void net_wake(void *net)
{
	((struct machine *)net)->woken++;
}

static bool net_poll(void *net)
{
	return !((struct machine *)net)->down;
}

static int set_up(void **state, unsigned pairs)
{
	struct machine *m = host_alloc(sizeof(*m));
	struct net_backend backend = { .send = net_send, .flush = net_flush, .peek = net_peek, .next = net_next, .accept = net_take, .poll = net_poll, .net = m,
				       .offloads = NET_OFFLOADS, .pairs = pairs };
	memcpy(backend.mac, our_mac, sizeof(our_mac));
	assert_true(driver_create(&m->driver));
	assert_int_equal(virtio_net_attach(&m->net, &backend, &m->driver.pci, &m->driver.ram, DRIVER_SLOT), 0);
	driver_plug(&m->driver);
	*state = m;
	return 0;
}

static int setup(void **state)
{
	return set_up(state, 0);
}

static int setup_pairs(void **state)
{
	return set_up(state, NET_PAIRS_MAX);
}

static int teardown(void **state)
{
	struct machine *m = *state;
	driver_destroy(&m->driver);
	host_free(m);
	return 0;
}

static void start(struct machine *m, u64 features)
{
	driver_start(&m->driver, features | CTRL_VQ, 3);
}

/* A frame of `size` bytes waits on the network, for `to`, with a pattern in it. */
static struct net_header *arrive(struct machine *m, const u8 *to, u32 size)
{
	u8 *p = m->waiting[m->waits];
	memset(p, 0, HEADER);
	for (u32 i = 0; i < size; i++)
		p[HEADER + i] = (u8)(i * 7 + size);
	memcpy(p + HEADER, to, 6);
	m->waiting_size[m->waits++] = (u32)HEADER + size;
	return (struct net_header *)(void *)p;
}

/* A buffer for the device to write, as descriptor and chain of its own. */
static void offer_room(struct machine *m, u16 index, u64 at, u32 size)
{
	driver_descriptor(&m->driver, RX, index, at, size, DESC_WRITE);
	driver_put(&m->driver, RX, index);
}

/* Send header and frame, cut after `cut` bytes. */
static void send(struct machine *m, const struct net_header *header, u32 size, u32 cut)
{
	u8 *p = m->driver.bytes + DATA;
	memcpy(p, header, HEADER);
	for (u32 i = 0; i < size; i++)
		p[HEADER + i] = (u8)(i * 3);
	driver_descriptor(&m->driver, TX, 0, DATA, cut, DESC_NEXT);
	driver_descriptor(&m->driver, TX, 1, DATA + cut, (u32)HEADER + size - cut, 0);
	driver_offer(&m->driver, TX, 0);
}

/* A command with its data; what the device answers. */
static u8 command(struct machine *m, u8 class, u8 number, const void *data, u32 size)
{
	u8 *p = m->driver.bytes + DATA;
	p[0] = class;
	p[1] = number;
	memcpy(p + 2, data, size);
	p[0x2000] = 0xee;
	driver_descriptor(&m->driver, CONTROL, 0, DATA, 2, DESC_NEXT);
	driver_descriptor(&m->driver, CONTROL, 1, DATA + 2, size, DESC_NEXT);
	driver_descriptor(&m->driver, CONTROL, 2, DATA + 0x2000, 1, DESC_WRITE);
	driver_offer(&m->driver, CONTROL, 0);
	return p[0x2000];
}

static void describes_itself(void **state)
{
	struct machine *m = *state;
	u64 wanted = CSUM | GUEST_CSUM | GUEST_OFFLOADS | GUEST_TSO4 | HOST_TSO4 | MERGEABLE | CTRL_VQ | CTRL_RX | CTRL_VLAN | CTRL_RX_EXTRA |
		     CTRL_MAC | BIT(3) | BIT(5) | BIT(16);
	assert_int_equal(driver_offered(&m->driver) & wanted, wanted);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(driver_get(&m->driver, 0x2000 + i, 1), our_mac[i]);
	assert_int_equal(driver_get(&m->driver, 0x2006, 2), 1);
	assert_int_equal(driver_get(&m->driver, 0x200a, 2), 1500);
}

static void frames_are_sent(void **state)
{
	struct machine *m = *state;
	const struct net_header none = { 0 };
	start(m, 0);
	for (u32 cut = 1; cut < 100; cut++) {
		send(m, &none, 100, cut);
		assert_int_equal(m->sent, cut);
		assert_int_equal(m->sent_size, 100);
		for (u32 i = 0; i < 100; i++)
			assert_int_equal(m->sent_frame[i], (u8)(i * 3));
		assert_int_equal(driver_used(&m->driver, TX), cut);
		assert_int_equal(m->net.count.tx_frames, cut);
		assert_int_equal(m->net.count.tx_bytes, cut * 100);
	}
}

static void what_is_no_frame_is_not_sent(void **state)
{
	struct machine *m = *state;
	static const struct {
		struct net_header header;
		u32 size;
		u64 features;
		bool good;
	} rows[] = {
		{ { 0 }, 13, 0, false },
		{ { 0 }, 14, 0, true },
		{ { .flags = 1, .checksum_start = 34, .checksum_offset = 16 }, 60, CSUM, true },
		{ { .flags = 1, .checksum_start = 34, .checksum_offset = 16 }, 60, 0, false },
		{ { .flags = 1, .checksum_start = 34, .checksum_offset = 25 }, 60, CSUM, false },
		{ { .flags = 1, .checksum_start = 34, .checksum_offset = 24 }, 60, CSUM, true },
		{ { .flags = 1, .checksum_start = 0xffff, .checksum_offset = 0xffff }, 60, CSUM, false },
		{ { .flags = 1, .checksum_start = 3, .checksum_offset = 0 }, 60, CSUM, false },
		{ { .flags = 1, .gso_type = 1, .gso_size = 10, .checksum_start = 34, .checksum_offset = 16 }, 90, CSUM | HOST_TSO4, true },
		{ { .flags = 1, .gso_type = 1, .gso_size = 10, .checksum_start = 34, .checksum_offset = 16 }, 90, CSUM, false },
		{ { .flags = 1, .gso_type = 1, .gso_size = 0, .checksum_start = 34, .checksum_offset = 16 }, 90, CSUM | HOST_TSO4, false },
		{ { .flags = 0, .gso_type = 1, .gso_size = 10 }, 90, CSUM | HOST_TSO4, false },
		{ { .flags = 1, .gso_type = 0x81, .gso_size = 10, .checksum_start = 34, .checksum_offset = 16 }, 90, CSUM | HOST_TSO4, false },
		{ { .flags = 1, .gso_type = 3, .gso_size = 10, .checksum_start = 34, .checksum_offset = 16 }, 90, CSUM | HOST_TSO4, false },
		{ { 0 }, NET_FRAME_MAX, 0, true },
		{ { 0 }, NET_FRAME_MAX + 1, 0, false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		start(m, rows[i].features);
		m->sent = 0;
		send(m, &rows[i].header, rows[i].size, 20);
		if (m->sent != rows[i].good)
			print_error("row %zu\n", i);
		assert_int_equal(m->sent, rows[i].good);
		assert_int_equal(driver_used(&m->driver, TX), 1);
	}
	start(m, 0);
	driver_descriptor(&m->driver, TX, 0, DATA, 11, 0); /* not even a header */
	driver_offer(&m->driver, TX, 0);
	assert_int_equal(driver_used(&m->driver, TX), 1);
}

static void a_full_network_is_waited_for(void **state)
{
	struct machine *m = *state;
	const struct net_header none = { 0 };
	start(m, 0);
	m->full = true;
	send(m, &none, 60, 20);
	send(m, &none, 60, 20);
	assert_int_equal(driver_used(&m->driver, TX), 0);
	m->full = false;
	virtio_net_ready(&m->net);
	assert_int_equal(m->sent, 2);
	assert_int_equal(driver_used(&m->driver, TX), 2);
}

/* A vCPU notifies the queue to the network at time `now`: whether that is left to the network's thread. */
static bool ring(struct machine *m, u64 now)
{
	return virtio_doorbell(&m->net.virtio, DRIVER_NOTIFY + 4 * TX, now);
}

static void many_small_frames_are_left_to_the_thread(void **state)
{
	struct machine *m = *state;
	const struct net_header none = { 0 };
	u64 now = 1000000000;
	m->net.backend.wake = net_wake;
	start(m, VIRTIO_F_EVENT_IDX);
	assert_false(ring(m, now));
	assert_false(ring(m, now + 1)); /* nothing says that frames are small */
	for (unsigned i = 0; i < 100; i++)
		send(m, &none, 60, 20);
	assert_false(ring(m, now += 1000000));
	assert_int_equal(m->woken, 0);
	unsigned messages = m->driver.messages, sent = m->sent;
	for (unsigned i = 0; i < 10; i++)
		driver_put(&m->driver, TX, 0);
	assert_true(ring(m, now += 20000));
	assert_int_equal(m->woken, 1);
	assert_int_equal(m->sent, sent);
	assert_false(virtio_net_ready(&m->net));
	assert_int_equal(m->sent, sent + 10);
	assert_int_equal(driver_used(&m->driver, TX), 110);
	assert_true(m->driver.messages - messages <= 1);
	assert_false(virtio_net_ready(&m->net)); /* once is enough */
	send(m, &none, 5000, 20);
	assert_false(ring(m, now += 20000));
}

/* What is more than one turn's work is not forgotten, whoever began it. */
static void long_work_is_done_in_turns(void **state)
{
	struct machine *m = *state;
	const struct net_header none = { 0 };
	m->net.backend.wake = net_wake;
	start(m, 0);
	send(m, &none, 60, 20);
	for (unsigned i = 0; i < 99; i++)
		driver_put(&m->driver, TX, 0);
	driver_notify(&m->driver, TX);
	assert_int_equal(m->sent, 65);
	assert_int_equal(m->woken, 1);
	assert_false(virtio_net_ready(&m->net));
	assert_int_equal(m->sent, 100);
	for (unsigned i = 0; i < 100; i++)
		driver_put(&m->driver, TX, 0);
	assert_true(ring(m, 1) || ring(m, 2));
	assert_true(virtio_net_ready(&m->net));
	assert_int_equal(m->sent, 164);
	assert_false(virtio_net_ready(&m->net));
	assert_int_equal(m->sent, 200);
}

/* The doorbell is where the BAR is, and nowhere else. */
static void the_doorbell_moves(void **state)
{
	struct machine *m = *state;
	const struct net_header none = { 0 };
	const u64 command = MAP_ECAM + (DRIVER_SLOT << 15) + PCI_COMMAND, bar = MAP_ECAM + (DRIVER_SLOT << 15) + PCI_BAR0;
	u64 now = 1000000000;
	m->net.backend.wake = net_wake;
	start(m, 0);
	for (unsigned i = 0; i < 100; i++)
		send(m, &none, 60, 20);
	assert_false(ring(m, ++now));
	assert_true(ring(m, ++now));
	for (unsigned queue = 0; queue < 5; queue++)
		assert_int_equal(virtio_doorbell(&m->net.virtio, DRIVER_NOTIFY + 4ull * queue, ++now), queue == TX);
	assert_false(virtio_doorbell(&m->net.virtio, DRIVER_NOTIFY - 1, ++now));
	assert_false(virtio_doorbell(&m->net.virtio, 4 * TX, ++now));
	bus_write(&m->driver.memory, bar, 4, DRIVER_BAR + 0x100000, 0);
	assert_false(ring(m, ++now));
	assert_true(virtio_doorbell(&m->net.virtio, DRIVER_NOTIFY + 0x100000 + 4 * TX, ++now));
	bus_write(&m->driver.memory, command, 2, 0, 0);
	assert_false(virtio_doorbell(&m->net.virtio, DRIVER_NOTIFY + 0x100000 + 4 * TX, ++now));
	assert_false(virtio_doorbell(&m->net.virtio, 0x3000 + 4 * TX - 1, ++now)); /* that is nowhere, too */
}

static void a_reset_forgets_what_waits(void **state)
{
	struct machine *m = *state;
	const struct net_header none = { 0 };
	m->net.backend.wake = net_wake;
	start(m, 0);
	for (unsigned i = 0; i < 100; i++)
		send(m, &none, 60, 20);
	driver_put(&m->driver, TX, 0);
	assert_true(ring(m, 1) || ring(m, 2));
	driver_set(&m->driver, 20, 1, 0);
	assert_false(virtio_net_ready(&m->net));
	assert_int_equal(m->sent, 100);
	assert_int_equal(driver_used(&m->driver, TX), 100);
}

static void frames_arrive(void **state)
{
	struct machine *m = *state;
	start(m, 0);
	arrive(m, our_mac, 60);
	assert_false(virtio_net_ready(&m->net)); /* it waits */
	assert_int_equal(m->waits, 1);
	offer_room(m, 0, DATA, 2000);
	driver_notify(&m->driver, RX);
	assert_int_equal(m->waits, 0);
	assert_int_equal(driver_used(&m->driver, RX), 1);
	assert_int_equal(driver_written(&m->driver, RX, 0), 72);
	assert_int_equal(m->driver.bytes[DATA + 10], 1);
	assert_int_equal(m->driver.bytes[DATA + 12 + 59], (u8)(59 * 7 + 60));
	offer_room(m, 0, DATA, 71); /* one byte short, and buffers are not merged: lost, and the buffer is still there */
	arrive(m, our_mac, 60);
	arrive(m, our_mac, 59);
	virtio_net_ready(&m->net);
	assert_int_equal(m->waits, 0);
	assert_int_equal(driver_used(&m->driver, RX), 2);
	assert_int_equal(driver_written(&m->driver, RX, 1), 71);
	assert_int_equal(m->net.count.rx_frames, 2);
	assert_int_equal(m->net.count.rx_bytes, 119);
}

/* Buffers of one to many bytes: all of a frame's come back at once, and the first says how many there are. */
static void buffers_are_merged(void **state)
{
	struct machine *m = *state;
	static const u32 sizes[] = { 1, 2, 5, 11, 12, 40, 90, 100 };
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		u32 size = sizes[s], buffers = (102 + size - 1) / size;
		start(m, MERGEABLE);
		arrive(m, our_mac, 90);
		for (u32 i = 0; i < buffers - 1; i++)
			offer_room(m, (u16)i, DATA + i * size, size);
		virtio_net_ready(&m->net);
		assert_int_equal(driver_used(&m->driver, RX), 0);
		offer_room(m, (u16)(buffers - 1), DATA + (buffers - 1) * size, size);
		driver_notify(&m->driver, RX);
		assert_int_equal(driver_used(&m->driver, RX), buffers);
		assert_int_equal(m->driver.bytes[DATA + 10] | m->driver.bytes[DATA + 11] << 8, buffers);
		for (u32 i = 6; i < 90; i++)
			assert_int_equal(m->driver.bytes[DATA + 12 + i], (u8)(i * 7 + 90));
		assert_int_equal(driver_written(&m->driver, RX, (u16)(buffers - 1)), 102 - (buffers - 1) * size);
	}
}

static void a_frame_too_large_for_all_buffers_is_lost(void **state)
{
	struct machine *m = *state;
	start(m, MERGEABLE);
	for (u16 i = 0; i < VIRTQ_SIZE_MAX; i++)
		offer_room(m, i, DATA, 4);
	arrive(m, our_mac, 1000);
	arrive(m, our_mac, 60);
	virtio_net_ready(&m->net);
	assert_int_equal(m->waits, 0);
	assert_int_equal(driver_used(&m->driver, RX), 18);
}

static void offloads_are_those_negotiated(void **state)
{
	struct machine *m = *state;
	static const struct {
		u64 features;
		u32 accepted;
	} rows[] = {
		{ 0, 0 }, { GUEST_CSUM, NET_CHECKSUM }, { GUEST_TSO4, 0 }, { GUEST_CSUM | GUEST_TSO4, NET_CHECKSUM | NET_TSO4 },
		{ GUEST_CSUM | BIT(9), NET_CHECKSUM },
	};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		start(m, rows[i].features);
		assert_int_equal(m->accepted, rows[i].accepted);
	}
	start(m, GUEST_CSUM | GUEST_TSO4 | GUEST_OFFLOADS);
	u64 less = GUEST_CSUM, more = GUEST_CSUM | BIT(8);
	assert_int_equal(command(m, 5, 0, &less, 8), 0);
	assert_int_equal(m->accepted, NET_CHECKSUM);
	assert_int_equal(command(m, 5, 0, &more, 8), 1);
	struct net_header *h = arrive(m, our_mac, 200); /* still on its way with more than is accepted now */
	*h = (struct net_header){ .flags = 1, .gso_type = 1, .gso_size = 20, .checksum_start = 34, .checksum_offset = 16 };
	h = arrive(m, our_mac, 100);
	*h = (struct net_header){ .flags = 1, .checksum_start = 34, .checksum_offset = 16 };
	h = arrive(m, our_mac, 100);
	*h = (struct net_header){ .flags = 1, .checksum_start = 34, .checksum_offset = 65 };
	offer_room(m, 0, DATA, 2000);
	offer_room(m, 1, DATA + 2000, 2000);
	virtio_net_ready(&m->net);
	assert_int_equal(driver_used(&m->driver, RX), 1);
	driver_set(&m->driver, 20, 1, 0);
	assert_int_equal(m->accepted, 0);
}

/* Whether a frame for `to` comes through. */
static bool passes(struct machine *m, const u8 *to)
{
	u16 before = driver_used(&m->driver, RX);
	offer_room(m, 0, DATA + 0x4000, 2000);
	arrive(m, to, 60);
	virtio_net_ready(&m->net);
	bool passed = driver_used(&m->driver, RX) != before;
	if (!passed)
		m->driver.bytes[DRIVER_AVAILABLE(RX) + 2]--; /* take it back */
	return passed;
}

static void the_filter_lets_through_what_it_is_told(void **state)
{
	struct machine *m = *state;
	static const u8 other[] = { 2, 0, 0, 0, 0, 9 }, group[] = { 0x33, 0x33, 0, 0, 0, 1 }, all[] = { 255, 255, 255, 255, 255, 255 };
	static const struct {
		u8 class, number;
		u8 data[24];
		u32 size;
		bool ours, other, group, all;
	} rows[] = {
		{ 0, 3, { 0 }, 1, true, false, false, true }, /* nothing changes */
		{ 0, 0, { 1 }, 1, true, true, true, true },
		{ 0, 0, { 0 }, 1, true, false, false, true },
		{ 0, 1, { 1 }, 1, true, false, true, true },
		{ 0, 3, { 1 }, 1, true, false, false, true },
		{ 0, 3, { 0 }, 1, true, false, true, true },
		{ 0, 1, { 0 }, 1, true, false, false, true },
		{ 0, 2, { 1 }, 1, true, true, false, true },
		{ 0, 4, { 1 }, 1, false, false, false, true },
		{ 0, 4, { 0 }, 1, true, true, false, true },
		{ 0, 2, { 0 }, 1, true, false, false, true },
		{ 0, 5, { 1 }, 1, true, false, false, false },
		{ 0, 5, { 0 }, 1, true, false, false, true },
		{ 1, 0, { 1, 0, 0, 0, 2, 0, 0, 0, 0, 9, 1, 0, 0, 0, 0x33, 0x33, 0, 0, 0, 1 }, 20, true, true, true, true },
		{ 1, 0, { 0, 0, 0, 0, 0, 0, 0, 0 }, 8, true, false, false, true },
		{ 1, 1, { 2, 0, 0, 0, 0, 9 }, 6, false, true, false, true },
	};
	start(m, CTRL_RX | CTRL_RX_EXTRA | CTRL_MAC);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(command(m, rows[i].class, rows[i].number, rows[i].data, rows[i].size), 0);
		bool good = passes(m, our_mac) == rows[i].ours && passes(m, other) == rows[i].other && passes(m, group) == rows[i].group &&
			    passes(m, all) == rows[i].all;
		if (!good)
			print_error("row %zu\n", i);
		assert_true(good);
	}
	start(m, 0); /* a driver that cannot set it gets all */
	assert_true(passes(m, other) && passes(m, group));
}

static void vlans(void **state)
{
	struct machine *m = *state;
	u16 five = 5, most = 4096;
	start(m, CTRL_RX | CTRL_VLAN);
	assert_int_equal(command(m, 2, 0, &most, 2), 1);
	for (unsigned i = 0; i < 3; i++) {
		if (i)
			assert_int_equal(command(m, 2, (u8)(i - 1), &five, 2), 0);
		u16 before = driver_used(&m->driver, RX);
		offer_room(m, 0, DATA + 0x4000, 2000);
		u8 *frame = (u8 *)arrive(m, our_mac, 60) + HEADER;
		memcpy(frame + 12, (const u8[]){ 0x81, 0, 0x60, 5 }, 4);
		virtio_net_ready(&m->net);
		assert_int_equal(driver_used(&m->driver, RX) - before, i == 1);
	}
}

static void wrong_commands_are_refused(void **state)
{
	struct machine *m = *state;
	static const struct {
		u8 class, number;
		u8 data[8];
		u32 size;
	} rows[] = {
		{ 0, 6, { 1 }, 1 }, { 0, 0, { 1 }, 0 },       { 1, 0, { 255, 255, 255, 255 }, 4 }, { 1, 0, { 2, 0, 0, 0, 1, 2 }, 6 },
		{ 1, 1, { 1 }, 5 }, { 2, 0, { 1 }, 1 },       { 4, 0, { 1 }, 2 },                  { 9, 0, { 0 }, 0 },
		{ 5, 0, { 1 }, 8 }, { 1, 0, { 0, 0, 0, 0 }, 4 },
	};
	start(m, CTRL_RX | CTRL_RX_EXTRA | CTRL_MAC | CTRL_VLAN | GUEST_OFFLOADS);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(command(m, rows[i].class, rows[i].number, rows[i].data, rows[i].size), 1);
	assert_int_equal(driver_get(&m->driver, 20, 1), DRIVER_STATUS_WORKS);
	start(m, 0); /* without the features there are no such commands */
	assert_int_equal(command(m, 0, 0, "\1", 1), 1);
	driver_descriptor(&m->driver, CONTROL, 0, DATA, 1, 0); /* half a command, and no place for an answer */
	driver_offer(&m->driver, CONTROL, 0);
	assert_int_equal(driver_used(&m->driver, CONTROL), 2);
}

static void the_link_goes_down(void **state)
{
	struct machine *m = *state;
	start(m, BIT(16));
	u64 generation = driver_get(&m->driver, 21, 1);
	m->down = true;
	virtio_net_ready(&m->net);
	assert_int_equal(driver_get(&m->driver, 0x2006, 2), 0);
	assert_int_not_equal(driver_get(&m->driver, 21, 1), generation);
	assert_int_equal(driver_get(&m->driver, 0x1000, 1) & 2, 2); /* an interrupt for the configuration */
	m->down = false;
	virtio_net_ready(&m->net);
	assert_int_equal(driver_get(&m->driver, 0x2006, 2), 1);
}

static void without_a_driver_frames_are_lost(void **state)
{
	struct machine *m = *state;
	arrive(m, our_mac, 60);
	virtio_net_ready(&m->net);
	assert_int_equal(m->waits, 0);
	start(m, 0);
	offer_room(m, 0, DATA, 2000);
	arrive(m, our_mac, 60);
	driver_set(&m->driver, 20, 1, 0);
	virtio_net_ready(&m->net);
	assert_int_equal(m->waits, 0);
	assert_int_equal(driver_used(&m->driver, RX), 0);
}

static void hostile_rings_need_a_reset(void **state)
{
	struct machine *m = *state;
	for (unsigned queue = RX; queue <= CONTROL; queue++) {
		start(m, MERGEABLE);
		offer_room(m, 0, DATA, 20);
		driver_descriptor(&m->driver, queue, 1, ~0ull - 4, 100, queue == RX ? DESC_WRITE : 0);
		driver_put(&m->driver, queue, 1);
		arrive(m, our_mac, 60);
		virtio_net_ready(&m->net);
		driver_notify(&m->driver, queue);
		assert_int_equal(driver_get(&m->driver, 20, 1), DRIVER_STATUS_WORKS | 64);
		assert_int_equal(driver_used(&m->driver, RX), 0);
		m->waits = 0;
	}
	start(m, MERGEABLE);
	offer_room(m, 0, DATA, 2000);
	arrive(m, our_mac, 60);
	virtio_net_ready(&m->net);
	assert_int_equal(driver_used(&m->driver, RX), 1);
}

/* ---- several pairs of queues ---- */

#define PAIRS NET_PAIRS_MAX
#define PAIRS_CONTROL (2 * PAIRS)
#define PAIRS_DATA 0x20000ull /* behind all rings */

/* A TCP frame between two stations, to one side or back. */
static void fill_flow(u8 *frame, unsigned flow, bool back)
{
	static const u8 here[4] = { 10, 0, 0, 1 }, there[4] = { 10, 0, 0, 2 };
	memset(frame, 0, 60);
	memcpy(frame, our_mac, 6);
	frame[12] = 8;
	frame[14] = 0x45;
	frame[23] = 6;
	memcpy(frame + 26, back ? there : here, 4);
	memcpy(frame + 30, back ? here : there, 4);
	frame[back ? 37 : 35] = (u8)flow;
	frame[back ? 35 : 37] = 80;
}

static void send_flow(struct machine *m, unsigned pair, unsigned flow)
{
	u8 *p = m->driver.bytes + PAIRS_DATA;
	memset(p, 0, HEADER);
	fill_flow(p + HEADER, flow, false);
	driver_descriptor(&m->driver, 2 * pair + 1, 0, PAIRS_DATA, 20, DESC_NEXT);
	driver_descriptor(&m->driver, 2 * pair + 1, 1, PAIRS_DATA + 20, (u32)HEADER + 40, 0);
	driver_offer(&m->driver, 2 * pair + 1, 0);
}

static void answer_flow(struct machine *m, unsigned flow)
{
	arrive(m, our_mac, 60);
	fill_flow(m->waiting[m->waits - 1] + HEADER, flow, true);
	virtio_net_ready(&m->net);
}

static void offer_room_to(struct machine *m, unsigned pair, u16 index)
{
	driver_descriptor(&m->driver, 2 * pair, index, PAIRS_DATA + 0x1000, 2000, DESC_WRITE);
	driver_put(&m->driver, 2 * pair, index);
}

/* What the device answers to a wish for so many pairs. */
static u8 choose_pairs(struct machine *m, u16 pairs)
{
	u8 *p = m->driver.bytes + PAIRS_DATA;
	const u8 command[] = { 4, 0, (u8)pairs, (u8)(pairs >> 8) };
	memcpy(p, command, sizeof(command));
	p[0x2000] = 0xee;
	driver_descriptor(&m->driver, PAIRS_CONTROL, 0, PAIRS_DATA, sizeof(command), DESC_NEXT);
	driver_descriptor(&m->driver, PAIRS_CONTROL, 1, PAIRS_DATA + 0x2000, 1, DESC_WRITE);
	driver_offer(&m->driver, PAIRS_CONTROL, 0);
	return p[0x2000];
}

static void start_pairs(struct machine *m)
{
	driver_start(&m->driver, MQ | CTRL_VQ | MERGEABLE, PAIRS_CONTROL + 1);
	assert_int_equal(choose_pairs(m, PAIRS), 0);
	for (unsigned pair = 0; pair < PAIRS; pair++)
		for (u16 i = 0; i < 8; i++)
			offer_room_to(m, pair, i);
}

static void pairs_are_offered_and_chosen(void **state)
{
	struct machine *m = *state;
	assert_true(driver_offered(&m->driver) & MQ);
	assert_int_equal(driver_get(&m->driver, 0x2008, 2), PAIRS);
	start_pairs(m);
	assert_int_equal(choose_pairs(m, 0), 1);
	assert_int_equal(choose_pairs(m, PAIRS + 1), 1);
	assert_int_equal(choose_pairs(m, 0x8000), 1);
	assert_int_equal(choose_pairs(m, 1), 0);
}

/* Answers come by the pair that sent, and all by the first when there is but one. */
static void answers_come_where_was_asked(void **state)
{
	struct machine *m = *state;
	u16 used[PAIRS] = { 0 };
	start_pairs(m);
	for (unsigned flow = 1; flow <= 6; flow++) {
		unsigned pair = flow % PAIRS;
		send_flow(m, pair, flow);
		answer_flow(m, flow);
		used[pair]++;
		for (unsigned i = 0; i < PAIRS; i++)
			assert_int_equal(driver_used(&m->driver, 2 * i), used[i]);
	}
	assert_int_equal(m->sent, 6);
	assert_int_equal(choose_pairs(m, 1), 0);
	answer_flow(m, 2);
	answer_flow(m, 1);
	assert_int_equal(driver_used(&m->driver, 0), used[0] + 2);
}

/* A frame for a pair without buffers waits for them, or for the driver to give the pair up. */
static void a_pair_without_buffers_is_waited_for(void **state)
{
	struct machine *m = *state;
	driver_start(&m->driver, MQ | CTRL_VQ | MERGEABLE, PAIRS_CONTROL + 1);
	m->net.backend.wake = net_wake;
	assert_int_equal(choose_pairs(m, PAIRS), 0);
	offer_room_to(m, 0, 0);
	send_flow(m, 1, 5);
	answer_flow(m, 5);
	assert_int_equal(m->waits, 1);
	driver_notify(&m->driver, 0); /* another pair's */
	assert_int_equal(m->waits, 1);
	offer_room_to(m, 1, 0);
	driver_notify(&m->driver, 2);
	assert_int_equal(m->waits, 0);
	assert_int_equal(driver_used(&m->driver, 2), 1);
	answer_flow(m, 5);
	assert_int_equal(m->waits, 1);
	assert_int_equal(choose_pairs(m, 1), 0);
	assert_int_equal(m->woken, 1);
	virtio_net_ready(&m->net);
	assert_int_equal(m->waits, 0);
	assert_int_equal(driver_used(&m->driver, 0), 1);
}

/* To a driver that does not know of pairs, the queue behind the first is for control. */
static void pairs_need_not_be_known(void **state)
{
	struct machine *m = *state;
	const u8 all = 1;
	start(m, CTRL_RX);
	assert_int_equal(command(m, 0, 0, &all, 1), 0);
	const u16 pairs = 2;
	assert_int_equal(command(m, 4, 0, &pairs, 2), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_PAIRS(name) cmocka_unit_test_setup_teardown(name, setup_pairs, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(describes_itself),
		TEST(frames_are_sent),
		TEST(what_is_no_frame_is_not_sent),
		TEST(a_full_network_is_waited_for),
		TEST(many_small_frames_are_left_to_the_thread),
		TEST(long_work_is_done_in_turns),
		TEST(the_doorbell_moves),
		TEST(a_reset_forgets_what_waits),
		TEST(frames_arrive),
		TEST(buffers_are_merged),
		TEST(a_frame_too_large_for_all_buffers_is_lost),
		TEST(offloads_are_those_negotiated),
		TEST(the_filter_lets_through_what_it_is_told),
		TEST(vlans),
		TEST(wrong_commands_are_refused),
		TEST(the_link_goes_down),
		TEST(without_a_driver_frames_are_lost),
		TEST(hostile_rings_need_a_reset),
		TEST_PAIRS(pairs_are_offered_and_chosen),
		TEST_PAIRS(answers_come_where_was_asked),
		TEST_PAIRS(a_pair_without_buffers_is_waited_for),
		TEST_PAIRS(pairs_need_not_be_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
