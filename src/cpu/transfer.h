/* Far control transfers between segments and privilege levels, and the fast system-call instructions (B4).
 * All set next_rip. Intel SDM volume 3, "Privilege Level Checking When Transferring Program Control Between Code Segments"; volume 2, CALL, JMP, RET, SYSCALL,
 * SYSRET, SYSENTER, SYSEXIT. */
#ifndef NADIR_CPU_TRANSFER_H
#define NADIR_CPU_TRANSFER_H

#include "vcpu/vcpu.h"

/* size: operand size in bytes (2, 4, 8). Call gates, task gates and TSS selectors included. vcpu->next_rip is the return address. */
bool transfer_far_jump(struct vcpu *vcpu, u16 selector, u64 offset, unsigned size);
bool transfer_far_call(struct vcpu *vcpu, u16 selector, u64 offset, unsigned size);
/* release: bytes of parameters dropped from the stack(s). */
bool transfer_far_return(struct vcpu *vcpu, unsigned size, u16 release);

bool transfer_syscall(struct vcpu *vcpu);
bool transfer_sysret(struct vcpu *vcpu, bool rex_w);
bool transfer_sysenter(struct vcpu *vcpu);
bool transfer_sysexit(struct vcpu *vcpu, bool rex_w);

/* Hardware task switch to the TSS of `selector` (its descriptor is read again and checked).
 * Intel SDM volume 3, "Task Switching". next_rip is the new task's EIP; vcpu->next_rip on entry is saved in the old TSS.
 * A fault past the point of no return (false) belongs to the new task: rip is its EIP then, and most other state is its own. */
enum task_reason { TASK_JUMP, TASK_CALL, TASK_IRET, TASK_EVENT };
bool task_switch(struct vcpu *vcpu, u16 selector, enum task_reason reason, bool has_error, u32 error);

#endif
