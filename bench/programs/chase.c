/* Loads that depend on each other: chase COUNT follows a random cycle through 16 MiB, COUNT thousand steps. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define SIZE (4 << 20)

static uint32_t next[SIZE];

int main(int argc, char **argv)
{
	uint64_t random = 88172645463325252;
	uint32_t at = 0;

	for (uint32_t i = 0; i < SIZE; i++)
		next[i] = i;
	for (uint32_t i = SIZE - 1; i > 0; i--) { /* Sattolo's shuffle: one cycle */
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		uint32_t j = (uint32_t)(random % i), other = next[i];
		next[i] = next[j];
		next[j] = other;
	}
	for (long n = 1000 * (argc > 1 ? atol(argv[1]) : 1); n > 0; n--)
		at = next[at];
	printf("chase %u\n", at);
	return 0;
}
