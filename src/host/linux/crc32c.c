/* CRC-32C by SSE4.2's instruction where the processor has it, else by a table. Async-signal-safe. */
#include "host/linux/crc32c.h"

#include "lib/bytes.h"

#include <nmmintrin.h>

#define POLYNOMIAL 0x82f63b78u

__attribute__((target("sse4.2"))) static u32 by_instruction(u32 crc, const u8 *p, size_t size)
{
	u64 wide = crc;
	for (; size >= 8; size -= 8, p += 8)
		wide = _mm_crc32_u64(wide, get_u64(p));
	for (crc = (u32)wide; size; size--)
		crc = _mm_crc32_u8(crc, *p++);
	return crc;
}

/* The remainders of half bytes. */
static u32 by_table(u32 crc, const u8 *p, size_t size)
{
	u32 table[16];
	for (u32 i = 0; i < 16; i++) {
		table[i] = i;
		for (unsigned bit = 0; bit < 4; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? POLYNOMIAL : 0);
	}
	while (size--) {
		crc ^= *p++;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return crc;
}

u32 crc32c(const void *data, size_t size)
{
	return ~(__builtin_cpu_supports("sse4.2") ? by_instruction : by_table)(~0u, data, size);
}
