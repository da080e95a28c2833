/* The multiboot loaders on any file. */
#include "image.h"
#include "lib/bytes.h"

static void repair1(u8 *file, size_t size)
{
	if (size < 32)
		return;
	put_u32(file, 0x1badb002);
	put_u32(file + 8, -(get_u32(file) + get_u32(file + 4)));
}

static void repair2(u8 *file, size_t size)
{
	if (size < 32)
		return;
	put_u32(file, 0xe85250d6);
	put_u32(file + 4, 0);
	put_u32(file + 8, get_u32(file + 8) & 0x3ff);
	put_u32(file + 12, -(get_u32(file) + get_u32(file + 8)));
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	if (size & 1)
		image_run(bytes, size, repair1, BOOT_MULTIBOOT1, 0);
	else
		image_run(bytes, size, repair2, BOOT_MULTIBOOT2, 0);
	return 0;
}
