/* Conversion between clocks: v * to / from without an intermediate overflow, for frequencies up to about 18 GHz.
 * Results that do not fit in 64 bits saturate. */
#ifndef NADIR_LIB_SCALE_H
#define NADIR_LIB_SCALE_H

#include "arch/types.h"

#define NANOSECONDS_PER_SECOND 1000000000ull

static inline u64 scale_parts(u64 whole, u64 part, u64 to)
{
	u64 value;
	if (__builtin_mul_overflow(whole, to, &value) || __builtin_add_overflow(value, part, &value))
		return ~0ull;
	return value;
}

static inline u64 scale_floor(u64 v, u64 to, u64 from)
{
	return scale_parts(v / from, v % from * to / from, to);
}

/* The first instant of the target clock that is not before v: scale_floor(scale_ceil(v, to, from), from, to) == v when
 * the target is the finer clock. */
static inline u64 scale_ceil(u64 v, u64 to, u64 from)
{
	return scale_parts(v / from, (v % from * to + from - 1) / from, to);
}

#endif
