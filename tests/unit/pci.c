/* PCI configuration by ports and by ECAM, BARs, capabilities, interrupt pins, and the register that hides below
 * CONFIG_ADDRESS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dev/map.h"
#include "dev/pci.h"
#include "dev/reset.h"

#define ADDRESS PORT_PCI_CONFIG
#define DATA (PORT_PCI_CONFIG + 4)
#define ENABLE 0x80000000u

struct board {
	struct bus io, memory;
	struct pci_host pci;
	struct pci_function function;
	u8 registers[0x2000];
	bool intx[PCI_PINS];
	unsigned written_offset, written_size;
};

static void on_intx(void *opaque, unsigned pin, bool level)
{
	((struct board *)opaque)->intx[pin] = level;
}

static u64 bar_read(void *device, u64 offset, unsigned size, u64 now)
{
	u64 value = 0;
	__builtin_memcpy(&value, (u8 *)device + offset, size);
	return value;
}

static void bar_write(void *device, u64 offset, unsigned size, u64 value, u64 now)
{
	__builtin_memcpy((u8 *)device + offset, &value, size);
}

static const struct region_ops bar_ops = { .read = bar_read, .write = bar_write };

static void on_written(void *opaque, unsigned offset, unsigned size, u64 now)
{
	struct board *b = opaque;
	b->written_offset = offset;
	b->written_size = size;
}

static struct board *empty_board(void)
{
	static struct board b;
	b = (struct board){ 0 };
	for (unsigned i = 0; i < PCI_PINS; i++)
		b.pci.intx[i] = (struct wire){ .sink = on_intx, .opaque = &b, .pin = i };
	assert_int_equal(pci_attach(&b.pci, &b.io, &b.memory), 0);
	return &b;
}

/* Device 3: BAR0 of 4 KiB memory, BAR1 of 32 ports, BAR2 and 3 of 8 KiB 64-bit memory, pin INTB. */
static struct board *board(void)
{
	struct board *b = empty_board();
	b->function = (struct pci_function){ .written = on_written, .opaque = b };
	pci_function_init(&b->function, 0x1af4, 0x1041, 0x020000, 1);
	assert_int_equal(pci_add_bar(&b->function, 0, PCI_BAR_MEM32, 0x1000, "m32", &bar_ops, b->registers), 0);
	assert_int_equal(pci_add_bar(&b->function, 1, PCI_BAR_IO, 32, "io", &bar_ops, b->registers), 0);
	assert_int_equal(pci_add_bar(&b->function, 2, PCI_BAR_MEM64, 0x2000, "m64", &bar_ops, b->registers), 0);
	pci_put(&b->function, PCI_INTERRUPT_PIN, 1, 2);
	assert_int_equal(pci_add(&b->pci, &b->function, 3, 0), 0);
	return b;
}

static u32 config_in(struct board *b, unsigned devfn, unsigned offset, unsigned size)
{
	bus_write(&b->io, ADDRESS, 4, ENABLE | devfn << 8 | (offset & 0xfc), 0);
	return (u32)bus_read(&b->io, DATA + (offset & 3), size, 0);
}

static void config_out(struct board *b, unsigned devfn, unsigned offset, unsigned size, u32 value)
{
	bus_write(&b->io, ADDRESS, 4, ENABLE | devfn << 8 | (offset & 0xfc), 0);
	bus_write(&b->io, DATA + (offset & 3), size, value, 0);
}

#define DEVICE3 (3 << 3)

