/* Writing pictures as PNG files (png.c). */
#ifndef NADIR_HOST_LINUX_PNG_H
#define NADIR_HOST_LINUX_PNG_H

#include "arch/types.h"

/* The picture as a PNG file in memory, which the caller frees, and its size; NULL: out of memory. A pixel has red in bits 16 to 23, green, blue. */
u8 *png_encode(const u32 *pixel, unsigned width, unsigned height, size_t *size);

#endif
