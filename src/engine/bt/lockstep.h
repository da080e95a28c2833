/* Translated code checked against step: an engine for finding the translator's mistakes.
 *
 * A stretch is what translated code does from where C enters it to where it leaves at the boundary of an instruction, chained as ever. Then
 * its stores are taken back (mmu/journal.h), the registers too, and step runs from the same beginning until it comes to the same state, in
 * registers, extended state and memory. If it never does, the blocks of the stretch are tried one by one to find the wrong one, and the run
 * ends with a report. What is not done by translated code is done once, by step, and not compared. */
#ifndef NADIR_ENGINE_BT_LOCKSTEP_H
#define NADIR_ENGINE_BT_LOCKSTEP_H

#include "vcpu/vcpu.h"

struct lockstep;

/* Before translated code is entered; where a stretch is open already, it goes on. */
void lockstep_begin(struct vcpu *vcpu);
/* The stretch, if one is open, ends at vcpu->rip, with nothing done yet of the instruction there. To be called before C changes any of the
 * guest's state. False: the state is not what it was; leave, with *go as in step_next. */
bool lockstep_check(struct vcpu *vcpu, struct exit *exit, bool *go);
/* The instruction at vcpu->rip has trapped, and will be stepped. To be called before lockstep_check. */
void lockstep_trapped(struct vcpu *vcpu);
/* The stretch cannot be compared: something was done that can be done only once. */
void lockstep_forget(struct vcpu *vcpu);

#endif
