/* The virtio socket device with a cable that is as full or empty as the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/vsock.h"
#include "fake_host.h"
#include "virtio_driver.h"

#define PACKET 0x10000ull
#define HEADER ((u32)sizeof(struct vsock_header))

enum { RX, TX, EVENT };

struct machine {
	struct driver driver;
	struct virtio_vsock vsock;
	struct vsock_header sent;
	u8 payload[256];
	unsigned packets, resets;
	bool full;
	u8 waiting[HEADER + 256];
	u32 size; /* 0: none */
};

static bool send(void *cable, const struct vsock_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	struct machine *m = cable;
	u32 done = 0;
	if (m->full)
		return false;
	m->sent = *header;
	for (unsigned i = 0; i < pieces; i++) {
		memcpy(m->payload + done, piece[i].data, piece[i].size);
		done += piece[i].size;
	}
	assert_int_equal(done, header->length);
	m->packets++;
	return true;
}

static const u8 *peek(void *cable, u32 *size)
{
	struct machine *m = cable;
	*size = m->size;
	return *size ? m->waiting : NULL;
}

static void next(void *cable)
{
	((struct machine *)cable)->size = 0;
}

static void reset(void *cable)
{
	((struct machine *)cable)->resets++;
}

static int setup(void **state)
{
	struct machine *m = host_alloc(sizeof(*m));
	const struct vsock_backend cable = { .send = send, .peek = peek, .next = next, .reset = reset, .cable = m, .cid = 42 };
	assert_true(driver_create(&m->driver));
	assert_int_equal(virtio_vsock_attach(&m->vsock, &cable, &m->driver.pci, &m->driver.ram, DRIVER_SLOT), 0);
	driver_plug(&m->driver);
	driver_start(&m->driver, 0, 3);
	*state = m;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;
	driver_destroy(&m->driver);
	host_free(m);
	return 0;
}

/* A packet with `length` bytes of payload, of which its header says `told`. */
static void transmit(struct machine *m, u32 length, u32 told)
{
	const struct vsock_header header = { .from_cid = 7, .to_cid = 2, .length = told, .type = 1, .operation = 5 };
	memcpy(m->driver.bytes + PACKET, &header, sizeof(header));
	memset(m->driver.bytes + PACKET + HEADER, 0x5a, length);
	driver_descriptor(&m->driver, TX, 0, PACKET, HEADER, length ? DESC_NEXT : 0);
	driver_descriptor(&m->driver, TX, 1, PACKET + HEADER, length, 0);
	driver_offer(&m->driver, TX, 0);
}

static void arrive(struct machine *m, u32 length)
{
	const struct vsock_header header = { .from_cid = 2, .to_cid = 42, .length = length, .type = 1, .operation = 5 };
	memcpy(m->waiting, &header, sizeof(header));
	for (u32 i = 0; i < length; i++)
		m->waiting[HEADER + i] = (u8)i;
	m->size = HEADER + length;
	virtio_vsock_ready(&m->vsock);
}

static void room(struct machine *m, u16 index, u32 size)
{
	driver_descriptor(&m->driver, RX, index, PACKET + 0x1000 * index, size, DESC_WRITE);
	driver_offer(&m->driver, RX, index);
}

static void tells_the_guest_its_number(void **state)
{
	struct machine *m = *state;
	assert_int_equal(bus_read(&m->driver.memory, DRIVER_CONFIG, 4, 0), 42);
	assert_int_equal(bus_read(&m->driver.memory, DRIVER_CONFIG + 4, 4, 0), 0);
}

static void sends_packets(void **state)
{
	struct machine *m = *state;
	transmit(m, 100, 100);
	assert_int_equal(m->packets, 1);
	assert_int_equal(m->sent.from_cid, 42); /* whatever it says */
	assert_int_equal(m->payload[99], 0x5a);
	transmit(m, 100, 60); /* less than there is */
	assert_int_equal(m->sent.length, 60);
	transmit(m, 0, 0);
	assert_int_equal(m->packets, 3);
	transmit(m, 60, 100); /* more: no packet */
	transmit(m, 60, 0x10001);
	assert_int_equal(m->packets, 3);
	assert_int_equal(driver_used(&m->driver, TX), 5);
}

static void waits_for_room_in_the_cable(void **state)
{
	struct machine *m = *state;
	m->full = true;
	transmit(m, 10, 10);
	assert_int_equal(driver_used(&m->driver, TX), 0);
	m->full = false;
	virtio_vsock_ready(&m->vsock);
	assert_int_equal(driver_used(&m->driver, TX), 1);
	assert_int_equal(m->packets, 1);
}

static void cuts_what_is_larger_than_buffers(void **state)
{
	struct machine *m = *state;
	struct vsock_header header;
	arrive(m, 150);
	assert_int_equal(m->size, HEADER + 150); /* there is no buffer yet */
	room(m, 0, HEADER + 100);
	assert_int_equal(driver_written(&m->driver, RX, 0), HEADER + 100);
	memcpy(&header, m->driver.bytes + PACKET, sizeof(header));
	assert_int_equal(header.length, 100);
	assert_int_equal(m->driver.bytes[PACKET + HEADER + 99], 99);
	room(m, 1, HEADER + 100);
	assert_int_equal(driver_written(&m->driver, RX, 1), HEADER + 50);
	assert_int_equal(m->driver.bytes[PACKET + 0x1000 + HEADER], 100);
	assert_int_equal(m->size, 0);
	arrive(m, 0);
	room(m, 2, HEADER);
	assert_int_equal(driver_written(&m->driver, RX, 2), HEADER);
	assert_int_equal(m->size, 0);
}

static void buffers_too_small_are_given_back(void **state)
{
	struct machine *m = *state;
	arrive(m, 5);
	room(m, 0, 10);
	assert_int_equal(driver_written(&m->driver, RX, 0), 0);
	assert_int_equal(m->size, HEADER + 5);
	room(m, 1, HEADER + 5);
	assert_int_equal(m->size, 0);
}

static void forgets_and_begins_anew(void **state)
{
	struct machine *m = *state;
	unsigned before = m->resets;
	arrive(m, 150);
	room(m, 0, HEADER + 100);
	driver_start(&m->driver, 0, 3);
	assert_int_equal(m->resets, before + 1);
	room(m, 0, HEADER + 200);
	virtio_advance(&m->vsock.virtio);
	assert_int_equal(driver_written(&m->driver, RX, 0), HEADER + 150); /* from its beginning */
}

static void tells_that_connections_are_gone(void **state)
{
	struct machine *m = *state;
	assert_true(virtio_vsock_state.loaded(&m->vsock));
	m->driver.bytes[PACKET] = 0xee;
	driver_descriptor(&m->driver, EVENT, 0, PACKET, 4, DESC_WRITE);
	driver_offer(&m->driver, EVENT, 0);
	assert_int_equal(driver_used(&m->driver, EVENT), 1);
	assert_int_equal(driver_written(&m->driver, EVENT, 0), 4);
	assert_int_equal(m->driver.bytes[PACKET], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tells_the_guest_its_number, setup, teardown),
		cmocka_unit_test_setup_teardown(sends_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(waits_for_room_in_the_cable, setup, teardown),
		cmocka_unit_test_setup_teardown(cuts_what_is_larger_than_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(buffers_too_small_are_given_back, setup, teardown),
		cmocka_unit_test_setup_teardown(forgets_and_begins_anew, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_that_connections_are_gone, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
