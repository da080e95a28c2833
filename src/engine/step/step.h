/* The step engine: the reference software engine, the slow path of other engines and their instruction emulator. */
#ifndef NADIR_ENGINE_STEP_STEP_H
#define NADIR_ENGINE_STEP_STEP_H

#include "engine/engine.h"
#include "host/port.h"

/* What vcpu_create and vcpu_destroy of engine_step do, for an engine that keeps its own state elsewhere but wants the
 * emulator. The calling thread runs the vCPU afterwards. */
/* With room for so many bytes of host code, and four times as much decoded code at most. */
int step_create(struct vcpu *vcpu, size_t code_size);
void step_destroy(struct vcpu *vcpu);
void step_rest(struct vcpu *vcpu, bool all); /* engine_ops.rest */

/* Execute exactly one instruction (one iteration of a repeated string instruction), after delivering what is pending,
 * if anything: events count as part of the instruction that follows them. True: go on. False: *exit says why not.
 * vcpu->xsave is complete on return. */
bool step_one(struct vcpu *vcpu, struct exit *exit);

/* The parts of a run, for an engine that runs most code by itself. step_enter prepares the thread (`handler` hands traps that are not its own to
 * snippet_trap); step_next does what is pending, then one
 * instruction (single) or one block; step_deliver_fault delivers vcpu->fault. True: go on. False: *exit says why not. Extended state may
 * stay live in the real registers: vector_sync (engine/step/state.h) before anything but core code runs. */
void step_enter(struct vcpu *vcpu, struct exit *exit, host_trap_handler handler);
bool step_next(struct vcpu *vcpu, struct exit *exit, bool single);
/* Log what is about to run at vcpu->rip. */
void step_trace(struct vcpu *vcpu, const char *what);
/* One instruction, or one element of a string, whatever is pending. */
bool step_instruction(struct vcpu *vcpu, struct exit *exit);
bool step_deliver_fault(struct vcpu *vcpu, struct exit *exit);
/* Whether only step_next may run the next instruction: single step, RF, the interrupt shadow, alignment checks.
 * Break and watch points are what the engine itself keeps to (vcpu/debug.h). */
bool step_needs_care(const struct vcpu *vcpu);

#endif
