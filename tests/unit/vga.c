/* The VGA: registers, the window's modes, memory that moves with its BAR, pictures, saving and loading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/map.h"
#include "dev/vga.h"

#define SLOT 30
#define WINDOW MAP_LEGACY_HOLE
#define BASE 0xd0000000ull

static struct {
	struct bus io, memory;
	struct pci_host pci;
	struct ram ram;
	struct vga vga;
	unsigned moves;
} m;

static u32 picture[VGA_PICTURE_MAX / 4];

static void on_moved(void *opaque)
{
	m.moves++;
}

/* Text with a font in which each character is full of its own code. */
static u8 rom[4096 + 64];

static void make_rom(void)
{
	static const u8 begins[] = { 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e };
	memset(rom + 64, 0, 32);
	memcpy(rom + 64 + 18, begins, sizeof(begins));
	for (unsigned i = 32; i < 4096; i++)
		rom[64 + i] = (u8)(i / 16);
}

static int start(bool firmware)
{
	m.vga = (struct vga){ .moved = on_moved, .firmware = firmware, .rom = rom, .rom_size = sizeof(rom) };
	return pci_attach(&m.pci, &m.io, &m.memory) | vga_attach(&m.vga, &m.pci, &m.io, &m.memory, &m.ram, SLOT, 0);
}

static int setup(void **state)
{
	memset(&m, 0, sizeof(m));
	make_rom();
	return start(false);
}

static int teardown(void **state)
{
	vga_destroy(&m.vga);
	ram_release(&m.ram);
	return 0;
}

static void out(u16 port, unsigned size, u32 value)
{
	bus_write(&m.io, port, size, value, 0);
}

static u32 in(u16 port, unsigned size)
{
	return (u32)bus_read(&m.io, port, size, 0);
}

static void set(u16 port, u8 index, u8 value)
{
	out(port, 2, (u32)value << 8 | index);
}

static void dispi(u16 index, u16 value)
{
	out(0x1ce, 2, index);
	out(0x1cf, 2, value);
}

static void config(unsigned offset, unsigned size, u32 value)
{
	pci_config_write(&m.vga.function, offset, size, value, 0);
}

static void size_is(unsigned width, unsigned height)
{
	unsigned w, h;
	vga_size(&m.vga.regs, &w, &h);
	assert_int_equal(w, width);
	assert_int_equal(h, height);
}

static void draw(void)
{
	vga_draw(&m.vga.regs, m.vga.memory, picture);
}

/* ---- */

static void test_identity(void **state)
{
	assert_int_equal(pci_config_read(&m.vga.function, 0, 4, 0), 0x11111234);
	assert_int_equal(pci_config_read(&m.vga.function, 8, 4, 0) >> 8, 0x030000);
	config(PCI_BAR0, 4, 0xffffffff);
	assert_int_equal(pci_config_read(&m.vga.function, PCI_BAR0, 4, 0), (u32)~(VGA_MEMORY_SIZE - 1) | 8);
	config(PCI_BAR0 + 8, 4, 0xffffffff);
	assert_int_equal(pci_config_read(&m.vga.function, PCI_BAR0 + 8, 4, 0), 0xfffff000);
}

static void test_registers(void **state)
{
	set(0x3ce, GR_BIT_MASK, 0x5a);
	out(0x3ce, 1, GR_BIT_MASK);
	assert_int_equal(in(0x3cf, 1), 0x5a);
	assert_int_equal(in(0x3cc, 1), 0x67);
	/* The attribute controller takes index and data in turn, from the index on after a look at the status. */
	in(0x3da, 1);
	out(0x3c0, 1, 5);
	out(0x3c0, 1, 0x2a);
	out(0x3c0, 1, 5);
	assert_int_equal(in(0x3c1, 1), 0x2a);
	in(0x3da, 1);
	out(0x3c0, 1, AR_ENABLE);
	assert_int_equal(in(0x3c0, 1), AR_ENABLE);
	/* Timing is locked. */
	set(0x3d4, CR_WIDTH, 1);
	size_is(720, 400);
	set(0x3d4, CR_PROTECT, 0x0e);
	set(0x3d4, CR_WIDTH, 39);
	size_is(360, 400);
	/* In monochrome the CRT controller is elsewhere. */
	out(0x3c2, 1, 0x66);
	assert_int_equal(in(0x3d4, 1), 0xff);
	assert_int_equal(in(0x3b5, 1), 39);
}

static void test_colors(void **state)
{
	static const u8 colors[] = { 1, 2, 3, 63, 62, 61 };
	out(0x3c8, 1, 200);
	for (unsigned i = 0; i < 6; i++)
		out(0x3c9, 1, colors[i]);
	out(0x3c7, 1, 200);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(in(0x3c9, 1), colors[i]);
}

