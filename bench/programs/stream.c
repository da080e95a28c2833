/* The triad of the STREAM benchmark: stream COUNT runs a = b + q * c over three arrays of 16 MiB, COUNT times. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE (2 << 20)

static double a[SIZE], b[SIZE], c[SIZE];

int main(int argc, char **argv)
{
	uint64_t sum = 0, bits;

	for (int i = 0; i < SIZE; i++) {
		b[i] = i % 1000 / 8.0;
		c[i] = i % 777 / 4.0;
	}
	for (long n = argc > 1 ? atol(argv[1]) : 1; n > 0; n--) {
		double q = (double)(n % 10) + 0.5;
		for (int i = 0; i < SIZE; i++)
			a[i] = b[i] + q * c[i];
		memcpy(&bits, &a[(n * 7919) % SIZE], sizeof bits);
		sum = sum * 31 + bits;
		b[n % SIZE] = a[(n * 13) % SIZE];
	}
	printf("stream %016llx\n", (unsigned long long)sum);
	return 0;
}
