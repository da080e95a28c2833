/* RFB: pictures on their way to a client (rfb.h). What changed is found by comparing with what the client shows, tile by tile. RFC 6143, "FramebufferUpdate",
 * "ZRLE"; the rfbproto document, "DesktopSize Pseudo-encoding". */
#include "host/linux/rfb.h"

#include <stdlib.h>
#include <string.h>

#define RECT_HEADER 12
#define LEVEL 1
#define PIXELS_MAX (RFB_TILE * RFB_TILE)

enum { RAW = 0, ZRLE = 16, DESKTOP_SIZE = -223, QEMU_KEYS = -258 };
enum { TILE_RAW = 0, TILE_SOLID = 1 };

static void put_be(u8 *p, unsigned size, u32 value)
{
	while (size--)
		*p++ = (u8)(value >> (8 * size));
}

static bool put_rect(struct rfb *rfb, unsigned x, unsigned y, unsigned width, unsigned height, s32 encoding)
{
	u8 *to = rfb_room(rfb, RECT_HEADER);
	if (!to)
		return false;
	put_be(to, 2, x);
	put_be(to + 2, 2, y);
	put_be(to + 4, 2, width);
	put_be(to + 6, 2, height);
	put_be(to + 8, 4, (u32)encoding);
	return true;
}

/* ---- pixels ---- */

static u32 convert(const struct rfb_format *f, u32 pixel)
{
	u32 value = 0;
	for (unsigned i = 0; i < 3; i++) {
		u32 part = pixel >> (16 - 8 * i) & 0xff;
		value |= (part * f->max[i] + 127) / 255 << f->shift[i];
	}
	return value;
}

/* `skip` leading and `bytes` following ones of the pixel as the client wants it. */
static u8 *put_pixel(u8 *to, const struct rfb_format *f, u32 pixel, unsigned skip, unsigned bytes)
{
	u8 whole[4];
	u32 value = convert(f, pixel);
	for (unsigned i = 0; i < f->bytes; i++)
		whole[i] = (u8)(value >> 8 * (f->big_endian ? f->bytes - 1u - i : i));
	memcpy(to, whole + skip, bytes);
	return to + bytes;
}

/* "CPIXEL": three bytes where those hold all the color. */
static unsigned compact(const struct rfb_format *f, unsigned *skip)
{
	u32 used = 0;
	for (unsigned i = 0; i < 3; i++)
		used |= (u32)f->max[i] << f->shift[i];
	*skip = 0;
	if (f->bytes != 4 || f->depth > 24 || ((used & 0xff000000) && (used & 0xff)))
		return f->bytes;
	bool low = !(used & 0xff000000); /* the lower three are used */
	*skip = low == f->big_endian;
	return 3;
}

/* ---- rectangles ---- */

struct area {
	unsigned x, y, width, height;
};

static const u32 *line_of(const struct rfb_picture *p, const struct area *a, unsigned line)
{
	return p->pixel + (size_t)(a->y + line) * p->width + a->x;
}

static bool put_raw(struct rfb *rfb, const struct rfb_picture *p, const struct area *a)
{
	u8 *to = put_rect(rfb, a->x, a->y, a->width, a->height, RAW) ? rfb_room(rfb, (size_t)a->width * a->height * rfb->format.bytes) : NULL;
	for (unsigned y = 0; to && y < a->height; y++)
		for (unsigned x = 0; x < a->width; x++)
			to = put_pixel(to, &rfb->format, line_of(p, a, y)[x], 0, rfb->format.bytes);
	return to;
}

static bool is_solid(const struct rfb_picture *p, const struct area *a)
{
	u32 first = line_of(p, a, 0)[0];
	for (unsigned y = 0; y < a->height; y++)
		for (unsigned x = 0; x < a->width; x++)
			if (line_of(p, a, y)[x] != first)
				return false;
	return true;
}

/* Bytes of one tile before compression. */
static size_t make_tile(const struct rfb *rfb, const struct rfb_picture *p, const struct area *a, u8 *tile)
{
	unsigned skip, bytes = compact(&rfb->format, &skip);
	bool solid = is_solid(p, a);
	u8 *to = tile;
	*to++ = solid ? TILE_SOLID : TILE_RAW;
	for (unsigned y = 0; y < (solid ? 1 : a->height); y++)
		for (unsigned x = 0; x < (solid ? 1 : a->width); x++)
			to = put_pixel(to, &rfb->format, line_of(p, a, y)[x], skip, bytes);
	return (size_t)(to - tile);
}

