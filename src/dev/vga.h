/* A VGA with Bochs' display extensions as a PCI device, as QEMU's `stdvga` is: vendor 1234, device 1111, BAR0 the video memory, BAR2 registers
 * as memory. Registers after the IBM VGA as every manual of a VGA chip tells them, and QEMU, docs/specs/standard-vga.rst; Bochs, VBE display
 * interface ("DISPI").
 *
 * Video memory holds the four planes side by side: the byte of plane p at offset a is vram[4 * a + p]. Chained modes reach the planes in turn,
 * so that their bytes follow each other: mode 13h and the linear frame buffer see the same memory, and a character of text, in plane 0, lies
 * beside its attribute, in plane 1.
 *
 * It is memory of the guest's while its BAR answers (a slot of `ram`, which moves with the BAR while no vCPU runs), so that drawing costs
 * nothing. The window at 0xa0000 goes through registers, and leaves by exits. Who wants to see the picture copies `regs` and draws it from these
 * and the memory, which may change meanwhile (vga_draw.c). */
#ifndef NADIR_DEV_VGA_H
#define NADIR_DEV_VGA_H

#include "dev/pci.h"
#include "lib/state.h"
#include "mmu/ram.h"

#define VGA_MEMORY_SIZE (16u << 20)
#define VGA_PICTURE_MAX (16u << 20) /* bytes of the largest picture */
#define VGA_WIDTH_MAX 4096u

/* Registers of the sequencer, the CRT controller, the graphics and the attribute controller. */
enum { SR_CLOCK = 1, SR_MASK, SR_FONT, SR_MODE, VGA_SRS = 8 };
enum {
	CR_WIDTH = 0x01,
	CR_OVERFLOW = 0x07,
	CR_ROW_HEIGHT = 0x09,
	CR_CURSOR_START = 0x0a,
	CR_CURSOR_END = 0x0b,
	CR_START = 0x0c, /* high, low */
	CR_CURSOR = 0x0e, /* high, low */
	CR_PROTECT = 0x11,
	CR_HEIGHT = 0x12,
	CR_PITCH = 0x13,
	CR_MODE = 0x17,
	CR_LINE_COMPARE = 0x18,
	VGA_CRS = 32
};
enum { GR_SET_RESET, GR_ENABLE_SET_RESET, GR_COMPARE, GR_ROTATE, GR_READ_PLANE, GR_MODE, GR_MISC, GR_DONT_CARE, GR_BIT_MASK, VGA_GRS = 16 };
enum { AR_MODE = 0x10, AR_PLANES = 0x12, AR_PANNING = 0x13, AR_COLOR_SELECT = 0x14, VGA_ARS = 0x15 };

#define SR_CLOCK_8_DOTS 0x01
#define SR_CLOCK_HALF 0x08
#define SR_CLOCK_OFF 0x20
#define SR_MODE_CHAIN4 0x08
#define GR_MODE_ODD_EVEN 0x10
#define GR_MISC_GRAPHICS 0x01
#define AR_ENABLE 0x20 /* of the index: the picture is shown */

/* Bochs' registers, and bits of the one that enables. */
enum {
	DISPI_ID,
	DISPI_WIDTH,
	DISPI_HEIGHT,
	DISPI_BPP,
	DISPI_ENABLE,
	DISPI_BANK,
	DISPI_VIRTUAL_WIDTH,
	DISPI_VIRTUAL_HEIGHT,
	DISPI_X,
	DISPI_Y,
	DISPI_MEMORY, /* in units of 64 KiB, read only */
	VGA_DISPIS
};
#define DISPI_ENABLED 0x01
#define DISPI_CAPABILITIES 0x02
#define DISPI_8BIT_DAC 0x20
#define DISPI_KEEP_MEMORY 0x80

/* All that the picture is made of, but for the memory. */
struct vga_regs {
	u8 misc;
	u8 sr_index, sr[VGA_SRS];
	u8 cr_index, cr[VGA_CRS];
	u8 gr_index, gr[VGA_GRS];
	u8 ar_index, ar[VGA_ARS];
	bool ar_data; /* the next byte to the attribute controller is data */
	u8 dac_mask, dac_read, dac_write, dac_part;
	bool dac_reading;
	u8 dac_new[3]; /* a color that is not complete */
	u8 dac[768];
	u16 dispi_index, dispi[VGA_DISPIS];
};

struct vga {
	/* Wired by the board before vga_attach, kept by vga_reset. */
	void (*moved)(void *opaque); /* the BAR of the memory is elsewhere: call vga_place when no vCPU runs; called from a register write */
	void *opaque;
	/* Firmware will set the mode. Otherwise all is as firmware leaves it: text, with the font of the video BIOS in `rom`, if there is one. */
	bool firmware;
	const u8 *rom;
	size_t rom_size;

	struct pci_function function;
	struct ram *ram;
	u8 *memory; /* VGA_MEMORY_SIZE */
	struct vga_regs regs;
	u8 latch[4]; /* what was read last, of each plane */
};

/* Make the device, plug it in as `function` of `slot`, and answer at its ports and in the window below 0xc0000, where there must be no RAM. 0, or a negative
 * value: no memory, or as bus_add. */
int vga_attach(struct vga *vga, struct pci_host *host, struct bus *io, struct bus *memory, struct ram *ram, unsigned slot,
	       unsigned function);
void vga_destroy(struct vga *vga);
/* After pci_reset, while no vCPU runs. */
void vga_reset(struct vga *vga);
/* Let guest memory follow the BAR. No vCPU runs, and all flush their TLBs and what they hold of code afterwards. */
void vga_place(struct vga *vga);

/* The size of the picture; it is never empty, and its pixels of 4 bytes are VGA_PICTURE_MAX bytes at most. */
void vga_size(const struct vga_regs *regs, unsigned *width, unsigned *height);
/* Draw it: width * height pixels, red in bits 16 to 23, green, blue. `memory` may change meanwhile. */
void vga_draw(const struct vga_regs *regs, const u8 *memory, u32 *pixel);

/* Saving and loading; loading before that of the PCI host. */
void vga_state(struct state *s, struct vga *vga);

/* ---- within the device ---- */

/* The window at 0xa0000 (vga_memory.c). */
extern const struct region_ops vga_window_ops;
/* Registers and memory as a video BIOS leaves them in mode 3 (vga_text.c). */
void vga_set_text_mode(struct vga *vga);

/* The device wrote to its memory: engines may hold code of it. */
static inline void vga_written(struct vga *vga, const u8 *at, size_t size)
{
	ram_written(vga->ram, ram_place(vga->ram, vga->memory) + (u64)(at - vga->memory), size);
}

static inline bool vga_extended(const struct vga_regs *r)
{
	return r->dispi[DISPI_ENABLE] & DISPI_ENABLED;
}

#endif
