/* Formatted text (print.h). */
#include "host/metal/print.h"

#include "arch/types.h"
#include "lib/string.h"

#define NUMBER_MAX 100000 /* of widths and precisions */

struct output {
	char *buffer;
	size_t size, used;
};

struct spec {
	bool left, zero, alternate;
	int width, precision; /* -1: none */
	unsigned longs;
};

static void put(struct output *o, char c)
{
	if (o->used + 1 < o->size)
		o->buffer[o->used] = c;
	o->used++;
}

static void pad(struct output *o, int count, char c)
{
	while (count-- > 0)
		put(o, c);
}

static void put_text(struct output *o, const struct spec *s, const char *text, int length)
{
	if (!s->left)
		pad(o, s->width - length, ' ');
	for (int i = 0; i < length; i++)
		put(o, text[i]);
	if (s->left)
		pad(o, s->width - length, ' ');
}

static void put_number(struct output *o, const struct spec *s, u64 value, unsigned base, bool negative)
{
	char digits[24];
	int count = 0;
	do {
		digits[count++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	const char *prefix = negative ? "-" : s->alternate && base == 16 ? "0x" : "";
	int length = count + (int)string_length(prefix), zeros = MAX(s->precision - count, 0);
	if (s->zero && !s->left && s->precision < 0)
		zeros = MAX(s->width - length, 0);
	if (!s->left)
		pad(o, s->width - length - zeros, ' ');
	while (*prefix)
		put(o, *prefix++);
	pad(o, zeros, '0');
	for (int i = count; i-- > 0;)
		put(o, digits[i]);
	if (s->left)
		pad(o, s->width - length - zeros, ' ');
}

static int read_number(const char **fmt, va_list *args)
{
	int n = 0;
	if (**fmt == '*') {
		++*fmt;
		return va_arg(*args, int);
	}
	for (; **fmt >= '0' && **fmt <= '9'; ++*fmt)
		n = MIN(n * 10 + (**fmt - '0'), NUMBER_MAX);
	return n;
}

static struct spec read_spec(const char **fmt, va_list *args)
{
	struct spec s = { .precision = -1 };
	for (;; ++*fmt) {
		if (**fmt == '-')
			s.left = true;
		else if (**fmt == '0')
			s.zero = true;
		else if (**fmt == '#')
			s.alternate = true;
		else
			break;
	}
	s.width = read_number(fmt, args);
	if (s.width < 0) {
		s.left = true;
		s.width = -MAX(s.width, -NUMBER_MAX);
	}
	if (**fmt == '.') {
		++*fmt;
		s.precision = read_number(fmt, args);
	}
	for (; **fmt == 'l' || **fmt == 'z'; ++*fmt)
		s.longs++;
	return s;
}

static u64 take_unsigned(const struct spec *s, va_list *args)
{
	return s->longs ? va_arg(*args, u64) : va_arg(*args, unsigned);
}

static void put_signed(struct output *o, const struct spec *s, va_list *args)
{
	s64 value = s->longs ? va_arg(*args, s64) : va_arg(*args, int);
	put_number(o, s, value < 0 ? 0 - (u64)value : (u64)value, 10, value < 0);
}

static void put_string(struct output *o, const struct spec *s, const char *text)
{
	int length = 0;
	text = text ? text : "(null)";
	while ((s->precision < 0 || length < s->precision) && text[length])
		length++;
	put_text(o, s, text, length);
}

static void put_conversion(struct output *o, char conversion, struct spec *s, va_list *args)
{
	char c;
	switch (conversion) {
	case 's':
		put_string(o, s, va_arg(*args, const char *));
		break;
	case 'c':
		c = (char)va_arg(*args, int);
		put_text(o, s, &c, 1);
		break;
	case 'd':
	case 'i':
		put_signed(o, s, args);
		break;
	case 'u':
		put_number(o, s, take_unsigned(s, args), 10, false);
		break;
	case 'p':
		s->longs = 1;
		s->alternate = true;
		/* fall through */
	case 'x':
		put_number(o, s, take_unsigned(s, args), 16, false);
		break;
	default:
		put(o, conversion);
		break;
	}
}

int print_format(char *buffer, size_t size, const char *fmt, va_list given)
{
	struct output o = { buffer, size, 0 };
	va_list args;
	va_copy(args, given);
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(&o, *fmt);
			continue;
		}
		fmt++;
		struct spec s = read_spec(&fmt, &args);
		if (!*fmt)
			break;
		put_conversion(&o, *fmt, &s, &args);
	}
	va_end(args);
	if (size)
		buffer[MIN(o.used, size - 1)] = 0;
	return (int)o.used;
}
