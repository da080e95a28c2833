/* The MCH's memory side: what PAM makes of areas below 1 MiB, and where PCIEXBAR puts the ECAM window. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dev/map.h"
#include "dev/mch.h"

#define PAM0 0x90
#define PCIEXBAR 0x60
#define ROM_AT 0xe0000

static u8 memory[MAP_LEGACY_END] __attribute__((aligned(4096)));

struct board {
	struct bus io, memory_bus;
	struct pci_host pci;
	struct mch mch;
	struct ram ram;
	unsigned changes;
};

static struct board b;

static void on_change(void *opaque)
{
	((struct board *)opaque)->changes++;
}

/* A machine as after reset, with what the ROM shows in place. */
static void create(bool firmware)
{
	memset(&b, 0, sizeof(b));
	memset(memory, 0, sizeof(memory));
	b.mch = (struct mch){ .memory_changed = on_change, .opaque = &b, .firmware = firmware };
	assert_int_equal(ram_add(&b.ram, 0, sizeof(memory), memory, false), 0);
	assert_int_equal(pci_attach(&b.pci, &b.io, &b.memory_bus), 0);
	assert_int_equal(mch_attach(&b.mch, &b.pci, &b.ram), 0);
	memset(memory + ROM_AT, 0x5a, MAP_LEGACY_END - ROM_AT);
}

static void destroy(void)
{
	mch_destroy(&b.mch);
	ram_release(&b.ram);
}

static void configure(unsigned offset, unsigned size, u32 value)
{
	bus_write(&b.io, PORT_PCI_CONFIG, 4, 0x80000000 | (offset & ~3u), 0);
	bus_write(&b.io, PORT_PCI_CONFIG + 4 + offset % 4, size, value, 0);
}

static u32 configured(unsigned offset, unsigned size)
{
	bus_write(&b.io, PORT_PCI_CONFIG, 4, 0x80000000 | (offset & ~3u), 0);
	return (u32)bus_read(&b.io, PORT_PCI_CONFIG + 4 + offset % 4, size, 0);
}

static bool readonly(gpa_t gpa)
{
	return ram_readonly(ram_find(&b.ram, gpa), gpa);
}

static void test_identity(void **state)
{
	create(true);
	assert_int_equal(configured(0, 4), 0x29c08086);
	assert_int_equal(configured(0x2c, 4), 0x11001af4);
	destroy();
}

/* As firmware shadows itself: RAM for reading and writing, then for reading alone; and ROM again. */
static void test_shadow(void **state)
{
	create(true);
	assert_int_equal(configured(PAM0, 1), 0);
	assert_true(readonly(0xf0000));
	configure(PAM0, 1, 0x30);
	assert_int_equal(b.changes, 1);
	assert_false(readonly(0xf0000));
	assert_false(readonly(0xff000));
	assert_true(readonly(0xef000));
	assert_int_equal(memory[0xf0000], 0); /* RAM was empty */
	memory[0xf0000] = 0x11;
	configure(PAM0, 1, 0x10);
	assert_true(readonly(0xf0000));
	assert_int_equal(memory[0xf0000], 0x11);
	configure(PAM0, 1, 0);
	assert_int_equal(memory[0xf0000], 0x5a);
	assert_int_equal(memory[0xfffff], 0x5a);
	configure(PAM0, 1, 0x30);
	assert_int_equal(memory[0xf0000], 0x11);
	assert_int_equal(memory[0xfffff], 0);
	assert_int_equal(b.changes, 4);
	configure(PAM0, 1, 0xff); /* only defined bits */
	assert_int_equal(configured(PAM0, 1), 0x30);
	assert_int_equal(b.changes, 4);
	destroy();
}