static void test_status(void **state)
{
	unsigned retraces = 0, changes = 0;
	u64 before = 0;
	for (u64 now = 0; now < 100000000; now += 20000) {
		u64 status = bus_read(&m.io, 0x3da, 1, now) & 8;
		retraces += status != 0;
		changes += status != before;
		before = status;
	}
	assert_in_range(changes, 10, 12);
	assert_in_range(retraces, 200, 600);
}

static void test_text(void **state)
{
	size_is(720, 400);
	bus_write(&m.memory, 0xb8000 + 2 * 81, 2, 0x1e55, 0); /* second row, second column: yellow on blue */
	assert_int_equal(bus_read(&m.memory, 0xb8000 + 2 * 81, 2, 0), 0x1e55);
	assert_int_equal(bus_read(&m.memory, 0xa0000, 1, 0), 0xff);
	draw();
	for (unsigned i = 0; i < 9; i++)
		assert_int_equal(picture[20 * 720 + 9 + i], i < 8 && 0x55 >> (7 - i) & 1 ? 0xffff55 : 0x0000aa);
	assert_int_equal(picture[20 * 720 + 18], 0);
	/* The cursor: two lines at the bottom of its cell. */
	set(0x3d4, CR_CURSOR + 1, 3);
	draw();
	assert_int_equal(picture[13 * 720 + 27], 0xaaaaaa);
	assert_int_equal(picture[12 * 720 + 27], 0);
	/* Scrolling by the start. */
	set(0x3d4, CR_START + 1, 80);
	draw();
	assert_int_equal(picture[4 * 720 + 10], 0xffff55);
	/* Line graphics go on into the ninth dot. */
	bus_write(&m.memory, 0xb8000 + 2 * 80, 2, 0x07c5, 0);
	draw();
	assert_int_equal(picture[8], 0xaaaaaa);
	/* The screen is off. */
	in(0x3da, 1);
	out(0x3c0, 1, 0);
	draw();
	assert_int_equal(picture[4 * 720 + 10], 0);
}

/* 640 x 480 in 16 colors. */
static void planar(void)
{
	set(0x3c4, SR_CLOCK, 1);
	set(0x3c4, SR_MASK, 0x0f);
	set(0x3c4, SR_MODE, 6);
	set(0x3ce, GR_MODE, 0);
	set(0x3ce, GR_MISC, 5);
	set(0x3d4, CR_PROTECT, 0);
	set(0x3d4, CR_WIDTH, 79);
	set(0x3d4, CR_HEIGHT, 0xdf);
	set(0x3d4, CR_OVERFLOW, 0x12);
	set(0x3d4, CR_ROW_HEIGHT, 0x40);
	set(0x3d4, CR_PITCH, 40);
	set(0x3d4, CR_MODE, 0xe3);
}

static u8 plane(unsigned p, unsigned offset)
{
	return m.vga.memory[4 * offset + p];
}

static void test_write_modes(void **state)
{
	planar();
	size_is(640, 480);
	memset(m.vga.memory, 0, 4096);
	/* Mode 0 with set/reset: color 5 through a bit mask. */
	set(0x3ce, GR_SET_RESET, 5);
	set(0x3ce, GR_ENABLE_SET_RESET, 0xf);
	set(0x3ce, GR_BIT_MASK, 0x81);
	bus_read(&m.memory, WINDOW + 100, 1, 0);
	bus_write(&m.memory, WINDOW + 100, 1, 0, 0);
	for (unsigned p = 0; p < 4; p++)
		assert_int_equal(plane(p, 100), 5 >> p & 1 ? 0x81 : 0);
	/* Mode 1 copies latches. */
	set(0x3ce, GR_MODE, 1);
	bus_read(&m.memory, WINDOW + 100, 1, 0);
	bus_write(&m.memory, WINDOW + 200, 1, 0, 0);
	assert_memory_equal(m.vga.memory + 400, m.vga.memory + 800, 4);
	/* Mode 2: the byte is the color. Exclusive or. */
	set(0x3ce, GR_MODE, 2);
	set(0x3ce, GR_BIT_MASK, 0xff);
	set(0x3ce, GR_ROTATE, 0x18);
	bus_read(&m.memory, WINDOW + 100, 1, 0);
	bus_write(&m.memory, WINDOW + 100, 1, 3, 0);
	assert_int_equal(plane(0, 100), 0x7e);
	assert_int_equal(plane(1, 100), 0xff);
	assert_int_equal(plane(2, 100), 0x81);
	/* Mode 3: the byte, rotated, is the mask. */
	set(0x3ce, GR_MODE, 3);
	set(0x3ce, GR_ROTATE, 0x04);
	bus_read(&m.memory, WINDOW + 300, 1, 0);
	bus_write(&m.memory, WINDOW + 300, 1, 0xf0, 0);
	assert_int_equal(plane(0, 300), 0x0f);
	assert_int_equal(plane(1, 300), 0);
	/* Read mode 1: where is color 5? */
	set(0x3ce, GR_MODE, 8);
	set(0x3ce, GR_COMPARE, 5);
	set(0x3ce, GR_DONT_CARE, 0xf);
	assert_int_equal(bus_read(&m.memory, WINDOW + 300, 1, 0), 0x0f);
	/* Only some planes. */
	set(0x3ce, GR_MODE, 0);
	set(0x3ce, GR_ENABLE_SET_RESET, 0);
	set(0x3ce, GR_ROTATE, 0);
	set(0x3c4, SR_MASK, 2);
	bus_write(&m.memory, WINDOW + 400, 2, 0xaa55, 0);
	assert_int_equal(plane(1, 400), 0x55);
	assert_int_equal(plane(1, 401), 0xaa);
	assert_int_equal(plane(0, 400), 0);
}

