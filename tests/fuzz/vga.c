/* The VGA under any sequence of accesses to its ports, window, BARs and configuration space; then its picture, and its state loaded from any bytes. */
#include "dev/vga.h"
#include "dev/map.h"
#include "input.h"
#include "lib/string.h"

static struct vga vga;
static struct ram ram;
static struct pci_host host;
static u32 picture[VGA_PICTURE_MAX / 4];
static u8 rom[8192];
static unsigned heavy;

static void on_moved(void *opaque)
{
}

static void draw(void)
{
	unsigned width, height;
	vga_size(&vga.regs, &width, &height);
	CHECK(width && height && (u64)width * height * 4 <= sizeof(picture));
	vga_draw(&vga.regs, vga.memory, picture);
}

static void step(struct bus *io, struct bus *memory, struct input *in)
{
	u8 op = input_u8(in);
	unsigned size = input_size(in);
	switch (op & 15) {
	case 0:
		if (heavy++ < 2)
			vga_reset(&vga);
		break;
	case 1:
		if (heavy++ < 4)
			draw();
		break;
	case 2:
		vga_place(&vga);
		break;
	case 3:
	case 4:
		bus_write(memory, MAP_LEGACY_HOLE + (input_u32(in) & 0x1ffff), size, input_take(in, size), 0);
		break;
	case 5:
		bus_read(memory, MAP_LEGACY_HOLE + (input_u32(in) & 0x1ffff), size, 0);
		break;
	case 6:
		pci_config_write(&vga.function, op & 0xf0 ? PCI_BAR0 : PCI_COMMAND, 4, input_u32(in), 0);
		break;
	case 7:
		bus_read(io, 0x3b0 + input_u8(in) % 48, MIN(size, 4), input_u32(in));
		break;
	case 8:
		bus_write(memory, vga.function.bar[op & 0x80 ? 2 : 0].base + input_take(in, 3), size, input_take(in, size), 0);
		break;
	case 9:
		bus_read(memory, vga.function.bar[op & 0x80 ? 2 : 0].base + input_take(in, 3), size, 0);
		break;
	case 10:
	case 11:
		bus_write(io, 0x1ce, 2, op >> 4, 0);
		bus_write(io, 0x1cf, 2, input_take(in, 2), 0);
		break;
	default:
		bus_write(io, 0x3b0 + input_u8(in) % 48, MIN(size, 4), input_take(in, MIN(size, 4)), 0);
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	struct input in = { bytes, size };
	struct bus io = { 0 }, memory = { 0 };

	memset(&ram, 0, sizeof(ram));
	memset(&host, 0, sizeof(host));
	heavy = 0;
	vga = (struct vga){ .moved = on_moved, .firmware = size & 1, .rom = rom, .rom_size = sizeof(rom) };
	CHECK(!pci_attach(&host, &io, &memory));
	CHECK(!vga_attach(&vga, &host, &io, &memory, &ram, 30, 0));
	while (in.left)
		step(&io, &memory, &in);
	draw();
	struct state load = { .loading = true, .data = (u8 *)(uintptr_t)bytes, .size = size };
	vga_state(&load, &vga);
	if (state_good(&load))
		draw();
	vga_destroy(&vga);
	ram_release(&ram);
	return 0;
}
