/* A vCPU in HLT that looks out for work before it sleeps (look_out.c). */
#ifndef NADIR_VM_LOOK_OUT_H
#define NADIR_VM_LOOK_OUT_H

#include "vm/vm.h"

/* Halted since `start`: look out until `deadline` at the most, if that has paid lately. True: `has_work` said so; it is asked again whenever the vCPU was
 * kicked. This vCPU's thread, as below. */
bool vm_look_out(struct vm_cpu *cpu, u64 start, u64 deadline, bool (*has_work)(struct vm_cpu *cpu));
/* It slept, halted from `start` to `end`. */
void vm_look_out_learn(struct vm_cpu *cpu, u64 start, u64 end);

#endif
