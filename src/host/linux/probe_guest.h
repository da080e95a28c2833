/* The trial guest of `nadir probe`: its memory map, shared by its code and by who builds it, and how it tells its
 * results. */
#ifndef NADIR_HOST_LINUX_PROBE_GUEST_H
#define NADIR_HOST_LINUX_PROBE_GUEST_H

#define TRIAL_MEMORY 0x200000

/* Physical, and linear by the identity mapping. */
#define TRIAL_PML4 0x1000
#define TRIAL_PDPT 0x2000
#define TRIAL_PD 0x3000
#define TRIAL_PDPT_HIGH 0x4000
#define TRIAL_PML4_COPY 0x5000
#define TRIAL_GDT 0x6000
#define TRIAL_IDT 0x7000
#define TRIAL_TSS 0x8000
#define TRIAL_STACK_TOP 0xa000
#define TRIAL_PAGE_A 0xb000
#define TRIAL_PAGE_B 0xc000
#define TRIAL_PT 0xd000
#define TRIAL_CODE 0x10000

/* Linear only: physical page 0 again for user mode, a device, a page whose mapping changes, and where kernels live. */
#define TRIAL_USER_ALIAS 0x200000
#define TRIAL_MMIO 0x400040
#define TRIAL_MMIO_GPA 0x10000000
#define TRIAL_WINDOW 0x600000
#define TRIAL_HIGH_BASE 0xffffffff80000000

#define TRIAL_GDT_SIZE 0x50
#define TRIAL_TSS_SELECTOR 0x40

#define TRIAL_PORT_PASSED 0x10
#define TRIAL_PORT_FAILED 0x11
#define TRIAL_PORT_EXCEPTION 0x12
#define TRIAL_LOOP 15000
#define TRIAL_SPEED_STEP 9 /* the step of the loop */
#define TRIAL_STEPS 18     /* the last one halts */

#ifndef __ASSEMBLER__
#include "arch/types.h"

/* Fill TRIAL_MEMORY bytes of zeroed memory. The guest starts at TRIAL_CODE in 64-bit mode with CR3 = TRIAL_PML4, the
 * GDT's flat segments 0x10 and 0x18 loaded, and RSP = TRIAL_STACK_TOP. */
void probe_guest_build(u8 *memory);
#endif

#endif
