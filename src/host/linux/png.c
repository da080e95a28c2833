/* PNG files (PNG Specification, "File structure"): 8 bits of each color, compressed by zlib, every line as its difference from the one above, which
 * makes most of a screen zeros. Nothing is read, so that a library with its readers need not be in the process that a guest runs in. */
#include "host/linux/png.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define LEVEL 6
#define FILTER_UP 2
#define RGB 2
#define SIGNATURE_SIZE 8
#define CHUNK_SIZE 12 /* around its data: length, type, checksum */
#define HEADER_SIZE 13

static void put_be32(u8 *to, u32 value)
{
	for (unsigned i = 0; i < 4; i++)
		to[i] = (u8)(value >> (24 - 8 * i));
}

/* The data is in place already, behind length and type. What comes after it. */
static u8 *finish_chunk(u8 *chunk, const char *type, size_t size)
{
	put_be32(chunk, (u32)size);
	memcpy(chunk + 4, type, 4);
	put_be32(chunk + 8 + size, (u32)crc32(0, chunk + 4, (uInt)(size + 4)));
	return chunk + CHUNK_SIZE + size;
}

static u8 *put_header(u8 *to, unsigned width, unsigned height)
{
	memcpy(to, "\x89PNG\r\n\x1a\n", SIGNATURE_SIZE);
	u8 *header = to + SIGNATURE_SIZE, *data = header + 8;
	memset(data, 0, HEADER_SIZE);
	put_be32(data, width);
	put_be32(data + 4, height);
	data[8] = 8;
	data[9] = RGB;
	return finish_chunk(header, "IHDR", HEADER_SIZE);
}

static void filter_line(u8 *to, const u32 *pixel, const u32 *above, unsigned width)
{
	*to++ = FILTER_UP;
	for (unsigned x = 0; x < width; x++)
		for (int shift = 16; shift >= 0; shift -= 8)
			*to++ = (u8)((pixel[x] >> shift) - (above ? above[x] >> shift : 0));
}

static bool compress_lines(z_stream *z, u8 *line, const u32 *pixel, unsigned width, unsigned height)
{
	for (unsigned y = 0; y < height; y++) {
		filter_line(line, pixel + (size_t)y * width, y ? pixel + (size_t)(y - 1) * width : NULL, width);
		z->next_in = line;
		z->avail_in = 3 * width + 1;
		if (deflate(z, y + 1 < height ? Z_NO_FLUSH : Z_FINISH) == Z_STREAM_ERROR || z->avail_in)
			return false;
	}
	return true;
}

u8 *png_encode(const u32 *pixel, unsigned width, unsigned height, size_t *size)
{
	z_stream z = { 0 };
	if (deflateInit(&z, LEVEL) != Z_OK)
		return NULL;
	size_t raw = (3 * (size_t)width + 1) * height, bound = deflateBound(&z, raw);
	u8 *file = malloc(SIGNATURE_SIZE + 3 * CHUNK_SIZE + HEADER_SIZE + bound), *line = malloc(3 * (size_t)width + 1), *end = NULL;
	if (file && line) {
		u8 *chunk = put_header(file, width, height);
		z.next_out = chunk + 8;
		z.avail_out = (uInt)bound;
		if (compress_lines(&z, line, pixel, width, height))
			end = finish_chunk(finish_chunk(chunk, "IDAT", z.total_out), "IEND", 0);
	}
	deflateEnd(&z);
	free(line);
	if (!end) {
		free(file);
		return NULL;
	}
	*size = (size_t)(end - file);
	return file;
}
