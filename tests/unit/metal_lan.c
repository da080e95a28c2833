/* Networks between guests: who gets which frame, what happens when somebody fetches none, and who is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/metal/lan.h"

#include <string.h>

#define GUESTS 4

static struct guest {
	struct lan_port *port;
	struct net_backend net;
	unsigned told;
	bool more;
} guest[GUESTS];

static bool ready(void *opaque)
{
	struct guest *g = opaque;
	g->told++;
	bool more = g->more;
	g->more = false;
	return more;
}

/* Three on one network, the last on another. */
static int setup(void **state)
{
	memset(guest, 0, sizeof(guest));
	for (unsigned i = 0; i < GUESTS; i++) {
		guest[i].port = lan_create(i < 3 ? "one" : "two", ready, &guest[i], &guest[i].net);
		assert_non_null(guest[i].port);
		assert_true(guest[i].net.poll(guest[i].net.net));
		assert_int_equal(guest[i].net.offloads, 0);
	}
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < GUESTS; i++)
		lan_destroy(guest[i].port);
	return 0;
}

/* A frame with `size` bytes, in three pieces. */
static void send(unsigned from, u8 to, u32 size, u8 fill)
{
	static u8 frame[NET_FRAME_MAX + 1];
	const struct net_header header = { 0 };
	memset(frame, fill, size);
	memset(frame, to, 6); /* 255: all */
	memset(frame + 6, 0, 6);
	frame[6] = 2;
	frame[11] = (u8)from;
	if (to != 255) {
		memset(frame, 0, 6);
		frame[0] = 2;
		frame[5] = to;
	}
	const struct virtq_piece piece[] = { { frame, 0, 3 }, { frame + 3, 0, 6 }, { frame + 9, 0, size - 9 } };
	assert_true(guest[from].net.send(guest[from].net.net, &header, piece, 3));
}

/* The size of the frame that waits, without its header; 0: none. */
static u32 fetch(unsigned to, u8 *fill)
{
	u32 size, again;
	const struct net_backend *b = &guest[to].net;
	const u8 *frame = b->peek(b->net, &size);
	if (!frame)
		return 0;
	assert_ptr_equal(b->peek(b->net, &again), frame);
	assert_int_equal(again, size);
	for (unsigned i = 0; i < sizeof(struct net_header); i++)
		assert_int_equal(frame[i], 0);
	*fill = frame[size - 1];
	b->next(b->net);
	return size - (u32)sizeof(struct net_header);
}

static void test_learning(void **state)
{
	u8 fill;
	send(0, 1, 60, 0x11); /* nobody knows 1: all of the network */
	assert_int_equal(fetch(1, &fill), 60);
	assert_int_equal(fill, 0x11);
	assert_int_equal(fetch(2, &fill), 60);
	assert_int_equal(fetch(0, &fill), 0);
	assert_int_equal(fetch(3, &fill), 0);
	send(1, 0, 61, 0x22);
	assert_int_equal(fetch(0, &fill), 61);
	assert_int_equal(fetch(2, &fill), 0);
	send(0, 1, 62, 0x33);
	assert_int_equal(fetch(1, &fill), 62);
	assert_int_equal(fetch(2, &fill), 0);
	send(0, 255, 63, 0x44);
	assert_int_equal(fetch(1, &fill), 63);
	assert_int_equal(fetch(2, &fill), 63);
	send(3, 1, 64, 0x55); /* known, but not on that network */
	assert_int_equal(fetch(1, &fill), 0);
	lan_detach(guest[1].port);
	send(1, 0, 60, 0x66); /* reaches nobody that matters, and is not learnt */
	send(0, 1, 65, 0x77);
	assert_int_equal(fetch(1, &fill), 0);
}

/* Frames of all sizes come whole and in order, wherever the ring begins anew; too many are lost, not waited for. */
static void test_ring(void **state)
{
	u8 fill = 0;
	for (u32 size = NET_FRAME_MIN; size < NET_FRAME_MAX; size += 997) {
		send(0, 255, size, (u8)size);
		assert_int_equal(fetch(1, &fill), size);
		assert_int_equal(fill, (u8)size);
		assert_int_equal(fetch(2, &fill), size);
	}
	for (unsigned i = 0; i < 1000; i++)
		send(0, 255, 1514, (u8)i);
	unsigned got = 0;
	for (; fetch(1, &fill); got++)
		assert_int_equal(fill, (u8)got);
	assert_in_range(got, 100, 999);
	send(0, 255, NET_FRAME_MAX, 1);
	assert_int_equal(fetch(1, &fill), NET_FRAME_MAX);
	send(0, 255, NET_FRAME_MAX + 1, 1); /* too large, and too small */
	send(0, 255, NET_FRAME_MIN - 1, 1);
	assert_int_equal(fetch(1, &fill), 0);
}

static void test_telling(void **state)
{
	send(0, 255, 60, 1);
	assert_false(lan_work());
	assert_int_equal(guest[0].told, 0);
	assert_int_equal(guest[1].told, 1);
	assert_int_equal(guest[2].told, 1);
	assert_false(lan_work());
	assert_int_equal(guest[1].told, 1);
	guest[3].more = true;
	guest[3].net.wake(guest[3].net.net);
	assert_true(lan_work());
	assert_false(lan_work());
	assert_int_equal(guest[3].told, 2);
}

static void test_addresses(void **state)
{
	static const char *const bad[] = { "", "5", "52:54:00:12:34", "52:54:00:12:34:5", "52:54:00:12:34:567", "53:54:00:12:34:56", "00:00:00:00:00:00",
					   "52-54-00-12-34-56", "52:54:00:12:34:5g", "52:54:00:12:34:56:" };
	u8 mac[6];
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(lan_read_mac(bad[i], mac));
	assert_true(lan_read_mac("52:54:00:aB:Cd:ef", mac));
	assert_memory_equal(mac, "\x52\x54\x00\xab\xcd\xef", 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_learning, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(test_telling, setup, teardown),
		cmocka_unit_test(test_addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
