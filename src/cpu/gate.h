/* What call gates and interrupt gates have in common: the code segment they lead to and the stack of an inner level.
 * Internal to cpu/. Intel SDM volume 3, "Stack Switching", "Stack Switching in IA-32e Mode". */
#ifndef NADIR_CPU_GATE_H
#define NADIR_CPU_GATE_H

#include "cpu/descriptor.h"
#include "cpu/stack.h"

/* Read and check the code segment of a gate: DPL not above CPL, 64-bit code in IA-32e mode, present. The accessed bit is set.
 * cs->selector's RPL is still that of the gate. */
bool gate_fetch_code(struct vcpu *vcpu, u16 selector, u32 ext, struct segment *cs);
/* The stack for privilege level dpl out of the current TSS. In IA-32e mode SS becomes null. */
bool gate_inner_stack(struct vcpu *vcpu, unsigned dpl, u32 ext, struct stack *st);
/* A 64-bit stack pointer at `offset` of the TSS (RSPn or ISTn). */
bool gate_tss_rsp(struct vcpu *vcpu, unsigned offset, u32 ext, u64 *rsp);

/* Install CS with RPL = CPL = cpl. */
void gate_commit_code(struct vcpu *vcpu, struct segment *cs, u8 cpl);

#endif
