/* The ELF and PVH loader on any file. */
#include "image.h"
#include "lib/bytes.h"

static void repair(u8 *file, size_t size)
{
	if (size < 64)
		return;
	bool is64 = file[4] & 1;
	memcpy(file, "\177ELF", 4);
	file[4] = 1 + is64;
	file[5] = 1;
	put_u16(file + 18, is64 ? 62 : 3);
	put_u16(file + (is64 ? 54 : 42), is64 ? 56 : 32);
	file[is64 ? 57 : 45] = 0;
	/* The program header table within the first bytes. */
	memset(file + (is64 ? 33 : 29), 0, is64 ? 7 : 3);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	image_run(bytes, size, repair, BOOT_PVH, 0);
	return 0;
}
