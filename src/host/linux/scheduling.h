/* How the host is to schedule a machine: --pin, --weight (A5). */
#ifndef NADIR_HOST_LINUX_SCHEDULING_H
#define NADIR_HOST_LINUX_SCHEDULING_H

#include "host/linux/options.h"

/* Bind this thread, and with it every thread and process that the machine is going to have, to the CPUs of --pin, and give it the weight of --weight.
 * Before there are others. 0, or -1 after one sentence on stderr. */
int scheduling_start(const struct run_options *options);

#endif
