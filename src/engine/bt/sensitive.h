/* Which instructions user code must not run by itself (B3): those that CPL 3 may execute and that tell of, or depend on, state that is
 * not the guest's, without a trap: CPUID, SGDT and its kind (0F 00, 0F 01, XGETBV and RDTSCP among them), LAR, LSL, SYSENTER, RDPID, INT
 * 80H. Intel SDM volume 2. RDTSC is one of them unless the guest's time-stamp counter is the host's. */
#ifndef NADIR_ENGINE_BT_SENSITIVE_H
#define NADIR_ENGINE_BT_SENSITIVE_H

#include "arch/types.h"

/* How much of the neighbouring pages counts. */
#define SENSITIVE_BEFORE 256
#define SENSITIVE_BEHIND 16

/* The offsets in a page of 64-bit code at which such instructions begin, ascending: all of them if there are no more than `max`; returns
 * how many there are, and no more than max + 1 once they are too many. One that begins in the page before, and has its opcode in this
 * one, is too many at once. `before` and `behind` are pages too, or NULL: nothing can be executed there. Bytes that look like one count
 * only if an instruction can begin there: decoding from each of sixteen addresses in a row well before them, of which one must be an
 * instruction's, has to come upon it. What jumps into the middle of another instruction is not seen. The page must not change meanwhile. */
unsigned sensitive_sites(const u8 *page, const u8 *before, const u8 *behind, bool same_tsc, u16 *site, unsigned max);

#endif
