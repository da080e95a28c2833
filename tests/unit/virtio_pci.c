/* The PCI transport of virtio, with the entropy device behind it: capabilities, negotiation, queues, interrupts by message and by pin,
 * and drivers that break the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/virtio/random.h"
#include "fake_host.h"
#include "virtio_driver.h"

#define SLOT DRIVER_SLOT
#define BAR DRIVER_BAR
#define TABLE DRIVER_TABLE
#define BUFFER 0x4000ull
#define COMMON BAR
#define ISR (BAR + 0x1000)
#define NOTIFY (BAR + 0x3000)

/* Of the common structure. */
enum { FEATURE_SELECT = 0, FEATURES = 4, DRIVER_SELECT = 8, DRIVER_FEATURES = 12, CONFIG_VECTOR = 16, QUEUES = 18, STATUS = 20,
       SELECT = 22, QUEUE_SIZE = 24, VECTOR = 26, ENABLE = 28, NOTIFY_OFF = 30, DESCRIPTORS = 32, DRIVER = 40, DEVICE = 48 };

#define ACKNOWLEDGE 1
#define DRIVER_FOUND 2
#define DRIVER_OK 4
#define FEATURES_OK 8
#define NEEDS_RESET 64

struct machine {
	struct driver driver;
	struct virtio_random random;
	bool pin[PCI_PINS];
	struct msi_message sent;
	unsigned messages;
};

static void on_pin(void *opaque, unsigned pin, bool level)
{
	((struct machine *)opaque)->pin[pin] = level;
}

static void on_message(void *opaque, const struct msi_message *message)
{
	struct machine *m = opaque;
	m->sent = *message;
	m->messages++;
}

static void fill(void *buffer, size_t size)
{
	memset(buffer, 0xa5, size);
}

static u32 config(struct machine *m, unsigned offset, unsigned size)
{
	return (u32)bus_read(&m->driver.memory, MAP_ECAM + (SLOT << 15) + offset, size, 0);
}

static void set_config(struct machine *m, unsigned offset, unsigned size, u32 value)
{
	bus_write(&m->driver.memory, MAP_ECAM + (SLOT << 15) + offset, size, value, 0);
}

static u32 get(struct machine *m, u64 address, unsigned size)
{
	return (u32)bus_read(&m->driver.memory, address, size, 0);
}

static void set(struct machine *m, u64 address, unsigned size, u64 value)
{
	bus_write(&m->driver.memory, address, size, value, 0);
}

/* The capability of an ID whose byte at `at` is `value`. */
static unsigned capability(struct machine *m, u8 id, unsigned at, u8 value)
{
	for (unsigned c = config(m, PCI_CAPABILITIES, 1); c; c = config(m, c + 1, 1))
		if (config(m, c, 1) == id && config(m, c + at, 1) == value)
			return c;
	fail();
	return 0;
}

