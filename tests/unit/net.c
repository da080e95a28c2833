/* Networks on the host: frames over sockets, what is done for receivers that take nothing but plain frames, and the words of --net. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/net_internal.h"
#include "host/linux/net_offload.h"
#include "host/linux/net_stream.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NETWORK 14u
#define TRANSPORT 34u
#define DATA 54u

int net_complain(const char *what, const char *why)
{
	return -1;
}

/* ---- streams ---- */

static struct stream left, right;

static int connect_streams(void **state)
{
	int fd[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
	assert_true(stream_init(&left, fd[0], 0x100000) && stream_init(&right, fd[1], 1));
	return 0;
}

static int release_streams(void **state)
{
	stream_release(&left);
	stream_release(&right);
	return 0;
}

/* A frame of one byte repeated, which is its size's lowest. */
static bool send_plain(struct stream *s, u32 size)
{
	static u8 plain[sizeof(struct net_header) + NET_FRAME_MAX];
	memset(plain, (int)size, size);
	const struct iovec vector[] = { { plain, 1 }, { plain, 0 }, { plain, size - 1 } };
	return stream_send(s, vector, 3);
}

static void expect_plain(struct stream *s, u32 size)
{
	u32 got;
	const u8 *frame = stream_peek(s, &got);
	assert_non_null(frame);
	assert_int_equal(got, size);
	assert_ptr_equal(stream_peek(s, &got), frame); /* until it is taken */
	assert_int_equal(frame[0], (u8)size);
	assert_int_equal(frame[size - 1], (u8)size);
	stream_next(s);
}

static void frames_cross(void **state)
{
	u32 size;
	assert_null(stream_peek(&right, &size));
	for (u32 i = NET_FRAME_MIN; i < 3000; i += 7) {
		assert_true(send_plain(&left, i));
		assert_true(send_plain(&left, NET_FRAME_MAX - i));
		assert_true(stream_flush(&left));
		expect_plain(&right, i);
		expect_plain(&right, NET_FRAME_MAX - i);
	}
	assert_null(stream_peek(&right, &size));
	assert_false(right.closed);
}

/* More than the socket takes: what is left over waits, in order. */
static void a_slow_reader(void **state)
{
	unsigned sent = 0, got = 0;
	while (send_plain(&left, 5000 + sent % 100))
		sent++;
	assert_true(sent > 0x100000 / 5100);
	assert_false(stream_flush(&left));
	while (got < sent) {
		u32 size;
		stream_flush(&left);
		if (stream_peek(&right, &size))
			expect_plain(&right, 5000 + got++ % 100);
	}
	assert_true(stream_flush(&left));
	assert_int_equal(left.out_end, 0);
	sent = 0;
	while (send_plain(&right, 60000))
		sent++;
	assert_true(sent < 100); /* a stream without a queue takes what the socket does, and one more */
}

static void both_say_what_they_accept(void **state)
{
	u32 size;
	assert_false(right.headers_in);
	stream_accept(&left, NET_CHECKSUM | NET_TSO4);
	assert_true(left.headers_out);
	assert_null(stream_peek(&right, &size));
	assert_true(right.headers_in);
	assert_int_equal(right.accepts, NET_CHECKSUM | NET_TSO4);
	send_plain(&left, sizeof(struct net_header) + NET_FRAME_MAX);
	stream_accept(&left, 0);
	expect_plain(&right, sizeof(struct net_header) + NET_FRAME_MAX);
	assert_null(stream_peek(&right, &size));
	assert_int_equal(right.accepts, 0);
}

static void nonsense_closes(void **state)
{
	static const u32 words[] = { 0, 13, NET_FRAME_MAX + 13, 0x7fffffff, 0x80000000, 0x80000003, 0x80000041, 0xffffffff };
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		u32 size, word = htonl(words[i]);
		assert_int_equal(write(left.fd, &word, sizeof(word)), sizeof(word));
		assert_null(stream_peek(&right, &size));
		assert_true(right.closed);
		assert_true(send_plain(&right, 60)); /* and is lost */
		release_streams(NULL);
		connect_streams(NULL);
	}
}

static void an_end_closes(void **state)
{
	u32 size;
	send_plain(&left, 60);
	assert_null(stream_peek(&right, &size)); /* it is gathered with others */
	stream_flush(&left);
	shutdown(left.fd, SHUT_RDWR);
	expect_plain(&right, 60);
	assert_null(stream_peek(&right, &size));
	assert_true(right.closed);
}

