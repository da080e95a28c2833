/* Formatted text without a C library: %s %c %d %u %x %p %%, with flags, width, precision, and the lengths l, ll and z. */
#ifndef NADIR_HOST_METAL_PRINT_H
#define NADIR_HOST_METAL_PRINT_H

#include <stdarg.h>
#include <stddef.h>

/* As vsnprintf: what would have been written if there were room. */
int print_format(char *buffer, size_t size, const char *fmt, va_list args);

#endif
