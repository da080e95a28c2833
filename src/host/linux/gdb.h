/* The socket at which GDB finds a VM (option --gdb). */
#ifndef NADIR_HOST_LINUX_GDB_H
#define NADIR_HOST_LINUX_GDB_H

#include "vm/vm.h"

/* Listen at `where`, which the sandbox will allow: [tcp:]HOST:PORT, PORT alone, or unix:PATH, perhaps with ,arch=x86-64, ,arch=i386 or ,arch=i8086. 0, or -1 after one sentence on stderr. */
int gdb_listen(const char *where);
/* Whoever connects may debug the VM, on a thread of its own. wait: the VM stands still until then, and its threads are not started yet. 0 or an error
 * number. */
int gdb_start(struct vm *vm, bool wait);
/* The VM has stopped: its config.debug_stopped. */
void gdb_stopped(void);
/* The VM has ended with an exit status; its vCPUs are gone. */
void gdb_finish(int status);

#endif
