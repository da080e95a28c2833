/* Model-specific registers that more than one layer speaks of, by their numbers. Intel SDM volume 4, "Architectural MSRs". */
#ifndef NADIR_ARCH_MSR_H
#define NADIR_ARCH_MSR_H

#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC 0x800
#define MSR_X2APIC_LAST 0x8ff
#define MSR_EFER 0xc0000080
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101

#endif