static void test_planar_picture(void **state)
{
	planar();
	memset(m.vga.memory, 0, 1 << 20);
	m.vga.memory[4 * (80 * 3 + 1)] = 0x80; /* blue */
	draw();
	assert_int_equal(picture[3 * 640 + 8], 0x0000aa);
	assert_int_equal(picture[3 * 640 + 9], 0);
}

static void test_bytes(void **state)
{
	/* 320 x 200 in 256 colors, each dot four on the screen. */
	planar();
	set(0x3c4, SR_MODE, 0x0e);
	set(0x3ce, GR_MODE, 0x40);
	set(0x3d4, CR_HEIGHT, 0x8f);
	set(0x3d4, CR_ROW_HEIGHT, 0x41);
	size_is(640, 400);
	memset(m.vga.memory, 0, 1 << 20);
	bus_write(&m.memory, WINDOW + 320 * 10 + 5, 1, 4, 0);
	draw();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(picture[(20 + i / 2) * 640 + 10 + i % 2], 0xaa0000);
	assert_int_equal(picture[22 * 640 + 10], 0);
}

static void linear(u16 width, u16 height, u16 bpp)
{
	dispi(DISPI_ENABLE, 0);
	dispi(DISPI_WIDTH, width);
	dispi(DISPI_HEIGHT, height);
	dispi(DISPI_BPP, bpp);
	dispi(DISPI_ENABLE, DISPI_ENABLED | 0x40);
}

static void test_linear(void **state)
{
	static const struct {
		u16 bpp;
		u32 bytes, value, color;
	} rows[] = { { 32, 4, 0x123456, 0x123456 }, { 24, 3, 0x123456, 0x123456 }, { 16, 2, 0xf81f, 0xff00ff }, { 15, 2, 0x7c1f, 0xff00ff }, { 8, 1, 1, 0x0000aa } };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		linear(800, 600, rows[i].bpp);
		size_is(800, 600);
		memcpy(m.vga.memory + (800 * 7 + 9) * rows[i].bytes, &rows[i].value, rows[i].bytes);
		draw();
		assert_int_equal(picture[800 * 7 + 9] & 0xffffff, rows[i].color);
		assert_int_equal(picture[800 * 7 + 10] & 0xffffff, 0);
	}
	/* Through the window, bank by bank. */
	linear(1024, 768, 8);
	dispi(DISPI_BANK, 3);
	bus_write(&m.memory, WINDOW + 16, 4, 0x01020304, 0);
	assert_int_equal(m.vga.memory[0x30010], 4);
	/* Panning. */
	dispi(DISPI_VIRTUAL_WIDTH, 2048);
	dispi(DISPI_Y, 1);
	dispi(DISPI_X, 8);
	m.vga.memory[2048 + 8] = 1;
	draw();
	assert_int_equal(picture[0], 0x0000aa);
}

static void test_limits(void **state)
{
	unsigned width, height;
	dispi(DISPI_ENABLE, DISPI_CAPABILITIES);
	out(0x1ce, 2, DISPI_WIDTH);
	assert_int_equal(in(0x1cf, 2), VGA_WIDTH_MAX);
	out(0x1ce, 2, DISPI_MEMORY);
	assert_int_equal(in(0x1cf, 2), VGA_MEMORY_SIZE >> 16);
	for (u32 value = 0; value < 0x10000; value += 4369) {
		linear((u16)value, (u16)~value, (u16)(value % 48));
		dispi(DISPI_VIRTUAL_WIDTH, (u16)(value * 3));
		dispi(DISPI_X, (u16)~value);
		dispi(DISPI_Y, (u16)value);
		vga_size(&m.vga.regs, &width, &height);
		assert_in_range(width, 1, VGA_WIDTH_MAX);
		assert_in_range((u64)width * height * 4, 4, VGA_PICTURE_MAX);
		draw();
	}
}

