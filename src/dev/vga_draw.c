/* The picture of a VGA (vga.h), drawn from its registers and memory. Nothing blinks, so that a picture differs from the one before only if the
 * guest changed something.
 *
 * Registers may hold anything: every address is cut down to the memory, and the size to what a picture may have. */
#include "dev/vga.h"

#include "lib/string.h"

#define MASK (VGA_MEMORY_SIZE - 1)
#define HEIGHT_MAX 4096u
#define FONT_PLANE 2
#define GLYPH_ROOM 32

struct painter {
	const struct vga_regs *r;
	const u8 *memory;
	u32 *pixel;
	unsigned width, height;
	u32 color[256]; /* of the color table */
	u32 of16[16]; /* of the attribute controller */
};

/* ---- size ---- */

/* What the memory does not hold of a picture is not shown. */
static void limit(unsigned *width, unsigned *height)
{
	*width = MAX(1, MIN(*width, VGA_WIDTH_MAX));
	*height = MAX(1, MIN(*height, HEIGHT_MAX));
	*height = MIN(*height, VGA_PICTURE_MAX / 4 / *width);
}

static bool is_text(const struct vga_regs *r)
{
	return !(r->gr[GR_MISC] & GR_MISC_GRAPHICS);
}

static unsigned dots(const struct vga_regs *r)
{
	return r->sr[SR_CLOCK] & SR_CLOCK_8_DOTS ? 8 : 9;
}

static unsigned lines(const struct vga_regs *r)
{
	return (r->cr[CR_HEIGHT] | (r->cr[CR_OVERFLOW] & 0x02) << 7 | (r->cr[CR_OVERFLOW] & 0x40) << 3) + 1u;
}

/* Every dot is shown twice at half the clock. */
static unsigned stretch(const struct vga_regs *r)
{
	return r->sr[SR_CLOCK] & SR_CLOCK_HALF ? 2 : 1;
}

void vga_size(const struct vga_regs *regs, unsigned *width, unsigned *height)
{
	const struct vga_regs *r = regs;
	if (vga_extended(r)) {
		*width = r->dispi[DISPI_WIDTH];
		*height = r->dispi[DISPI_HEIGHT];
	} else {
		*width = (r->cr[CR_WIDTH] + 1u) * (is_text(r) ? dots(r) : 8 * stretch(r));
		*height = lines(r);
	}
	limit(width, height);
}

/* ---- colors ---- */

static u32 dac_color(const struct vga_regs *r, unsigned index)
{
	const u8 *c = &r->dac[3 * (index & r->dac_mask)];
	u32 color = 0;
	for (unsigned i = 0; i < 3; i++) {
		u32 six = c[i] & 0x3f;
		color = color << 8 | (r->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC ? c[i] : six << 2 | six >> 4);
	}
	return color;
}

static void set_colors(struct painter *p)
{
	const struct vga_regs *r = p->r;
	u8 select = r->ar[AR_COLOR_SELECT];
	for (unsigned i = 0; i < 256; i++)
		p->color[i] = dac_color(r, i);
	for (unsigned i = 0; i < 16; i++) {
		u8 a = r->ar[i];
		p->of16[i] = p->color[r->ar[AR_MODE] & 0x80 ? (a & 0x0f) | (select & 0x0f) << 4 : (a & 0x3f) | (select & 0x0c) << 4];
	}
}

/* ---- text ---- */

static unsigned font_at(u8 select)
{
	return ((select & 3u) << 1 | (select >> 4 & 1u)) * 0x2000;
}

/* One line of one character: its dots from bit 8 down. */
static unsigned glyph_line(const struct painter *p, unsigned cell, unsigned line)
{
	const struct vga_regs *r = p->r;
	u8 code = p->memory[4 * cell & MASK], attribute = p->memory[(4 * cell & MASK) + 1];
	u8 select = attribute & 8 ? r->sr[SR_FONT] >> 2 : r->sr[SR_FONT];
	if (attribute & 8) /* bits 3, 2 and 5 */
		select = (select & 3) | (r->sr[SR_FONT] >> 1 & 0x10);
	unsigned glyph = font_at(select) + code * GLYPH_ROOM + (line & (GLYPH_ROOM - 1));
	unsigned bits = p->memory[(4 * glyph & MASK) + FONT_PLANE];
	bool joined = (r->ar[AR_MODE] & 4) && (code & 0xe0) == 0xc0;
	return bits << 1 | (joined ? bits & 1 : 0);
}