/* ---- checksums and segments ---- */

/* Half a frame on its way each time, and what was agreed, belong to the old connection. */
static void a_new_connection_begins_anew(void **state)
{
	u32 size;
	int fd[2];
	stream_accept(&left, NET_CHECKSUM);
	stream_accept(&right, 0);
	assert_null(stream_peek(&right, &size));
	assert_true(right.headers_in);
	assert_int_equal(write(left.fd, "\0\0\4\0half", 8), 8);
	assert_null(stream_peek(&right, &size));
	close(left.fd);
	left.fd = -1;
	assert_null(stream_peek(&right, &size));
	assert_true(right.closed);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	stream_renew(&left, fd[0]);
	stream_renew(&right, fd[1]);
	assert_false(right.closed || right.headers_in || right.headers_out || right.accepts);
	assert_true(send_plain(&left, 100) && stream_flush(&left));
	expect_plain(&right, 100);
	assert_null(stream_peek(&right, &size));
}

static u8 frame[NET_FRAME_MAX];

static u32 sum16(const u8 *p, u32 size)
{
	u32 sum = 0;
	for (u32 i = 0; i < size; i++)
		sum += i & 1 ? p[i] : (u32)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Whether a TCP segment's checksum is right: the sum over everything, the pseudo header in front, is all ones. */
static bool tcp_sum_right(const u8 *f, u32 size)
{
	bool ipv6 = f[12] == 0x86;
	u32 transport = ipv6 ? 54 : TRANSPORT;
	u32 sum = sum16(f + transport, size - transport) + (ipv6 ? sum16(f + NETWORK + 8, 32) : sum16(f + NETWORK + 12, 8)) + 6 + size - transport;
	return sum % 0xffff == 0;
}

/* A TCP segment with `size` bytes of data; the checksum is left to do. */
static u32 make_segment(bool ipv6, u32 size, u8 flags)
{
	u32 transport = ipv6 ? 54 : TRANSPORT, all = transport + 20 + size;
	u8 *ip = frame + NETWORK, *tcp = frame + transport;
	memset(frame, 0, sizeof(frame));
	put_be16(frame + 12, ipv6 ? 0x86dd : 0x0800);
	ip[0] = ipv6 ? 0x60 : 0x45;
	put_be16(ip + (ipv6 ? 4 : 2), ipv6 ? all - transport : all - NETWORK);
	ip[ipv6 ? 6 : 9] = 6;
	put_be16(ip + 4 + (ipv6 ? 100 : 0), 0xfffe); /* the identification */
	if (ipv6)
		put_be16(ip + 4, all - transport);
	for (unsigned i = 0; i < (ipv6 ? 32 : 8); i++)
		ip[(ipv6 ? 8 : 12) + i] = (u8)(i * 37 + 1);
	put_be32(tcp + 4, 0xfffffff0);
	tcp[12] = 0x50;
	tcp[13] = flags;
	for (u32 i = 0; i < size; i++)
		tcp[20 + i] = (u8)(i * 13 + i / 256);
	struct tcp_place place;
	assert_true(tcp_find(frame, all, &place));
	u16 pseudo = tcp_pseudo_sum(frame, &place);
	memcpy(tcp + 16, &pseudo, 2);
	return all;
}

struct collected {
	u8 data[NET_FRAME_MAX];
	u32 size, frames, data_at;
	u8 flags[4], last_flags;
};

static void collect(void *opaque, u8 *f, u32 size)
{
	struct collected *c = opaque;
	bool ipv6 = f[12] == 0x86;
	u32 transport = ipv6 ? 54 : TRANSPORT;
	assert_true(tcp_sum_right(f, size));
	assert_int_equal(get_be32(f + transport + 4), 0xfffffff0 + c->size);
	if (ipv6) {
		assert_int_equal(get_be16(f + NETWORK + 4), size - transport);
	} else {
		assert_int_equal(get_be16(f + NETWORK + 2), size - NETWORK);
		assert_int_equal(get_be16(f + NETWORK + 4), (u16)(0xfffe + c->frames));
		assert_int_equal(sum16(f + NETWORK, 20), 0xffff);
	}
	c->last_flags = f[transport + 13];
	if (c->frames < 4)
		c->flags[c->frames] = f[transport + 13];
	memcpy(c->data + c->size, f + transport + 20, size - transport - 20);
	c->size += size - transport - 20;
	c->frames++;
}

static void segments_are_cut(void **state)
{
	static struct collected c;
	for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
		u32 size = 60001, all = make_segment(ipv6, size, 0x80 | 0x10 | 8 | 1), transport = ipv6 ? 54 : TRANSPORT;
		const struct net_header h = { .flags = 1, .gso_type = ipv6 ? NET_GSO_TCPV6 : NET_GSO_TCPV4, .gso_size = 1448,
					      .checksum_start = (u16)transport, .checksum_offset = 16 };
		assert_false(offload_accepted(&h, NET_CHECKSUM | (ipv6 ? NET_TSO4 : NET_TSO6)));
		assert_true(offload_accepted(&h, NET_CHECKSUM | (ipv6 ? NET_TSO6 : NET_TSO4)));
		c = (struct collected){ 0 };
		assert_true(offload_complete(&h, frame, all, collect, &c));
		assert_int_equal(c.size, size);
		assert_int_equal(c.frames, (size + 1447) / 1448);
		assert_memory_equal(c.data, frame + transport + 20, size);
		assert_int_equal(c.flags[0], 0x90); /* CWR in the first, PSH and FIN in the last */
		assert_int_equal(c.flags[1], 0x10);
		assert_int_equal(c.last_flags, 0x19);
	}
}

