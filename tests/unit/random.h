/* Random numbers of tests that can be repeated: set `seed`, which is not 0, first. */
#ifndef NADIR_TESTS_RANDOM_H
#define NADIR_TESTS_RANDOM_H

#include "arch/types.h"

static u64 seed;

static inline u64 random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

static inline bool chance(unsigned one_in)
{
	return random64() % one_in == 0;
}

#endif
