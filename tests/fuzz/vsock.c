/* The host's ends of sockets, for a guest that sends any packets and programs that do anything. */
#define _GNU_SOURCE
#include "host/linux/vsock_mux.h"
#include "input.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROGRAMS 16u
#define CID 3u

static struct vsock_mux *mux;
static int program[PROGRAMS];
static unsigned programs;
static u8 payload[VSOCK_PAYLOAD_MAX];

static int make_program(void)
{
	int fd[2];
	if (programs == PROGRAMS || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0)
		return -1;
	program[programs++] = fd[0];
	return fd[1];
}

static int dial(void *opaque, u32 port)
{
	return port & 1 ? make_program() : -1;
}

static void send_packet(struct input *in)
{
	u8 what = input_u8(in);
	const struct vsock_header header = {
		.from_cid = CID,
		.to_cid = what & 128 ? input_u8(in) : VSOCK_CID_HOST,
		.from_port = what >> 4 & 3,
		.to_port = what & 64 ? 0x40000000u + input_u8(in) % 4 : input_u8(in) % 4,
		.length = input_u32(in) % (VSOCK_PAYLOAD_MAX + 1),
		.type = what & 128 ? input_u8(in) : 1,
		.operation = what % 9,
		.flags = input_u8(in),
		.room = input_u32(in),
		.taken = input_u32(in),
	};
	vsock_mux_packet(mux, &header, payload);
}

static void take_packets(unsigned most)
{
	u32 size;
	const u8 *packet;
	for (unsigned i = 0; i < most && (packet = vsock_mux_peek(mux, &size)); i++) {
		struct vsock_header header;
		CHECK(size >= sizeof(header) && size <= sizeof(header) + VSOCK_PAYLOAD_MAX);
		memcpy(&header, packet, sizeof(header));
		CHECK(header.length == size - sizeof(header) && header.to_cid == CID);
		vsock_mux_next(mux);
	}
}

static void act(struct input *in)
{
	u8 what = input_u8(in);
	if (!programs || what % 8 == 7) {
		int fd = make_program();
		if (fd >= 0)
			vsock_mux_accept(mux, fd);
		return;
	}
	int fd = program[(what >> 3) % programs];
	char text[64];
	switch (what % 8) {
	case 0:
		snprintf(text, sizeof(text), "CONNECT %u\n", input_u8(in) % 4u);
		send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case 1:
		for (unsigned i = 0; i < 16; i++)
			text[i] = (char)input_u8(in);
		send(fd, text, 16, MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case 2:
		send(fd, payload, input_u32(in) % sizeof(payload), MSG_NOSIGNAL | MSG_DONTWAIT);
		break;
	case 3:
		shutdown(fd, input_u8(in) % 3);
		break;
	case 4:
		close(fd);
		program[(what >> 3) % programs] = program[programs - 1];
		programs--;
		break;
	default:
		while (recv(fd, payload, sizeof(payload), MSG_DONTWAIT) > 0)
			;
	}
}

static void turn(void)
{
	struct pollfd wishes[VSOCK_CONNECTIONS_MAX];
	unsigned count = vsock_mux_wishes(mux, wishes);
	CHECK(count <= VSOCK_CONNECTIONS_MAX);
	poll(wishes, count, 0);
	vsock_mux_ready(mux, wishes);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input in = { data, size };
	mux = vsock_mux_create(CID, dial, NULL);
	CHECK(mux);
	while (in.left) {
		u8 what = input_u8(&in);
		if (what & 1 && !vsock_mux_full(mux))
			send_packet(&in);
		else if (what & 2)
			act(&in);
		else if (what & 4)
			turn();
		else if (what == 8)
			vsock_mux_reset(mux);
		else
			take_packets(what >> 3);
	}
	vsock_mux_destroy(mux);
	while (programs)
		close(program[--programs]);
	return 0;
}
