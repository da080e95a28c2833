/* Faults of generated code: signals on an alternate stack, handed to the handler that the core has set. */
#ifndef NADIR_HOST_LINUX_TRAP_H
#define NADIR_HOST_LINUX_TRAP_H

#include "host/port.h"

/* Every thread that runs generated code calls this once before: generated code may use the stack pointer for something
 * else, so that signals need a stack of their own. Prints and exits if the host refuses. */
void trap_thread_init(void);

/* Who is asked first about an access that the host refuses, on the signal stack: true if it is possible now. NULL: nobody. */
void trap_set_pager(bool (*pager)(u64 address));

/* What to do, on the signal stack, before a fault that the core does not claim ends the program. */
void trap_set_unclaimed(void (*unclaimed)(int signal_number, const struct host_trap *trap));

#endif
