/* The step engine: the reference software engine, the slow path of other engines and their instruction emulator. */
#ifndef NADIR_ENGINE_STEP_STEP_H
#define NADIR_ENGINE_STEP_STEP_H

#include "engine/engine.h"

/* What vcpu_create and vcpu_destroy of engine_step do, for an engine that keeps its own state elsewhere but wants the
 * emulator. The calling thread runs the vCPU afterwards. */
int step_create(struct vcpu *vcpu);
void step_destroy(struct vcpu *vcpu);

/* Execute exactly one instruction (one iteration of a repeated string instruction), after delivering what is pending,
 * if anything: events count as part of the instruction that follows them. True: go on. False: *exit says why not.
 * vcpu->xsave is complete on return. */
bool step_one(struct vcpu *vcpu, struct exit *exit);

#endif
