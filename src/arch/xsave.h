/* The XSAVE area as it lies in memory, in the form of 64-bit mode with REX.W (FIP and FDP of 64 bits).
 * Intel SDM volume 1, "XSAVE Area"; volume 2, FXSAVE. */
#ifndef NADIR_ARCH_XSAVE_H
#define NADIR_ARCH_XSAVE_H

#include "arch/types.h"

struct fxsave_area {
	u16 fcw, fsw;
	u8 ftw; /* abridged: a bit a register, 1: not empty */
	u8 reserved1;
	u16 fop;
	u64 fip, fdp; /* without REX.W: offset of 32 bits, selector of 16, 16 reserved */
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];
	u8 xmm[16][16];
	u8 unused[96];
};
_Static_assert(sizeof(struct fxsave_area) == 512, "FXSAVE area");
_Static_assert(offsetof(struct fxsave_area, mxcsr) == 24, "FXSAVE area");
_Static_assert(offsetof(struct fxsave_area, xmm) == 160, "FXSAVE area");

#define XCOMP_COMPACT BIT(63)

struct xsave_header {
	u64 xstate_bv;
	u64 xcomp_bv;
	u64 reserved[6];
};
_Static_assert(sizeof(struct xsave_header) == 64, "XSAVE header");

struct xsave_area {
	struct fxsave_area legacy;
	struct xsave_header header;
	u8 extended[4096 - 576];
};
_Static_assert(sizeof(struct xsave_area) == 4096, "XSAVE area");

#define FCW_INIT 0x37fu
#define FCW_RESET 0x40u
#define MXCSR_FLAGS 0x3fu /* exceptions that were seen */
#define MXCSR_INIT 0x1f80u

#endif
