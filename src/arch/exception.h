/* Exception vectors and error-code bits. Intel SDM volume 3, "Interrupt and Exception Handling". */
#ifndef NADIR_ARCH_EXCEPTION_H
#define NADIR_ARCH_EXCEPTION_H

#include "arch/types.h"

enum vector {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_BP = 3,
	VEC_OF = 4,
	VEC_BR = 5,
	VEC_UD = 6,
	VEC_NM = 7,
	VEC_DF = 8,
	VEC_TS = 10,
	VEC_NP = 11,
	VEC_SS = 12,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_MF = 16,
	VEC_AC = 17,
	VEC_MC = 18,
	VEC_XM = 19,
};

/* Page-fault error code. */
#define PF_P BIT(0)
#define PF_WR BIT(1)
#define PF_US BIT(2)
#define PF_RSVD BIT(3)
#define PF_ID BIT(4)

/* Selector error code. */
#define ERR_EXT BIT(0)
#define ERR_IDT BIT(1)
#define ERR_TI BIT(2)

#endif