static bool put_compressed(struct rfb *rfb, const u8 *data, size_t size)
{
	size_t bound = deflateBound(&rfb->z, size) + 64;
	u8 *to = rfb_room(rfb, 4 + bound);
	if (!to)
		return false;
	size_t length_at = rfb->out_used - 4 - bound;
	rfb->z.next_in = (u8 *)(uintptr_t)data;
	rfb->z.avail_in = (uInt)size;
	rfb->z.next_out = to + 4;
	rfb->z.avail_out = (uInt)bound;
	if (deflate(&rfb->z, Z_SYNC_FLUSH) == Z_STREAM_ERROR || rfb->z.avail_in || !rfb->z.avail_out)
		return false;
	size_t used = bound - rfb->z.avail_out;
	put_be(rfb->out + length_at, 4, (u32)used);
	rfb->out_used -= bound - used;
	return true;
}

/* One tile. */
static bool put_zrle(struct rfb *rfb, const struct rfb_picture *p, const struct area *a)
{
	u8 tile[1 + 4 * PIXELS_MAX];
	if (!rfb->z_open && deflateInit(&rfb->z, LEVEL) != Z_OK)
		return false;
	rfb->z_open = true;
	return put_rect(rfb, a->x, a->y, a->width, a->height, ZRLE) && put_compressed(rfb, tile, make_tile(rfb, p, a, tile));
}

/* ---- updates ---- */

static bool tile_changed(const struct rfb *rfb, const struct rfb_picture *p, const struct area *a)
{
	for (unsigned y = 0; y < a->height; y++)
		if (memcmp(rfb->sent + (size_t)(a->y + y) * rfb->width + a->x, line_of(p, a, y), a->width * sizeof(u32)) != 0)
			return true;
	return false;
}

static void note_sent(struct rfb *rfb, const struct rfb_picture *p, const struct area *a)
{
	for (unsigned y = 0; y < a->height; y++)
		memcpy(rfb->sent + (size_t)(a->y + y) * rfb->width + a->x, line_of(p, a, y), a->width * sizeof(u32));
}

/* Tiles that differ, and their number; what the client does not know of the picture is left. */
static bool put_tiles(struct rfb *rfb, const struct rfb_picture *p, unsigned *count)
{
	unsigned width = MIN(rfb->width, p->width), height = MIN(rfb->height, p->height);
	for (unsigned y = 0; y < height; y += RFB_TILE) {
		for (unsigned x = 0; x < width; x += RFB_TILE) {
			struct area a = { x, y, MIN(RFB_TILE, width - x), MIN(RFB_TILE, height - y) };
			if (!rfb->wants_all && !tile_changed(rfb, p, &a))
				continue;
			if (!(rfb->zrle ? put_zrle : put_raw)(rfb, p, &a))
				return false;
			note_sent(rfb, p, &a);
			++*count;
		}
	}
	return true;
}

/* The client is told the picture's new size, if it can be; its memory is empty then, and filled by the next update. */
static bool put_size(struct rfb *rfb, const struct rfb_picture *p, unsigned *count, bool *resized)
{
	bool other = rfb->width != p->width || rfb->height != p->height;
	if (rfb->sent && !(other && rfb->resizes))
		return true;
	if (other && rfb->resizes) {
		if (!put_rect(rfb, 0, 0, p->width, p->height, DESKTOP_SIZE))
			return false;
		rfb->width = p->width;
		rfb->height = p->height;
		++*count;
		*resized = true;
	}
	free(rfb->sent);
	rfb->sent = calloc((size_t)rfb->width * rfb->height, sizeof(u32));
	rfb->wants_all = true;
	return rfb->sent;
}

static bool put_promises(struct rfb *rfb, unsigned *count)
{
	if (!rfb->codes || rfb->codes_told)
		return true;
	rfb->codes_told = true;
	++*count;
	return put_rect(rfb, 0, 0, 0, 0, QEMU_KEYS);
}

bool rfb_update(struct rfb *rfb, const struct rfb_picture *picture)
{
	unsigned count = 0;
	bool resized = false;
	size_t before = rfb->out_used - rfb->out_sent;
	if (rfb->stage != RFB_NORMAL || !rfb->wants || before)
		return true;
	if (!rfb_room(rfb, 4) || !put_promises(rfb, &count) || !put_size(rfb, picture, &count, &resized))
		return false;
	if (!resized && !put_tiles(rfb, picture, &count))
		return false;
	if (!count) {
		rfb->out_used = rfb->out_sent;
		return true;
	}
	put_be(rfb->out, 4, count);
	rfb->wants = false;
	rfb->wants_all = resized;
	return true;
}
