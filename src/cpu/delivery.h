/* Delivery of one event through the IVT or IDT: what event.c decides is carried out here. Internal to cpu/.
 * Intel SDM volume 2, INT n/INTO/INT3/INT1. */
#ifndef NADIR_CPU_DELIVERY_H
#define NADIR_CPU_DELIVERY_H

#include "cpu/event.h"
#include "vcpu/vcpu.h"

struct event {
	u8 vector;
	u8 kind; /* enum event_kind */
	bool has_error;
	u32 error;
	u32 ext; /* ERR_EXT unless the program asked for the event */
	u64 payload; /* as in struct guest_fault */
	u64 return_rip;
	u64 rflags; /* to push */
};

static inline bool event_is_software(const struct event *e)
{
	return e->kind == EVENT_SOFTWARE || e->kind == EVENT_SOFTWARE_EXCEPTION;
}

/* Enter the handler in the mode the vCPU is in; *target is its RIP. False: a fault, with the vCPU unchanged unless a task switch
 * was past the point of no return. */
bool delivery(struct vcpu *vcpu, const struct event *e, u64 *target);

/* One function a mode. */
bool delivery_real(struct vcpu *vcpu, const struct event *e, u64 *target);
bool delivery_v86_interrupt(struct vcpu *vcpu, const struct event *e, u64 *target);
bool delivery_protected(struct vcpu *vcpu, const struct event *e, u64 *target);
bool delivery_long(struct vcpu *vcpu, const struct event *e, u64 *target);

#endif
