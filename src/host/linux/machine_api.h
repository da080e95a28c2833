/* A running VM as its control API sees it (machine_api.c). */
#ifndef NADIR_HOST_LINUX_MACHINE_API_H
#define NADIR_HOST_LINUX_MACHINE_API_H

#include "host/linux/api.h"
#include "host/linux/options.h"
#include "vm/vm.h"

#include <pthread.h>

/* Open what counters are read from: files, which confined threads cannot open. */
void machine_api_open(void);
/* Fill *api. The VM, the options and the threads of the vCPUs stay the caller's, and must be there as long as the API is used. Before confinement. */
void machine_api_init(struct api_vm *api, struct vm *vm, const struct run_options *options, const pthread_t *thread);
/* How a VM ended, in a word. */
const char *machine_end_name(enum vm_end end);
/* vm_config.event */
void machine_event(void *opaque, enum vm_event event);

#endif
