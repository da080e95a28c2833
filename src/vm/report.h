/* The state of a vCPU in words, for crash reports and panics. */
#ifndef NADIR_VM_REPORT_H
#define NADIR_VM_REPORT_H

#include "vcpu/vcpu.h"

/* Call line(opaque, text) for each line of the report; text has no newline and is valid during the call. Reads guest memory around
 * RIP without side effects. The vCPU must not be running. */
void report_vcpu(struct vcpu *vcpu, void (*line)(void *opaque, const char *text), void *opaque);

#endif
