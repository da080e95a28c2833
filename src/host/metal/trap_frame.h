/* What an exception or interrupt stores (trap.S), in order of addresses. */
#ifndef NADIR_HOST_METAL_TRAP_FRAME_H
#define NADIR_HOST_METAL_TRAP_FRAME_H

#include "arch/types.h"

struct frame {
	u64 gpr[16]; /* by enum gpr; that of RSP means nothing */
	u64 vector, error;
	u64 rip, cs, rflags, rsp, ss;
};

#endif