static int setup(void **state)
{
	struct machine *m = host_alloc(sizeof(*m));
	assert_true(driver_create(&m->driver));
	for (unsigned i = 0; i < PCI_PINS; i++)
		m->driver.pci.intx[i] = (struct wire){ .sink = on_pin, .opaque = m, .pin = i };
	m->driver.pci.message = on_message;
	m->driver.pci.opaque = m;
	m->random.fill = fill;
	assert_int_equal(virtio_random_attach(&m->random, &m->driver.pci, &m->driver.ram, SLOT), 0);
	driver_plug(&m->driver);
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

static void negotiate(struct machine *m, u64 features)
{
	set(m, COMMON + STATUS, 1, ACKNOWLEDGE | DRIVER_FOUND);
	for (u32 i = 0; i < 2; i++) {
		set(m, COMMON + DRIVER_SELECT, 4, i);
		set(m, COMMON + DRIVER_FEATURES, 4, (u32)(features >> (32 * i)));
	}
	set(m, COMMON + STATUS, 1, ACKNOWLEDGE | DRIVER_FOUND | FEATURES_OK);
}

/* Queue 0, of 4 entries: descriptors at 0x1000, driver area at 0x2000, device area at 0x3000. */
static void start(struct machine *m)
{
	negotiate(m, VIRTIO_F_VERSION_1);
	set(m, COMMON + QUEUE_SIZE, 2, 4);
	set(m, COMMON + VECTOR, 2, 1);
	set(m, COMMON + DESCRIPTORS, 4, DRIVER_RING(0));
	set(m, COMMON + DRIVER, 4, DRIVER_AVAILABLE(0));
	set(m, COMMON + DEVICE, 4, DRIVER_USED(0));
	set(m, COMMON + ENABLE, 2, 1);
	set(m, COMMON + STATUS, 1, ACKNOWLEDGE | DRIVER_FOUND | FEATURES_OK | DRIVER_OK);
}

/* Offer 32 bytes at 0x4000, as descriptor 0. */
static void offer(struct machine *m, u16 flags)
{
	driver_descriptor(&m->driver, 0, 0, BUFFER, 32, flags);
	driver_offer(&m->driver, 0, 0);
}

static u16 used(const struct machine *m)
{
	return driver_used(&m->driver, 0);
}

static void enable_msix(struct machine *m, u32 mask)
{
	set(m, TABLE + 16, 4, 0xfee01000);
	set(m, TABLE + 20, 4, 0);
	set(m, TABLE + 24, 4, 0x41);
	set(m, TABLE + 28, 4, mask);
	set_config(m, capability(m, 0x11, 0, 0x11) + 2, 2, 0x8000);
}

static void describes_itself(void **state)
{
	struct machine *m = *state;
	assert_int_equal(config(m, PCI_VENDOR, 4), 0x10441af4);
	assert_int_equal(config(m, PCI_REVISION, 1), 1);
	static const struct {
		u8 type;
		u32 offset, length;
	} rows[] = { { 1, 0, 56 }, { 2, 0x3000, 0x1000 }, { 3, 0x1000, 1 } };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		unsigned at = capability(m, 0x09, 3, rows[i].type);
		assert_int_equal(config(m, at + 4, 1), 0);
		assert_int_equal(config(m, at + 8, 4), rows[i].offset);
		assert_int_equal(config(m, at + 12, 4), rows[i].length);
	}
	assert_int_equal(config(m, capability(m, 0x11, 0, 0x11) + 2, 2), 1); /* two vectors */
	assert_int_equal(get(m, COMMON + QUEUES, 2), 1);
	assert_int_equal(get(m, COMMON + QUEUE_SIZE, 2), 128);
	assert_int_equal(get(m, COMMON + VECTOR, 2), 0xffff);
	set(m, COMMON + SELECT, 2, 1);
	assert_int_equal(get(m, COMMON + QUEUE_SIZE, 2), 0); /* there is no such queue */
	set(m, COMMON + QUEUE_SIZE, 2, 4);
	set(m, COMMON + ENABLE, 2, 1);
	assert_int_equal(get(m, COMMON + STATUS, 1), 0);
}

static void features_are_negotiated(void **state)
{
	struct machine *m = *state;
	set(m, COMMON + FEATURE_SELECT, 4, 1);
	assert_int_equal(get(m, COMMON + FEATURES, 4), 1);
	set(m, COMMON + FEATURE_SELECT, 4, 2);
	assert_int_equal(get(m, COMMON + FEATURES, 4), 0);
	negotiate(m, 0); /* a legacy driver */
	assert_false(get(m, COMMON + STATUS, 1) & FEATURES_OK);
	negotiate(m, VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED); /* not offered here */
	assert_false(get(m, COMMON + STATUS, 1) & FEATURES_OK);
	set(m, COMMON + STATUS, 1, 0xf);
	assert_false(get(m, COMMON + STATUS, 1) & DRIVER_OK);
	set(m, COMMON + STATUS, 1, 0);
	assert_int_equal(get(m, COMMON + STATUS, 1), 0);
	negotiate(m, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX);
	assert_int_equal(get(m, COMMON + STATUS, 1), 11);
	set(m, COMMON + DRIVER_SELECT, 4, 1);
	set(m, COMMON + DRIVER_FEATURES, 4, 0); /* too late */
	assert_int_equal(get(m, COMMON + DRIVER_FEATURES, 4), 1);
}

static void interrupts_by_message(void **state)
{
	struct machine *m = *state;
	enable_msix(m, 0);
	start(m);
	offer(m, 2);
	assert_int_equal(used(m), 1);
	assert_int_equal(m->driver.bytes[0x4000 + 31], 0xa5);
	assert_int_equal(m->messages, 1);
	assert_int_equal(m->sent.address, 0xfee01000);
	assert_int_equal(m->sent.data, 0x41);
	assert_false(m->pin[(SLOT + 0) % 4]);
	set(m, TABLE + 28, 4, 1); /* masked: kept, and sent when that ends */
	offer(m, 2);
	offer(m, 2);
	assert_int_equal(m->messages, 1);
	assert_int_equal(get(m, TABLE + 0x800, 4), 2);
	set(m, TABLE + 28, 4, 0);
	assert_int_equal(m->messages, 2);
	assert_int_equal(get(m, TABLE + 0x800, 4), 0);
	set_config(m, capability(m, 0x11, 0, 0x11) + 2, 2, 0xc000);
	offer(m, 2);
	assert_int_equal(m->messages, 2);
	set_config(m, capability(m, 0x11, 0, 0x11) + 2, 2, 0x8000);
	assert_int_equal(m->messages, 3);
	set_config(m, PCI_COMMAND, 2, PCI_COMMAND_MEMORY); /* no master, no message */
	offer(m, 2);
	assert_int_equal(m->messages, 3);
}

