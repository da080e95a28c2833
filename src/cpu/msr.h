/* Model-specific registers by a table: name, rule, gate. Intel SDM volume 4; AMD APM volume 2, "MSRs".
 * MSRs of the local APIC (IA32_APIC_BASE, the TSC deadline, x2APIC's 0x800-0x8ff) belong to the VM's interrupt
 * controllers and are not handled here: msr_read and msr_write say MSR_UNKNOWN for them, and the dispatcher asks the
 * local APIC first. */
#ifndef NADIR_CPU_MSR_H
#define NADIR_CPU_MSR_H

#include "vcpu/vcpu.h"

#define MSR_TSC 0x10u
#define MSR_TSC_ADJUST 0x3bu
#define MSR_KVM_WALL_CLOCK 0x4b564d00u
#define MSR_KVM_SYSTEM_TIME 0x4b564d01u
#define MSR_KVM_STEAL_TIME 0x4b564d03u
#define MSR_KVM_PV_EOI 0x4b564d04u

enum msr_result { MSR_OK, MSR_FAULT /* #GP(0) */, MSR_UNKNOWN /* no such MSR: the caller logs, then #GP(0) */ };

/* Read and write as RDMSR and WRMSR do at CPL 0, on the vCPU's thread. On a result other than MSR_OK nothing has
 * changed and *value is zero. vcpu->fault may be overwritten. */
enum msr_result msr_read(struct vcpu *vcpu, u32 index, u64 *value);
enum msr_result msr_write(struct vcpu *vcpu, u32 index, u64 value);
/* The MSR's name, or NULL. Of a range (IA32_MTRR_PHYSBASEn), the name of the range. */
const char *msr_name(u32 index);

/* Set the MTRRs as firmware leaves them, for a guest that starts without one: memory is write-back, but for the device
 * space from `device_base` up to 4 GiB; that distance is a power of two. */
void msr_set_firmware_mtrrs(struct vcpu *vcpu, gpa_t device_base);

#endif
