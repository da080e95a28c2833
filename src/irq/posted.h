/* The posted-interrupt descriptor: how any thread gives a vCPU an interrupt without touching its local APIC.
 * Intel VT-d specification, "Interrupt-Posting Hardware Operation", "Posted Interrupt Descriptor (PID)"; Intel SDM
 * volume 3, "Posted-Interrupt Processing". */
#ifndef NADIR_IRQ_POSTED_H
#define NADIR_IRQ_POSTED_H

#include "arch/types.h"
#include "lib/state.h"

/* Fields of `control`. */
#define POSTED_ON BIT(0)     /* outstanding notification: the owner has been told */
#define POSTED_SN BIT(1)     /* suppress notification: the owner will look by itself */
#define POSTED_NV_SHIFT 16   /* notification vector, 8 bits */
#define POSTED_NDST_SHIFT 32 /* notification destination, 32 bits */

/* The hardware's layout. */
struct posted_descriptor {
	alignas(64) u64 pir[4]; /* posted-interrupt requests, one bit per vector */
	u64 control;
	u64 reserved[3];
};

_Static_assert(sizeof(struct posted_descriptor) == 64, "VT-d: the descriptor is 64 bytes");
_Static_assert(offsetof(struct posted_descriptor, control) == 32, "VT-d: ON is bit 256");

/* The descriptor and what hardware has no place for: which posted vectors are level-triggered (they need an EOI
 * broadcast), and requests that hardware must not take, since it knows nothing of that. All fields are accessed atomically by any thread. All zero is the empty state. */
struct posted {
	struct posted_descriptor descriptor;
	u64 level[4];
	u64 aside[4]; /* as pir */
};

/* Post a fixed interrupt, from any thread. True: the owner must be notified (kicked), which is then this caller's duty.
 */
bool posted_post(struct posted *posted, u8 vector, bool level);

/* The same where a processor takes what is in the descriptor, if the interrupt is one for software: level-triggered, or the first edge after that. False: it is not, and nothing was
 * posted. True: it was, and the owner must be kicked, out of the guest. */
bool posted_post_aside(struct posted *posted, u8 vector, bool level);

/* Whether the owner has been notified, and has not looked yet. */
static inline bool posted_outstanding(const struct posted *posted)
{
	return __atomic_load_n(&posted->descriptor.control, __ATOMIC_SEQ_CST) & POSTED_ON;
}

/* Whether anything is posted; from any thread. */
bool posted_pending(const struct posted *posted);

/* Take everything that is posted, into two sets of 256 bits: the vectors, and those of them that are level-triggered.
 * False if there was nothing. Called by the owner; what is posted during the call is either taken or notified anew. */
bool posted_drain(struct posted *posted, u64 vectors[4], u64 level[4]);

/* Suppress or allow notifications. When they are allowed again, the owner must look at posted_pending once. */
void posted_suppress(struct posted *posted, bool suppress);

extern const struct state_table posted_state;

#endif
