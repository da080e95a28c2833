/* Faults of generated code: signals on an alternate stack, handed to the handler that the core has set. */
#ifndef NADIR_HOST_LINUX_TRAP_H
#define NADIR_HOST_LINUX_TRAP_H

/* Every thread that runs generated code calls this once before: generated code may use the stack pointer for something else, so
 * that signals need a stack of their own. Prints and exits if the host refuses. */
void trap_thread_init(void);

#endif
