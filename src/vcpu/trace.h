/* What is logged as it happens, one bit each: the VM's exits, and what a vCPU and its engine do. Set before the vCPU runs, constant afterwards. */
#ifndef NADIR_VCPU_TRACE_H
#define NADIR_VCPU_TRACE_H

#include "arch/types.h"

#define TRACE_EXITS BIT(0)
#define TRACE_IO BIT(1)
#define TRACE_MMIO BIT(2)
#define TRACE_MSR BIT(3)
#define TRACE_IRQ BIT(4) /* messages of interrupts */
#define TRACE_INT BIT(5) /* exceptions and interrupts that a vCPU delivers */
#define TRACE_EXEC BIT(6) /* blocks executed, one by one; the step engine: instructions */
#define TRACE_IN_ASM BIT(7) /* guest code translated */
#define TRACE_OUT_ASM BIT(8) /* what it became */

#define TRACE_TRANSLATED (TRACE_IN_ASM | TRACE_OUT_ASM)

#endif
