/* Disks and networks that come and go: what the guest is told, what it finds on the bus, and when a back end is let go of. */
#include "vm_machine.h"

#include "dev/pci_hotplug.h"
#include "dev/pm.h"

#define SLOT_DISK3 (PCI_SLOT_DISK + 3)
#define GPE_STATUS (PORT_PM + PM_GPE0)
#define GPE_ENABLE (PORT_PM + PM_GPE0 + 1)
#define EVENT BIT(GPE_PCI_HOTPLUG)
#define UP (PORT_PCI_HOTPLUG + PCI_HOTPLUG_UP)
#define DOWN (PORT_PCI_HOTPLUG + PCI_HOTPLUG_DOWN)
#define EJECT (PORT_PCI_HOTPLUG + PCI_HOTPLUG_EJECT)

static unsigned drained, told, flushed, woken;
static bool flush_ejects;

static bool submit(void *disk, struct block_request *request)
{
	return true;
}

static struct block_request *completed(void *disk)
{
	return NULL;
}

static void drain(void *disk)
{
	drained++;
}

static int flush(void *disk)
{
	enum board_kind kind;
	unsigned index;
	flushed++;
	if (flush_ejects) {
		guest_out(0, EJECT, 4, BIT(SLOT_DISK3));
		assert_false(vm_take_ejected(machine.vm, &kind, &index)); /* it is in use, here */
	}
	return 0;
}

static void net_wake(void *net)
{
	woken++;
}

static bool net_send(void *net, const struct net_header *header, const struct virtq_piece *piece, unsigned pieces)
{
	return true;
}

static void net_nothing(void *net)
{
}

static const u8 *net_peek(void *net, u32 *size)
{
	return NULL;
}

static void net_accept(void *net, u32 offloads)
{
}

static bool net_poll(void *net)
{
	return true;
}

static const struct block_backend disk = { .submit = submit, .completed = completed, .drain = drain, .flush = flush, .size = 1 << 20 };
static const struct net_backend net = { .wake = net_wake, .send = net_send, .flush = net_nothing, .peek = net_peek, .next = net_nothing, .accept = net_accept,
					.poll = net_poll, .mac = { 2, 0, 0, 0, 0, 1 } };

static void on_ejected(void *opaque)
{
	told++;
}

static int setup(void **state)
{
	struct vm_config config = machine_config(1);
	config.ejected = on_ejected;
	machine_create(&config);
	apics_enable(1);
	drained = told = flushed = woken = 0;
	flush_ejects = false;
	return 0;
}

static u32 vendor(unsigned slot)
{
	guest_out(0, PORT_PCI_CONFIG, 4, 0x80000000 | slot << 11);
	return guest_in(0, PORT_PCI_CONFIG + 4, 4);
}

/* ---- in ---- */

static void test_disk_comes(void **state)
{
	ioapic_write_entry(IRQ_SCI, 0x39 | BIT(15));
	guest_out(0, GPE_ENABLE, 1, EVENT);
	assert_int_equal(vendor(SLOT_DISK3), 0xffffffff);
	assert_true(vm_plug_disk(machine.vm, 3, &disk));
	assert_true(vm_has(machine.vm, BOARD_DISK, 3));
	assert_int_equal(acknowledge(0), 0x39);
	assert_int_equal(guest_in(0, GPE_STATUS, 1), EVENT);
	guest_out(0, GPE_STATUS, 1, EVENT);
	assert_int_equal(guest_in(0, GPE_STATUS, 1), 0);
	assert_int_equal(guest_in(0, UP, 2), 0); /* not whole: nothing is lost by it */
	assert_int_equal(guest_in(0, UP, 4), BIT(SLOT_DISK3));
	assert_int_equal(guest_in(0, UP, 4), 0);
	assert_int_equal(guest_in(0, DOWN, 4), 0);
	assert_int_equal(vendor(SLOT_DISK3), 0x10421af4);
	assert_false(vm_plug_disk(machine.vm, 3, &disk)); /* taken */
	assert_false(vm_plug_disk(machine.vm, BOARD_DISKS_MAX, &disk));
}

static void test_net_comes(void **state)
{
	assert_true(vm_plug_net(machine.vm, 0, &net));
	assert_int_equal(guest_in(0, UP, 4), BIT(PCI_SLOT_NET));
	assert_int_equal(vendor(PCI_SLOT_NET), 0x10411af4);
	assert_false(vm_plug_net(machine.vm, 0, &net));
	assert_false(vm_plug_net(machine.vm, BOARD_NETS_MAX, &net));
	assert_false(vm_net_ready(machine.vm, 0));
	assert_false(vm_net_ready(machine.vm, 1));
}

/* ---- out ---- */

