/* Mode 3 as a video BIOS leaves it (vga.h): 80 columns, 25 rows, 16 colors, characters of 9 by 16 dots. */
#include "dev/vga.h"

#include "lib/string.h"

#define GLYPHS 256
#define GLYPH_HEIGHT 16
#define GLYPH_ROOM 32 /* in the font's plane */
#define FONT_PLANE 2
#define CELLS (80 * 25)
#define ATTRIBUTE 0x07

static const u8 misc = 0x67;
static const u8 sr[] = { 0x03, 0x00, 0x03, 0x00, 0x02 };
static const u8 cr[] = { 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
			 0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff };
static const u8 gr[] = { 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x0f, 0xff };
static const u8 ar[] = { 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00 };

/* The first two characters of every font of code page 437 with 16 lines: nothing, and a face. */
static const u8 font_begins[2 * GLYPH_HEIGHT] = { [18] = 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e };

static const u8 *find_font(const u8 *rom, size_t size)
{
	for (size_t at = 0; at + GLYPHS * GLYPH_HEIGHT <= size; at++)
		if (!memcmp(rom + at, font_begins, sizeof(font_begins)))
			return rom + at;
	return NULL;
}

/* Six bits: secondary red, green, blue, primary red, green, blue. */
static void set_colors(u8 *dac)
{
	for (unsigned i = 0; i < 64; i++)
		for (unsigned c = 0; c < 3; c++)
			dac[3 * i + c] = (u8)((i >> (2 - c) & 1) * 0x2a + (i >> (5 - c) & 1) * 0x15);
}

void vga_set_text_mode(struct vga *vga)
{
	struct vga_regs *r = &vga->regs;
	const u8 *font = find_font(vga->rom, vga->rom_size);
	r->misc = misc;
	memcpy(r->sr, sr, sizeof(sr));
	memcpy(r->cr, cr, sizeof(cr));
	memcpy(r->gr, gr, sizeof(gr));
	memcpy(r->ar, ar, sizeof(ar));
	r->ar_index = AR_ENABLE;
	set_colors(r->dac);
	for (unsigned i = 0; font && i < GLYPHS * GLYPH_HEIGHT; i++)
		vga->memory[4 * (i / GLYPH_HEIGHT * GLYPH_ROOM + i % GLYPH_HEIGHT) + FONT_PLANE] = font[i];
	for (unsigned i = 0; i < CELLS; i++) {
		vga->memory[4 * i] = ' ';
		vga->memory[4 * i + 1] = ATTRIBUTE;
	}
}
