/* Running code in real mode from a 32-bit guest (real.S). Code lies in the section .low: REAL_CODE puts it there. */
#ifndef GUEST_REAL_H
#define GUEST_REAL_H

#include "lib/guest.h"

struct real_state {
	u32 ax, cx, dx, bx, sp, bp, si, di, ip, flags;
	u32 cs, ss, ds, es, fs, gs;
	u32 vector; /* what ended the run; ip is what the interrupt frame says */
};

/* Code at LOW_SEGMENT:offset, ended by the same INT as elsewhere. */
#define REAL_CODE(name, text)                                                                                          \
	extern u8 name[], name##_end[];                                                                                \
	asm(".pushsection .low, \"awx\"\n.balign 16\n.code16\n" #name ":\n" text "\n" #name                            \
	    "_end: int $" STRINGIFY(VECTOR_END) "\n.code32\n.popsection")
#define LOW_OFFSET(symbol) ((u32)(ulong)(symbol)-LOW_BASE)

/* Free memory below 1 MiB for the tests: segment 0x4000 to 0x7fff. */
#define REAL_DATA_SEGMENT 0x4000
#define REAL_STACK_SEGMENT 0x5000

/* A state at `code`: CS is LOW_SEGMENT, data and stack segments as above, SP 0xff00. */
struct real_state real_state_at(const void *code);
/* Run until the first interrupt. The interrupt vector table is filled anew each time; real_vector_set changes it for
 * one run. */
void run_real(struct real_state *s);
void real_vector_set(unsigned vector, u16 segment, u16 offset);
/* Change an entry of the table in memory at once, as code in V86 mode with VME sees it. */
void ivt_write(unsigned vector, u16 segment, u16 offset);
extern u8 real_stubs[]; /* the handlers that end a run, 8 bytes each */
void real_state_print(const struct real_state *s);

#define CHECK_REAL_END(s, code) check_real(&(s), VECTOR_END, LOW_OFFSET(code##_end) + 2, __FILE_NAME__, __LINE__)
#define CHECK_REAL_FAULT(s, want_vector, at) check_real(&(s), want_vector, LOW_OFFSET(at), __FILE_NAME__, __LINE__)
void check_real(const struct real_state *s, unsigned vector, u32 ip, const char *file, int line);

#endif