static void checksums_are_made(void **state)
{
	static struct collected c;
	for (u32 size = 0; size < 300; size++) {
		u32 all = make_segment(size & 1, size, 0x10), transport = size & 1 ? 54 : TRANSPORT;
		const struct net_header h = { .flags = 1, .checksum_start = (u16)transport, .checksum_offset = 16 };
		c = (struct collected){ 0 };
		if (!(size & 1))
			put_be16(frame + NETWORK + 10, 0xffff ^ sum16(frame + NETWORK, 20));
		assert_true(offload_complete(&h, frame, all, collect, &c));
		assert_int_equal(c.frames, 1);
	}
	struct net_header far = { .flags = 1, .checksum_start = 0xffff, .checksum_offset = 0xffff };
	assert_false(offload_checksum(&far, frame, 100));
}

static void what_is_no_segment_is_not_cut(void **state)
{
	static struct collected c;
	const struct net_header h = { .flags = 1, .gso_type = 1, .gso_size = 100, .checksum_start = TRANSPORT, .checksum_offset = 16 };
	static const struct {
		u32 at;
		u8 value;
	} rows[] = { { 12, 9 }, { NETWORK, 0x44 }, { NETWORK, 0x4f }, { NETWORK + 9, 17 }, { NETWORK + 6, 0x20 }, { NETWORK + 2, 0xff },
		     { TRANSPORT + 12, 0x40 }, { TRANSPORT + 12, 0xf0 } };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		u32 all = make_segment(false, 20, 0);
		frame[rows[i].at] = rows[i].value;
		assert_false(offload_complete(&h, frame, all, collect, &c));
	}
	struct tcp_place place;
	for (u32 size = 0; size < DATA; size++)
		assert_false(tcp_find(frame, size, &place));
}

static void the_segment_size_is_found(void **state)
{
	static const u8 options[][8] = { { 2, 4, 5, 0xb4 }, { 1, 1, 2, 4, 5, 0xb4 }, { 3, 3, 7, 2, 4, 5, 0xb4, 0 }, { 0, 2, 4, 5, 0xb4 }, { 2, 3, 5 },
					 { 3, 0, 2, 4 }, { 1, 1, 1, 1, 1, 1, 1, 2 }, { 3, 200 } };
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		struct tcp_place place;
		u32 all = make_segment(false, 8, 2);
		frame[TRANSPORT + 12] = 0x70;
		memcpy(frame + DATA, options[i], 8);
		assert_true(tcp_find(frame, all, &place));
		const u8 *found = tcp_segment_size_option(frame, &place);
		assert_int_equal(found != NULL, i < 3);
		if (found)
			assert_int_equal(get_be16(found), 1460);
		frame[TRANSPORT + 13] = 0x10; /* no SYN */
		assert_null(tcp_segment_size_option(frame, &place));
	}
}

static u32 fragments, fragment_bytes;

static void count_fragment(void *opaque, u8 *f, u32 size)
{
	assert_true(size <= NET_FRAME_MIN + NET_MTU);
	assert_int_equal(sum16(f + NETWORK, 20), 0xffff);
	assert_int_equal((get_be16(f + NETWORK + 6) & 0x1fff) * 8, fragment_bytes);
	fragment_bytes += size - TRANSPORT;
	assert_int_equal(get_be16(f + NETWORK + 6) >> 13, fragment_bytes < 5000);
	fragments++;
}

