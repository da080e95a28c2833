/* Code that is written while it runs: patched in place, beside data that it changes, and made anew function by function. Prints checksums. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef uint32_t (*function)(uint32_t);

static uint8_t *area;

/* eax = edi + value; ret */
static uint8_t *make(uint8_t *at, uint32_t value)
{
	memcpy(at, "\x8d\x87", 2);
	memcpy(at + 2, &value, 4);
	at[6] = 0xc3;
	return at + 7;
}

/* An operand of a function is changed between calls of it and of its neighbours. */
static uint32_t patch(long count)
{
	uint32_t sum = 0;
	for (unsigned i = 0; i < 64; i++)
		make(area + i * 32, i);
	for (long i = 0; i < count; i++) {
		uint32_t value = (uint32_t)i * 7;
		memcpy(area + 2, &value, 4);
		for (unsigned k = 0; k < 64; k += 8)
			sum = ((function)(area + k * 32))(sum);
	}
	return sum;
}

/* A function adds to a counter in its own page. */
static uint32_t mixed(long count)
{
	uint32_t sum = 0;
	memcpy(area, "\x01\x3d\xfa\x01\x00\x00\x8b\x05\xf4\x01\x00\x00\xc3", 13); /* add [rip + 506], edi; mov eax, [rip + 500]; ret */
	memset(area + 512, 0, 4);
	for (long i = 0; i < count; i++)
		sum += ((function)area)((uint32_t)i);
	return sum;
}

/* One function after the other, as a compiler makes them, each called some times; the area begins anew when it is full. */
static uint32_t append(long count)
{
	uint32_t sum = 0;
	uint8_t *at = area;
	for (long i = 0; i < count; i++) {
		uint8_t *begin = at;
		at = make(at, (uint32_t)i);
		for (unsigned k = 0; k < 20; k++)
			sum = ((function)begin)(sum);
		if (at > area + 65000)
			at = area;
	}
	return sum;
}

int main(int argc, char **argv)
{
	long count = argc > 2 ? atol(argv[2]) : 1;
	area = mmap(NULL, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED || argc < 2)
		return 1;
	printf("%u\n", (*argv[1] == 'p' ? patch : *argv[1] == 'm' ? mixed : append)(count));
	return 0;
}
