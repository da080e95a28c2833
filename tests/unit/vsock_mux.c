/* The host's ends of a guest's sockets: connections made from both sides, bytes, room, and ends of every kind; packets that make no sense. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/linux/vsock_mux.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

#define CID 42u
#define HOST_PORT 5000u
#define GUEST_PORT 1234u

static struct vsock_mux *mux;
static int program = -1; /* the host's end of what was dialled or accepted */
static struct vsock_header last; /* the packet that was last taken */
static u8 bytes[0x10000];

static int dial(void *opaque, u32 port)
{
	int fd[2];
	if (port != HOST_PORT || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0)
		return -1;
	program = fd[0];
	return fd[1];
}

static int setup(void **state)
{
	mux = vsock_mux_create(CID, dial, NULL);
	return mux ? 0 : -1;
}

static int teardown(void **state)
{
	vsock_mux_destroy(mux);
	if (program >= 0)
		close(program);
	program = -1;
	return 0;
}

/* ---- the guest ---- */

static u32 guest_port = GUEST_PORT, host_port = HOST_PORT, guest_room = 100000, guest_taken;

static void say(u16 operation, u32 flags, const void *data, u32 size)
{
	const struct vsock_header header = { .from_cid = CID, .to_cid = 2, .from_port = guest_port, .to_port = host_port, .length = size, .type = 1,
					     .operation = operation, .flags = flags, .room = guest_room, .taken = guest_taken };
	vsock_mux_packet(mux, &header, data);
}

/* The next packet's operation; 0: there is none. */
static u16 take(void)
{
	u32 size;
	const u8 *packet = vsock_mux_peek(mux, &size);
	if (!packet)
		return 0;
	memcpy(&last, packet, sizeof(last));
	assert_int_equal(last.length, size - sizeof(last));
	memcpy(bytes, packet + sizeof(last), last.length);
	vsock_mux_next(mux);
	return last.operation;
}

/* Let it do all there is to do. */
static void turn(void)
{
	struct pollfd wishes[VSOCK_CONNECTIONS_MAX];
	for (unsigned i = 0; i < 8; i++) {
		unsigned count = vsock_mux_wishes(mux, wishes);
		poll(wishes, count, 0);
		vsock_mux_ready(mux, wishes);
	}
}

static void open_from_guest(void)
{
	guest_port = GUEST_PORT;
	host_port = HOST_PORT;
	guest_room = 100000;
	guest_taken = 0;
	say(REQUEST, 0, NULL, 0);
	assert_int_equal(take(), RESPONSE);
	assert_int_equal(last.from_port, HOST_PORT);
	assert_int_equal(last.to_port, GUEST_PORT);
	assert_int_equal(last.room, VSOCK_ROOM);
}

static void expect_program(const char *text)
{
	char got[64] = { 0 };
	assert_int_equal(recv(program, got, sizeof(got), MSG_DONTWAIT), strlen(text));
	assert_string_equal(got, text);
}

/* ---- tests ---- */

static void guest_connects(void **state)
{
	open_from_guest();
	say(RW, 0, "hello", 5);
	expect_program("hello");
	assert_int_equal(write(program, "answer", 6), 6);
	turn();
	assert_int_equal(take(), RW);
	assert_memory_equal(bytes, "answer", 6);
	assert_int_equal(last.taken, 5);
	say(CREDIT_REQUEST, 0, NULL, 0);
	assert_int_equal(take(), CREDIT_UPDATE);
}

