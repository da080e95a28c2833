/* Bits of paging-structure entries in all paging modes. Intel SDM volume 3, "Paging". */
#ifndef NADIR_ARCH_PAGING_H
#define NADIR_ARCH_PAGING_H

#include "arch/types.h"

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_PWT BIT(3)
#define PTE_PCD BIT(4)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_G BIT(8)
#define PTE_NX BIT(63)
#define PTE_ADDR 0x000ffffffffff000ull

#endif