/* As chipsets' own firmware does it: written to while the ROM is read. */
static void test_write_only(void **state)
{
	create(true);
	configure(PAM0 + 5, 1, 0x02); /* 0xe0000 */
	assert_true(readonly(0xe0000));
	bus_write(&b.memory_bus, 0xe0000, 4, 0x44332211, 0);
	bus_write(&b.memory_bus, 0xe4000, 1, 0x99, 0); /* not this one */
	assert_int_equal(memory[0xe0000], 0x5a);
	configure(PAM0 + 5, 1, 0x11);
	assert_int_equal(memory[0xe0000], 0x11);
	assert_int_equal(memory[0xe0003], 0x44);
	assert_int_equal(memory[0xe4000], 0);
	destroy();
}

/* Each area by itself. */
static void test_areas(void **state)
{
	create(true);
	for (unsigned i = 0; i < 12; i++) {
		gpa_t base = MAP_PAM + i * 0x4000;
		configure(PAM0 + 1 + i / 2, 1, i & 1 ? 0x30 : 0x03);
		assert_false(readonly(base));
		assert_false(readonly(base + 0x3000));
		assert_true(readonly(base + 0x4000));
		assert_true(readonly(MAP_PAM) || !i);
		configure(PAM0 + 1 + i / 2, 1, 0);
		assert_true(readonly(base));
	}
	configure(PAM0, 4, 0x33333330); /* several at once */
	assert_false(readonly(0xc0000));
	assert_false(readonly(0xd7000));
	assert_true(readonly(0xd8000));
	assert_false(readonly(0xf0000));
	destroy();
}

static void test_reset(void **state)
{
	create(true);
	configure(PAM0, 4, 0x33333330);
	configure(PCIEXBAR, 4, 0xb0000001);
	pci_reset(&b.pci);
	mch_reset(&b.mch);
	assert_true(readonly(0xc0000));
	assert_true(readonly(0xf0000));
	assert_int_equal(mch_ecam(&b.mch), MAP_ECAM);
	assert_int_equal(configured(PAM0, 4), 0);
	destroy();
	create(false); /* as firmware leaves it */
	assert_false(readonly(0xc0000));
	assert_false(readonly(0xf0000));
	assert_int_equal(configured(PAM0, 4), 0x33333330);
	destroy();
}

static void test_ecam(void **state)
{
	create(true);
	assert_int_equal(bus_read(&b.memory_bus, MAP_ECAM, 4, 0), 0x29c08086);
	configure(PCIEXBAR, 4, 0);
	assert_int_equal(mch_ecam(&b.mch), 0);
	assert_int_equal(bus_read(&b.memory_bus, MAP_ECAM, 4, 0), 0xffffffff);
	configure(PCIEXBAR, 4, 0xb0000001);
	assert_int_equal(mch_ecam(&b.mch), 0xb0000000);
	assert_int_equal(bus_read(&b.memory_bus, 0xb0000000, 4, 0), 0x29c08086);
	/* It moves by its own access. */
	bus_write(&b.memory_bus, 0xb0000000 + PCIEXBAR + 4, 4, 8, 0);
	assert_int_equal(mch_ecam(&b.mch), 0x8b0000000);
	assert_int_equal(bus_read(&b.memory_bus, 0xb0000000, 4, 0), 0xffffffff);
	assert_int_equal(bus_read(&b.memory_bus, 0x8b0000000, 4, 0), 0x29c08086);
	/* Over something else, it is not there. */
	configure(PCIEXBAR + 4, 4, 0);
	configure(PCIEXBAR, 4, 0x00000001);
	assert_int_equal(bus_read(&b.memory_bus, 0, 4, 0), 0xffffffff);
	configure(PCIEXBAR, 4, 0xe0000001);
	assert_int_equal(bus_read(&b.memory_bus, MAP_ECAM, 4, 0), 0x29c08086);
	destroy();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity), cmocka_unit_test(test_shadow), cmocka_unit_test(test_write_only),
		cmocka_unit_test(test_areas),    cmocka_unit_test(test_reset),  cmocka_unit_test(test_ecam),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
