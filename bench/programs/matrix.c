/* A double-precision matrix product: matrix COUNT multiplies two 256 x 256 matrices COUNT times and prints a checksum. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 256

static double a[SIZE][SIZE], b[SIZE][SIZE], c[SIZE][SIZE];

static void multiply(void)
{
	memset(c, 0, sizeof c);
	for (int i = 0; i < SIZE; i++)
		for (int k = 0; k < SIZE; k++)
			for (int j = 0; j < SIZE; j++)
				c[i][j] += a[i][k] * b[k][j];
}

int main(int argc, char **argv)
{
	uint64_t sum = 0, bits;

	for (int i = 0; i < SIZE; i++)
		for (int j = 0; j < SIZE; j++) {
			a[i][j] = (i * 7 + j * 3) % 101 / 10.0;
			b[i][j] = (i * 5 + j * 11) % 103 / 7.0;
		}
	for (long n = argc > 1 ? atol(argv[1]) : 1; n > 0; n--) {
		multiply();
		memcpy(&bits, &c[n % SIZE][n * 3 % SIZE], sizeof bits);
		sum = sum * 31 + bits;
		a[n % SIZE][0] += 1.0 / (double)n;
	}
	printf("matrix %016llx\n", (unsigned long long)sum);
	return 0;
}