static void test_disk_leaves(void **state)
{
	enum board_kind kind;
	unsigned index;
	assert_false(vm_ask_eject(machine.vm, BOARD_DISK, 3));
	assert_false(vm_ask_eject(machine.vm, BOARD_DISK, BOARD_DISKS_MAX));
	assert_true(vm_plug_disk(machine.vm, 3, &disk));
	unsigned drains = drained;
	assert_true(vm_ask_eject(machine.vm, BOARD_DISK, 3));
	assert_int_equal(guest_in(0, DOWN, 4), BIT(SLOT_DISK3));
	assert_int_equal(guest_in(0, DOWN, 4), BIT(SLOT_DISK3)); /* until it goes */
	assert_false(vm_take_ejected(machine.vm, &kind, &index));
	guest_out(0, EJECT, 1, BIT(SLOT_DISK3) & 0xff);
	assert_true(vm_has(machine.vm, BOARD_DISK, 3));
	guest_out(0, EJECT, 4, 0xffffffff); /* and everything else, which stays */
	assert_false(vm_has(machine.vm, BOARD_DISK, 3));
	assert_true(drained > drains);
	assert_int_equal(told, 1);
	assert_int_equal(guest_in(0, DOWN, 4), 0);
	assert_int_equal(vendor(SLOT_DISK3), 0xffffffff);
	assert_int_not_equal(vendor(PCI_SLOT_LPC), 0xffffffff);
	assert_int_not_equal(vendor(PCI_SLOT_RANDOM), 0xffffffff);
	vm_disk_completed(machine.vm, 3); /* a thread that was late */
	assert_false(vm_plug_disk(machine.vm, 3, &disk)); /* not before it was taken */
	assert_true(vm_take_ejected(machine.vm, &kind, &index));
	assert_int_equal(kind, BOARD_DISK);
	assert_int_equal(index, 3);
	assert_false(vm_take_ejected(machine.vm, &kind, &index));
	assert_true(vm_plug_disk(machine.vm, 3, &disk));
}

/* A BAR that the guest has placed answers no more, and its doorbells are nobody's. */
static void test_net_leaves(void **state)
{
	enum board_kind kind;
	unsigned index;
	const gpa_t bar = 0xc0000000;
	assert_true(vm_plug_net(machine.vm, 2, &net));
	guest_out(0, PORT_PCI_CONFIG, 4, 0x80000000 | (PCI_SLOT_NET + 2) << 11 | PCI_BAR0);
	guest_out(0, PORT_PCI_CONFIG + 4, 4, bar);
	guest_out(0, PORT_PCI_CONFIG, 4, 0x80000000 | (PCI_SLOT_NET + 2) << 11 | PCI_COMMAND);
	guest_out(0, PORT_PCI_CONFIG + 4, 4, PCI_COMMAND_MEMORY);
	assert_int_equal(guest_load(0, bar + 16), 0x0003ffff); /* no vector, and its queues */
	guest_out(0, EJECT, 4, BIT(PCI_SLOT_NET + 2)); /* unasked */
	assert_int_equal(guest_load(0, bar + 16), 0xffffffff);
	guest_store(0, bar + 0x3004, 1);
	assert_int_equal(woken, 0);
	assert_true(vm_take_ejected(machine.vm, &kind, &index));
	assert_int_equal(kind, BOARD_NET);
	assert_int_equal(index, 2);
	assert_true(vm_plug_net(machine.vm, 2, &net));
}

static void test_reset(void **state)
{
	assert_true(vm_plug_disk(machine.vm, 3, &disk));
	assert_true(vm_plug_net(machine.vm, 0, &net));
	assert_true(vm_ask_eject(machine.vm, BOARD_NET, 0));
	host_lock(&machine.vm->lock);
	board_reset(&machine.vm->board, 0);
	host_unlock(&machine.vm->lock);
	assert_true(vm_has(machine.vm, BOARD_DISK, 3));
	assert_false(vm_has(machine.vm, BOARD_NET, 0));
	assert_int_equal(told, 1);
	assert_int_equal(guest_in(0, UP, 4) | guest_in(0, DOWN, 4), 0);
	assert_int_equal(guest_in(0, GPE_STATUS, 2), 0);
	assert_int_equal(vendor(SLOT_DISK3), 0x10421af4);
}

/* Who flushes disks has no lock: they stay until it is done. */
static void test_flush(void **state)
{
	enum board_kind kind;
	unsigned index;
	assert_true(vm_plug_disk(machine.vm, 3, &disk));
	flush_ejects = true;
	assert_int_equal(vm_flush_disks(machine.vm), 0);
	assert_int_equal(flushed, 1);
	assert_int_equal(told, 2); /* when it is ejected, and when it can be taken */
	assert_true(vm_take_ejected(machine.vm, &kind, &index));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, machine_destroy)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_disk_comes), TEST(test_net_comes), TEST(test_disk_leaves), TEST(test_net_leaves), TEST(test_reset), TEST(test_flush),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