static bool cursor_at(const struct vga_regs *r, unsigned cell, unsigned line)
{
	unsigned where = r->cr[CR_CURSOR] << 8 | r->cr[CR_CURSOR + 1];
	return cell == where && !(r->cr[CR_CURSOR_START] & 0x20) && line >= (r->cr[CR_CURSOR_START] & 0x1fu) &&
	       line <= (r->cr[CR_CURSOR_END] & 0x1fu);
}

static void text_line(const struct painter *p, u32 *to, unsigned first, unsigned line)
{
	const struct vga_regs *r = p->r;
	unsigned wide = dots(r), blink = r->ar[AR_MODE] & 8;
	for (unsigned x = 0; x < p->width; x += wide, first++) {
		u8 attribute = p->memory[(4 * first & MASK) + 1];
		u32 ink = p->of16[attribute & r->ar[AR_PLANES] & 15], paper = p->of16[(attribute >> 4) & (blink ? 7 : 15) & r->ar[AR_PLANES]];
		unsigned bits = cursor_at(r, first, line) ? 0x1ff : glyph_line(p, first, line);
		for (unsigned i = 0; i < wide && x + i < p->width; i++)
			to[x + i] = bits & (0x100u >> i) ? ink : paper;
	}
}

static unsigned start_of(const struct vga_regs *r)
{
	return (unsigned)(r->cr[CR_START] << 8 | r->cr[CR_START + 1]);
}

static unsigned line_compare(const struct vga_regs *r)
{
	return r->cr[CR_LINE_COMPARE] | (r->cr[CR_OVERFLOW] & 0x10u) << 4 | (r->cr[CR_ROW_HEIGHT] & 0x40u) << 3;
}

static void draw_text(const struct painter *p)
{
	const struct vga_regs *r = p->r;
	unsigned tall = ((r->cr[CR_ROW_HEIGHT] & 0x1fu) + 1) << (r->cr[CR_ROW_HEIGHT] >> 7), split = line_compare(r);
	for (unsigned y = 0; y < p->height; y++) {
		unsigned from = y > split ? y - split - 1 : y;
		unsigned first = (y > split ? 0 : start_of(r)) + from / tall * r->cr[CR_PITCH] * 2;
		text_line(p, p->pixel + (size_t)y * p->width, first, (from % tall) >> (r->cr[CR_ROW_HEIGHT] >> 7));
	}
}

/* ---- planes ---- */

/* Eight dots of 16 colors. */
static void planar_dots(const struct painter *p, const u8 *from, u32 *to, unsigned room, unsigned times)
{
	u8 shown = p->r->ar[AR_PLANES] & 15;
	for (unsigned i = 0; i < room; i++) {
		unsigned bit = 7 - i / times, color = 0;
		for (unsigned plane = 0; plane < 4; plane++)
			color |= (from[plane] >> bit & 1u) << plane;
		to[i] = p->of16[color & shown];
	}
}

/* Eight dots of four colors, from planes 0 and 1 in turn, with 2 and 3 above them. */
static void paired_dots(const struct painter *p, const u8 *from, u32 *to, unsigned room, unsigned times)
{
	u8 shown = p->r->ar[AR_PLANES] & 15;
	for (unsigned i = 0; i < room; i++) {
		unsigned dot = i / times, plane = dot >> 2 & 1, shift = 6 - 2 * (dot & 3);
		unsigned color = (from[plane] >> shift & 3u) | (from[plane + 2] >> shift & 3u) << 2;
		to[i] = p->of16[color & shown];
	}
}

/* Four dots of 256 colors, each shown twice. */
static void byte_dots(const struct painter *p, const u8 *from, u32 *to, unsigned room, unsigned times)
{
	for (unsigned i = 0; i < room; i++)
		to[i] = p->color[from[i / 2 / times & 3]];
}

/* Addresses of compatibility with older adapters: odd lines lie elsewhere. */
static unsigned line_start(const struct vga_regs *r, unsigned address, unsigned row)
{
	unsigned shift = 12 + (r->cr[CR_MODE] >> 6 & 1);
	if (!(r->cr[CR_MODE] & 1))
		address = (address & ~(1u << shift)) | (row & 1) << shift;
	if (!(r->cr[CR_MODE] & 2))
		address = (address & ~0x2000u) | (row & 2) << 12;
	return address;
}

