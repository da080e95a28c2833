/* Model-specific registers by a table: name, rule, gate. Intel SDM volume 4; AMD APM volume 2, "MSRs".
 * MSRs of the local APIC (IA32_APIC_BASE, the TSC deadline, x2APIC's 0x800-0x8ff) belong to the VM's interrupt controllers and are not
 * handled here: msr_read and msr_write say MSR_UNKNOWN for them, and the dispatcher asks the local APIC first. */
#ifndef NADIR_CPU_MSR_H
#define NADIR_CPU_MSR_H

#include "vcpu/vcpu.h"

enum msr_result { MSR_OK, MSR_FAULT /* #GP(0) */, MSR_UNKNOWN /* no such MSR: the caller logs, then #GP(0) */ };

enum msr_result msr_read(struct vcpu *vcpu, u32 index, u64 *value);
enum msr_result msr_write(struct vcpu *vcpu, u32 index, u64 value);
/* The MSR's name, or NULL. */
const char *msr_name(u32 index);

#endif
