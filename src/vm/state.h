/* A whole VM as bytes, but for its memory (state.c; H1). docs/snapshot-format.md is the contract with those who keep such bytes. */
#ifndef NADIR_VM_STATE_H
#define NADIR_VM_STATE_H

#include "vm/vm.h"

/* The state of a VM that is held and settled (vm_hold, vm_settle): how many bytes it has, and the bytes. size is what vm_state_size said, and nothing
 * was released in between. False, with one sentence in `error`: it has a device that cannot be saved. */
size_t vm_state_size(struct vm *vm);
bool vm_save(struct vm *vm, u8 *data, size_t size, char *error, size_t error_size);

/* ---- within the vm layer: vm_create's part, from vm_config.state ---- */

/* The CPU model, before vCPUs are made; then the rest. The VM is held then. False: one sentence is in `error`. */
bool vm_load_model(struct vm *vm, struct state *s, char *error, size_t error_size);
bool vm_load(struct vm *vm, struct state *s, char *error, size_t error_size);

extern const struct state_table vm_cpu_state, vm_time_state, pvclock_state;

#endif
