/* The bare machine's reading of a boot loader's tables: whatever they hold, nothing is read beyond memory, and texts and ranges are whole. */
#include "host/metal/boot_info.h"
#include "input.h"
#include "lib/bytes.h"

#include <stdlib.h>
#include <string.h>

#define BASE 0x10000u

static u8 *memory;
static size_t memory_size;

const u8 *boot_at(u64 address, u64 size)
{
	return address >= BASE && range_within(address - BASE, size, memory_size) ? memory + (address - BASE) : NULL;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t size)
{
	static struct boot_info info;
	if (!size)
		return 0;
	memory_size = size - 1;
	memory = malloc(memory_size);
	if (memory_size)
		memcpy(memory, bytes + 1, memory_size);
	memset(&info, 0, sizeof(info));
	boot_info_read(&info, bytes[0] & 1 ? 0x36d76289u : 0x2badb002u, BASE);
	CHECK(strlen(info.cmdline) < sizeof(info.cmdline) && info.ranges <= BOOT_RANGES_MAX && info.modules <= BOOT_MODULES_MAX);
	for (unsigned i = 0; i < info.ranges; i++)
		CHECK(info.ram[i].base + info.ram[i].size > info.ram[i].base);
	for (unsigned i = 0; i < info.modules; i++)
		CHECK(strlen(info.module[i].name) + strlen(info.module[i].arguments) < sizeof(info.text) &&
		      info.module[i].base + info.module[i].size >= info.module[i].base);
	free(memory);
	return 0;
}
