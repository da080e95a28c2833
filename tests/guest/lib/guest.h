/* The framework of the test guests: console, checks, and above all run(): start any code in any state at any privilege
 * level, and get back the complete state at the first exception or interrupt. A test sets up a state, runs it, and
 * compares what came out with what the manual says.
 *
 * A guest is built for 32-bit protected mode without paging, or for 64-bit mode with the low 4 GiB mapped one to one by
 * large pages that user code may use too. It starts in guest_main() at CPL 0 with interrupts off and ends with
 * finish(). Where QEMU's TCG is known to differ from the manual, the check follows the manual and says so:
 * CHECK_BUT_QEMU. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64; /* the same in both widths, for print */
typedef long long s64;
typedef unsigned long ulong; /* a general register */

#define BIT(n) (1ul << (n))
#define BIT64(n) (1ull << (n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)

#include "lib/asm.h"
#include "lib/cpu.h"
#include "lib/descriptor.h"
#include "lib/port.h"

/* ---- Console and result (console.c) ---- */

void print(const char *format, ...)
	__attribute__((format(printf, 1, 2))); /* %s %c %d %u %x %p, with width, 0 and l/ll */
_Noreturn void finish(void);                   /* the line "N passed, N failed", then the debug-exit port */
void check(bool ok, const char *file, int line, const char *text);
void check_equal(u64 got, u64 want, const char *file, int line, const char *text);
void check_deviation(bool ok, const char *why, const char *file, int line, const char *text);

#define CHECK(condition) check(condition, __FILE_NAME__, __LINE__, #condition)
#define CHECK_EQ(got, want) check_equal((u64)(got), (u64)(want), __FILE_NAME__, __LINE__, #got " == " #want)
/* A check that TCG fails: counted as a deviation there, as a check everywhere else. */
#define CHECK_BUT_QEMU(condition, why) check_deviation(condition, why, __FILE_NAME__, __LINE__, #condition)

extern bool on_qemu; /* running under TCG */
extern bool is_amd;  /* CPUID's vendor: where AMD's and Intel's manuals differ */
extern char command_line[256];
bool command_option(const char *name, u64 *value); /* "name=NUMBER" on the command line */
void guest_main(void);

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);
u64 random64(u64 *seed);

/* ---- Running code (trap.c, trap32.S, trap64.S) ---- */

/* General registers, segments and the exception frame, in the order in which the entry stub pushes them. */
struct state {
	ulong cr2;
	ulong gs, fs, es, ds;
#ifdef __x86_64__
	ulong r15, r14, r13, r12, r11, r10, r9, r8;
#endif
	ulong di, si, bp, unused, bx, dx, cx, ax;
	ulong vector, error; /* what ended the run; error is NO_ERROR where the vector has none */
	ulong ip, cs, flags, sp, ss;
};
#define NO_ERROR 0xfeedul

/* Code to run: ends with a software interrupt through a DPL 3 gate, which is how a run that does not fault ends. */
#define CODE_AS(bits, name, text)                                                                                      \
	extern u8 name[], name##_end[];                                                                                \
	asm(".pushsection .text\n.balign 16\n.code" bits "\n" #name ":\n" text "\n" #name                              \
	    "_end: int $" STRINGIFY(VECTOR_END) "\n.code" NATIVE_BITS "\n.popsection")
#define CODE(name, text) CODE_AS(NATIVE_BITS, name, text)
#define CODE16(name, text) CODE_AS("16", name, text)
#define CODE32(name, text) CODE_AS("32", name, text)
#define LABEL(name) extern u8 name[]

/* A state that starts `code` at this CPL: flat segments, test stack, flags clear, all general registers zero. */
struct state state_at(const void *code, unsigned cpl);
/* Run until the first exception, interrupt or INT without a handler; *s is the state then. */
void run(struct state *s);
/* Start `code` at this CPL and run it. */
struct state run_code(const void *code, unsigned cpl);
/* Call `handler` in interrupt context instead of ending the run; it may change the state to return to. NULL: remove. */
typedef void handler_fn(struct state *s);
void handler_set(unsigned vector, handler_fn *handler);
/* The stack for entries to CPL 0 from outside, while a run lasts; 0 (the default): one of the framework's own. */
extern ulong run_stack0;
/* Stack of the code under test (64 KiB); grows down from test_stack_top. */
extern u8 test_stack[], test_stack_top[];

#define CHECK_END(s, code) check_ended(&(s), (ulong)code##_end, __FILE_NAME__, __LINE__, #code " ends")
#define CHECK_FAULT(s, want_vector, want_error, want_ip)                                                               \
	check_fault(&(s), want_vector, want_error, (ulong)(want_ip), NULL, __FILE_NAME__, __LINE__)
#define CHECK_FAULT_BUT_QEMU(s, want_vector, want_error, want_ip, why)                                                 \
	check_fault(&(s), want_vector, want_error, (ulong)(want_ip), why, __FILE_NAME__, __LINE__)
void check_ended(const struct state *s, ulong end, const char *file, int line, const char *text);
void check_fault(const struct state *s, unsigned vector, ulong error, ulong ip, const char *why, const char *file,
		 int line);
void state_print(const struct state *s);

#endif