static void program_connects(void **state)
{
	int fd[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
	program = fd[0];
	vsock_mux_accept(mux, fd[1]);
	assert_int_equal(write(program, "CONN", 4), 4);
	turn();
	assert_int_equal(take(), 0);
	assert_int_equal(write(program, "ECT 1234\nand more", 17), 17);
	turn();
	assert_int_equal(take(), REQUEST);
	assert_int_equal(last.to_port, 1234);
	guest_port = 1234;
	host_port = last.from_port;
	turn();
	assert_int_equal(take(), 0); /* it waits for the guest */
	say(RESPONSE, 0, NULL, 0);
	char ok[32];
	snprintf(ok, sizeof(ok), "OK %u\n", host_port);
	expect_program(ok);
	turn();
	assert_int_equal(take(), RW);
	assert_memory_equal(bytes, "and more", 8);
}

static void program_is_refused(void **state)
{
	static const char *const greetings[] = { "HELLO 1\n", "CONNECT \n", "CONNECT 1 2\n", "CONNECT 4294967295\n", "CONNECT 99999999999999999999\n", "CONNECT -1\n",
						 "a line that is longer than any that makes sense here\n" };
	for (size_t i = 0; i < ARRAY_SIZE(greetings); i++) {
		int fd[2];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
		vsock_mux_accept(mux, fd[1]);
		assert_true(write(fd[0], greetings[i], strlen(greetings[i])) > 0);
		turn();
		char byte;
		ssize_t n = recv(fd[0], &byte, 1, MSG_DONTWAIT);
		assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
		close(fd[0]);
		assert_int_equal(take(), 0);
	}
	host_port = HOST_PORT + 1;
	say(REQUEST, 0, NULL, 0);
	assert_int_equal(take(), RST);
	assert_int_equal(last.from_port, HOST_PORT + 1);
}

static void keeps_to_the_guests_room(void **state)
{
	static u8 much[30000];
	open_from_guest();
	guest_room = 10000;
	say(CREDIT_UPDATE, 0, NULL, 0);
	assert_int_equal(write(program, much, sizeof(much)), sizeof(much));
	u32 got = 0;
	turn();
	for (u16 operation; (operation = take()); turn()) {
		got += operation == RW ? last.length : 0;
		assert_true(operation == RW || operation == CREDIT_REQUEST);
	}
	assert_int_equal(got, 10000);
	guest_taken = 4000;
	say(CREDIT_UPDATE, 0, NULL, 0);
	turn();
	assert_int_equal(take(), RW);
	assert_int_equal(last.length, 4000);
	guest_room = 0; /* less than is on its way */
	say(CREDIT_UPDATE, 0, NULL, 0);
	turn();
	assert_int_equal(take(), CREDIT_REQUEST);
	turn();
	assert_int_equal(take(), 0);
}

static void tells_its_own_room(void **state)
{
	static u8 block[0x10000];
	u32 sent = 0;
	open_from_guest();
	/* Nobody reads: it can be kept, as far as there was room for it. */
	while (sent + sizeof(block) <= VSOCK_ROOM) {
		say(RW, 0, block, sizeof(block));
		sent += (u32)sizeof(block);
	}
	u32 got = 0, told = 0;
	for (ssize_t n; got < sent; turn()) {
		while ((n = recv(program, block, sizeof(block), MSG_DONTWAIT)) > 0)
			got += (u32)n;
	}
	while (take())
		told = last.operation == CREDIT_UPDATE ? last.taken : told;
	assert_true(told >= VSOCK_ROOM / 2);
	assert_int_equal(got, sent);
}

static void more_than_there_is_room_for_ends_it(void **state)
{
	static u8 block[0x10000];
	u16 operation = 0;
	open_from_guest();
	for (unsigned i = 0; i < 64 && operation != RST; i++) {
		say(RW, 0, block, sizeof(block));
		for (u16 one; (one = take());)
			operation = one;
	}
	assert_int_equal(operation, RST);
	say(RW, 0, block, 10);
	assert_int_equal(take(), RST);
}

static void each_side_may_end_first(void **state)
{
	char byte;
	/* The program says that it has sent all, and still takes. */
	open_from_guest();
	assert_int_equal(write(program, "last", 4), 4);
	shutdown(program, SHUT_WR);
	turn();
	assert_int_equal(take(), RW);
	turn();
	assert_int_equal(take(), SHUTDOWN);
	assert_int_equal(last.flags, 2);
	say(RW, 0, "late", 4);
	expect_program("late");
	say(SHUTDOWN, 3, NULL, 0);
	assert_int_equal(take(), RST);
	assert_int_equal(recv(program, &byte, 1, MSG_DONTWAIT), 0);
	close(program);
	/* The guest does. */
	open_from_guest();
	say(RW, 0, "all", 3);
	say(SHUTDOWN, 2, NULL, 0);
	expect_program("all");
	assert_int_equal(recv(program, &byte, 1, MSG_DONTWAIT), 0);
	assert_int_equal(write(program, "more", 4), 4);
	turn();
	assert_int_equal(take(), RW);
	close(program);
	turn();
	assert_int_equal(take(), SHUTDOWN);
	assert_int_equal(last.flags, 3);
	/* The program goes away. */
	open_from_guest();
	close(program);
	program = -1;
	turn();
	assert_int_equal(take(), SHUTDOWN);
	assert_int_equal(last.flags, 3);
	say(RST, 0, NULL, 0);
	assert_int_equal(take(), 0);
}

static void what_was_sent_before_the_end_arrives(void **state)
{
	static u8 block[0x10000];
	u32 got = 0;
	open_from_guest();
	for (unsigned i = 0; i < 4; i++)
		say(RW, 0, block, sizeof(block));
	say(SHUTDOWN, 3, NULL, 0);
	for (ssize_t n; (n = recv(program, block, sizeof(block), MSG_DONTWAIT)) != 0; turn())
		got += n > 0 ? (u32)n : 0;
	assert_int_equal(got, 4 * sizeof(block));
	while (take())
		;
	assert_int_equal(last.operation, RST);
}

static void nonsense_is_refused(void **state)
{
	struct vsock_header h = { .from_cid = CID, .to_cid = 2, .from_port = 1, .to_port = 2, .type = 1, .operation = RW };
	vsock_mux_packet(mux, &h, NULL);
	assert_int_equal(take(), RST);
	h.operation = RST;
	vsock_mux_packet(mux, &h, NULL);
	assert_int_equal(take(), 0);
	h = (struct vsock_header){ .from_cid = CID, .to_cid = 77, .from_port = 1, .to_port = HOST_PORT, .type = 1, .operation = REQUEST };
	vsock_mux_packet(mux, &h, NULL);
	assert_int_equal(take(), RST);
	assert_int_equal(last.from_cid, 77);
	h.to_cid = 2;
	h.type = 2; /* SEQPACKET was not offered */
	vsock_mux_packet(mux, &h, NULL);
	assert_int_equal(take(), RST);
	open_from_guest();
	say(REQUEST, 0, NULL, 0);
	assert_int_equal(take(), RST);
	open_from_guest();
	say(RESPONSE, 0, NULL, 0);
	assert_int_equal(take(), RST);
	open_from_guest();
	say(99, 0, NULL, 0);
	assert_int_equal(take(), RST);
	while (!vsock_mux_full(mux))
		say(RW, 0, NULL, 0);
	vsock_mux_reset(mux);
	assert_int_equal(take(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(guest_connects, setup, teardown),
		cmocka_unit_test_setup_teardown(program_connects, setup, teardown),
		cmocka_unit_test_setup_teardown(program_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_to_the_guests_room, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_its_own_room, setup, teardown),
		cmocka_unit_test_setup_teardown(more_than_there_is_room_for_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(each_side_may_end_first, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_sent_before_the_end_arrives, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_is_refused, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
