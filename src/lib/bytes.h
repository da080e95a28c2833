/* Little-endian numbers at any alignment, in buffers that are not C objects: files and tables. */
#ifndef NADIR_LIB_BYTES_H
#define NADIR_LIB_BYTES_H

#include "arch/types.h"

static inline u16 get_u16(const u8 *p)
{
	u16 value;
	__builtin_memcpy(&value, p, sizeof(value));
	return value;
}

static inline u32 get_u32(const u8 *p)
{
	u32 value;
	__builtin_memcpy(&value, p, sizeof(value));
	return value;
}

static inline u64 get_u64(const u8 *p)
{
	u64 value;
	__builtin_memcpy(&value, p, sizeof(value));
	return value;
}

static inline void put_u16(u8 *p, u16 value)
{
	__builtin_memcpy(p, &value, sizeof(value));
}

static inline void put_u32(u8 *p, u32 value)
{
	__builtin_memcpy(p, &value, sizeof(value));
}

static inline void put_u64(u8 *p, u64 value)
{
	__builtin_memcpy(p, &value, sizeof(value));
}

/* Is [offset, offset + length) within `size` bytes? Cannot overflow. */
static inline bool range_within(u64 offset, u64 length, u64 size)
{
	return offset <= size && length <= size - offset;
}

#endif