static void mechanism_1(void **state)
{
	struct board *b = board();
	bus_write(&b->io, ADDRESS, 4, 0xffffffff, 0);
	assert_int_equal(bus_read(&b->io, ADDRESS, 4, 0), 0x80fffffc);
	bus_write(&b->io, ADDRESS, 4, 0, 0); /* not enabled */
	assert_int_equal(bus_read(&b->io, DATA, 4, 0), 0xffffffff);
	assert_int_equal(config_in(b, 0, 0, 4), 0x29c08086);
	assert_int_equal(config_in(b, 0, 8, 4), 0x06000000);
	assert_int_equal(config_in(b, DEVICE3, 0, 4), 0x10411af4);
	assert_int_equal(config_in(b, DEVICE3, 2, 2), 0x1041);
	assert_int_equal(config_in(b, DEVICE3, 3, 1), 0x10);
	assert_int_equal(config_in(b, DEVICE3, 11, 1), 0x02);
	assert_int_equal(config_in(b, DEVICE3 | 1, 0, 4), 0xffffffff);
	assert_int_equal(config_in(b, 4 << 3, 0, 2), 0xffff);
	bus_write(&b->io, ADDRESS, 4, ENABLE | 1 << 16, 0); /* bus 1 */
	assert_int_equal(bus_read(&b->io, DATA, 4, 0), 0xffffffff);
}

/* The probes by which Linux recognizes the mechanism, and port 0xcf9, share the register's addresses. */
static void narrow_accesses_pass_the_address_register(void **state)
{
	struct board *b = board();
	struct reset reset = { 0 };
	assert_int_equal(reset_attach(&reset, &b->io, &b->pci.behind), 0);
	bus_write(&b->io, ADDRESS, 4, ENABLE | 0x1800, 0);
	bus_write(&b->io, 0xcfb, 1, 0x01, 0);
	bus_write(&b->io, PORT_RESET, 1, 0x02, 0);
	assert_int_equal(bus_read(&b->io, ADDRESS, 4, 0), ENABLE | 0x1800);
	assert_int_equal(bus_read(&b->io, PORT_RESET, 1, 0), 0x02);
	assert_int_equal(bus_read(&b->io, ADDRESS, 1, 0), 0xff);
	assert_int_equal(bus_read(&b->io, ADDRESS, 2, 0), 0x02ff);
	assert_int_equal(bus_read(&b->io, 0xcfa, 4, 0), 0x1af4ffff);
}

static void ecam_shows_the_same_space(void **state)
{
	struct board *b = board();
	u64 base = MAP_ECAM + (DEVICE3 << 12);
	assert_int_equal(bus_read(&b->memory, base, 4, 0), 0x10411af4);
	assert_int_equal(bus_read(&b->memory, base, 8, 0), 0x0000000010411af4);
	assert_int_equal(bus_read(&b->memory, base + 0x100, 4, 0), 0); /* no extended capability */
	bus_write(&b->memory, base + PCI_INTERRUPT_LINE, 1, 0x0b, 0);
	assert_int_equal(config_in(b, DEVICE3, PCI_INTERRUPT_LINE, 2), 0x020b);
	assert_int_equal(b->written_offset, PCI_INTERRUPT_LINE);
	assert_int_equal(b->written_size, 1);
	assert_int_equal(bus_read(&b->memory, MAP_ECAM + (4 << 15), 4, 0), 0xffffffff);
	assert_int_equal(bus_read(&b->memory, MAP_ECAM + (1 << 20), 4, 0), 0xffffffff);
	assert_int_equal(bus_read(&b->memory, base + 0xffe, 4, 0), 0xffffffff);
	bus_write(&b->memory, base + 0xffe, 4, 0xffffffff, 0);
	assert_int_equal(bus_read(&b->memory, MAP_ECAM + MAP_ECAM_SIZE - 4, 8, 0), ~0ull);
}

static void read_only_bits_stay(void **state)
{
	struct board *b = board();
	for (unsigned offset = 0; offset < PCI_CONFIG_SIZE; offset += 4)
		bus_write(&b->memory, MAP_ECAM + (DEVICE3 << 12) + offset, 4, 0xffffffff, 0);
	static const struct {
		unsigned offset;
		u32 value;
	} table[] = {
		{ 0x00, 0x10411af4 }, { 0x04, 0x00000407 }, { 0x08, 0x02000001 }, { 0x0c, 0x00000000 },
		{ 0x10, 0xfffff000 }, { 0x14, 0xffffffe1 }, { 0x18, 0xffffe004 }, { 0x1c, 0xffffffff },
		{ 0x20, 0 },          { 0x24, 0 },          { 0x30, 0 },          { 0x34, 0 },
		{ 0x3c, 0x000002ff },
	};
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		assert_int_equal(config_in(b, DEVICE3, table[i].offset, 4), table[i].value);
}

