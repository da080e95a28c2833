/* What IRET and far RET have in common: the code and stack segments they return to. Internal to cpu/.
 * Intel SDM volume 2, IRET, RET. */
#ifndef NADIR_CPU_RETURN_H
#define NADIR_CPU_RETURN_H

#include "cpu/descriptor.h"
#include "cpu/stack.h"

/* CS to return to: never to a more privileged level. */
bool return_fetch_code(struct vcpu *vcpu, u16 selector, struct segment *cs);
/* SS to return to with `cs`. A null selector is fine for 64-bit code below CPL 3. */
bool return_fetch_stack(struct vcpu *vcpu, u16 selector, const struct segment *cs, struct segment *ss);
/* Install CS, SS and the stack pointer, and the CPL that CS names; on an outward return drop the data segments. */
void return_commit(struct vcpu *vcpu, const struct segment *cs, const struct segment *ss, u64 sp);

#endif