static void interrupts_by_pin(void **state)
{
	struct machine *m = *state;
	start(m);
	offer(m, 2);
	assert_true(m->pin[SLOT % 4]);
	assert_int_equal(get(m, ISR, 1), 1);
	assert_false(m->pin[SLOT % 4]);
	assert_int_equal(get(m, ISR, 1), 0);
}

static void hostile_rings_need_a_reset(void **state)
{
	struct machine *m = *state;
	enable_msix(m, 0);
	set(m, COMMON + CONFIG_VECTOR, 2, 1);
	start(m);
	offer(m, 3); /* a loop */
	assert_int_equal(get(m, COMMON + STATUS, 1), 0xf | NEEDS_RESET);
	assert_int_equal(m->messages, 1); /* the configuration's */
	offer(m, 2);
	assert_int_equal(used(m), 0);
	set(m, COMMON + STATUS, 1, 0);
	assert_int_equal(get(m, COMMON + STATUS, 1), 0);
	memset(m->driver.bytes, 0, DRIVER_RAM);
	start(m);
	offer(m, 2);
	assert_int_equal(used(m), 1);
}

static void queues_are_checked_when_enabled(void **state)
{
	struct machine *m = *state;
	negotiate(m, VIRTIO_F_VERSION_1);
	set(m, COMMON + QUEUE_SIZE, 2, 4);
	set(m, COMMON + DESCRIPTORS + 4, 4, 0x80000000);
	set(m, COMMON + ENABLE, 2, 1);
	assert_true(get(m, COMMON + STATUS, 1) & NEEDS_RESET);
	assert_int_equal(get(m, COMMON + ENABLE, 2), 0);
	set(m, COMMON + VECTOR, 2, 2); /* there are two */
	assert_int_equal(get(m, COMMON + VECTOR, 2), 0xffff);
}

static void a_busy_driver_does_not_keep_the_device(void **state)
{
	struct machine *m = *state;
	static const struct {
		u64 address;
		u32 length;
		u16 flags, next;
	} d = { 0x4000, 1, 2, 0 };
	u16 index = 128;
	negotiate(m, VIRTIO_F_VERSION_1);
	set(m, COMMON + DESCRIPTORS, 4, DRIVER_RING(0));
	set(m, COMMON + DRIVER, 4, DRIVER_AVAILABLE(0));
	set(m, COMMON + DEVICE, 4, DRIVER_USED(0));
	set(m, COMMON + ENABLE, 2, 1);
	set(m, COMMON + STATUS, 1, 0xf);
	memcpy(m->driver.bytes + 0x1000, &d, sizeof(d));
	memcpy(m->driver.bytes + 0x2002, &index, 2);
	set(m, NOTIFY, 2, 0);
	assert_int_equal(used(m), 128);
	assert_true(virtio_due(&m->random.virtio)); /* it looks again later */
	virtio_advance(&m->random.virtio);
	assert_false(virtio_due(&m->random.virtio));
}

static void configuration_space_is_a_window(void **state)
{
	struct machine *m = *state;
	unsigned at = capability(m, 0x09, 3, 5);
	set_config(m, at + 8, 4, STATUS);
	set_config(m, at + 12, 4, 1);
	set_config(m, at + 16, 1, ACKNOWLEDGE);
	assert_int_equal(get(m, COMMON + STATUS, 1), ACKNOWLEDGE);
	assert_int_equal(config(m, at + 16, 1), ACKNOWLEDGE);
	static const u32 bad[][2] = { { 0x4000, 4 }, { 0xfffffffc, 4 }, { 0, 3 }, { 2, 4 }, { 0, 0 } };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		set_config(m, at + 8, 4, bad[i][0]);
		set_config(m, at + 12, 4, bad[i][1]);
		set_config(m, at + 16, 4, 0x12345678);
		assert_int_equal(config(m, at + 16, 4), 0x12345678);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(describes_itself),
		TEST(features_are_negotiated),
		TEST(interrupts_by_message),
		TEST(interrupts_by_pin),
		TEST(hostile_rings_need_a_reset),
		TEST(queues_are_checked_when_enabled),
		TEST(a_busy_driver_does_not_keep_the_device),
		TEST(configuration_space_is_a_window),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
