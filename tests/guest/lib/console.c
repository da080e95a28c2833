/* Console at port 0xe9, the counts of checks, the exit at port 0xf4, and the guest's start. */
#include <stdarg.h>

#include "lib/guest.h"

#define PORT_CONSOLE 0xe9
#define PORT_EXIT 0xf4
#define PORT_BOCHS_SHUTDOWN 0x8900
#define MOST_SHOWN 50 /* failures */

bool on_qemu, is_amd;
char command_line[256];
static unsigned passed, failed, deviations;

static void put(char c)
{
	outb(PORT_CONSOLE, c);
}

static void put_number(u64 value, unsigned base, unsigned width, char pad, bool negative)
{
	char digits[24];
	unsigned n = 0;
	do {
		u64 rest = base == 16 ? value & 15 : (u32)value % 10;
		digits[n++] = "0123456789abcdef"[rest];
		value = base == 16 ? value >> 4 : (u32)value / 10;
	} while (value);
	if (negative)
		digits[n++] = '-';
	while (width-- > n)
		put(pad);
	while (n)
		put(digits[--n]);
}

static void put_string(const char *s)
{
	while (*s)
		put(*s++);
}

static u64 argument(va_list *args, unsigned longs)
{
	if (longs > 1)
		return va_arg(*args, u64);
	return longs ? va_arg(*args, ulong) : va_arg(*args, unsigned);
}

/* One conversion; decimal numbers are 32 bits wide (no 64-bit division in 32-bit guests). */
static const char *conversion(const char *f, va_list *args)
{
	unsigned width = 0, longs = 0;
	char pad = *f == '0' ? '0' : ' ';
	for (; *f >= '0' && *f <= '9'; f++)
		width = width * 10 + (*f - '0');
	for (; *f == 'l'; f++)
		longs++;
	s64 number;
	switch (*f) {
	case 's':
		put_string(va_arg(*args, const char *));
		break;
	case 'c':
		put(va_arg(*args, int));
		break;
	case 'd':
		number = (int)argument(args, longs);
		put_number(number < 0 ? -number : number, 10, width, pad, number < 0);
		break;
	case 'u':
		put_number(argument(args, longs), 10, width, pad, false);
		break;
	case 'p':
		put_number((ulong)va_arg(*args, void *), 16, width, pad, false);
		break;
	case 'x':
		put_number(argument(args, longs), 16, width, pad, false);
		break;
	default:
		put(*f);
	}
	return f;
}

void print(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	for (const char *f = format; *f; f++) {
		if (*f == '%')
			f = conversion(f + 1, &args);
		else
			put(*f);
	}
	va_end(args);
}

void check(bool ok, const char *file, int line, const char *text)
{
	if (ok) {
		passed++;
		return;
	}
	if (failed++ < MOST_SHOWN)
		print("%s:%d: FAILED: %s\n", file, line, text);
}

void check_equal(u64 got, u64 want, const char *file, int line, const char *text)
{
	check(got == want, file, line, text);
	if (got != want)
		print("    got %llx, want %llx\n", got, want);
}

void check_deviation(bool ok, const char *why, const char *file, int line, const char *text)
{
	if (ok || !on_qemu) {
		check(ok, file, line, text);
		return;
	}
	if (deviations++ < 20)
		print("%s:%d: deviates: %s (%s)\n", file, line, text, why);
}

void check_ended(const struct state *s, ulong end, const char *file, int line, const char *text)
{
	bool ok = s->vector == VECTOR_END && s->ip == end + 2;
	check(ok, file, line, text);
	if (!ok)
		state_print(s);
}

void check_fault(const struct state *s, unsigned vector, ulong error, ulong ip, const char *why, const char *file,
		 int line)
{
	bool ok = s->vector == vector && s->error == error && s->ip == ip;
	if (why)
		check_deviation(ok, why, file, line, "fault");
	else
		check(ok, file, line, "fault");
	if (!ok && !(why && on_qemu)) {
		print("    want vector %u error %lx ip %lx\n", vector, error, ip);
		state_print(s);
	}
}

void state_print(const struct state *s)
{
	if (failed > MOST_SHOWN)
		return;
	print("    vector %lu error %lx cs:ip %lx:%lx flags %lx ss:sp %lx:%lx cr2 %lx\n", s->vector, s->error, s->cs,
	      s->ip, s->flags, s->ss, s->sp, s->cr2);
	print("    ax %lx bx %lx cx %lx dx %lx si %lx di %lx bp %lx ds %lx es %lx fs %lx gs %lx\n", s->ax, s->bx, s->cx,
	      s->dx, s->si, s->di, s->bp, s->ds, s->es, s->fs, s->gs);
}

void finish(void)
{
	cli();
	if (deviations)
		print("%u deviations of QEMU\n", deviations);
	print("%u passed, %u failed\n", passed, failed);
	outb(PORT_EXIT, failed || !passed ? 1 : 0);
	for (const char *p = "Shutdown"; *p; p++) /* where that port does nothing: Bochs' way */
		outb(PORT_BOCHS_SHUTDOWN, *p);
	for (;;)
		asm volatile("cli; hlt");
}

void *memcpy(void *to, const void *from, size_t size)
{
	void *result = to;
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return result;
}

void *memset(void *to, int value, size_t size)
{
	void *result = to;
	asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return result;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const volatile u8 *x = a, *y = b;
	for (size_t i = 0; i < size; i++) {
		if (x[i] != y[i])
			return x[i] - y[i];
	}
	return 0;
}

u64 random64(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* ---- Start ---- */

extern u32 boot_magic, boot_information;
extern u8 low_load[], low_start[], low_end[];
void guest_start(void);

#define MULTIBOOT_LOADED 0x2badb002u
#define PVH_MAGIC 0x336ec578u

static void copy_command_line(void)
{
	const u32 *information = (const u32 *)(ulong)boot_information;
	const char *text = NULL;
	if (boot_magic == MULTIBOOT_LOADED && (information[0] & 4))
		text = (const char *)(ulong)information[4];
	else if (boot_magic != MULTIBOOT_LOADED && information[0] == PVH_MAGIC)
		text = (const char *)(ulong)information[6];
	for (unsigned i = 0; text && text[i] && i < sizeof(command_line) - 1; i++)
		command_line[i] = text[i];
}

bool command_option(const char *name, u64 *value)
{
	for (const char *p = command_line; *p; p++) {
		const char *n = name;
		while (*n && *p == *n)
			n++, p++;
		if (!*n && *p == '=') {
			for (*value = 0, p++; *p >= '0' && *p <= '9'; p++)
				*value = *value * 10 + (*p - '0');
			return true;
		}
		while (*p && *p != ' ')
			p++;
		if (!*p)
			break;
	}
	return false;
}

void guest_start(void)
{
	copy_command_line();
	memcpy(low_start, low_load, low_end - low_start);
	struct cpuid hypervisor = cpuid(0x40000000, 0);
	u64 tcg = 0; /* a hypervisor may run on it: "tcg=1" */
	on_qemu = (CPUID_HAS(1, ecx, 31) && hypervisor.ebx == 0x54474354 /* "TCGT" */) || (command_option("tcg", &tcg) && tcg);
	is_amd = cpuid(0, 0).ebx == 0x68747541;                          /* "Auth" */
	descriptors_init();
	outb(0x21, 0xff); /* no interrupts from the PICs until a guest wants them */
	outb(0xa1, 0xff);
	guest_main();
	finish();
}
