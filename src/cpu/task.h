/* The hardware task switch as events and IRET ask for it. Internal to cpu/. Intel SDM volume 3, "Task Switching". */
#ifndef NADIR_CPU_TASK_H
#define NADIR_CPU_TASK_H

#include "cpu/transfer.h"

struct task_request {
	u16 selector; /* of the new TSS */
	enum task_reason reason;
	u32 ext; /* ERR_EXT in error codes */
	u64 return_rip; /* saved in the old TSS */
	u64 rflags; /* saved in the old TSS, before NT is changed */
	bool has_error; /* push an error code on the new stack */
	u32 error;
};

/* Switch. rip and next_rip are the new task's EIP from the point of no return on: a fault after it (false) is delivered in the new
 * task. */
bool task_enter(struct vcpu *vcpu, const struct task_request *request);
/* IRET with NT set: back to the task that the back link names. return_rip is that of the instruction after IRET. */
bool task_return(struct vcpu *vcpu);

#endif
