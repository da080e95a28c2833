/* How guest instructions are executed, and what is told of it: --engine, --direct, --trace. */
#ifndef NADIR_HOST_LINUX_RUN_ENGINE_H
#define NADIR_HOST_LINUX_RUN_ENGINE_H

#include "host/linux/options.h"
#include "vm/vm.h"

/* Set engine, direct and trace. 0, or -1 after one sentence on stderr. */
int run_engine(const struct run_options *options, struct vm_config *config);

#endif
