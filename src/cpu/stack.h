/* Stack frames: pushing and popping several values on the current stack or on that of an inner privilege level, before the
 * transfer they belong to is committed. Internal to cpu/. */
#ifndef NADIR_CPU_STACK_H
#define NADIR_CPU_STACK_H

#include "vcpu/vcpu.h"

/* Values of the longest frame: a call gate's 31 parameters and two far pointers. */
#define STACK_FRAME_MAX 35

/* A stack as a transfer sees it. Nothing of it is in the vCPU until stack_commit. */
struct stack {
	struct segment ss;
	u64 sp;
	u8 width; /* bytes of the stack pointer: 2, 4 or 8 */
	u8 cpl; /* privilege of the accesses */
	u32 error; /* error code of #SS */
};

/* The stack in use; #SS has error code `ext`. */
struct stack stack_current(const struct vcpu *vcpu, u32 ext);
/* The stack a segment and a pointer give outside 64-bit mode. */
struct stack stack_of(struct segment ss, u64 sp, u8 cpl, u32 error);

/* Whether `count` values of `size` bytes fit below sp (#SS otherwise); pages are not looked at. */
bool stack_has_room(struct vcpu *vcpu, const struct stack *st, unsigned count, unsigned size);
/* Push value[0] first. The stack pointer moves on success. False: #SS or #PF. */
bool stack_push(struct vcpu *vcpu, struct stack *st, const u64 *value, unsigned count, unsigned size);
/* Pop value[0] first. */
bool stack_pop(struct vcpu *vcpu, struct stack *st, u64 *value, unsigned count, unsigned size);

static inline void stack_drop(struct stack *st, u64 bytes)
{
	st->sp = (st->sp + bytes) & size_mask(st->width);
}

/* Make sp the vCPU's: all of RSP, ESP zero-extended, or SP alone. SS is the caller's matter. */
void stack_commit(struct vcpu *vcpu, const struct stack *st);

#endif
