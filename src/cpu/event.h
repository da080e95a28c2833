/* Exceptions and interrupts: delivery through the IVT or IDT in every mode, IRET in all its forms, double and triple fault.
 * Intel SDM volume 3, "Interrupt and Exception Handling"; volume 2, INT n, IRET. */
#ifndef NADIR_CPU_EVENT_H
#define NADIR_CPU_EVENT_H

#include "vcpu/vcpu.h"

enum event_kind {
	EVENT_EXTERNAL, /* external interrupt: clears IF in effect via the gate, sets EXT in nested error codes */
	EVENT_NMI,
	EVENT_EXCEPTION, /* fault, trap or abort raised by the CPU */
	EVENT_SOFTWARE, /* INT n: gate DPL is checked; in virtual-8086 mode IOPL is checked and the redirection bitmap used */
	EVENT_SOFTWARE_EXCEPTION, /* INT3 (CC) and INTO: gate DPL is checked; nothing special in virtual-8086 mode */
	EVENT_PRIVILEGED_SOFTWARE, /* INT1: no DPL check, EXT set */
};

/* Deliver the fault in vcpu->fault at vcpu->rip (a fault: RF is set in the saved flags; DR6/CR2 are updated). Faults during delivery
 * combine into #DF by the manual's table; a fault during #DF returns false: triple fault, the vCPU's activity is SHUTDOWN. On return
 * true, rip is the handler's. */
bool event_deliver_fault(struct vcpu *vcpu);

/* Deliver vcpu->trap (a #DB trap) or another event between instructions; return address is vcpu->rip. Same result as above. A string
 * instruction that is interrupted between two iterations wants RF in the saved flags: set it in vcpu->rflags first.
 * All three end the shadow of the previous instruction and wake a halted vCPU; EVENT_NMI blocks further NMIs. */
bool event_deliver(struct vcpu *vcpu, u8 vector, enum event_kind kind);
bool event_deliver_trap(struct vcpu *vcpu);

/* INT n, INT3, INTO, INT1 as an instruction: the return address is vcpu->next_rip; sets next_rip to the handler. False: fault. A task gate
 * may change the vCPU before it faults (cpu/transfer.h). */
bool event_software_interrupt(struct vcpu *vcpu, u8 vector, enum event_kind kind);

/* IRET with an operand size of 2, 4 or 8 bytes; sets next_rip. Unblocks NMIs, even when it faults. RF is set as
 * popped, so that an engine that clears RF after each instruction must not do so after this one. */
bool event_iret(struct vcpu *vcpu, unsigned size);

#endif
