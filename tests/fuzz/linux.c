/* The Linux loader on any file. */
#include "image.h"
#include "lib/bytes.h"

/* Magic numbers, a version that has all fields, LOADED_HIGH, and a preferred address that the small guest has. */
static void repair(u8 *file, size_t size)
{
	if (size < 0x270)
		return;
	put_u16(file + 0x1fe, 0xaa55);
	memcpy(file + 0x202, "HdrS", 4);
	file[0x201] |= 0x40;
	file[0x207] = 2;
	file[0x206] |= 8;
	file[0x211] |= 1;
	if (file[0x25a] & 1)
		memset(file + 0x25b, 0, 5);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	image_run(bytes, size, repair, size & 1 ? BOOT_LINUX32 : BOOT_LINUX64, 0x1f1);
	return 0;
}