static void draw_planes(const struct painter *p)
{
	const struct vga_regs *r = p->r;
	bool old = (r->cr[CR_MODE] & 3) != 3;
	unsigned rows = old ? 1u : (r->cr[CR_ROW_HEIGHT] & 0x1fu) + 1, times = stretch(r), mode = r->gr[GR_MODE] >> 5 & 3;
	unsigned repeated = rows << (r->cr[CR_ROW_HEIGHT] >> 7), split = line_compare(r), interleaved = (~r->cr[CR_MODE] & 3u) + 1;
	interleaved = interleaved == 3 ? 2 : interleaved;
	for (unsigned y = 0; y < p->height; y++) {
		unsigned row = (y > split ? y - split - 1 : y) / repeated;
		unsigned address = line_start(r, (y > split ? 0 : start_of(r)) + row / interleaved * r->cr[CR_PITCH] * 2, row);
		u32 *to = p->pixel + (size_t)y * p->width;
		for (unsigned x = 0; x < p->width; x += 8 * times, address++) {
			const u8 *from = p->memory + (4 * address & MASK);
			unsigned room = MIN(8 * times, p->width - x);
			(mode == 0 ? planar_dots : mode == 1 ? paired_dots : byte_dots)(p, from, to + x, room, times);
		}
	}
}

/* ---- Bochs' linear modes ---- */

static u32 scale(u32 value, unsigned bits)
{
	return value << (8 - bits) | value >> (2 * bits - 8);
}

static u32 linear_dot(const struct painter *p, const u8 *from)
{
	u32 word = 0;
	switch (p->r->dispi[DISPI_BPP]) {
	case 8:
		return p->color[*from];
	case 15:
		memcpy(&word, from, 2);
		return scale(word >> 10 & 31, 5) << 16 | scale(word >> 5 & 31, 5) << 8 | scale(word & 31, 5);
	case 16:
		memcpy(&word, from, 2);
		return scale(word >> 11, 5) << 16 | scale(word >> 5 & 63, 6) << 8 | scale(word & 31, 5);
	default:
		memcpy(&word, from, 3);
		return word;
	}
}

static void draw_planar_extended(const struct painter *p)
{
	const u16 *d = p->r->dispi;
	for (unsigned y = 0; y < p->height; y++) {
		unsigned address = (d[DISPI_Y] + y) * (d[DISPI_VIRTUAL_WIDTH] / 8u) + d[DISPI_X] / 8u;
		for (unsigned x = 0; x < p->width; x += 8, address++)
			planar_dots(p, p->memory + (4 * address & MASK), p->pixel + (size_t)y * p->width + x, MIN(8, p->width - x), 1);
	}
}

/* Lines that would reach beyond the memory begin anew at its start, a dot of four bytes before its end at the latest. */
static void draw_linear(const struct painter *p)
{
	const u16 *d = p->r->dispi;
	unsigned bytes = (d[DISPI_BPP] + 7u) / 8;
	u64 line = (u64)d[DISPI_VIRTUAL_WIDTH] * bytes, size = (u64)p->width * bytes;
	for (unsigned y = 0; y < p->height; y++) {
		u64 at = ((d[DISPI_Y] + y) * line + (u64)d[DISPI_X] * bytes) & MASK;
		const u8 *from = p->memory + (at > VGA_MEMORY_SIZE - size ? 0 : at);
		u32 *to = p->pixel + (size_t)y * p->width;
		for (unsigned x = 0; x < p->width && bytes < 4; x++)
			to[x] = linear_dot(p, from + (size_t)x * bytes);
		if (bytes == 4)
			memcpy(to, from, size);
	}
}

/* ---- */

static bool is_dark(const struct vga_regs *r)
{
	return !(r->ar_index & AR_ENABLE) || (r->sr[SR_CLOCK] & SR_CLOCK_OFF);
}

void vga_draw(const struct vga_regs *regs, const u8 *memory, u32 *pixel)
{
	struct painter p = { .r = regs, .memory = memory, .pixel = pixel };
	vga_size(regs, &p.width, &p.height);
	set_colors(&p);
	if (is_dark(regs))
		memset(pixel, 0, (size_t)p.width * p.height * sizeof(*pixel));
	else if (!vga_extended(regs))
		(is_text(regs) ? draw_text : draw_planes)(&p);
	else
		(regs->dispi[DISPI_BPP] == 4 ? draw_planar_extended : draw_linear)(&p);
}