static void packets_are_fragmented(void **state)
{
	u32 all = make_segment(false, 4980, 0);
	frame[NETWORK + 9] = 17;
	fragments = fragment_bytes = 0;
	assert_true(offload_fragment(frame, all, count_fragment, NULL));
	assert_int_equal(fragments, 4);
	assert_int_equal(fragment_bytes, 5000);
	frame[NETWORK + 6] = 0x40; /* must not be */
	assert_false(offload_fragment(frame, all, count_fragment, NULL));
	frame[NETWORK + 6] = 0;
	assert_false(offload_fragment(frame, all - 1, count_fragment, NULL));
}

/* ---- words ---- */

static bool forward(const char *text, struct net_wishes *w)
{
	char copy[256];
	snprintf(copy, sizeof(copy), "%s", text);
	*w = (struct net_wishes){ 0 };
	return !net_parse_forward(copy, w);
}

static void forwards(void **state)
{
	static const char *const bad[] = { "", "tcp", "tcp:", "tcp:1", "tcp::1", "tcp::1-", "tcp::1-2", "tcp::0-:1", "tcp::1-:65536", "tcp:x:1-:2",
					   "icmp::1-:2", "tcp::1-:2x", "tcp:1.2.3:1-:2", "tcp::-1-:2", "tcp::1-1.2.3.4.5:2" };
	struct net_wishes w;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(forward(bad[i], &w));
	assert_true(forward("tcp:127.0.0.1:2222-:22", &w));
	assert_false(w.forward[0].udp);
	assert_int_equal(w.forward[0].host.s_addr, htonl(0x7f000001));
	assert_int_equal(w.forward[0].host_port, 2222);
	assert_int_equal(w.forward[0].guest.s_addr, 0);
	assert_int_equal(w.forward[0].guest_port, 22);
	assert_true(forward("udp::53-10.0.2.20:5353", &w));
	assert_true(w.forward[0].udp);
	assert_int_equal(w.forward[0].guest.s_addr, htonl(0x0a000214));
	assert_true(forward(":127.0.0.1:1-:2", &w)); /* TCP, as in QEMU */
}

static int parse_network(const char *text, struct net_wishes *w)
{
	char copy[64];
	snprintf(copy, sizeof(copy), "%s", text);
	return net_parse_network(copy, w);
}

static void addresses(void **state)
{
	static const char *const bad_macs[] = { "", "1", "52:54:00:12:34", "52:54:00:12:34:5g", "52:54:00:12:34:567", "01:00:00:00:00:01",
						"00:00:00:00:00:00", "52-54-00-12-34-56", "5:54:00:12:34:567" };
	static const char *const bad_networks[] = { "", "10.0.2", "10.0.2.0/", "10.0.2.0/33", "10.0.2.0/28", "10.0.2.0/0", "10.0.2.0/2x", "::/64" };
	struct net_wishes w = { 0 };
	for (size_t i = 0; i < ARRAY_SIZE(bad_macs); i++)
		assert_int_equal(net_parse_mac(bad_macs[i], &w), -1);
	for (size_t i = 0; i < ARRAY_SIZE(bad_networks); i++)
		assert_int_equal(parse_network(bad_networks[i], &w), -1);
	assert_int_equal(net_parse_mac("52:54:00:aB:cD:eF", &w), 0);
	assert_memory_equal(w.mac, ((const u8[]){ 0x52, 0x54, 0, 0xab, 0xcd, 0xef }), 6);
	assert_int_equal(parse_network("192.168.77.9/24", &w), 0);
	assert_int_equal(w.network.s_addr, htonl(0xc0a84d00));
	assert_int_equal(w.mask.s_addr, htonl(0xffffff00));
}

#define STREAM_TEST(name) cmocka_unit_test_setup_teardown(name, connect_streams, release_streams)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STREAM_TEST(frames_cross),
		STREAM_TEST(a_slow_reader),
		STREAM_TEST(both_say_what_they_accept),
		STREAM_TEST(nonsense_closes),
		STREAM_TEST(an_end_closes),
		STREAM_TEST(a_new_connection_begins_anew),
		cmocka_unit_test(segments_are_cut),
		cmocka_unit_test(checksums_are_made),
		cmocka_unit_test(what_is_no_segment_is_not_cut),
		cmocka_unit_test(the_segment_size_is_found),
		cmocka_unit_test(packets_are_fragmented),
		cmocka_unit_test(forwards),
		cmocka_unit_test(addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
