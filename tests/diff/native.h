/* Running instructions natively with a given register state, and catching how they end. */
#ifndef NADIR_TESTS_NATIVE_H
#define NADIR_TESTS_NATIVE_H

/* Fixed addresses, the same in this process and in the guest. All lie below 2 GBytes, so that 32-bit code reaches them.
 */
#define CODE_ADDRESS 0x10000000
#define CODE_SIZE_BYTES 0x2000
#define DATA_ADDRESS 0x10010000
#define DATA_PAGES 4
#define CONTEXT_ADDRESS 0x10080000

/* Offsets in struct native_context, for native.S. */
#define CTX_RFLAGS (CONTEXT_ADDRESS + 128)
#define CTX_ENTRY (CONTEXT_ADDRESS + 136)
#define CTX_FAR (CONTEXT_ADDRESS + 144)
#define CTX_HOST_RSP (CONTEXT_ADDRESS + 152)
#define CTX_MASK (CONTEXT_ADDRESS + 160)
#define CTX_OUT_GPR (CONTEXT_ADDRESS + 168)
#define CTX_OUT_RFLAGS (CONTEXT_ADDRESS + 296)
#define CTX_STACK_TOP (CONTEXT_ADDRESS + 1024)
#define CTX_IN_IMAGE (CONTEXT_ADDRESS + 4096)
#define CTX_OUT_IMAGE (CONTEXT_ADDRESS + 8192)
#define CTX_INIT_IMAGE (CONTEXT_ADDRESS + 12288)

#define NATIVE_CS64 0x33
#define NATIVE_CS32 0x23

#ifndef __ASSEMBLER__

#include "arch/types.h"

struct native_context {
	u64 gpr[16];
	u64 rflags;
	u64 entry;
	u64 far32; /* 16:32 pointer */
	u64 host_rsp;
	u64 mask; /* of extended state */
	u64 out_gpr[16];
	u64 out_rflags;
	/* How it ended: vector -1 is without a fault. */
	s64 out_vector;
	u64 out_error, out_cr2, out_rip;
	u8 pad[4096 - 296 - 40];
	u8 in_image[4096], out_image[4096], init_image[4096];
};

/* The context, at its fixed address. */
#define native ((struct native_context *)CONTEXT_ADDRESS)

/* Map code, data and context, and catch signals. Call when the engine's own handlers are in place: they are asked for
 * faults outside the code page. False: the addresses are not free here. */
bool native_init(u64 xstate_mask);
/* Whether this host lets a process make a 16-bit code segment. Makes it. */
bool native_has_16bit(void);
/* Run `size` bytes of code at an offset from CODE_ADDRESS with native's in-state; bits is 64, 32 or 16. 16-bit code has RIP 0 at
 * CODE_ADDRESS. */
void native_run(const u8 *code, unsigned size, unsigned offset, unsigned bits);
/* Make a page of the data read-only, or writable again. */
void native_protect(unsigned page, bool writable);

#endif
#endif