static void test_place(void **state)
{
	u32 value = 0x01020304;
	assert_null(ram_find(&m.ram, BASE));
	config(PCI_BAR0, 4, (u32)BASE);
	assert_int_equal(m.moves, 0);
	config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(m.moves, 1);
	/* Until it has moved, it answers as a device. */
	bus_write(&m.memory, BASE + 8, 4, value, 0);
	assert_memory_equal(m.vga.memory + 8, &value, 4);
	vga_place(&m.vga);
	assert_ptr_equal(ram_pointer(&m.ram, BASE + 8, 4), m.vga.memory + 8);
	config(PCI_BAR0, 4, (u32)BASE + VGA_MEMORY_SIZE);
	vga_place(&m.vga);
	assert_null(ram_find(&m.ram, BASE));
	assert_ptr_equal(ram_pointer(&m.ram, BASE + VGA_MEMORY_SIZE, 4), m.vga.memory);
	/* Not over RAM, and not over local APICs. */
	u8 *other = calloc(1, PAGE_SIZE);
	assert_int_equal(ram_add(&m.ram, BASE + 2 * VGA_MEMORY_SIZE, PAGE_SIZE, other, false), 0);
	config(PCI_BAR0, 4, (u32)BASE + 2 * VGA_MEMORY_SIZE);
	vga_place(&m.vga);
	assert_ptr_equal(ram_pointer(&m.ram, BASE + 2 * VGA_MEMORY_SIZE, 4), other);
	assert_int_equal(ram_place(&m.ram, m.vga.memory), RAM_NOWHERE);
	config(PCI_BAR0, 4, 0xfe000000);
	vga_place(&m.vga);
	assert_int_equal(ram_place(&m.ram, m.vga.memory), RAM_NOWHERE);
	config(PCI_COMMAND, 2, 0);
	vga_place(&m.vga);
	assert_null(ram_find(&m.ram, BASE));
	free(other);
}

static void test_bar2(void **state)
{
	config(PCI_BAR0 + 8, 4, (u32)BASE);
	config(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(bus_read(&m.memory, BASE + 0x500, 2, 0) & 0xfff0, 0xb0c0);
	bus_write(&m.memory, BASE + 0x502, 2, 640, 0);
	out(0x1ce, 2, DISPI_WIDTH);
	assert_int_equal(in(0x1cf, 2), 640);
	assert_int_equal(bus_read(&m.memory, BASE + 0x40c, 1, 0), 0x67);
	assert_int_equal(bus_read(&m.memory, BASE + 0x600, 4, 0), 8);
	assert_int_equal(bus_read(&m.memory, BASE + 0x604, 4, 0), 0x1e1e1e1e);
}

static void test_state(void **state)
{
	struct state count = { 0 };
	linear(640, 480, 32);
	m.vga.memory[0x123456] = 7;
	vga_state(&count, &m.vga);
	u8 *data = malloc(count.at);
	struct state save = { .data = data, .size = count.at }, load = { .loading = true, .data = data, .size = count.at };
	vga_state(&save, &m.vga);
	assert_true(state_good(&save) && count.at < 200000);
	teardown(NULL);
	memset(&m, 0, sizeof(m));
	assert_int_equal(start(false), 0);
	vga_state(&load, &m.vga);
	state_end(&load);
	assert_true(state_good(&load));
	size_is(640, 480);
	assert_int_equal(m.vga.memory[0x123456], 7);
	assert_int_equal(m.vga.memory[0], 0); /* what was there before is gone */
	free(data);
}

static void test_reset(void **state)
{
	linear(640, 480, 32);
	m.vga.memory[5] = 7;
	vga_reset(&m.vga);
	size_is(720, 400);
	assert_int_equal(m.vga.memory[4], ' ');
	teardown(NULL);
	memset(&m, 0, sizeof(m));
	assert_int_equal(start(true), 0);
	assert_int_equal(m.vga.memory[4], 0);
	draw();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_identity), TEST(test_registers), TEST(test_colors), TEST(test_status), TEST(test_text),  TEST(test_write_modes),
		TEST(test_planar_picture), TEST(test_bytes), TEST(test_linear), TEST(test_limits), TEST(test_place), TEST(test_bar2),
		TEST(test_state), TEST(test_reset),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