static void bars_answer_where_and_when_they_are_told(void **state)
{
	struct board *b = board();
	b->registers[5] = 0x77;
	config_out(b, DEVICE3, 0x10, 4, 0xc0000000);
	config_out(b, DEVICE3, 0x14, 4, 0xc000);
	config_out(b, DEVICE3, 0x18, 4, 0x00002000);
	config_out(b, DEVICE3, 0x1c, 4, 0x00000008);
	assert_int_equal(bus_read(&b->memory, 0xc0000005, 1, 0), 0xff);
	config_out(b, DEVICE3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(bus_read(&b->memory, 0xc0000005, 1, 0), 0x77);
	assert_int_equal(bus_read(&b->memory, 0x800002005, 1, 0), 0x77);
	assert_int_equal(bus_read(&b->io, 0xc005, 1, 0), 0xff);
	config_out(b, DEVICE3, PCI_COMMAND, 2, PCI_COMMAND_IO);
	assert_int_equal(bus_read(&b->memory, 0xc0000005, 1, 0), 0xff);
	assert_int_equal(bus_read(&b->io, 0xc005, 1, 0), 0x77);
	config_out(b, DEVICE3, 0x14, 4, 0xd000);
	assert_int_equal(bus_read(&b->io, 0xc005, 1, 0), 0xff);
	assert_int_equal(bus_read(&b->io, 0xd005, 1, 0), 0x77);
	bus_write(&b->io, 0xd006, 2, 0x1234, 0);
	assert_int_equal(b->registers[6], 0x34);
	pci_reset(&b->pci);
	assert_int_equal(bus_read(&b->io, 0xd005, 1, 0), 0xff);
	assert_int_equal(config_in(b, DEVICE3, 0x14, 4), 1);
	assert_int_equal(config_in(b, DEVICE3, PCI_COMMAND, 2), 0);
	assert_int_equal(config_in(b, DEVICE3, 0, 4), 0x10411af4);
}

static void a_colliding_bar_waits_until_there_is_room(void **state)
{
	struct board *b = board();
	config_out(b, DEVICE3, 0x10, 4, 0xc0000000);
	config_out(b, DEVICE3, 0x18, 4, 0xc0000000);
	config_out(b, DEVICE3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	bus_write(&b->memory, 0xc0001000, 1, 0x11, 0); /* only BAR2 would reach here */
	assert_int_equal(b->registers[0x1000], 0);
	config_out(b, DEVICE3, 0x10, 4, 0xc0004000);
	bus_write(&b->memory, 0xc0001000, 1, 0x11, 0);
	assert_int_equal(b->registers[0x1000], 0x11);
	config_out(b, DEVICE3, 0x10, 4, MAP_ECAM); /* never hides the machine's own */
	assert_int_equal(bus_read(&b->memory, MAP_ECAM, 4, 0), 0x29c08086);
}

static void bar_sizes_are_checked(void **state)
{
	static const struct {
		unsigned index;
		enum pci_bar_kind kind;
		u64 size;
		int result;
	} table[] = {
		{ 0, PCI_BAR_MEM32, 16, 0 },          { 0, PCI_BAR_MEM32, 8, -1 },
		{ 0, PCI_BAR_MEM32, 0x1001, -1 },     { 6, PCI_BAR_MEM32, 4096, -1 },
		{ 5, PCI_BAR_MEM64, 4096, -1 },       { 4, PCI_BAR_MEM64, 1ull << 40, 0 },
		{ 0, PCI_BAR_MEM32, 1ull << 32, -1 }, { 0, PCI_BAR_IO, 4, 0 },
		{ 0, PCI_BAR_IO, 512, -1 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct pci_function f = { 0 };
		pci_function_init(&f, 1, 1, 0xff0000, 0);
		assert_int_equal(pci_add_bar(&f, table[i].index, table[i].kind, table[i].size, "x", &bar_ops, &f),
				 table[i].result);
	}
}

static void capabilities_form_a_list(void **state)
{
	struct pci_function f = { 0 };
	pci_function_init(&f, 1, 1, 0xff0000, 0);
	assert_int_equal(pci_get(&f, PCI_STATUS, 2), 0);
	assert_int_equal(pci_add_capability(&f, 0x11, 12), 0x40);
	assert_int_equal(pci_add_capability(&f, 0x09, 18), 0x4c);
	assert_int_equal(pci_add_capability(&f, 0x05, 14), 0x60);
	assert_int_equal(pci_get(&f, PCI_STATUS, 2), PCI_STATUS_CAPABILITIES);
	assert_int_equal(pci_get(&f, PCI_CAPABILITIES, 1), 0x60);
	assert_int_equal(pci_get(&f, 0x60, 2), 0x4c05);
	assert_int_equal(pci_get(&f, 0x4c, 2), 0x4009);
	assert_int_equal(pci_get(&f, 0x40, 2), 0x0011);
	assert_int_equal(pci_add_capability(&f, 0x09, 0xc0), 0);
	assert_int_equal(pci_add_capability(&f, 0x09, 1), 0);
}

static void pins_are_swizzled_shared_and_masked(void **state)
{
	struct board *b = board();
	static struct pci_function other;
	other = (struct pci_function){ 0 };
	pci_function_init(&other, 1, 1, 0xff0000, 0);
	pci_put(&other, PCI_INTERRUPT_PIN, 1, 1);
	assert_int_equal(pci_add(&b->pci, &other, 4, 0), 0);
	pci_set_intx(&b->function, true); /* device 3, INTB: wire (3 + 1) % 4 */
	assert_true(b->intx[0]);
	assert_int_equal(config_in(b, DEVICE3, PCI_STATUS, 2), PCI_STATUS_INTERRUPT);
	pci_set_intx(&other, true); /* device 4, INTA: the same wire */
	pci_set_intx(&b->function, false);
	assert_true(b->intx[0]);
	config_out(b, 4 << 3, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_false(b->intx[0]);
	assert_int_equal(config_in(b, 4 << 3, PCI_STATUS, 2), PCI_STATUS_INTERRUPT);
	config_out(b, 4 << 3, PCI_COMMAND, 2, 0);
	assert_true(b->intx[0]);
	pci_reset(&b->pci);
	assert_false(b->intx[0]);
	assert_false(b->intx[1] || b->intx[2] || b->intx[3]);
}

static void places_are_taken_once_and_functions_announced(void **state)
{
	struct board *b = board();
	static struct pci_function other;
	other = (struct pci_function){ 0 };
	pci_function_init(&other, 1, 1, 0xff0000, 0);
	assert_int_equal(pci_add(&b->pci, &other, 3, 0), -1);
	assert_int_equal(pci_add(&b->pci, &other, 32, 0), -1);
	assert_int_equal(config_in(b, DEVICE3, PCI_HEADER_TYPE, 1), 0);
	assert_int_equal(pci_add(&b->pci, &other, 3, 1), 0);
	assert_int_equal(config_in(b, DEVICE3, PCI_HEADER_TYPE, 1), PCI_MULTIFUNCTION);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mechanism_1),
		cmocka_unit_test(narrow_accesses_pass_the_address_register),
		cmocka_unit_test(ecam_shows_the_same_space),
		cmocka_unit_test(read_only_bits_stay),
		cmocka_unit_test(bars_answer_where_and_when_they_are_told),
		cmocka_unit_test(a_colliding_bar_waits_until_there_is_room),
		cmocka_unit_test(bar_sizes_are_checked),
		cmocka_unit_test(capabilities_form_a_list),
		cmocka_unit_test(pins_are_swizzled_shared_and_masked),
		cmocka_unit_test(places_are_taken_once_and_functions_announced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
