/* Extended precision on the x87: x87 COUNT iterates a map of add, multiply, divide and square root; only what the standard rounds exactly. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	volatile long double start = 0.3L;
	long double x = start, y = 0.7L, sum = 0;
	uint64_t mantissa;

	for (long n = argc > 1 ? atol(argv[1]) : 1; n > 0; n--) {
		x = 3.9L * x * (1.0L - x);
		y = (y + x / (y + 0.1L)) * 0.5L;
		sum += __builtin_sqrtl(x * y + 0.001L);
	}
	memcpy(&mantissa, &sum, sizeof mantissa);
	printf("x87 %016llx %.6Lf\n", (unsigned long long)mantissa, sum);
	return 0;
}
