/* The four memory functions that a freestanding compiler may call anyway; the host provides them. */
#ifndef NADIR_LIB_STRING_H
#define NADIR_LIB_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

static inline size_t string_length(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}

static inline int string_equal(const char *a, const char *b)
{
	size_t n = string_length(a);
	return n == string_length(b) && !memcmp(a, b, n);
}

#endif
